/*
 * Devices brought to another generation. What a crash after each step of one device
 * leaves, and what a second run does:
 *
 *   step                                  left behind                  second run
 *   unwrap, wrap, unwrap again, compare   nothing                      all
 *   second copy of the backup is the      device old; one copy of the  all
 *     header to come; synced                backup old, one new
 *   header of the device, copy by copy,   device new, backup as before goes on with the backup
 *     synced, read again, compared
 *   first copy of the backup, synced      finished                     nothing to do
 *
 * A device that vanishes in the middle leaves a backup that names both generations: neither
 * goes. With any other order one of them could be erased that only an absent device names.
 * Both generations are there all the while, so header and backup open at every point. A
 * backup that differs from the device in more than tokens is made anew first.
 * Many devices go together: a call of the provider for a hundred, and one flush of the
 * backups' file system between the steps for all of them.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "device/links.h"
#include "keystore/device.h"
#include "keystore/provider.h"
#include "luks/backup.h"
#include "luks/slots.h"
#include "luks/unlock.h"
#include "ops/keystore.h"

/* How often another program may change the header under our hands. */
#define TRIES 3

struct bring {
	const struct qs_env *env;
	const struct qs_keystore *ks;
	struct qs_outcomes *found;
	json_t **made; /* for each of found: its new token, or NULL */
	bool *todo;    /* for each of found: it is our work */
};

static bool is_true(const struct qs_outcome *o, const char *key)
{
	return json_is_true(json_object_get(o->details, key));
}

static uint32_t target_of(const struct qs_outcome *o)
{
	return (uint32_t)json_integer_value(json_object_get(o->details, "target"));
}

/* ---- in a worker: the second copy of the backup ---- */

struct change {
	const struct bring *b;
	const struct qs_outcome *o;
	struct qs_device *dev;
	struct qs_slots slots;
	bool alike; /* the backup has the header that was loaded, byte for byte */
	int lock, disk, fd;
};

static void change_done(struct change *c)
{
	qs_slots_done(&c->slots);
	qs_auto_close(&c->fd);
	qs_auto_close(&c->disk);
	qs_auto_close(&c->lock);
	qs_device_free(c->dev);
}

static int open_device(struct change *c, struct qs_error *err)
{
	const struct qs_env *env = c->b->env;
	int r = qs_device_find(env, c->o->device, &c->dev, err);

	if (r < 0)
		return r;
	c->lock = qs_device_lock(env, c->dev, env->config.lock_wait_s * 1000, err);
	if (c->lock < 0)
		return c->lock;
	c->fd = qs_device_open_below(c->dev, &c->disk, err);
	return c->fd < 0 ? c->fd : 0;
}

static int meanwhile(const struct change *c, struct qs_error *err)
{
	return qs_fail(
		err, QS_E_TEMPORARY,
		"another program has changed the header of %s or its backup meanwhile; try again",
		c->dev->node);
}

/* Somebody else's, or a restored one: its backup is not ours to overwrite by it. */
static int refuse_older(const struct change *c, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header last = {};
	int r = qs_backup_peek(c->b->env, c->o->name, &last, NULL);

	if (r != 1 || last.seqid <= c->slots.header.seqid)
		return 0;
	return qs_fail(
		err, QS_E_REFUSED,
		"the header of %s is older than its backup: `qs-util cryptrestore %s` first, or "
		"make this one its backup with `qs-util cryptbackup %s`",
		c->dev->node, c->dev->node, c->dev->node);
}

static int put_token(struct change *c, const json_t *made, struct qs_error *err)
{
	const json_t *expected = json_object_get(c->o->details, "token");
	int number = -1;
	const json_t *now = qs_keystore_token_find(c->slots.header.json, &number);

	if (!now || !json_equal(now, expected))
		return meanwhile(c, err);
	return made ? qs_slots_replace_token(&c->slots, number, made, err) : 0;
}

/* A backup that has the device's very bytes says the same: it need not be read as a header. */
static int load(struct change *c, struct qs_error *err)
{
	int r;

	qs_slots_done(&c->slots);
	r = qs_slots_load_tokens(c->b->env, c->fd, c->dev->size, c->dev->node, NULL, &c->slots,
				 err);
	c->alike = r == 0 && c->slots.only_tokens &&
		   qs_backup_has(c->b->env, c->o->name, &c->slots.disk, false);
	if (r < 0 || c->alike)
		return r;
	r = qs_luks_check_identity(c->b->env, &c->slots.header, c->o->name, err);
	if (r < 0)
		qs_error_prefix(err, "%s", c->dev->node);
	return r;
}

/* An update of the device that was cut off is completed in memory, and so in the backup. */
static int store_backup(const struct change *c, struct qs_error *err)
{
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	int r;

	if (c->slots.only_tokens)
		return qs_backup_refresh(c->b->env, c->o->name, c->dev->node, err);
	r = qs_slots_image(&c->slots, &image, err);
	if (r == 0)
		r = qs_backup_check_areas(c->b->env, c->o->name, &image, &c->slots.header,
					  c->dev->node, err);
	return r < 0 ? r : qs_backup_store(c->b->env, c->o->name, &image, err);
}

/* What the backup needs for the header in memory; an enum qs_follow. */
static int look_at_backup(const struct change *c, struct qs_header_image *ret, struct qs_error *err)
{
	const struct qs_backup_follow f = {
		.env = c->b->env,
		.name = c->o->name,
		.image = ret,
		.h = &c->slots.header,
		.was = c->slots.only_tokens ? &c->slots.disk : NULL,
	};
	int r;

	qs_header_image_done(ret);
	r = qs_slots_headers(&c->slots, ret, err);
	return r < 0 ? r : qs_backup_may_follow(&f, err);
}

/* One that could not follow is made anew, of the header as it is, before anything changes. */
static int renew_backup(struct change *c, const json_t *made, struct qs_header_image *ret,
			struct qs_error *err)
{
	int r = load(c, err);

	if (r == 0)
		r = store_backup(c, err);
	if (r >= 0)
		r = put_token(c, made, err);
	return r < 0 ? r : look_at_backup(c, ret, err);
}

/* *ret: "begun", unless all of it is done already. */
static int begin(struct change *c, const json_t *made, json_t **ret, struct qs_error *err)
{
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	const struct qs_backup_follow f = {
		.env = c->b->env, .name = c->o->name, .image = &image, .h = &c->slots.header
	};
	int r = load(c, err);

	if (r == 0 && !c->alike)
		r = refuse_older(c, err);
	if (r == 0)
		r = put_token(c, made, err);
	if (r == 0)
		r = look_at_backup(c, &image, err);
	if (r == QS_FOLLOW_NOT)
		r = renew_backup(c, made, &image, err);
	if (r == QS_FOLLOW_NOT)
		r = qs_fail(err, QS_E_FAILED, "the header backup of %s cannot be changed",
			    c->dev->node);
	if (r < 0)
		return r;
	if (r != QS_FOLLOW_SAME || !c->slots.only_tokens)
		*ret = json_pack("{s:b}", "begun", 1);
	return r == QS_FOLLOW_SECOND ? qs_backup_follow_copy(&f, 1, err) : 0;
}

static int begin_job(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		     struct qs_error *err)
{
	const struct bring *b = cookie;
	struct change c = { .b = b, .o = &b->found->items[i], .lock = -1, .disk = -1, .fd = -1 };
	int r;

	qs_worker_step(worker, "backup");
	r = open_device(&c, err);
	if (r == 0)
		r = begin(&c, b->made[i], ret, err);
	change_done(&c);
	return r;
}

/* ---- in a worker: the header, then the first copy of the backup ---- */

/* What lies in the backup is the header as it is now, but for its keystore token. */
static int check_to_come(const struct change *c, const struct qs_luks_header *h, const json_t *made,
			 struct qs_error *err)
{
	const struct qs_luks_header *is = &c->slots.header;
	QS_AUTO(qs_auto_json) json_t *now = json_deep_copy(is->json);
	QS_AUTO(qs_auto_free) char *key = NULL;
	int number = -1;

	if (h->metadata_size != is->metadata_size || strcmp(h->uuid, is->uuid) != 0 ||
	    strcmp(h->label, is->label) != 0 || strcmp(h->subsystem, is->subsystem) != 0 ||
	    !qs_keystore_token_find(now, &number))
		return meanwhile(c, err);
	key = qs_printf("%d", number);
	if (made)
		(void)json_object_set(json_object_get(now, "tokens"), key, (json_t *)made);
	return json_equal(now, h->json) ? 0 : meanwhile(c, err);
}

static int write_header(struct change *c, const json_t *made, const struct qs_header_image *image,
			const struct qs_luks_header *h, struct qs_error *err)
{
	int r = -EAGAIN;

	for (unsigned i = 0; r == -EAGAIN && i < TRIES; i++) {
		qs_slots_done(&c->slots);
		r = qs_slots_load_disk(c->fd, c->dev->node, &c->slots, err);
		if (r == 0)
			r = check_to_come(c, h, made, err);
		/* Also when nothing changed: a run that was killed may not have synced it. */
		if (r == 0)
			r = qs_slots_write_image(&c->slots, c->fd, image, err);
	}
	if (r < 0)
		return r;
	return qs_device_sync_and_compare(c->fd, c->dev->node, image->data, image->size, err);
}

static int end(struct change *c, const json_t *made, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	const struct qs_backup_follow f = {
		.env = c->b->env, .name = c->o->name, .image = &image, .h = &h
	};
	int r = qs_backup_to_come(f.env, f.name, &image, &h, err);

	if (r == 0)
		r = write_header(c, made, &image, &h, err);
	return r < 0 ? r : qs_backup_follow_copy(&f, 0, err);
}

static int end_job(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		   struct qs_error *err)
{
	const struct bring *b = cookie;
	struct change c = { .b = b, .o = &b->found->items[i], .lock = -1, .disk = -1, .fd = -1 };
	int r;

	(void)ret;
	qs_worker_step(worker, "rewrap");
	r = open_device(&c, err);
	if (r == 0)
		r = end(&c, b->made[i], err);
	change_done(&c);
	return r;
}

/* ---- in the parent: all together ---- */

static int open_headers(const struct qs_env *env, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *headers = qs_env_path(env, env->config.headers_dir);
	int dir, r = qs_file_make_dirs(headers, 0700, err);

	if (r < 0)
		return r;
	dir = open(headers, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir < 0 ? qs_fail_errno(err, errno, "cannot open the directory %s", headers) : dir;
}

static int flush(int dir, struct qs_error *err)
{
	return syncfs(dir) < 0 ? qs_fail_errno(err, errno, "cannot sync the header backups") : 0;
}

int qs_keystore_flush(const struct qs_env *env, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int dir = open_headers(env, err);

	return dir < 0 ? dir : flush(dir, err);
}

/* Both rounds are one progress: a device counts when it is through with the second. */
struct rounds {
	const struct qs_env *env;
	uint64_t done, total; /* devices */
	bool last;
};

static void show_progress(const struct qs_progress *p, void *cookie)
{
	struct rounds *rounds = cookie;
	bool done = strcmp(p->step, "done") == 0;

	if (done && !rounds->last)
		return;
	rounds->done += done;
	qs_env_progress(rounds->env, p->device, p->step, rounds->done, rounds->total);
}

/* Leave those that the first round has done with. Returns how many are left. */
static size_t keep_begun(struct bring *b)
{
	size_t left = 0;

	for (size_t i = 0; i < b->found->count; i++) {
		b->todo[i] &= b->found->items[i].error.kind == QS_E_NONE &&
			      is_true(&b->found->items[i], "begun");
		left += b->todo[i];
	}
	return left;
}

static int run_jobs(struct bring *b, struct qs_error *err)
{
	/* Opened before anything is written: syncfs() reports what fails from now on. */
	QS_AUTO(qs_auto_close) int dir = open_headers(b->env, err);
	struct rounds rounds = { .env = b->env };
	struct qs_env env = *b->env;
	size_t left;
	int r;

	if (dir < 0)
		return dir;
	for (size_t i = 0; i < b->found->count; i++)
		rounds.total += b->todo[i];
	env.progress = show_progress;
	env.progress_cookie = &rounds;
	r = qs_outcomes_run(&env, b->found, b->todo, begin_job, b, err);
	left = keep_begun(b);
	if (r < 0 || left == 0)
		return r;
	rounds.done = rounds.total - left;
	rounds.last = true;
	env.config.workers = qs_outcomes_disk_workers(b->env);
	r = flush(dir, err);
	if (r == 0)
		r = qs_outcomes_run(&env, b->found, b->todo, end_job, b, err);
	return r == 0 ? flush(dir, err) : r;
}

/*
 * New tokens for those whose header is not at the generation yet. The others are proven: a token
 * that was damaged in the header must not get into the backup, which may have the last whole one.
 */
static int make_tokens(struct bring *b, struct qs_error *err)
{
	QS_AUTO(qs_auto_free)
	struct qs_rewrap *items = calloc(b->found->count + 1, sizeof(*items));
	QS_AUTO(qs_auto_free) size_t *of = calloc(b->found->count + 1, sizeof(*of));
	size_t n = 0;
	int r;

	if (!items || !of)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", b->found->count);
	for (size_t i = 0; i < b->found->count; i++) {
		const struct qs_outcome *o = &b->found->items[i];

		if (!b->todo[i])
			continue;
		of[n] = i;
		items[n].target = target_of(o);
		items[n].keep = json_integer_value(json_object_get(o->details, "generation")) ==
				(json_int_t)items[n].target;
		items[n].uuid = o->uuid;
		items[n++].token = json_object_get(o->details, "token");
	}
	r = qs_keystore_rewrap(b->env, b->ks, items, n, err);
	for (size_t k = 0; k < n; k++) {
		b->made[of[k]] = items[k].made;
		b->found->items[of[k]].error = items[k].error;
		b->todo[of[k]] &= items[k].error.kind == QS_E_NONE;
	}
	return r;
}

static void tell(const struct bring *b, const bool *tried, const struct qs_error *why,
		 struct qs_outcomes *report)
{
	for (size_t i = 0; i < b->found->count; i++) {
		const struct qs_outcome *from = &b->found->items[i];
		struct qs_outcome *o;

		if (!tried[i])
			continue;
		o = qs_outcomes_add(report, from->device);
		qs_outcome_set(&o->node, from->node);
		qs_outcome_set(&o->name, from->name);
		qs_outcome_set(&o->uuid, from->uuid);
		o->error = from->error.kind == QS_E_NONE ? *why : from->error;
		if (o->error.kind == QS_E_NONE)
			qs_outcome_detail(o, "generation", json_integer(target_of(from)));
	}
}

int qs_keystore_bring(const struct qs_env *env, const struct qs_keystore *ks,
		      struct qs_outcomes *found, struct qs_outcomes *report, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) bool *tried = calloc(found->count + 1, sizeof(*tried));
	QS_AUTO(qs_auto_free) bool *todo = calloc(found->count + 1, sizeof(*todo));
	QS_AUTO(qs_auto_free) json_t **made = calloc(found->count + 1, sizeof(json_t *));
	QS_AUTO(qs_links_done) struct qs_links links = {};
	struct qs_env walk = *env;
	struct bring b = { .env = &walk, .ks = ks, .found = found, .made = made, .todo = todo };
	struct qs_error own = {};
	int r;

	walk.links = &links;
	if (!tried || !made || !todo)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", found->count);
	for (size_t i = 0; i < found->count; i++)
		tried[i] = todo[i] = found->items[i].error.kind == QS_E_NONE &&
				     is_true(&found->items[i], "behind");
	r = make_tokens(&b, &own);
	if (r == 0)
		r = run_jobs(&b, &own);
	if (r < 0 && err)
		*err = own;
	tell(&b, tried, &own, report);
	for (size_t i = 0; i < found->count; i++)
		json_decref(made[i]);
	return r;
}
