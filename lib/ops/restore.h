/*
 * The parts of cryptrestore: which header it would be and whether it may be
 * (restore-plan.c, restore-check.c), what that changes (restore-describe.c), and
 * doing it (restore.c).
 */
#ifndef QS_OPS_RESTORE_H
#define QS_OPS_RESTORE_H

#include "luks/backup.h"
#include "ops/internal.h"

enum qs_restore_source {
	QS_RESTORE_BACKUP, /* a backup of ours */
	QS_RESTORE_FILE,   /* one that was named */
	QS_RESTORE_COPY,   /* the device's own header, made whole */
};

/* A header and where it is from. */
struct qs_restore_backup {
	char *path; /* as a person calls it */
	time_t time;
	struct qs_header_image image;
	struct qs_luks_header h;
};

void qs_restore_backup_done(struct qs_restore_backup *b); /* also a QS_AUTO releaser */

/* One device on its way; filled by the parent, used by its worker. */
struct qs_restore_target {
	struct qs_device *dev;
	int fd;   /* of the device, for reading */
	int lock; /* -1 in a preview */
	char *link, *name;
	bool mapped; /* it is open, from a header with the UUID that is restored */
	bool begun;  /* the journal says so, and FROM is what it was to be */

	struct qs_header_image
		present;           /* the device's own header, made whole; empty: none is left */
	struct qs_luks_header has; /* its header */
	bool intact;               /* nothing was wrong with it */
	char *damage;              /* what was, or NULL */

	struct qs_restore_backup best; /* the newest good backup; path NULL: none */
	struct qs_restore_backup from; /* what is to be written; path NULL for QS_RESTORE_COPY */
	enum qs_restore_source source;
	uint32_t repaired; /* keyslots whose damaged key material is replaced */
	bool same;         /* the device holds it all already */
};

struct qs_restore_run {
	const struct qs_env *env;
	const struct qs_restore_options *options;
	struct qs_outcomes *outcomes; /* one */
	struct qs_restore_target target;
	bool preview;
};

/*
 * In the parent: find the device, choose the header, and refuse what must not be
 * written. The error goes to the outcome.
 */
int qs_restore_prepare(struct qs_restore_run *run, struct qs_outcome *o);

/* Refuse what no honest tool wrote, whatever is forced. */
int qs_restore_check_hostile(const struct qs_env *env, const struct qs_luks_header *h,
			     struct qs_error *err);

/* All refusals. Notes in the target whether the device is open. */
int qs_restore_check(struct qs_restore_run *run, struct qs_error *err);

void qs_restore_target_done(struct qs_restore_target *t);

/* Put what would change into O: note and details. */
void qs_restore_describe(const struct qs_restore_target *t, struct qs_outcome *o);

#endif
