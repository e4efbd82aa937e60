#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <libcryptsetup.h>

static struct {
	qs_log_receiver *receiver;
	enum qs_log_level max_level;
	void *cookie;
} installed;

void qs_log_install(qs_log_receiver *receiver, enum qs_log_level max_level, void *cookie)
{
	installed.receiver = receiver;
	installed.max_level = max_level;
	installed.cookie = cookie;
}

void qs_log_redirect(qs_log_receiver *receiver, void *cookie)
{
	if (!installed.receiver)
		return;
	installed.receiver = receiver;
	installed.cookie = cookie;
}

void qs_log(enum qs_log_level level, const char *format, ...)
{
	char message[2048];
	va_list ap;

	if (!installed.receiver || level > installed.max_level)
		return;
	va_start(ap, format);
	(void)vsnprintf(message, sizeof(message), format, ap);
	va_end(ap);
	installed.receiver(level, message, installed.cookie);
}

static void from_crypt(int level, const char *message, void *cookie)
{
	int length = (int)strcspn(message, "\n");

	(void)level;
	(void)cookie;
	if (length > 0)
		qs_log(QS_LOG_DEBUG, "libcryptsetup: %.*s", length, message);
}

void qs_log_catch_crypt(void)
{
	crypt_set_log_callback(NULL, from_crypt, NULL);
}
