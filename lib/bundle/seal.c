#include "bundle/seal.h"

#include <limits.h>
#include <stdlib.h>

#include <openssl/bio.h>
#include <openssl/cms.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

#include "base/cleanup.h"
#include "bundle/internal.h"

struct qs_seal {
	CMS_ContentInfo *cms;
	CMS_RecipientInfo *passphrase; /* the recipient that points to the caller's secret */
	BIO *memory;                   /* the envelope */
	BIO *chain;                    /* takes plaintext; ends in memory */
};

static int set_algorithm(CMS_RecipientInfo *ri)
{
	EVP_PKEY_CTX *key = CMS_RecipientInfo_get0_pkey_ctx(ri);

	if (!key)
		return 0;
	if (CMS_RecipientInfo_type(ri) == CMS_RECIPINFO_AGREE)
		return EVP_PKEY_CTX_set_ecdh_kdf_md(key, EVP_sha256()) > 0;
	return EVP_PKEY_CTX_set_rsa_padding(key, RSA_PKCS1_OAEP_PADDING) > 0 &&
	       EVP_PKEY_CTX_set_rsa_oaep_md(key, EVP_sha256()) > 0 &&
	       EVP_PKEY_CTX_set_rsa_mgf1_md(key, EVP_sha256()) > 0;
}

static int add_certificate(CMS_ContentInfo *cms, const char *path, struct qs_error *err)
{
	QS_AUTO(qs_auto_x509) X509 *x = NULL;
	CMS_RecipientInfo *ri;
	int r = qs_certificate_load(path, &x, err);

	if (r < 0)
		return r;
	ri = CMS_add1_recipient_cert(cms, x, CMS_KEY_PARAM);
	if (!ri || !set_algorithm(ri))
		return qs_fail_openssl(err, QS_E_FAILED, "cannot seal to the certificate %s", path);
	return 0;
}

/*
 * OpenSSL frees the passphrase that a recipient has, so it only borrows ours until
 * the content key is wrapped: drop_passphrase() before anything is released.
 */
static int add_passphrase(struct qs_seal *s, const struct qs_secret *passphrase,
			  struct qs_error *err)
{
	/* RFC 3211 wraps with CBC whatever encrypts the content. */
	s->passphrase = CMS_add0_recipient_password(s->cms, QS_SEAL_ITERATIONS, NID_id_alg_PWRI_KEK,
						    -1, NULL, 0, EVP_aes_256_cbc());
	if (s->passphrase && CMS_RecipientInfo_set0_password(s->passphrase, passphrase->data,
							     (ossl_ssize_t)passphrase->size))
		return 0;
	return qs_fail_openssl(err, QS_E_FAILED, "cannot seal to the passphrase");
}

static void drop_passphrase(struct qs_seal *s)
{
	if (s->passphrase)
		(void)CMS_RecipientInfo_set0_password(s->passphrase, NULL, 0);
	s->passphrase = NULL;
}

static int add_recipients(struct qs_seal *s, const struct qs_seal_recipients *to,
			  struct qs_error *err)
{
	for (size_t i = 0; i < to->certificate_count; i++) {
		int r = add_certificate(s->cms, to->certificates[i], err);

		if (r < 0)
			return r;
	}
	return to->passphrase ? add_passphrase(s, to->passphrase, err) : 0;
}

void qs_auto_seal(struct qs_seal **s)
{
	struct qs_seal *seal = *s;

	if (!seal)
		return;
	drop_passphrase(seal);
	/* The chain ends in memory, which may not be freed twice. */
	while (seal->chain && seal->chain != seal->memory) {
		BIO *next = BIO_pop(seal->chain);

		BIO_free(seal->chain);
		seal->chain = next;
	}
	BIO_free(seal->memory);
	CMS_ContentInfo_free(seal->cms);
	free(seal);
	*s = NULL;
}

int qs_seal_begin(const struct qs_seal_recipients *to, struct qs_seal **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_seal) struct qs_seal *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return qs_fail(err, QS_E_MEMORY, "no memory to seal a bundle");
	s->cms = CMS_AuthEnvelopedData_create(EVP_aes_256_gcm());
	s->memory = BIO_new(BIO_s_mem());
	if (!s->cms || !s->memory)
		return qs_fail_openssl(err, QS_E_MEMORY, "cannot begin to seal a bundle");
	r = add_recipients(s, to, err);
	if (r < 0)
		return r;
	/* The content key is made here, and wrapped for each recipient. */
	s->chain = BIO_new_CMS(s->memory, s->cms);
	drop_passphrase(s);
	if (!s->chain)
		return qs_fail_openssl(err, QS_E_FAILED, "cannot begin to seal a bundle");
	*ret = QS_TAKE(s);
	return 0;
}

int qs_seal_write(struct qs_seal *s, const void *data, size_t size, struct qs_error *err)
{
	const char *p = data;

	while (size > 0) {
		int n = BIO_write(s->chain, p, size < INT_MAX ? (int)size : INT_MAX);

		if (n <= 0)
			return qs_fail_openssl(err, QS_E_MEMORY, "cannot encrypt the bundle");
		p += n;
		size -= (size_t)n;
	}
	if (BIO_ctrl_pending(s->memory) > QS_SEAL_MAX)
		return qs_fail(err, QS_E_FAILED,
			       "the bundle becomes larger than %u bytes, more than openssl opens; "
			       "leave the header backups out with --no-headers",
			       QS_SEAL_MAX);
	return 0;
}

int qs_seal_end(struct qs_seal *s, const void **ret, size_t *ret_size, struct qs_error *err)
{
	char *data = NULL;
	long size;

	if (BIO_flush(s->chain) <= 0)
		return qs_fail_openssl(err, QS_E_FAILED, "cannot finish the bundle");
	size = BIO_get_mem_data(s->memory, &data);
	*ret = data;
	*ret_size = (size_t)size;
	return 0;
}
