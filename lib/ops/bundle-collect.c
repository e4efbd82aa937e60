#define _GNU_SOURCE
#include "ops/bundle-collect.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "key/keydir.h"
#include "key/keyfile.h"
#include "keystore/keystore.h"
#include "keystore/token.h"
#include "luks/backup.h"
#include "ops/internal.h"
#include "ops/keystore.h"
#include "ops/open.h"
#include "tab/crypttab.h"

/* Directories in directories below keystore/ and retired/. */
#define DEPTH_MAX 4

static void *grow(void *list, size_t count, size_t item)
{
	void *grown = reallocarray(list, count + 1, item);

	if (!grown)
		abort();
	return grown;
}

static int add_file(struct qs_collected *c, const char *member, const char *real,
		    struct qs_error *err)
{
	struct qs_collected_file f = {};
	struct stat st;
	int r = qs_member_check(member, &f.kind, err);

	if (r < 0)
		return r;
	if (stat(real, &st) < 0)
		return qs_fail_errno(err, errno, "cannot look at %s", real);
	f.size = (size_t)st.st_size;
	f.mtime = st.st_mtime;
	f.member = qs_strdup(member);
	f.real = qs_strdup(real);
	c->files = grow(c->files, c->count, sizeof(f));
	c->files[c->count++] = f;
	return 0;
}

static bool has_member(const struct qs_collected *c, const char *member)
{
	for (size_t i = 0; i < c->count; i++)
		if (strcmp(c->files[i].member, member) == 0)
			return true;
	return false;
}

/* ---- directories ---- */

struct folder {
	const char *prefix; /* of its members: "cryptconf/keys/" */
	const char *real;
	unsigned depth; /* how many levels of directories in it are taken too */
};

static int add_folder(struct qs_collected *c, const struct folder *folder, struct qs_error *err);

/* A name that no bundle takes is said, but is no reason to have no backup at all. */
static int add_entry(struct qs_collected *c, const struct folder *folder, const char *name,
		     struct qs_error *err) // NOLINT(misc-no-recursion): DEPTH_MAX
{
	QS_AUTO(qs_auto_free) char *member = qs_printf("%s%s", folder->prefix, name);
	QS_AUTO(qs_auto_free) char *real = qs_printf("%s/%s", folder->real, name);
	struct stat st;

	if (stat(real, &st) < 0)
		return qs_fail_errno(err, errno, "cannot look at %s", real);
	if (S_ISDIR(st.st_mode) && folder->depth > 0) {
		QS_AUTO(qs_auto_free) char *prefix = qs_printf("%s/", member);
		const struct folder inner = { prefix, real, folder->depth - 1 };

		return add_folder(c, &inner, err);
	}
	/* Older header backups (NAME.d) and a file system's own directories (lost+found). */
	if (S_ISDIR(st.st_mode))
		return 0;
	if (qs_member_check(member, NULL, NULL) < 0) {
		qs_log(QS_LOG_WARNING, "%s is left out of the bundle: it is no file of ours", real);
		return 0;
	}
	return add_file(c, member, real, err);
}

static int add_folder(struct qs_collected *c, const struct folder *folder,
		      struct qs_error *err) // NOLINT(misc-no-recursion): DEPTH_MAX
{
	struct dirent **found = NULL;
	int count = scandir(folder->real, &found, NULL, alphasort), r = 0;

	if (count < 0 && errno != ENOENT)
		return qs_fail_errno(err, errno, "cannot read the directory %s", folder->real);
	for (int i = 0; i < count; i++) {
		/* Hidden ones are temporaries of interrupted writes. */
		if (r == 0 && found[i]->d_name[0] != '.')
			r = add_entry(c, folder, found[i]->d_name, err);
		free(found[i]);
	}
	free(found);
	return r;
}

static int add_place(const struct qs_env *env, struct qs_collected *c, const char *prefix,
		     const char *logical, unsigned depth, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, logical);
	const struct folder folder = { prefix, real, depth };

	return add_folder(c, &folder, err);
}

/* Returns 1 there, 0 absent. A file that cannot be looked at must not count as absent. */
static int look(const char *real, struct qs_error *err)
{
	if (access(real, F_OK) == 0)
		return 1;
	if (errno == ENOENT || errno == ENOTDIR)
		return 0;
	return qs_fail_errno(err, errno, "cannot look at %s", real);
}

static int add_single(const struct qs_env *env, struct qs_collected *c, const char *member,
		      const char *logical, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, logical);
	int r = look(real, err);

	return r > 0 ? add_file(c, member, real, err) : r;
}

/* An unmounted keys directory is an error; one that was never made is not made here. */
static int add_keys(const struct qs_env *env, struct qs_collected *c, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, env->config.keys_dir);
	const struct folder folder = { QS_MEMBER_KEYS, real, 0 };
	int r = 1;

	/* Another one may be on a server that does not answer: only the check knows how to wait. */
	if (strcmp(env->config.keys_dir, QS_CONF_DIR "/keys") == 0)
		r = look(real, err);
	if (r == 1)
		r = qs_key_look_dir(env, env->config.keys_dir, err);
	return r < 0 ? r : add_folder(c, &folder, err);
}

/* ---- devices ---- */

static bool is_in_keystore(const struct qs_env *env, const struct qs_luks_header *backup)
{
	int number;

	return qs_keystore_is_there(env) && qs_keystore_token_find(backup->json, &number);
}

static void add_device(const struct qs_env *env, struct qs_collected *c, const char *name,
		       const char *device, const char *member, const char *options, bool line)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};

	/* Only a help to find a disk whose link has changed: a backup may be absent. */
	(void)qs_backup_peek(env, name, &h, NULL);
	if (!*member && is_in_keystore(env, &h)) {
		c->by_keystore = grow(c->by_keystore, c->by_keystore_count, sizeof(char *));
		c->by_keystore[c->by_keystore_count++] = qs_strdup(name);
	}
	c->devices = grow(c->devices, c->device_count, sizeof(*c->devices));
	c->devices[c->device_count++] = (struct qs_manifest_device){
		.name = qs_strdup(name),
		.device = qs_strdup(device),
		.key = qs_strdup(member),
		.uuid = qs_strdup(h.uuid),
		.options = qs_strdup(options),
		.in_crypttab = line,
	};
}

static bool has_device(const struct qs_collected *c, const char *name)
{
	for (size_t i = 0; i < c->device_count; i++)
		if (strcmp(c->devices[i].name, name) == 0)
			return true;
	return false;
}

static void add_missing(struct qs_collected *c, const char *name)
{
	c->missing = grow(c->missing, c->missing_count, sizeof(*c->missing));
	c->missing[c->missing_count++] = qs_strdup(name);
}

/*
 * A key of a line that is outside of keys_dir gets the name that it would have there. One that is
 * not there is not missed where the keystore has it.
 */
static int add_outside_key(const struct qs_env *env, struct qs_collected *c,
			   const struct qs_crypttab_entry *e, char **ret_member,
			   struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, e->key);
	QS_AUTO(qs_auto_free) char *member = qs_printf(QS_MEMBER_KEYS "%s.key", e->name);
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	int r = look(real, err);

	if (r < 0)
		return r;
	if (r == 0 && qs_backup_peek(env, e->name, &h, NULL) > 0 && is_in_keystore(env, &h)) {
		*ret_member = qs_strdup("");
		return 0;
	}
	if (r == 0) {
		qs_log(QS_LOG_WARNING, "the key file %s of %s is not there, so the bundle lacks it",
		       e->key, e->name);
		add_missing(c, e->name);
		return 0;
	}
	/* Its namesake in keys_dir is another file and may be another key. */
	if (has_member(c, member)) {
		free(member);
		member = qs_printf(QS_MEMBER_KEYS "%s.listed.key", e->name);
	}
	r = add_file(c, member, real, err);
	if (r == 0)
		*ret_member = QS_TAKE(member);
	return r;
}

/* The member that holds the key of a line; "" for a key command; NULL when it is missing. */
static int find_key(const struct qs_env *env, struct qs_collected *c,
		    const struct qs_crypttab_entry *e, char **ret_member, struct qs_error *err)
{
	size_t length = strlen(env->config.keys_dir);
	QS_AUTO(qs_auto_free) char *member = NULL;

	if (e->key[0] != '/') {
		*ret_member = qs_strdup("");
		return 0;
	}
	if (strncmp(e->key, env->config.keys_dir, length) == 0 && e->key[length] == '/')
		member = qs_printf(QS_MEMBER_KEYS "%s", e->key + length + 1);
	if (!member || !has_member(c, member))
		return add_outside_key(env, c, e, ret_member, err);
	*ret_member = QS_TAKE(member);
	return 0;
}

static int add_line(const struct qs_env *env, struct qs_collected *c,
		    const struct qs_crypttab_entry *e, struct qs_error *err)
{
	const char *options = e->options && !qs_crypttab_no_options(e->options) ? e->options : "";
	QS_AUTO(qs_auto_free) char *member = NULL;
	int r;

	if (has_device(c, e->name))
		return 0;
	if (qs_crypttab_check(e->name, e->device, e->key, *options ? options : "luks", NULL) < 0) {
		qs_log(QS_LOG_WARNING,
		       "line %u of %s cannot be restored by itself: it has bytes that no line of "
		       "ours may have",
		       e->line, QS_CRYPTTAB);
		return 0;
	}
	r = find_key(env, c, e, &member, err);
	if (r == 0 && member)
		add_device(env, c, e->name, e->device, member, options, true);
	return r;
}

/* Without a keystore their lines are nobody's. */
static int add_lost(const struct qs_env *env, struct qs_collected *c, const struct qs_crypttab *tab,
		    struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes lost = {};
	int r = qs_open_find_lost(env, tab, &lost, err);

	for (size_t i = 0; r == 0 && i < lost.count; i++) {
		const struct qs_outcome *o = &lost.items[i];

		if (o->error.kind != QS_E_NONE)
			qs_log(QS_LOG_WARNING, "%s: %s, so the bundle may lack its key", o->name,
			       o->error.text);
		else
			qs_log(QS_LOG_WARNING,
			       "the key of %s is in the keystore, which is not on this machine, so "
			       "the bundle lacks it",
			       o->name);
		add_missing(c, o->name);
	}
	return r;
}

static int add_lines(const struct qs_env *env, struct qs_collected *c, struct qs_error *err)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	int r = qs_crypttab_load(env, &tab, err);

	for (size_t i = 0; r == 0 && i < qs_crypttab_count(tab); i++) {
		const struct qs_crypttab_entry *e = qs_crypttab_get(tab, i);

		if (qs_open_is_our_line(env, e))
			r = add_line(env, c, e, err);
	}
	return r < 0 ? r : add_lost(env, c, tab, err);
}

/* Keys that are named after a device and have no line. */
static void add_named_keys(const struct qs_env *env, struct qs_collected *c)
{
	for (size_t i = 0; i < c->count; i++) {
		const char *file = qs_member_file(c->files[i].member);
		size_t length = strlen(file);
		QS_AUTO(qs_auto_free) char *name = NULL;
		QS_AUTO(qs_auto_free) char *link = NULL;

		if (c->files[i].kind != QS_MEMBER_KEY || length <= 4 ||
		    strcmp(file + length - 4, ".key") != 0)
			continue;
		name = qs_printf("%.*s", (int)(length - 4), file);
		link = qs_name_to_link(name);
		if (link && !has_device(c, name) &&
		    qs_crypttab_check(name, link, "none", "luks", NULL) == 0)
			add_device(env, c, name, link, c->files[i].member, "", false);
	}
}

int qs_collect(const struct qs_env *env, bool headers, struct qs_collected *ret,
	       struct qs_error *err)
{
	int r = add_single(env, ret, "crypttab", QS_CRYPTTAB, err);

	if (r == 0)
		r = add_single(env, ret, "fstab", QS_FSTAB, err);
	if (r == 0)
		r = add_single(env, ret, QS_MEMBER_CONF "qs-util.conf", QS_CONFIG_FILE, err);
	if (r == 0)
		r = add_keys(env, ret, err);
	if (r == 0)
		r = add_lines(env, ret, err);
	if (r == 0 && headers)
		r = add_place(env, ret, QS_MEMBER_HEADERS, env->config.headers_dir, 0, err);
	if (r == 0)
		r = add_place(env, ret, QS_MEMBER_KEYSTORE, QS_KEYSTORE_DIR, DEPTH_MAX, err);
	if (r == 0)
		r = add_place(env, ret, QS_MEMBER_CONF "retired/", QS_CONF_DIR "/retired",
			      DEPTH_MAX, err);
	if (r == 0)
		add_named_keys(env, ret);
	return r;
}

int qs_collected_read(const struct qs_collected_file *f, struct qs_secret *ret,
		      struct qs_error *err)
{
	/* The real path is taken as it is: an empty root puts nothing in front. */
	const struct qs_env here = { .root = "" };

	if (f->kind == QS_MEMBER_KEY)
		return qs_key_load(&here, f->real, ret, err);
	return qs_file_read_secret(f->real, QS_MEMBER_MAX, ret, err);
}

void qs_collected_done(struct qs_collected *c)
{
	for (size_t i = 0; i < c->count; i++) {
		free(c->files[i].member);
		free(c->files[i].real);
	}
	for (size_t i = 0; i < c->device_count; i++)
		qs_manifest_device_done(&c->devices[i]);
	for (size_t i = 0; i < c->missing_count; i++)
		free(c->missing[i]);
	for (size_t i = 0; i < c->by_keystore_count; i++)
		free(c->by_keystore[i]);
	free(c->files);
	free(c->devices);
	free(c->missing);
	free(c->by_keystore);
	*c = (struct qs_collected){};
}
