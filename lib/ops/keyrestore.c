/*
 * keyrestore: what a bundle holds comes back, one file at a time.
 *
 * The whole bundle is authenticated before anything of it is looked at, then it
 * is walked twice: to see what differs (the plan), and to write. Each file is
 * replaced atomically, so a crash leaves the old or the new one; the second run
 * finds what is done already, makes sure that it is durable, and goes on.
 *
 * step                        what a crash after it leaves        a second run
 * 1 read, authenticate, plan  nothing                             does it again
 * 2 configuration             the others missing                  goes on, by that configuration
 * 3 each replaced key: its    a copy of the old key beside it,    finds that copy and makes no
 *   old version, then itself    FILE.1, and the old or new key      second one
 * 4 each header backup, ...   those before it restored            goes on with the next
 * 5 lines of crypttab         keys restored, no line              writes the lines
 *
 * Lines come last: none ever names a key that is not there. What is newer than
 * the bundle must not be lost: header backups and keystore files that are there
 * stay as they are, and a key that differs stops everything unless --force.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/utf8.h"
#include "key/keydir.h"
#include "key/keyfile.h"
#include "key/place.h"
#include "ops/bundle-plan.h"
#include "ops/bundle.h"

/* Old versions of one key that are kept beside it. */
#define VERSIONS_MAX 1000

struct restore {
	const struct qs_keyrestore_options *options;
	struct qs_restore_plan plan;
	size_t next; /* item of the plan that the walk comes to next */
};

/* Copy the key at PATH (logical) to the first free PATH.N, unless one of these is the same. */
static int keep_key(const struct qs_env *env, const char *path, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
	QS_AUTO(qs_secret_done) struct qs_secret old = {};
	int r = qs_file_read_secret(real, QS_MEMBER_MAX, &old, err);

	for (unsigned n = 1; r == 0 && n <= VERSIONS_MAX; n++) {
		QS_AUTO(qs_auto_free) char *version = qs_printf("%s.%u", path, n);
		QS_AUTO(qs_auto_free) char *real_version = qs_env_path(env, version);

		if (access(real_version, F_OK) < 0)
			return qs_key_store(env, version, &old, false, err);
		r = qs_file_equals(real_version, old.data, old.size, err);
		if (r == 1)
			return qs_file_sync(real_version, err);
	}
	return r < 0 ? r
		     : qs_fail(err, QS_E_FAILED, "there are %d old versions of %s; remove some",
			       VERSIONS_MAX, path);
}

static int make_parent(const char *real, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *copy = qs_strdup(real);

	return qs_file_make_dirs(dirname(copy), 0700, err);
}

static int write_key(const struct qs_env *env, const struct qs_restore_item *item,
		     const struct qs_member *m, struct qs_error *err)
{
	bool replace = item->action == QS_RESTORE_REPLACE;
	int r = qs_key_check_dir(env, err);

	if (r == 0 && replace)
		r = keep_key(env, item->path, err);
	return r < 0 ? r : qs_key_store(env, item->path, &m->content, replace, err);
}

/* Its age is told from the time of the file, and the backup is as old as it was. */
static int write_other(const struct qs_env *env, const struct qs_restore_item *item,
		       const struct qs_member *m, struct qs_error *err)
{
	const struct timespec times[2] = { { m->mtime, 0 }, { m->mtime, 0 } };
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, item->path);
	QS_AUTO(qs_auto_free) char *old = qs_printf("%s.qs-bak", real);
	const struct qs_replace how = {
		.mode = m->kind == QS_MEMBER_CONFIG ? 0644 : 0600,
		.exclusive = item->action == QS_RESTORE_CREATE,
		.keep_as = old,
	};
	int r = make_parent(real, err);

	if (r == 0)
		r = qs_file_replace(real, m->content.data, m->content.size, &how, err);
	if (r == 0)
		r = qs_file_equals(real, m->content.data, m->content.size, err);
	if (r == 0)
		r = qs_fail(err, QS_E_IO, "%s reads back differently from what was written", real);
	if (r < 0)
		return r;
	(void)utimensat(AT_FDCWD, real, times, 0);
	return qs_file_sync(real, err);
}

static int write_item(const struct qs_env *env, const struct qs_restore_item *item,
		      const struct qs_member *m, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, item->path);
	bool writes = item->action == QS_RESTORE_CREATE || item->action == QS_RESTORE_REPLACE;
	int same = 0;

	/* The plan was made before the lock: another run may have restored it in between. */
	if (writes && access(real, F_OK) == 0)
		same = qs_file_equals(real, m->content.data, m->content.size, err);
	if (same < 0)
		return same;
	switch (same ? QS_RESTORE_SAME : item->action) {
	case QS_RESTORE_CREATE:
	case QS_RESTORE_REPLACE:
		return m->kind == QS_MEMBER_KEY ? write_key(env, item, m, err)
						: write_other(env, item, m, err);
	case QS_RESTORE_SAME:
		/* A run that was killed may not have come to that. */
		return qs_file_sync(real, err);
	default:
		return 0;
	}
}

/* The plan has the members in the order of the walk. */
static int write_member(struct qs_member *m, void *cookie, struct qs_error *err)
{
	struct restore *run = cookie;
	const struct qs_restore_item *item = &run->plan.items[run->next];

	if (run->next >= run->plan.count || strcmp(item->member, m->name) != 0)
		return 0;
	run->next++;
	return write_item(&run->plan.env, item, m, err);
}

/* With the options that it had; its key may be in another place than it was. */
static int write_line(const struct qs_env *env, struct qs_crypttab *tab,
		      const struct qs_restore_line *l, struct qs_error *err)
{
	const struct qs_manifest_device *d = l->device;
	const char *had = *d->options ? d->options : NULL;
	QS_AUTO(qs_auto_free) char *options = NULL;

	if (had && strcmp(l->key, QS_CRYPTTAB_NO_KEY) != 0 && !qs_crypttab_no_options(had))
		options = qs_key_line_options(env, l->key, had);
	return qs_crypttab_set(tab, d->name, d->device, l->key, options ? options : had, err);
}

static int write_lines(const struct restore *run, struct qs_error *err)
{
	const struct qs_env *env = &run->plan.env;
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, QS_CRYPTTAB);
	int changed = 0;
	int r = qs_crypttab_load(env, &tab, err);

	for (size_t i = 0; r >= 0 && i < run->plan.line_count; i++) {
		const struct qs_restore_line *l = &run->plan.lines[i];

		r = qs_restore_line_action(tab, l, run->options->force);
		if (r == QS_RESTORE_CREATE || r == QS_RESTORE_REPLACE)
			r = write_line(env, tab, l, err);
		else
			r = 0;
		changed += r;
	}
	if (r < 0)
		return r;
	if (changed > 0)
		return qs_crypttab_save(env, tab, err);
	return access(real, F_OK) == 0 ? qs_file_sync(real, err) : 0;
}

static int write_all(struct restore *run, struct qs_bundle *b, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int lock = qs_tab_lock(&run->plan.env, err);
	int r = lock < 0 ? lock : qs_bundle_each(b, write_member, run, err);

	return r < 0 || run->plan.line_count == 0 ? r : write_lines(run, err);
}

static int check_plan(const struct restore *run, const json_t *plan, struct qs_error *err)
{
	const struct qs_keyrestore_options *o = run->options;
	size_t conflicts = qs_restore_count(&run->plan, QS_RESTORE_CONFLICT);

	if (o->dry_run)
		return 1;
	if (conflicts > 0)
		return qs_fail(err, QS_E_REFUSED,
			       "%zu of its keys differ from those that are there, and nothing was "
			       "restored; --dry-run lists them, --only NAME takes the others, "
			       "--force replaces them and keeps the old ones as FILE.1",
			       conflicts);
	if (qs_restore_count(&run->plan, QS_RESTORE_REPLACE) > 0 && o->confirm)
		return o->confirm(o->confirm_cookie, plan, err);
	return 0;
}

static json_t *describe(const struct restore *run, const struct qs_bundle *b)
{
	const struct qs_manifest *m = qs_bundle_manifest(b);

	return json_pack("{s:o,s:o,s:o,s:b,s:o}", "file", qs_utf8_json(run->options->file), "host",
			 qs_utf8_json(m->host), "created", qs_utf8_json(m->created), "dry_run",
			 run->options->dry_run, "items", qs_restore_plan_json(&run->plan));
}

int qs_keyrestore(const struct qs_env *env, const struct qs_keyrestore_options *options,
		  json_t **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *absolute = qs_env_absolute(options->file);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, absolute);
	QS_AUTO(qs_auto_bundle) struct qs_bundle *b = NULL;
	struct restore run = { .options = options };
	int r;

	qs_secret_lock_all();
	r = qs_bundle_open(env, real, &options->unlock, &b, err);
	if (r < 0)
		return r;
	r = qs_restore_plan_make(env, options, b, &run.plan, err);
	if (r == 0) {
		*ret = describe(&run, b);
		r = check_plan(&run, *ret, err);
	}
	if (r == 0)
		r = write_all(&run, b, err);
	qs_restore_plan_done(&run.plan);
	return r < 0 ? r : 0;
}
