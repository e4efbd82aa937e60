/*
 * The text of crypttab or fstab with an index of its entries: what both editors
 * do with it. Private to lib/tab. No I/O but for the last two functions.
 *
 * The text is never changed in place: an edit makes a new one, which is parsed
 * again. That is linear, as finding a line is, and leaves no index to keep right.
 */
#ifndef QS_TAB_TABLE_H
#define QS_TAB_TABLE_H

#include <stddef.h>

#include "base/env.h"
#include "base/error.h"

#define QS_TABLE_FIELDS 6
#define QS_TABLE_MAX (16U << 20) /* bytes */
#define QS_TABLE_LAST ".qs-bak"  /* the end of the name of the version before the last change */

/* A line that is an entry. */
struct qs_table_line {
	const char *fields[QS_TABLE_FIELDS]; /* undecoded, NULL behind the last that is there */
	const char *start;                   /* in the text */
	size_t size;                         /* with its newline */
	unsigned number;                     /* from 1 */
};

struct qs_table {
	char *text; /* with a NUL behind it that is not counted */
	size_t size;
	char *words; /* a copy of text with a NUL behind every field */
	struct qs_table_line *lines;
	size_t count, room;
	size_t fields; /* that an entry has at most */
};

/*
 * Index TEXT (malloc'ed, with a NUL behind it), which the empty *TABLE takes over,
 * on failure too. Fails (QS_E_FAILED) on more than QS_TABLE_MAX bytes and on a
 * NUL byte in an entry, and names the line; *table is then empty.
 */
int qs_table_take(struct qs_table *table, char *text, size_t size, size_t fields,
		  struct qs_error *err);

/* The same for a copy of TEXT. */
int qs_table_parse(struct qs_table *table, const char *text, size_t size, size_t fields,
		   struct qs_error *err);

/*
 * Put NEW in place of DROP bytes at AT. Returns 1, or 0 when that changes nothing.
 * On failure the table stays as it was.
 */
int qs_table_splice(struct qs_table *table, size_t at, size_t drop, const char *new,
		    struct qs_error *err);

/* Add LINE, which has its newline, at the end; a last line without one gets one before. */
int qs_table_append(struct qs_table *table, const char *line, struct qs_error *err);

void qs_table_done(struct qs_table *table);

/* Index a file below the root prefix; an absent one is empty. Never writes. */
int qs_table_load(const struct qs_env *env, const char *logical, struct qs_table *table,
		  size_t fields, struct qs_error *err);

/* Write it durably to LOGICAL, keeping the last version as LOGICAL.qs-bak. */
int qs_table_save(const struct qs_env *env, const char *logical, const struct qs_table *table,
		  struct qs_error *err);

#endif
