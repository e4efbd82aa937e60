/*
 * What OpenSSL says when it fails, as our errors; what keys it may encrypt to, and until
 * when certificates are valid.
 */
#ifndef QS_BASE_OPENSSL_H
#define QS_BASE_OPENSSL_H

#include <stddef.h>
#include <time.h>

#include <openssl/x509.h>

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

/* When CERTIFICATE ends; 0: that cannot be read. */
time_t qs_openssl_expiry(const X509 *certificate);

/* When the first of the certificates in the PEM text ends; 0: there is none. */
time_t qs_openssl_pem_expiry(const char *text, size_t size);

#endif
