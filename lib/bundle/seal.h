/*
 * The envelope of a key bundle: CMS AuthEnvelopedData (RFC 5083) with
 * AES-256-GCM (RFC 5084), made and opened by OpenSSL's libcrypto, so that
 * `openssl cms -decrypt -inform DER` opens it without us. The encoding is BER
 * with indefinite lengths, as whatever streams writes it.
 *
 * Recipients, each of which opens it alone:
 *   RSA certificates   RSA-OAEP with SHA-256 (RFC 3560)
 *   EC certificates    ECDH with SHA-256, AES-256 key wrap (RFC 5753)
 *   a passphrase       PWRI (RFC 3211), PBKDF2 with HMAC-SHA-1: OpenSSL's CMS makes no other
 *
 * Where plaintext is: in the caller's struct qs_secret, and nowhere else. To seal,
 * the cipher reads from there and OpenSSL's buffers get ciphertext; to open, we
 * take the cipher context from OpenSSL's chain and let it write there. What
 * OpenSSL holds in its own memory (content key, key-encryption key, the private
 * key) it wipes when it is released; qs_secret_lock_all() keeps it out of the swap
 * until then. What remains unwiped are its decoder's
 * buffers of a PEM private key, gone with the process.
 */
#ifndef QS_BUNDLE_SEAL_H
#define QS_BUNDLE_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/secret.h"

/*
 * PBKDF2 iterations for a new bundle: 1.0 to 1.5 seconds on the two-core
 * machine it was measured on (OpenSSL 3.0), and more than the 1.3 million that OWASP's password
 * storage guide asks for with HMAC-SHA-1.
 */
#define QS_SEAL_ITERATIONS 2000000

/* Bytes of a sealed bundle; OpenSSL's buffers end at 1.5 GiB. */
#define QS_SEAL_MAX (1U << 30)

struct qs_seal_recipients {
	const char *const *certificates; /* real paths of PEM files */
	size_t certificate_count;
	const struct qs_secret *passphrase; /* NULL: none */
};

struct qs_seal;

/*
 * Begin to seal. A certificate is refused (QS_E_FAILED, with the reason) when it
 * is expired or not yet valid, its usage forbids encryption, or its key is
 * neither RSA of 3072 bits or more nor EC of 256 bits or more.
 */
int qs_seal_begin(const struct qs_seal_recipients *to, struct qs_seal **ret, struct qs_error *err);

int qs_seal_write(struct qs_seal *s, const void *data, size_t size, struct qs_error *err);

/* The whole envelope in *ret; it belongs to *s. */
int qs_seal_end(struct qs_seal *s, const void **ret, size_t *ret_size, struct qs_error *err);

void qs_auto_seal(struct qs_seal **s); /* QS_AUTO releaser */

/* ---- opening ---- */

struct qs_sealed;

/* What opens it. */
struct qs_seal_recipient_kinds {
	bool certificate;
	bool passphrase;
};

/*
 * Parse an envelope; DATA may be released afterwards. Refused with QS_E_FAILED:
 * something else, cut off, followed by other bytes, or a key derivation of more
 * than MAX_ITERATIONS (F11: it would run for hours).
 */
int qs_sealed_load(const void *data, size_t size, unsigned max_iterations, struct qs_sealed **ret,
		   struct qs_seal_recipient_kinds *ret_kinds, struct qs_error *err);

/*
 * Find the content key, by a passphrase or by a private key in PEM (whose own
 * passphrase is asked for only when it has one; NULL then: there is none).
 * Returns: QS_E_NO_KEY when it does not fit.
 */
typedef int qs_seal_ask(void *cookie, struct qs_secret *ret, struct qs_error *err);
int qs_sealed_use_passphrase(struct qs_sealed *s, const struct qs_secret *passphrase,
			     struct qs_error *err);
int qs_sealed_use_key(struct qs_sealed *s, const struct qs_secret *pem, const char *name,
		      qs_seal_ask *ask, void *cookie, struct qs_error *err);

/*
 * Decrypt everything once, keeping nothing, and check the authentication tag.
 * Before this succeeded no byte of the content may be believed. Then back at the
 * beginning. *ret_size: bytes of the content.
 */
int qs_sealed_authenticate(struct qs_sealed *s, uint64_t *ret_size, struct qs_error *err);

/* Back to the first byte of the content, as often as wanted. */
int qs_sealed_rewind(struct qs_sealed *s, struct qs_error *err);

/* The next SIZE bytes of the content into DATA; an early end is QS_E_FAILED. */
int qs_sealed_read(struct qs_sealed *s, void *data, size_t size, struct qs_error *err);

void qs_auto_sealed(struct qs_sealed **s); /* QS_AUTO releaser */

#endif
