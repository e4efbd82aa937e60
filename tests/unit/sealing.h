/*
 * Keys and certificates for tests of the envelope, made anew each time. Include
 * after cmocka.h.
 */
#ifndef QS_TEST_SEALING_H
#define QS_TEST_SEALING_H

#include <stdio.h>
#include <string.h>

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include "base/secret.h"

#define TEST_DAY (24L * 60 * 60)

struct test_certificate {
	long begins, ends; /* seconds from now */
	const char *usage; /* keyUsage extension, or NULL */
};

static inline void test_add_usage(X509 *x, const char *usage)
{
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, NID_key_usage, usage);

	assert_non_null(e);
	assert_true(X509_add_ext(x, e, -1));
	X509_EXTENSION_free(e);
}

/* A self-signed certificate for KEY, written to PATH. */
static inline void test_certificate_write(EVP_PKEY *key, const struct test_certificate *how,
					  const char *path)
{
	X509 *x = X509_new();
	FILE *f = fopen(path, "we");

	assert_non_null(x);
	assert_non_null(f);
	assert_true(X509_set_version(x, X509_VERSION_3));
	assert_true(ASN1_INTEGER_set(X509_get_serialNumber(x), 1));
	assert_non_null(X509_gmtime_adj(X509_getm_notBefore(x), how->begins));
	assert_non_null(X509_gmtime_adj(X509_getm_notAfter(x), how->ends));
	assert_true(X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
					       (const unsigned char *)"test", -1, -1, 0));
	assert_true(X509_set_issuer_name(x, X509_get_subject_name(x)));
	assert_true(X509_set_pubkey(x, key));
	if (how->usage)
		test_add_usage(x, how->usage);
	assert_true(X509_sign(x, key, EVP_sha256()));
	assert_true(PEM_write_X509(f, x));
	assert_int_equal(fclose(f), 0);
	X509_free(x);
}

/* KEY in PEM, encrypted when PASSPHRASE is not NULL. */
static inline void test_key_pem(EVP_PKEY *key, const char *passphrase, struct qs_secret *ret)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *data = NULL;
	long size;

	assert_true(PEM_write_bio_PKCS8PrivateKey(
		bio, key, passphrase ? EVP_aes_256_cbc() : NULL, passphrase,
		passphrase ? (int)strlen(passphrase) : 0, NULL, NULL));
	size = BIO_get_mem_data(bio, &data);
	assert_int_equal(qs_secret_init(ret, (size_t)size, NULL), 0);
	memcpy(ret->data, data, (size_t)size);
	BIO_free(bio);
}

#endif
