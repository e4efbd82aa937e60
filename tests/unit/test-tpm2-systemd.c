/*
 * Both ways with the systemd of this machine: its libcryptsetup plugin opens
 * what we seal, and we open what systemd-cryptenroll enrols.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <libcryptsetup.h>

#include "base/file.h"
#include "tpm.h"

#define PCR(n) (UINT32_C(1) << (n))

/* The plugin of systemd 252 forgets the name of each TPM that it connects to; ours does not
 * (test-tpm2.c). */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);

const char *__lsan_default_suppressions(void)
{
	return "leak:Tss2_Tcti_Swtpm_Init";
}

/* What systemd's plugin takes as usrptr (tpm2-util.h, systemd_tpm2_plugin_params, version 252). */
struct plugin_params {
	uint32_t search_pcr_mask;
	const char *device;
	const char *signature_path;
};

static int setup(void **state)
{
	(void)state;
	swtpm("start", "t", "");
	swtpm("measure", "t", "booted 0 2 7 11");
	return headers_shell(
		"head -c 64 /dev/urandom >key && rm -f v.img && truncate -s 32M v.img &&"
		"cryptsetup -q luksFormat --pbkdf pbkdf2 --pbkdf-force-iterations 1000"
		" --key-file key v.img");
}

static int teardown(void **state)
{
	(void)state;
	swtpm("crash", "t", "");
	return headers_shell("rm -r t");
}

static void shell(const char *command)
{
	if (headers_shell("TPM=swtpm:path=%s/t/s; %s", tpm_scratch, command) != 0)
		fail_msg("failed: %s", command);
}

/* The result of systemd's own plugin: the keyslot, or -errno. */
static int plugin_opens(const char *pin, const char *signature)
{
	QS_AUTO(qs_auto_free) char *device = qs_printf("swtpm:path=%s/t/s", tpm_scratch);
	struct plugin_params params = { UINT32_MAX, device, signature };
	QS_AUTO(qs_auto_cd) struct crypt_device *cd = NULL;
	int r;

	assert_int_equal(crypt_init(&cd, "v.img"), 0);
	assert_int_equal(crypt_load(cd, CRYPT_LUKS2, NULL), 0);
	r = crypt_activate_by_token_pin(cd, NULL, QS_TPM2_TOKEN_TYPE, CRYPT_ANY_TOKEN, pin,
					pin ? strlen(pin) : 0, &params, 0);
	/* systemd 252 leaves sessions behind, and this TPM has no resource manager. */
	swtpm("flush", "t", "");
	return r;
}

/* Seal, add the keyslot and the token to v.img by stock cryptsetup. */
static void enroll(const struct qs_tpm2_seal *how)
{
	QS_AUTO(auto_tpm) struct qs_tpm2 *tpm = tpm_open("", "t/s");
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	QS_AUTO(qs_auto_json) json_t *json = NULL;
	struct qs_error err = {};

	if (tpm2->seal(tpm, how, &token, &passphrase, &err) < 0)
		fail_msg("%s", err.text);
	token.keyslots = 1U << 1;
	json = qs_tpm2_token_write(&token);
	assert_int_equal(json_dump_file(json, "token.json", 0), 0);
	assert_int_equal(qs_file_replace("passphrase", passphrase.data, passphrase.size,
					 &(struct qs_replace){ .mode = 0600 }, NULL),
			 0);
	shell("cryptsetup -q luksAddKey --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file key"
	      " v.img passphrase && cryptsetup token import --json-file token.json v.img");
}

static void test_the_plugin_opens_what_we_seal(void **state)
{
	static const struct {
		uint32_t pcrs;
		enum qs_tpm2_alg bank;
		const char *pin;
	} rows[] = {
		{ PCR(7), 0, NULL },
		{ 0, 0, NULL },
		{ PCR(0) | PCR(7), 0, "1234" },
		{ 0, 0, "Größe 12 π" },
		{ PCR(7), QS_TPM2_SHA1, NULL },
		{ PCR(7), QS_TPM2_SHA384, NULL },
	};

	for (size_t i = 0; i < QS_ARRAY_SIZE(rows); i++) {
		QS_AUTO(qs_secret_done)
		struct qs_secret pin = secret_of(rows[i].pin ? rows[i].pin : "-");
		const struct qs_tpm2_seal how = {
			.pcrs = rows[i].pcrs,
			.bank = rows[i].bank,
			.pin = rows[i].pin ? &pin : NULL,
		};
		int r;

		enroll(&how);
		r = plugin_opens(rows[i].pin, NULL);
		if (r != 1)
			fail_msg("row %zu: %d", i, r);
		assert_int_equal(teardown(state), 0);
		assert_int_equal(setup(state), 0);
	}
}

static void test_the_plugin_refuses_when_it_should(void **state)
{
	QS_AUTO(qs_secret_done) struct qs_secret pin = secret_of("1234");
	const struct qs_tpm2_seal how = { .pcrs = PCR(7), .pin = &pin };

	(void)state;
	enroll(&how);
	assert_int_equal(plugin_opens("1234", NULL), 1);
	assert_true(plugin_opens("4321", NULL) < 0);
	swtpm("measure", "t", "shell 7");
	assert_true(plugin_opens("1234", NULL) < 0);
}

/* Unseal the token that is in v.img, and let stock cryptsetup try the passphrase. */
static void assert_we_open(const char *pin_text, const char *signature)
{
	QS_AUTO(auto_tpm) struct qs_tpm2 *tpm = tpm_open("", "t/s");
	QS_AUTO(qs_secret_done) struct qs_secret pin = secret_of(pin_text ? pin_text : "-");
	QS_AUTO(qs_auto_json) json_t *json = NULL;
	QS_AUTO(qs_auto_json)
	json_t *signatures = signature ? json_load_file(signature, 0, NULL) : NULL;
	const struct qs_tpm2_unseal with = { .pin = pin_text ? &pin : NULL,
					     .signatures = signatures };
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	struct qs_error err = {};

	shell("cryptsetup token export --token-id 0 v.img >token.json");
	json = json_load_file("token.json", 0, NULL);
	token = parse_token(json);
	if (tpm2->unseal(tpm, &token, &with, &passphrase, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(qs_file_replace("passphrase", passphrase.data, passphrase.size,
					 &(struct qs_replace){ .mode = 0600 }, NULL),
			 0);
	shell("cryptsetup open --test-passphrase --key-slot 1 --key-file passphrase v.img");
}

static void test_we_open_what_systemd_cryptenroll_enrols(void **state)
{
	static const struct {
		const char *options, *pin;
	} rows[] = {
		{ "--tpm2-pcrs=7", NULL },
		{ "--tpm2-pcrs=", NULL },
		{ "--tpm2-pcrs=0+2+7", NULL },
		{ "--tpm2-pcrs=7 --tpm2-with-pin=yes", "1234" },
		{ "--tpm2-pcrs= --tpm2-with-pin=yes", "Größe 12 π" },
	};

	for (size_t i = 0; i < QS_ARRAY_SIZE(rows); i++) {
		QS_AUTO(qs_auto_free)
		char *command =
			qs_printf("printf pw >typed && cryptsetup -q luksAddKey --key-slot 6"
				  " --pbkdf pbkdf2 --pbkdf-force-iterations 1000"
				  " --key-file key v.img typed && PASSWORD=pw NEWPIN='%s'"
				  " systemd-cryptenroll --tpm2-device=$TPM %s v.img",
				  rows[i].pin ? rows[i].pin : "", rows[i].options);

		shell(command);
		swtpm("flush", "t", "");
		assert_we_open(rows[i].pin, NULL);
		assert_int_equal(teardown(state), 0);
		assert_int_equal(setup(state), 0);
	}
}

int main(void)
{
#define WITH_TPM(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		WITH_TPM(test_the_plugin_opens_what_we_seal),
		WITH_TPM(test_the_plugin_refuses_when_it_should),
		WITH_TPM(test_we_open_what_systemd_cryptenroll_enrols),
	};

	return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
