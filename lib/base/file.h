/*
 * Files that matter: read with a limit, replaced atomically, locked.
 *
 * Replacing: temporary file in the same directory, mode and owner set before
 * the content, write, fsync, rename, fsync of the directory. After a crash the
 * old or the new file is there, whole; a temporary (".NAME.qs-tmp") may be left
 * over and is replaced by the next run.
 */
#ifndef QS_BASE_FILE_H
#define QS_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/secret.h"

/*
 * Read a whole regular file of at most MAX bytes. *ret is malloc'ed, has a NUL
 * behind its last byte (not counted), and belongs to the caller.
 * Returns: -ENOENT absent; -EFBIG larger than MAX; -EINVAL no regular file.
 */
int qs_file_read(const char *path, size_t max, char **ret, size_t *ret_size, struct qs_error *err);

/* The same into locked memory; an empty file leaves *ret empty (data NULL). */
int qs_file_read_secret(const char *path, size_t max, struct qs_secret *ret, struct qs_error *err);

/*
 * qs_file_read() for a file that may be absent. Returns 1 read, 0 absent (*ret and
 * *err are left alone).
 */
int qs_file_read_optional(const char *path, size_t max, char **ret, size_t *ret_size,
			  struct qs_error *err);

/* The end of a temporary's name. */
#define QS_TEMPORARY_SUFFIX ".qs-tmp"

struct qs_replace {
	mode_t mode;         /* of a new file; an existing one keeps mode and owner */
	bool exclusive;      /* fail with QS_E_EXISTS when the file exists */
	const char *keep_as; /* NULL, or the path that keeps the last version */
};

/*
 * Replace (or create) PATH by SIZE bytes of DATA, durably. A symbolic link is
 * followed: its target is replaced and the link stays. Fails with QS_E_LOCKED
 * while another run replaces the same file.
 */
int qs_file_replace(const char *path, const void *data, size_t size, const struct qs_replace *how,
		    struct qs_error *err);

/*
 * Does PATH hold exactly SIZE bytes of DATA? Read from the disk and not from the
 * page cache, through a locked buffer. Returns 1 yes, 0 no; -ENOENT absent.
 */
int qs_file_equals(const char *path, const void *data, size_t size, struct qs_error *err);

/*
 * Make a file durable that is right already: a run that was killed may have
 * left it so without having synced it. Does nothing on a read-only file system.
 */
int qs_file_sync(const char *path, struct qs_error *err);

/*
 * Remove PATH durably (unlink, fsync of the directory), and a temporary that an
 * interrupted qs_file_replace() left beside it. Returns 1 removed, 0 was absent;
 * that is synced too, as a run that was killed may not have come to it.
 */
int qs_file_remove(const char *path, struct qs_error *err);

/* The same without the fsync: for many files of one directory, which the caller syncs. */
int qs_file_unlink(const char *path, struct qs_error *err);

/*
 * Overwrite a regular file with zeros, sync, and remove it durably: for keys and
 * header backups, which open a device as long as a copy is readable. On flash
 * and on copy-on-write file systems old blocks may survive all the same.
 * Returns 1 erased, 0 was absent.
 */
int qs_file_erase(const char *path, struct qs_error *err);

/* fsync the directory that PATH lies in. */
int qs_file_sync_parent(const char *path, struct qs_error *err);

/* Write all SIZE bytes to a pipe, socket or terminal. Returns 0 or -errno. */
int qs_file_write(int fd, const void *data, size_t size);

/* Write all SIZE bytes at OFFSET; short writes are continued. Returns 0 or -errno. */
int qs_file_pwrite(int fd, const void *data, size_t size, off_t offset);

/* Read exactly SIZE bytes at OFFSET. Returns 0, -ENODATA at an early end, or -errno. */
int qs_file_pread(int fd, void *data, size_t size, off_t offset);

/* Make PATH and its missing parents, each with MODE; existing ones are left as they are. */
int qs_file_make_dirs(const char *path, mode_t mode, struct qs_error *err);

/*
 * Take the lock file PATH (made 0600 when absent) exclusively, waiting up to
 * WAIT_MS milliseconds (0: not at all). Close the descriptor to let it go; it
 * is O_CLOEXEC. WHAT goes into the sentence: "another qs-util works on WHAT".
 * Returns: the descriptor; -EBUSY (QS_E_LOCKED) when it stays taken.
 */
int qs_file_lock(const char *path, unsigned wait_ms, const char *what, struct qs_error *err);

#endif
