/*
 * Key files: made durably before any header depends on them, read strictly.
 *
 * Stock tools take a world-readable key, follow a symbolic link and hang on a
 * FIFO (cryptsetup 2.6.1); here each of these is a sentence.
 */
#ifndef QS_KEY_KEYFILE_H
#define QS_KEY_KEYFILE_H

#include <stdbool.h>
#include <sys/stat.h>

#include "base/env.h"
#include "base/error.h"
#include "base/secret.h"

/* Documented for years: 1 MiB from the kernel's generator. */
#define QS_KEY_SIZE (1U << 20)

/* libcryptsetup's compiled-in limit (cryptsetup --help, 2.6.1: 8192kB). */
#define QS_KEY_MAX (8U << 20)

/* Behind the name of a key file that is being replaced: its successor, and what it was. */
#define QS_KEY_NEW ".new"
#define QS_KEY_OLD ".old"

/* The logical path keys_dir/NAME.key; malloc'ed. */
char *qs_key_path(const struct qs_env *env, const char *name);

/*
 * What is wrong with a file or directory that only root and we may use ("belongs
 * to another user"), or NULL. FORBIDDEN: the mode bits that it must not have.
 */
const char *qs_key_not_private(const struct stat *st, mode_t forbidden);

/*
 * Write KEY to PATH (logical), 0400, fsynced with its directory, read back from
 * the disk and compared. An existing file is QS_E_EXISTS and stays as it is,
 * unless REPLACE is given.
 */
int qs_key_store(const struct qs_env *env, const char *path, const struct qs_secret *key,
		 bool replace, struct qs_error *err);

/*
 * Make the key file PATH (logical): QS_KEY_SIZE random bytes, stored as
 * qs_key_store() does, replacing nothing.
 */
int qs_key_generate(const struct qs_env *env, const char *path, struct qs_secret *ret,
		    struct qs_error *err);

/*
 * Overwrite and remove the key file PATH (logical), and what an interrupted
 * replacement left beside it. Returns 1 erased, 0 PATH was absent.
 */
int qs_key_erase(const struct qs_env *env, const char *path, struct qs_error *err);

/*
 * Read the key file PATH (logical), also one that ENV holds in memory. Refused with QS_E_KEY_FILE:
 * missing, a symbolic link, not a regular file, empty, above QS_KEY_MAX, owned by somebody else
 * than root or us, readable or writable by group or others.
 */
int qs_key_load(const struct qs_env *env, const char *path, struct qs_secret *ret,
		struct qs_error *err);

/* The same of a file that sentences call WHAT instead of "the key file PATH". */
int qs_key_load_as(const struct qs_env *env, const char *what, const char *path,
		   struct qs_secret *ret, struct qs_error *err);

/* The same as qs_key_load(), where the file may be absent. Returns 1 read, 0 it is not there. */
int qs_key_load_if_there(const struct qs_env *env, const char *path, struct qs_secret *ret,
			 struct qs_error *err);

/* Both for a record of the keystore, which is no key: an empty one is QS_E_CONFIG. */
int qs_key_load_record(const struct qs_env *env, const char *path, struct qs_secret *ret,
		       struct qs_error *err);
int qs_key_load_record_if_there(const struct qs_env *env, const char *path, struct qs_secret *ret,
				struct qs_error *err);

#endif
