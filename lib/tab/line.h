/*
 * Lines of fields, as in crypttab and fstab. No I/O.
 */
#ifndef QS_TAB_LINE_H
#define QS_TAB_LINE_H

#include <stdbool.h>
#include <stddef.h>

struct qs_tab_field {
	const char *start; /* in the line; not NUL-terminated */
	size_t size;
};

/*
 * True for all that systemd or the C library takes for white space, the newline
 * too; Debian's scripts know only blank and tab inside a line.
 */
bool qs_tab_is_space(char c);

/*
 * Split a line (SIZE bytes, with or without its newline) at white space into at
 * most MAX fields.
 * Returns their number; 0 for a blank line and for a comment.
 */
size_t qs_tab_split(const char *line, size_t size, struct qs_tab_field *fields, size_t max);

/*
 * Walk through SIZE bytes of text line by line: *at begins as 0. Returns the
 * size of the next line with its newline, 0 at the end; *ret_line points to it.
 */
size_t qs_tab_next(const char *text, size_t size, size_t *at, const char **ret_line);

#endif
