#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/asn1t.h>
#include <openssl/bio.h>
#include <openssl/cms.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "base/cleanup.h"
#include "bundle/internal.h"
#include "bundle/seal.h"

/* RFC 5083 and RFC 5652 nest a dozen deep; names in certificates a few more. */
#define DEPTH_MAX 32

/* Bytes decrypted at once where nothing is kept. */
#define PIECE_SIZE (64U << 10)

/* RFC 5084: 12 to 16; we write 16 and take nothing weaker. */
#define TAG_SIZE 16

struct qs_sealed {
	CMS_ContentInfo *cms;
	BIO *chain;             /* cipher, then a memory BIO with the ciphertext */
	EVP_CIPHER_CTX *cipher; /* of the chain; it has the content key and the tag */
	unsigned char nonce[EVP_MAX_IV_LENGTH];
	const unsigned char *ciphertext; /* of the chain */
	size_t size, done;               /* bytes of it, and how many have been read */
};

/* ---- how much work does it ask for? ---- */

/* The contents of the OID id-PBKDF2 (RFC 8018), 1.2.840.113549.1.5.12. */
static const unsigned char pbkdf2[] = { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c };

struct walk {
	const unsigned char *at, *end;
	unsigned depth;
	uint64_t iterations; /* the most that any PBKDF2 asks for */
	unsigned count;      /* of PBKDF2 parameters */
};

static void take_iterations(struct walk *w, const unsigned char *parameters)
{
	PBKDF2PARAM *p = d2i_PBKDF2PARAM(NULL, &parameters, w->end - parameters);
	int64_t n = -1;

	/* A number that is negative or too large to be one counts as the largest. */
	if (p && !ASN1_INTEGER_get_int64(&n, p->iter))
		n = -1;
	if (p) {
		w->count++;
		if ((uint64_t)n > w->iterations)
			w->iterations = (uint64_t)n;
	}
	PBKDF2PARAM_free(p);
}

/*
 * Over all elements up to END, or up to the end-of-contents mark, into nested
 * ones. OpenSSL has no accessor for the parameters of a password recipient, and
 * begins to derive without asking. Returns false when it is no BER.
 */
static bool walk_elements(struct walk *w) // NOLINT(misc-no-recursion): DEPTH_MAX
{
	while (w->at < w->end) {
		const unsigned char *content = w->at, *end = w->end;
		int tag, class;
		long length;
		int form = ASN1_get_object(&content, &length, &tag, &class, end - w->at);

		if (form & 0x80)
			return false;
		w->at = content + length;
		if (tag == V_ASN1_EOC && class == V_ASN1_UNIVERSAL && length == 0)
			return true;
		if (tag == V_ASN1_OBJECT && length == sizeof(pbkdf2) &&
		    memcmp(content, pbkdf2, sizeof(pbkdf2)) == 0)
			take_iterations(w, w->at);
		if (!(form & V_ASN1_CONSTRUCTED))
			continue;
		w->at = content;
		w->end = form & 1 ? end : content + length;
		if (++w->depth > DEPTH_MAX || !walk_elements(w))
			return false;
		w->depth--;
		w->end = end;
	}
	return true;
}

static int check_work(const void *data, size_t size, unsigned max_iterations, unsigned passphrases,
		      struct qs_error *err)
{
	struct walk w = { .at = data, .end = (const unsigned char *)data + size };

	if (!walk_elements(&w) || w.count < passphrases)
		return qs_fail(err, QS_E_FAILED, "it is damaged, or no key bundle");
	if (w.iterations > max_iterations)
		return qs_fail(err, QS_E_FAILED,
			       "its key derivation asks for %ju iterations, more than %u "
			       "(max_kdf_iterations in the configuration)",
			       (uintmax_t)w.iterations, max_iterations);
	return 0;
}

/* ---- parsing ---- */

void qs_auto_sealed(struct qs_sealed **s)
{
	struct qs_sealed *sealed = *s;

	if (!sealed)
		return;
	BIO_free_all(sealed->chain);
	CMS_ContentInfo_free(sealed->cms);
	free(sealed);
	*s = NULL;
}

static void count_recipients(CMS_ContentInfo *cms, unsigned *ret_certificates,
			     unsigned *ret_passphrases)
{
	STACK_OF(CMS_RecipientInfo) *all = CMS_get0_RecipientInfos(cms);

	for (int i = 0; i < sk_CMS_RecipientInfo_num(all); i++) {
		int type = CMS_RecipientInfo_type(sk_CMS_RecipientInfo_value(all, i));

		*ret_certificates += type == CMS_RECIPINFO_TRANS || type == CMS_RECIPINFO_AGREE;
		*ret_passphrases += type == CMS_RECIPINFO_PASS;
	}
}

/* Anything but one whole AuthEnvelopedData: EnvelopedData would not be authenticated. */
static CMS_ContentInfo *parse(const unsigned char *data, size_t size)
{
	const unsigned char *p = data;
	CMS_ContentInfo *cms = size <= LONG_MAX ? d2i_CMS_ContentInfo(NULL, &p, (long)size) : NULL;

	if (cms && p == data + size &&
	    OBJ_obj2nid(CMS_get0_type(cms)) == NID_id_smime_ct_authEnvelopedData)
		return cms;
	CMS_ContentInfo_free(cms);
	ERR_clear_error();
	return NULL;
}

int qs_sealed_load(const void *data, size_t size, unsigned max_iterations, struct qs_sealed **ret,
		   struct qs_seal_recipient_kinds *ret_kinds, struct qs_error *err)
{
	QS_AUTO(qs_auto_sealed) struct qs_sealed *s = calloc(1, sizeof(*s));
	unsigned certificates = 0, passphrases = 0;
	int r;

	if (!s)
		return qs_fail(err, QS_E_MEMORY, "no memory to open a bundle");
	s->cms = parse(data, size);
	if (!s->cms)
		return qs_fail(err, QS_E_FAILED, "it is damaged, or no key bundle");
	count_recipients(s->cms, &certificates, &passphrases);
	r = check_work(data, size, max_iterations, passphrases, err);
	if (r < 0)
		return r;
	ret_kinds->certificate = certificates > 0;
	ret_kinds->passphrase = passphrases > 0;
	*ret = QS_TAKE(s);
	return 0;
}

/* ---- the content key ---- */

/*
 * The cipher of OpenSSL's chain, checked: it would also decrypt with a cipher
 * that authenticates nothing, or with a tag of four bytes, if a changed bundle
 * said so.
 */
static int take_cipher(struct qs_sealed *s, struct qs_error *err)
{
	BIO *cipher;
	char *data = NULL;

	s->chain = CMS_dataInit(s->cms, NULL);
	cipher = s->chain ? BIO_find_type(s->chain, BIO_TYPE_CIPHER) : NULL;
	if (!cipher || BIO_get_cipher_ctx(cipher, &s->cipher) <= 0)
		return qs_fail_openssl(err, QS_E_FAILED, "it is damaged, or no key bundle");
	if (EVP_CIPHER_CTX_get_nid(s->cipher) != NID_aes_256_gcm ||
	    EVP_CIPHER_CTX_get_tag_length(s->cipher) != TAG_SIZE)
		return qs_fail(err, QS_E_FAILED,
			       "it is not encrypted with AES-256-GCM and a whole tag, as key "
			       "bundles are");
	if (EVP_CIPHER_CTX_get_original_iv(s->cipher, s->nonce, sizeof(s->nonce)) <= 0)
		return qs_fail_openssl(err, QS_E_FAILED, "cannot begin to decrypt");
	s->size = (size_t)BIO_get_mem_data(BIO_next(cipher), &data);
	s->ciphertext = (const unsigned char *)data;
	return 0;
}

int qs_sealed_use_passphrase(struct qs_sealed *s, const struct qs_secret *passphrase,
			     struct qs_error *err)
{
	STACK_OF(CMS_RecipientInfo) *all = CMS_get0_RecipientInfos(s->cms);
	bool found = false;

	for (int i = 0; !found && i < sk_CMS_RecipientInfo_num(all); i++) {
		CMS_RecipientInfo *ri = sk_CMS_RecipientInfo_value(all, i);

		if (CMS_RecipientInfo_type(ri) != CMS_RECIPINFO_PASS)
			continue;
		/* Lent for this call only: OpenSSL would free it. */
		(void)CMS_RecipientInfo_set0_password(ri, passphrase->data,
						      (ossl_ssize_t)passphrase->size);
		found = CMS_RecipientInfo_decrypt(s->cms, ri) > 0;
		(void)CMS_RecipientInfo_set0_password(ri, NULL, 0);
	}
	ERR_clear_error();
	return found ? take_cipher(s, err)
		     : qs_fail(err, QS_E_NO_KEY, "the passphrase does not open it");
}

/* RSA: the key is handed over, with a reference of its own. */
static bool try_transport(CMS_ContentInfo *cms, CMS_RecipientInfo *ri, EVP_PKEY *key)
{
	if (!EVP_PKEY_is_a(key, "RSA") || !EVP_PKEY_up_ref(key))
		return false;
	if (!CMS_RecipientInfo_set0_pkey(ri, key)) {
		EVP_PKEY_free(key);
		return false;
	}
	return CMS_RecipientInfo_decrypt(cms, ri) > 0;
}

static bool try_agreement(CMS_ContentInfo *cms, CMS_RecipientInfo *ri, EVP_PKEY *key)
{
	STACK_OF(CMS_RecipientEncryptedKey) *keys = CMS_RecipientInfo_kari_get0_reks(ri);
	bool found = false;

	for (int i = 0; !found && i < sk_CMS_RecipientEncryptedKey_num(keys); i++) {
		CMS_RecipientEncryptedKey *one = sk_CMS_RecipientEncryptedKey_value(keys, i);

		found = CMS_RecipientInfo_kari_set0_pkey(ri, key) > 0 &&
			CMS_RecipientInfo_kari_decrypt(cms, ri, one) > 0;
		(void)CMS_RecipientInfo_kari_set0_pkey(ri, NULL);
	}
	return found;
}

struct pem_asker {
	qs_seal_ask *ask;
	void *cookie;
	struct qs_error error;
	bool asked;
};

/* pem_password_cb: OpenSSL wants the private key's own passphrase. */
static int give_passphrase(char *buffer, int size, int writing, void *cookie)
{
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	struct pem_asker *asker = cookie;

	(void)writing;
	asker->asked = true;
	if (!asker->ask) {
		(void)qs_fail(&asker->error, QS_E_KEY_FILE,
			      "it is encrypted, and has no passphrase");
		return -1;
	}
	if (asker->ask(asker->cookie, &passphrase, &asker->error) < 0 ||
	    passphrase.size > (size_t)size)
		return -1;
	memcpy(buffer, passphrase.data, passphrase.size);
	return (int)passphrase.size;
}

static EVP_PKEY *read_key(const struct qs_secret *pem, const char *name, struct pem_asker *asker,
			  struct qs_error *err)
{
	BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->size);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, give_passphrase, asker) : NULL;

	BIO_free(bio);
	if (key)
		return key;
	if (asker->error.kind != QS_E_NONE) {
		if (err)
			*err = asker->error;
		ERR_clear_error();
	} else if (asker->asked) {
		(void)qs_fail(err, QS_E_NO_KEY, "the passphrase does not open the private key %s",
			      name);
		ERR_clear_error();
	} else {
		(void)qs_fail_openssl(err, QS_E_KEY_FILE, "%s holds no private key in PEM form",
				      name);
	}
	return NULL;
}

int qs_sealed_use_key(struct qs_sealed *s, const struct qs_secret *pem, const char *name,
		      qs_seal_ask *ask, void *cookie, struct qs_error *err)
{
	STACK_OF(CMS_RecipientInfo) *all = CMS_get0_RecipientInfos(s->cms);
	struct pem_asker asker = { .ask = ask, .cookie = cookie };
	struct qs_error own = {};
	EVP_PKEY *key = read_key(pem, name, &asker, &own);
	bool found = false;

	if (!key) {
		if (err)
			*err = own;
		return qs_kind_errno(own.kind);
	}
	for (int i = 0; !found && i < sk_CMS_RecipientInfo_num(all); i++) {
		CMS_RecipientInfo *ri = sk_CMS_RecipientInfo_value(all, i);
		int type = CMS_RecipientInfo_type(ri);

		if (type == CMS_RECIPINFO_TRANS)
			found = try_transport(s->cms, ri, key);
		else if (type == CMS_RECIPINFO_AGREE)
			found = try_agreement(s->cms, ri, key);
	}
	EVP_PKEY_free(key);
	ERR_clear_error();
	return found ? take_cipher(s, err)
		     : qs_fail(err, QS_E_NO_KEY, "the private key %s does not open it", name);
}

/* ---- the content ---- */

int qs_sealed_rewind(struct qs_sealed *s, struct qs_error *err)
{
	s->done = 0;
	if (EVP_DecryptInit_ex(s->cipher, NULL, NULL, NULL, s->nonce) <= 0)
		return qs_fail_openssl(err, QS_E_FAILED, "cannot decrypt it");
	return 0;
}

int qs_sealed_read(struct qs_sealed *s, void *data, size_t size, struct qs_error *err)
{
	unsigned char *p = data;

	if (size > s->size - s->done)
		return qs_fail(err, QS_E_FAILED, "the archive in it is cut off");
	while (size > 0) {
		int n = 0, part = size < PIECE_SIZE ? (int)size : (int)PIECE_SIZE;

		if (EVP_DecryptUpdate(s->cipher, p, &n, s->ciphertext + s->done, part) <= 0 ||
		    n != part)
			return qs_fail_openssl(err, QS_E_FAILED, "cannot decrypt it");
		p += part;
		s->done += (size_t)part;
		size -= (size_t)part;
	}
	return 0;
}

int qs_sealed_authenticate(struct qs_sealed *s, uint64_t *ret_size, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret piece = {};
	unsigned char nothing[EVP_MAX_BLOCK_LENGTH];
	int n = 0;
	int r = qs_secret_init(&piece, PIECE_SIZE, err);

	while (r == 0 && s->done < s->size) {
		size_t left = s->size - s->done;

		r = qs_sealed_read(s, piece.data, left < PIECE_SIZE ? left : PIECE_SIZE, err);
	}
	if (r < 0)
		return r;
	if (EVP_DecryptFinal_ex(s->cipher, nothing, &n) <= 0) {
		(void)qs_fail(err, QS_E_FAILED,
			      "it has been changed or damaged since it was made; nothing of it "
			      "can be trusted");
		ERR_clear_error();
		return -EIO;
	}
	*ret_size = s->size;
	return qs_sealed_rewind(s, err);
}
