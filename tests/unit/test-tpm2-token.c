/*
 * The systemd-tpm2 token: what four versions of systemd wrote is read, what we
 * write is what systemd 252 writes, and nothing malformed passes.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "vectors.h"

static void test_every_vector_is_read(void **state)
{
	QS_AUTO(qs_auto_json) json_t *expected = vector_json("expected.json");
	size_t i;
	json_t *vector;

	(void)state;
	assert_int_equal(json_array_size(expected), 18);
	json_array_foreach(expected, i, vector)
	{
		const char *name = json_string_value(json_object_get(vector, "name"));
		QS_AUTO(qs_auto_json) json_t *json = vector_token(name);
		QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token t = parse_token(json);

		assert_int_equal(t.keyslots, 1U << 1);
		assert_int_equal(t.blob.size, 240);
		assert_int_equal(t.public_at, 160);
		assert_int_equal(t.seed_at, 240);
		assert_int_equal(t.pin, json_is_string(json_object_get(vector, "pin")));
		assert_int_equal(t.srk.size > 0, strncmp(name, "v252", 4) != 0);
		assert_int_equal(qs_tpm2_token_check_supported(&t, NULL), 0);
	}
}

static void test_fields_of_later_versions(void **state)
{
	QS_AUTO(qs_auto_json) json_t *argon2 = vector_token("v262-pcr7-pin-argon2id");
	QS_AUTO(qs_auto_json) json_t *ref = vector_token("v262-signed11-policyref");
	QS_AUTO(qs_auto_json) json_t *bank = vector_token("v257-pcr7-sha384");
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token a = parse_token(argon2);
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token r = parse_token(ref);
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token b = parse_token(bank);

	(void)state;
	assert_int_equal(a.argon2_memory, 64 << 20);
	assert_int_equal(a.argon2_passes, 3);
	assert_int_equal(a.argon2_lanes, 2);
	assert_int_equal(a.salt.size, 32);
	assert_string_equal(r.pubkey_ref, "initrd");
	assert_int_equal(r.pubkey_pcrs, 1U << 11);
	assert_int_equal(strncmp(r.pubkey, "-----BEGIN PUBLIC KEY-----", 26), 0);
	assert_int_equal(b.bank, QS_TPM2_SHA384);
	assert_int_equal(b.pcrs, 1U << 7);
}

static void test_written_again_is_what_systemd_252_wrote(void **state)
{
	static const char *const names[] = {
		"v252-nopcr",    "v252-nopcr-pin-utf8", "v252-pcr7",
		"v252-pcr7-pin", "v252-pcr7-rsa",       "v252-pcr7-sha1bank",
		"v252-pcr0-2-7", "v252-signed11",       "v252-signed11-pcr7-pin",
	};

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(names); i++) {
		QS_AUTO(qs_auto_json) json_t *before = vector_token(names[i]);
		QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token t = parse_token(before);
		QS_AUTO(qs_auto_json) json_t *after = qs_tpm2_token_write(&t);
		QS_AUTO(qs_auto_free) char *was = json_dumps(before, JSON_COMPACT);
		QS_AUTO(qs_auto_free) char *is = json_dumps(after, JSON_COMPACT);

		assert_string_equal(is, was);
	}
}

static void test_our_own_fields_survive(void **state)
{
	QS_AUTO(qs_auto_json) json_t *json = vector_token("v252-pcr7");
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token t = parse_token(json);
	QS_AUTO(qs_auto_json) json_t *ours = NULL;
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token again = {};

	(void)state;
	t.enrolled = qs_strdup("2026-11-22T04:05:06Z");
	(void)snprintf(t.pcr_hints[7], sizeof(t.pcr_hints[7]), "0123456789abcdef");
	ours = qs_tpm2_token_write(&t);
	again = parse_token(ours);
	assert_string_equal(again.enrolled, "2026-11-22T04:05:06Z");
	assert_string_equal(again.pcr_hints[7], "0123456789abcdef");
	assert_string_equal(again.pcr_hints[8], "");
	/* Nonsense there is no reason not to open a device. */
	json_object_set_new(ours, "qs-time", json_string("\x1b[2J"));
	json_object_set_new(ours, "qs-pcrs", json_pack("{s:s,s:i}", "7", "\x1b[2J", "8", 1));
	qs_tpm2_token_done(&again);
	again = parse_token(ours);
	assert_null(again.enrolled);
	assert_string_equal(again.pcr_hints[7], "");
}

/* A field of a good token (with PIN, salt, signed policy and SRK) is replaced by JSON text. */
static void test_malformed_fields_are_refused_by_name(void **state)
{
	static const struct {
		const char *field, *value; /* value NULL: taken away */
	} rows[] = {
		{ "keyslots", NULL },
		{ "keyslots", "[]" },
		{ "keyslots", "[1]" },
		{ "keyslots", "[\"32\"]" },
		{ "keyslots", "\"1\"" },
		{ "tpm2-blob", NULL },
		{ "tpm2-blob", "\"\"" },
		{ "tpm2-blob", "7" },
		{ "tpm2-blob", "\"AAAA\"" },
		{ "tpm2-blob", "\"!AAA\"" },
		{ "tpm2-pcrs", NULL },
		{ "tpm2-pcrs", "7" },
		{ "tpm2-pcrs", "[24]" },
		{ "tpm2-pcrs", "[-1]" },
		{ "tpm2-pcrs", "[\"7\"]" },
		{ "tpm2-pcrs", "[7.5]" },
		{ "tpm2-pcr-bank", "\"md5\"" },
		{ "tpm2-pcr-bank", "[\"sha256\"]" },
		{ "tpm2-primary-alg", "\"ECC\"" },
		{ "tpm2-primary-alg", "35" },
		{ "tpm2-policy-hash", NULL },
		{ "tpm2-policy-hash", "\"00\"" },
		{ "tpm2-pin", "1" },
		{ "tpm2_pubkey", NULL },
		{ "tpm2_pubkey", "\"\"" },
		{ "tpm2_pubkey", "\"AAAA\"" },
		{ "tpm2_pubkey_pcrs", "[99]" },
		{ "tpm2_pubkey_ref", "5" },
		{ "tpm2_salt", "\"AAAA\"" },
		{ "tpm2_salt", NULL },
		{ "tpm2_srk", "\"AAAA\"" },
		{ "tpm2_pcrlock", "\"yes\"" },
		{ "tpm2_argon2id_memcost", "0" },
		{ "tpm2_argon2id_memcost", "-1" },
		{ "tpm2_argon2id_iterations", "\"3\"" },
		{ "tpm2_argon2id_lanes", NULL },
	};
	QS_AUTO(qs_auto_json) json_t *good = vector_token("v262-pcr7-pin-argon2id");
	QS_AUTO(qs_auto_json) json_t *pubkey = vector_token("v262-signed11-policyref");

	(void)state;
	json_object_set(good, "tpm2_pubkey", json_object_get(pubkey, "tpm2_pubkey"));
	json_object_set(good, "tpm2_pubkey_pcrs", json_object_get(pubkey, "tpm2_pubkey_pcrs"));
	for (size_t i = 0; i < QS_ARRAY_SIZE(rows); i++) {
		QS_AUTO(qs_auto_json) json_t *json = json_deep_copy(good);
		QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token t = {};
		struct qs_error err = {};

		assert_int_equal(qs_tpm2_token_parse(json, &t, &err), 0);
		qs_tpm2_token_done(&t);
		if (rows[i].value)
			json_object_set_new(json, rows[i].field,
					    json_loads(rows[i].value, JSON_DECODE_ANY, NULL));
		else
			json_object_del(json, rows[i].field);
		if (qs_tpm2_token_parse(json, &t, &err) == 0)
			fail_msg("%s: %s passed", rows[i].field, rows[i].value);
		assert_int_equal(err.kind, QS_E_DAMAGED);
		if (!strstr(err.text, rows[i].field))
			fail_msg("%s: %s", rows[i].field, err.text);
	}
}

/* Every byte of the object's public head, and of the sizes, decides. */
static void test_a_blob_that_is_no_sealed_object_is_refused(void **state)
{
	static const size_t places[] = { 0, 1, 160, 161, 162, 163, 164, 165, 170, 171, 172, 203 };
	QS_AUTO(qs_auto_json) json_t *json = vector_token("v252-pcr7");
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token good = parse_token(json);

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(places); i++) {
		QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token t = {};
		QS_AUTO(qs_bytes_done)
		struct qs_bytes blob = qs_bytes_copy(good.blob.data, good.blob.size);
		QS_AUTO(qs_auto_free) char *text = NULL;
		struct qs_error err = {};

		blob.data[places[i]] ^= 0x01;
		text = qs_base64_encode(blob.data, blob.size);
		json_object_set_new(json, "tpm2-blob", json_string(text));
		if (qs_tpm2_token_parse(json, &t, &err) == 0)
			fail_msg("byte %zu", places[i]);
		assert_non_null(strstr(err.text, "tpm2-blob"));
	}
}

/* SIZE bytes, HEAD and TAIL with line feeds between them, as the field's value. */
static bool passes(const json_t *good, const char *field, const struct qs_bytes *head, size_t size,
		   const struct qs_bytes *tail)
{
	QS_AUTO(qs_auto_json) json_t *json = json_deep_copy(good);
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token t = {};
	QS_AUTO(qs_auto_free) uint8_t *bytes = malloc(size);
	QS_AUTO(qs_auto_free) char *text = NULL;

	assert_non_null(bytes);
	memset(bytes, '\n', size);
	memcpy(bytes, head->data, head->size);
	memcpy(bytes + size - tail->size, tail->data, tail->size);
	text = qs_base64_encode(bytes, size);
	json_object_set_new(json, field, json_string(text));
	return qs_tpm2_token_parse(json, &t, NULL) == 0;
}

/* A header may have megabytes of tokens; what passes these limits is well-formed. */
static void test_sizes_are_limited(void **state)
{
	QS_AUTO(qs_auto_json) json_t *good = vector_token("v262-signed11-policyref");
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token t = parse_token(good);
	uint8_t none[1];
	const struct qs_bytes nothing = { none, 0 };
	const struct qs_bytes pem = { (uint8_t *)t.pubkey, strlen(t.pubkey) };
	const size_t private = (size_t)(t.blob.data[0] << 8 | t.blob.data[1]) + 2;
	const struct qs_bytes public = { t.blob.data + private, t.blob.size - private };
	json_t *list = json_array();

	(void)state;
	for (size_t size = 4096; size <= 4097; size++) {
		const size_t body = size - public.size - 2;
		uint8_t head[2] = { (uint8_t)(body >> 8), (uint8_t)body };
		const struct qs_bytes longer = { head, sizeof(head) };

		assert_int_equal(passes(good, "tpm2-blob", &longer, size, &public), size == 4096);
	}
	assert_true(passes(good, "tpm2_srk", &nothing, 2048, &nothing));
	assert_false(passes(good, "tpm2_srk", &nothing, 2049, &nothing));
	assert_true(passes(good, "tpm2_pubkey", &pem, 8192, &nothing));
	assert_false(passes(good, "tpm2_pubkey", &pem, 8193, &nothing));
	json_object_set_new(good, "tpm2-pcrs", list);
	for (unsigned i = 0; i < 257; i++)
		json_array_append_new(list, json_integer(7));
	qs_tpm2_token_done(&t);
	assert_true(qs_tpm2_token_parse(good, &t, NULL) < 0);
	json_array_remove(list, 0);
	assert_int_equal(qs_tpm2_token_parse(good, &t, NULL), 0);
}

static void test_pcrlock_and_shards_are_left_to_systemd(void **state)
{
	QS_AUTO(qs_auto_json) json_t *locked = vector_token("v257-pcr7");
	QS_AUTO(qs_auto_json) json_t *sharded = vector_token("v257-pcr7");
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token t = {};
	struct qs_error err = {};

	(void)state;
	json_object_set_new(locked, "tpm2_pcrlock", json_true());
	t = parse_token(locked);
	assert_true(qs_tpm2_token_check_supported(&t, &err) < 0);
	assert_int_equal(err.kind, QS_E_TPM);
	assert_non_null(strstr(err.text, "systemd-pcrlock"));
	qs_tpm2_token_done(&t);
	json_object_set_new(sharded, "tpm2-blob", json_pack("[s,s]", "AAAA", "AAAA"));
	t = parse_token(sharded);
	assert_true(t.sharded);
	assert_true(qs_tpm2_token_check_supported(&t, NULL) < 0);
}

static void test_pcr_lists(void **state)
{
	static const char *const wrong[] = { "24", "7+", "+7", "7++2", "x", "7 ", "-1", "007" };
	char text[QS_TPM2_PCRS_TEXT_L];
	uint32_t pcrs = 1;

	(void)state;
	assert_int_equal(qs_tpm2_pcrs_parse("", &pcrs), 0);
	assert_int_equal(pcrs, 0);
	assert_int_equal(qs_tpm2_pcrs_parse("7+0,2+7", &pcrs), 0);
	assert_string_equal(qs_tpm2_pcrs_text(pcrs, text), "0+2+7");
	assert_string_equal(qs_tpm2_pcrs_text(0, text), "");
	assert_int_equal(strlen(qs_tpm2_pcrs_text(0xffffff, text)), 61);
	for (size_t i = 0; i < QS_ARRAY_SIZE(wrong); i++)
		if (qs_tpm2_pcrs_parse(wrong[i], &pcrs) == 0)
			fail_msg("%s is taken", wrong[i]);
}

static void test_base64_is_strict(void **state)
{
	static const char *const wrong[] = { "A",      "AA",   "AAA",   "A===", "AB==",    " AAA",
					     "AAA=\n", "AA=A", "AAAAA", "====", "AA==AAAA" };
	QS_AUTO(qs_bytes_done) struct qs_bytes bytes = {};
	QS_AUTO(qs_auto_free) char *text = qs_base64_encode("\xff\x00q", 3);

	(void)state;
	assert_int_equal(qs_base64_decode(text, 3, &bytes), 0);
	assert_int_equal(bytes.size, 3);
	assert_memory_equal(bytes.data, "\xff\x00q", 3);
	qs_bytes_done(&bytes);
	assert_int_equal(qs_base64_decode("", 3, &bytes), 0);
	assert_int_equal(bytes.size, 0);
	qs_bytes_done(&bytes);
	assert_int_equal(qs_base64_decode(text, 2, &bytes), -EFBIG);
	assert_int_equal(qs_base64_decode("AAAAAAAA", 3, &bytes), -EFBIG);
	for (size_t i = 0; i < QS_ARRAY_SIZE(wrong); i++)
		if (qs_base64_decode(wrong[i], 100, &bytes) == 0)
			fail_msg("'%s' is taken", wrong[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_vector_is_read),
		cmocka_unit_test(test_fields_of_later_versions),
		cmocka_unit_test(test_written_again_is_what_systemd_252_wrote),
		cmocka_unit_test(test_our_own_fields_survive),
		cmocka_unit_test(test_malformed_fields_are_refused_by_name),
		cmocka_unit_test(test_a_blob_that_is_no_sealed_object_is_refused),
		cmocka_unit_test(test_sizes_are_limited),
		cmocka_unit_test(test_pcrlock_and_shards_are_left_to_systemd),
		cmocka_unit_test(test_pcr_lists),
		cmocka_unit_test(test_base64_is_strict),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
