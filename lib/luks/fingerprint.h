/*
 * Fingerprints: a token in the LUKS2 header that tells which key file opens a
 * keyslot, so that a lost crypttab is rebuilt without trying every key on every
 * device.
 *
 *   {"type":"qs-fingerprint","keyslots":["0"],"version":1,"fingerprint":HEX}
 *
 * HEX is HMAC-SHA-256 with the key SHA-256(key file) over the LUKS UUID (the 36
 * characters in the header). Why it does not help whoever has the disk:
 *
 * - It is only written for keys that came from the kernel's generator. To find
 *   such a key by its fingerprint, all of its 256 bits and more have to be
 *   guessed; that a guess is cheaper to check than through the keyslot changes
 *   nothing. A person's key file may be weak, and a fast hash of it would take
 *   the place of Argon2: it never gets one.
 * - Neither the key nor its SHA-256 comes out of an HMAC, so the keyslot, the
 *   volume key and other devices' fingerprints are no nearer.
 * - The UUID is in it: two disks with one key do not look alike, and a token
 *   that is copied to another disk matches nothing there.
 *
 * Header metadata is not authenticated. A fingerprint only says which key to try
 * first; what counts is that the key opens the keyslot.
 */
#ifndef QS_LUKS_FINGERPRINT_H
#define QS_LUKS_FINGERPRINT_H

#include <stddef.h>

#include <jansson.h>

#include "base/error.h"
#include "base/secret.h"

#define QS_FINGERPRINT_TYPE "qs-fingerprint"
#define QS_FINGERPRINT_SIZE 32U /* bytes; SHA-256 */

/* One token: this keyslot is opened by the key with this fingerprint. */
struct qs_fingerprint {
	int slot;
	unsigned char sum[QS_FINGERPRINT_SIZE];
};

/* SHA-256 of a key file's bytes: one pass over it serves for every device. */
int qs_fingerprint_digest(const struct qs_secret *key, struct qs_secret *ret, struct qs_error *err);

/* The fingerprint of the key with DIGEST on the device with UUID. */
int qs_fingerprint_make(const struct qs_secret *digest, const char *uuid,
			unsigned char ret[static QS_FINGERPRINT_SIZE], struct qs_error *err);

/* The token, a new reference. */
json_t *qs_fingerprint_token(const struct qs_fingerprint *print);

/*
 * The fingerprints in a header's metadata (foreign input), at most MAX. A token
 * that is not exactly as above, or that names a keyslot which is not there,
 * counts as none. Returns their number.
 */
size_t qs_fingerprint_read(const json_t *json, struct qs_fingerprint *ret, size_t max);

#endif
