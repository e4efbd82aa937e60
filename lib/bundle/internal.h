/*
 * What the bundle's files share.
 */
#ifndef QS_BUNDLE_INTERNAL_H
#define QS_BUNDLE_INTERNAL_H

#include <openssl/x509.h>

#include "base/error.h"
#include "base/openssl.h"

static inline void qs_auto_x509(X509 **x)
{
	X509_free(*x);
	*x = NULL;
}

/* Read the PEM certificate PATH and check that bundles may be sealed to it. */
int qs_certificate_load(const char *path, X509 **ret, struct qs_error *err);

#endif
