/*
 * The TPM's part in opening devices: passphrases of keyslots with systemd-tpm2
 * tokens, got in one connection for any number of devices.
 *
 * A worker process talks to the TPM, since a TPM may answer late or never. What
 * it gets reaches the processes that open the devices through memory that they
 * share: locked, not dumped, wiped in the end.
 */
#ifndef QS_OPS_TPM2_H
#define QS_OPS_TPM2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/env.h"
#include "base/error.h"
#include "base/pool.h"
#include "base/secret.h"
#include "key/tpm2.h"
#include "luks/header.h"
#include "ops/ops.h"

#define QS_TPM2_CLOSING_EVENT "qs-util: unlocking is over"

/* To read a header: a disk may have to spin up first; for one that takes longer no TPM is asked. */
#define QS_LOOK_MS 15000

#define QS_TPM2_PASSPHRASE_MAX 128 /* bytes; systemd's have 44, of two shards 88 */
#define QS_TPM2_TOKEN_MAX 8192     /* bytes of a token of ours; 3000 with a public key */

/* What the TPM gave for one device. Lies in shared memory: no pointers. */
struct qs_tpm2_key {
	bool there;        /* it has a passphrase */
	int token;         /* out of this token; -1: the device has none */
	uint32_t keyslots; /* that it is for, a bit for each */
	size_t size;
	unsigned char passphrase[QS_TPM2_PASSPHRASE_MAX];
	char sealed[QS_TPM2_TOKEN_MAX]; /* it was made now: the new token as JSON; else "" */
	struct qs_error error; /* why there is none; QS_E_NONE for a device without a token */
	bool silent;           /* the disk did not answer when its header was to be read */
	bool refused;          /* the header is none of ours: no other way is to be tried either */
};

struct qs_tpm2_keys {
	struct qs_tpm2_key *items; /* one per device */
	size_t count;
	size_t size;      /* bytes of the mapping */
	uint32_t closing; /* qs_tpm2_closing_pcrs() of all tokens that were seen */
};

/* One to unseal for. */
struct qs_tpm2_device {
	const char *node; /* what is really opened; NULL: passed over */
	const char *name; /* whose header backup knows how old the header is */
};

/*
 * Unseal for COUNT devices. Headers are only read, and only if one has a token is the TPM asked;
 * not for a header that is refused (QS_E_HOSTILE), nor for one that is older than its backup
 * (QS_E_TPM): the keyslot may have been revoked since. PIN (NULL: none) goes to tokens that
 * want one; after one wrong PIN, or in lockout, the TPM is left alone. What failed stands in the
 * items. With CLOSABLE, tokens that qs_tpm2_close_path() could not close afterwards are refused.
 * Fails only when nothing could be begun.
 */
int qs_tpm2_keys_fetch(const struct qs_env *env, const struct qs_tpm2_device *devices, size_t count,
		       const struct qs_secret *pin, bool closable, struct qs_tpm2_keys *ret,
		       struct qs_error *err);

/*
 * The same in two steps, for whoever begins with what there is while the TPM goes on with the
 * next: qs_tpm2_fetch_begin() reads the headers; then the pool (NULL: nobody has a token) asks the
 * TPM, alone or beside another one (base/pool.h). Its job ends as tpm2_deadline says. Once it
 * runs, qs_tpm2_fetch_is_settled() tells in the parent that key I will not change any more. PIN
 * must live as long as that.
 */
struct qs_tpm2_fetch;
int qs_tpm2_fetch_begin(const struct qs_env *env, const struct qs_tpm2_device *devices,
			size_t count, const struct qs_secret *pin, bool closable,
			struct qs_tpm2_keys *ret_keys, struct qs_tpm2_fetch **ret,
			struct qs_error *err);
const struct qs_pool *qs_tpm2_fetch_pool(const struct qs_tpm2_fetch *f);
bool qs_tpm2_fetch_is_settled(const struct qs_tpm2_fetch *f, size_t i);
void qs_tpm2_fetch_done(struct qs_tpm2_fetch **f); /* also a QS_AUTO releaser */

/* Shared memory for COUNT of them, none there, no tokens. */
int qs_tpm2_keys_make(size_t count, struct qs_tpm2_keys *ret, struct qs_error *err);

void qs_tpm2_keys_done(struct qs_tpm2_keys *keys); /* wipes; also a QS_AUTO releaser */

/*
 * In a worker that has read HEADER (its metadata): DETAILS' "keyslots" get "tpm2" with what
 * their tokens say ("pcrs" ("0+7"), "bank", "pin", "signed", or "problem"), and the details
 * what qs_tpm2_look() needs.
 */
void qs_tpm2_describe(const json_t *header, json_t *details);

/*
 * In the parent: ask the TPM of all keyslots that were described, in one connection, without
 * their secrets. "tpm2" gets "problem" when the TPM would not open it now, "moved" (the PCRs
 * that changed since it was sealed, where the token tells) or "closed"; the details get
 * "tpm" (failures, limit, locked). A TPM that fails or does not answer is every keyslot's
 * problem. Without such keyslots nothing is done. Never fails for a device.
 */
int qs_tpm2_look(const struct qs_env *env, struct qs_outcomes *list, struct qs_error *err);

/*
 * The TPM's lockout counter. In the worker: RET (an object) gets "health". In the parent: ANSWERS,
 * which is that object (NULL: there was none), says that more than half of it is used up; then
 * that is logged, and is an event.
 */
int qs_tpm2_look_at_health(const struct qs_tpm2_functions *tpm2, struct qs_tpm2 *tpm, json_t *ret,
			   struct qs_error *err);
void qs_tpm2_warn(const struct qs_env *env, const json_t *answers);

/*
 * The PCR (one bit) by whose extension TOKEN no longer opens until the next boot; 0: its policy has
 * none that software cannot reset. For all of a header's TOKENS: malformed ones have none.
 */
uint32_t qs_tpm2_closing_pcr(const struct qs_tpm2_token *token);
uint32_t qs_tpm2_closing_pcrs(const json_t *tokens);

/*
 * Extend PCRS (a bit for each) in every bank, in a worker within tpm2_deadline. The values that
 * they had at first in this boot are recorded for qs_tpm2_closed().
 */
int qs_tpm2_close_path(const struct qs_env *env, uint32_t pcrs, struct qs_error *err);

/*
 * The values of the PCRs that have been closed in this boot, from before that: what the next boot
 * will have again, {"sha256": {"7": hex}}. NULL when none was. A new reference.
 */
json_t *qs_tpm2_closed(const struct qs_env *env);

/*
 * In a worker: is the header PEEKED, read from FD, at least as new as the backup of DEVICE?
 * Whoever has the disk can put an old header back, with keyslots that were revoked
 * since; the TPM would unseal for them as ever. Our backup was refreshed then. Against
 * somebody who also writes a larger sequence id only another volume key helps. QS_E_HOSTILE.
 */
int qs_tpm2_check_age(const struct qs_env *env, const struct qs_tpm2_device *device, int fd,
		      const struct qs_luks_header *peeked, struct qs_error *err);

/* SAY each TPM2 token of HEADER (its metadata) that is well-formed, with its number. */
void qs_tpm2_for_each_token(const json_t *header,
			    void (*say)(void *cookie, int number,
					const struct qs_tpm2_token *token),
			    void *cookie);

/* tpm2-pcr-signature.json where systemd looks for it, or NULL; a new reference. */
json_t *qs_tpm2_signatures(const struct qs_env *env);

#endif
