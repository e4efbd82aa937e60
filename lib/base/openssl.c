#define _GNU_SOURCE
#include "base/openssl.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>

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

time_t qs_openssl_expiry(const X509 *certificate)
{
	struct tm utc;

	if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &utc) != 1)
		return 0;
	return timegm(&utc);
}

time_t qs_openssl_pem_expiry(const char *text, size_t size)
{
	BIO *bio = size < INT32_MAX ? BIO_new_mem_buf(text, (int)size) : NULL;
	char no_passphrase[] = ""; /* or OpenSSL would ask whoever is at the terminal */
	time_t first = 0;
	X509 *one;

	while (bio && (one = PEM_read_bio_X509(bio, NULL, NULL, no_passphrase))) {
		time_t ends = qs_openssl_expiry(one);

		first = !first || (ends && ends < first) ? ends : first;
		X509_free(one);
	}
	BIO_free(bio);
	ERR_clear_error();
	return first;
}
