/*
 * What the bundle's files share.
 */
#ifndef QS_BUNDLE_INTERNAL_H
#define QS_BUNDLE_INTERNAL_H

#include <openssl/x509.h>

#include "base/error.h"

static inline void qs_auto_x509(X509 **x)
{
	X509_free(*x);
	*x = NULL;
}

/* Fail with OpenSSL's last reason behind the sentence; its queue is emptied. */
#define qs_fail_openssl(err, kind, ...) qs_negative(qs_openssl_error((err), (kind), __VA_ARGS__))
int qs_openssl_error(struct qs_error *err, enum qs_kind kind, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Read the PEM certificate PATH and check that bundles may be sealed to it. */
int qs_certificate_load(const char *path, X509 **ret, struct qs_error *err);

#endif
