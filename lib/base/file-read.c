/*
 * Reading files; base/file.c writes them.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"

int qs_file_pread(int fd, void *data, size_t size, off_t offset)
{
	char *p = data;

	while (size > 0) {
		ssize_t n = pread(fd, p, size, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENODATA;
		p += n;
		offset += n;
		size -= (size_t)n;
	}
	return 0;
}

/* Open a regular file of at most MAX bytes. Returns the descriptor. */
static int open_to_read(const char *path, size_t max, size_t *ret_size, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return qs_fail_errno(err, errno, "cannot open %s", path);
	if (!S_ISREG(st.st_mode)) {
		(void)qs_fail(err, QS_E_FAILED, "%s is not a regular file", path);
		return -EINVAL;
	}
	if ((uintmax_t)st.st_size > max) {
		(void)qs_fail(err, QS_E_FAILED,
			      "%s has %jd bytes, more than the %zu that it may have", path,
			      (intmax_t)st.st_size, max);
		return -EFBIG;
	}
	*ret_size = (size_t)st.st_size;
	return qs_take_fd(&fd);
}

int qs_file_read(const char *path, size_t max, char **ret, size_t *ret_size, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *text = NULL;
	size_t size = 0;
	QS_AUTO(qs_auto_close) int fd = open_to_read(path, max, &size, err);
	int r;

	if (fd < 0)
		return fd;
	text = malloc(size + 1);
	if (!text)
		return qs_fail(err, QS_E_MEMORY, "no memory to read %s", path);
	r = qs_file_pread(fd, text, size, 0);
	if (r < 0)
		return qs_fail_errno(err, r, "cannot read %s", path);
	text[size] = '\0';
	*ret = QS_TAKE(text);
	if (ret_size)
		*ret_size = size;
	return 0;
}

int qs_file_read_secret(const char *path, size_t max, struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret s = {};
	size_t size = 0;
	QS_AUTO(qs_auto_close) int fd = open_to_read(path, max, &size, err);
	int r = fd < 0 ? fd : 0;

	if (r == 0 && size > 0)
		r = qs_secret_init(&s, size, err);
	if (r < 0)
		return r;
	r = qs_file_pread(fd, s.data, s.size, 0);
	if (r < 0)
		return qs_fail_errno(err, r, "cannot read %s", path);
	*ret = qs_secret_move(&s);
	return 0;
}

int qs_file_read_optional(const char *path, size_t max, char **ret, size_t *ret_size,
			  struct qs_error *err)
{
	struct qs_error own = {};
	int r = qs_file_read(path, max, ret, ret_size, &own);

	if (r == -ENOENT)
		return 0;
	if (r < 0 && err)
		*err = own;
	return r < 0 ? r : 1;
}

#define COMPARE_SIZE (256U << 10)

/* Returns 1 the same, 0 another, or -errno. */
static int compare(int fd, const char *data, size_t size, void *buffer)
{
	while (size > 0) {
		size_t part = size < COMPARE_SIZE ? size : COMPARE_SIZE;
		ssize_t n = read(fd, buffer, part);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0 || memcmp(buffer, data, (size_t)n) != 0)
			return 0;
		data += n;
		size -= (size_t)n;
	}
	return 1;
}

int qs_file_equals(const char *path, const void *data, size_t size, struct qs_error *err)
{
	QS_AUTO(qs_auto_close)
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	QS_AUTO(qs_secret_done) struct qs_secret buffer = {};
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return qs_fail_errno(err, errno, "cannot open %s to compare it", path);
	if (!S_ISREG(st.st_mode) || (uintmax_t)st.st_size != size)
		return 0;
	r = qs_secret_init(&buffer, COMPARE_SIZE, err);
	if (r < 0)
		return r;
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	r = compare(fd, data, size, buffer.data);
	return r < 0 ? qs_fail_errno(err, r, "cannot read %s again", path) : r;
}
