#define _GNU_SOURCE
#include "keystore/escrow.h"

#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "base/cleanup.h"
#include "base/openssl.h"
#include "keystore/jwe.h"
#include "keystore/keystore.h"

#define JWK_MAX 256U

void qs_auto_pkey(EVP_PKEY **key)
{
	EVP_PKEY_free(*key);
	*key = NULL;
}

static void auto_pkey_ctx(EVP_PKEY_CTX **ctx)
{
	EVP_PKEY_CTX_free(*ctx);
}

/* ---- the public key ---- */

static bool has(const struct qs_secret *pem, const char *text)
{
	return pem->data && memmem(pem->data, pem->size, text, strlen(text));
}

/* What people name by mistake, told apart by the first lines of PEM (RFC 7468). */
static int refuse_kind(const struct qs_secret *pem, const char *path, struct qs_error *err)
{
	if (has(pem, "PRIVATE KEY-----"))
		return qs_fail(err, QS_E_FAILED,
			       "%s holds a private key, which has no place on this machine: name "
			       "the public key (openssl pkey -in KEY -pubout)",
			       path);
	if (has(pem, "BEGIN CERTIFICATE-----"))
		return qs_fail(err, QS_E_FAILED,
			       "%s holds a certificate: name its public key (openssl x509 -in FILE "
			       "-pubkey -noout)",
			       path);
	return 0;
}

static int check(EVP_PKEY *key, const char *path, struct qs_error *err)
{
	QS_AUTO(auto_pkey_ctx) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);

	/* Not RSA-PSS either: that is a key for signatures only. */
	if (!EVP_PKEY_is_a(key, "RSA"))
		return qs_fail(err, QS_E_FAILED,
			       "%s holds no RSA key for encryption; an RSA key of at least %d bits "
			       "is needed",
			       path, QS_RSA_BITS_MIN);
	if (EVP_PKEY_get_bits(key) < QS_RSA_BITS_MIN)
		return qs_fail(err, QS_E_FAILED,
			       "%s holds an RSA key of %d bits; at least %d are needed", path,
			       EVP_PKEY_get_bits(key), QS_RSA_BITS_MIN);
	/* An exponent of 1 would encrypt nothing. */
	if (!ctx || EVP_PKEY_public_check(ctx) != 1)
		return qs_fail_openssl(err, QS_E_FAILED, "%s holds an RSA key that is not safe",
				       path);
	return 0;
}

int qs_escrow_parse_key(const struct qs_secret *pem, const char *path, EVP_PKEY **ret,
			struct qs_error *err)
{
	QS_AUTO(qs_auto_pkey) EVP_PKEY *key = NULL;
	BIO *bio;
	int r = refuse_kind(pem, path, err);

	if (r < 0)
		return r;
	bio = BIO_new_mem_buf(pem->data ? pem->data : "", (int)pem->size);
	key = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;
	BIO_free(bio);
	if (!key)
		return qs_fail_openssl(err, QS_E_FAILED, "%s holds no public key in PEM form",
				       path);
	r = check(key, path, err);
	if (r == 0)
		*ret = QS_TAKE(key);
	return r;
}

/* ---- the key ---- */

int qs_escrow_jwk(const struct qs_secret *kek, const char *store, uint32_t number,
		  struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret k = {}, text = {};
	int n, r = qs_base64_encode_secret(kek, &k, err);
	char *c = k.data;

	if (r == 0)
		r = qs_secret_init(&text, JWK_MAX, err);
	if (r < 0)
		return r;
	while (k.size > 0 && c[k.size - 1] == '=')
		k.size--;
	for (size_t i = 0; i < k.size; i++)
		if (c[i] == '+' || c[i] == '/')
			c[i] = c[i] == '+' ? '-' : '_';
	n = snprintf(text.data, text.size,
		     "{\"kty\":\"oct\",\"alg\":\"" QS_JWE_ALG
		     "\",\"kid\":\"%s/%u\",\"k\":\"%.*s\"}",
		     store, (unsigned)number, (int)k.size, c);
	if (n < 0 || (size_t)n >= text.size)
		return qs_fail(err, QS_E_FAILED, "the key of generation %u is too long",
			       (unsigned)number);
	text.size = (size_t)n;
	*ret = qs_secret_move(&text);
	return 0;
}

static int set_oaep(EVP_PKEY_CTX *ctx)
{
	return EVP_PKEY_encrypt_init(ctx) > 0 &&
	       EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) > 0 &&
	       EVP_PKEY_CTX_set_rsa_oaep_md(ctx, EVP_sha256()) > 0 &&
	       EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, EVP_sha256()) > 0;
}

int qs_escrow_encrypt(EVP_PKEY *key, const struct qs_secret *plain, struct qs_bytes *ret,
		      struct qs_error *err)
{
	QS_AUTO(auto_pkey_ctx) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
	QS_AUTO(qs_bytes_done) struct qs_bytes out = { .size = (size_t)EVP_PKEY_get_size(key) };

	out.data = malloc(out.size);
	if (!ctx || !out.data)
		return qs_fail(err, QS_E_MEMORY, "no memory to encrypt a key");
	if (!set_oaep(ctx) ||
	    EVP_PKEY_encrypt(ctx, out.data, &out.size, plain->data, plain->size) <= 0)
		return qs_fail_openssl(err, QS_E_FAILED, "cannot encrypt by RSA-OAEP");
	*ret = out;
	out = (struct qs_bytes){};
	return 0;
}
