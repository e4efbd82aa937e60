#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <openssl/cms.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "bundle/seal.h"
#include "scratch.h"
#include "sealing.h"

#define ITERATIONS_MAX 100000000U

static const char content[] = "every byte of this is a secret, and there are more than a few";

static char *dir;
static EVP_PKEY *ec, *rsa;
static struct qs_secret ec_pem, rsa_pem;

static char *path_of(const char *name)
{
	return qs_printf("%s/%s", dir, name);
}

static int set_up(void **state)
{
	static const struct test_certificate good = { -TEST_DAY, TEST_DAY, NULL };
	char *path;

	(void)state;
	dir = scratch_make();
	ec = EVP_EC_gen("P-256");
	rsa = EVP_RSA_gen(3072);
	path = path_of("ec.crt");
	test_certificate_write(ec, &good, path);
	free(path);
	path = path_of("rsa.crt");
	test_certificate_write(rsa, &good, path);
	free(path);
	test_key_pem(ec, NULL, &ec_pem);
	test_key_pem(rsa, NULL, &rsa_pem);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	scratch_drop(dir);
	EVP_PKEY_free(ec);
	EVP_PKEY_free(rsa);
	qs_secret_done(&ec_pem);
	qs_secret_done(&rsa_pem);
	return 0;
}

/* A sealed copy of CONTENT, malloc'ed. NAMES of certificates, up to a NULL. */
static char *seal(const char *const *names, const struct qs_secret *passphrase, size_t *ret_size)
{
	QS_AUTO(qs_auto_seal) struct qs_seal *s = NULL;
	const char *paths[3] = { NULL };
	struct qs_seal_recipients to = { paths, 0, passphrase };
	const void *data = NULL;
	char *copy;

	for (; *names; names++)
		paths[to.certificate_count++] = path_of(*names);
	assert_int_equal(qs_seal_begin(&to, &s, NULL), 0);
	/* In pieces, as the archive comes. */
	for (size_t i = 0; i < sizeof(content); i++)
		assert_int_equal(qs_seal_write(s, content + i, 1, NULL), 0);
	assert_int_equal(qs_seal_end(s, &data, ret_size, NULL), 0);
	copy = malloc(*ret_size);
	assert_non_null(copy);
	memcpy(copy, data, *ret_size);
	for (size_t i = 0; i < to.certificate_count; i++)
		free((char *)paths[i]);
	return copy;
}

/* Authenticate and compare; the content can be read again and again. Returns 0 or -errno. */
static int read_all(struct qs_sealed *s, struct qs_error *err)
{
	char again[sizeof(content)];
	uint64_t size = 0;
	int r = qs_sealed_authenticate(s, &size, err);

	if (r < 0)
		return r;
	assert_int_equal(size, sizeof(content));
	for (int pass = 0; pass < 2; pass++) {
		assert_int_equal(qs_sealed_rewind(s, NULL), 0);
		assert_int_equal(qs_sealed_read(s, again, 10, NULL), 0);
		assert_int_equal(qs_sealed_read(s, again + 10, sizeof(again) - 10, NULL), 0);
		assert_memory_equal(again, content, sizeof(content));
		assert_true(qs_sealed_read(s, again, 1, NULL) < 0);
	}
	return 0;
}

static int open_by_key(const char *data, size_t size, const struct qs_secret *pem,
		       struct qs_error *err)
{
	QS_AUTO(qs_auto_sealed) struct qs_sealed *s = NULL;
	struct qs_seal_recipient_kinds kinds = {};
	int r = qs_sealed_load(data, size, ITERATIONS_MAX, &s, &kinds, err);

	if (r == 0)
		r = qs_sealed_use_key(s, pem, "the key", NULL, NULL, err);
	return r < 0 ? r : read_all(s, err);
}

static int open_by_passphrase(const char *data, size_t size, const struct qs_secret *passphrase,
			      unsigned most, struct qs_error *err)
{
	QS_AUTO(qs_auto_sealed) struct qs_sealed *s = NULL;
	struct qs_seal_recipient_kinds kinds = {};
	int r = qs_sealed_load(data, size, most, &s, &kinds, err);

	if (r == 0)
		r = qs_sealed_use_passphrase(s, passphrase, err);
	return r < 0 ? r : read_all(s, err);
}

static void test_each_recipient_opens_it_alone(void **state)
{
	const char *const both[] = { "rsa.crt", "ec.crt", NULL };
	struct qs_secret right = { "open sesame", 11 }, wrong = { "open sesamf", 11 };
	QS_AUTO(qs_secret_done) struct qs_secret other_pem = {};
	QS_AUTO(qs_auto_free) char *data = NULL;
	EVP_PKEY *other = EVP_EC_gen("P-256");
	struct qs_error err = {};
	size_t size = 0;

	(void)state;
	test_key_pem(other, NULL, &other_pem);
	EVP_PKEY_free(other);
	data = seal(both, &right, &size);
	assert_int_equal(open_by_key(data, size, &rsa_pem, NULL), 0);
	assert_int_equal(open_by_key(data, size, &ec_pem, NULL), 0);
	assert_int_equal(open_by_passphrase(data, size, &right, ITERATIONS_MAX, NULL), 0);
	assert_true(open_by_passphrase(data, size, &wrong, ITERATIONS_MAX, &err) < 0);
	assert_int_equal(err.kind, QS_E_NO_KEY);
	assert_true(open_by_key(data, size, &other_pem, &err) < 0);
	assert_int_equal(err.kind, QS_E_NO_KEY);
	assert_null(memmem(data, size, "secret", 6));
}

static void test_a_key_derivation_of_hours_is_refused(void **state)
{
	const char *const none[] = { NULL };
	struct qs_secret passphrase = { "x", 1 };
	QS_AUTO(qs_auto_free) char *data = NULL;
	struct qs_error err = {};
	size_t size = 0;

	(void)state;
	data = seal(none, &passphrase, &size);
	assert_true(open_by_passphrase(data, size, &passphrase, QS_SEAL_ITERATIONS - 1, &err) < 0);
	assert_int_equal(err.kind, QS_E_FAILED);
	assert_non_null(strstr(err.text, "iterations"));
	assert_int_equal(open_by_passphrase(data, size, &passphrase, QS_SEAL_ITERATIONS, NULL), 0);
}

/* Refused, or the same content: names of recipients, for one, are not authenticated. */
static void check_harmless(const char *data, size_t size, size_t *ret_refused)
{
	struct qs_error err = {};

	if (open_by_key(data, size, &ec_pem, &err) == 0)
		return;
	(*ret_refused)++;
	assert_true(err.kind == QS_E_FAILED || err.kind == QS_E_NO_KEY);
	assert_true(err.text[0] != '\0');
}

static void test_every_changed_byte_is_refused_or_harmless(void **state)
{
	const char *const one[] = { "ec.crt", NULL };
	size_t size = 0, refused = 0;
	QS_AUTO(qs_auto_free) char *data = seal(one, NULL, &size);

	(void)state;
	for (size_t i = 0; i < size; i++) {
		for (unsigned bit = 0; bit < 8; bit += 7) {
			data[i] = (char)(data[i] ^ (1U << bit));
			check_harmless(data, size, &refused);
			data[i] = (char)(data[i] ^ (1U << bit));
		}
	}
	/* Most of it: only names and numbers of the recipient may pass. */
	assert_true(refused > 2 * size - 2 * 100);
	assert_int_equal(open_by_key(data, size, &ec_pem, NULL), 0);
}

static void test_every_cut_and_every_addition_is_refused(void **state)
{
	const char *const one[] = { "ec.crt", NULL };
	size_t size = 0;
	QS_AUTO(qs_auto_free) char *data = seal(one, NULL, &size);
	QS_AUTO(qs_auto_free) char *longer = calloc(1, size + 1);
	struct qs_error err = {};

	(void)state;
	for (size_t cut = 0; cut < size; cut++) {
		assert_true(open_by_key(data, cut, &ec_pem, &err) < 0);
		assert_int_equal(err.kind, QS_E_FAILED);
	}
	assert_non_null(longer);
	memcpy(longer, data, size);
	assert_true(open_by_key(longer, size + 1, &ec_pem, &err) < 0);
}

/* Stock CMS to our certificate, with CIPHER. */
static char *stock_envelope(const EVP_CIPHER *cipher, unsigned flags, size_t *ret_size)
{
	QS_AUTO(qs_auto_free) char *path = path_of("ec.crt");
	FILE *f = fopen(path, "re");
	X509 *x = PEM_read_X509(f, NULL, NULL, NULL);
	STACK_OF(X509) *to = sk_X509_new_null();
	BIO *in = BIO_new_mem_buf(content, sizeof(content)), *out = BIO_new(BIO_s_mem());
	CMS_ContentInfo *cms;
	char *data = NULL, *copy;

	assert_int_equal(fclose(f), 0);
	assert_true(sk_X509_push(to, x) > 0);
	cms = CMS_encrypt(to, in, cipher, flags | CMS_BINARY);
	assert_non_null(cms);
	assert_true(i2d_CMS_bio(out, cms));
	*ret_size = (size_t)BIO_get_mem_data(out, &data);
	copy = malloc(*ret_size);
	assert_non_null(copy);
	memcpy(copy, data, *ret_size);
	CMS_ContentInfo_free(cms);
	BIO_free(in);
	BIO_free(out);
	sk_X509_pop_free(to, X509_free);
	return copy;
}

static void test_what_is_not_authenticated_is_refused(void **state)
{
	struct qs_error err = {};
	size_t size = 0;
	QS_AUTO(qs_auto_free) char *cbc = stock_envelope(EVP_aes_256_cbc(), 0, &size);
	QS_AUTO(qs_auto_free) char *weaker = NULL;

	(void)state;
	assert_true(open_by_key(cbc, size, &ec_pem, &err) < 0);
	assert_non_null(strstr(err.text, "no key bundle"));
	weaker = stock_envelope(EVP_aes_128_gcm(), 0, &size);
	assert_true(open_by_key(weaker, size, &ec_pem, &err) < 0);
	assert_non_null(strstr(err.text, "AES-256-GCM"));
	free(weaker);
	weaker = stock_envelope(EVP_aes_256_gcm(), 0, &size);
	assert_int_equal(open_by_key(weaker, size, &ec_pem, NULL), 0);
}

/* What the callback answers. */
static int give(void *cookie, struct qs_secret *ret, struct qs_error *err)
{
	const char *text = cookie;

	if (!text)
		return qs_fail(err, QS_E_USAGE, "nobody there");
	assert_int_equal(qs_secret_init(ret, strlen(text), err), 0);
	memcpy(ret->data, text, ret->size);
	return 0;
}

static int open_by_encrypted_key(const char *data, size_t size, const struct qs_secret *pem,
				 char *passphrase, struct qs_error *err)
{
	QS_AUTO(qs_auto_sealed) struct qs_sealed *s = NULL;
	struct qs_seal_recipient_kinds kinds = {};
	int r = qs_sealed_load(data, size, ITERATIONS_MAX, &s, &kinds, err);

	assert_int_equal(r, 0);
	assert_true(kinds.certificate && !kinds.passphrase);
	r = qs_sealed_use_key(s, pem, "the key", give, passphrase, err);
	return r < 0 ? r : read_all(s, err);
}

static void test_a_private_key_has_a_passphrase_of_its_own(void **state)
{
	const char *const one[] = { "ec.crt", NULL };
	char inner[] = "inner", other[] = "other";
	QS_AUTO(qs_secret_done) struct qs_secret pem = {};
	struct qs_secret nonsense = { "no PEM", 6 };
	size_t size = 0;
	QS_AUTO(qs_auto_free) char *data = seal(one, NULL, &size);
	struct qs_error err = {};

	(void)state;
	test_key_pem(ec, "inner", &pem);
	assert_int_equal(open_by_encrypted_key(data, size, &pem, inner, NULL), 0);
	assert_true(open_by_encrypted_key(data, size, &pem, other, &err) < 0);
	assert_int_equal(err.kind, QS_E_NO_KEY);
	assert_true(open_by_encrypted_key(data, size, &pem, NULL, &err) < 0);
	assert_string_equal(err.text, "nobody there");
	assert_true(open_by_encrypted_key(data, size, &nonsense, inner, &err) < 0);
	assert_int_equal(err.kind, QS_E_KEY_FILE);
}

static void check_certificate(EVP_PKEY *key, const struct test_certificate *how, const char *word)
{
	QS_AUTO(qs_auto_free) char *path = path_of("tried.crt");
	const char *const paths[] = { path };
	const struct qs_seal_recipients to = { paths, 1, NULL };
	QS_AUTO(qs_auto_seal) struct qs_seal *s = NULL;
	struct qs_error err = {};

	test_certificate_write(key, how, path);
	if (!word) {
		assert_int_equal(qs_seal_begin(&to, &s, NULL), 0);
		return;
	}
	assert_true(qs_seal_begin(&to, &s, &err) < 0);
	assert_int_equal(err.kind, QS_E_FAILED);
	assert_non_null(strstr(err.text, word));
	assert_non_null(strstr(err.text, "tried.crt"));
}

static void test_bad_certificates_are_refused_with_the_reason(void **state)
{
	static const struct test_certificate good = { -TEST_DAY, TEST_DAY, NULL },
					     old = { -2 * TEST_DAY, -TEST_DAY, NULL },
					     future = { TEST_DAY, 2 * TEST_DAY, NULL },
					     signing = { -TEST_DAY, TEST_DAY, "digitalSignature" },
					     transport = { -TEST_DAY, TEST_DAY, "keyEncipherment" },
					     agreement = { -TEST_DAY, TEST_DAY, "keyAgreement" };
	EVP_PKEY *small = EVP_RSA_gen(2048), *curve = EVP_EC_gen("P-224");

	(void)state;
	check_certificate(rsa, &good, NULL);
	check_certificate(rsa, &transport, NULL);
	check_certificate(ec, &agreement, NULL);
	check_certificate(rsa, &old, "expired");
	check_certificate(rsa, &future, "not valid yet");
	check_certificate(rsa, &signing, "keyEncipherment");
	check_certificate(ec, &transport, "keyAgreement");
	check_certificate(small, &good, "2048 bits");
	check_certificate(curve, &good, "224 bits");
	EVP_PKEY_free(small);
	EVP_PKEY_free(curve);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_recipient_opens_it_alone),
		cmocka_unit_test(test_a_key_derivation_of_hours_is_refused),
		cmocka_unit_test(test_every_changed_byte_is_refused_or_harmless),
		cmocka_unit_test(test_every_cut_and_every_addition_is_refused),
		cmocka_unit_test(test_what_is_not_authenticated_is_refused),
		cmocka_unit_test(test_a_private_key_has_a_passphrase_of_its_own),
		cmocka_unit_test(test_bad_certificates_are_refused_with_the_reason),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
