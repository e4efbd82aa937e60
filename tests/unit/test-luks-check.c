#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "image.h"
#include "luks/fields.h"
#include "luks/header.h"

static struct qs_config config;

static struct qs_luks_header read_header(const char *image)
{
	QS_AUTO(qs_auto_close) int fd = open(image, O_RDONLY | O_CLOEXEC);
	struct qs_luks_header h = {};
	struct qs_error err = {};

	if (qs_luks_header_read(fd, &h, &err) < 0)
		fail_msg("%s", err.text);
	return h;
}

/* What an honest header says, to be edited; the caller releases it. */
static json_t *stock_json(void)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = read_header("luks2.img");

	assert_int_equal(h.version, 2);
	return json_incref(h.json);
}

static json_t *part(json_t *json, const char *section, const char *name)
{
	return json_object_get(json_object_get(json, section), name);
}

static void assert_accepted(const json_t *json)
{
	struct qs_error err = {};

	if (qs_luks_json_check(json, &config, &err) != 0)
		fail_msg("%s", err.text);
}

static void assert_hostile(int r, const struct qs_error *err, const char *sentence)
{
	if (r != qs_kind_errno(QS_E_HOSTILE) || err->kind != QS_E_HOSTILE)
		fail_msg("expected '%s', got %d: %s", sentence, r, err->text);
	if (!strstr(err->text, sentence))
		fail_msg("expected '%s', got: %s", sentence, err->text);
}

static void test_a_stock_header_passes(void **state)
{
	QS_AUTO(qs_auto_json) json_t *json = stock_json();

	(void)state;
	assert_accepted(json);
}

static void test_argon2_defaults_and_a_tpm2_token_pass(void **state)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	struct qs_keyslot slots[32];
	struct qs_error err = {};

	(void)state;
	fresh("luks2.img");
	assert_shell("head -c 20 /dev/urandom >other && cryptsetup luksAddKey -q --key-file key"
		     " --pbkdf argon2id --pbkdf-force-iterations 4 --pbkdf-memory 64"
		     " --pbkdf-parallel 1 " IMAGE " other"
		     " && echo '{\"type\":\"systemd-tpm2\",\"keyslots\":[\"1\"],"
		     "\"tpm2-blob\":\"AAAA\",\"tpm2-pcrs\":[7],\"tpm2-pcr-bank\":\"sha256\","
		     "\"tpm2-policy-hash\":\"00\"}' > token"
		     " && cryptsetup token import --json-file token " IMAGE);
	h = read_header(IMAGE);
	/* cryptsetup's own choice for a person's passphrase on a machine with 4 GiB and 4 cores. */
	json_object_set_new(json_object_get(part(h.json, "keyslots", "1"), "kdf"), "memory",
			    json_integer(1048576));
	json_object_set_new(json_object_get(part(h.json, "keyslots", "1"), "kdf"), "cpus",
			    json_integer(4));
	if (qs_luks_json_check(h.json, &config, &err) != 0)
		fail_msg("%s", err.text);
	assert_int_equal(qs_luks_keyslots(&h, slots, 32), 2);
	assert_int_equal(slots[0].number, 0);
	assert_string_equal(slots[0].kdf, "pbkdf2");
	assert_int_equal(slots[0].iterations, 1000);
	assert_int_equal(slots[0].memory, 0);
	assert_int_equal(slots[0].threads, 1);
	assert_int_equal(slots[0].token, -1);
	assert_string_equal(slots[0].token_type, "");
	assert_int_equal(slots[1].number, 1);
	assert_string_equal(slots[1].kdf, "argon2id");
	assert_int_equal(slots[1].iterations, 4);
	assert_int_equal(slots[1].memory, 1048576 * 1024ULL);
	assert_int_equal(slots[1].threads, 4);
	assert_int_equal(slots[1].token, 0);
	assert_string_equal(slots[1].token_type, "systemd-tpm2");
}

static void test_every_hostile_header_is_refused_with_its_reason(void **state)
{
	(void)state;
	assert_true(headers_case_count > 40);
	for (size_t i = 0; i < headers_case_count; i++) {
		QS_AUTO(qs_auto_json) json_t *json = stock_json();
		struct qs_error err = {};
		int r;

		headers_cases[i].edit(json);
		r = qs_luks_json_check(json, &config, &err);
		assert_hostile(r, &err, headers_cases[i].sentence);
	}
}

/* F12: checksums are right and the right key opens it, so stock tools take it. */
static void test_a_null_cipher_that_stock_opens_is_refused(void **state)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	struct qs_error err = {};

	(void)state;
	fresh("luks2.img");
	assert_int_equal(headers_break(IMAGE, "null-cipher"), 0);
	assert_shell("cryptsetup open --test-passphrase --key-file key " IMAGE);
	h = read_header(IMAGE);
	assert_int_equal(h.version, 2);
	assert_string_equal(h.cipher, "cipher_null-ecb");
	assert_hostile(qs_luks_json_check(h.json, &config, &err), &err, "does not encrypt");
}

static void test_something_that_is_no_header_is_refused(void **state)
{
	QS_AUTO(qs_auto_json) json_t *array = json_pack("[]");
	QS_AUTO(qs_auto_json) json_t *object = json_pack("{}");
	struct qs_error err = {};

	(void)state;
	assert_hostile(qs_luks_json_check(NULL, &config, &err), &err, "malformed");
	assert_hostile(qs_luks_json_check(array, &config, &err), &err, "malformed");
	assert_hostile(qs_luks_json_check(object, &config, &err), &err, "malformed");
}

static void test_costs_up_to_the_configured_caps_pass(void **state)
{
	QS_AUTO(qs_auto_json) json_t *json = stock_json();
	json_t *kdf = json_object_get(part(json, "keyslots", "0"), "kdf");
	struct qs_config strict = config;
	struct qs_error err = {};

	(void)state;
	strict.max_kdf_iterations = 5000;
	json_object_set_new(kdf, "iterations", json_integer(5000));
	assert_int_equal(qs_luks_json_check(json, &strict, &err), 0);
	json_object_set_new(kdf, "iterations", json_integer(5001));
	assert_hostile(qs_luks_json_check(json, &strict, &err), &err,
		       "keyslot 0 wants 5001 PBKDF2 iterations, more than 5000 "
		       "(max_kdf_iterations in qs-util.conf)");
	strict.max_kdf_memory = 64ULL << 20;
	strict.max_kdf_time = 9;
	assert_int_equal(
		json_object_update_new(kdf, json_pack("{s:s,s:i,s:i,s:i}", "type", "argon2i",
						      "time", 9, "memory", 65536, "cpus", 4)),
		0);
	assert_int_equal(qs_luks_json_check(json, &strict, &err), 0);
	json_object_set_new(kdf, "memory", json_integer(65537));
	assert_hostile(qs_luks_json_check(json, &strict, &err), &err,
		       "wants 65537 KiB of memory, more than 65536 (max_kdf_memory");
	json_object_set_new(kdf, "memory", json_integer(65536));
	json_object_set_new(kdf, "time", json_integer(10));
	assert_hostile(qs_luks_json_check(json, &strict, &err), &err,
		       "wants 10 Argon2 passes, more than 9 (max_kdf_time");
	json_object_set_new(kdf, "time", json_integer(9));
	json_object_set_new(kdf, "cpus", json_integer(5));
	assert_hostile(qs_luks_json_check(json, &strict, &err), &err, "wants 5 threads");
}

static void test_what_honest_tools_also_write_passes(void **state)
{
	QS_AUTO(qs_auto_json) json_t *json = stock_json();
	json_t *settings = json_object_get(json, "config");

	(void)state;
	json_object_set_new(part(json, "segments", "0"), "size", json_string("8388608"));
	json_object_set_new(settings, "flags",
			    json_pack("[s,s]", "no-read-workqueue", "no-write-workqueue"));
	json_object_set_new(settings, "requirements", json_pack("{}"));
	assert_accepted(json);
	json_object_set_new(settings, "requirements", json_pack("{s:[]}", "mandatory"));
	assert_accepted(json);
	/* A slot for a key of its own, bound to no segment (luksAddKey --unbound). */
	json_object_set_new(json_object_get(json, "digests"), "1",
			    json_deep_copy(part(json, "digests", "0")));
	json_object_set_new(part(json, "digests", "1"), "segments", json_array());
	assert_accepted(json);
}

static void test_numbers_are_taken_only_as_libcryptsetup_writes_them(void **state)
{
	static const char *const wrong[] = { "",   " 1",   "+1",  "-1",
					     "1 ", "0x10", "1e3", "18446744073709551616",
					     "one" };
	QS_AUTO(qs_auto_json) json_t *most = json_pack("{s:s}", "n", "18446744073709551615");
	uint64_t value = 0;

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(wrong); i++) {
		QS_AUTO(qs_auto_json) json_t *json = json_pack("{s:s}", "n", wrong[i]);

		if (qs_fields_decimal(json, "n", &value))
			fail_msg("'%s' counts as a number", wrong[i]);
		if (qs_fields_slot(wrong[i]) >= 0)
			fail_msg("'%s' counts as a keyslot", wrong[i]);
	}
	assert_true(qs_fields_decimal(most, "n", &value));
	assert_true(value == UINT64_MAX);
	assert_int_equal(qs_fields_slot("0"), 0);
	assert_int_equal(qs_fields_slot("31"), 31);
	assert_int_equal(qs_fields_slot("32"), -1);
	assert_int_equal(qs_fields_slot("07"), -1);
	assert_int_equal(qs_fields_slot("100"), -1);
}

static void test_sentences_carry_no_control_characters(void **state)
{
	QS_AUTO(qs_auto_json) json_t *json = stock_json();
	struct qs_error err = {};
	char *flag;

	(void)state;
	assert_true(asprintf(&flag, "\x1b]0;%0*d", 3000, 7) > 0);
	json_object_set_new(json_object_get(json, "config"), "requirements",
			    json_pack("{s:[s]}", "mandatory", flag));
	free(flag);
	assert_hostile(qs_luks_json_check(json, &config, &err), &err, "requires '?]0;000");
	assert_null(strchr(err.text, '\x1b'));
	assert_non_null(strstr(err.text, "which qs-util does not know"));
}

static void test_luks1_headers(void **state)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	struct qs_luks_header bad;
	struct qs_keyslot slots[8];
	struct qs_error err = {};

	(void)state;
	assert_shell("truncate -s 8M luks1.img && head -c 20 /dev/urandom >second &&"
		     "cryptsetup -q luksFormat --type luks1 --pbkdf-force-iterations 5000"
		     " --key-file key luks1.img && cryptsetup -q luksAddKey --key-file key"
		     " --pbkdf-force-iterations 2000 luks1.img second");
	h = read_header("luks1.img");
	if (qs_luks1_check(&h, &config, &err) != 0)
		fail_msg("%s", err.text);
	assert_int_equal(qs_luks_keyslots(&h, slots, 8), 2);
	assert_int_equal(slots[0].number, 1);
	assert_int_equal(slots[0].iterations, 2000);
	assert_string_equal(slots[0].kdf, "pbkdf2");
	assert_int_equal(slots[0].token, -1);
	assert_int_equal(slots[1].number, 0);
	assert_int_equal(qs_luks_keyslots(&h, slots, 1), 1);
	bad = h;
	(void)snprintf(bad.cipher, sizeof(bad.cipher), "cipher_null-ecb");
	assert_hostile(qs_luks1_check(&bad, &config, &err), &err, "does not encrypt");
	bad = h;
	bad.luks1_iterations[7] = 4000000000;
	assert_hostile(qs_luks1_check(&bad, &config, &err), &err, "keyslot 7 wants 4000000000");
	bad = h;
	bad.luks1_digest_iterations = 4000000000;
	assert_hostile(qs_luks1_check(&bad, &config, &err), &err, "the digest of the volume key");
	bad = h;
	bad.data_offset = 0;
	assert_hostile(qs_luks1_check(&bad, &config, &err), &err, "inside the header");
}

static void test_keyslots_are_sorted_and_survive_malformed_costs(void **state)
{
	struct qs_luks_header h = { .version = 2 };
	struct qs_keyslot slots[3];

	(void)state;
	h.json = json_pack(
		"{s:{s:{s:{s:s,s:i,s:i,s:i}},s:{s:{s:s,s:i}},s:{s:{s:s,s:i}},s:{s:i},s:{}},"
		"s:{s:{s:s,s:[s]},s:{s:s,s:[s,i]},s:{s:s,s:[s]},s:i}}",
		"keyslots", "5", "kdf", "type", "argon2i", "time", 1, "memory", 64, "cpus", 2, "7",
		"kdf", "type", "pbkdf2", "iterations", 3000, "3", "kdf", "type", "pbkdf2",
		"iterations", 2000, "30", "kdf", 5, "32", "tokens", "4", "type", "b", "keyslots",
		"7", "2", "type", "a", "keyslots", "7", 3, "6", "type", "c", "keyslots", "7", "9",
		1);
	assert_non_null(h.json);
	assert_int_equal(qs_luks_keyslots(&h, slots, 3), 3);
	assert_int_equal(slots[0].number, 3);
	assert_int_equal(slots[1].number, 7);
	assert_int_equal(slots[1].token, 2);
	assert_string_equal(slots[1].token_type, "a");
	assert_int_equal(slots[2].number, 5);
	assert_int_equal(slots[2].memory, 65536);
	json_object_del(json_object_get(h.json, "keyslots"), "3");
	json_object_del(json_object_get(h.json, "keyslots"), "5");
	assert_int_equal(qs_luks_keyslots(&h, slots, 3), 2);
	assert_int_equal(slots[1].number, 30);
	assert_true(slots[1].memory == UINT64_MAX);
	json_object_set_new(json_object_get(h.json, "keyslots"), "1",
			    json_pack("{s:{s:s,s:i,s:I,s:i}}", "kdf", "type", "argon2id", "time", 1,
				      "memory", 1LL << 54, "cpus", 1));
	assert_int_equal(qs_luks_keyslots(&h, slots, 3), 3);
	assert_true(slots[1].memory == UINT64_MAX && slots[1].number == 1);
	qs_luks_header_done(&h);
	assert_int_equal(qs_luks_keyslots(&h, slots, 3), 0);
}

static void test_compare_names_the_first_difference(void **state)
{
	static const struct {
		const char *section, *field, *sentence;
	} rows[] = {
		{ "segments", "type", "the data segment's type is other, recorded is crypt" },
		{ "segments", "encryption",
		  "the data segment's cipher is other, recorded is aes-xts-plain64" },
		{ "segments", "sector_size",
		  "the data segment's sector size is other, recorded is 4096" },
		{ "segments", "offset", "the data segment's offset is other, recorded is 5242880" },
		{ "segments", "size", "the data segment's size is other, recorded is dynamic" },
		{ "segments", "iv_tweak", "the data segment's first IV is other, recorded is 0" },
		{ "digests", "hash", "the hash of the volume key's digest is other" },
		{ "digests", "iterations",
		  "the iteration count of the volume key's digest is other" },
		{ "digests", "salt", "the salt of the volume key's digest is other" },
		{ "digests", "digest", "the volume key's digest is other" },
	};
	QS_AUTO(qs_auto_json) json_t *recorded = stock_json();
	struct qs_error err = {};

	(void)state;
	assert_int_equal(qs_luks_json_compare(recorded, "u", recorded, "U", &err), 0);
	for (size_t i = 0; i < QS_ARRAY_SIZE(rows); i++) {
		QS_AUTO(qs_auto_json) json_t *now = json_deep_copy(recorded);
		json_t *object = part(now, rows[i].section, "0");

		json_object_set_new(object, rows[i].field, json_string("other"));
		assert_hostile(qs_luks_json_compare(now, "u", recorded, "u", &err), &err,
			       rows[i].sentence);
		json_object_del(object, rows[i].field);
		assert_hostile(qs_luks_json_compare(now, "u", recorded, "u", &err), &err,
			       " is missing, recorded is ");
	}
	assert_hostile(qs_luks_json_compare(recorded, "u", recorded, "v", &err), &err,
		       "the header's UUID is u, the recorded one is v");
}

static void test_compare_lets_keyslots_and_tokens_change(void **state)
{
	QS_AUTO(qs_auto_json) json_t *recorded = stock_json();
	QS_AUTO(qs_auto_json) json_t *now = json_deep_copy(recorded);
	struct qs_error err = {};

	(void)state;
	json_object_set_new(json_object_get(now, "keyslots"), "1",
			    json_deep_copy(part(now, "keyslots", "0")));
	json_object_set_new(json_object_get(now, "tokens"), "0", json_pack("{}"));
	json_object_set_new(part(now, "digests", "0"), "keyslots", json_pack("[s,s]", "0", "1"));
	/* A field that neither has is no difference. */
	json_object_del(part(now, "digests", "0"), "hash");
	json_object_del(part(recorded, "digests", "0"), "hash");
	assert_int_equal(qs_luks_json_compare(now, "u", recorded, "u", &err), 0);
}

static void test_compare_without_metadata(void **state)
{
	QS_AUTO(qs_auto_json) json_t *json = stock_json();
	QS_AUTO(qs_auto_json) json_t *empty = json_pack("{}");
	struct qs_error err = {};

	(void)state;
	assert_int_equal(qs_luks_json_compare(NULL, "u", NULL, "u", &err), 0);
	assert_hostile(qs_luks_json_compare(NULL, "u", json, "u", &err), &err,
		       "the present header has no data segment");
	assert_hostile(qs_luks_json_compare(json, "u", empty, "u", &err), &err,
		       "the recorded header has no data segment");
}

static int setup(void **state)
{
	qs_config_init(&config);
	return image_setup(state);
}

static int teardown(void **state)
{
	qs_config_done(&config);
	return image_teardown(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_stock_header_passes),
		cmocka_unit_test(test_argon2_defaults_and_a_tpm2_token_pass),
		cmocka_unit_test(test_every_hostile_header_is_refused_with_its_reason),
		cmocka_unit_test(test_a_null_cipher_that_stock_opens_is_refused),
		cmocka_unit_test(test_something_that_is_no_header_is_refused),
		cmocka_unit_test(test_costs_up_to_the_configured_caps_pass),
		cmocka_unit_test(test_what_honest_tools_also_write_passes),
		cmocka_unit_test(test_numbers_are_taken_only_as_libcryptsetup_writes_them),
		cmocka_unit_test(test_sentences_carry_no_control_characters),
		cmocka_unit_test(test_luks1_headers),
		cmocka_unit_test(test_keyslots_are_sorted_and_survive_malformed_costs),
		cmocka_unit_test(test_compare_names_the_first_difference),
		cmocka_unit_test(test_compare_lets_keyslots_and_tokens_change),
		cmocka_unit_test(test_compare_without_metadata),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
