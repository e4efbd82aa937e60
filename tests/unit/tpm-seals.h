/*
 * Short forms for tests that seal and unseal, each with a TPM of its own: "t", with
 * something measured into the usual PCRs. Include after cmocka.h.
 */
#ifndef QS_TESTS_TPM_SEALS_H
#define QS_TESTS_TPM_SEALS_H

#include "tpm.h"

#define PCR(n) (UINT32_C(1) << (n))

static inline int setup(void **state)
{
	(void)state;
	swtpm("start", "t", "");
	swtpm("measure", "t", "booted 0 2 4 7 11");
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	swtpm("crash", "t", "");
	return headers_shell("rm -r %s/t", tpm_scratch);
}

static inline void tools(const char *command)
{
	if (headers_shell("export TPM2TOOLS_TCTI=swtpm:path=%s/t/s; cd %s/t && %s", tpm_scratch,
			  tpm_scratch, command) != 0)
		fail_msg("failed: %s", command);
}

static inline struct qs_tpm2_token seal(const struct qs_tpm2_seal *how,
					struct qs_secret *ret_passphrase)
{
	QS_AUTO(auto_tpm) struct qs_tpm2 *tpm = tpm_open("", "t/s");
	struct qs_tpm2_token token = {};
	struct qs_error err = {};

	if (tpm2->seal(tpm, how, &token, ret_passphrase, &err) < 0)
		fail_msg("%s", err.text);
	token.keyslots = 1;
	return token;
}

/* Through JSON, as a header keeps it, over a connection of its own. */
static inline int unseal_at(const char *socket, const struct qs_tpm2_token *token,
			    const struct qs_tpm2_unseal *with, struct qs_secret *ret,
			    struct qs_error *err)
{
	QS_AUTO(auto_tpm) struct qs_tpm2 *tpm = tpm_open("", socket);
	QS_AUTO(qs_auto_json) json_t *json = qs_tpm2_token_write(token);
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token again = parse_token(json);

	*err = (struct qs_error){};
	return tpm2->unseal(tpm, &again, with, ret, err);
}

static inline void assert_unseals(const struct qs_tpm2_token *token,
				  const struct qs_tpm2_unseal *with,
				  const struct qs_secret *passphrase)
{
	QS_AUTO(qs_secret_done) struct qs_secret found = {};
	struct qs_error err;

	if (unseal_at("t/s", token, with, &found, &err) < 0)
		fail_msg("%s", err.text);
	assert_true(qs_secret_equal(&found, passphrase));
}

static inline void assert_refused(const struct qs_tpm2_token *token,
				  const struct qs_tpm2_unseal *with, enum qs_kind kind,
				  const char *sentence)
{
	QS_AUTO(qs_secret_done) struct qs_secret found = {};
	struct qs_error err;

	if (unseal_at("t/s", token, with, &found, &err) == 0)
		fail_msg("it opened, instead of: %s", sentence);
	assert_null(found.data);
	if (err.kind != kind || !strstr(err.text, sentence))
		fail_msg("%s: %s", qs_kind_name(err.kind), err.text);
}

static inline struct qs_tpm2_health health(void)
{
	QS_AUTO(auto_tpm) struct qs_tpm2 *tpm = tpm_open("", "t/s");
	struct qs_tpm2_health ret;
	struct qs_error err = {};

	if (tpm2->health(tpm, &ret, &err) < 0)
		fail_msg("%s", err.text);
	return ret;
}

static inline void assert_seal_refused(const struct qs_tpm2_seal *how, enum qs_kind kind,
				       const char *sentence)
{
	QS_AUTO(auto_tpm) struct qs_tpm2 *tpm = tpm_open("", "t/s");
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	struct qs_error err = {};

	assert_true(tpm2->seal(tpm, how, &token, &passphrase, &err) < 0);
	assert_null(passphrase.data);
	if (err.kind != kind || !strstr(err.text, sentence))
		fail_msg("%s: %s", qs_kind_name(err.kind), err.text);
}

static const struct qs_tpm2_unseal nothing;

#define WITH_TPM(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
