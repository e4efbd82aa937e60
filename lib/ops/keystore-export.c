/*
 * keystore export. One file is made, atomically: a crash leaves all of it or nothing.
 */
#include "ops/keystore-export.h"

#include <string.h>

#include <openssl/evp.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/utf8.h"
#include "keystore/escrow.h"
#include "keystore/provider.h"

#define PEM_MAX (64U << 10)

static int load_public_key(const struct qs_env *env, const char *typed, EVP_PKEY **ret,
			   struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *absolute = qs_env_absolute(typed);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, absolute);
	/* It may be a private key by mistake. */
	QS_AUTO(qs_secret_done) struct qs_secret pem = {};
	int r = qs_file_read_secret(real, PEM_MAX, &pem, err);

	return r < 0 ? r : qs_escrow_parse_key(&pem, typed, ret, err);
}

static int check_generation(const struct qs_keystore *ks, uint32_t number, struct qs_error *err)
{
	if (qs_keystore_generation(ks, number))
		return 0;
	return qs_fail(err, QS_E_FAILED,
		       "the keystore has no generation %u: `qs-util keystore status` lists them",
		       (unsigned)number);
}

static int load_jwk(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		    struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret kek = {};
	int r = qs_keystore_prepare(env, ks, &number, 1, true, err);

	if (r == 0)
		r = qs_keystore_kek(env, ks, number, &kek, err);
	return r < 0 ? r : qs_escrow_jwk(&kek, ks->store, number, ret, err);
}

int qs_keystore_export(const struct qs_env *env, const struct qs_export_options *options,
		       json_t **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_pkey) EVP_PKEY *key = NULL;
	QS_AUTO(qs_secret_done) struct qs_secret jwk = {};
	QS_AUTO(qs_bytes_done) struct qs_bytes sealed = {};
	struct qs_keystore ks;
	uint32_t number = 0;
	int r = qs_keystore_load_enabled(env, &ks, err);

	if (r == 0) {
		number = options->generation ? options->generation : qs_keystore_wraps_with(&ks);
		r = check_generation(&ks, number, err);
	}
	if (r == 0)
		r = qs_output_file_check(env, &options->out, err);
	if (r == 0)
		r = load_public_key(env, options->public_key, &key, err);
	if (r == 0)
		r = load_jwk(env, &ks, number, &jwk, err);
	if (r == 0)
		r = qs_escrow_encrypt(key, &jwk, &sealed, err);
	if (r == 0)
		r = qs_output_file_write(env, &options->out, sealed.data, sealed.size, err);
	if (r < 0)
		return r;
	*ret = json_pack("{s:s,s:i,s:o*,s:I,s:i}", "store", ks.store, "generation", (int)number,
			 "file", options->out.file ? qs_utf8_json(options->out.file) : NULL, "size",
			 (json_int_t)sealed.size, "key_bits", EVP_PKEY_get_bits(key));
	return 0;
}
