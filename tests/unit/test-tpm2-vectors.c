/*
 * Every token in tests/vectors/tpm2 is unsealed by a copy of the TPM that sealed
 * it, in the state in which it was sealed.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tpm.h"

static const char *field(const json_t *vector, const char *name)
{
	return json_string_value(json_object_get(vector, name));
}

/* In DIR, with PCRs as the vectors' README says. */
static void start_a(const char *dir)
{
	swtpm("start", dir, VECTORS "/swtpm-state-a.b64");
	swtpm("measure", dir, "vector-pcr% 0 2 7 11");
	swtpm("measure", dir, "enter-initrd 11");
}

static void unseal(struct qs_tpm2 *tpm, const json_t *vector)
{
	const char *name = field(vector, "name"), *file = field(vector, "pcr_signature_file");
	const char *pin_text = field(vector, "pin");
	QS_AUTO(qs_auto_json) json_t *json = vector_token(name);
	QS_AUTO(qs_auto_json) json_t *signatures = file ? vector_json(file) : NULL;
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = parse_token(json);
	/* A PIN is always at hand: where the token has none, it must not reach the TPM. */
	QS_AUTO(qs_secret_done) struct qs_secret pin = secret_of(pin_text ? pin_text : "unused");
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	const struct qs_tpm2_unseal with = { .pin = &pin, .signatures = signatures };
	struct qs_error err = {};
	uint32_t moved;

	if (tpm2->match(tpm, &token, NULL, &moved, &err) < 0)
		fail_msg("%s does not match: %s", name, err.text);
	if (tpm2->unseal(tpm, &token, &with, &passphrase, &err) < 0)
		fail_msg("%s: %s", name, err.text);
	if (!secret_is(&passphrase, field(vector, "passphrase")))
		fail_msg("%s: a wrong passphrase", name);
}

static void unseal_all(struct qs_tpm2 *tpm, const char *state_file, unsigned expected)
{
	QS_AUTO(qs_auto_json) json_t *vectors = vector_json("expected.json");
	unsigned n = 0;
	size_t i;
	json_t *vector;

	json_array_foreach(vectors, i, vector)
	{
		if (strcmp(field(vector, "tpm_state"), state_file) != 0)
			continue;
		unseal(tpm, vector);
		n++;
	}
	assert_int_equal(n, expected);
}

static uint32_t failures(struct qs_tpm2 *tpm)
{
	struct qs_tpm2_health health;
	struct qs_error err = {};

	if (tpm2->health(tpm, &health, &err) < 0)
		fail_msg("%s", err.text);
	return health.failures;
}

static void test_all_of_tpm_a_over_one_connection_and_nothing_counts(void **state)
{
	struct qs_tpm2 *tpm;
	uint32_t before;

	(void)state;
	start_a("a");
	tpm = tpm_open("", "a/s");
	before = failures(tpm);
	unseal_all(tpm, "swtpm-state-a.b64", 17);
	unseal_all(tpm, "swtpm-state-a.b64", 17);
	assert_int_equal(failures(tpm), before);
	tpm2->close(tpm);
}

/* The sessions' salt is encrypted to it: a header must not choose the key. */
static void test_a_parent_with_another_name_is_not_used(void **state)
{
	QS_AUTO(qs_auto_json) json_t *json = vector_token("v257-pcr7");
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = parse_token(json);
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	const struct qs_tpm2_unseal with = {};
	const size_t end_of_name = 4 + 2 + 2 + 32; /* handle; TPM2B_NAME: size, algorithm, hash */
	struct qs_tpm2 *tpm = tpm_open("", "a/s");
	struct qs_error err = {};

	(void)state;
	assert_true(token.srk.size >= end_of_name);
	token.srk.data[end_of_name - 1] ^= 1;
	assert_true(tpm2->unseal(tpm, &token, &with, &passphrase, &err) < 0);
	assert_int_equal(err.kind, QS_E_TPM);
	token.srk.data[end_of_name - 1] ^= 1;
	if (tpm2->unseal(tpm, &token, &with, &passphrase, &err) < 0)
		fail_msg("%s", err.text);
	tpm2->close(tpm);
}

static void test_nothing_is_left_in_the_tpm(void **state)
{
	(void)state;
	assert_int_equal(headers_shell("export TPM2TOOLS_TCTI=swtpm:path=%s/a/s\n"
				       "test -z \"$(tpm2_getcap handles-transient; "
				       "tpm2_getcap handles-loaded-session)\"",
				       tpm_scratch),
			 0);
}

static void test_a_tpm_with_only_sha1(void **state)
{
	struct qs_tpm2 *tpm;

	(void)state;
	swtpm("start", "b", VECTORS "/swtpm-state-b-sha1.b64");
	assert_int_equal(headers_shell("export TPM2TOOLS_TCTI=swtpm:path=%s/b/s\n"
				       "tpm2_pcrextend 7:sha1=$(printf vector-pcr7 | sha1sum | "
				       "cut -d' ' -f1)",
				       tpm_scratch),
			 0);
	tpm = tpm_open("", "b/s");
	unseal_all(tpm, "swtpm-state-b-sha1.b64", 1);
	tpm2->close(tpm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_of_tpm_a_over_one_connection_and_nothing_counts),
		cmocka_unit_test(test_a_parent_with_another_name_is_not_used),
		cmocka_unit_test(test_nothing_is_left_in_the_tpm),
		cmocka_unit_test(test_a_tpm_with_only_sha1),
	};

	return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
