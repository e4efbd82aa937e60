#define _GNU_SOURCE
#include "key/keyfile.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "key/place.h"

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

/* WHAT, in all of these: how a sentence begins, "the key file PATH". */
static int absent_key(const struct qs_env *env, const char *what, const char *path,
		      struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *missing = qs_key_missing_mount(env, path);

	return qs_fail(err, QS_E_KEY_FILE, "%s does not exist%s%s", what, missing ? ": " : "",
		       missing ? missing : "");
}

static int open_key(const struct qs_env *env, const char *what, const char *path, struct stat *st,
		    struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
	QS_AUTO(qs_auto_close) int fd = -1;

	/* O_NONBLOCK: a FIFO must not hang us. */
	fd = open(real, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 && errno == ELOOP)
		return qs_fail(err, QS_E_KEY_FILE, "%s is a symbolic link; name the file itself",
			       what);
	if (fd < 0 && errno == ENOENT)
		return absent_key(env, what, path, err);
	if (fd < 0 || fstat(fd, st) < 0) {
		int r = qs_fail_errno(err, errno, "cannot open %s", what);

		if (err)
			err->kind = QS_E_KEY_FILE;
		return r;
	}
	return qs_take_fd(&fd);
}

/*
 * RECORD: the path, if it is no key but a record of the keystore's; else NULL. What a power cut
 * leaves of a file is often its name alone.
 */
static int check_size(intmax_t size, const char *what, const char *record, struct qs_error *err)
{
	if (size == 0 && record)
		return qs_fail(err, QS_E_CONFIG,
			       "%s is not usable: it is empty; take it from a key bundle "
			       "(keyrestore)",
			       record);
	if (size == 0)
		return qs_fail(err, QS_E_KEY_FILE, "%s is empty", what);
	if (size > QS_KEY_MAX)
		return qs_fail(err, QS_E_KEY_FILE, "%s has %jd bytes; LUKS reads at most %u", what,
			       size, QS_KEY_MAX);
	return 0;
}

static int check_key(const struct stat *st, const char *what, const char *path, bool record,
		     struct qs_error *err)
{
	const char *problem;
	int r;

	if (S_ISDIR(st->st_mode))
		return qs_fail(err, QS_E_KEY_FILE, "%s is a directory", what);
	if (!S_ISREG(st->st_mode))
		return qs_fail(err, QS_E_KEY_FILE, "%s is not a regular file", what);
	r = check_size(st->st_size, what, record ? path : NULL, err);
	if (r < 0)
		return r;
	problem = qs_key_not_private(st, 077);
	if (problem)
		return qs_fail(
			err, QS_E_KEY_FILE,
			"%s %s (mode %04o); chmod 0400 %s, and use a new key if others may have "
			"read it",
			what, problem, (unsigned)st->st_mode & 07777U, path);
	return 0;
}

/* ---- in memory ---- */

static bool is_held(const struct qs_env *env, const char *path)
{
	size_t length = env->held ? strlen(env->held->dir) : 0;

	return length > 0 && strncmp(path, env->held->dir, length) == 0 && path[length] == '/';
}

/* NULL: it does not exist. */
static const struct qs_secret *find_held(const struct qs_held_files *held, const char *path)
{
	for (size_t i = 0; i < held->count; i++)
		if (strcmp(held->paths[i], path) == 0)
			return &held->contents[i];
	return NULL;
}

static int load_held(const struct qs_held_files *held, const char *what, const char *path,
		     bool record, struct qs_secret *ret, struct qs_error *err)
{
	const struct qs_secret *content = find_held(held, path);
	int r;

	if (!content)
		return qs_fail(err, QS_E_KEY_FILE, "the key bundle has no %s", path);
	r = check_size((intmax_t)content->size, what, record ? path : NULL, err);
	return r < 0 ? r : qs_secret_copy(content, ret, err);
}

/* ---- */

static int load(const struct qs_env *env, const char *what, const char *path, bool record,
		struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	QS_AUTO(qs_auto_close) int fd = -1;
	struct stat st;
	int r;

	if (is_held(env, path))
		return load_held(env->held, what, path, record, ret, err);
	fd = open_key(env, what, path, &st, err);
	if (fd < 0)
		return fd;
	r = check_key(&st, what, path, record, err);
	if (r < 0)
		return r;
	r = qs_secret_init(&key, (size_t)st.st_size, err);
	if (r < 0)
		return r;
	r = qs_file_pread(fd, key.data, key.size, 0);
	if (r < 0)
		return qs_fail_errno(err, r, "cannot read %s", what);
	*ret = qs_secret_move(&key);
	return 0;
}

int qs_key_load_as(const struct qs_env *env, const char *what, const char *path,
		   struct qs_secret *ret, struct qs_error *err)
{
	return load(env, what, path, false, ret, err);
}

static int load_file(const struct qs_env *env, const char *path, bool record, struct qs_secret *ret,
		     struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *what = qs_printf("the key file %s", path);

	return load(env, what, path, record, ret, err);
}

int qs_key_load(const struct qs_env *env, const char *path, struct qs_secret *ret,
		struct qs_error *err)
{
	return load_file(env, path, false, ret, err);
}

int qs_key_load_record(const struct qs_env *env, const char *path, struct qs_secret *ret,
		       struct qs_error *err)
{
	return load_file(env, path, true, ret, err);
}

static int load_if_there(const struct qs_env *env, const char *path, bool record,
			 struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
	int r;

	if (is_held(env, path) ? !find_held(env->held, path)
			       : access(real, F_OK) < 0 && errno == ENOENT)
		return 0;
	r = load_file(env, path, record, ret, err);
	return r < 0 ? r : 1;
}

int qs_key_load_if_there(const struct qs_env *env, const char *path, struct qs_secret *ret,
			 struct qs_error *err)
{
	return load_if_there(env, path, false, ret, err);
}

int qs_key_load_record_if_there(const struct qs_env *env, const char *path, struct qs_secret *ret,
				struct qs_error *err)
{
	return load_if_there(env, path, true, ret, err);
}

int qs_key_erase(const struct qs_env *env, const char *path, struct qs_error *err)
{
	static const char *const suffixes[] = { QS_KEY_NEW, QS_KEY_OLD, "" };
	int r = 0;

	for (size_t i = 0; r >= 0 && i < QS_ARRAY_SIZE(suffixes); i++) {
		QS_AUTO(qs_auto_free) char *logical = qs_printf("%s%s", path, suffixes[i]);
		QS_AUTO(qs_auto_free) char *real = qs_env_path(env, logical);

		r = qs_file_erase(real, err);
	}
	return r;
}
