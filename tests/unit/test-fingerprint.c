#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "luks/fingerprint.h"

#define UUID "7c3f1ff5-6c1b-4a4e-8f0c-3f2b8f6f1f00"
#define HEX "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define GOOD                                                                                       \
	"{\"type\":\"qs-fingerprint\",\"keyslots\":[\"0\"],\"version\":1,\"fingerprint\":\"" HEX   \
	"\"}"

/* How many fingerprints are in metadata with keyslot 0 and TOKENS ("0":{...},...). */
static size_t count(const char *tokens, struct qs_fingerprint *ret)
{
	struct qs_fingerprint own[4];
	QS_AUTO(qs_auto_free)
	char *text = qs_printf("{\"keyslots\":{\"0\":{}},\"tokens\":{%s}}", tokens);
	QS_AUTO(qs_auto_json) json_t *json = json_loads(text, 0, NULL);

	assert_non_null(json);
	return qs_fingerprint_read(json, ret ? ret : own, 4);
}

static void test_a_token_is_read_as_it_is_written(void **state)
{
	struct qs_fingerprint out = { .slot = 0, .sum = { 0, 1, 254, 255 } }, in;
	QS_AUTO(qs_auto_json) json_t *token = qs_fingerprint_token(&out);
	QS_AUTO(qs_auto_json)
	json_t *json = json_pack("{s:{s:{}}, s:{s:O}}", "keyslots", "0", "tokens", "3", token);

	(void)state;
	assert_int_equal(qs_fingerprint_read(json, &in, 1), 1);
	assert_int_equal(in.slot, 0);
	assert_memory_equal(in.sum, out.sum, sizeof(in.sum));
}

static void test_other_tokens_and_malformed_ones_count_as_none(void **state)
{
	static const char *const none[] = {
		"",
		"\"0\":1",
		"\"0\":{\"type\":1}",
		"\"0\":{\"type\":\"qs-fingerprint\"}",
		"\"0\":{\"type\":\"systemd-tpm2\",\"keyslots\":[\"0\"],\"version\":1,"
		"\"fingerprint\":\"" HEX "\"}",
		"\"0\":{\"type\":\"qs-fingerprint\",\"keyslots\":[],\"version\":1,"
		"\"fingerprint\":\"" HEX "\"}",
		"\"0\":{\"type\":\"qs-fingerprint\",\"keyslots\":[\"0\",\"1\"],\"version\":1,"
		"\"fingerprint\":\"" HEX "\"}",
		"\"0\":{\"type\":\"qs-fingerprint\",\"keyslots\":[\"1\"],\"version\":1,"
		"\"fingerprint\":\"" HEX "\"}",
		"\"0\":{\"type\":\"qs-fingerprint\",\"keyslots\":[0],\"version\":1,"
		"\"fingerprint\":\"" HEX "\"}",
		"\"0\":{\"type\":\"qs-fingerprint\",\"keyslots\":\"0\",\"version\":1,"
		"\"fingerprint\":\"" HEX "\"}",
		"\"0\":{\"type\":\"qs-fingerprint\",\"keyslots\":[\"0\"],\"version\":2,"
		"\"fingerprint\":\"" HEX "\"}",
		"\"0\":{\"type\":\"qs-fingerprint\",\"keyslots\":[\"0\"],\"version\":\"1\","
		"\"fingerprint\":\"" HEX "\"}",
		"\"0\":{\"type\":\"qs-fingerprint\",\"keyslots\":[\"0\"],\"version\":1,"
		"\"fingerprint\":\"" HEX "0\"}",
		"\"0\":{\"type\":\"qs-fingerprint\",\"keyslots\":[\"0\"],\"version\":1,"
		"\"fingerprint\":\"" HEX HEX "\"}",
		"\"0\":{\"type\":\"qs-fingerprint\",\"keyslots\":[\"0\"],\"version\":1,"
		"\"fingerprint\":\"X0112233445566778899aabbccddeeff00112233445566778899aabbccddee"
		"ff\"}",
		"\"0\":{\"type\":\"qs-fingerprint\",\"keyslots\":[\"0\"],\"version\":1,"
		"\"fingerprint\":[]}",
		"\"x\":" GOOD,
		"\"99\":" GOOD,
	};

	(void)state;
	assert_int_equal(count("\"0\":" GOOD, NULL), 1);
	for (size_t i = 0; i < QS_ARRAY_SIZE(none); i++)
		if (count(none[i], NULL) != 0)
			fail_msg("taken for a fingerprint: %s", none[i]);
}

static void test_a_bad_token_does_not_hide_a_good_one_and_the_room_is_kept(void **state)
{
	struct qs_fingerprint found[4];

	(void)state;
	assert_int_equal(count("\"0\":{},\"1\":" GOOD ",\"2\":[]", found), 1);
	assert_int_equal(found[0].sum[1], 0x11);
	assert_int_equal(count("\"0\":" GOOD ",\"1\":" GOOD ",\"2\":" GOOD ",\"3\":" GOOD
			       ",\"4\":" GOOD,
			       found),
			 4);
}

static void test_metadata_without_tokens_has_none(void **state)
{
	QS_AUTO(qs_auto_json) json_t *list = json_array();
	struct qs_fingerprint found;

	(void)state;
	assert_int_equal(qs_fingerprint_read(NULL, &found, 1), 0);
	assert_int_equal(qs_fingerprint_read(list, &found, 1), 0);
}

/* The digest of "abc" stands in FIPS 180-2, B.1. */
static void test_the_digest_is_sha_256(void **state)
{
	static const unsigned char abc[] = { 0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea };
	struct qs_secret key = { (void *)"abc", 3 };
	QS_AUTO(qs_secret_done) struct qs_secret digest = {};

	(void)state;
	assert_int_equal(qs_fingerprint_digest(&key, &digest, NULL), 0);
	assert_int_equal(digest.size, QS_FINGERPRINT_SIZE);
	assert_memory_equal(digest.data, abc, sizeof(abc));
}

static void test_key_and_uuid_both_change_it(void **state)
{
	struct qs_secret keys[] = { { (void *)"abc", 3 }, { (void *)"abd", 3 } };
	unsigned char sums[3][QS_FINGERPRINT_SIZE];

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		QS_AUTO(qs_secret_done) struct qs_secret digest = {};
		const char *uuid = i < 2 ? UUID : "7c3f1ff5-6c1b-4a4e-8f0c-3f2b8f6f1f01";

		assert_int_equal(qs_fingerprint_digest(&keys[i % 2], &digest, NULL), 0);
		assert_int_equal(qs_fingerprint_make(&digest, uuid, sums[i], NULL), 0);
	}
	assert_memory_not_equal(sums[0], sums[1], QS_FINGERPRINT_SIZE);
	assert_memory_not_equal(sums[0], sums[2], QS_FINGERPRINT_SIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_token_is_read_as_it_is_written),
		cmocka_unit_test(test_other_tokens_and_malformed_ones_count_as_none),
		cmocka_unit_test(test_a_bad_token_does_not_hide_a_good_one_and_the_room_is_kept),
		cmocka_unit_test(test_metadata_without_tokens_has_none),
		cmocka_unit_test(test_the_digest_is_sha_256),
		cmocka_unit_test(test_key_and_uuid_both_change_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
