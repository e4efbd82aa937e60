#define _GNU_SOURCE
#include "key/keydir.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/pool.h"
#include "base/text.h"
#include "key/keyfile.h"
#include "key/place.h"
#include "tab/crypttab.h"

#define DEFAULT_KEYS_DIR QS_CONF_DIR "/keys"

/* ---- in time ---- */

struct timed {
	const struct qs_env *env;
	qs_key_look *look;
	const void *cookie;
	struct qs_error error;
};

static int timed_job(struct qs_worker *worker, size_t index, void *cookie, json_t **ret,
		     struct qs_error *err)
{
	const struct timed *t = cookie;

	(void)worker;
	(void)index;
	(void)ret;
	return t->look(t->env, t->cookie, err);
}

static void timed_done(size_t index, json_t *result, const struct qs_error *error, void *cookie)
{
	struct timed *t = cookie;

	(void)index;
	(void)result;
	t->error = *error;
}

int qs_key_in_time(const struct qs_env *env, const char *what, qs_key_look *look,
		   const void *cookie, struct qs_error *err)
{
	struct timed t = { .env = env, .look = look, .cookie = cookie };
	const struct qs_pool pool = {
		.workers = 1,
		.deadline_ms = env->config.key_deadline_s * 1000,
		.job = timed_job,
		.done = timed_done,
		.cookie = &t,
	};
	char seconds[QS_TEXT_SIZE_L];
	int r = qs_pool_run(&pool, 1, err);

	if (r < 0 || t.error.kind == QS_E_NONE)
		return r;
	if (t.error.kind == QS_E_DEADLINE)
		return qs_fail(err, QS_E_DEADLINE,
			       "%s has not answered for %s (key_deadline): the file system "
			       "that it is on, or the server behind that, hangs",
			       what, qs_text_seconds(env->config.key_deadline_s, seconds));
	if (err)
		*err = t.error;
	return qs_kind_errno(t.error.kind);
}

static bool is_default(const char *dir)
{
	return strcmp(dir, DEFAULT_KEYS_DIR) == 0;
}

/* As an open of a key would: walks the path, has it mounted, reads the directory. */
static int touch(const struct qs_env *env, const void *cookie, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, cookie);
	QS_AUTO(qs_auto_closedir) DIR *d = opendir(real);

	(void)err;
	if (d)
		(void)readdir(d);
	return 0;
}

/* ---- may it take new keys? ---- */

static int cannot_open(const char *dir, int code, struct qs_error *err)
{
	int r;

	if (code == ENOENT)
		return qs_fail(err, QS_E_KEY_FILE,
			       "the keys directory %s does not exist; mount its file system, "
			       "or make it (mode 0700) if this is the right place",
			       dir);
	if (code == ENOTDIR)
		return qs_fail(err, QS_E_KEY_FILE, "the keys directory %s is not a directory", dir);
	r = qs_fail_errno(err, code, "cannot open the keys directory %s", dir);
	if (code == EACCES && geteuid() == 0)
		qs_error_append(err, " (root may not look into it: an NFS export needs "
				     "no_root_squash)");
	return r;
}

/* FAT and CIFS show what the mount's options say, whatever chmod is told. */
static const char *private_options(const struct statfs *fs)
{
	switch ((unsigned long)fs->f_type) {
	case MSDOS_SUPER_MAGIC:
	case EXFAT_SUPER_MAGIC:
		return "uid=0,umask=0077";
	case CIFS_SUPER_MAGIC:
	case SMB_SUPER_MAGIC:
	case SMB2_SUPER_MAGIC:
		return "uid=0,file_mode=0600,dir_mode=0700";
	default:
		return NULL;
	}
}

static int check_rights(const char *dir, int fd, struct qs_error *err)
{
	const char *options, *problem;
	struct statfs fs;
	struct stat st;

	if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return qs_fail_errno(err, errno, "cannot look at the keys directory %s", dir);
	if (fs.f_type == AUTOFS_SUPER_MAGIC)
		return qs_fail(err, QS_E_KEY_FILE,
			       "the keys directory %s is an automount that has mounted nothing",
			       dir);
	options = private_options(&fs);
	problem = qs_key_not_private(&st, options ? 077 : 022);
	if (problem && options)
		return qs_fail(err, QS_E_KEY_FILE,
			       "the keys directory %s %s, and its file system keeps no modes: "
			       "mount it with the options %s",
			       dir, problem, options);
	if (problem)
		return qs_fail(err, QS_E_KEY_FILE, "the keys directory %s %s; chmod 0700 %s", dir,
			       problem, dir);
	return 0;
}

/* A read-only file system is left to whoever writes: that is not a matter of rights. */
static int check_writable(const char *dir, int fd, struct qs_error *err)
{
	if (faccessat(fd, ".", W_OK, AT_EACCESS) == 0 || errno != EACCES)
		return 0;
	return qs_fail(err, QS_E_KEY_FILE,
		       "nobody may write to the keys directory %s from here, not even root (an NFS "
		       "export needs no_root_squash)",
		       dir);
}

static bool has_key(int fd)
{
	QS_AUTO(qs_auto_closedir) DIR *d = fdopendir(dup(fd));
	const struct dirent *e;

	while (d && (e = readdir(d))) {
		size_t length = strlen(e->d_name);

		if (length > 4 && strcmp(e->d_name + length - 4, ".key") == 0)
			return true;
	}
	return false;
}

/* A mount that nobody has written down anywhere looks like this while it is away. */
static int check_not_emptied(const struct qs_env *env, int fd, struct qs_error *err)
{
	const char *dir = env->config.keys_dir;
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	int r = qs_crypttab_load(env, &tab, err);

	if (r < 0 || has_key(fd))
		return r;
	for (size_t i = 0; i < qs_crypttab_count(tab); i++) {
		const struct qs_crypttab_entry *e = qs_crypttab_get(tab, i);

		if (e->key && qs_key_is_in_dir(env, e->key))
			return qs_fail(err, QS_E_KEY_FILE,
				       "the keys directory %s has no key in it, though line %u of "
				       "%s names one: is its file system mounted? (If the keys are "
				       "lost, remove their lines first)",
				       dir, e->line, QS_CRYPTTAB);
	}
	return 0;
}

static int check_mounted(const struct qs_env *env, const char *dir, const char *path,
			 struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *missing = qs_key_missing_mount(env, path);

	if (!missing)
		return 0;
	return qs_fail(err, QS_E_KEY_FILE,
		       "the keys directory %s cannot be used: %s; mount it first", dir, missing);
}

/* Returns a descriptor of DIR, which is mounted, ours, and private. */
static int open_dir(const struct qs_env *env, const char *dir, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, dir);
	QS_AUTO(qs_auto_free) char *target = NULL;
	QS_AUTO(qs_auto_close) int fd = -1;
	int r = check_mounted(env, dir, dir, err);

	if (r < 0)
		return r;
	fd = open(real, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return cannot_open(dir, errno, err);
	/* A symbolic link may have led to a mount point. */
	target = realpath(real, NULL);
	if (target)
		r = check_mounted(env, dir, qs_env_logical(env, target), err);
	if (r == 0)
		r = check_rights(dir, fd, err);
	return r < 0 ? r : qs_take_fd(&fd);
}

static int look_at_dir(const struct qs_env *env, const void *cookie, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int fd = open_dir(env, cookie, err);

	return fd < 0 ? fd : 0;
}

static int look_and_write(const struct qs_env *env, const void *cookie, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int fd = open_dir(env, cookie, err);

	return fd < 0 ? fd : check_writable(cookie, fd, err);
}

static int look_for_new(const struct qs_env *env, const void *cookie, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int fd = open_dir(env, cookie, err);
	int r = fd < 0 ? fd : check_writable(cookie, fd, err);

	return r < 0 || is_default(cookie) ? r : check_not_emptied(env, fd, err);
}

static int dir_in_time(const struct qs_env *env, const char *dir, qs_key_look *look,
		       struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *what = qs_printf("the keys directory %s", dir);

	return is_default(dir) ? look(env, dir, err) : qs_key_in_time(env, what, look, dir, err);
}

static int make_default(const struct qs_env *env, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, DEFAULT_KEYS_DIR);

	if (access(real, F_OK) == 0 || errno != ENOENT)
		return 0;
	return qs_file_make_dirs(real, 0700, err);
}

static int check_dir(const struct qs_env *env, qs_key_look *look, struct qs_error *err)
{
	const char *dir = env->config.keys_dir;
	int r = 0;

	if (is_default(dir))
		r = check_mounted(env, dir, dir, err);
	if (r == 0 && is_default(dir))
		r = make_default(env, err);
	return r < 0 ? r : dir_in_time(env, dir, look, err);
}

int qs_key_check_dir(const struct qs_env *env, struct qs_error *err)
{
	return check_dir(env, look_and_write, err);
}

int qs_key_check_new(const struct qs_env *env, struct qs_error *err)
{
	return check_dir(env, look_for_new, err);
}

int qs_key_look_dir(const struct qs_env *env, const char *dir, struct qs_error *err)
{
	return dir_in_time(env, dir, look_at_dir, err);
}

int qs_key_dir_answers(const struct qs_env *env, struct qs_error *err)
{
	const char *dir = env->config.keys_dir;

	return is_default(dir) ? 0 : dir_in_time(env, dir, touch, err);
}
