/*
 * Sealing and unsealing with a software TPM: what opens, what does not and with
 * which sentence, and what counts towards the TPM's lockout.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "tpm-seals.h"

/* ---- what opens ---- */

static void test_sealed_opens_and_nothing_is_left_in_the_tpm(void **state)
{
	static const uint32_t masks[] = { 0, PCR(7), PCR(0) | PCR(2) | PCR(7) };

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(masks); i++) {
		const struct qs_tpm2_seal how = { .pcrs = masks[i] };
		QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
		QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = seal(&how, &passphrase);

		assert_int_equal(passphrase.size, 44);
		assert_unseals(&token, &nothing, &passphrase);
		tools("test -z \"$(tpm2_getcap handles-transient; "
		      "tpm2_getcap handles-loaded-session)\"");
	}
}

static void test_each_seal_has_a_secret_of_its_own(void **state)
{
	const struct qs_tpm2_seal how = {};
	QS_AUTO(qs_secret_done) struct qs_secret a = {};
	QS_AUTO(qs_secret_done) struct qs_secret b = {};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token one = seal(&how, &a);
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token two = seal(&how, &b);

	(void)state;
	assert_false(qs_secret_equal(&a, &b));
	assert_unseals(&one, &nothing, &a);
	assert_unseals(&two, &nothing, &b);
}

static void test_banks(void **state)
{
	static const enum qs_tpm2_alg banks[] = { QS_TPM2_SHA1, QS_TPM2_SHA256, QS_TPM2_SHA384,
						  QS_TPM2_SHA512 };

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(banks); i++) {
		const struct qs_tpm2_seal how = { .pcrs = PCR(7) | PCR(4), .bank = banks[i] };
		QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
		QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = seal(&how, &passphrase);

		assert_int_equal(token.bank, banks[i]);
		assert_unseals(&token, &nothing, &passphrase);
	}
}

static void test_an_old_tpm_without_ecc_gets_rsa(void **state)
{
	const struct qs_tpm2_seal how = { .pcrs = PCR(7) };
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
	QS_AUTO(qs_secret_done) struct qs_secret found = {};
	struct qs_error err = {};
	struct qs_tpm2 *tpm;

	(void)state;
	swtpm("proxy", "t", "no-ecc");
	tpm = tpm_open("", "t/p");
	if (tpm2->seal(tpm, &how, &token, &passphrase, &err) < 0)
		fail_msg("%s", err.text);
	tpm2->close(tpm);
	token.keyslots = 1;
	assert_int_equal(token.primary_alg, QS_TPM2_RSA);
	assert_int_equal(unseal_at("t/p", &token, &nothing, &found, &err), 0);
	assert_true(qs_secret_equal(&found, &passphrase));
}

/* Sealed with tpm2-tools: PolicyPCR over an empty selection, as systemd 251 and older did. */
static void test_a_policy_of_systemd_251_without_pcrs(void **state)
{
	QS_AUTO(qs_auto_free) char *private = NULL;
	QS_AUTO(qs_auto_free) char *public = NULL;
	QS_AUTO(qs_auto_free) char *policy = NULL;
	QS_AUTO(qs_auto_free) char *both = NULL;
	QS_AUTO(qs_secret_done)
	struct qs_secret expected = secret_of("b25jZSB1cG9uIGEgdGltZSwgbG9uZyBiZWZvcmUgMjU=");
	struct qs_tpm2_token token = { .keyslots = 1, .primary_alg = QS_TPM2_ECC };
	size_t n, m;

	(void)state;
	tools("printf 'once upon a time, long before 25' >secret &&"
	      "{ head -c 32 /dev/zero; printf '0000017f00000001000b03000000' | xxd -r -p;"
	      "  printf '' | openssl dgst -sha256 -binary; } | openssl dgst -sha256 -binary >policy &&"
	      "tpm2_createprimary -Q -C o -g sha256 -G ecc256:aes128cfb -c primary.ctx -a"
	      " 'restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth' &&"
	      "tpm2_create -Q -C primary.ctx -g sha256 -i secret -L policy -u public -r private"
	      " -a 'fixedtpm|fixedparent' && tpm2_flushcontext -t");
	assert_int_equal(qs_file_read("t/private", 4096, &private, &n, NULL), 0);
	assert_int_equal(qs_file_read("t/public", 4096, &public, &m, NULL), 0);
	both = malloc(n + m);
	assert_non_null(both);
	memcpy(both, private, n);
	memcpy(both + n, public, m);
	token.blob = qs_bytes_copy(both, n + m);
	assert_int_equal(qs_file_read("t/policy", 32, &policy, &n, NULL), 0);
	memcpy(token.policy_hash, policy, sizeof(token.policy_hash));
	assert_unseals(&token, &nothing, &expected);
	qs_tpm2_token_done(&token);
}

static void test_measurements_that_arrive_meanwhile(void **state)
{
	const struct qs_tpm2_seal how = { .pcrs = PCR(7) };
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = seal(&how, &passphrase);
	QS_AUTO(qs_secret_done) struct qs_secret found = {};
	struct qs_error err = {};

	(void)state;
	swtpm("proxy", "t", "pcr-changed:5");
	assert_int_equal(unseal_at("t/p", &token, &nothing, &found, &err), 0);
	assert_true(qs_secret_equal(&found, &passphrase));
	qs_secret_done(&found);
	swtpm("proxy", "t", "pcr-changed:1000");
	assert_true(unseal_at("t/p", &token, &nothing, &found, &err) < 0);
	assert_int_equal(err.kind, QS_E_TEMPORARY);
}

/* ---- PIN ---- */

static void test_a_wrong_pin_counts_once_and_a_missing_one_not_at_all(void **state)
{
	QS_AUTO(qs_secret_done) struct qs_secret pin = secret_of("Größe 12 π");
	QS_AUTO(qs_secret_done) struct qs_secret wrong = secret_of("Große 12 π");
	const struct qs_tpm2_seal how = { .pcrs = PCR(7), .pin = &pin };
	const struct qs_tpm2_unseal right_pin = { .pin = &pin }, wrong_pin = { .pin = &wrong };
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = seal(&how, &passphrase);

	(void)state;
	assert_unseals(&token, &right_pin, &passphrase);
	assert_int_equal(health().failures, 0);
	assert_refused(&token, &nothing, QS_E_PIN, "needs its PIN");
	assert_int_equal(health().failures, 0);
	assert_refused(&token, &wrong_pin, QS_E_PIN, "the PIN is wrong");
	assert_int_equal(health().failures, 1);
	assert_unseals(&token, &right_pin, &passphrase);
	assert_int_equal(health().failures, 1);
}

static void test_a_pin_is_not_given_to_an_object_without_one(void **state)
{
	QS_AUTO(qs_secret_done) struct qs_secret pin = secret_of("1234");
	const struct qs_tpm2_seal how = { .pcrs = PCR(7) };
	const struct qs_tpm2_unseal with = { .pin = &pin };
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = seal(&how, &passphrase);

	(void)state;
	assert_unseals(&token, &with, &passphrase);
	assert_int_equal(health().failures, 0);
}

/* Their SHA-256 ends in a zero byte, which systemd 252 and the TPM do not agree on. */
static void test_pins_that_systemd_252_cannot_use_are_refused(void **state)
{
	static const char *const pins[] = { "403", "932", "1270" };

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(pins); i++) {
		QS_AUTO(qs_secret_done) struct qs_secret pin = secret_of(pins[i]);
		const struct qs_tpm2_seal how = { .pin = &pin };

		assert_seal_refused(&how, QS_E_PIN, "choose another one");
	}
}

static void test_a_locked_tpm_is_not_tried_again(void **state)
{
	QS_AUTO(qs_secret_done) struct qs_secret pin = secret_of("1234");
	QS_AUTO(qs_secret_done) struct qs_secret wrong = secret_of("4321");
	const struct qs_tpm2_seal how = { .pcrs = PCR(7), .pin = &pin };
	const struct qs_tpm2_unseal right_pin = { .pin = &pin }, wrong_pin = { .pin = &wrong };
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = seal(&how, &passphrase);

	(void)state;
	tools("tpm2_dictionarylockout -s -n 2 -t 1000 -l 1000");
	assert_false(health().locked);
	assert_refused(&token, &wrong_pin, QS_E_PIN, "the PIN is wrong");
	assert_refused(&token, &wrong_pin, QS_E_PIN, "the PIN is wrong");
	assert_true(health().locked);
	assert_int_equal(health().limit, 2);
	assert_int_equal(health().recovery_s, 1000);
	assert_refused(&token, &right_pin, QS_E_TPM_LOCKOUT, "locked after too many wrong PINs");
	assert_int_equal(health().failures, 2);
	tools("tpm2_dictionarylockout -c");
	assert_unseals(&token, &right_pin, &passphrase);
}

/* ---- another state, another TPM ---- */

static void test_the_pcr_that_moved_is_named(void **state)
{
	const struct qs_tpm2_seal how = { .pcrs = PCR(0) | PCR(2) | PCR(7) };
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = seal(&how, &passphrase);

	(void)state;
	swtpm("measure", "t", "update 2");
	assert_refused(&token, &nothing, QS_E_TPM_PCR, "PCR 2 (option ROMs) changed since");
	swtpm("measure", "t", "update 7");
	assert_refused(&token, &nothing, QS_E_TPM_PCR, "PCRs 2+7 changed since");
	/* A token of systemd's does not tell. */
	memset(token.pcr_hints, 0, sizeof(token.pcr_hints));
	assert_refused(&token, &nothing, QS_E_TPM_PCR, "at least one of the PCRs 0+2+7 changed");
	assert_int_equal(health().failures, 0);
}

/* What was computed for the PCRs holds, but the TPM says no: it has the last word. */
static void test_a_policy_that_the_tpm_finds_not_satisfied(void **state)
{
	const struct qs_tpm2_seal how = { .pcrs = PCR(7) };
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = seal(&how, &passphrase);
	QS_AUTO(qs_secret_done) struct qs_secret found = {};
	struct qs_error err = {};

	(void)state;
	swtpm("proxy", "t", "policy-fail");
	assert_true(unseal_at("t/p", &token, &nothing, &found, &err) < 0);
	assert_int_equal(err.kind, QS_E_TPM_PCR);
	assert_non_null(strstr(err.text, "not in the state in which the keyslot was enrolled"));
}

static void test_a_cleared_tpm_and_another_tpm(void **state)
{
	const struct qs_tpm2_seal how = {};
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = seal(&how, &passphrase);

	(void)state;
	tools("tpm2_clear");
	assert_refused(&token, &nothing, QS_E_TPM, "another TPM, or before this TPM was cleared");
	swtpm("crash", "t", "");
	tools("rm tpm2-00.permall");
	swtpm("start", "t", "");
	assert_refused(&token, &nothing, QS_E_TPM, "another TPM, or before this TPM was cleared");
}

static void assert_srk_refused(const struct qs_tpm2_token *token, enum qs_kind kind,
			       const char *sentence)
{
	QS_AUTO(auto_tpm) struct qs_tpm2 *tpm = tpm_open("", "t/s");
	QS_AUTO(qs_secret_done) struct qs_secret found = {};
	struct qs_error err = {};

	assert_true(tpm2->unseal(tpm, token, &nothing, &found, &err) < 0);
	if (err.kind != kind || !strstr(err.text, sentence))
		fail_msg("%s: %s", qs_kind_name(err.kind), err.text);
}

/* The persistent key that a token names is compared with the TPM's own. */
static void test_an_srk_that_is_not_the_tpms_is_refused(void **state)
{
	QS_AUTO(qs_auto_json) json_t *json = vector_token("v262-default-nopcr");
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = parse_token(json);

	(void)state;
	assert_srk_refused(&token, QS_E_TPM, "does not have the key");
	tools("tpm2_createprimary -Q -C o -g sha256 -G ecc256:aes128cfb -c primary.ctx &&"
	      "tpm2_evictcontrol -Q -C o -c primary.ctx 0x81000001 && tpm2_flushcontext -t");
	assert_srk_refused(&token, QS_E_TPM, "another TPM, or before this TPM was cleared");
	token.srk.data[0] = 0x80;
	assert_srk_refused(&token, QS_E_DAMAGED, "tpm2_srk");
}

static void test_an_owner_password_is_named(void **state)
{
	const struct qs_tpm2_seal how = {};

	(void)state;
	tools("tpm2_changeauth -c owner secret");
	assert_seal_refused(&how, QS_E_TPM, "owner hierarchy has a password");
}

static void test_pcrs_that_bind_to_nothing_are_refused(void **state)
{
	const struct qs_tpm2_seal zeros = { .pcrs = PCR(7) | PCR(8) };
	const struct qs_tpm2_seal ones = { .pcrs = PCR(17) };
	const struct qs_tpm2_seal forced = { .pcrs = PCR(8), .unset_pcrs = true };
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};

	(void)state;
	assert_seal_refused(&zeros, QS_E_REFUSED, "PCR 8 of the sha256 bank");
	assert_seal_refused(&ones, QS_E_REFUSED, "PCR 17 of the sha256 bank");
	token = seal(&forced, &passphrase);
	assert_unseals(&token, &nothing, &passphrase);
}

static void test_sha1_only_when_asked_for(void **state)
{
	const struct qs_tpm2_seal best = { .pcrs = PCR(7) };
	const struct qs_tpm2_seal sha1 = { .pcrs = PCR(7), .bank = QS_TPM2_SHA1 };
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};

	(void)state;
	swtpm("crash", "t", "");
	tools("rm tpm2-00.permall");
	swtpm("start", "t", VECTORS "/swtpm-state-b-sha1.b64");
	tools("tpm2_pcrextend 7:sha1=0101010101010101010101010101010101010101");
	assert_seal_refused(&best, QS_E_REFUSED, "no complete sha256 bank; it has sha1");
	token = seal(&sha1, &passphrase);
	assert_unseals(&token, &nothing, &passphrase);
}

/* ---- hostile and failing ---- */

static void test_costs_out_of_a_header_are_capped(void **state)
{
	QS_AUTO(qs_auto_json) json_t *json = vector_token("v262-pcr7-pin-argon2id");
	QS_AUTO(qs_secret_done) struct qs_secret pin = secret_of("1234");
	const struct qs_tpm2_unseal with = { .pin = &pin,
					     .max_memory = 64 << 20,
					     .max_passes = 10 };
	static const struct {
		const char *field, *sentence;
		json_int_t value;
	} rows[] = {
		{ "tpm2_argon2id_memcost", "max_kdf_memory", (64 << 20) + 1 },
		{ "tpm2_argon2id_memcost", "max_kdf_memory", INT64_MAX },
		{ "tpm2_argon2id_iterations", "max_kdf_time", 11 },
		{ "tpm2_argon2id_iterations", "max_kdf_time", INT64_MAX },
		{ "tpm2_argon2id_lanes", "lanes", 17 },
	};

	(void)state;
	/* The vectors' TPM and PCR 7, so that the policy holds. */
	swtpm("crash", "t", "");
	swtpm("start", "t", VECTORS "/swtpm-state-a.b64");
	swtpm("measure", "t", "vector-pcr% 7");
	for (size_t i = 0; i < QS_ARRAY_SIZE(rows); i++) {
		QS_AUTO(qs_auto_json) json_t *bad = json_deep_copy(json);
		QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
		QS_AUTO(auto_tpm) struct qs_tpm2 *tpm = tpm_open("", "t/s");
		QS_AUTO(qs_secret_done) struct qs_secret found = {};
		struct qs_error err = {};

		json_object_set_new(bad, rows[i].field, json_integer(rows[i].value));
		token = parse_token(bad);
		assert_true(tpm2->unseal(tpm, &token, &with, &found, &err) < 0);
		assert_int_equal(err.kind, QS_E_HOSTILE);
		if (!strstr(err.text, rows[i].sentence))
			fail_msg("%s", err.text);
	}
	assert_int_equal(health().failures, 0);
}

static void test_garbage_for_an_answer(void **state)
{
	const struct qs_tpm2_seal how = { .pcrs = PCR(7) };
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = seal(&how, &passphrase);
	QS_AUTO(qs_secret_done) struct qs_secret found = {};
	struct qs_error err = {};

	(void)state;
	swtpm("proxy", "t", "garbage");
	assert_true(unseal_at("t/p", &token, &nothing, &found, &err) < 0);
	assert_int_equal(err.kind, QS_E_TPM);
	assert_null(found.data);
}

static void test_no_tpm(void **state)
{
	struct qs_tpm2 *tpm = NULL;
	struct qs_error err = {};

	(void)state;
	assert_true(tpm2->open("swtpm:path=/nonexistent/s", &tpm, &err) < 0);
	assert_int_equal(err.kind, QS_E_TPM_ABSENT);
	assert_true(tpm2->open("no-such-driver:x", &tpm, &err) < 0);
	assert_int_equal(err.kind, QS_E_TPM_ABSENT);
	assert_null(tpm);
}

static void test_modules_that_do_not_fit_are_not_used(void **state)
{
	const struct qs_module *module = NULL;
	struct qs_error err = {};

	(void)state;
	assert_true(qs_module_load("tpm2", QS_TPM2_MODULE_SYMBOL, QS_TPM2_MODULE_VERSION + 1,
				   &module, &err) < 0);
	assert_non_null(strstr(err.text, "another version"));
	assert_true(qs_module_load("tpm2", "no_such_symbol", 1, &module, &err) < 0);
	assert_true(qs_module_load("tpm3", QS_TPM2_MODULE_SYMBOL, 1, &module, &err) < 0);
	assert_non_null(strstr(err.text, "the module tpm3, which is not installed"));
	assert_null(module);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_TPM(test_sealed_opens_and_nothing_is_left_in_the_tpm),
		WITH_TPM(test_each_seal_has_a_secret_of_its_own),
		WITH_TPM(test_banks),
		WITH_TPM(test_an_old_tpm_without_ecc_gets_rsa),
		WITH_TPM(test_a_policy_of_systemd_251_without_pcrs),
		WITH_TPM(test_measurements_that_arrive_meanwhile),
		WITH_TPM(test_a_wrong_pin_counts_once_and_a_missing_one_not_at_all),
		WITH_TPM(test_a_pin_is_not_given_to_an_object_without_one),
		WITH_TPM(test_pins_that_systemd_252_cannot_use_are_refused),
		WITH_TPM(test_a_locked_tpm_is_not_tried_again),
		WITH_TPM(test_the_pcr_that_moved_is_named),
		WITH_TPM(test_a_policy_that_the_tpm_finds_not_satisfied),
		WITH_TPM(test_a_cleared_tpm_and_another_tpm),
		WITH_TPM(test_an_srk_that_is_not_the_tpms_is_refused),
		WITH_TPM(test_an_owner_password_is_named),
		WITH_TPM(test_pcrs_that_bind_to_nothing_are_refused),
		WITH_TPM(test_sha1_only_when_asked_for),
		WITH_TPM(test_costs_out_of_a_header_are_capped),
		WITH_TPM(test_garbage_for_an_answer),
		cmocka_unit_test(test_no_tpm),
		cmocka_unit_test(test_modules_that_do_not_fit_are_not_used),
	};

	return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
