#define _GNU_SOURCE
#include "luks/header.h"

#include <ctype.h>
#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "base/file.h"
#include "luks/fields.h"
#include "luks/ondisk.h"

#define BLOCK_L QS_LUKS2_BLOCK_L

/* A copy has one of nine sizes, powers of two; the second one begins where the first ends. */
#define SIZE_MIN_COPY 0x4000ULL
#define SIZE_MAX_COPY 0x400000ULL
#define USUAL_HEADER (256 << 10) /* we write two copies of 128 KiB, cryptsetup of 16 */
#define LUKS1_SLOT_ACTIVE 0x00AC71F3
#define LUKS1_SLOT_DISABLED 0x0000DEAD
#define KEY_BYTES_MAX 512 /* libcryptsetup's limit */

/* What stands where a LUKS2 copy should be. */
struct copy {
	enum qs_copy_state state;
	int error; /* -errno behind QS_COPY_IO; -ENOMEM */
	uint64_t size;
	uint64_t seqid;
	char uuid[QS_LUKS_UUID_L];
	char label[QS_LUKS_LABEL_L];
	char subsystem[QS_LUKS_LABEL_L];
	json_t *json;
	const char *text; /* behind which json is; NULL: it is of no use */
	void *bytes;      /* what was read for it, if it was not in memory */
};

struct copies {
	struct copy copy[2];
};

static void copy_done(struct copy *c)
{
	json_decref(c->json);
	free(c->bytes);
}

static void copies_done(struct copies *two)
{
	copy_done(&two->copy[0]);
	copy_done(&two->copy[1]);
}

#define REST_TRIES 3
#define REST_WAIT_US 10000 /* both copies are written within a few ms */

/* Where a header is read: from a descriptor, or, when bytes is set, from memory. */
struct source {
	int fd;
	const uint8_t *bytes;
	size_t size;
};

static bool is_uuid(const char uuid[QS_LUKS_UUID_L])
{
	for (unsigned i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? uuid[i] != '-' : !isxdigit((unsigned char)uuid[i]))
			return false;
	}
	return uuid[36] == '\0';
}

/* The fields on which everything else depends; only then is memory allocated by them. */
static bool is_plausible(const struct qs_luks2_binary *b, unsigned which, uint64_t offset)
{
	uint64_t size = be64toh(b->size);

	return be16toh(b->version) == 2 && size >= SIZE_MIN_COPY && size <= SIZE_MAX_COPY &&
	       (size & (size - 1)) == 0 && be64toh(b->offset) == offset &&
	       (which == 0 || size == offset) && is_uuid(b->uuid);
}

static bool has_sections(const json_t *json)
{
	static const char *const names[] = { "config", "digests", "keyslots", "segments",
					     "tokens" };

	for (size_t i = 0; i < QS_ARRAY_SIZE(names); i++)
		if (!json_is_object(json_object_get(json, names[i])))
			return false;
	return true;
}

/* libcryptsetup takes no copy with bytes behind its text. SIZE is at least 1. */
static bool is_zero(const char *bytes, size_t size)
{
	return bytes[0] == '\0' && memcmp(bytes, bytes + 1, size - 1) == 0;
}

/*
 * The text of a copy; FIRST is the other one, or NULL. Both hold the same text but in the middle
 * of an update, and it is parsed once.
 */
static enum qs_copy_state parse_text(const char *text, size_t size, const struct copy *first,
				     struct copy *c)
{
	size_t length = strnlen(text, size);
	uint64_t json_size;
	json_error_t problem;

	if (first && first->text && first->size == c->size &&
	    memcmp(first->text, text, size) == 0) {
		c->json = json_incref(first->json);
		return QS_COPY_OK;
	}
	if (length == size || text[0] != '{' || !is_zero(text + length, size - length))
		return QS_COPY_BAD_JSON;
	c->json = json_loadb(text, length, JSON_REJECT_DUPLICATES, &problem);
	if (!c->json && json_error_code(&problem) == json_error_out_of_memory)
		c->error = -ENOMEM;
	if (!has_sections(c->json) ||
	    !qs_fields_decimal(json_object_get(c->json, "config"), "json_size", &json_size) ||
	    json_size != size)
		return QS_COPY_BAD_JSON;
	c->text = text;
	return QS_COPY_OK;
}

/* Judge BYTES, a whole copy with its magic in place. */
static enum qs_copy_state judge(const uint8_t *bytes, const struct copy *first, struct copy *c)
{
	const struct qs_luks2_binary *b = (const void *)bytes;
	uint8_t sum[QS_LUKS2_SUM_L];
	int r = qs_luks2_checksum(bytes, c->size, sum);

	if (r == -ENOMEM)
		c->error = r;
	if (r < 0 || memcmp(sum, b->sum, sizeof(sum)) != 0)
		return QS_COPY_BAD_SUM;
	c->seqid = be64toh(b->seqid);
	memcpy(c->uuid, b->uuid, sizeof(c->uuid));
	qs_fields_printable(c->label, sizeof(c->label), b->label, sizeof(b->label));
	qs_fields_printable(c->subsystem, sizeof(c->subsystem), b->subsystem, sizeof(b->subsystem));
	return parse_text((const char *)bytes + BLOCK_L, c->size - BLOCK_L, first, c);
}

static bool is_inside(const struct source *s, uint64_t offset, uint64_t size)
{
	return offset <= s->size && size <= s->size - offset;
}

/* BLOCK_L-aligned memory, as O_DIRECT wants it, filled from OFFSET. */
static int read_aligned(const struct source *s, uint64_t offset, size_t size, void **ret)
{
	QS_AUTO(qs_auto_free) void *bytes = NULL;
	int r = 0;

	if (s->bytes && !is_inside(s, offset, size))
		return -ENODATA;
	bytes = aligned_alloc(BLOCK_L, size);
	if (!bytes)
		return -ENOMEM;
	if (s->bytes)
		memcpy(bytes, s->bytes + offset, size);
	else
		r = qs_file_pread(s->fd, bytes, size, (off_t)offset);
	if (r < 0)
		return r;
	*ret = QS_TAKE(bytes);
	return 0;
}

/* All of copy WHICH, of c->size, with its magic in place. */
static int read_copy(const struct source *s, unsigned which, uint64_t offset, struct copy *c,
		     const uint8_t **ret)
{
	const uint8_t *there = s->bytes && is_inside(s, offset, c->size) ? s->bytes + offset : NULL;
	int r;

	if (there && memcmp(there, qs_luks_magics[which], sizeof(qs_luks_magics[which])) == 0) {
		*ret = there;
		return 0;
	}
	r = read_aligned(s, offset, c->size, &c->bytes);
	if (r < 0)
		return r;
	memcpy(c->bytes, qs_luks_magics[which], sizeof(qs_luks_magics[which]));
	*ret = c->bytes;
	return 0;
}

static enum qs_copy_state unreadable(struct copy *c, int r, enum qs_copy_state if_too_short)
{
	if (r == -ENODATA)
		return if_too_short;
	c->error = r;
	return QS_COPY_IO;
}

static enum qs_copy_state look(const struct source *s, unsigned which, uint64_t offset,
			       const struct copy *first, struct copy *c)
{
	QS_AUTO(qs_auto_free) void *block = NULL;
	const uint8_t *whole = NULL;
	enum qs_copy_state state;
	struct qs_luks2_binary *b;
	bool magic;
	int r;

	r = read_aligned(s, offset, BLOCK_L, &block);
	if (r < 0)
		return unreadable(c, r, QS_COPY_ABSENT);
	b = block;
	magic = memcmp(b->magic, qs_luks_magics[which], sizeof(b->magic)) == 0;
	if (!is_plausible(b, which, offset))
		return magic ? QS_COPY_BAD_SIZE : QS_COPY_ABSENT;
	c->size = be64toh(b->size);
	r = read_copy(s, which, offset, c, &whole);
	if (r < 0)
		return unreadable(c, r, magic ? QS_COPY_BAD_SIZE : QS_COPY_ABSENT);
	state = judge(whole, first, c);
	if (magic)
		return state;
	return state == QS_COPY_OK ? QS_COPY_NO_MAGIC : QS_COPY_ABSENT;
}

/* How much a copy tells: the nine places for the second one are one after the other tried. */
static unsigned rank(enum qs_copy_state state)
{
	switch (state) {
	case QS_COPY_OK:
		return 4;
	case QS_COPY_NO_MAGIC:
		return 3;
	case QS_COPY_BAD_SIZE:
	case QS_COPY_BAD_SUM:
	case QS_COPY_BAD_JSON:
		return 2;
	case QS_COPY_IO:
		return 1;
	default:
		return 0;
	}
}

/* The second copy follows the first; where that one cannot say its size, all sizes are tried. */
static void look_for_second(const struct source *s, const struct copy *first, struct copy *ret)
{
	uint64_t from = first->state == QS_COPY_OK ? first->size : SIZE_MIN_COPY;
	uint64_t to = first->state == QS_COPY_OK ? first->size : SIZE_MAX_COPY;

	for (uint64_t offset = from; offset <= to && ret->state != QS_COPY_OK; offset *= 2) {
		struct copy c = {};

		c.state = look(s, 1, offset, first, &c);
		if (rank(c.state) > rank(ret->state)) {
			copy_done(ret);
			*ret = c;
		} else {
			copy_done(&c);
		}
		if (c.error == -ENOMEM) {
			ret->error = -ENOMEM;
			return;
		}
	}
}

/* The volume key's size stands in the keyslots that hold it. */
static unsigned key_bits(const json_t *json)
{
	const json_t *slots = json_object_get(qs_fields_digest(json), "keyslots");
	uint64_t bytes;

	for (size_t i = 0; i < json_array_size(slots); i++) {
		const char *number = json_string_value(json_array_get(slots, i));
		const json_t *slot =
			json_object_get(json_object_get(json, "keyslots"), number ? number : "");

		if (qs_fields_number(slot, "key_size", &bytes) && bytes <= KEY_BYTES_MAX)
			return (unsigned)bytes * 8;
	}
	return 0;
}

static void describe_segment(struct qs_luks_header *h)
{
	const json_t *segment = qs_fields_segment(h->json);
	const char *cipher = qs_fields_text(segment, "encryption");
	uint64_t sector_size, offset;

	if (cipher)
		qs_fields_printable(h->cipher, sizeof(h->cipher), cipher, strlen(cipher));
	if (qs_fields_number(segment, "sector_size", &sector_size) && sector_size <= BLOCK_L)
		h->sector_size = (unsigned)sector_size;
	if (qs_fields_decimal(segment, "offset", &offset))
		h->data_offset = offset;
	h->key_size = key_bits(h->json);
}

static void adopt(struct copies *two, struct qs_luks_header *h)
{
	struct copy *first = &two->copy[0], *second = &two->copy[1];
	bool both = first->state == QS_COPY_OK && second->state == QS_COPY_OK;
	struct copy *best = rank(second->state) > rank(first->state) ? second : first;

	if (both && second->seqid > first->seqid)
		best = second;
	h->copies_differ = both && first->seqid != second->seqid;
	h->copy[0] = first->state;
	h->copy[1] = second->state;
	if (rank(best->state) < rank(QS_COPY_NO_MAGIC))
		return;
	memcpy(h->uuid, best->uuid, sizeof(h->uuid));
	memcpy(h->label, best->label, sizeof(h->label));
	memcpy(h->subsystem, best->subsystem, sizeof(h->subsystem));
	h->seqid = best->seqid;
	h->metadata_size = best->size;
	if (best->state != QS_COPY_OK)
		return;
	h->version = 2;
	h->json = QS_TAKE(best->json);
	describe_segment(h);
}

static int read_luks2(const struct source *s, bool both, struct qs_luks_header *h,
		      struct qs_error *err)
{
	QS_AUTO(copies_done) struct copies two = {};
	struct copy *first = &two.copy[0], *second = &two.copy[1];

	first->state = look(s, 0, 0, NULL, first);
	if (both || first->state != QS_COPY_OK)
		look_for_second(s, first, second);
	if (first->error == -ENOMEM || second->error == -ENOMEM)
		return qs_fail(err, QS_E_MEMORY, "no memory to read the LUKS header");
	if (first->state == QS_COPY_IO && second->state != QS_COPY_OK)
		return qs_fail_errno(err, first->error, "cannot read the LUKS header");
	adopt(&two, h);
	return 0;
}

static bool are_luks1_slots_plausible(const struct qs_luks1_binary *b)
{
	for (unsigned i = 0; i < QS_ARRAY_SIZE(b->slots); i++) {
		uint32_t active = be32toh(b->slots[i].active);

		if (active == LUKS1_SLOT_DISABLED)
			continue;
		if (active != LUKS1_SLOT_ACTIVE || b->slots[i].iterations == 0 ||
		    be32toh(b->slots[i].stripes) != QS_LUKS1_STRIPES)
			return false;
	}
	return true;
}

static bool is_luks1_plausible(const struct qs_luks1_binary *b)
{
	uint32_t key_size = be32toh(b->key_size);

	return key_size > 0 && key_size <= KEY_BYTES_MAX && is_uuid(b->uuid) &&
	       memchr(b->cipher, '\0', sizeof(b->cipher)) &&
	       memchr(b->mode, '\0', sizeof(b->mode)) && are_luks1_slots_plausible(b);
}

static void describe_luks1(const struct qs_luks1_binary *b, struct qs_luks_header *h)
{
	QS_AUTO(qs_auto_free) char *cipher = qs_printf("%s-%s", b->cipher, b->mode);

	h->version = 1;
	h->copy[0] = QS_COPY_OK;
	memcpy(h->uuid, b->uuid, sizeof(h->uuid));
	qs_fields_printable(h->cipher, sizeof(h->cipher), cipher, strlen(cipher));
	h->key_size = be32toh(b->key_size) * 8;
	h->sector_size = 512;
	h->data_offset = be32toh(b->payload_offset) * 512ULL;
	h->luks1_area_size = (h->key_size / 8ULL * QS_LUKS1_STRIPES + 511) / 512 * 512;
	h->luks1_digest_iterations = be32toh(b->digest_iterations);
	for (unsigned i = 0; i < QS_ARRAY_SIZE(b->slots); i++) {
		h->luks1_area[i] = be32toh(b->slots[i].area_offset) * 512ULL;
		if (be32toh(b->slots[i].active) == LUKS1_SLOT_ACTIVE)
			h->luks1_iterations[i] = be32toh(b->slots[i].iterations);
	}
}

/*
 * Nothing is locked here. A tool that changes the header writes one copy behind the other, so who
 * reads one and then the other just then may see both of them half-written.
 */
static int read_luks2_at_rest(const struct source *s, bool both, struct qs_luks_header *ret,
			      struct qs_error *err)
{
	int r = read_luks2(s, both, ret, err);

	for (int i = 1; r == 0 && i < REST_TRIES && !s->bytes && ret->version == 0 &&
			qs_luks_header_is_trace(ret);
	     i++) {
		qs_luks_header_done(ret);
		(void)usleep(REST_WAIT_US);
		r = read_luks2(s, both, ret, err);
	}
	return r;
}

static int read_header(const struct source *s, bool both, struct qs_luks_header *ret,
		       struct qs_error *err)
{
	QS_AUTO(qs_auto_free) void *block = NULL;
	struct qs_luks_header h = {};
	const struct qs_luks1_binary *b;
	int r;

	r = read_aligned(s, 0, BLOCK_L, &block);
	b = block;
	if (r == 0 && memcmp(b->magic, qs_luks_magics[0], sizeof(b->magic)) == 0 &&
	    be16toh(b->version) == 1 && is_luks1_plausible(b)) {
		describe_luks1(b, &h);
		*ret = h;
		return 0;
	}
	r = read_luks2_at_rest(s, both, &h, err);
	if (r < 0)
		return r;
	*ret = h;
	return 0;
}

int qs_luks_header_read(int fd, struct qs_luks_header *ret, struct qs_error *err)
{
	const struct source source = { .fd = fd };

	return read_header(&source, true, ret, err);
}

int qs_luks_header_judge(const void *bytes, size_t size, struct qs_luks_header *ret,
			 struct qs_error *err)
{
	const struct source source = { .fd = -1, .bytes = bytes, .size = size };

	return read_header(&source, true, ret, err);
}

int qs_luks_header_peek(int fd, struct qs_luks_header *ret, struct qs_error *err)
{
	const struct source source = { .fd = fd };

	return read_header(&source, false, ret, err);
}

void qs_luks_header_ask(int fd)
{
	/* Both copies of the sizes that are in use, and where the second of others would begin. */
	(void)posix_fadvise(fd, 0, USUAL_HEADER, POSIX_FADV_WILLNEED);
	for (off_t offset = USUAL_HEADER; offset <= (off_t)SIZE_MAX_COPY; offset *= 2)
		(void)posix_fadvise(fd, offset, BLOCK_L, POSIX_FADV_WILLNEED);
}

bool qs_luks_header_is_trace(const struct qs_luks_header *h)
{
	return h->version > 0 || h->copy[0] > QS_COPY_OK || h->copy[1] > QS_COPY_OK;
}

void qs_luks_header_done(struct qs_luks_header *h)
{
	json_decref(h->json);
	*h = (struct qs_luks_header){};
}
