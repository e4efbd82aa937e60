/*
 * What the commands do, without their arguments and their printing. Every
 * operation on devices gives one outcome per device and fails as a whole only
 * when it could not begin (configuration, lock, no memory).
 */
#ifndef QS_OPS_OPS_H
#define QS_OPS_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "base/env.h"
#include "base/error.h"
#include "base/secret.h"
#include "luks/tpm2-token.h"

struct qs_keystore_key;

/* What became of one device. error.kind is QS_E_NONE on success. */
struct qs_outcome {
	char *device; /* as the user typed it, or its node */
	char *node;   /* /dev/sdj; NULL while unknown, as the next three */
	char *by_id;
	char *name;
	char *uuid;
	char *note; /* one clause about a success: "already open", "continued an unfinished format"
		     */
	json_t *details; /* further fields for JSON, or NULL */
	struct qs_error error;
};

struct qs_outcomes {
	struct qs_outcome *items;
	size_t count;
};

/* COUNT empty outcomes that carry the names the user typed. */
int qs_outcomes_init(struct qs_outcomes *ret, const char *const *devices, size_t count,
		     struct qs_error *err);

void qs_outcomes_done(struct qs_outcomes *list); /* also a QS_AUTO releaser */

/*
 * The verdict over all devices: 0 when all went well; the one error when there
 * was one device or all failed with the same kind; QS_E_PARTIAL when some were
 * done; otherwise the first error's kind with a count.
 */
int qs_outcomes_verdict(const struct qs_outcomes *list, struct qs_error *err);

struct qs_devicemap_options {
	bool all;   /* partitions and stacked devices too */
	bool probe; /* open each device (once, for reading): LUKS state, uses, mapper name */
};

/*
 * An outcome per device. outcome.details: the fields of struct qs_device, and with
 * probe "uses" (array of kind, detail), "luks" (version, label, subsystem,
 * copies, damage; absent without a trace of LUKS), "mapper". A device that
 * cannot be read keeps its other fields beside its error.
 */
int qs_devicemap(const struct qs_env *env, const struct qs_devicemap_options *options,
		 struct qs_outcomes *ret, struct qs_error *err);

struct qs_format_options {
	const char *key_file; /* NULL: the keystore wraps it, or generate keys_dir/NAME.key */
	bool key_file_only;   /* generate one, whatever else would give a key */
	const char *cipher;   /* NULL: configuration; so are 0 and NULL below */
	unsigned key_size;    /* bits */
	unsigned sector_size; /* bytes */
	const char *pbkdf;    /* "pbkdf2", "argon2i", "argon2id"; NULL: by who made the key */
	bool force;           /* overrides QS_E_REFUSED */
	bool no_open;
	bool no_crypttab;
	const struct qs_keystore_key *key; /* of the keystore, for these devices only; or NULL */
};

/* The seven steps of ops/format.c, each device in a worker process. */
int qs_format(const struct qs_env *env, const char *const *devices, size_t count,
	      const struct qs_format_options *options, struct qs_outcomes *ret,
	      struct qs_error *err);

/*
 * Which of the devices hold something that a forced format overwrites: an
 * outcome for each of those, with a note that says what. Does nothing to them;
 * devices that cannot be found are left for qs_format() to report.
 */
void qs_format_preview(const struct qs_env *env, const char *const *devices, size_t count,
		       struct qs_outcomes *ret);

struct qs_bundle_keys;

struct qs_open_options {
	const char *key_file;
	const struct qs_secret *passphrase; /* tried instead of key files; may be NULL */
	const struct qs_secret *pin;        /* for TPM2 keyslots that want one; may be NULL */
	/* Asks for a passphrase, called when no key file is there; may be NULL. */
	int (*ask)(void *cookie, struct qs_secret *ret, struct qs_error *err);
	/* Asks for the PIN of the TPM2 keyslot of the mapping NAME when no key file is there: once,
	 * with early up to three times; may be NULL. */
	int (*ask_pin)(void *cookie, const char *name, struct qs_secret *ret, struct qs_error *err);
	void *ask_cookie;                    /* of both */
	const struct qs_bundle_keys *bundle; /* qs_open_all(): its devices and no others, or NULL */
	bool update_crypttab;
	bool read_only;
	bool allow_discards;
	bool test;      /* prove the key, open nothing */
	bool all_ways;  /* of all, with test: each way by itself (ops/check.h) */
	bool tpm2_only; /* by the TPM, or not at all */
	bool early;     /* of all: in an initramfs (ops/early.h) */
	bool boot;      /* of all: leave to systemd the lines without noauto, which its generator
			   opens: whoever of two openers comes last would fail */
};

int qs_open(const struct qs_env *env, const char *device, const struct qs_open_options *options,
	    struct qs_outcomes *ret, struct qs_error *err);

/*
 * Every device of ours that is present: named by crypttab with a key file in
 * keys_dir, or with a header of subsystem qs-util and a key of its name. With
 * options->bundle the devices, keys and keystore of that bundle, instead of this machine's; a
 * device that is present and has no key there is an error.
 */
int qs_open_all(const struct qs_env *env, const struct qs_open_options *options,
		struct qs_outcomes *ret, struct qs_error *err);

int qs_close(const struct qs_env *env, const char *device, struct qs_outcomes *ret,
	     struct qs_error *err);
int qs_close_all(const struct qs_env *env, struct qs_outcomes *ret, struct qs_error *err);

struct qs_destroy_options {
	bool force;
	bool purge; /* keep nothing for the retention time of the keystore */
};

/* Whom cryptdestroy is about to destroy, for the question: outcomes without doing anything. */
int qs_destroy_preview(const struct qs_env *env, const char *const *devices, size_t count,
		       const struct qs_destroy_options *options, struct qs_outcomes *ret,
		       struct qs_error *err);
int qs_destroy(const struct qs_env *env, const char *const *devices, size_t count,
	       const struct qs_destroy_options *options, struct qs_outcomes *ret,
	       struct qs_error *err);

struct qs_backup_options {
	bool force; /* the last backup is of another volume, or it is the damaged one */
};

/*
 * Back the headers up; COUNT 0: of every device of ours that is present. outcome.details:
 * "stored" (false: the backup was the same), "sequence" (LUKS2), "path" (logical),
 * "versions" (number of older ones). A damaged header is QS_E_DAMAGED and its backup stays.
 */
int qs_backup(const struct qs_env *env, const char *const *devices, size_t count,
	      const struct qs_backup_options *options, struct qs_outcomes *ret,
	      struct qs_error *err);

/*
 * What backups there are; COUNT 0: all of them, of absent disks too. outcome.details:
 * "backups" (array of path, time, kind "current", "older" or "damaged", usable,
 * sequence, agrees: with the device's header, absent when there is none). Reads only.
 */
int qs_backup_show(const struct qs_env *env, const char *const *devices, size_t count,
		   struct qs_outcomes *ret, struct qs_error *err);

struct qs_restore_options {
	const char *file;  /* NULL: what survives on the device or the newest good backup */
	uint64_t sequence; /* a version by its number; 0: not given. Not together with file */
	bool force;        /* overrides QS_E_REFUSED */
};

/*
 * Put a header back on one device. outcome.details: "restored", "same" (the device
 * has it already), "source" (kind, path, time), "changes" (sequence, keyslots,
 * tokens, uuid: each from, to; repaired: keyslots), "damage", "saved" (where the
 * overwritten bytes are kept), "proven" (key_file, keyslot), "signatures" (of others, that
 * are left). The preview gives the same without doing anything.
 */
int qs_restore(const struct qs_env *env, const char *device,
	       const struct qs_restore_options *options, struct qs_outcomes *ret,
	       struct qs_error *err);
int qs_restore_preview(const struct qs_env *env, const char *device,
		       const struct qs_restore_options *options, struct qs_outcomes *ret,
		       struct qs_error *err);

struct qs_repair_options {
	const char *const *keys_dirs; /* beside the configured one, as the user typed them */
	size_t keys_dir_count;
	bool dry_run; /* write nothing */
	bool prune;   /* remove stale lines */
};

/*
 * crypttabrepair: /etc/crypttab from the keys and LUKS devices that are there. An
 * outcome per device. outcome.details: "key_file", "keyslot", "matched_by" ("name",
 * "fingerprint", "command", "trial"), "tries" (key derivations), "crypttab" (action: "unchanged",
 * "changed", "added", or "left" for somebody else's line; line), "warnings". *ret_result
 * gets "changed", "diff" (unified, "" without a change), "tries", "unused_keys",
 * "unusable_keys" (key_file, problem), "duplicate_keys" (pairs), "stale_lines"
 * (line, name, problem, removed); it is set on failure too, as far as things came.
 */
int qs_repair(const struct qs_env *env, const struct qs_repair_options *options,
	      struct qs_outcomes *ret, json_t **ret_result, struct qs_error *err);

/* What a TPM2 keyslot is bound to. */
struct qs_enroll_tpm2 {
	uint32_t pcrs;               /* a bit for each; 0: none */
	enum qs_tpm2_alg bank;       /* QS_TPM2_NONE: SHA-256 */
	const struct qs_secret *pin; /* NULL: none */
	const char *public_key;      /* logical path of a PEM file: a signed policy; NULL: none */
	uint32_t public_key_pcrs;
};

struct qs_enroll_options {
	struct qs_open_options unlock; /* key_file, passphrase, ask: what unlocks it for the change
					*/
	const char *method; /* what is added: "key-file", "passphrase", "recovery", "tpm2",
			       "keystore", "new-key" (the device's key file is replaced); NULL:
			       nothing */
	const char *file;   /* key-file: the key; recovery: a file for it that is absent, or NULL */
	const struct qs_secret *passphrase; /* the new one */
	const struct qs_enroll_tpm2 *tpm2;  /* tpm2: what it is bound to */
	/* recovery without a file: shows the key to a person, once, when it opens the device. */
	int (*show)(void *cookie, const struct qs_secret *key, struct qs_error *err);
	void *show_cookie;
	const char *wipe; /* "1,recovery": keyslots, by number or kind, to be revoked; NULL: none */
	bool force;       /* also the slot that the device's own key file opens */
};

/*
 * Add a way to open each device, then revoke others: the steps of ops/enroll.c. More than
 * one device only with the methods that need no file of their own: "tpm2" (sealed for
 * all in one session of the TPM), "keystore", or none.
 * outcome.details: "keyslot", "kind", "file", "wiped" (keyslots), "backups_erased",
 * "backups_left" (paths of backups of other names that hold a revoked key).
 */
int qs_enroll(const struct qs_env *env, const char *const *devices, size_t count,
	      const struct qs_enroll_options *options, struct qs_outcomes *ret,
	      struct qs_error *err);

/*
 * Before a person is asked: *ret gets a note for each device on which keyslots WORDS (as
 * options->wipe) mean, or that none is meant. Never writes. QS_E_USAGE: not such words.
 */
int qs_enroll_preview_wipe(const struct qs_env *env, const char *const *devices, size_t count,
			   const char *words, struct qs_outcomes *ret, struct qs_error *err);

/*
 * What opens DEVICE. outcome.details: "keyslots" (array of number, kind, token,
 * kdf, since, opened_by: a key file at hand that was tried now; keystore: generation, or
 * problem). Never writes.
 */
int qs_enroll_list(const struct qs_env *env, const char *device, struct qs_outcomes *ret,
		   struct qs_error *err);

/* qs_open() with test, and the kind of the keyslot in the details. */
int qs_enroll_test(const struct qs_env *env, const char *device,
		   const struct qs_open_options *options, struct qs_outcomes *ret,
		   struct qs_error *err);

/*
 * Make the keystore and its first generation, by the provider NAME. QS_E_EXISTS: it is
 * enabled; QS_E_USAGE: no such provider. A failure leaves nothing behind.
 */
int qs_keystore_enable(const struct qs_env *env, const char *name, struct qs_error *err);

/*
 * Before a person is asked: would enabling, disabling or migrating to PROVIDER be refused now?
 * Asks no provider and changes nothing; the command itself looks again, under its lock.
 */
int qs_keystore_may_enable(const struct qs_env *env, struct qs_error *err);
int qs_keystore_may_disable(const struct qs_env *env, struct qs_error *err);
int qs_keystore_may_migrate(const struct qs_env *env, const char *provider, struct qs_error *err);

/* Erase the keystore. QS_E_FORBIDDEN: a device or backup depends on it, or cannot be read. */
int qs_keystore_disable(const struct qs_env *env, struct qs_error *err);

/* Is a generation at a key server? false also where that cannot be read. */
bool qs_keystore_has_server(const struct qs_env *env);

/*
 * Behind a change of the keystore, HAD_SERVER before: have systemd make the units of opening at
 * boot anew if that is another answer now. That it fails is a warning.
 */
void qs_keystore_follow_units(const struct qs_env *env, bool had_server);

/*
 * *ret: "state"; unless disabled "provider", "store", "generation" (the current one),
 * "generations" (number, created, devices, backups: how many it wraps keys of;
 * tpm2: what it is bound to, pcrs, bank, pin, or problem),
 * "unreadable" (sentences), "retention" and "kept" as in qs_keystore_add_retained(), what
 * qs_keystore_add_schedule() says, "rotated" (when the last rotation was finished, if one was),
 * "last_error" (time, message; if the last one failed), "rotation_state" (idle, or how far one has
 * come), and while a rotation is not finished
 * "rotation" (state, generation, done and total: devices). Reads only.
 */
int qs_keystore_status(const struct qs_env *env, json_t **ret, struct qs_error *err);

struct qs_rotate_options {
	/* A migration: the new generation lives with this provider, bound to what the session says
	 * for the TPM. QS_E_EXISTS: it does already; not available, and nothing is left behind:
	 * as its health(). NULL: with the current one's. */
	const char *provider;
	const struct qs_keystore_key
		*key; /* rotate this one, for some devices only; NULL: the own */
	bool force;   /* also before the minimum interval, which is QS_E_REFUSED */
	bool if_due;  /* begin one only if the schedule says so; devices that were away are brought
			 along. Without a keystore, and with nothing to do, a success */
};

/*
 * Go on with a rotation, or begin one: a new generation, and every device that is present
 * wrapped by it (steps: keystore/rotation.h, ops/keystore-rotate.c). *ret: the devices that were
 * changed, with "generation", or that could not be; *ret_result: "state", "generation" (the current
 * one), "provider" (its), "retired" (numbers), and "rotation" (state, generation) while it is not
 * finished. QS_E_PARTIAL: not finished; QS_E_LOCKED: another one runs.
 */
int qs_keystore_rotate(const struct qs_env *env, const struct qs_rotate_options *options,
		       struct qs_outcomes *ret, json_t **ret_result, struct qs_error *err);

/*
 * When the keystore is rotated by itself: TEXT as in qs_schedule_parse() (QS_E_USAGE). *ret_result
 * is what qs_keystore_add_schedule() says.
 */
int qs_keystore_set_schedule(const struct qs_env *env, const char *text, json_t **ret_result,
			     struct qs_error *err);

/*
 * How long a destroyed device of the keystore can be brought back: TEXT as in
 * qs_text_parse_span(), 1 to 365 days (QS_E_USAGE). *ret: seconds. A warning is logged
 * outside of 7 to 30 days.
 */
int qs_keystore_set_retention(const struct qs_env *env, const char *text, uint32_t *ret,
			      struct qs_error *err);

/*
 * Erase what was kept of destroyed devices and is over its time, or ALL of it. One outcome
 * for each file that was erased (device: its path; name, uuid); outcome.details: "destroyed".
 * Generations that nothing else named are retired: *ret_retired, an array of their numbers.
 */
int qs_keystore_purge(const struct qs_env *env, bool all, struct qs_outcomes *ret,
		      json_t **ret_retired, struct qs_error *err);

/*
 * Bring every device of the keystore that is present to the generation that wraps now, and move
 * DEVICES (COUNT 0: all of ours that are present) from their key files in keys_dir into the
 * keystore: steps in ops/enroll-keystore.c. outcome.details: "generation"; of those moved what
 * qs_enroll() says, and "key_erased" or (another line uses it) "key_kept".
 */
int qs_keystore_rewrap_devices(const struct qs_env *env, const char *const *devices, size_t count,
			       struct qs_outcomes *ret, struct qs_error *err);

/*
 * Bring DEVICES (COUNT 0: all of the keystore's that are present) to KEY, a key for some devices
 * only, or (NULL) back to the keystore's own: steps in ops/keystore-key.c. outcome.details:
 * "generation".
 */
int qs_keystore_change_key(const struct qs_env *env, const char *const *devices, size_t count,
			   const struct qs_keystore_key *key, struct qs_outcomes *ret,
			   struct qs_error *err);

/* Prove what the keystore holds, as qs_keystore_scan() does (ops/keystore.h). Reads only. */
int qs_keystore_verify(const struct qs_env *env, struct qs_outcomes *ret, struct qs_error *err);

struct qs_swap_options {
	bool now;   /* use the encrypted swap at once; not with a root prefix */
	bool force; /* overrides QS_E_REFUSED */
};

/*
 * Encrypt swap: DEVICE, or with NULL all of it. Swap is switched off, overwritten, and
 * comes back encrypted at the next start, or with options->now before this returns.
 * outcome.details: "state" ("active", "next-start"), "wiped" (bytes),
 * "update_initramfs" (true when RESUME was put right).
 */
int qs_swap(const struct qs_env *env, const char *device, const struct qs_swap_options *options,
	    struct qs_outcomes *ret, struct qs_error *err);

/* Which of them hold something else than swap, as qs_format_preview(). */
int qs_swap_preview(const struct qs_env *env, const char *device,
		    const struct qs_swap_options *options, struct qs_outcomes *ret,
		    struct qs_error *err);

/*
 * The state of devices; COUNT 0: every LUKS device and every device of ours.
 * Never writes. outcome.details: "state" ("open", "closed", "damaged",
 * "absent", "not-luks", "formatting", "destroying", "restoring"; of a swap "swap", "swap-off"),
 * "version", "cipher", "key_size", "sector_size", "metadata_size", "flags", "keyslots" (array of
 * number, kdf, memory, opened_by), "backup" (time, age_seconds, sequence, versions, agrees,
 * damaged_keyslots), "crypttab" (line, agrees, problem), "driver", "warnings".
 */
int qs_status(const struct qs_env *env, const char *const *devices, size_t count,
	      struct qs_outcomes *ret, struct qs_error *err);

#endif
