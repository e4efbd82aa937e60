/*
 * The keystore for the commands: enabling, disabling, what depends on it, and its
 * part in opening devices.
 */
#ifndef QS_OPS_KEYSTORE_H
#define QS_OPS_KEYSTORE_H

#include <jansson.h>

#include "base/pool.h"
#include "keystore/keystore.h"
#include "keystore/provider.h"
#include "ops/internal.h"
#include "ops/open.h"

/*
 * The lock of whoever changes the keystore or makes a device depend on it; waits
 * WAIT_MS. Returns a descriptor.
 */
int qs_keystore_lock(const struct qs_env *env, unsigned wait_ms, struct qs_error *err);

/* Does the schedule say that a rotation begins now? */
bool qs_keystore_is_due(const struct qs_keystore *ks);

/*
 * Has a rotation anything to do: one that was cut off, one that is due, or a device that is
 * present and whose header backup is behind? *ret. Reads files only, and takes no lock.
 */
int qs_keystore_has_work(const struct qs_env *env, const struct qs_keystore *ks, bool *ret,
			 struct qs_error *err);

/*
 * Retire what no device and no header backup names, when no rotation is under way. *ret gets
 * the numbers of the generations. Somebody else holds the keystore's lock: left to the next time.
 */
int qs_keystore_retire(const struct qs_env *env, json_t *ret, struct qs_error *err);

enum qs_keystore_scan {
	QS_SCAN_BACKUPS, /* QS_SCAN_COUNT of header backups only */
	QS_SCAN_COUNT,
	QS_SCAN_WRAPPED, /* the same, and how its provider wrapped a content key */
	QS_SCAN_PROVE,   /* each key is unwrapped, its identity checked and its keyslot tried */
	QS_SCAN_REWRAP   /* what rewrapping has to know; backups are read from the disk again */
};

/*
 * One outcome for every device of ours that is present and for every header backup
 * (device: its path). outcome.details: "generation" and "provider" of a key that KS
 * wrapped, absent without one; "elsewhere": that of one which another keystore wrapped; "backup"
 * (true for backups). With QS_SCAN_WRAPPED "wrapped", where there is one. With QS_SCAN_REWRAP
 * devices have their name in outcome.name, and "token" (as in the header), "target" (the generation
 * that they are brought to), "behind" (device or backup is not, or not wholly, at the generation
 * that wraps). Never writes.
 */
int qs_keystore_scan(const struct qs_env *env, const struct qs_keystore *ks,
		     enum qs_keystore_scan how, struct qs_outcomes *ret, struct qs_error *err);

/*
 * Bring those of FOUND (of a scan with QS_SCAN_REWRAP) that are behind to their target; the caller
 * holds the keystore's lock. REPORT gets an outcome for each of them.
 */
int qs_keystore_bring(const struct qs_env *env, const struct qs_keystore *ks,
		      struct qs_outcomes *found, struct qs_outcomes *report, struct qs_error *err);

/*
 * With the keystore's lock: go on with a rotation of KS, if one is under way, bring along what is
 * behind, and retire what nothing names. REPORT gets devices, RETIRED (may be NULL) the numbers of
 * generations. QS_E_PARTIAL: some devices are not where they belong.
 */
int qs_keystore_settle(const struct qs_env *env, struct qs_keystore *ks, struct qs_outcomes *report,
		       json_t *retired, struct qs_error *err);

/* Is G too young for the next one? QS_E_REFUSED. */
int qs_keystore_refuse_interval(const struct qs_keystore_generation *g, struct qs_error *err);

/* The result of qs_keystore_rotate(); a new reference. */
json_t *qs_keystore_describe_rotation(const struct qs_keystore *ks, const json_t *retired);

/* What became of a key for some devices only. */
struct qs_key_rotation {
	uint32_t generation; /* to which its devices are brought; 0: nothing was begun */
	bool made;           /* that is a new one; else an earlier run made it, and left devices */
};

/*
 * qs_keystore_rotate() of a key for some devices only: first what an earlier run has left, and
 * then no new generation. KS is kept as it is written.
 */
int qs_keystore_rotate_key(const struct qs_env *env, const struct qs_rotate_options *options,
			   struct qs_keystore *ks, struct qs_outcomes *report, json_t *retired,
			   struct qs_key_rotation *ret, struct qs_error *err);

/*
 * With the keystore's lock: the generation that wraps with KEY, a key for some devices only, which
 * is made if there is none (steps: ops/keystore-key.c). KS is kept as it is written.
 */
int qs_keystore_take_key(const struct qs_env *env, struct qs_keystore *ks,
			 const struct qs_keystore_key *key, uint32_t *ret, struct qs_error *err);

/* Read the header of NODE (a real path) anew, and open by what KS wrapped in it. Never writes. */
int qs_keystore_prove(const struct qs_env *env, const struct qs_keystore *ks, const char *node,
		      struct qs_error *err);

/* Make all header backups durable. */
int qs_keystore_flush(const struct qs_env *env, struct qs_error *err);

/*
 * After devices of LIST were opened: when the keystore opened one with an older generation,
 * bring all that are present to the current one. That it fails is a warning: they are open.
 */
void qs_keystore_follow_up(const struct qs_env *env, const struct qs_outcomes *list);

/*
 * Of the header behind REQUEST, read without libcryptsetup: the generation of KS that its token
 * names, 0 if it has none. KS NULL: 1 if it has any such token. *ret_wrapped (malloc'ed; may be
 * NULL) is its content key as its provider wrapped it, if that is how its key was wrapped.
 */
uint32_t qs_open_keystore_peek(const struct qs_open_request *request, const struct qs_keystore *ks,
			       char **ret_wrapped);

/*
 * Ask the keystore's provider once for all that COUNT requests (ONLY not NULL: those with ONLY[i])
 * will want of it, behind what the TPM gave for their tokens. What fails is told of each device.
 */
int qs_open_prepare_keystore(const struct qs_env *env, const struct qs_open_request *requests,
			     size_t count, const bool *only, struct qs_error *err);

/*
 * Has the header behind REQUEST a token of a generation that the keystore has, and that its
 * provider has not failed to give yet? Only looks.
 */
bool qs_open_keystore_has(const struct qs_env *env, const struct qs_open_request *request);

/*
 * Run in a worker: try what the keystore wrapped for REQUEST. Returns 0 opened (*ret gets
 * "token", "keyslot" and "keystore_generation"), 1 the header has no such token. -errno:
 * *ret_final says that no other way is to be tried.
 */
int qs_open_by_keystore(const struct qs_env *env, struct qs_worker *worker,
			const struct qs_open_request *request, json_t **ret, bool *ret_final,
			struct qs_error *err);

/*
 * Say in ERR that a device whose keys are missing or wrong has its key in the keystore, which this
 * machine does not have. Reads its header.
 */
void qs_open_mention_keystore(const struct qs_env *env, const struct qs_open_request *request,
			      struct qs_error *err);

/*
 * Where this machine has no keystore: the lines of TAB that are ours only with one, whose device
 * is there, and has a key in a keystore by its header or header backup, or could not be looked at
 * (its error). One outcome for each; outcome.name is the line's.
 */
int qs_open_find_lost(const struct qs_env *env, const struct qs_crypttab *tab,
		      struct qs_outcomes *ret, struct qs_error *err);

/*
 * Put "keystore" into that of KEYSLOTS (objects with "number") which the keystore opens by the
 * header H: "generation", and "key" (of struct qs_provider) where it is one of a key server's.
 * Asks no provider. It is an error that the header has a key in the keystore, and this machine's is
 * lost, or does not have it.
 */
int qs_keystore_describe(const struct qs_env *env, const struct qs_luks_header *h, json_t *keyslots,
			 struct qs_error *err);

/*
 * What can be said of the keystore's keyslot of the loaded header: the same, and
 * "problem" when it would not open it now. A new reference; NULL: there is none. *ret_slot
 * is its keyslot, -1 if that is not known.
 */
json_t *qs_keystore_look(const struct qs_env *env, struct crypt_device *cd,
			 const struct qs_luks_header *h, int *ret_slot);

/*
 * Put "schedule" (as qs_schedule_print()) into RESULT and, unless that is never, "next_rotation"
 * (a time) and "overdue".
 */
void qs_keystore_add_schedule(const struct qs_keystore *ks, json_t *result);

/* Put "retention" (seconds) and "kept" (name, uuid, path, destroyed, until) into RESULT. */
int qs_keystore_add_retained(const struct qs_env *env, const struct qs_keystore *ks, json_t *result,
			     struct qs_error *err);

#endif
