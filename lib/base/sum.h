/*
 * SHA-256 sums: of anything, and of small records in JSON, whose member "sum" tells a flipped
 * bit that leaves good JSON (a digit of a date). It keeps out no one who can compute a sum.
 */
#ifndef QS_BASE_SUM_H
#define QS_BASE_SUM_H

#include <stddef.h>

#include <jansson.h>

#include "base/error.h"

#define QS_SUM_L 65 /* 64 lower-case hexadecimal digits and a NUL */

/* The SHA-256 sum of DATA as text. */
void qs_sum(const void *data, size_t size, char ret[static QS_SUM_L]);

/*
 * The text of OBJECT (may be NULL), which gets the member "sum": that of all its other members,
 * compact and sorted by name. malloc'ed; NULL: no object, or no memory.
 */
char *qs_sum_print(json_t *object);

/*
 * Does "sum" fit? Without one, as older files are, or for what is no object: 0.
 * QS_E_CONFIG: it does not, or is no text; the sentence names PATH and the ways out.
 */
int qs_sum_check(const json_t *object, const char *path, struct qs_error *err);

/* How many members OBJECT has beside "sum". */
size_t qs_sum_others(const json_t *object);

#endif
