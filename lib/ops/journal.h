/*
 * What has been begun on a device and not finished: /etc/cryptconf/pending/NAME.json.
 *
 * Written durably before a format, a destroy or a restore changes anything, removed as the
 * last step. After a crash it tells the second run of the same command that the
 * half-written device is ours to go on with.
 */
#ifndef QS_OPS_JOURNAL_H
#define QS_OPS_JOURNAL_H

#include <stdbool.h>

#include "base/env.h"
#include "base/error.h"
#include "base/sum.h"

#define QS_PENDING_DIR QS_CONF_DIR "/pending"

struct qs_journal {
	char op[16]; /* "format", "destroy", "restore", "new-key", "recovery-key", "rewrap", "swap";
			"" when there is   none */
	char uuid[40]; /* of the LUKS header that is being made, destroyed, restored; may be "" */
	char image[QS_SUM_L]; /* SHA-256 of the header that is being restored, as hex, or "" */
	char *link;           /* the device's persistent link */
	char *key_file;       /* the key the header gets; NULL at the others */
	char *salt;           /* of a keyslot that goes when the work is finished; or NULL */
	char *fstab;          /* of a swap: the first field of its line in fstab, or NULL */
};

/* Returns 1 found, 0 none; a file that cannot be understood is an error. */
int qs_journal_read(const struct qs_env *env, const char *name, struct qs_journal *ret,
		    struct qs_error *err);

int qs_journal_write(const struct qs_env *env, const char *name, const struct qs_journal *journal,
		     struct qs_error *err);

int qs_journal_remove(const struct qs_env *env, const char *name, struct qs_error *err);

/* For many at once: each is dropped, and gone for good when qs_journal_sync() says so. */
int qs_journal_drop(const struct qs_env *env, const char *name, struct qs_error *err);
int qs_journal_sync(const struct qs_env *env, struct qs_error *err);

/* The command line that finishes the work on DEVICE, for a sentence: "qs-util cryptformat DEVICE";
 * malloc'ed. */
char *qs_journal_command(const struct qs_journal *journal, const char *device);

void qs_journal_done(struct qs_journal *journal); /* also a QS_AUTO releaser */

#endif
