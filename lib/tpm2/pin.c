/*
 * From a PIN to the authValue of a sealed object, in the three ways that
 * systemd has had: the PIN itself (251, 252), PBKDF2 (253), Argon2id (262).
 */
#include <string.h>

#include <argon2.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/sha.h>

#include "base/cleanup.h"
#include "tpm2/internal.h"

#define PIN_MAX 1024            /* bytes */
#define PBKDF2_ITERATIONS 10000 /* systemd 253, tpm2-util.c */
#define ARGON2_HALF 32U         /* bytes; systemd 262 uses two halves */
#define LANES_MAX 16U
#define ARGON2_MEMORY_MAX (UINT64_C(4) << 30) /* libargon2 counts KiB in 32 bits */

/* What the passphrase is derived for (systemd 262). */
#define LOCK_INFO "systemd-tpm2-argon2id-lock"

void qs_tpm2_pin_done(struct qs_tpm2_pin *pin)
{
	qs_secret_done(&pin->auth);
	qs_secret_done(&pin->lock_half);
}

/*
 * SHA-256, then without trailing zeros: the TPM drops them, tss2 3.2 does not,
 * and then both compute different session keys (tpm2-tss 2664).
 */
static int auth_of(const struct qs_secret *text, struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret auth = {};
	int r = qs_secret_init(&auth, sizeof(TPM2B_AUTH), err);
	TPM2B_AUTH *value = auth.data;

	if (r < 0)
		return r;
	(void)SHA256(text->data, text->size, value->buffer);
	value->size = SHA256_DIGEST_LENGTH;
	while (value->size > 0 && value->buffer[value->size - 1] == 0)
		value->size--;
	*ret = qs_secret_move(&auth);
	return 0;
}

static int check_pin(const struct qs_secret *pin, struct qs_error *err)
{
	if (!pin || pin->size == 0)
		return qs_fail(err, QS_E_PIN, "the TPM2 keyslot needs its PIN");
	if (pin->size > PIN_MAX)
		return qs_fail(err, QS_E_PIN, "the PIN is longer than %d bytes", PIN_MAX);
	return 0;
}

int qs_tpm2_pin_new(const struct qs_secret *pin, bool kek, struct qs_tpm2_pin *ret,
		    struct qs_error *err)
{
	int r = check_pin(pin, err);

	if (r == 0)
		r = auth_of(pin, &ret->auth, err);
	if (r < 0)
		return r;
	/* systemd 252 leaves the zeros on and fails, which even counts towards the lockout. */
	if (!kek && ((TPM2B_AUTH *)ret->auth.data)->size < SHA256_DIGEST_LENGTH)
		return qs_fail(err, QS_E_PIN,
			       "systemd 252 cannot use this PIN (its hash ends in a zero byte); "
			       "please choose another one");
	return 0;
}

static int stretch_pbkdf2(const struct qs_tpm2_token *token, const struct qs_secret *pin,
			  struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret raw = {};
	int r = qs_secret_init(&raw, SHA256_DIGEST_LENGTH, err);

	if (r < 0)
		return r;
	if (PKCS5_PBKDF2_HMAC(pin->data, (int)pin->size, token->salt.data, (int)token->salt.size,
			      PBKDF2_ITERATIONS, EVP_sha256(), (int)raw.size, raw.data) != 1)
		return qs_fail(err, QS_E_FAILED, "cannot derive the TPM2 key from the PIN");
	return qs_base64_encode_secret(&raw, ret, err);
}

/* The numbers are the header's: whoever wrote it must not decide over our time and memory. */
static int check_costs(const struct qs_tpm2_token *token, const struct qs_tpm2_unseal *with,
		       struct qs_error *err)
{
	uint64_t memory = with->max_memory ? with->max_memory : ARGON2_MEMORY_MAX;
	uint64_t passes = with->max_passes ? with->max_passes : UINT32_MAX;

	if (token->argon2_memory > memory || token->argon2_memory > ARGON2_MEMORY_MAX)
		return qs_fail(err, QS_E_HOSTILE,
			       "the TPM2 token wants %llu MiB for its PIN, more than %llu "
			       "(max_kdf_memory in qs-util.conf)",
			       (unsigned long long)token->argon2_memory >> 20,
			       (unsigned long long)memory >> 20);
	if (token->argon2_passes > passes)
		return qs_fail(err, QS_E_HOSTILE,
			       "the TPM2 token wants %llu Argon2 passes for its PIN, more than "
			       "%llu (max_kdf_time in qs-util.conf)",
			       (unsigned long long)token->argon2_passes,
			       (unsigned long long)passes);
	if (token->argon2_lanes > LANES_MAX)
		return qs_fail(err, QS_E_HOSTILE,
			       "the TPM2 token wants %llu Argon2 lanes for its PIN, more than %u",
			       (unsigned long long)token->argon2_lanes, LANES_MAX);
	return 0;
}

static int stretch_argon2(const struct qs_tpm2_token *token, const struct qs_tpm2_unseal *with,
			  struct qs_tpm2_pin *ret, struct qs_secret *ret_text, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret both = {};
	QS_AUTO(qs_secret_done) struct qs_secret second = {};
	int r = check_costs(token, with, err), failed;

	if (r == 0)
		r = qs_secret_init(&both, (size_t)2 * ARGON2_HALF, err);
	if (r == 0)
		r = qs_secret_init(&ret->lock_half, ARGON2_HALF, err);
	if (r == 0)
		r = qs_secret_init(&second, ARGON2_HALF, err);
	if (r != 0)
		return r;
	failed = argon2id_hash_raw((uint32_t)token->argon2_passes,
				   (uint32_t)(token->argon2_memory / 1024),
				   (uint32_t)token->argon2_lanes, with->pin->data, with->pin->size,
				   token->salt.data, token->salt.size, both.data, both.size);
	if (failed == ARGON2_MEMORY_ALLOCATION_ERROR)
		return qs_fail(err, QS_E_MEMORY, "no memory to derive the TPM2 key from the PIN");
	if (failed != ARGON2_OK)
		return qs_fail(err, QS_E_DAMAGED, "cannot derive the TPM2 key from the PIN: %s",
			       argon2_error_message(failed));
	memcpy(ret->lock_half.data, both.data, ARGON2_HALF);
	memcpy(second.data, (char *)both.data + ARGON2_HALF, ARGON2_HALF);
	return qs_base64_encode_secret(&second, ret_text, err);
}

int qs_tpm2_pin_of(const struct qs_tpm2_token *token, const struct qs_tpm2_unseal *with,
		   struct qs_tpm2_pin *ret, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret text = {};
	int r = check_pin(with->pin, err);

	if (r < 0)
		return r;
	if (token->salt.size == 0)
		return auth_of(with->pin, &ret->auth, err);
	if (token->argon2_memory > 0)
		r = stretch_argon2(token, with, ret, &text, err);
	else
		r = stretch_pbkdf2(token, with->pin, &text, err);
	return r < 0 ? r : auth_of(&text, &ret->auth, err);
}

static bool hkdf(const struct qs_secret *salt, const struct qs_secret *key, struct qs_secret *ret)
{
	char hash[] = "SHA256", info[] = LOCK_INFO;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, hash, 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key->data, key->size),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt->data, salt->size),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, strlen(info)),
		OSSL_PARAM_construct_end(),
	};
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	bool good = ctx && EVP_KDF_derive(ctx, ret->data, ret->size, params) == 1;

	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return good;
}

int qs_tpm2_passphrase(const struct qs_secret *secret, const struct qs_tpm2_pin *pin,
		       struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret mixed = {};
	int r;

	if (pin->lock_half.size == 0)
		return qs_base64_encode_secret(secret, ret, err);
	r = qs_secret_init(&mixed, ARGON2_HALF, err);
	if (r < 0)
		return r;
	if (!hkdf(secret, &pin->lock_half, &mixed))
		return qs_fail(err, QS_E_FAILED, "cannot derive the passphrase from the PIN");
	return qs_base64_encode_secret(&mixed, ret, err);
}
