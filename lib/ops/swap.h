/*
 * cryptswap in pieces: which devices (swap-find.c), what is there and what has to be
 * done (swap-examine.c), tables (swap-tables.c), hibernation (swap-resume.c), and
 * the steps (swap.c).
 */
#ifndef QS_OPS_SWAP_H
#define QS_OPS_SWAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"
#include "base/error.h"
#include "device/device.h"
#include "device/swaps.h"
#include "ops/ops.h"

/* One device on its way. What nobody knows is NULL. */
struct qs_swap_target {
	struct qs_device *dev;
	int lock;
	char *name, *link, *mapper; /* of the crypttab line; /dev/mapper/NAME */
	char *uuid, *label;         /* of the plain swap area, or as the journal remembers it */
	char *fstab;                /* the journal: first field of its line in fstab */
	char *holds;                /* what is on it that is no swap: "ext4" */
	char *options;              /* of its line in fstab */
	bool swap_header;           /* a plain swap area is on it */
	bool active;                /* it is swap without encryption now */
	int priority;               /* of that */
	uint64_t used;              /* bytes of that */
	bool has_line;              /* crypttab has a swap line for it */
	bool mapped;                /* and that mapping is there */
	bool encrypted_active;      /* and is swap now */
	bool begun;                 /* an earlier run was interrupted */
	/* What has to be done: */
	bool wipe, tables, activate;
	/* Of the crypttab line: */
	unsigned sector_size; /* bytes */
	bool discards;
	bool standard; /* cipher, key size and place are ours: --now can map it */
};

/* All NULL, no lock. */
void qs_swap_target_init(struct qs_swap_target *t);
void qs_swap_target_done(struct qs_swap_target *t);

/* ---- swap-find.c ---- */

/*
 * An outcome for each swap: of /proc/swaps (but with a root prefix), of fstab, and
 * those that an interrupted run left. zram is left out; one device is listed once.
 */
int qs_swap_list_all(const struct qs_env *env, struct qs_outcomes *ret, struct qs_error *err);

/*
 * The device that WORD means as swap: below one of our own mappings, or in use as
 * swap through somebody else's. Returns 1 when it is encrypted already by a mapping
 * that is none of ours: its name is malloc'ed in *ret_by, and *ret is that device.
 */
int qs_swap_find(const struct qs_env *env, const char *word, struct qs_device **ret, char **ret_by,
		 struct qs_error *err);

/* Does SPEC, from a table or a resume= setting, mean the target? */
bool qs_swap_is_named(const struct qs_env *env, const struct qs_swap_target *t, const char *spec);

/* ---- swap-examine.c ---- */

/*
 * Look at everything and decide, changing nothing (but a mapping without a table that
 * an interrupted run left is removed); LOOK: not even that, and without taking the
 * lock. Every refusal comes from here.
 */
int qs_swap_examine(const struct qs_env *env, const struct qs_swap_options *options, bool look,
		    struct qs_swap_target *t, struct qs_error *err);

/* ---- swap-tables.c ---- */

enum { QS_SWAP_RESUME, QS_SWAP_CRYPTTAB, QS_SWAP_FSTAB, QS_SWAP_FILES };

struct qs_swap_file {
	char *path; /* real */
	char *before, *after;
	size_t before_size, after_size;
	bool existed, changed, written;
};

/* The three files, read and edited in memory. */
struct qs_swap_tables {
	struct qs_crypttab *crypttab;
	struct qs_fstab *fstab;
	struct qs_swap_file files[QS_SWAP_FILES];
	char *source; /* what fstab's line named before, or NULL */
};

/*
 * Read the files and edit them in memory for T. Sets what T knows only from
 * them: options, sector_size, discards.
 */
int qs_swap_tables_edit(const struct qs_env *env, struct qs_swap_target *t,
			struct qs_swap_tables *ret, struct qs_error *err);
bool qs_swap_tables_changed(const struct qs_swap_tables *tables);

/*
 * Write what changed: first RESUME, whose absence harms nothing, then crypttab,
 * then fstab, since a mapping without its fstab line boots and the reverse waits.
 * What an interrupted run may not have synced is synced. The caller holds the
 * tables' lock since before qs_swap_tables_edit().
 */
int qs_swap_tables_write(const struct qs_env *env, struct qs_swap_tables *tables,
			 struct qs_error *err);

/* Put back what was written. A file that somebody changed since is left, and is an error. */
int qs_swap_tables_undo(struct qs_swap_tables *tables, struct qs_error *err);
void qs_swap_tables_done(struct qs_swap_tables *tables); /* also a QS_AUTO releaser */

/* ---- swap-resume.c ---- */

#define QS_RESUME_FILE "/etc/initramfs-tools/conf.d/resume"

/* Refuse (QS_E_REFUSED) a swap that the system hibernates to; the sentence says where that stands.
 */
int qs_swap_check_hibernation(const struct qs_env *env, const struct qs_swap_target *t,
			      struct qs_error *err);

/* TEXT of QS_RESUME_FILE without a setting that names the target, malloc'ed. */
char *qs_swap_resume_edit(const struct qs_env *env, const struct qs_swap_target *t,
			  const char *text, size_t size, size_t *ret_size);

#endif
