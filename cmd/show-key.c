/*
 * A recovery key for a person: once, to nothing but a terminal, as text and, where the
 * terminal can show one, as a QR code. Past stdio, whose buffers are not wiped.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "command.h"
#include "qr/qr.h"
#include "show-key.h"

static int put(const void *data, size_t size, struct qs_error *err)
{
	const char *at = data;

	while (size > 0) {
		ssize_t n = write(STDOUT_FILENO, at, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return qs_fail_errno(err, n < 0 ? errno : EIO,
					     "cannot show the recovery key");
		at += n;
		size -= (size_t)n;
	}
	return 0;
}

/* As the C library finds the locale; half blocks are UTF-8. */
static bool shows_blocks(void)
{
	static const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" };
	const char *type = getenv("TERM");

	if (!type || strcmp(type, "dumb") == 0)
		return false;
	for (size_t i = 0; i < QS_ARRAY_SIZE(names); i++) {
		const char *value = getenv(names[i]);

		if (value && *value)
			return strcasestr(value, "UTF-8") || strcasestr(value, "UTF8");
	}
	return false;
}

static int render(const struct qs_secret *key, struct qs_secret *ret, struct qs_error *err)
{
	const struct qs_module *module = NULL;
	struct winsize size = {};
	unsigned columns = 0;
	int r = qs_module_load(QS_QR_MODULE_NAME, QS_QR_MODULE_SYMBOL, QS_QR_MODULE_VERSION,
			       &module, err);

	if (r < 0)
		return r;
	/* libqrencode has memory of its own. */
	qs_secret_lock_all();
	r = ((const struct qs_qr_functions *)module)->render(key, ret, &columns, err);
	if (r == 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 &&
	    size.ws_col < columns)
		return qs_fail(err, QS_E_FAILED, "the terminal is narrower than %u columns",
			       columns);
	return r;
}

int qs_show_key(const char *device, const struct qs_secret *key, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret code = {};
	struct qs_error own = {};
	int r;

	qs_progress_clear();
	printf("Recovery key of %s. Write it down now and keep it in a safe place: it opens the "
	       "device, and it is not shown again.\n\n    ",
	       device);
	if (fflush(stdout) != 0)
		return qs_fail_errno(err, errno, "cannot show the recovery key");
	r = put(key->data, key->size, err);
	if (r == 0)
		r = put("\n\n", 2, err);
	if (r < 0 || !shows_blocks())
		return r;
	/* The key was shown: without its code everything is well. */
	if (render(key, &code, &own) < 0) {
		qs_log(QS_LOG_NOTICE, "there is no QR code: %s", own.text);
		return 0;
	}
	r = put(code.data, code.size, err);
	return r < 0 ? r : put("\n", 1, err);
}
