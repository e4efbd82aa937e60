/*
 * The module jose.so (base/module.h), which alone links libjose: wrapped keys as
 * JSON Web Encryption (RFC 7516), alg A256GCMKW, enc A256GCM, so that
 * `jose jwe dec` opens them with the KEK as a JWK.
 *
 * libjose keeps keys in JSON: whoever calls has qs_secret_wipe_json() called before.
 */
#ifndef QS_KEYSTORE_JWE_H
#define QS_KEYSTORE_JWE_H

#include <jansson.h>

#include "base/error.h"
#include "base/module.h"
#include "base/secret.h"

#define QS_JWE_MODULE_NAME "jose"
#define QS_JWE_MODULE_SYMBOL "qs_jwe_module"
#define QS_JWE_MODULE_VERSION 2

#define QS_JWE_ALG "A256GCMKW"
#define QS_JWE_ENC "A256GCM"

/*
 * Where a provider keeps its KEK to itself, there is a content key for each wrapping: alg is then
 * this, and the content key, as the provider wrapped it, is this member of the header that is not
 * protected (who changes it gets no key). `jose jwe dec` opens it with the content key as a JWK.
 */
#define QS_JWE_ALG_CONTENT "dir"
#define QS_JWE_WRAPPED "qs-wrapped"

/*
 * The protected header's member that binds a wrapping to a volume. Not the JWE's "aad":
 * for that libjose 11 authenticates bytes behind the end of its text (valgrind shows it), so
 * what one process makes another may not open.
 */
#define QS_JWE_VOLUME "qs-volume"

struct qs_jwe_functions {
	struct qs_module module;

	/*
	 * Encrypt PLAIN under KEY (32 bytes): the KEK, or, with WRAPPED not NULL, the content key,
	 * which is wrapped so. KID and VOLUME go into the protected header, and so are
	 * authenticated. *ret: flattened JWE, a new reference.
	 */
	int (*wrap)(const struct qs_secret *key, const char *kid, const char *volume,
		    const char *wrapped, const struct qs_secret *plain, json_t **ret,
		    struct qs_error *err);

	/*
	 * The reverse, for a JWE whose form has been checked (keystore/token.h).
	 * -EPERM (QS_E_NO_KEY): another key's, or changed.
	 */
	int (*unwrap)(const json_t *jwe, const struct qs_secret *key, struct qs_secret *ret,
		      struct qs_error *err);
};

/* The wrapped content key of a JWE whose form has been checked; NULL: a KEK wrapped it. */
const char *qs_jwe_wrapped(const json_t *jwe);

#endif
