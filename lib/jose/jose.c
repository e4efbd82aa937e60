/*
 * The module jose.so: see keystore/jwe.h.
 */
#include <stdlib.h>
#include <string.h>

#include <jose/b64.h>
#include <jose/jwe.h>

#include "base/cleanup.h"
#include "keystore/jwe.h"

static json_t *key_of(const struct qs_secret *kek)
{
	return json_pack("{s:s,s:s,s:o}", "kty", "oct", "alg", QS_JWE_ALG, "k",
			 jose_b64_enc(kek->data, kek->size));
}

static int wrap(const struct qs_secret *kek, const char *kid, const char *volume,
		const struct qs_secret *plain, json_t **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *key = key_of(kek);
	QS_AUTO(qs_auto_json)
	json_t *jwe = json_pack("{s:{s:s,s:s,s:s,s:s}}", "protected", "alg", QS_JWE_ALG, "enc",
				QS_JWE_ENC, "kid", kid, QS_JWE_VOLUME, volume);

	if (!key || !jwe)
		return qs_fail(err, QS_E_MEMORY, "no memory to wrap a key");
	if (!jose_jwe_enc(NULL, jwe, NULL, key, plain->data, plain->size))
		return qs_fail(err, QS_E_FAILED, "libjose cannot wrap a key with " QS_JWE_ALG);
	*ret = QS_TAKE(jwe);
	return 0;
}

static int unwrap(const json_t *jwe, const struct qs_secret *kek, struct qs_secret *ret,
		  struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *key = key_of(kek);
	size_t size = 0;
	void *plain;
	int r;

	if (!key)
		return qs_fail(err, QS_E_MEMORY, "no memory to unwrap a key");
	plain = jose_jwe_dec(NULL, jwe, NULL, key, &size);
	if (!plain)
		return qs_fail(err, QS_E_NO_KEY,
			       "the key-encryption key does not fit: the wrapped key was changed, "
			       "or wrapped by another one");
	r = qs_secret_init(ret, size, err);
	if (r == 0)
		memcpy(ret->data, plain, size);
	explicit_bzero(plain, size);
	free(plain);
	return r;
}

QS_MODULE_EXPORT extern const struct qs_jwe_functions qs_jwe_module;
const struct qs_jwe_functions qs_jwe_module = {
	.module.version = QS_JWE_MODULE_VERSION,
	.wrap = wrap,
	.unwrap = unwrap,
};
