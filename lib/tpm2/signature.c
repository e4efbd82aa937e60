/*
 * Signed PCR policies: the public key as the TPM sees it, and the signature
 * file that systemd-measure writes (tpm2-pcr-signature.json).
 */
#include <stdio.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/sha.h>

#include "base/cleanup.h"
#include "tpm2/internal.h"

#define ENTRIES_MAX 1000

static void auto_pkey(EVP_PKEY **key)
{
	EVP_PKEY_free(*key);
}

static void auto_bn(BIGNUM **n)
{
	BN_free(*n);
}

static int read_pem(const char *pem, EVP_PKEY **ret, struct qs_error *err)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *key = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;

	BIO_free(bio);
	if (key && EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA) {
		*ret = key;
		return 0;
	}
	EVP_PKEY_free(key);
	return qs_fail(err, QS_E_USAGE,
		       "the public key of a signed PCR policy has to be an RSA key in PEM form");
}

/* The TPM's name of a key: the hash algorithm and the hash of its public area. */
static int name_of(const TPM2B_PUBLIC *public, TPM2B_NAME *ret, struct qs_error *err)
{
	uint8_t area[sizeof(TPMT_PUBLIC)];
	size_t size = 0;
	TSS2_RC rc = Tss2_MU_TPMT_PUBLIC_Marshal(&public->publicArea, area, sizeof(area), &size);

	if (rc != TSS2_RC_SUCCESS)
		return qs_tpm2_fail(err, rc, "encoding the public key");
	ret->size = 2 + SHA256_DIGEST_LENGTH;
	ret->name[0] = TPM2_ALG_SHA256 >> 8;
	ret->name[1] = TPM2_ALG_SHA256 & 0xff;
	(void)SHA256(area, size, ret->name + 2);
	return 0;
}

int qs_tpm2_pubkey(const char *pem, bool exponent_zero, TPM2B_PUBLIC *ret, TPM2B_NAME *ret_name,
		   struct qs_error *err)
{
	QS_AUTO(auto_pkey) EVP_PKEY *key = NULL;
	QS_AUTO(auto_bn) BIGNUM *n = NULL;
	QS_AUTO(auto_bn) BIGNUM *e = NULL;
	TPM2B_PUBLIC_KEY_RSA *modulus = &ret->publicArea.unique.rsa;
	TPMS_RSA_PARMS *rsa = &ret->publicArea.parameters.rsaDetail;
	int r = read_pem(pem, &key, err);

	if (r < 0)
		return r;
	if (EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_N, &n) != 1 ||
	    EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &e) != 1 ||
	    (size_t)BN_num_bytes(n) > sizeof(modulus->buffer) || BN_num_bytes(e) > 4)
		return qs_fail(err, QS_E_USAGE, "no TPM takes a public key of %d bits",
			       EVP_PKEY_get_bits(key));
	*ret = (TPM2B_PUBLIC){ .publicArea = { .type = TPM2_ALG_RSA, .nameAlg = TPM2_ALG_SHA256 } };
	ret->publicArea.objectAttributes =
		TPMA_OBJECT_DECRYPT | TPMA_OBJECT_SIGN_ENCRYPT | TPMA_OBJECT_USERWITHAUTH;
	rsa->symmetric.algorithm = TPM2_ALG_NULL;
	rsa->scheme.scheme = TPM2_ALG_NULL;
	rsa->keyBits = (TPM2_KEY_BITS)EVP_PKEY_get_bits(key);
	rsa->exponent = exponent_zero ? 0 : (UINT32)BN_get_word(e);
	modulus->size = (UINT16)BN_bn2bin(n, modulus->buffer);
	return name_of(ret, ret_name, err);
}

/* SHA-256 of the PKCS#1 DER form, in hex: what the signature file knows a key by. */
static int fingerprint(const char *pem, char ret[2 * SHA256_DIGEST_LENGTH + 1],
		       struct qs_error *err)
{
	QS_AUTO(auto_pkey) EVP_PKEY *key = NULL;
	uint8_t digest[SHA256_DIGEST_LENGTH];
	unsigned char *der = NULL;
	int size, r = read_pem(pem, &key, err);

	if (r < 0)
		return r;
	size = i2d_PublicKey(key, &der);
	if (size <= 0)
		return qs_fail(err, QS_E_FAILED, "cannot encode the public key");
	(void)SHA256(der, (size_t)size, digest);
	OPENSSL_free(der);
	for (size_t i = 0; i < sizeof(digest); i++)
		(void)snprintf(ret + 2 * i, 3, "%02x", digest[i]);
	return 0;
}

static bool text_is(const json_t *entry, const char *field, const char *wanted)
{
	const char *text = json_string_value(json_object_get(entry, field));

	return text && strcmp(text, wanted) == 0;
}

static uint32_t pcrs_of(const json_t *entry)
{
	const json_t *list = json_object_get(entry, "pcrs");
	uint32_t pcrs = 0;

	for (size_t i = 0; i < json_array_size(list); i++) {
		json_int_t n = json_integer_value(json_array_get(list, i));

		if (n >= 0 && n < QS_TPM2_PCRS)
			pcrs |= UINT32_C(1) << n;
	}
	return pcrs;
}

static bool fits(const struct qs_tpm2_token *token, const json_t *entry, const char *key,
		 const char *policy)
{
	if (pcrs_of(entry) != token->pubkey_pcrs)
		return false;
	if (!text_is(entry, "pkfp", key) || !text_is(entry, "pol", policy))
		return false;
	return token->pubkey_ref ? text_is(entry, "ref", token->pubkey_ref)
				 : !json_object_get(entry, "ref");
}

static int read_signature(const json_t *entry, TPMT_SIGNATURE *ret, struct qs_error *err)
{
	TPM2B_PUBLIC_KEY_RSA *sig = &ret->signature.rsassa.sig;
	const char *text = json_string_value(json_object_get(entry, "sig"));
	QS_AUTO(qs_bytes_done) struct qs_bytes bytes = {};

	if (!text || qs_base64_decode(text, sizeof(sig->buffer), &bytes) < 0)
		return qs_fail(err, QS_E_FAILED, "the file of PCR signatures is damaged");
	*ret = (TPMT_SIGNATURE){ .sigAlg = TPM2_ALG_RSASSA };
	ret->signature.rsassa.hash = TPM2_ALG_SHA256;
	sig->size = (UINT16)bytes.size;
	memcpy(sig->buffer, bytes.data, bytes.size);
	return 0;
}

int qs_tpm2_find_signature(const struct qs_tpm2_policy *policy,
			   const uint8_t approved[QS_TPM2_DIGEST_L], const json_t *signatures,
			   TPMT_SIGNATURE *ret, struct qs_error *err)
{
	const json_t *list = json_object_get(signatures, qs_tpm2_bank_name(policy->bank));
	char key[2 * SHA256_DIGEST_LENGTH + 1], wanted[2 * QS_TPM2_DIGEST_L + 1];
	char pcrs[QS_TPM2_PCRS_TEXT_L];
	int r = fingerprint(policy->token->pubkey, key, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < QS_TPM2_DIGEST_L; i++)
		(void)snprintf(wanted + 2 * i, 3, "%02x", approved[i]);
	for (size_t i = 0; i < json_array_size(list) && i < ENTRIES_MAX; i++)
		if (fits(policy->token, json_array_get(list, i), key, wanted))
			return read_signature(json_array_get(list, i), ret, err);
	return qs_fail(err, QS_E_TPM_PCR,
		       "%s the present state of PCR %s, to which the keyslot's signed policy binds",
		       signatures
			       ? "the file of PCR signatures has none for"
			       : "there is no file of PCR signatures (tpm2-pcr-signature.json) for",
		       qs_tpm2_pcrs_text(policy->token->pubkey_pcrs, pcrs));
}

void qs_tpm2_policy_ref(const struct qs_tpm2_token *token, TPM2B_NONCE *ret)
{
	ret->size = 0;
	if (!token->pubkey_ref)
		return;
	ret->size = SHA256_DIGEST_LENGTH;
	(void)SHA256((const uint8_t *)token->pubkey_ref, strlen(token->pubkey_ref), ret->buffer);
}
