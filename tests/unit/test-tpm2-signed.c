/*
 * Policies that somebody signs, and what goes over the TPM's bus: nothing secret,
 * and no command too many.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "tpm-seals.h"

/* ---- signed policies ---- */

/* The signature file for PCR 11 as it is, by openssl; in the form of systemd-measure. */
static json_t *sign_pcr_11(void)
{
	tools("test -e key.pem || openssl genrsa -out key.pem 2048 2>/dev/null &&"
	      "openssl rsa -in key.pem -pubout -out pub.pem 2>/dev/null &&"
	      "tpm2_pcrread -Q -o values sha256:11 &&"
	      "{ head -c 32 /dev/zero; printf '0000017f00000001000b03000800' | xxd -r -p;"
	      "  openssl dgst -sha256 -binary values; } | openssl dgst -sha256 -binary >pol &&"
	      "openssl dgst -sha256 -sign key.pem -out sig pol &&"
	      "fp=$(openssl rsa -pubin -in pub.pem -RSAPublicKey_out -outform DER 2>/dev/null |"
	      "  sha256sum | cut -d' ' -f1) &&"
	      "printf '{\"sha256\":[{\"pcrs\":[11],\"pkfp\":\"%s\",\"pol\":\"%s\",\"sig\":\"%s\"}]}'"
	      " $fp $(xxd -p -c 64 pol) $(base64 -w 0 sig) >signatures.json");
	return json_load_file("t/signatures.json", 0, NULL);
}

static void test_a_signed_policy_lets_the_pcr_change(void **state)
{
	QS_AUTO(qs_auto_json) json_t *before = sign_pcr_11();
	QS_AUTO(qs_auto_json) json_t *after = NULL;
	QS_AUTO(qs_auto_free) char *pem = NULL;
	QS_AUTO(qs_secret_done) struct qs_secret pin = secret_of("1234");
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
	struct qs_tpm2_seal how = { .pcrs = PCR(7), .pin = &pin, .pubkey_pcrs = PCR(11) };
	struct qs_tpm2_unseal with = { .pin = &pin, .signatures = before };
	size_t size;

	(void)state;
	assert_int_equal(qs_file_read("t/pub.pem", 4096, &pem, &size, NULL), 0);
	how.pubkey = pem;
	token = seal(&how, &passphrase);
	assert_unseals(&token, &with, &passphrase);
	swtpm("measure", "t", "new-kernel 11");
	assert_refused(&token, &with, QS_E_TPM_PCR, "none for the present state of PCR 11");
	after = sign_pcr_11();
	with.signatures = after;
	assert_unseals(&token, &with, &passphrase);
	with.signatures = NULL;
	assert_refused(&token, &with, QS_E_TPM_PCR, "no file of PCR signatures");
}

static void test_a_forged_signature_is_refused(void **state)
{
	QS_AUTO(qs_auto_json) json_t *signatures = sign_pcr_11();
	QS_AUTO(qs_auto_free) char *pem = NULL;
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
	struct qs_tpm2_seal how = { .pubkey_pcrs = PCR(11) };
	const struct qs_tpm2_unseal with = { .signatures = signatures };
	json_t *entry = json_array_get(json_object_get(signatures, "sha256"), 0);
	char zeros[345];
	size_t size;

	(void)state;
	assert_int_equal(qs_file_read("t/pub.pem", 4096, &pem, &size, NULL), 0);
	how.pubkey = pem;
	token = seal(&how, &passphrase);
	memset(zeros, 'A', 344);
	memcpy(zeros + 342, "==", 3);
	json_object_set_new(entry, "sig", json_string(zeros));
	assert_refused(&token, &with, QS_E_TPM, "signature");
}

static void test_a_public_key_that_no_policy_can_have(void **state)
{
	struct qs_tpm2_seal how = { .pubkey_pcrs = PCR(11), .pubkey = "no key" };
	QS_AUTO(qs_auto_free) char *pem = NULL;
	size_t size;

	(void)state;
	assert_seal_refused(&how, QS_E_USAGE, "RSA key in PEM form");
	tools("openssl ecparam -genkey -name prime256v1 | openssl ec -pubout -out ec.pem 2>/dev/null");
	assert_int_equal(qs_file_read("t/ec.pem", 4096, &pem, &size, NULL), 0);
	how.pubkey = pem;
	assert_seal_refused(&how, QS_E_USAGE, "RSA key in PEM form");
}

/* ---- the bus ---- */

static bool contains(const char *haystack, size_t size, const void *needle, size_t length)
{
	return memmem(haystack, size, needle, length) != NULL;
}

static void test_no_secret_crosses_the_bus(void **state)
{
	QS_AUTO(qs_secret_done) struct qs_secret pin = secret_of("1234");
	const struct qs_tpm2_seal hows[] = { { .pcrs = PCR(7) }, { .pcrs = PCR(7), .pin = &pin } };
	const struct qs_tpm2_unseal with = { .pin = &pin };
	/* SHA-256 of 1234: the authValue. */
	static const uint8_t auth[] = { 0x03, 0xac, 0x67, 0x42, 0x16, 0xf3, 0xe1, 0x5c };

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(hows); i++) {
		QS_AUTO(qs_auto_free) char *log = qs_printf("%s/bus-%zu", tpm_scratch, i);
		QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
		QS_AUTO(qs_secret_done) struct qs_secret found = {};
		QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
		QS_AUTO(qs_bytes_done) struct qs_bytes raw = {};
		QS_AUTO(qs_auto_free) char *bus = NULL;
		struct qs_tpm2 *tpm;
		char text[45] = "";
		size_t size;

		assert_int_equal(setenv("TCTI_PCAP_FILE", log, 1), 0);
		tpm = tpm_open("pcap:", "t/s");
		assert_int_equal(tpm2->seal(tpm, &hows[i], &token, &passphrase, NULL), 0);
		assert_int_equal(tpm2->unseal(tpm, &token, &with, &found, NULL), 0);
		tpm2->close(tpm);
		memcpy(text, found.data, found.size);
		assert_int_equal(qs_base64_decode(text, 32, &raw), 0);
		assert_int_equal(qs_file_read(log, 1 << 20, &bus, &size, NULL), 0);
		/* The recording is one: the sealed object is in it. */
		assert_true(contains(bus, size, token.blob.data, token.public_at));
		assert_false(contains(bus, size, raw.data, 8));
		assert_false(contains(bus, size, raw.data + 24, 8));
		assert_false(contains(bus, size, text, 44));
		assert_false(contains(bus, size, auth, sizeof(auth)));
	}
}

/* What makes many disks quick: per token one Load and one policy, nothing else. */
static void test_one_key_and_one_session_for_many_tokens(void **state)
{
	enum { COUNT = 5 };
	const struct qs_tpm2_seal how = { .pcrs = PCR(7) };
	QS_AUTO(auto_tpm) struct qs_tpm2 *tpm = NULL;
	struct qs_tpm2_token tokens[COUNT];
	struct qs_secret passphrases[COUNT] = {};

	(void)state;
	for (size_t i = 0; i < COUNT; i++)
		tokens[i] = seal(&how, &passphrases[i]);
	swtpm("proxy", "t", "count");
	tpm = tpm_open("", "t/p");
	for (size_t i = 0; i < COUNT; i++) {
		QS_AUTO(qs_secret_done) struct qs_secret found = {};

		assert_int_equal(tpm2->unseal(tpm, &tokens[i], &nothing, &found, NULL), 0);
		assert_true(qs_secret_equal(&found, &passphrases[i]));
		qs_secret_done(&passphrases[i]);
		qs_tpm2_token_done(&tokens[i]);
	}
	/*
	 * CreatePrimary, StartAuthSession, PCR_Read; then PolicyPCR, Load, Unseal and FlushContext
	 * for each; no PolicyRestart.
	 */
	tools("test \"$(grep -c 0x131 commands) $(grep -c 0x176 commands) $(grep -c 0x17e commands)"
	      " $(grep -c 0x17f commands) $(grep -c 0x157 commands) $(grep -c 0x15e commands)"
	      " $(grep -c 0x165 commands) $(grep -c 0x180 commands)\" = '1 1 1 5 5 5 5 0'");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_TPM(test_a_signed_policy_lets_the_pcr_change),
		WITH_TPM(test_a_forged_signature_is_refused),
		WITH_TPM(test_a_public_key_that_no_policy_can_have),
		WITH_TPM(test_no_secret_crosses_the_bus),
		WITH_TPM(test_one_key_and_one_session_for_many_tokens),
	};

	return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
