/*
 * Which kernel driver serves a cipher, from /proc/crypto.
 */
#ifndef QS_LUKS_DRIVER_H
#define QS_LUKS_DRIVER_H

#include <stdbool.h>

#include "base/env.h"
#include "base/error.h"

struct qs_cipher_driver {
	char driver[128]; /* "xts-aes-aesni"; "" when the kernel has not loaded one yet */
	char family[32];  /* "aes-ni", "vaes", "arm-ce", "s390", "generic", "other" */
	bool slow;        /* a generic C implementation: worth a warning */
};

/*
 * The driver with the highest priority for a dm-crypt cipher such as
 * "aes-xts-plain64" (looked up as "xts(aes)"). /proc/crypto lists only what has
 * been instantiated since boot, so an empty driver is an answer, not an error.
 */
int qs_cipher_driver(const struct qs_env *env, const char *cipher, struct qs_cipher_driver *ret,
		     struct qs_error *err);

/* The same from text; the file's format is that of Linux 6.1. */
void qs_cipher_driver_parse(const char *text, const char *cipher, struct qs_cipher_driver *ret);

#endif
