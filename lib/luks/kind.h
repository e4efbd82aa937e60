/*
 * What kind of thing opens a keyslot, told by the tokens that name it.
 *
 * Slots of passphrases and of people's key files look alike, so those that we
 * add get a token that only says which it is:
 *
 *   {"type":"qs-slot","keyslots":["2"],"version":1,"kind":"passphrase","qs-time":TIME}
 *
 * Tokens that other tools read (systemd-recovery, systemd-tpm2) and ours carry
 * "qs-time", when the slot was added; readers of 252 pass over unknown fields.
 * Tokens are not authenticated: they are believed about what to say, and never
 * about what opens the device.
 */
#ifndef QS_LUKS_KIND_H
#define QS_LUKS_KIND_H

#include <jansson.h>

#define QS_KIND_KEY_FILE "key-file"
#define QS_KIND_PASSPHRASE "passphrase"
#define QS_KIND_RECOVERY "recovery"
#define QS_KIND_TPM2 "tpm2"
#define QS_KIND_KEYSTORE "keystore"
#define QS_KIND_UNKNOWN "unknown" /* no token: a passphrase or key file of somebody */

#define QS_SLOT_TYPE "qs-slot"
#define QS_RECOVERY_TYPE "systemd-recovery"

#define QS_SLOT_TIME_L 21 /* "2026-11-22T02:00:00Z" */

/*
 * The kind of keyslot SLOT of the metadata JSON (foreign input); static:
 * one of the above, "fido2", "pkcs11", "clevis", or "other".
 * RET_SINCE (may be NULL) gets the time at which it was added, "" if that is not known.
 */
const char *qs_slot_kind(const json_t *json, int slot, char ret_since[QS_SLOT_TIME_L]);

/* A name that qs_slot_kind() may return. */
int qs_slot_kind_is_known(const char *kind);

/*
 * A token that marks a slot added now, without its "keyslots"; a new reference.
 * KIND goes into tokens of QS_SLOT_TYPE, else NULL.
 */
json_t *qs_slot_token(const char *type, const char *kind);

#endif
