#define _GNU_SOURCE
#include "key/keyfile.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libmount.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "tab/fstab.h"

#define DEFAULT_KEYS_DIR QS_CONF_DIR "/keys"

char *qs_key_path(const struct qs_env *env, const char *name)
{
	return qs_printf("%s/%s.key", env->config.keys_dir, name);
}

const char *qs_key_not_private(const struct stat *st, mode_t forbidden)
{
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return "belongs to another user";
	if (st->st_mode & forbidden)
		return forbidden & 044 ? "can be read or written by group or others"
				       : "can be written by group or others";
	return NULL;
}

/* Is PATH the same as MOUNT, or below it? */
static bool is_below(const char *path, const char *mount)
{
	size_t n = strlen(mount);

	return n > 1 && strncmp(path, mount, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

struct mount_search {
	const struct qs_env *env;
	const char *dir;
	struct libmnt_table *mounted;
	char *missing;
};

static int look_at_mount(const struct qs_fstab_entry *e, void *cookie)
{
	struct mount_search *s = cookie;
	QS_AUTO(qs_auto_free) char *real = NULL;

	if (!is_below(s->dir, e->target))
		return 0;
	real = qs_env_path(s->env, e->target);
	if (mnt_table_find_target(s->mounted, real, MNT_ITER_BACKWARD))
		return 0;
	s->missing = qs_strdup(e->target);
	return 1;
}

/* fstab names a mount point that DIR lies in (or is), and nothing is mounted there. */
static int check_mounted(const struct qs_env *env, const char *dir, struct qs_error *err)
{
	struct mount_search s = { .env = env, .dir = dir };
	int r;

	s.mounted = mnt_new_table_from_file("/proc/self/mountinfo");
	if (!s.mounted)
		return qs_fail(err, QS_E_FAILED, "cannot read /proc/self/mountinfo");
	r = qs_fstab_each(env, look_at_mount, &s, err);
	mnt_unref_table(s.mounted);
	if (r == 1)
		r = qs_fail(
			err, QS_E_KEY_FILE,
			"the keys directory %s is on %s, which %s names but which is not mounted; "
			"mount it first",
			dir, s.missing, QS_FSTAB);
	free(s.missing);
	return r;
}

static int check_dir(const char *real, const char *dir, struct qs_error *err)
{
	const char *problem;
	struct stat st;

	if (stat(real, &st) < 0) {
		if (errno == ENOENT)
			return qs_fail(
				err, QS_E_KEY_FILE,
				"the keys directory %s does not exist; mount its file system, "
				"or make it (mode 0700) if this is the right place",
				dir);
		return qs_fail_errno(err, errno, "cannot look at the keys directory %s", dir);
	}
	if (!S_ISDIR(st.st_mode))
		return qs_fail(err, QS_E_KEY_FILE, "the keys directory %s is not a directory", dir);
	problem = qs_key_not_private(&st, 022);
	if (problem)
		return qs_fail(err, QS_E_KEY_FILE, "the keys directory %s %s; chmod 0700 %s", dir,
			       problem, dir);
	return 0;
}

int qs_key_check_dir(const struct qs_env *env, struct qs_error *err)
{
	const char *dir = env->config.keys_dir;
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, dir);
	int r = check_mounted(env, dir, err);

	if (r == 0 && strcmp(dir, DEFAULT_KEYS_DIR) == 0 && access(real, F_OK) < 0 &&
	    errno == ENOENT)
		r = qs_file_make_dirs(real, 0700, err);
	return r < 0 ? r : check_dir(real, dir, err);
}

int qs_key_look_dir(const struct qs_env *env, const char *dir, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, dir);
	int r = check_mounted(env, dir, err);

	return r < 0 ? r : check_dir(real, dir, err);
}

int qs_key_store(const struct qs_env *env, const char *path, const struct qs_secret *key,
		 bool replace, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
	const struct qs_replace how = { .mode = 0400, .exclusive = !replace };
	int r = qs_file_replace(real, key->data, key->size, &how, err);

	if (r == 0)
		r = qs_file_equals(real, key->data, key->size, err);
	if (r == 0)
		r = qs_fail(err, QS_E_IO, "%s reads back differently from what was written", real);
	return r < 0 ? r : 0;
}

int qs_key_generate(const struct qs_env *env, const char *path, struct qs_secret *ret,
		    struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	int r = qs_secret_random(&key, QS_KEY_SIZE, err);

	if (r == 0)
		r = qs_key_store(env, path, &key, false, err);
	if (r == 0)
		*ret = qs_secret_move(&key);
	return r;
}

static int open_key(const char *real, const char *path, struct stat *st, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int fd = -1;

	/* O_NONBLOCK: a FIFO must not hang us. */
	fd = open(real, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 && errno == ELOOP)
		return qs_fail(err, QS_E_KEY_FILE,
			       "the key file %s is a symbolic link; name the file itself", path);
	if (fd < 0 && errno == ENOENT)
		return qs_fail(err, QS_E_KEY_FILE, "the key file %s does not exist", path);
	if (fd < 0 || fstat(fd, st) < 0) {
		int r = qs_fail_errno(err, errno, "cannot open the key file %s", path);

		if (err)
			err->kind = QS_E_KEY_FILE;
		return r;
	}
	return qs_take_fd(&fd);
}

static int check_key(const struct stat *st, const char *path, struct qs_error *err)
{
	const char *problem;

	if (S_ISDIR(st->st_mode))
		return qs_fail(err, QS_E_KEY_FILE, "the key file %s is a directory", path);
	if (!S_ISREG(st->st_mode))
		return qs_fail(err, QS_E_KEY_FILE, "the key file %s is not a regular file", path);
	if (st->st_size == 0)
		return qs_fail(err, QS_E_KEY_FILE, "the key file %s is empty", path);
	if (st->st_size > QS_KEY_MAX)
		return qs_fail(err, QS_E_KEY_FILE,
			       "the key file %s has %jd bytes; LUKS reads at most %u", path,
			       (intmax_t)st->st_size, QS_KEY_MAX);
	problem = qs_key_not_private(st, 077);
	if (problem)
		return qs_fail(
			err, QS_E_KEY_FILE,
			"the key file %s %s (mode %04o); chmod 0400 %s, and use a new key if "
			"others may have read it",
			path, problem, (unsigned)st->st_mode & 07777U, path);
	return 0;
}

int qs_key_load(const struct qs_env *env, const char *path, struct qs_secret *ret,
		struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	QS_AUTO(qs_auto_close) int fd = -1;
	struct stat st;
	int r;

	fd = open_key(real, path, &st, err);
	if (fd < 0)
		return fd;
	r = check_key(&st, path, err);
	if (r < 0)
		return r;
	r = qs_secret_init(&key, (size_t)st.st_size, err);
	if (r < 0)
		return r;
	r = qs_file_pread(fd, key.data, key.size, 0);
	if (r < 0)
		return qs_fail_errno(err, r, "cannot read the key file %s", path);
	*ret = qs_secret_move(&key);
	return 0;
}
