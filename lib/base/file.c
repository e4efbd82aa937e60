#define _GNU_SOURCE
#include "base/file.h"

#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/env.h"

int qs_file_write(int fd, const void *data, size_t size)
{
	const char *p = data;

	while (size > 0) {
		ssize_t n = write(fd, p, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

int qs_file_pwrite(int fd, const void *data, size_t size, off_t offset)
{
	const char *p = data;

	while (size > 0) {
		ssize_t n = pwrite(fd, p, size, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		p += n;
		offset += n;
		size -= (size_t)n;
	}
	return 0;
}

static int open_parent(const char *path, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *copy = qs_strdup(path);
	const char *parent = dirname(copy);
	int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return qs_fail_errno(err, errno, "cannot open the directory %s", parent);
	return fd;
}

/* Network file systems cannot sync a directory and say EINVAL; their rename is synchronous. */
static int sync_directory(int dir, const char *path, struct qs_error *err)
{
	if (fsync(dir) < 0 && errno != EINVAL)
		return qs_fail_errno(err, errno, "cannot sync the directory of %s", path);
	return 0;
}

int qs_file_sync_parent(const char *path, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int dir = open_parent(path, err);

	return dir < 0 ? dir : sync_directory(dir, path, err);
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/*
 * Mode and owner before any content. FAT and CIFS refuse chmod, or do nothing
 * and say it is done; both is fine as long as the mount's own mask gives others
 * no more than we asked for.
 */
static int set_attributes(int fd, const char *path, const struct stat *old, mode_t mode,
			  struct qs_error *err)
{
	struct stat now;

	if (old) {
		mode = old->st_mode & 07777;
		if ((old->st_uid != geteuid() || old->st_gid != getegid()) &&
		    fchown(fd, old->st_uid, old->st_gid) < 0)
			return qs_fail_errno(err, errno, "cannot keep the owner of %s", path);
	}
	if (fchmod(fd, mode) < 0 && errno != EPERM && errno != EOPNOTSUPP)
		return qs_fail_errno(err, errno, "cannot set the mode of %s", path);
	if (fstat(fd, &now) < 0)
		return qs_fail_errno(err, errno, "cannot look at %s", path);
	if ((now.st_mode & ~mode) & 077)
		return qs_fail(err, QS_E_FAILED,
			       "others would have more rights on %s than they should (mode %04o): "
			       "its file system keeps no modes; mount it with umask=0077",
			       path, (unsigned)now.st_mode & 07777U);
	return 0;
}

/* Where qs_file_replace() writes what becomes PATH. */
static char *temporary_of(const char *path)
{
	const char *last = last_part(path);

	return qs_printf("%.*s.%s" QS_TEMPORARY_SUFFIX, (int)(last - path), path, last);
}

static bool still_named(int dir, const char *name, int fd)
{
	struct stat ours, named;

	return fstat(fd, &ours) == 0 && fstatat(dir, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
	       ours.st_dev == named.st_dev && ours.st_ino == named.st_ino;
}

/* A temporary is in use as long as its writer holds a lock on it. */
static bool held_by_other(int fd)
{
	return flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

static int written_by_other(const char *path, struct qs_error *err)
{
	return qs_fail(err, QS_E_LOCKED, "another run is writing %s; wait for its end", path);
}

/* What a killed run left behind goes; what a living one writes is an error. */
static int remove_left_over(int dir, const char *temporary, const char *path, struct qs_error *err)
{
	const int flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	QS_AUTO(qs_auto_close) int fd = openat(dir, temporary, flags);

	if (fd >= 0 && held_by_other(fd))
		return written_by_other(path, err);
	/* The one that we looked at is gone already: whoever removed it held its lock. */
	if (fd >= 0 && !still_named(dir, temporary, fd))
		return 0;
	if (unlinkat(dir, temporary, 0) < 0 && errno != ENOENT)
		return qs_fail_errno(err, errno, "cannot remove a left-over temporary of %s", path);
	return 0;
}

/*
 * A new file TEMPORARY, locked for as long as the descriptor is open. Two runs
 * that write PATH at once thus never take each other's file for a left-over;
 * the second one is told so. Between O_EXCL and the lock another run may
 * remove the file: then once more, but not for ever.
 */
static int open_temporary(int dir, const char *temporary, const char *path, struct qs_error *err)
{
	const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;

	for (int tries = 0; tries < 16; tries++) {
		QS_AUTO(qs_auto_close) int fd = openat(dir, temporary, flags, 0600);
		int r;

		if (fd >= 0 && !held_by_other(fd) && still_named(dir, temporary, fd))
			return qs_take_fd(&fd);
		if (fd >= 0)
			continue;
		if (errno != EEXIST)
			return qs_fail_errno(err, errno, "cannot create a file beside %s", path);
		r = remove_left_over(dir, temporary, path, err);
		if (r < 0)
			return r;
	}
	return written_by_other(path, err);
}

/* NFS reports a full server only when a descriptor is closed, and any one will do. */
static int close_a_copy(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	return copy < 0 || close(copy) < 0 ? -errno : 0;
}

static int write_temporary(int fd, const char *path, const void *data, size_t size,
			   const struct stat *old, mode_t mode, struct qs_error *err)
{
	int r = set_attributes(fd, path, old, mode, err);

	if (r < 0)
		return r;
	r = qs_file_pwrite(fd, data, size, 0);
	if (r < 0)
		return qs_fail_errno(err, r, "cannot write %s", path);
	if (fsync(fd) < 0)
		return qs_fail_errno(err, errno, "cannot sync %s", path);
	r = close_a_copy(fd);
	return r < 0 ? qs_fail_errno(err, r, "cannot write %s", path) : 0;
}

/* The last version under another name: a hard link where the file system has them. */
static int keep_last(const char *path, const char *keep_as, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *temporary = temporary_of(keep_as);
	QS_AUTO(qs_auto_free) char *old = NULL;
	const struct qs_replace how = { .mode = 0600 };
	size_t size = 0;
	int r;

	if (unlink(temporary) < 0 && errno != ENOENT)
		return qs_fail_errno(err, errno, "cannot remove %s", temporary);
	if (link(path, temporary) == 0) {
		/* rename() leaves both names when they are the same file already. */
		if (rename(temporary, keep_as) == 0) {
			(void)unlink(temporary);
			return qs_file_sync_parent(keep_as, err);
		}
		(void)unlink(temporary);
		return qs_fail_errno(err, errno, "cannot keep the last version as %s", keep_as);
	}
	r = qs_file_read(path, SIZE_MAX - 1, &old, &size, err);
	return r < 0 ? r : qs_file_replace(keep_as, old, size, &how, err);
}

static int rename_new(int dir, const char *temporary, const char *target, bool exclusive)
{
	if (exclusive) {
		if (renameat2(dir, temporary, dir, target, RENAME_NOREPLACE) == 0)
			return 0;
		/* NFS knows no flags; whoever asks for exclusive holds a lock anyway. */
		if (errno != EINVAL && errno != ENOSYS)
			return -errno;
		if (faccessat(dir, target, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
			return -EEXIST;
	}
	return renameat(dir, temporary, dir, target) < 0 ? -errno : 0;
}

/* The file behind a symbolic link, so that the link itself survives. */
static char *follow(const char *path)
{
	char *real = realpath(path, NULL);

	return real ? real : qs_strdup(path);
}

int qs_file_replace(const char *path, const void *data, size_t size, const struct qs_replace *how,
		    struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *target = follow(path);
	QS_AUTO(qs_auto_free) char *temporary = temporary_of(last_part(target));
	QS_AUTO(qs_auto_close) int dir = open_parent(target, err);
	QS_AUTO(qs_auto_close) int fd = -1; /* its lock must last until the rename */
	struct stat st;
	bool exists;
	int r;

	if (dir < 0)
		return dir;
	exists = lstat(target, &st) == 0;
	if (!exists && errno != ENOENT)
		return qs_fail_errno(err, errno, "cannot look at %s", path);
	if (exists && how->exclusive)
		return qs_fail(err, QS_E_EXISTS, "%s exists already", path);
	if (exists && !S_ISREG(st.st_mode))
		return qs_fail(err, QS_E_FAILED, "%s is not a regular file", path);
	fd = open_temporary(dir, temporary, path, err);
	if (fd < 0)
		return fd;
	r = write_temporary(fd, path, data, size, exists ? &st : NULL, how->mode, err);
	if (r == 0 && exists && how->keep_as)
		r = keep_last(target, how->keep_as, err);
	if (r == 0) {
		r = rename_new(dir, temporary, last_part(target), how->exclusive);
		if (r < 0)
			(void)qs_fail_errno(err, r, "cannot put %s in its place", path);
	}
	if (r < 0) {
		(void)unlinkat(dir, temporary, 0);
		return r;
	}
	return sync_directory(dir, path, err);
}

int qs_file_sync(const char *path, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *target = follow(path);
	QS_AUTO(qs_auto_close) int fd = open(target, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return qs_fail_errno(err, errno, "cannot open %s to sync it", path);
	/* A read-only file system has nothing that could be lost. */
	if (fsync(fd) < 0 && errno != EROFS && errno != EINVAL)
		return qs_fail_errno(err, errno, "cannot sync %s", path);
	return qs_file_sync_parent(target, err);
}

/* PATH is absent, but perhaps only since a run that was killed before it could sync that. */
static int sync_absent(const char *path, struct qs_error *err)
{
	struct qs_error own = {};
	int r = qs_file_sync_parent(path, &own);

	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r < 0 && err)
		*err = own;
	return r;
}

int qs_file_unlink(const char *path, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *temporary = temporary_of(path);

	(void)unlink(temporary);
	if (unlink(path) == 0)
		return 1;
	if (errno == ENOENT || errno == ENOTDIR)
		return 0;
	return qs_fail_errno(err, errno, "cannot remove %s", path);
}

int qs_file_remove(const char *path, struct qs_error *err)
{
	int removed = qs_file_unlink(path, err);
	int r = removed;

	if (removed == 1)
		r = qs_file_sync_parent(path, err);
	if (removed == 0)
		r = sync_absent(path, err);
	return r < 0 ? r : removed;
}

/* A key is 0400: root writes it all the same, an ordinary owner must allow himself first. */
static int open_to_overwrite(const char *path)
{
	const int flags = O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	int fd = open(path, flags);

	if (fd < 0 && errno == EACCES && chmod(path, 0600) == 0)
		fd = open(path, flags);
	return fd;
}

/* Returns 1 overwritten and synced, 0 absent. */
static int overwrite(const char *path, struct qs_error *err)
{
	static char zeros[1 << 20]; /* not const: a megabyte of zeros need not be in the program */
	QS_AUTO(qs_auto_close) int fd = open_to_overwrite(path);
	struct stat st;
	int r = 0;

	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return qs_fail_errno(err, errno, "cannot open %s to erase it", path);
	for (off_t done = 0; r == 0 && done < st.st_size; done += (off_t)sizeof(zeros)) {
		size_t rest = (size_t)(st.st_size - done);

		r = qs_file_pwrite(fd, zeros, rest < sizeof(zeros) ? rest : sizeof(zeros), done);
	}
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r < 0 ? qs_fail_errno(err, r, "cannot overwrite %s", path) : 1;
}

int qs_file_erase(const char *path, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *temporary = temporary_of(path);
	int r = overwrite(temporary, err);

	if (r >= 0)
		r = overwrite(path, err);
	return r < 0 ? r : qs_file_remove(path, err);
}

int qs_file_make_dirs(const char *path, mode_t mode, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *copy = qs_strdup(path);

	for (char *p = copy + 1;; p++) {
		char old = *p;

		if (old != '/' && old != '\0')
			continue;
		*p = '\0';
		if (mkdir(copy, mode) == 0) {
			int r = qs_file_sync_parent(copy, err);

			if (r < 0)
				return r;
		} else if (errno != EEXIST) {
			return qs_fail_errno(err, errno, "cannot make the directory %s", copy);
		}
		*p = old;
		if (old == '\0')
			return 0;
	}
}

/* The process that holds the lock wrote its number into the file. */
static int locked_error(int fd, const char *what, struct qs_error *err)
{
	char pid[16] = "";
	ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);

	if (n > 0)
		return qs_fail(err, QS_E_LOCKED, "another qs-util (process %.*s) works on %s",
			       (int)strspn(pid, "0123456789"), pid, what);
	return qs_fail(err, QS_E_LOCKED, "another qs-util works on %s", what);
}

int qs_file_lock(const char *path, unsigned wait_ms, const char *what, struct qs_error *err)
{
	const struct timespec pause = { .tv_nsec = 20L * 1000 * 1000 };
	QS_AUTO(qs_auto_close) int fd = -1;
	char pid[16];
	int n;

	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd < 0)
		return qs_fail_errno(err, errno, "cannot open the lock %s", path);
	for (unsigned waited = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; waited += 20) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return qs_fail_errno(err, errno, "cannot lock %s", path);
		if (waited >= wait_ms)
			return locked_error(fd, what, err);
		(void)nanosleep(&pause, NULL);
	}
	/* Only told to people who wait: no reason to fail when /run is full. */
	n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) == 0)
		(void)qs_file_pwrite(fd, pid, (size_t)n, 0);
	return qs_take_fd(&fd);
}
