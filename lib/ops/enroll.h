/*
 * The parts of cryptenroll: a method for each kind of thing that can be added
 * (enroll-methods.c, enroll-rekey.c, enroll-tpm2.c, enroll-keystore.c), what they share (enroll.c),
 * revoking (enroll-wipe.c), and which devices it is done to (enroll-plan.c).
 */
#ifndef QS_OPS_ENROLL_H
#define QS_OPS_ENROLL_H

#include "luks/slots.h"
#include "ops/internal.h"
#include "ops/journal.h"
#include "ops/open.h"

struct qs_enroll_method;

/* One device on its way: prepared in the parent, changed in a worker. */
struct qs_enroll {
	const struct qs_env *env;
	const struct qs_enroll_options *options;
	const struct qs_enroll_method *method; /* NULL: only revoke */
	struct qs_device *dev;
	char *name; /* of its backup, its journal, its usual key; the request's is the mapping's */
	struct qs_open_request request;   /* link and the secrets that unlock it */
	const struct qs_tpm2_key *sealed; /* what the TPM made for it; the batch's; or NULL */
	struct qs_journal pending;        /* an enrolment of ours that was cut off; op "" if none */
	struct qs_secret secret;          /* what shall open the new keyslot */
	json_t *token;                    /* what is written with it; may be NULL */
	char *file;                       /* logical path of the key file it is about, or NULL */
	int lock;

	/* In the worker only: */
	struct qs_worker *worker;
	int fd, disk;          /* the device, and the whole disk's lock */
	struct qs_slots slots; /* its header */
	struct qs_secret key;  /* what unlocked it */
	int by;                /* the keyslot that it opens */
	int slot;              /* the new keyslot; -1 until it is there */
	bool made;             /* secret and token are */
	bool found;            /* the secret opened it before */
	bool touched;          /* the device was, or may have been, written to */
	char *drop;            /* salt of a keyslot that goes when the new one is safe, or NULL */
	unsigned wiped;        /* keyslots that went, as bits */
	json_t *result;
};

/* Some of them, changed in the same way. */
struct qs_enroll_batch {
	const struct qs_env *env;
	const struct qs_enroll_options *options;
	const struct qs_enroll_method *method; /* of every item */
	struct qs_enroll *items;
	size_t count;
	struct qs_outcomes *outcomes; /* one per item */
	struct qs_tpm2_keys unlock;   /* what the TPM gave to unlock them */
	struct qs_tpm2_keys sealed;   /* what it made for them */
	struct qs_secret asked;       /* the passphrase that unlocks them */
	int lock;                     /* of the keystore, or -1 */
};

/*
 * A kind of thing that opens a device. Hooks may be NULL. What has to survive a
 * crash is written down (qs_enroll_note) before it is needed.
 */
struct qs_enroll_method {
	const char *name;  /* in struct qs_enroll_options */
	const char *kind;  /* in JSON and --list: lib/luks/kind.h */
	const char *pbkdf; /* NULL: its secrets have full entropy */
	const char *op;    /* in the journal; NULL: needs none */
	/* In the parent: refuse, and make what the parent must know. */
	int (*prepare)(struct qs_enroll *e, struct qs_error *err);
	/* In the parent, all prepared: make what is made for all at once. */
	int (*together)(struct qs_enroll_batch *b, struct qs_error *err);
	/* In the worker, the device unlocked and backed up: sets secret and token. */
	int (*make)(struct qs_enroll *e, struct qs_error *err);
	/* In the worker: the new slot is in memory only, and this is its salt. */
	int (*before)(struct qs_enroll *e, const char *salt, struct qs_error *err);
	/* In the worker, after a failure that left the device as it was: take back what was made.
	 */
	int (*undo)(struct qs_enroll *e);
	/* In the worker: the slot is on disk, proven and backed up. */
	int (*settle)(struct qs_enroll *e, struct qs_error *err);
	/* In the worker: the old slot is gone, too. */
	int (*close)(struct qs_enroll *e, struct qs_error *err);
	/* In the parent: all is done. */
	int (*finish)(struct qs_enroll *e, struct qs_error *err);
};

extern const struct qs_enroll_method qs_enroll_key_file;
extern const struct qs_enroll_method qs_enroll_passphrase;
extern const struct qs_enroll_method qs_enroll_recovery;
extern const struct qs_enroll_method qs_enroll_new_key;
extern const struct qs_enroll_method qs_enroll_tpm2;
extern const struct qs_enroll_method qs_enroll_keystore;
extern const struct qs_enroll_method qs_enroll_keystore_move;

/* qs_job: item INDEX of the batch COOKIE. */
int qs_enroll_job(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		  struct qs_error *err);

/* Write the journal: METHOD's op, the key file KEY_FILE and the slot with SALT (each may be NULL).
 */
int qs_enroll_note(const struct qs_enroll *e, const char *key_file, const char *salt,
		   struct qs_error *err);

/*
 * Is this logical path a file (or anything else) already? Returns 1 yes, 0 no; one that
 * cannot be looked for must not be taken for absent.
 */
int qs_enroll_exists(const struct qs_enroll *e, const char *logical, struct qs_error *err);

/*
 * Unlock the header by the request's secrets, or by what unlocked it before, with
 * a keyslot that is not in SKIP (bits). Sets key and by.
 */
int qs_enroll_unlock(struct qs_enroll *e, uint32_t skip, struct qs_error *err);

/* The keyslot among those not in SKIP that SECRET opens; -EPERM (QS_E_NO_KEY): none. */
int qs_enroll_try(const struct qs_enroll *e, const struct qs_secret *secret, uint32_t skip,
		  struct qs_error *err);

/* Makes its change in e->slots. Called again after another program changed the header. */
typedef int qs_enroll_change(struct qs_enroll *e, void *cookie, struct qs_error *err);

/*
 * Load the header, back it up, CHANGE it in memory, write it, read it again and
 * compare. The backup of the new one is up to the caller (qs_enroll_back_up).
 */
int qs_enroll_apply(struct qs_enroll *e, qs_enroll_change *change, void *cookie,
		    struct qs_error *err);

/* Make what the device holds now the current backup. */
int qs_enroll_back_up(const struct qs_enroll *e, struct qs_error *err);

/*
 * *ret_salt: of the slot that the key file e->file opens, owned by the header; NULL without the
 * file. One that opens nothing may be another device's: QS_E_NO_KEY.
 */
int qs_enroll_key_slot(struct qs_enroll *e, const char **ret_salt, struct qs_error *err);

/* Revoke the slot with the salt e->drop, if it is there. */
int qs_enroll_drop(struct qs_enroll *e, struct qs_error *err);

/* Revoke what the words in options->wipe name; the new keyslot is never among it. */
int qs_enroll_wipe(struct qs_enroll *e, struct qs_error *err);

/* Check these words before anything is changed. */
int qs_enroll_check_words(const char *words, struct qs_error *err);

/* Refuse, unless forced, when the TPM opens all of these keyslots (bits) of e->slots. */
int qs_enroll_check_others(const struct qs_enroll *e, uint32_t slots, struct qs_error *err);

/* Remove old backups that hold revoked keys, and say so in the result. */
int qs_enroll_purge(struct qs_enroll *e, struct qs_error *err);

#endif
