/*
 * What OpenSSL says when it fails, as our errors; and what keys it may encrypt to.
 */
#ifndef QS_BASE_OPENSSL_H
#define QS_BASE_OPENSSL_H

#include "base/error.h"

/*
 * The least that an RSA key has to have before secrets are encrypted to it: as strong as
 * AES-128 (NIST SP 800-57 part 1, table 2).
 */
#define QS_RSA_BITS_MIN 3072

/* Fail with OpenSSL's last reason behind the sentence; its queue is emptied. */
#define qs_fail_openssl(err, kind, ...) qs_negative(qs_openssl_error((err), (kind), __VA_ARGS__))
int qs_openssl_error(struct qs_error *err, enum qs_kind kind, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
