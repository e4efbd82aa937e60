#define _GNU_SOURCE
#include "luks/backup.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"

/* No image is larger (luks/image.c). */
#define IMAGE_MAX (136U << 20)

char *qs_backup_path(const struct qs_env *env, const char *name)
{
	return qs_printf("%s/%s.header", env->config.headers_dir, name);
}

static bool is_same(const char *real, const struct qs_header_image *image)
{
	QS_AUTO(qs_auto_free) char *old = NULL;
	size_t size = 0;

	return qs_file_read(real, IMAGE_MAX, &old, &size, NULL) == 0 && size == image->size &&
	       memcmp(old, image->data, size) == 0;
}

/*
 * The file is read before it is judged: a sector that cannot be read is an error
 * of the file system, not a damaged header.
 */
static int read_file(const char *path, struct qs_header_image *ret, time_t *ret_time,
		     struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return qs_fail_errno(err, errno, "cannot open the header backup %s", path);
	if (!S_ISREG(st.st_mode))
		return qs_fail(err, QS_E_DAMAGED, "the header backup %s is no regular file", path);
	*ret_time = st.st_mtime;
	return qs_header_image_read_raw(fd, path, st.st_size < IMAGE_MAX ? st.st_size : IMAGE_MAX,
					ret, err);
}

/*
 * Two whole copies that differ are a change of tokens that was cut off (follow.c). One copy alone
 * is damage here: a device mends itself, what is kept for bad days has to be right.
 */
static int read_whole(int file, const char *path, struct qs_header_image *ret,
		      struct qs_luks_header *ret_header, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	int r = qs_luks_header_read(file, &h, err);

	if (r < 0)
		return r;
	return h.copies_differ ? qs_header_image_complete(file, path, ret, ret_header, err)
			       : qs_header_image_read(file, path, ret, ret_header, err);
}

int qs_backup_read(const char *path, struct qs_header_image *ret, struct qs_luks_header *ret_header,
		   time_t *ret_time, struct qs_error *err)
{
	QS_AUTO(qs_header_image_done) struct qs_header_image raw = {};
	QS_AUTO(qs_auto_close) int file = -1;
	struct qs_error own = {};
	time_t when = 0;
	int r = read_file(path, &raw, &when, err);

	if (r < 0)
		return r;
	file = qs_header_image_file(&raw, raw.size, err);
	if (file < 0)
		return file;
	r = read_whole(file, path, ret, ret_header, &own);
	if (own.kind == QS_E_DAMAGED)
		return qs_fail(err, QS_E_DAMAGED,
			       "the header backup %s is damaged or cut off and cannot be used",
			       path);
	if (r < 0 && err)
		*err = own;
	if (r == 0 && ret_time)
		*ret_time = when;
	return r;
}

/* Where the present backup goes when a new one takes its place; NULL: it is not worth keeping. */
static int keep_path(const struct qs_env *env, const char *name, const char *real, char **ret,
		     struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header old = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	struct qs_error own = {};
	int r = qs_backup_read(real, &image, &old, NULL, &own);

	*ret = NULL;
	if (r == -ENOENT || own.kind == QS_E_DAMAGED || own.kind == QS_E_HOSTILE)
		return 0;
	if (r < 0) {
		if (err)
			*err = own;
		return r;
	}
	return qs_backup_version_path(env, name, &image, &old, ret, err);
}

/* Load what was just written, from the disk. */
static int verify(const char *real, const struct qs_header_image *image, struct qs_error *err)
{
	QS_AUTO(qs_header_image_done) struct qs_header_image again = {};
	QS_AUTO(qs_auto_close) int fd = open(real, O_RDONLY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return qs_fail_errno(err, errno, "cannot open %s again", real);
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	r = qs_header_image_read(fd, real, &again, NULL, err);
	if (r < 0)
		return r;
	if (again.size != image->size || memcmp(again.data, image->data, again.size) != 0)
		return qs_fail(err, QS_E_IO, "%s reads back differently from what was written",
			       real);
	return 0;
}

int qs_backup_put(const struct qs_env *env, const char *name, const struct qs_header_image *image,
		  struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *logical = qs_backup_path(env, name);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, logical);
	QS_AUTO(qs_auto_free) char *headers = qs_env_path(env, env->config.headers_dir);
	QS_AUTO(qs_auto_free) char *keep = NULL;
	struct qs_replace how = { .mode = 0600 };
	int r = qs_file_make_dirs(headers, 0700, err);

	if (r < 0)
		return r;
	if (is_same(real, image))
		return qs_file_sync(real, err);
	r = keep_path(env, name, real, &keep, err);
	if (r < 0)
		return r;
	how.keep_as = keep;
	r = qs_file_replace(real, image->data, image->size, &how, err);
	if (r == 0)
		r = verify(real, image, err);
	return r < 0 ? r : 1;
}

int qs_backup_store(const struct qs_env *env, const char *name, const struct qs_header_image *image,
		    struct qs_error *err)
{
	int stored = qs_backup_put(env, name, image, err);
	int r = stored < 0 ? stored : qs_backup_prune(env, name, err);

	return r < 0 ? r : stored;
}

int qs_backup_check_areas(const struct qs_env *env, const char *name,
			  const struct qs_header_image *image, const struct qs_luks_header *h,
			  const char *node, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header old = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image old_image = {};
	QS_AUTO(qs_auto_free) char *logical = qs_backup_path(env, name);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, logical);
	uint32_t differ;

	if (qs_backup_read(real, &old_image, &old, NULL, NULL) < 0)
		return 0;
	differ = qs_luks_areas_differ(h, image, &old, &old_image);
	if (!differ)
		return 0;
	return qs_fail(
		err, QS_E_DAMAGED,
		"the key material of keyslot %d of %s is damaged: it is not that of its "
		"backup, though nobody has set it anew; `qs-util cryptrestore %s` repairs it",
		__builtin_ctz(differ), node, node);
}

int qs_backup_refresh(const struct qs_env *env, const char *name, const char *node,
		      struct qs_error *err)
{
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_auto_close) int fd = open(node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int r;

	if (fd < 0)
		return qs_fail_errno(err, errno, "cannot open %s", node);
	r = qs_header_image_read(fd, node, &image, &h, err);
	if (r == 0)
		r = qs_backup_check_areas(env, name, &image, &h, node, err);
	return r < 0 ? r : qs_backup_store(env, name, &image, err);
}

typedef int header_reader(int fd, struct qs_luks_header *ret, struct qs_error *err);

static int load(const struct qs_env *env, const char *name, header_reader *read_header,
		struct qs_luks_header *ret, time_t *ret_time, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *logical = qs_backup_path(env, name);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, logical);
	QS_AUTO(qs_auto_close) int fd = open(real, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	int r;

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return qs_fail_errno(err, errno, "cannot open the header backup %s", logical);
	r = read_header(fd, ret, err);
	if (r < 0)
		return r;
	*ret_time = st.st_mtime;
	return 1;
}

int qs_backup_load(const struct qs_env *env, const char *name, struct qs_luks_header *ret,
		   time_t *ret_time, struct qs_error *err)
{
	return load(env, name, qs_luks_header_read, ret, ret_time, err);
}

int qs_backup_peek(const struct qs_env *env, const char *name, struct qs_luks_header *ret,
		   struct qs_error *err)
{
	time_t when;

	return load(env, name, qs_luks_header_peek, ret, &when, err);
}
