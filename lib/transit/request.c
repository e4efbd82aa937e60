/*
 * Bodies of requests, in locked memory from their first byte on.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "transit/message.h"

#define ITEM_L 64 /* bytes of an item beside its text or key, with a version of ten digits */
#define KEY_BASE64_L ((QS_TRANSIT_KEY_L + 2UL) / 3 * 4)

bool qs_transit_is_text(const char *text)
{
	for (const char *p = text; *p; p++)
		if (*p < '!' || *p > '~' || *p == '"' || *p == '\\')
			return false;
	return *text && strlen(text) < QS_TRANSIT_TEXT_L;
}

/* A body that grows inside of what was allocated. */
struct body {
	struct qs_secret memory;
	size_t used;
};

static void add(struct body *b, const void *data, size_t size)
{
	memcpy((char *)b->memory.data + b->used, data, size);
	b->used += size;
}

static void add_text(struct body *b, const char *text)
{
	add(b, text, strlen(text));
}

static void finish(struct body *b, struct qs_secret *ret)
{
	*ret = qs_secret_move(&b->memory);
	ret->size = b->used;
}

int qs_transit_write_login(const char *role, const struct qs_secret *secret_id,
			   struct qs_secret *ret, struct qs_error *err)
{
	struct body b = {};
	int r = qs_secret_init(&b.memory, ITEM_L + strlen(role) + secret_id->size, err);

	if (r < 0)
		return r;
	add_text(&b, "{\"role_id\":\"");
	add_text(&b, role);
	add_text(&b, "\",\"secret_id\":\"");
	add(&b, secret_id->data, secret_id->size);
	add_text(&b, "\"}");
	finish(&b, ret);
	return 0;
}

int qs_transit_write_lookup(const struct qs_secret *secret_id, struct qs_secret *ret,
			    struct qs_error *err)
{
	struct body b = {};
	int r = qs_secret_init(&b.memory, ITEM_L + secret_id->size, err);

	if (r < 0)
		return r;
	add_text(&b, "{\"secret_id\":\"");
	add(&b, secret_id->data, secret_id->size);
	add_text(&b, "\"}");
	finish(&b, ret);
	return 0;
}

static int begin(struct body *b, size_t count, size_t each, struct qs_error *err)
{
	int r = qs_secret_init(&b->memory, ITEM_L + count * (ITEM_L + each), err);

	if (r == 0)
		add_text(b, "{\"batch_input\":");
	return r;
}

static void end_with_version(unsigned version, char ret[ITEM_L])
{
	(void)snprintf(ret, ITEM_L, "\",\"key_version\":%u}", version);
}

int qs_transit_write_encrypt(const struct qs_transit_item *items, size_t count, unsigned version,
			     struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret text = {};
	struct body b = {};
	char end[ITEM_L];
	int r = begin(&b, count, KEY_BASE64_L, err);

	end_with_version(version, end);
	for (size_t i = 0; r == 0 && i < count; i++) {
		const struct qs_secret key = { (void *)items[i].key, sizeof(items[i].key) };

		qs_secret_done(&text);
		r = qs_base64_encode_secret(&key, &text, err);
		if (r < 0)
			break;
		add_text(&b, i ? ",{\"plaintext\":\"" : "[{\"plaintext\":\"");
		add(&b, text.data, text.size);
		add_text(&b, end);
	}
	if (r < 0) {
		qs_secret_done(&b.memory);
		return r;
	}
	add_text(&b, "]}");
	finish(&b, ret);
	return 0;
}

/* Each with END behind its text. */
static int write_texts(const struct qs_transit_item *items, size_t count, const char *end,
		       struct qs_secret *ret, struct qs_error *err)
{
	struct body b = {};
	int r = begin(&b, count, QS_TRANSIT_TEXT_L, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < count; i++) {
		add_text(&b, i ? ",{\"ciphertext\":\"" : "[{\"ciphertext\":\"");
		add_text(&b, items[i].text);
		add_text(&b, end);
	}
	add_text(&b, "]}");
	finish(&b, ret);
	return 0;
}

int qs_transit_write_decrypt(const struct qs_transit_item *items, size_t count,
			     struct qs_secret *ret, struct qs_error *err)
{
	return write_texts(items, count, "\"}", ret, err);
}

int qs_transit_write_rewrap(const struct qs_transit_item *items, size_t count, unsigned version,
			    struct qs_secret *ret, struct qs_error *err)
{
	char end[ITEM_L];

	end_with_version(version, end);
	return write_texts(items, count, end, ret, err);
}

int qs_transit_write_datakey(struct qs_secret *ret, struct qs_error *err)
{
	struct body b = {};
	char text[ITEM_L];
	int r = qs_secret_init(&b.memory, sizeof(text), err);

	if (r < 0)
		return r;
	(void)snprintf(text, sizeof(text), "{\"bits\":%d}", QS_TRANSIT_KEY_L * 8);
	add_text(&b, text);
	finish(&b, ret);
	return 0;
}
