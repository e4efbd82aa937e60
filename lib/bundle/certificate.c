/*
 * Certificates that a bundle may be sealed to. There is no chain to check:
 * whoever seals names the file himself.
 */
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "bundle/internal.h"

#define EC_BITS_MIN 256 /* as strong as QS_RSA_BITS_MIN */

#define CERTIFICATE_MAX (256U << 10)

static int check_time(const X509 *x, const char *path, struct qs_error *err)
{
	if (X509_cmp_current_time(X509_get0_notAfter(x)) <= 0)
		return qs_fail(err, QS_E_FAILED, "the certificate %s has expired; get a new one",
			       path);
	if (X509_cmp_current_time(X509_get0_notBefore(x)) > 0)
		return qs_fail(err, QS_E_FAILED,
			       "the certificate %s is not valid yet; check the clock", path);
	return 0;
}

static int check_usage(X509 *x, bool rsa, const char *path, struct qs_error *err)
{
	/* All bits are set when the certificate says nothing. */
	uint32_t usage = X509_get_key_usage(x),
		 wanted = rsa ? KU_KEY_ENCIPHERMENT : KU_KEY_AGREEMENT;

	if (usage & wanted)
		return 0;
	return qs_fail(err, QS_E_FAILED,
		       "the certificate %s is not for encryption: its key usage lacks %s", path,
		       rsa ? "keyEncipherment" : "keyAgreement");
}

static int check_key(X509 *x, const char *path, struct qs_error *err)
{
	const EVP_PKEY *key = X509_get0_pubkey(x);
	bool rsa = key && EVP_PKEY_is_a(key, "RSA"), ec = key && EVP_PKEY_is_a(key, "EC");
	int least = rsa ? QS_RSA_BITS_MIN : EC_BITS_MIN;

	if (!rsa && !ec)
		return qs_fail(err, QS_E_FAILED,
			       "the certificate %s has a key that is neither RSA nor EC", path);
	if (EVP_PKEY_get_bits(key) < least)
		return qs_fail(err, QS_E_FAILED,
			       "the certificate %s has %s key of %d bits; at least %d are needed",
			       path, rsa ? "an RSA" : "an EC", EVP_PKEY_get_bits(key), least);
	return check_usage(x, rsa, path, err);
}

int qs_certificate_load(const char *path, X509 **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *text = NULL;
	QS_AUTO(qs_auto_x509) X509 *x = NULL;
	size_t size = 0;
	BIO *bio;
	int r = qs_file_read(path, CERTIFICATE_MAX, &text, &size, err);

	if (r < 0)
		return r;
	bio = BIO_new_mem_buf(text, (int)size);
	x = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
	BIO_free(bio);
	if (!x)
		return qs_fail_openssl(err, QS_E_FAILED, "%s holds no certificate in PEM form",
				       path);
	r = check_time(x, path, err);
	if (r == 0)
		r = check_key(x, path, err);
	if (r == 0)
		*ret = QS_TAKE(x);
	return r;
}
