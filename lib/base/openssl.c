#include "base/openssl.h"

#include <stdarg.h>
#include <stdio.h>

#include <openssl/err.h>

int qs_openssl_error(struct qs_error *err, enum qs_kind kind, const char *format, ...)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());
	char text[512];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	ERR_clear_error();
	return qs_error_set(err, kind, "%s%s%s", text, reason ? ": " : "", reason ? reason : "");
}
