#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/config.h"
#include "base/env.h"

static int parse(struct qs_config *config, const char *text, struct qs_error *err)
{
	return qs_config_parse(config, text, "x.conf", err);
}

/* TEXT is refused as configuration, at LINE, with each of WORDS (split at '|') in the sentence. */
static void assert_refused(const char *text, const char *place, const char *words)
{
	QS_AUTO(qs_config_done) struct qs_config config;
	QS_AUTO(qs_auto_free) char *copy = qs_strdup(words);
	struct qs_error err = {};
	char *rest = copy;

	qs_config_init(&config);
	if (parse(&config, text, &err) >= 0)
		fail_msg("taken: %s", text);
	assert_int_equal(err.kind, QS_E_CONFIG);
	if (strncmp(err.text, place, strlen(place)) != 0)
		fail_msg("'%s' does not begin with '%s'", err.text, place);
	for (char *word = strsep(&rest, "|"); word; word = strsep(&rest, "|"))
		if (!strstr(err.text, word))
			fail_msg("'%s' lacks '%s'", err.text, word);
}

static void assert_taken(struct qs_config *config, const char *text)
{
	struct qs_error err = {};

	if (parse(config, text, &err) < 0)
		fail_msg("%s: %s", text, err.text);
}

static void test_defaults_are_those_of_the_design(void **state)
{
	static const char *const order[] = { "scsi-3", "scsi-",   "nvme-eui.", "nvme-",
					     "ata-",   "virtio-", "wwn-" };
	QS_AUTO(qs_config_done) struct qs_config config;

	(void)state;
	qs_config_init(&config);
	assert_string_equal(config.keys_dir, "/etc/cryptconf/keys");
	assert_string_equal(config.headers_dir, "/etc/cryptconf/headers");
	assert_string_equal(config.crypttab_options, "luks");
	assert_string_equal(config.cipher, "aes-xts-plain64");
	assert_int_equal(config.key_size, 512);
	assert_int_equal(config.sector_size, 0);
	assert_int_equal(config.metadata_size, 128 * 1024);
	assert_int_equal(config.keyslots_size, 4 * 1024 * 1024);
	assert_int_equal(config.header_versions, 3);
	assert_int_equal(config.open_deadline_s, 90);
	assert_int_equal(config.lock_wait_s, 30);
	assert_int_equal(config.workers, 0);
	assert_int_equal(config.memory_limit, 0);
	assert_int_equal(config.max_kdf_memory, 4ULL << 30);
	assert_int_equal(config.max_kdf_iterations, 100000000);
	assert_int_equal(config.max_kdf_time, 1000);
	assert_true(config.workqueue_flags);
	for (size_t i = 0; i < QS_ARRAY_SIZE(order); i++)
		assert_string_equal(config.name_order[i], order[i]);
	assert_null(config.name_order[QS_ARRAY_SIZE(order)]);
}

static void test_every_key_is_read(void **state)
{
	QS_AUTO(qs_config_done) struct qs_config c;

	(void)state;
	qs_config_init(&c);
	assert_taken(&c, "keys_dir = \"/media/keys\"; headers_dir = \"/h\";\n"
			 "crypttab_options = \"luks,nofail,x-systemd.device-timeout=30s\";\n"
			 "name_order = [ \"wwn-\", \"ata-\" ]; cipher = \"serpent-xts-plain64\";\n"
			 "key_size = 256; sector_size = 512; metadata_size = \"4 MiB\";\n"
			 "keyslots_size = 1048576; header_versions = 0; open_deadline = \"2m\";\n"
			 "lock_wait = 0; workers = 8; memory_limit = \"8GiB\";\n"
			 "max_kdf_memory = 1073741824; max_kdf_iterations = 4294967295L;\n"
			 "max_kdf_time = 0x10; workqueue_flags = false;\n");
	assert_string_equal(c.keys_dir, "/media/keys");
	assert_string_equal(c.headers_dir, "/h");
	assert_string_equal(c.crypttab_options, "luks,nofail,x-systemd.device-timeout=30s");
	assert_string_equal(c.name_order[0], "wwn-");
	assert_string_equal(c.name_order[1], "ata-");
	assert_null(c.name_order[2]);
	assert_string_equal(c.cipher, "serpent-xts-plain64");
	assert_int_equal(c.key_size, 256);
	assert_int_equal(c.sector_size, 512);
	assert_int_equal(c.metadata_size, 4 << 20);
	assert_int_equal(c.keyslots_size, 1 << 20);
	assert_int_equal(c.header_versions, 0);
	assert_int_equal(c.open_deadline_s, 120);
	assert_int_equal(c.lock_wait_s, 0);
	assert_int_equal(c.workers, 8);
	assert_int_equal(c.memory_limit, 8ULL << 30);
	assert_int_equal(c.max_kdf_memory, 1ULL << 30);
	assert_int_equal(c.max_kdf_iterations, UINT32_MAX);
	assert_int_equal(c.max_kdf_time, 16);
	assert_false(c.workqueue_flags);
}

static void test_error_names_file_line_key_value_and_what_is_allowed(void **state)
{
	QS_AUTO(qs_config_done) struct qs_config config;
	struct qs_error err = {};

	(void)state;
	qs_config_init(&config);
	assert_int_equal(parse(&config, "# one\n\nkey_size = 300;\n", &err),
			 qs_kind_errno(QS_E_CONFIG));
	assert_string_equal(err.text, "x.conf:3: key_size is 300; allowed: 128 to 512, a multiple "
				      "of 64");
	assert_int_equal(err.kind, QS_E_CONFIG);
}

static void test_unknown_and_duplicate_keys_are_errors(void **state)
{
	(void)state;
	assert_refused("workers = 2;\nkey_dir = \"/x\";", "x.conf:2:", "unknown key key_dir");
	assert_refused("workers = 2;\n\nworkers = 3;", "x.conf:3:", "duplicate");
	assert_refused("keys: { dir = \"/x\"; };", "x.conf:1:", "unknown key keys");
}

static void test_syntax_errors_have_a_line(void **state)
{
	(void)state;
	assert_refused("workers = 2;\nkeys_dir = \"/x", "x.conf:2:", "syntax error");
	assert_refused("\n\nworkers 2;", "x.conf:3:", "syntax error");
}

static void test_wrong_types_are_errors(void **state)
{
	(void)state;
	assert_refused("workers = \"2\";", "x.conf:1:", "workers is \"2\"|1 to 1024, or 0");
	assert_refused("workers = 1.5;", "x.conf:1:", "workers is a number with a fraction");
	assert_refused("workers = true;", "x.conf:1:", "workers is true");
	assert_refused("workers = [ 1 ];", "x.conf:1:", "workers is a list or group");
	assert_refused("workqueue_flags = 1;", "x.conf:1:", "true or false");
	assert_refused("keys_dir = 7;", "x.conf:1:", "keys_dir is 7");
	assert_refused("name_order = \"scsi-\";", "x.conf:1:", "array");
	assert_refused("name_order = { a = \"scsi-\"; };", "x.conf:1:", "array");
	assert_refused("cipher = false;", "x.conf:1:", "cipher is false");
}

static void test_numbers_outside_their_range_are_errors(void **state)
{
	(void)state;
	assert_refused("workers = -1;", "x.conf:1:", "workers is -1");
	assert_refused("workers = 1025;", "x.conf:1:", "1 to 1024, or 0");
	assert_refused("sector_size = 1000;", "x.conf:1:", "512 to 4096, a power of two, or 0");
	assert_refused("sector_size = 256;", "x.conf:1:", "sector_size");
	assert_refused("metadata_size = \"8 KiB\";", "x.conf:1:", "16 KiB to 4 MiB");
	assert_refused("metadata_size = \"48 KiB\";", "x.conf:1:", "a power of two");
	assert_refused("metadata_size = 0;", "x.conf:1:", "metadata_size is 0");
	assert_refused("keyslots_size = 1000000;", "x.conf:1:", "a multiple of 4 KiB");
	assert_refused("keyslots_size = \"129 MiB\";", "x.conf:1:", "128 MiB");
	assert_refused("open_deadline = 0;", "x.conf:1:", "1s to 86400s");
	assert_refused("open_deadline = \"90 days\";", "x.conf:1:", "90 days");
	assert_refused("lock_wait = \"2h\";", "x.conf:1:", "0s to 3600s");
	assert_refused("max_kdf_iterations = 999;", "x.conf:1:", "1000 to 4294967295");
	assert_refused("memory_limit = \"99999999 TiB\";", "x.conf:1:", "memory_limit");
}

/* libconfig 1.5 alone keeps 32 bits of these: the first would mean "automatic". */
static void test_large_numbers_do_not_wrap(void **state)
{
	QS_AUTO(qs_config_done) struct qs_config config;

	(void)state;
	assert_refused("memory_limit = 4294967296;", "x.conf:1:", "too large|unit");
	assert_refused("\nkeyslots_size = 4299161600;", "x.conf:2:", "too large");
	assert_refused("memory_limit = 0x100000000;", "x.conf:1:", "too large");
	assert_refused("memory_limit = 99999999999999999999L;", "x.conf:1:", "too large");
	qs_config_init(&config);
	assert_taken(&config, "memory_limit = 4294967296L; # not 99999999999999999999\n"
			      "// 99999999999999999999\n/* 4294967296 \n */ workers = 2;\n");
	assert_int_equal(config.memory_limit, 1ULL << 32);
}

static void test_include_is_refused_unless_quoted(void **state)
{
	QS_AUTO(qs_config_done) struct qs_config config;

	(void)state;
	assert_refused("workers = 1;\n@include \"/etc/passwd\"\n", "x.conf:2:", "@include");
	assert_refused("  @include \"/dev/zero\"", "x.conf:1:", "@include");
	assert_refused("/* \" */ \n@include \"a\"", "x.conf:2:", "@include");
	qs_config_init(&config);
	assert_taken(&config, "# @include \"/etc/passwd\"\n/*\n@include \"a\"\n*/\n"
			      "keys_dir = \"/a@b\";");
}

static void test_directories_must_fit_into_crypttab(void **state)
{
	static const char *const bad[] = { "",        "/",        "keys",       "/etc/../keys",
					   "/etc/..", "/a/./b",   "/..",        "/a//b",
					   "/keys/",  "/my keys", "/a:b",       "/a\\tb",
					   "/a'b",    "/$HOME",   "/kl\xc3\xbc" };

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(bad); i++) {
		QS_AUTO(qs_auto_free) char *keys = qs_printf("keys_dir = \"%s\";", bad[i]);
		QS_AUTO(qs_auto_free) char *headers = qs_printf("headers_dir = \"%s\";", bad[i]);

		assert_refused(keys, "x.conf:1:", "keys_dir|absolute path");
		assert_refused(headers, "x.conf:1:", "headers_dir|absolute path");
	}
}

static void test_long_values_are_refused_and_cut_in_the_sentence(void **state)
{
	QS_AUTO(qs_auto_free) char *long_dir = qs_printf("keys_dir = \"/%02000d\";", 0);
	QS_AUTO(qs_auto_free) char *long_key = qs_printf("k%02000d = 1;", 0);

	(void)state;
	assert_refused(long_dir, "x.conf:1:", "allowed: an absolute path");
	assert_refused(long_key, "x.conf:1:", "see qs-util.conf(5)");
	assert_refused("keys_dir = \"a\\nb\\x1b[2J\";", "x.conf:1:", "\"a?b?[2J\"");
}

static void test_options_that_destroy_data_are_refused(void **state)
{
	static const char *const bad[] = { "swap",           "luks,swap",   "tmp",  "luks,tmp=ext4",
					   "plain,size=256", "tcrypt",      "none", "-",
					   "luks,bitlk",     "luks nofail", "" };

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(bad); i++) {
		QS_AUTO(qs_auto_free) char *text = qs_printf("crypttab_options = \"%s\";", bad[i]);

		assert_refused(text, "x.conf:1:", "crypttab_options|overwrites");
	}
}

static void test_null_and_malformed_ciphers_are_refused(void **state)
{
	static const char *const bad[] = { "cipher_null-ecb",
					   "capi:ecb(cipher_null)-null",
					   "null",
					   "aes",
					   "-aes",
					   "aes xts-plain64",
					   "" };

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(bad); i++) {
		QS_AUTO(qs_auto_free) char *text = qs_printf("cipher = \"%s\";", bad[i]);

		assert_refused(text, "x.conf:1:", "cipher is|not a null cipher");
	}
}

static void test_name_order_is_checked_item_by_item(void **state)
{
	QS_AUTO(qs_auto_free) char *many = qs_strdup("name_order = [ \"a\"");

	(void)state;
	assert_refused("name_order = [];", "x.conf:1:", "1 to 64");
	assert_refused("name_order = [ \"ata-\",\n \"../x\" ];", "x.conf:2:", "\"../x\"");
	assert_refused("name_order = [ \"ata-\",\n\n \"\" ];", "x.conf:3:", "name_order is \"\"");
	assert_refused("name_order = [ 1, 2 ];", "x.conf:1:", "name_order is 1");
	for (int i = 0; i < 64; i++) {
		char *longer = qs_printf("%s, \"a\"%s", many, i == 63 ? " ];" : "");

		free(many);
		many = longer;
	}
	assert_refused(many, "x.conf:1:", "name_order is a list|1 to 64");
}

static void test_deep_nesting_is_an_error(void **state)
{
	QS_AUTO(qs_auto_free) char *text = malloc(200002);

	(void)state;
	memcpy(text, "a=", 2);
	memset(text + 2, '(', 199999);
	text[200001] = '\0';
	assert_refused(text, "x.conf:1:", "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults_are_those_of_the_design),
		cmocka_unit_test(test_every_key_is_read),
		cmocka_unit_test(test_error_names_file_line_key_value_and_what_is_allowed),
		cmocka_unit_test(test_unknown_and_duplicate_keys_are_errors),
		cmocka_unit_test(test_syntax_errors_have_a_line),
		cmocka_unit_test(test_wrong_types_are_errors),
		cmocka_unit_test(test_numbers_outside_their_range_are_errors),
		cmocka_unit_test(test_large_numbers_do_not_wrap),
		cmocka_unit_test(test_include_is_refused_unless_quoted),
		cmocka_unit_test(test_directories_must_fit_into_crypttab),
		cmocka_unit_test(test_long_values_are_refused_and_cut_in_the_sentence),
		cmocka_unit_test(test_options_that_destroy_data_are_refused),
		cmocka_unit_test(test_null_and_malformed_ciphers_are_refused),
		cmocka_unit_test(test_name_order_is_checked_item_by_item),
		cmocka_unit_test(test_deep_nesting_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
