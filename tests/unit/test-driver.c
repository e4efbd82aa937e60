#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "luks/driver.h"

/* The lines of /proc/crypto that follow the driver, as Linux prints them for a cipher. */
#define REST(priority, selftest, internal)                                                         \
	"module       : aesni_intel\n"                                                             \
	"priority     : " priority "\n"                                                            \
	"refcnt       : 1\n"                                                                       \
	"selftest     : " selftest "\n"                                                            \
	"internal     : " internal "\n"                                                            \
	"type         : skcipher\n"                                                                \
	"async        : yes\n"                                                                     \
	"blocksize    : 16\n"                                                                      \
	"min keysize  : 32\n"                                                                      \
	"max keysize  : 64\n"                                                                      \
	"ivsize       : 16\n"                                                                      \
	"chunksize    : 16\n"                                                                      \
	"walksize     : 16\n"                                                                      \
	"\n"
#define ENTRY(name, driver, priority)                                                              \
	"name         : " name "\ndriver       : " driver "\n" REST(priority, "passed", "no")
#define INTERNAL(name, driver, priority)                                                           \
	"name         : " name "\ndriver       : " driver "\n" REST(priority, "passed", "yes")

#define HASH                                                                                       \
	"name         : sha256\n"                                                                  \
	"driver       : sha256-generic\n"                                                          \
	"module       : kernel\n"                                                                  \
	"priority     : 100\n"                                                                     \
	"refcnt       : 2\n"                                                                       \
	"selftest     : passed\n"                                                                  \
	"internal     : no\n"                                                                      \
	"type         : shash\n"                                                                   \
	"blocksize    : 64\n"                                                                      \
	"digestsize   : 32\n"                                                                      \
	"\n"

/* clang-format off */
/* Linux 6.1 with AES-NI after dm-crypt ran: wrappers, helpers and a hash in between. */
static const char aes_ni[] =
	INTERNAL("__xts(aes)", "cryptd(__xts-aes-aesni)", "451")
	INTERNAL("xts(aes)", "__xts-aes-helper", "900")
	ENTRY("xts(aes)", "xts(ecb(aes-generic))", "100")
	HASH
	ENTRY("xts(aes)", "xts-aes-aesni", "401")
	INTERNAL("__xts(aes)", "__xts-aes-aesni", "401")
	ENTRY("cbc(aes)", "cbc-aes-aesni", "400");

/* Linux 6.10 and later on a processor with VAES. */
static const char vaes[] =
	ENTRY("xts(aes)", "xts-aes-aesni", "401")
	ENTRY("xts(aes)", "xts-aes-aesni-avx", "500")
	ENTRY("xts(aes)", "xts-aes-vaes-avx2", "600");

static const char generic[] =
	ENTRY("xts(aes)", "xts(ecb(aes-generic))", "100")
	ENTRY("aes", "aes-generic", "100");

/* Linux 6.1 on an arm64 processor with the cryptography extensions. */
static const char arm[] =
	ENTRY("xts(aes)", "xts-aes-ce", "300")
	ENTRY("xts(aes)", "xts-aes-neonbs", "250")
	ENTRY("xts(aes)", "xts(ecb(aes-generic))", "100");
/* clang-format on */

static void assert_driver(const char *text, const char *cipher, const char *driver,
			  const char *family, bool slow)
{
	struct qs_cipher_driver d;

	memset(&d, 0xee, sizeof(d));
	qs_cipher_driver_parse(text, cipher, &d);
	assert_string_equal(d.driver, driver);
	assert_string_equal(d.family, family);
	assert_int_equal(d.slow, slow);
}

static void test_the_highest_priority_serves_and_helpers_do_not_count(void **state)
{
	(void)state;
	assert_driver(aes_ni, "aes-xts-plain64", "xts-aes-aesni", "aes-ni", false);
	assert_driver(vaes, "aes-xts-plain64", "xts-aes-vaes-avx2", "vaes", false);
	assert_driver(generic, "aes-xts-plain64", "xts(ecb(aes-generic))", "generic", true);
	assert_driver(arm, "aes-xts-plain64", "xts-aes-ce", "arm-ce", false);
	assert_driver(ENTRY("xts(aes)", "xts-aes-s390", "402"), "aes-xts-plain64", "xts-aes-s390",
		      "s390", false);
	/* A template over a one-block cipher other than aes-generic is no faster. */
	assert_driver(ENTRY("xts(aes)", "xts(ecb(aes-fixed-time))", "101"), "aes-xts-plain64",
		      "xts(ecb(aes-fixed-time))", "generic", true);
	assert_driver(ENTRY("xts(aes)", "xts(ecb-aes-aesni)", "399"), "aes-xts-plain64",
		      "xts(ecb-aes-aesni)", "aes-ni", false);
	assert_driver(ENTRY("xts(aes)", "xts-aes-neonbs", "250"), "aes-xts-plain64",
		      "xts-aes-neonbs", "other", false);
}

static void test_a_driver_that_failed_its_self_test_does_not_count(void **state)
{
	(void)state;
	assert_driver("name         : xts(aes)\ndriver       : xts-aes-vaes-avx2\n" REST(
			      "600", "unknown", "no") ENTRY("xts(aes)", "xts-aes-aesni", "401"),
		      "aes-xts-plain64", "xts-aes-aesni", "aes-ni", false);
}

static void test_dm_crypt_names_find_the_kernels_names(void **state)
{
	static const struct {
		const char *cipher, *name;
	} rows[] = {
		{ "aes-xts-plain64", ENTRY("xts(aes)", "yes", "1") },
		{ "aes-cbc-essiv:sha256", ENTRY("cbc(aes)", "yes", "1") },
		{ "aes:64-cbc-lmk", ENTRY("cbc(aes)", "yes", "1") },
		{ "aes-ecb", ENTRY("ecb(aes)", "yes", "1") },
		{ "aes-plain", ENTRY("cbc(aes)", "yes", "1") },
		{ "aes", ENTRY("cbc(aes)", "yes", "1") },
		{ "xchacha12,aes-adiantum-plain64", ENTRY("adiantum(xchacha12,aes)", "yes", "1") },
		{ "capi:xts(aes)-plain64", ENTRY("xts(aes)", "yes", "1") },
		{ "capi:xts(aes)", ENTRY("xts(aes)", "yes", "1") },
	};

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(rows); i++)
		assert_driver(rows[i].name, rows[i].cipher, "yes", "other", false);
}

static void test_a_cipher_that_nobody_used_yet_has_no_driver(void **state)
{
	(void)state;
	assert_driver(aes_ni, "serpent-xts-plain64", "", "", false);
	assert_driver("", "aes-xts-plain64", "", "", false);
	assert_driver("", "", "", "", false);
}

static void test_odd_text_is_passed_over(void **state)
{
	(void)state;
	assert_driver("\n\n:\nname\nname :\n\nname         : xts(aes)\n"
		      "driver       : last-without-newline\npriority     : 7",
		      "aes-xts-plain64", "last-without-newline", "other", false);
}

/* The kernel's file says that it has 0 bytes; what it lists must be found all the same. */
static void test_the_running_kernel_answers_as_its_file_says(void **state)
{
	const struct qs_env env = { .root = "" };
	QS_AUTO(qs_auto_fclose) FILE *f = fopen("/proc/crypto", "re");
	QS_AUTO(qs_auto_free) char *text = NULL;
	struct qs_cipher_driver d;
	struct qs_error err = {};
	char name[100], cipher[128];
	unsigned listed = 0, found = 0;
	size_t size = 0;

	(void)state;
	if (f && getdelim(&text, &size, '\0', f) < 0)
		fail_msg("cannot read /proc/crypto");
	for (const char *p = text; p; p = strstr(p + 1, "name  ")) {
		assert_int_equal(sscanf(p, "name : %99[^\n]", name), 1);
		(void)snprintf(cipher, sizeof(cipher), "capi:%s-plain", name);
		assert_int_equal(qs_cipher_driver(&env, cipher, &d, &err), 0);
		listed++;
		found += d.driver[0] != '\0';
	}
	assert_int_equal(found > 0, listed > 0);
	assert_int_equal(qs_cipher_driver(&env, "no-such-cipher", &d, &err), 0);
	assert_string_equal(d.driver, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_highest_priority_serves_and_helpers_do_not_count),
		cmocka_unit_test(test_a_driver_that_failed_its_self_test_does_not_count),
		cmocka_unit_test(test_dm_crypt_names_find_the_kernels_names),
		cmocka_unit_test(test_a_cipher_that_nobody_used_yet_has_no_driver),
		cmocka_unit_test(test_odd_text_is_passed_over),
		cmocka_unit_test(test_the_running_kernel_answers_as_its_file_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
