/*
 * /etc/fstab, read only: which lines name a device. Resolving tags and links
 * to a device is the caller's work (lib/device).
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

#endif
