#include "ttlv/ttlv.h"

#include <string.h>

#define TAG_L 3
#define PAD 8U

static size_t padded(size_t size)
{
	return (size + PAD - 1) / PAD * PAD;
}

static uint32_t load(const unsigned char *from, size_t bytes)
{
	uint32_t value = 0;

	for (size_t i = 0; i < bytes; i++)
		value = value << 8 | from[i];
	return value;
}

static void store(unsigned char *to, uint32_t value, size_t bytes)
{
	for (size_t i = bytes; i > 0; i--) {
		to[i - 1] = (unsigned char)value;
		value >>= 8;
	}
}

/* ---- writing ---- */

/* Room for an item whose value has SIZE bytes, header written and padding zeroed. */
static unsigned char *append(struct qs_ttlv_writer *w, uint32_t tag, enum qs_ttlv_type type,
			     size_t size)
{
	unsigned char *at = w->data + w->used;

	if (w->full || size > QS_TTLV_MESSAGE_MAX ||
	    QS_TTLV_HEADER_L + padded(size) > w->size - w->used) {
		w->full = true;
		return NULL;
	}
	store(at, tag, TAG_L);
	at[TAG_L] = (unsigned char)type;
	store(at + TAG_L + 1, (uint32_t)size, 4);
	memset(at + QS_TTLV_HEADER_L, 0, padded(size));
	w->used += QS_TTLV_HEADER_L + padded(size);
	return at + QS_TTLV_HEADER_L;
}

void qs_ttlv_begin(struct qs_ttlv_writer *w, uint32_t tag)
{
	if (w->depth >= QS_TTLV_DEPTH_MAX)
		w->full = true;
	if (append(w, tag, QS_TTLV_STRUCTURE, 0))
		w->open[w->depth++] = w->used;
}

void qs_ttlv_end(struct qs_ttlv_writer *w)
{
	size_t start;

	if (w->full || w->depth == 0)
		return;
	start = w->open[--w->depth];
	store(w->data + start - 4, (uint32_t)(w->used - start), 4);
}

static void put_word(struct qs_ttlv_writer *w, uint32_t tag, enum qs_ttlv_type type, uint32_t value)
{
	unsigned char *at = append(w, tag, type, 4);

	if (at)
		store(at, value, 4);
}

void qs_ttlv_integer(struct qs_ttlv_writer *w, uint32_t tag, int32_t value)
{
	put_word(w, tag, QS_TTLV_INTEGER, (uint32_t)value);
}

void qs_ttlv_enumeration(struct qs_ttlv_writer *w, uint32_t tag, uint32_t value)
{
	put_word(w, tag, QS_TTLV_ENUMERATION, value);
}

static void put(struct qs_ttlv_writer *w, uint32_t tag, enum qs_ttlv_type type, const void *value,
		size_t size)
{
	unsigned char *at = append(w, tag, type, size);

	if (at)
		memcpy(at, value, size);
}

void qs_ttlv_boolean(struct qs_ttlv_writer *w, uint32_t tag, bool value)
{
	unsigned char *at = append(w, tag, QS_TTLV_BOOLEAN, 8);

	if (at)
		at[7] = value;
}

void qs_ttlv_text(struct qs_ttlv_writer *w, uint32_t tag, const char *value)
{
	put(w, tag, QS_TTLV_TEXT, value, strlen(value));
}

void qs_ttlv_text_bytes(struct qs_ttlv_writer *w, uint32_t tag, const void *value, size_t size)
{
	put(w, tag, QS_TTLV_TEXT, value, size);
}

void qs_ttlv_bytes(struct qs_ttlv_writer *w, uint32_t tag, const void *value, size_t size)
{
	put(w, tag, QS_TTLV_BYTES, value, size);
}

/* ---- reading ---- */

int qs_ttlv_length(const unsigned char *header, uint32_t tag, size_t *ret, struct qs_error *err)
{
	uint32_t length = load(header + TAG_L + 1, 4);

	if (load(header, TAG_L) != tag || header[TAG_L] != QS_TTLV_STRUCTURE)
		return qs_fail(err, QS_E_FAILED, "the answer is no KMIP message");
	if (length > QS_TTLV_MESSAGE_MAX - QS_TTLV_HEADER_L || length % PAD != 0)
		return qs_fail(
			err, QS_E_FAILED,
			"the answer claims to have %u bytes, more than the %d of the longest "
			"that is read, or no multiple of 8",
			(unsigned)length, QS_TTLV_MESSAGE_MAX);
	*ret = QS_TTLV_HEADER_L + length;
	return 0;
}

static bool is_right_size(enum qs_ttlv_type type, size_t size)
{
	switch (type) {
	case QS_TTLV_STRUCTURE:
		return size % PAD == 0;
	case QS_TTLV_BIG:
		return size % PAD == 0 && size > 0;
	case QS_TTLV_INTEGER:
	case QS_TTLV_ENUMERATION:
	case QS_TTLV_INTERVAL:
		return size == 4;
	case QS_TTLV_LONG:
	case QS_TTLV_BOOLEAN:
	case QS_TTLV_DATE:
	case QS_TTLV_DATE_EXTENDED:
		return size == 8;
	case QS_TTLV_TEXT:
	case QS_TTLV_BYTES:
		return true;
	default:
		return false;
	}
}

/* The item at DATA, of which SIZE bytes are there. False: they do not hold one. */
static bool take(const unsigned char *data, size_t size, struct qs_ttlv *ret)
{
	size_t length;

	if (size < QS_TTLV_HEADER_L)
		return false;
	length = load(data + TAG_L + 1, 4);
	if (length > size - QS_TTLV_HEADER_L || padded(length) > size - QS_TTLV_HEADER_L)
		return false;
	*ret = (struct qs_ttlv){
		.tag = load(data, TAG_L),
		.type = (enum qs_ttlv_type)data[TAG_L],
		.value = data + QS_TTLV_HEADER_L,
		.size = length,
	};
	return is_right_size(ret->type, length);
}

/*
 * The bytes are walked once from front to back: where a structure begins, its children follow.
 * ENDS holds the ends of the structures that are open, as offsets.
 */
int qs_ttlv_check(const unsigned char *data, size_t size, struct qs_ttlv *ret, struct qs_error *err)
{
	size_t ends[QS_TTLV_DEPTH_MAX + 1] = { size };
	size_t at = 0, depth = 0;
	struct qs_ttlv item;

	if (size > QS_TTLV_MESSAGE_MAX || !take(data, size, ret) ||
	    QS_TTLV_HEADER_L + padded(ret->size) != size)
		return qs_fail(err, QS_E_FAILED, "the answer is cut or no KMIP message");
	while (at < size) {
		if (at == ends[depth]) {
			depth--;
			continue;
		}
		if (!take(data + at, ends[depth] - at, &item))
			return qs_fail(err, QS_E_FAILED, "the answer is malformed at byte %zu", at);
		at += QS_TTLV_HEADER_L;
		if (item.type != QS_TTLV_STRUCTURE) {
			at += padded(item.size);
			continue;
		}
		if (depth == QS_TTLV_DEPTH_MAX)
			return qs_fail(err, QS_E_FAILED,
				       "the answer is nested deeper than %d structures",
				       QS_TTLV_DEPTH_MAX);
		ends[++depth] = at + item.size;
	}
	return 0;
}

bool qs_ttlv_next(const struct qs_ttlv *structure, size_t *at, struct qs_ttlv *ret)
{
	if (structure->type != QS_TTLV_STRUCTURE || *at >= structure->size ||
	    !take(structure->value + *at, structure->size - *at, ret))
		return false;
	*at += QS_TTLV_HEADER_L + padded(ret->size);
	return true;
}

bool qs_ttlv_find(const struct qs_ttlv *structure, uint32_t tag, struct qs_ttlv *ret)
{
	size_t at = 0;

	while (qs_ttlv_next(structure, &at, ret))
		if (ret->tag == tag)
			return true;
	return false;
}

bool qs_ttlv_find_structure(const struct qs_ttlv *structure, uint32_t tag, struct qs_ttlv *ret)
{
	return qs_ttlv_find(structure, tag, ret) && ret->type == QS_TTLV_STRUCTURE;
}

uint32_t qs_ttlv_word(const struct qs_ttlv *item)
{
	return load(item->value, 4);
}

static bool find_word(const struct qs_ttlv *structure, uint32_t tag, enum qs_ttlv_type type,
		      uint32_t *ret)
{
	struct qs_ttlv item;

	if (!qs_ttlv_find(structure, tag, &item) || item.type != type)
		return false;
	*ret = qs_ttlv_word(&item);
	return true;
}

bool qs_ttlv_find_integer(const struct qs_ttlv *structure, uint32_t tag, int32_t *ret)
{
	uint32_t word;

	if (!find_word(structure, tag, QS_TTLV_INTEGER, &word))
		return false;
	*ret = (int32_t)word;
	return true;
}

bool qs_ttlv_find_enumeration(const struct qs_ttlv *structure, uint32_t tag, uint32_t *ret)
{
	return find_word(structure, tag, QS_TTLV_ENUMERATION, ret);
}

bool qs_ttlv_find_text(const struct qs_ttlv *structure, uint32_t tag, char *ret, size_t size)
{
	struct qs_ttlv item;

	if (!qs_ttlv_find(structure, tag, &item) || item.type != QS_TTLV_TEXT ||
	    item.size >= size || memchr(item.value, '\0', item.size))
		return false;
	memcpy(ret, item.value, item.size);
	ret[item.size] = '\0';
	return true;
}
