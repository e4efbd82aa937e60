#include "luks/fingerprint.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "luks/fields.h"

#define VERSION 1

int qs_fingerprint_digest(const struct qs_secret *key, struct qs_secret *ret, struct qs_error *err)
{
	unsigned size = 0;
	int r = qs_secret_init(ret, QS_FINGERPRINT_SIZE, err);

	if (r < 0)
		return r;
	if (EVP_Digest(key->data, key->size, ret->data, &size, EVP_sha256(), NULL) == 1)
		return 0;
	qs_secret_done(ret);
	return qs_fail(err, QS_E_FAILED, "OpenSSL cannot compute SHA-256");
}

int qs_fingerprint_make(const struct qs_secret *digest, const char *uuid,
			unsigned char ret[static QS_FINGERPRINT_SIZE], struct qs_error *err)
{
	unsigned size = 0;

	if (HMAC(EVP_sha256(), digest->data, (int)digest->size, (const unsigned char *)uuid,
		 strlen(uuid), ret, &size))
		return 0;
	return qs_fail(err, QS_E_FAILED, "OpenSSL cannot compute HMAC-SHA-256");
}

json_t *qs_fingerprint_token(const struct qs_fingerprint *print)
{
	char hex[2 * QS_FINGERPRINT_SIZE + 1], slot[16];

	for (size_t i = 0; i < QS_FINGERPRINT_SIZE; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", print->sum[i]);
	(void)snprintf(slot, sizeof(slot), "%d", print->slot);
	return json_pack("{s:s, s:[s], s:i, s:s}", "type", QS_FINGERPRINT_TYPE, "keyslots", slot,
			 "version", VERSION, "fingerprint", hex);
}

/* One lower-case digit, or -1. */
static int hex_digit(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

static bool parse_hex(const char *text, unsigned char ret[static QS_FINGERPRINT_SIZE])
{
	if (!text || strlen(text) != (size_t)2 * QS_FINGERPRINT_SIZE)
		return false;
	for (size_t i = 0; i < QS_FINGERPRINT_SIZE; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		ret[i] = (unsigned char)(high << 4 | low);
	}
	return true;
}

/* Exactly one keyslot, which the header has. */
static bool parse_slot(const json_t *json, const json_t *slots, int *ret)
{
	const char *number = json_string_value(json_array_get(slots, 0));

	if (!number || json_array_size(slots) != 1 ||
	    !json_object_get(json_object_get(json, "keyslots"), number))
		return false;
	*ret = qs_fields_slot(number);
	return *ret >= 0;
}

static bool parse_token(const json_t *json, const json_t *token, struct qs_fingerprint *ret)
{
	const char *type = qs_fields_text(token, "type");
	uint64_t version;

	return type && strcmp(type, QS_FINGERPRINT_TYPE) == 0 &&
	       qs_fields_number(token, "version", &version) && version == VERSION &&
	       parse_slot(json, json_object_get(token, "keyslots"), &ret->slot) &&
	       parse_hex(qs_fields_text(token, "fingerprint"), ret->sum);
}

size_t qs_fingerprint_read(const json_t *json, struct qs_fingerprint *ret, size_t max)
{
	json_t *tokens = json_object_get(json, "tokens");
	const char *number;
	json_t *token;
	size_t n = 0;

	json_object_foreach(tokens, number, token)
	{
		struct qs_fingerprint print;

		if (n < max && qs_fields_slot(number) >= 0 && parse_token(json, token, &print))
			ret[n++] = print;
	}
	return n;
}
