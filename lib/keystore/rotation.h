/*
 * Rotation: a new generation of the KEK, and every device's key wrapped by it. No data is
 * encrypted anew and no keyslot changes: the device key is the same, in another wrapping.
 *
 *   step                                 left behind                     second run
 *   keystore.json "distributing-kek"     nothing is wrapped by it        goes on
 *   KEK of the target, durable, proven     as before                       takes it as it is
 *   keystore.json "rewrapping-keys"      both generations open           goes on
 *   a device's token, read again           as before; it names the target  skips it
 *   the same token in its backup           as before                       skips it
 *   KEKs erased that nothing names       they are still listed           erases them again
 *   keystore.json idle, without these    finished                        a new rotation
 *
 * A migration is the same with a target that another provider has; generations stay where they were
 * made. If its KEK cannot be made or proven, the migration is taken back:
 *
 *   nothing names the target, it is erased if that is possible; keystore.json idle, as before
 *
 * and so is one that was cut off there, when a migration elsewhere is asked for.
 *
 * The generation before the current one is always kept. An older one goes when no device
 * that is known and no header backup names it: a device that is away keeps it alive by its
 * backup, and is finished when it returns. As long as something cannot be looked at, none goes.
 *
 * This file decides and knows nothing of devices: the same code runs on a fleet in memory
 * in tests/unit/test-rotation.c, which tries all orders of crashes, and on disks in
 * ops/keystore-rotate.c.
 */
#ifndef QS_KEYSTORE_ROTATION_H
#define QS_KEYSTORE_ROTATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/error.h"
#include "keystore/keystore.h"

/* What is known of devices and backups; numbers of generations that somebody names. */
struct qs_rotation_view {
	uint32_t named[QS_KEYSTORE_GENERATIONS + 1];
	size_t named_count;
	size_t waiting;  /* devices that are present, but not at the generation that wraps now, or
			    their backup not */
	uint32_t target; /* where those belong; 0: not all of them to one, or it is not known */
	bool unknown;    /* something could not be looked at, and may name any generation */
};

/* Note that something names GENERATION. A number that finds no room makes the view unknown. */
void qs_rotation_view_add(struct qs_rotation_view *view, uint32_t generation);

/* Note that a device waits to be brought to generation TARGET; 0: it is not known to which. */
void qs_rotation_view_wait(struct qs_rotation_view *view, uint32_t target);

/*
 * The oldest generation that neither wraps, nor is the one before that, nor is named; of a key for
 * some devices only one that is not named, unless it wraps and an older one of its line is. 0:
 * none.
 */
uint32_t qs_rotation_retirable(const struct qs_keystore *ks, const struct qs_rotation_view *view);

/* Has KS room for a generation NUMBER? QS_E_FORBIDDEN. */
int qs_rotation_check_room(const struct qs_keystore *ks, uint32_t number, struct qs_error *err);

/* Take generation NUMBER out of the list. */
void qs_rotation_drop(struct qs_keystore *ks, uint32_t number);

enum qs_rotation_step {
	QS_ROTATION_DONE,   /* nothing is left to do */
	QS_ROTATION_BEGIN,  /* write down that the target is made */
	QS_ROTATION_MAKE,   /* make and prove it, write that down */
	QS_ROTATION_REWRAP, /* bring devices to the generation that wraps now */
	QS_ROTATION_RETIRE, /* erase the generation *ret */
	QS_ROTATION_FINISH, /* write down that all is done */
};

/*
 * What comes next. ASKED: a new rotation is wanted. VIEW may be NULL where it does not
 * matter: not after QS_ROTATION_MAKE.
 */
enum qs_rotation_step qs_rotation_next(const struct qs_keystore *ks,
				       const struct qs_rotation_view *view, bool asked,
				       uint32_t *ret);

/* What a rotation does to the world. Each returns 0 or -errno, and then the run ends there. */
struct qs_rotation_functions {
	int (*save)(void *cookie, const struct qs_keystore *ks, struct qs_error *err);
	/* Make the KEK, or take what is there, and prove it. */
	int (*make)(void *cookie, const struct qs_keystore *ks, uint32_t number,
		    struct qs_error *err);
	/* Look at every device and backup. */
	int (*look)(void *cookie, const struct qs_keystore *ks, struct qs_rotation_view *ret,
		    struct qs_error *err);
	/* Bring the devices that were last looked at to the generation that wraps now. */
	int (*rewrap)(void *cookie, const struct qs_keystore *ks, struct qs_error *err);
	int (*retire)(void *cookie, const struct qs_keystore *ks, uint32_t number,
		      struct qs_error *err);
};

/* What a new rotation is to be. */
struct qs_rotation_wish {
	const char *provider; /* of the target */
	uint32_t pcrs;        /* what it is bound to, for a migration into the TPM; else 0 */
	bool pin;
};

/*
 * Run the rotation to its end, from wherever KS is. ASKED: begin this one if it is idle, or if a
 * migration elsewhere has made nothing yet; NULL: begin none. KS is kept as it is written. Returns
 * 0: it is idle and all that is present is at the current generation; QS_E_PARTIAL: some devices
 * are not; QS_E_FORBIDDEN: another migration is further than that.
 */
int qs_rotation_run(struct qs_keystore *ks, const struct qs_rotation_functions *functions,
		    void *cookie, const struct qs_rotation_wish *asked, struct qs_error *err);

#endif
