/*
 * /etc/fstab: which lines name a device, and an editor for one line of ours.
 * Resolving tags and links to a device is the caller's work (lib/device).
 *
 * The editor keeps what the crypttab editor keeps (every other byte, and mode,
 * owner and link of the file), and of the line that it changes everything but
 * the first field: a swap keeps its priority, its options, and its comment.
 */
#ifndef QS_TAB_FSTAB_H
#define QS_TAB_FSTAB_H

#include <stddef.h>

#include "base/env.h"
#include "base/error.h"

/* Escapes (\040) are decoded. Strings live until the callback returns. */
struct qs_fstab_entry {
	const char *source; /* "/dev/disk/by-id/...", "UUID=..." (quotes taken off), "tmpfs" */
	const char *target; /* as are the next two: "" when the line ends before it */
	const char *type;
	const char *options;
	unsigned line; /* from 1 */
};

/* A result other than 0 ends the walk and is returned by it. */
typedef int qs_fstab_visit(const struct qs_fstab_entry *entry, void *cookie);

/*
 * Call VISIT for every entry of /etc/fstab below the root prefix, in order. An
 * absent file has no entries. Lines that mount(8) would reject are visited as
 * far as they can be read: for the question "does fstab name this disk?" a
 * broken line still counts.
 * Returns 0, what VISIT returned, or -errno when the file cannot be read.
 */
int qs_fstab_each(const struct qs_env *env, qs_fstab_visit *visit, void *cookie,
		  struct qs_error *err);

/* The same for SIZE bytes of text; no I/O. */
int qs_fstab_each_text(const char *text, size_t size, qs_fstab_visit *visit, void *cookie);

struct qs_fstab;

/*
 * For editing, stricter: a NUL byte in an entry and more than QS_TABLE_MAX
 * (tab/table.h) bytes are QS_E_FAILED, with the line. No I/O: the fuzzer's entry.
 */
int qs_fstab_parse(const char *text, size_t size, struct qs_fstab **ret, struct qs_error *err);

/* /etc/fstab below the root prefix; an absent file is an empty table. Never writes. */
int qs_fstab_load(const struct qs_env *env, struct qs_fstab **ret, struct qs_error *err);

size_t qs_fstab_count(const struct qs_fstab *tab);

/* Entry I, decoded; valid until the table's next change. */
const struct qs_fstab_entry *qs_fstab_get(const struct qs_fstab *tab, size_t i);

/*
 * Let entry I name SOURCE, an absolute path that needs no escapes. Fails
 * (QS_E_FAILED) where the readers of fstab do not agree on what the first field
 * is: only blanks and tabs may stand around it. Returns 1 changed, 0 it did so
 * already.
 */
int qs_fstab_set_source(struct qs_fstab *tab, size_t i, const char *source, struct qs_error *err);

/* Add the line `SOURCE  none  swap  OPTIONS  0  0` at the end. Returns 1. */
int qs_fstab_add_swap(struct qs_fstab *tab, const char *source, const char *options,
		      struct qs_error *err);

/* The text as it would be written; owned by the table, valid until the next change. */
const char *qs_fstab_text(const struct qs_fstab *tab, size_t *ret_size);

/*
 * Write it to /etc/fstab, durably, keeping the last version as fstab.qs-bak. The
 * caller holds the tables' lock (qs_tab_lock) since before qs_fstab_load().
 */
int qs_fstab_save(const struct qs_env *env, const struct qs_fstab *tab, struct qs_error *err);

void qs_fstab_free(struct qs_fstab *tab);
void qs_auto_fstab(struct qs_fstab **tab); /* QS_AUTO releaser */

#endif
