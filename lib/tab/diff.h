/*
 * The difference between two versions of a table, as `diff -u` shows it and
 * patch(1) takes it. No I/O.
 */
#ifndef QS_TAB_DIFF_H
#define QS_TAB_DIFF_H

#include <stddef.h>

/*
 * A unified diff with three lines of context; PATH stands in its head. malloc'ed,
 * never NULL (aborts when memory is out), "" when both are the same. It is right
 * but not always the shortest possible. A NUL byte shows as '?': text with one
 * can be shown, not patched.
 */
char *qs_diff(const char *path, const char *old, size_t old_size, const char *new, size_t new_size);

#endif
