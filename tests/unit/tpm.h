/*
 * A software TPM for each test, and the module that talks to it. Include after
 * cmocka.h.
 */
#ifndef QS_TESTS_TPM_H
#define QS_TESTS_TPM_H

#include <string.h>

#include "headers.h"
#include "scratch.h"
#include "tpm2/tpm2.h"
#include "vectors.h"

#define SWTPM QS_SOURCE "/tests/swtpm"

static const struct qs_tpm2_functions *tpm2;
static char *tpm_scratch;

/* Run a command on the TPM in directory DIR of the scratch directory. */
static inline void swtpm(const char *verb, const char *dir, const char *arguments)
{
	if (headers_shell(SWTPM " %s %s/%s %s", verb, tpm_scratch, dir, arguments) != 0)
		fail_msg("swtpm %s %s %s failed", verb, dir, arguments);
}

/* Connect to SOCKET, "DIR/s" or "DIR/p" (the proxy); PREFIX is "" or "pcap:". */
static inline struct qs_tpm2 *tpm_open(const char *prefix, const char *socket)
{
	QS_AUTO(qs_auto_free)
	char *device = qs_printf("%sswtpm:path=%s/%s", prefix, tpm_scratch, socket);
	struct qs_tpm2 *tpm = NULL;
	struct qs_error err = {};

	if (tpm2->open(device, &tpm, &err) < 0)
		fail_msg("%s", err.text);
	return tpm;
}

static inline void auto_tpm(struct qs_tpm2 **tpm)
{
	tpm2->close(*tpm);
}

/* A secret of these bytes; the caller releases it. */
static inline struct qs_secret secret_of(const char *text)
{
	struct qs_secret s = {};

	assert_int_equal(qs_secret_init(&s, strlen(text), NULL), 0);
	memcpy(s.data, text, strlen(text));
	return s;
}

static inline bool secret_is(const struct qs_secret *s, const char *text)
{
	return s->size == strlen(text) && memcmp(s->data, text, s->size) == 0;
}

/* Group setup: the module, and a scratch directory that is the working directory. */
static inline int tpm_setup(void **state)
{
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s:/usr/sbin:/sbin", getenv("PATH"));
	const struct qs_module *module = NULL;
	struct qs_error err = {};

	(void)state;
	(void)setenv("PATH", path, 1);
	if (qs_module_load(QS_TPM2_MODULE_NAME, QS_TPM2_MODULE_SYMBOL, QS_TPM2_MODULE_VERSION,
			   &module, &err) < 0) {
		print_error("%s\n", err.text);
		return -1;
	}
	tpm2 = (const struct qs_tpm2_functions *)module;
	tpm_scratch = scratch_make();
	return chdir(tpm_scratch);
}

static inline int tpm_teardown(void **state)
{
	(void)state;
	(void)headers_shell("for pid in */pid; do " SWTPM " crash $PWD/${pid%%/pid}; done");
	if (chdir("/") < 0)
		return -1;
	scratch_drop(tpm_scratch);
	return 0;
}

#endif
