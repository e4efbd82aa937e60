/*
 * The module jose.so: see keystore/jwe.h.
 */
#include <stdlib.h>
#include <string.h>

#include <jose/b64.h>
#include <jose/jwe.h>

#include "base/cleanup.h"
#include "keystore/jwe.h"

static json_t *key_of(const struct qs_secret *key, const char *alg)
{
	return json_pack("{s:s,s:s,s:o}", "kty", "oct", "alg", alg, "k",
			 jose_b64_enc(key->data, key->size));
}

static int wrap(const struct qs_secret *key, const char *kid, const char *volume,
		const char *wrapped, const struct qs_secret *plain, json_t **ret,
		struct qs_error *err)
{
	const char *alg = wrapped ? QS_JWE_ALG_CONTENT : QS_JWE_ALG;
	QS_AUTO(qs_auto_json) json_t *jwk = key_of(key, wrapped ? QS_JWE_ENC : alg);
	QS_AUTO(qs_auto_json)
	json_t *jwe = json_pack("{s:{s:s,s:s,s:s,s:s}}", "protected", "alg", alg, "enc", QS_JWE_ENC,
				"kid", kid, QS_JWE_VOLUME, volume);

	if (!jwk || !jwe)
		return qs_fail(err, QS_E_MEMORY, "no memory to wrap a key");
	if (!jose_jwe_enc(NULL, jwe, NULL, jwk, plain->data, plain->size))
		return qs_fail(err, QS_E_FAILED, "libjose cannot wrap a key with %s", alg);
	/* Afterwards: libjose takes a header that is there for another recipient's. */
	if (wrapped) {
		(void)json_object_del(jwe, "encrypted_key"); /* "": RFC 7516, 7.2.1 wants none */
		(void)json_object_set_new(jwe, "header",
					  json_pack("{s:s}", QS_JWE_WRAPPED, wrapped));
	}
	*ret = QS_TAKE(jwe);
	return 0;
}

/*
 * Into *ret. jose_jwe_dec() would let its buffer grow byte by byte, and leave what it has outgrown
 * in memory.
 */
static int decrypt(const json_t *jwe, const json_t *jwk, struct qs_secret *ret,
		   struct qs_error *err)
{
	const json_t *text = json_object_get(jwe, "ciphertext");
	size_t size = jose_b64_dec(text, NULL, 0);
	jose_io_auto_t *out = NULL, *decryption = NULL, *in = NULL;
	QS_AUTO(qs_secret_done) struct qs_secret plain = {};
	int r = size == SIZE_MAX ? qs_fail(err, QS_E_NO_KEY, "the wrapped key is not base64url")
				 : qs_secret_init(&plain, size, err);

	if (r < 0)
		return r;
	out = jose_io_buffer(NULL, plain.data, &plain.size);
	decryption = jose_jwe_dec_io(NULL, jwe, NULL, jwk, out);
	in = jose_b64_dec_io(decryption);
	if (!out || !decryption || !in ||
	    !in->feed(in, json_string_value(text), json_string_length(text)) || !in->done(in))
		return qs_fail(err, QS_E_NO_KEY,
			       "the key-encryption key does not fit: the wrapped key was changed, "
			       "or wrapped by another one");
	*ret = qs_secret_move(&plain);
	return 0;
}

static int unwrap(const json_t *jwe, const struct qs_secret *key, struct qs_secret *ret,
		  struct qs_error *err)
{
	QS_AUTO(qs_auto_json)
	json_t *jwk = key_of(key, qs_jwe_wrapped(jwe) ? QS_JWE_ENC : QS_JWE_ALG);

	return jwk ? decrypt(jwe, jwk, ret, err)
		   : qs_fail(err, QS_E_MEMORY, "no memory to unwrap a key");
}

QS_MODULE_EXPORT extern const struct qs_jwe_functions qs_jwe_module;
const struct qs_jwe_functions qs_jwe_module = {
	.module.version = QS_JWE_MODULE_VERSION,
	.wrap = wrap,
	.unwrap = unwrap,
};
