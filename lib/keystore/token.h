/*
 * The token "qs-keystore": a device key wrapped by a generation of a keystore.
 *
 *   {"type":"qs-keystore","keyslots":["1"],"version":1,"store":UUID,"generation":5,
 *    "provider":"local","qs-time":TIME,
 *    "jwe":{"protected":{"alg":"A256GCMKW","enc":"A256GCM","kid":"STORE/5",
 *           "qs-volume":"LUKS-UUID/1"},"header":{"iv","tag"},"encrypted_key","iv",
 *           "ciphertext","tag"}}
 *
 * with base64url everywhere in the JWE, as RFC 7516 has it. Its plaintext is the device
 * key, 64 bytes, and behind it the volume's identity (keystore/identity.h): so
 * `jose jwe dec` with the KEK, cut after 64 bytes, is a key file.
 *
 * Headers are foreign input: nothing goes to libjose that is not exactly of this form
 * (other algorithms, key sizes, compression, extra members).
 */
#ifndef QS_KEYSTORE_TOKEN_H
#define QS_KEYSTORE_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/error.h"
#include "keystore/keystore.h"

#define QS_KEYSTORE_TOKEN_TYPE "qs-keystore"

struct qs_keystore_token {
	int slot;
	char store[QS_KEYSTORE_UUID_L];
	char provider[QS_KEYSTORE_PROVIDER_L];
	uint32_t generation;
	const json_t *jwe; /* belongs to the JSON that was parsed */
};

bool qs_keystore_token_is(const json_t *json);

/*
 * Parse a token of a volume with the LUKS UUID. QS_E_DAMAGED: not of the form above;
 * QS_E_HOSTILE: bound to another volume or keyslot than the header says.
 */
int qs_keystore_token_parse(const json_t *json, const char *uuid, struct qs_keystore_token *ret,
			    struct qs_error *err);

/* A token without its "keyslots"; a new reference. JWE is taken over. */
json_t *qs_keystore_token_make(const struct qs_keystore *ks, uint32_t generation, json_t *jwe);

/* The first token of this type in the metadata JSON, its number in *ret_number; NULL: none. */
const json_t *qs_keystore_token_find(const json_t *metadata, int *ret_number);

#endif
