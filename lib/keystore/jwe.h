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
#define QS_JWE_MODULE_VERSION 1

#define QS_JWE_ALG "A256GCMKW"
#define QS_JWE_ENC "A256GCM"

/*
 * The protected header's member that binds a wrapping to a volume. Not the JWE's "aad":
 * for that libjose 11 authenticates bytes behind the end of its text (valgrind shows it), so
 * what one process makes another may not open.
 */
#define QS_JWE_VOLUME "qs-volume"

struct qs_jwe_functions {
	struct qs_module module;

	/*
	 * Encrypt PLAIN under KEK (32 bytes). KID and VOLUME go into the protected header, and so
	 * are authenticated. *ret: flattened JWE, a new reference.
	 */
	int (*wrap)(const struct qs_secret *kek, const char *kid, const char *volume,
		    const struct qs_secret *plain, json_t **ret, struct qs_error *err);

	/*
	 * The reverse, for a JWE whose form has been checked (keystore/token.h).
	 * -EPERM (QS_E_NO_KEY): another KEK's, or changed.
	 */
	int (*unwrap)(const json_t *jwe, const struct qs_secret *kek, struct qs_secret *ret,
		      struct qs_error *err);
};

#endif
