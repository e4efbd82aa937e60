/*
 * The crypttab editor. The file is shared with the administrator: one line of
 * ours is added, replaced or removed, every other byte stays: comments, blanks,
 * column spacing, CRLF, NULs in comments and all. (A last line without a newline
 * gets one when ours follows it.)
 *
 * systemd and Debian's scripts read the same file differently (`\040`, two-field
 * lines, duplicate names, CRLF, comments behind the options, a missing last
 * newline), so lines that we write have exactly four fields, only characters
 * that both take literally, and end with a newline: see qs_crypttab_check().
 */
#ifndef QS_TAB_CRYPTTAB_H
#define QS_TAB_CRYPTTAB_H

#include <stdbool.h>
#include <stddef.h>

#include "base/env.h"
#include "base/error.h"

/*
 * Fields as they stand in the file, undecoded; strings owned by the table, valid
 * until its next change. Absent ones are NULL: only the name is always there.
 */
struct qs_crypttab_entry {
	const char *name;
	const char *device;
	const char *key;
	const char *options;
	unsigned line; /* from 1 */
};

struct qs_crypttab;

/*
 * Parse SIZE bytes. Fails (QS_E_FAILED, line named) only on what no reader
 * could use and no edit could keep safe: a NUL byte in a line that is an entry,
 * or more than QS_TABLE_MAX (tab/table.h) bytes. No I/O: this is the fuzzer's entry.
 */
int qs_crypttab_parse(const char *text, size_t size, struct qs_crypttab **ret,
		      struct qs_error *err);

/* /etc/crypttab below the root prefix; an absent file is an empty table. Never writes. */
int qs_crypttab_load(const struct qs_env *env, struct qs_crypttab **ret, struct qs_error *err);

/* The same for the version before the last change, /etc/crypttab.qs-bak. */
int qs_crypttab_load_last(const struct qs_env *env, struct qs_crypttab **ret, struct qs_error *err);

size_t qs_crypttab_count(const struct qs_crypttab *tab);
const struct qs_crypttab_entry *qs_crypttab_get(const struct qs_crypttab *tab, size_t i);

/* The first entry with this name, or NULL. */
const struct qs_crypttab_entry *qs_crypttab_find(const struct qs_crypttab *tab, const char *name);

/*
 * Check that both judges read the four fields as we mean them: non-empty, no
 * white space, backslash, quote, '$' (systemd expands it), control or non-ASCII
 * bytes; in the name no '#' first and only characters that device-mapper keeps;
 * the device a normal path or a tag, the key a normal path or "none", no "-";
 * options other than "-", "none" or commas alone; no "FILE:DEVICE" as key or
 * header= (systemd's notation). Returns 0, or QS_E_FAILED naming field and byte.
 */
int qs_crypttab_check(const char *name, const char *device, const char *key, const char *options,
		      struct qs_error *err);

/* True for options that say nothing ("-", "none", commas alone), which Debian takes literally. */
bool qs_crypttab_no_options(const char *options);

/* Is WORD, alone or as "WORD=value", in a list with commas (NULL: an empty one)? Also for fstab. */
bool qs_crypttab_has_option(const char *options, const char *word);

/* The value of "WORD=value" in such a list, malloc'ed; NULL when there is none. */
char *qs_crypttab_option(const char *options, const char *word);

/* A swap with a new random key at each start, ours or somebody else's. */
bool qs_crypttab_is_swap(const struct qs_crypttab_entry *e);

/*
 * Add the line `NAME  DEVICE  KEY  OPTIONS`, or change the existing line of that
 * name in place, with its spacing; text behind the options moves to a comment
 * above it. OPTIONS NULL: keep the options that the line has (none, or a new
 * line: "luks"). A line that already says so to both judges is left byte for byte.
 * Returns 1 when the text changed, 0 when not; duplicate names are QS_E_FAILED.
 */
int qs_crypttab_set(struct qs_crypttab *tab, const char *name, const char *device, const char *key,
		    const char *options, struct qs_error *err);

/* In the third field: there is no key file. */
#define QS_CRYPTTAB_NO_KEY "none"

/* Does the third field KEY say so? "-" does, too, though we do not write it. */
bool qs_crypttab_no_key(const char *key);

/*
 * The same for entry I, whatever its name: for whoever puts a table in order in which names
 * may be wrong or double. Its options stay; the new name must not be another entry's.
 */
int qs_crypttab_change(struct qs_crypttab *tab, size_t i, const char *name, const char *device,
		       const char *key, struct qs_error *err);

/* Remove the line of entry I; the entries behind it move up. */
void qs_crypttab_remove_at(struct qs_crypttab *tab, size_t i);

/* Remove all lines of that name. Returns 1 changed, 0 there was none. */
int qs_crypttab_remove(struct qs_crypttab *tab, const char *name);

/* The text as it would be written; owned by the table, valid until the next change. */
const char *qs_crypttab_text(const struct qs_crypttab *tab, size_t *ret_size);

/*
 * Write it to /etc/crypttab, durably, keeping the last version as
 * crypttab.qs-bak. The caller holds the tables' lock (qs_tab_lock) since before
 * qs_crypttab_load().
 */
int qs_crypttab_save(const struct qs_env *env, const struct qs_crypttab *tab, struct qs_error *err);

/* The lock /run/qs-util/lock of all table writers; waits config.lock_wait_s. Returns a descriptor.
 */
int qs_tab_lock(const struct qs_env *env, struct qs_error *err);

void qs_crypttab_free(struct qs_crypttab *tab);
void qs_auto_crypttab(struct qs_crypttab **tab); /* QS_AUTO releaser */

#endif
