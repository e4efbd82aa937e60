#define _GNU_SOURCE
#include "luks/backup.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

/* No image is larger (luks/image.c). */
#define IMAGE_MAX (136U << 20)

char *qs_backup_path(const struct qs_env *env, const char *name)
{
	return qs_printf("%s/%s.header", env->config.headers_dir, name);
}

static char *versions_dir(const struct qs_env *env, const char *name)
{
	QS_AUTO(qs_auto_free) char *logical = qs_printf("%s/%s.d", env->config.headers_dir, name);

	return qs_env_path(env, logical);
}

/* The number in front of ".header", also of an interrupted write's temporary; else -1. */
static long long version_of(const char *file)
{
	const char *digits = file[0] == '.' ? file + 1 : file;
	char *end = NULL;
	long long n = strtoll(digits, &end, 10);

	if (end == digits || n < 0 || strncmp(end, ".header", strlen(".header")) != 0)
		return -1;
	end += strlen(".header");
	return *end == '\0' || strcmp(end, QS_TEMPORARY_SUFFIX) == 0 ? n : -1;
}

/* The oldest version's number in *ret; returns how many there are. */
static int count_versions(const char *dir, long long *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_closedir) DIR *d = opendir(dir);
	const struct dirent *e;
	int n = 0;

	if (!d)
		return errno == ENOENT
			       ? 0
			       : qs_fail_errno(err, errno, "cannot open the directory %s", dir);
	for (errno = 0; (e = readdir(d)); errno = 0) {
		long long v = version_of(e->d_name);

		if (v < 0)
			continue;
		if (n++ == 0 || v < *ret)
			*ret = v;
	}
	return errno ? qs_fail_errno(err, errno, "cannot read the directory %s", dir) : n;
}

static int prune_versions(const struct qs_env *env, const char *dir, struct qs_error *err)
{
	long long oldest = 0;
	int n;

	while ((n = count_versions(dir, &oldest, err)) > (int)env->config.header_versions) {
		QS_AUTO(qs_auto_free) char *path = qs_printf("%s/%lld.header", dir, oldest);
		int r = qs_file_erase(path, err);

		if (r < 0)
			return r;
	}
	return n < 0 ? n : 0;
}

/* Where the present backup goes when a new one takes its place; NULL: it is not worth keeping. */
static int keep_path(const struct qs_env *env, const char *name, char **ret, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header old = {};
	QS_AUTO(qs_auto_free) char *dir = versions_dir(env, name);
	time_t when;
	int r;

	*ret = NULL;
	if (env->config.header_versions == 0)
		return 0;
	r = qs_backup_load(env, name, &old, &when, err);
	if (r <= 0 || old.version == 0)
		return r < 0 ? r : 0;
	r = qs_file_make_dirs(dir, 0700, err);
	if (r < 0)
		return r;
	*ret = qs_printf("%s/%ju.header", dir, (uintmax_t)old.seqid);
	return 0;
}

static bool is_same(const char *real, const struct qs_header_image *image)
{
	QS_AUTO(qs_auto_free) char *old = NULL;
	size_t size = 0;

	return qs_file_read(real, IMAGE_MAX, &old, &size, NULL) == 0 && size == image->size &&
	       memcmp(old, image->data, size) == 0;
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

int qs_backup_store(const struct qs_env *env, const char *name, const struct qs_header_image *image,
		    struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *logical = qs_backup_path(env, name);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, logical);
	QS_AUTO(qs_auto_free) char *headers = qs_env_path(env, env->config.headers_dir);
	QS_AUTO(qs_auto_free) char *keep = NULL;
	QS_AUTO(qs_auto_free) char *dir = versions_dir(env, name);
	struct qs_replace how = { .mode = 0600 };
	int r = qs_file_make_dirs(headers, 0700, err);

	if (r < 0)
		return r;
	if (is_same(real, image))
		return qs_file_sync(real, err);
	r = keep_path(env, name, &keep, err);
	if (r < 0)
		return r;
	how.keep_as = keep;
	r = qs_file_replace(real, image->data, image->size, &how, err);
	if (r == 0)
		r = verify(real, image, err);
	if (r == 0 && keep)
		r = prune_versions(env, dir, err);
	return r < 0 ? r : 1;
}

int qs_backup_refresh(const struct qs_env *env, const char *name, const char *node,
		      struct qs_error *err)
{
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	QS_AUTO(qs_auto_close) int fd = open(node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int r;

	if (fd < 0)
		return qs_fail_errno(err, errno, "cannot open %s", node);
	r = qs_header_image_read(fd, node, &image, NULL, err);
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

int qs_backup_erase(const struct qs_env *env, const char *name, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *logical = qs_backup_path(env, name);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, logical);
	QS_AUTO(qs_auto_free) char *dir = versions_dir(env, name);
	long long version = 0;
	int n = 0, r;

	while ((r = count_versions(dir, &version, err)) > 0) {
		QS_AUTO(qs_auto_free) char *path = qs_printf("%s/%lld.header", dir, version);

		r = qs_file_erase(path, err);
		if (r < 0)
			return r;
		n++;
	}
	if (r < 0)
		return r;
	r = rmdir(dir) < 0 ? errno : 0;
	if (r == ENOTEMPTY || r == EEXIST)
		qs_log(QS_LOG_WARNING, "%s holds files that are not ours and stays", dir);
	else if (r && r != ENOENT)
		return qs_fail_errno(err, r, "cannot remove the directory %s", dir);
	r = qs_file_erase(real, err);
	return r < 0 ? r : n + r;
}
