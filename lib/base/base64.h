/*
 * Base64 as tokens and TPM secrets use it: the standard alphabet with padding,
 * one line, nothing else (RFC 4648, chapter 4).
 */
#ifndef QS_BASE_BASE64_H
#define QS_BASE_BASE64_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/secret.h"

/* Bytes that live together with their number; release with qs_bytes_done(). */
struct qs_bytes {
	uint8_t *data; /* malloc'ed; NULL when empty */
	size_t size;
};

void qs_bytes_done(struct qs_bytes *bytes); /* also a QS_AUTO releaser */

/* A copy; aborts when memory is out. */
struct qs_bytes qs_bytes_copy(const void *data, size_t size);

/*
 * Decode TEXT into *ret (malloc'ed, empty for ""). Returns 0; -EINVAL for
 * anything that an encoder would not have written; -EFBIG for more than MAX bytes.
 */
int qs_base64_decode(const char *text, size_t max, struct qs_bytes *ret);

/* The same for the alphabet of JOSE: '-' and '_', no padding (RFC 4648, chapter 5). */
int qs_base64url_decode(const char *text, size_t max, struct qs_bytes *ret);

/* malloc'ed text with a NUL behind it; aborts when memory is out. Not for secrets. */
char *qs_base64_encode(const void *data, size_t size);

/* The same for secrets: locked memory, no NUL behind the text. */
int qs_base64_encode_secret(const struct qs_secret *secret, struct qs_secret *ret,
			    struct qs_error *err);

#endif
