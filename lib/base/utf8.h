/*
 * Text of unknown origin (models, labels, file names) made safe to show: a
 * disk's model string may hold escape sequences for a terminal, or bytes that
 * are no UTF-8 and that JSON cannot carry.
 */
#ifndef QS_BASE_UTF8_H
#define QS_BASE_UTF8_H

#include <jansson.h>

/*
 * A copy in which control characters (C0, DEL, C1), marks that change the
 * direction of writing, and bytes that are no UTF-8 stand as \xNN.
 * malloc'ed, never NULL (aborts when memory is out); NULL gives "".
 */
char *qs_utf8_printable(const char *s);

/* A JSON string of S; bytes that are no UTF-8 stand as \xNN. NULL gives NULL. */
json_t *qs_utf8_json(const char *s);

#endif
