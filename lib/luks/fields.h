/*
 * Typed reads from LUKS2 metadata (JSON). The text is foreign input: a field
 * that is missing, of another type or out of range is told apart from a value,
 * and what goes into a sentence is made printable first.
 */
#ifndef QS_LUKS_FIELDS_H
#define QS_LUKS_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

/* The string, or NULL. Owned by OBJECT. */
const char *qs_fields_text(const json_t *object, const char *name);

/* A number that LUKS2 keeps as a decimal string because it may need 64 bits ("offset", "size"). */
bool qs_fields_decimal(const json_t *object, const char *name, uint64_t *ret);

/* A JSON integer that is not negative ("iterations", "key_size"). */
bool qs_fields_number(const json_t *object, const char *name, uint64_t *ret);

/* ARRAY is an array of strings and WORD is one of them. */
bool qs_fields_lists(const json_t *array, const char *word);

/* The number that NUMBER spells as libcryptsetup does, 0 to 31, or -1. */
int qs_fields_slot(const char *number);

/* Segment 0, the only one that a volume at rest has; NULL if absent. */
const json_t *qs_fields_segment(const json_t *json);

/* The digest of the key of segment 0; NULL if there is none or more than one. */
const json_t *qs_fields_digest(const json_t *json);

/*
 * Copy at most LENGTH bytes of S up to its NUL into RET (SIZE bytes), with '?'
 * for everything that is not printable ASCII: a header must not send control
 * sequences to a terminal. Returns RET.
 */
const char *qs_fields_printable(char *ret, size_t size, const char *s, size_t length);

#endif
