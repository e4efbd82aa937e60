#include "keystore/token.h"

#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/env.h"
#include "keystore/jwe.h"
#include "keystore/provider.h"
#include "luks/fields.h"
#include "luks/kind.h"
#include "transit/message.h"

#define VERSION 1

/* Bytes: of AES-GCM (RFC 7518, 4.7 and 5.3), of its key, and of our plaintext and headers. */
#define IV_L 12
#define TAG_L 16
#define CEK_L 32
#define PLAIN_MIN 64
#define PLAIN_MAX 1024
#define TEXT_MAX 256

static int bad(const char *field, struct qs_error *err)
{
	return qs_fail(err, QS_E_DAMAGED,
		       "the keystore token's field %s is missing or malformed; enrol the device "
		       "anew (cryptenroll --keystore)",
		       field);
}

bool qs_keystore_token_is(const json_t *json)
{
	const char *type = qs_fields_text(json, "type");

	return type && strcmp(type, QS_KEYSTORE_TOKEN_TYPE) == 0;
}

const json_t *qs_keystore_token_find(const json_t *metadata, int *ret_number)
{
	json_t *tokens = json_object_get(metadata, "tokens");

	for (int i = 0; i < 32; i++) {
		char number[16];
		const json_t *token;

		(void)snprintf(number, sizeof(number), "%d", i);
		token = json_object_get(tokens, number);
		if (!qs_keystore_token_is(token))
			continue;
		*ret_number = i;
		return token;
	}
	return NULL;
}

/* ---- the JWE ---- */

/* FIELD decodes to MIN to MAX bytes; *ret (may be NULL) gets them. */
static bool has_bytes(const json_t *json, const char *field, size_t min, size_t max,
		      struct qs_bytes *ret)
{
	QS_AUTO(qs_bytes_done) struct qs_bytes bytes = {};
	const char *text = qs_fields_text(json, field);

	if (!text || strlen(text) != json_string_length(json_object_get(json, field)) ||
	    qs_base64url_decode(text, max, &bytes) < 0 || bytes.size < min)
		return false;
	if (ret) {
		*ret = bytes;
		bytes = (struct qs_bytes){};
	}
	return true;
}

static bool is_text(const json_t *json, const char *field, const char *text)
{
	const char *found = qs_fields_text(json, field);

	return found && strcmp(found, text) == 0;
}

/*
 * "STORE/GENERATION". Where the wrapped content key itself says which version of its server's key
 * has wrapped it, any generation: it can have been rewrapped since, and unwrapping compares.
 */
static bool is_kid(const json_t *protected, const struct qs_keystore_token *t)
{
	QS_AUTO(qs_auto_free) char *kid = qs_keystore_kid(t->store, t->generation);
	const char *found = qs_fields_text(protected, "kid");
	const char *wrapped = qs_jwe_wrapped(t->jwe);
	size_t store = strlen(t->store) + 1;

	if (!found || !wrapped || strcmp(t->provider, qs_provider_vault.name) != 0 ||
	    !qs_transit_says_version(wrapped))
		return found && strcmp(found, kid) == 0;
	return strncmp(found, kid, store) == 0 && found[store] &&
	       strspn(found + store, "0123456789") == strlen(found + store);
}

/* What is authenticated besides the ciphertext; a new reference, NULL: not of our form. */
static json_t *read_protected(const struct qs_keystore_token *t)
{
	QS_AUTO(qs_bytes_done) struct qs_bytes text = {};
	QS_AUTO(qs_auto_json) json_t *json = NULL;

	if (!has_bytes(t->jwe, "protected", 1, TEXT_MAX, &text))
		return NULL;
	json = json_loadb((char *)text.data, text.size, JSON_REJECT_DUPLICATES, NULL);
	return json_object_size(json) == 4 &&
			       is_text(json, "alg",
				       qs_jwe_wrapped(t->jwe) ? QS_JWE_ALG_CONTENT : QS_JWE_ALG) &&
			       is_text(json, "enc", QS_JWE_ENC) && is_kid(json, t) &&
			       qs_fields_text(json, QS_JWE_VOLUME)
		       ? QS_TAKE(json)
		       : NULL;
}

const char *qs_jwe_wrapped(const json_t *jwe)
{
	return qs_fields_text(json_object_get(jwe, "header"), QS_JWE_WRAPPED);
}

/* Encrypted to a KEK that the provider hands out. */
static int check_by_kek(const struct qs_keystore_token *t, struct qs_error *err)
{
	const json_t *header = json_object_get(t->jwe, "header");

	if (json_object_size(t->jwe) != 6)
		return bad("jwe", err);
	if (json_object_size(header) != 2 || !has_bytes(header, "iv", IV_L, IV_L, NULL) ||
	    !has_bytes(header, "tag", TAG_L, TAG_L, NULL))
		return bad("jwe.header", err);
	if (!has_bytes(t->jwe, "encrypted_key", CEK_L, CEK_L, NULL))
		return bad("jwe.encrypted_key", err);
	return 0;
}

/* With a content key that the provider wrapped: text that only it understands. */
static int check_by_content_key(const struct qs_keystore_token *t, const char *wrapped,
				struct qs_error *err)
{
	if (json_object_size(t->jwe) != 5)
		return bad("jwe", err);
	if (json_object_size(json_object_get(t->jwe, "header")) != 1 || !*wrapped ||
	    strlen(wrapped) > QS_WRAPPED_MAX)
		return bad("jwe.header", err);
	for (const char *c = wrapped; *c; c++)
		if (*c < '!' || *c > '~')
			return bad("jwe.header." QS_JWE_WRAPPED, err);
	return 0;
}

static int check_jwe(const struct qs_keystore_token *t, struct qs_error *err)
{
	const char *wrapped = qs_jwe_wrapped(t->jwe);
	int r = wrapped ? check_by_content_key(t, wrapped, err) : check_by_kek(t, err);

	if (r < 0)
		return r;
	if (!has_bytes(t->jwe, "iv", IV_L, IV_L, NULL))
		return bad("jwe.iv", err);
	if (!has_bytes(t->jwe, "tag", TAG_L, TAG_L, NULL))
		return bad("jwe.tag", err);
	if (!has_bytes(t->jwe, "ciphertext", PLAIN_MIN, PLAIN_MAX, NULL))
		return bad("jwe.ciphertext", err);
	return 0;
}

static int check_bound(const struct qs_keystore_token *t, const char *uuid, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *volume = qs_keystore_volume(uuid, t->slot);
	QS_AUTO(qs_auto_json) json_t *protected = read_protected(t);

	if (!protected)
		return bad("jwe.protected", err);
	if (is_text(protected, QS_JWE_VOLUME, volume))
		return 0;
	return qs_fail(err, QS_E_HOSTILE,
		       "the keystore token was made for another volume or keyslot than %s, so it "
		       "is not believed",
		       volume);
}

/* ---- the token ---- */

static int parse_words(const json_t *json, struct qs_keystore_token *t, struct qs_error *err)
{
	const char *store = qs_fields_text(json, "store");
	const char *provider = qs_fields_text(json, "provider");

	if (!store || !qs_keystore_is_uuid(store))
		return bad("store", err);
	if (!provider || !*provider || strlen(provider) >= sizeof(t->provider) ||
	    strspn(provider, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(provider))
		return bad("provider", err);
	(void)snprintf(t->store, sizeof(t->store), "%s", store);
	(void)snprintf(t->provider, sizeof(t->provider), "%s", provider);
	return 0;
}

static int parse_numbers(const json_t *json, struct qs_keystore_token *t, struct qs_error *err)
{
	const json_t *slots = json_object_get(json, "keyslots");
	const char *slot = json_string_value(json_array_get(slots, 0));
	uint64_t version, generation;

	t->slot = slot && json_array_size(slots) == 1 ? qs_fields_slot(slot) : -1;
	if (t->slot < 0)
		return bad("keyslots", err);
	if (!qs_fields_number(json, "version", &version) || version != VERSION)
		return bad("version", err);
	if (!qs_fields_number(json, "generation", &generation) || generation < 1 ||
	    generation > QS_KEYSTORE_GENERATION_MAX)
		return bad("generation", err);
	t->generation = (uint32_t)generation;
	return 0;
}

int qs_keystore_token_parse(const json_t *json, const char *uuid, struct qs_keystore_token *ret,
			    struct qs_error *err)
{
	struct qs_keystore_token t = { .jwe = json_object_get(json, "jwe") };
	int r;

	if (!qs_keystore_token_is(json))
		return qs_fail(err, QS_E_DAMAGED,
			       "this is no token of type " QS_KEYSTORE_TOKEN_TYPE);
	r = parse_numbers(json, &t, err);
	if (r == 0)
		r = parse_words(json, &t, err);
	if (r == 0)
		r = check_jwe(&t, err);
	if (r == 0)
		r = check_bound(&t, uuid, err);
	if (r == 0)
		*ret = t;
	return r;
}

json_t *qs_keystore_token_make(const struct qs_keystore *ks, uint32_t generation, json_t *jwe)
{
	json_t *token = qs_slot_token(QS_KEYSTORE_TOKEN_TYPE, NULL);

	(void)json_object_set_new(token, "version", json_integer(VERSION));
	(void)json_object_set_new(token, "store", json_string(ks->store));
	(void)json_object_set_new(token, "generation", json_integer(generation));
	(void)json_object_set_new(token, "provider",
				  json_string(qs_keystore_provider_name(ks, generation)));
	(void)json_object_set_new(token, "jwe", jwe);
	return token;
}
