/*
 * cryptformat, in seven steps. What a crash after each
 * leaves, and what a second run of the same command does:
 *
 *   step                         left behind             second run
 *   probe                        nothing                 all
 *   journal "format"             + journal               goes on
 *   key file                     + durable key           takes the same key
 *   header (areas, copy 2, 1)    + perhaps a header      no header: writes it anew with the same
 *                                                        key; a header: proves it and goes on
 *   prove, header backup         + backup                proves again, backup is the same
 *   crypttab                     + line                  line is the same
 *   journal removed              finished                "is formatted already" (QS_E_EXISTS)
 *   open                         + mapping               the same
 *
 * Where the keystore wraps the key there is no key file: a random key is in memory only, and its
 * wrapping is the token of the new header, of which the same areas and copies are written in the
 * same order. So the key is durable when its header is; a second run that finds no whole header
 * makes another key, and one that finds it unwraps what the disk holds. Whether the keystore wraps
 * at all is proven before anything else, once for all devices.
 *
 * A key is never deleted because a later step failed: a header may hold it. A
 * header is never written again once its backup exists: there may be data.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "key/command.h"
#include "key/keydir.h"
#include "key/keyfile.h"
#include "key/place.h"
#include "keystore/provider.h"
#include "luks/unlock.h"
#include "ops/format.h"
#include "ops/journal.h"
#include "ops/keystore.h"
#include "ops/open.h"
#include "tab/crypttab.h"

/* udev is quick, but not on a system that has just got a hundred disks. */
#define LINK_WAIT_MS 30000

static int set_line(const struct qs_format_run *f, struct qs_crypttab *tab, size_t i)
{
	const struct qs_format_target *t = &f->targets[i];

	return qs_key_set_line(f->env, tab, t->name, t->link, t->key_file,
			       &f->outcomes->items[i].error);
}

/* Step 6 for all devices that came so far: one lock, one rewrite. */
static int write_crypttab(const struct qs_format_run *f, struct qs_error *err)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	QS_AUTO(qs_auto_close) int lock = qs_tab_lock(f->env, err);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(f->env, QS_CRYPTTAB);
	bool changed = false, ours = false;
	int r;

	if (lock < 0)
		return lock;
	r = qs_crypttab_load(f->env, &tab, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < f->outcomes->count; i++) {
		if (f->outcomes->items[i].error.kind != QS_E_NONE)
			continue;
		r = set_line(f, tab, i);
		changed |= r > 0;
		ours |= r >= 0;
	}
	if (changed)
		return qs_crypttab_save(f->env, tab, err);
	return ours ? qs_file_sync(real, err) : 0;
}

static void fail_rest(struct qs_outcomes *list, const struct qs_error *err)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->items[i].error.kind == QS_E_NONE)
			list->items[i].error = *err;
}

static int open_one(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		    struct qs_error *err)
{
	const struct qs_format_run *f = cookie;
	const struct qs_format_target *t = &f->targets[i];
	const struct qs_open_request request = {
		.name = t->name,
		.link = t->link,
		.node = t->dev->node,
		.key_files = { qs_format_has_file(t) ? t->key_file : NULL },
		.command = t->command,
		.keystore = t->keystore,
		.locked = true,
	};
	int r;

	qs_worker_step(worker, "open");
	/* A by-uuid link appears only after udev has seen the header; the line in crypttab needs
	 * it. */
	if (qs_device_wait_link(f->env, t->dev, t->link, LINK_WAIT_MS, err) < 0)
		qs_log(QS_LOG_WARNING, "%s", err->text);
	r = qs_open_request_run(f->env, worker, &request, ret, err);
	if (r < 0)
		qs_error_append(err,
				" (key, header, backup%s are in place; what is left is `qs-util "
				"cryptopen %s`)",
				f->options->no_crypttab ? "" : " and crypttab line", t->link);
	return r;
}

/* Step 7 for all of them: one flush. */
static void finish(const struct qs_format_run *f)
{
	struct qs_error sync = {};
	size_t dropped = 0;

	for (size_t i = 0; i < f->outcomes->count; i++) {
		struct qs_outcome *o = &f->outcomes->items[i];

		if (o->error.kind == QS_E_NONE)
			dropped += qs_journal_drop(f->env, f->targets[i].name, &o->error) == 0;
	}
	if (dropped > 0 && qs_journal_sync(f->env, &sync) < 0)
		fail_rest(f->outcomes, &sync);
}

static int run_steps(struct qs_format_run *f, struct qs_error *err)
{
	struct qs_error table = {};
	int r;

	if (f->outcomes->count > 1)
		qs_luks_warm_up();
	r = qs_outcomes_run(f->env, f->outcomes, NULL, qs_format_device, f, err);
	if (r < 0)
		return r;
	if (!f->options->no_crypttab && write_crypttab(f, &table) < 0) {
		qs_error_append(&table,
				" (key, header and backup are in place; when this is mended run "
				"the same command again)");
		fail_rest(f->outcomes, &table);
	}
	finish(f);
	if (f->options->no_open)
		return 0;
	return qs_outcomes_run(f->env, f->outcomes, NULL, open_one, f, err);
}

static int refuse_twice(const struct qs_format_run *f, size_t i)
{
	const struct qs_format_target *t = &f->targets[i];

	for (size_t j = 0; j < i; j++) {
		const struct qs_format_target *other = &f->targets[j];

		if (other->name && t->name && strcmp(other->name, t->name) == 0)
			return qs_fail(&f->outcomes->items[i].error, QS_E_USAGE,
				       "%s and %s would both be %s", other->dev->node, t->dev->node,
				       t->name);
	}
	return 0;
}

static void targets_done(struct qs_format_target *targets, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		qs_device_free(targets[i].dev);
		qs_auto_close(&targets[i].lock);
		free(targets[i].link);
		free(targets[i].name);
		free(targets[i].key_file);
	}
	free(targets);
}

static int look_at_key(const struct qs_env *env, const void *cookie, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = {};

	return qs_key_load(env, cookie, &key, err);
}

/*
 * Held until all is done. A generation that cannot wrap, for its provider is out of reach, is told
 * here; and what workers will need of it is got.
 */
static int take_keystore(struct qs_format_run *f, size_t count, struct qs_error *err)
{
	const struct qs_env *env = f->env;
	int r;

	if (!qs_keystore_is_there(env) && !f->options->key)
		return 0;
	f->lock = qs_keystore_lock(env, env->config.lock_wait_s * 1000, err);
	r = f->lock < 0 ? f->lock : qs_keystore_load_enabled(env, &f->ks, err);
	if (r < 0 && !f->options->key)
		qs_error_append(err, " (with --key-file-only, devices get key files)");
	if (r < 0)
		return r;
	f->keystore = true;
	f->generation = qs_keystore_wraps_with(&f->ks);
	if (f->options->key)
		r = qs_keystore_take_key(env, &f->ks, f->options->key, &f->generation, err);
	if (r < 0)
		return r;
	/* One for each device, and the probe's. */
	r = qs_keystore_prepare_wrapping(env, &f->ks, f->generation, count + 1, true, err);
	if (r == 0)
		r = qs_keystore_probe(env, &f->ks, f->generation, err);
	if (r < 0)
		qs_error_prefix(err, "the keystore wraps no key now");
	return r;
}

/* Before any device is touched: is there a place that the keys can come from? */
static int check_key_source(struct qs_format_run *f, size_t count, struct qs_error *err)
{
	const struct qs_format_options *options = f->options;
	QS_AUTO(qs_auto_free) char *what = NULL;
	const struct qs_env *env = f->env;
	int r;

	if (options->key_file) {
		what = qs_printf("the key file %s", options->key_file);
		return qs_key_in_time(env, what, look_at_key, options->key_file, err);
	}
	if (!options->key_file_only && !options->key && qs_key_command_is_set(env))
		return qs_key_command_check(env, err);
	r = options->key_file_only ? 0 : take_keystore(f, count, err);
	return r < 0 || f->keystore ? r : qs_key_check_new(env, err);
}

static int format_all(struct qs_format_run *f, size_t count, struct qs_error *err)
{
	int r;

	f->targets = calloc(count ? count : 1, sizeof(*f->targets));
	if (!f->targets)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", count);
	for (size_t i = 0; i < count; i++)
		f->targets[i].lock = -1;
	for (size_t i = 0; i < count; i++)
		if (qs_format_prepare(f, &f->targets[i], &f->outcomes->items[i]) == 0)
			(void)refuse_twice(f, i);
	r = run_steps(f, err);
	targets_done(f->targets, count);
	return r;
}

int qs_format(const struct qs_env *env, const char *const *devices, size_t count,
	      const struct qs_format_options *options, struct qs_outcomes *ret,
	      struct qs_error *err)
{
	struct qs_format_run f = { .env = env, .options = options, .outcomes = ret, .lock = -1 };
	int r = check_key_source(&f, count, err);

	if (r == 0)
		r = qs_outcomes_init(ret, devices, count, err);
	if (r == 0)
		r = format_all(&f, count, err);
	qs_auto_close(&f.lock);
	return r;
}
