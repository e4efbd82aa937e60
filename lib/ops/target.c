#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "ops/internal.h"
#include "tab/crypttab.h"

/* udev holds a disk's lock while it probes; it lets go within a second or so. */
#define DISK_LOCK_WAIT_MS 10000

/* O_DIRECT wants aligned memory, offset and size; 4096 fits every disk there is. */
#define DIRECT_ALIGNMENT 4096U
#define COMPARE_CHUNK (1U << 20)

char *qs_name_to_link(const char *name)
{
	if (strncmp(name, "enc-", 4) != 0 || strchr(name, '/'))
		return NULL;
	if (strncmp(name, "enc-uuid-", 9) == 0)
		return qs_printf("/dev/disk/by-uuid/%s", name + 9);
	return qs_printf("/dev/disk/by-id/%s", name + 4);
}

int qs_device_lock(const struct qs_env *env, const struct qs_device *dev, unsigned wait_ms,
		   struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(env, QS_RUN_DIR "/");
	QS_AUTO(qs_auto_free) char *path = NULL;
	struct stat st;
	int r;

	dir[strlen(dir) - 1] = '\0';
	r = qs_file_make_dirs(dir, 0755, err);
	if (r < 0)
		return r;
	if (dev->kind != QS_DEVICE_IMAGE)
		path = qs_printf("%s/dev-%u:%u.lock", dir, major(dev->devno), minor(dev->devno));
	else if (stat(dev->node, &st) == 0)
		path = qs_printf("%s/image-%ju-%ju.lock", dir, (uintmax_t)st.st_dev,
				 (uintmax_t)st.st_ino);
	else
		return qs_fail_errno(err, errno, "cannot look at %s", dev->node);
	return qs_file_lock(path, wait_ms, dev->node, err);
}

static int lock_disk(const struct qs_device *dev, struct qs_error *err)
{
	const struct timespec pause = { .tv_nsec = 20L * 1000 * 1000 };
	const char *disk = dev->disk ? dev->disk : dev->node;
	QS_AUTO(qs_auto_close) int fd = open(disk, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return qs_fail_errno(err, errno, "cannot open %s", disk);
	for (unsigned waited = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; waited += 20) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return qs_fail_errno(err, errno, "cannot lock %s", disk);
		if (waited >= DISK_LOCK_WAIT_MS)
			return qs_fail(err, QS_E_LOCKED, "another program holds the lock of %s",
				       disk);
		(void)nanosleep(&pause, NULL);
	}
	return qs_take_fd(&fd);
}

static int explain_open(int code, const struct qs_device *dev, struct qs_error *err)
{
	switch (code) {
	case EBUSY:
		return qs_fail(err, QS_E_IN_USE, "%s is in use by the kernel or another program",
			       dev->node);
	case EROFS:
	case EACCES:
	case EPERM:
		if (dev->read_only || code == EROFS)
			return qs_fail(err, QS_E_WRONG_DEVICE, "%s is read-only", dev->node);
		return qs_fail_errno(err, code, "cannot open %s for writing", dev->node);
	default:
		return qs_fail_errno(err, code, "cannot open %s for writing", dev->node);
	}
}

static int open_locked(const struct qs_device *dev, int excl, int *ret_disk_fd,
		       struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int disk = -1, fd = -1;
	struct stat st;

	if (dev->read_only)
		return explain_open(EROFS, dev, err);
	disk = lock_disk(dev, err);
	if (disk < 0)
		return disk;
	fd = open(dev->node, O_RDWR | O_CLOEXEC | O_NONBLOCK | excl);
	if (fd < 0)
		return explain_open(errno, dev, err);
	if (fstat(fd, &st) < 0)
		return qs_fail_errno(err, errno, "cannot look at %s", dev->node);
	/* The name may have moved to another disk since it was looked up. */
	if (dev->kind != QS_DEVICE_IMAGE && (!S_ISBLK(st.st_mode) || st.st_rdev != dev->devno))
		return qs_fail(err, QS_E_NO_DEVICE, "%s is another device now than a moment ago",
			       dev->node);
	*ret_disk_fd = qs_take_fd(&disk);
	return qs_take_fd(&fd);
}

int qs_device_open_exclusive(const struct qs_device *dev, int *ret_disk_fd, struct qs_error *err)
{
	return open_locked(dev, dev->kind == QS_DEVICE_IMAGE ? 0 : O_EXCL, ret_disk_fd, err);
}

int qs_device_open_below(const struct qs_device *dev, int *ret_disk_fd, struct qs_error *err)
{
	return open_locked(dev, 0, ret_disk_fd, err);
}

int qs_device_open_uncached(const char *node, struct qs_error *err)
{
	int fd = open(node, O_RDONLY | O_CLOEXEC | O_DIRECT);

	if (fd < 0 && errno == EINVAL) {
		fd = open(node, O_RDONLY | O_CLOEXEC);
		if (fd >= 0)
			(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	}
	return fd < 0 ? qs_fail_errno(err, errno, "cannot open %s again", node) : fd;
}

int qs_device_sync_and_compare(int fd, const char *node, const void *data, size_t size,
			       struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int again = -1;
	QS_AUTO(qs_auto_free) void *chunk = NULL;

	if (fsync(fd) < 0)
		return qs_fail_errno(err, errno, "cannot sync %s", node);
	again = qs_device_open_uncached(node, err);
	if (again < 0)
		return again;
	chunk = aligned_alloc(DIRECT_ALIGNMENT, COMPARE_CHUNK);
	if (!chunk)
		return qs_fail(err, QS_E_MEMORY, "no memory to read %s again", node);
	for (size_t done = 0; done < size; done += COMPARE_CHUNK) {
		size_t n = size - done < COMPARE_CHUNK ? size - done : COMPARE_CHUNK;
		int r = qs_file_pread(again, chunk, n, (off_t)done);

		if (r < 0)
			return qs_fail_errno(err, r, "cannot read %s again", node);
		if (memcmp(chunk, (const char *)data + done, n) != 0)
			return qs_fail(err, QS_E_IO,
				       "%s reads back differently from what was written", node);
	}
	return 0;
}

typedef int header_reader(int fd, struct qs_luks_header *ret, struct qs_error *err);

static int read_by(header_reader *read_header, const struct qs_device *dev,
		   struct qs_luks_header *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int fd = open(dev->node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int r;

	if (fd < 0)
		return qs_fail_errno(err, errno, "cannot open %s", dev->node);
	r = read_header(fd, ret, err);
	if (r < 0)
		qs_error_prefix(err, "%s", dev->node);
	return r;
}

int qs_device_read_header(const struct qs_device *dev, struct qs_luks_header *ret,
			  struct qs_error *err)
{
	return read_by(qs_luks_header_read, dev, ret, err);
}

int qs_device_peek_header(const struct qs_device *dev, struct qs_luks_header *ret,
			  struct qs_error *err)
{
	return read_by(qs_luks_header_peek, dev, ret, err);
}

int qs_device_refuse_use(const struct qs_device *dev, const struct qs_use *use,
			 struct qs_error *err)
{
	switch (use->kind) {
	case QS_USE_SYSTEM:
		return qs_fail(err, QS_E_FORBIDDEN,
			       "%s carries the running system (%s); this is never done", dev->node,
			       use->detail);
	case QS_USE_MEMBER:
		return qs_fail(err, QS_E_WRONG_DEVICE, "%s is %s; use that instead", dev->node,
			       use->detail);
	case QS_USE_PARTITIONS:
		return qs_fail(err, QS_E_REFUSED, "%s has partitions (%s)", dev->node, use->detail);
	case QS_USE_CRYPTTAB:
	case QS_USE_FSTAB:
		return qs_fail(err, QS_E_IN_USE, "%s is named by %s; remove that line first",
			       dev->node, use->detail);
	default:
		return qs_fail(err, QS_E_IN_USE, "%s is in use: %s", dev->node, use->detail);
	}
}

int qs_device_check_unused(const struct qs_env *env, const struct qs_device *dev, unsigned allowed,
			   struct qs_error *err)
{
	QS_AUTO(qs_use_list_done) struct qs_use_list uses = {};
	int r = qs_device_uses(env, dev, &uses, err);

	for (size_t i = 0; r == 0 && i < uses.count; i++)
		if (!(allowed & (1U << uses.items[i].kind)))
			r = qs_device_refuse_use(dev, &uses.items[i], err);
	return r;
}

int qs_key_is_shared(const struct qs_env *env, const char *name, const char *key,
		     struct qs_error *err)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	int r = qs_crypttab_load(env, &tab, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < qs_crypttab_count(tab); i++) {
		const struct qs_crypttab_entry *e = qs_crypttab_get(tab, i);

		if (e->key && strcmp(e->key, key) == 0 && strcmp(e->name, name) != 0)
			return 1;
	}
	return 0;
}
