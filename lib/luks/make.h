/*
 * Making a LUKS2 header in memory and writing it through one descriptor.
 *
 * crypt_format() on a disk opens it by itself (so nothing holds the disk between
 * probe and format), ignores errors of fsync (faults F3), and leaves a device
 * that no key opens at 43 of 46 points where it may be killed. So libcryptsetup
 * formats an anonymous file of the same size instead, and the finished header is
 * written by us: keyslot areas, then the second copy, then the first, each
 * synced before the next. A cut at any point leaves either no LUKS header or
 * one that the key opens.
 */
#ifndef QS_LUKS_MAKE_H
#define QS_LUKS_MAKE_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/error.h"
#include "base/pool.h"
#include "base/secret.h"
#include "luks/backup.h"

/* The usual place of the data (cryptsetup's default since 2.1), in bytes. */
#define QS_DATA_OFFSET (16ULL << 20)

struct crypt_device;

struct qs_luks_spec {
	uint64_t device_size; /* bytes */
	const char *uuid;
	const char *label;                     /* cut to what the header holds */
	const char *cipher;                    /* "aes-xts-plain64" */
	unsigned key_size;                     /* bits */
	unsigned sector_size;                  /* bytes */
	uint64_t metadata_size, keyslots_size; /* bytes */
	const char *pbkdf; /* NULL: pbkdf2 with libcryptsetup's minimum of 1000 iterations, for
			      keys with full entropy; else that function with the library's
			      default costs, measured on this machine */
	bool fast_device;  /* no-read-workqueue, no-write-workqueue */
	bool fingerprint;  /* only for a key that we generated: see luks/fingerprint.h */
	/* Makes a token for keyslot 0 of CD, the header in memory, without its "keyslots". NULL: no
	 * token. */
	int (*token)(void *cookie, struct crypt_device *cd, json_t **ret, struct qs_error *err);
	void *token_cookie;
};

/* The subsystem that marks devices of ours. */
#define QS_SUBSYSTEM "qs-util"

/* The label as the header holds it: at most 47 bytes (LUKS2_LABEL_L). */
void qs_luks_label(const char *name, char ret[static QS_LUKS_LABEL_L]);

/*
 * Check cipher, sizes and PBKDF before anything is touched (QS_E_USAGE), by
 * what libcryptsetup and LUKS2 take; null ciphers are refused.
 */
int qs_luks_spec_check(const struct qs_luks_spec *spec, struct qs_error *err);

struct crypt_pbkdf_type;

/*
 * The costs of a new keyslot; TYPE as spec.pbkdf. Before Argon2 WORKER (may be
 * NULL) waits for the memory.
 */
int qs_luks_pbkdf(const char *type, struct qs_worker *worker, struct crypt_pbkdf_type *ret,
		  struct qs_error *err);

/* Format in memory with KEY in keyslot 0. WORKER (may be NULL) is asked before Argon2 runs. */
int qs_luks_make(const struct qs_luks_spec *spec, const struct qs_secret *key,
		 struct qs_worker *worker, struct qs_header_image *ret, struct qs_error *err);

/* Write IMAGE to the beginning of FD in the order above; METADATA_SIZE as in the spec. */
int qs_luks_write(int fd, const char *node, const struct qs_header_image *image,
		  uint64_t metadata_size, struct qs_error *err);

#endif
