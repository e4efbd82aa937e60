/*
 * cryptdestroy. What a crash after each step leaves, and what a second run does:
 *
 *   step                               left behind              second run
 *   refuse what is used or not ours    nothing                  all
 *   copy the header backup of a device + a copy, which counts   copies it again
 *     of the keystore to retired/        as a header backup
 *   close the mapping                  closed, still opens      all
 *   journal "destroy"                  + journal                goes on
 *   keyslot areas, then both headers   a header that no key     erases all of it again
 *     overwritten, synced, read again  opens, or none
 *   key file, then header backups      nothing opens the disk   erases what is left
 *   crypttab line, journal             finished                 "has no LUKS header"
 * (QS_E_NOT_LUKS)
 *
 * That copy is not made with --purge. cryptrestore brings the device back by it, until the
 * retention time is over (ops/retired.h). The secrets beside the disk go only after the disk: until
 * then an interrupted destroy can still be looked at with them.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "key/keydir.h"
#include "key/keyfile.h"
#include "luks/backup.h"
#include "luks/make.h"
#include "ops/internal.h"
#include "ops/journal.h"
#include "ops/open.h"
#include "ops/retired.h"
#include "tab/crypttab.h"

/* Where cryptsetup puts no data, whatever the header says; erased when the header is gone. */
#define USUAL_HEAD (32U << 10)

/* No honest header is larger (luks/backup.c). */
#define HEADER_MAX (136ULL << 20)

struct target {
	struct qs_device *dev; /* NULL: the disk is absent, only key and backups can go */
	int lock;
	char *name, *link;
	char uuid[40];
	uint64_t head, size; /* bytes: both metadata areas; everything before the data */
	bool begun;          /* the journal says so */
};

struct destroy {
	const struct qs_env *env;
	const struct qs_destroy_options *options;
	struct qs_outcomes *outcomes;
	struct target *targets;
	bool preview; /* only look: takes no locks */
};

/* ---- whom ---- */

/* An absent disk that something of ours is left of: by name or by its by-id link. */
static char *name_of_absent(const struct qs_env *env, const char *word)
{
	QS_AUTO(qs_journal_done) struct qs_journal journal = {};
	QS_AUTO(qs_auto_free) char *name = qs_name_of_word(word);

	if (!name)
		return NULL;
	if (!qs_name_is_known(env, name) && qs_journal_read(env, name, &journal, NULL) != 1)
		return NULL;
	return QS_TAKE(name);
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* What to overwrite: by the header, else by its backup, else the usual 16 MiB. */
static void measure(const struct destroy *d, struct target *t, const struct qs_luks_header *now)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header recorded = {};
	const struct qs_luks_header *h = now;
	time_t when;

	if (h->version == 0 && qs_backup_load(d->env, t->name, &recorded, &when, NULL) == 1)
		h = &recorded;
	t->head = h->version == 2 ? 2 * h->metadata_size : USUAL_HEAD;
	t->size = h->version ? smaller(h->data_offset, HEADER_MAX) : QS_DATA_OFFSET;
	if (t->size < t->head)
		t->size = QS_DATA_OFFSET;
	t->size = smaller(t->size, t->dev->size) & ~(uint64_t)4095;
	t->head = smaller(t->head, t->size);
}

static int refuse_foreign(const struct destroy *d, const struct target *t,
			  const struct qs_luks_header *h, struct qs_error *err)
{
	bool ours = t->begun || qs_name_is_known(d->env, t->name) ||
		    (h->version == 2 && strcmp(h->subsystem, QS_SUBSYSTEM) == 0);

	if (ours || (h->version && d->options->force))
		return 0;
	if (h->version)
		return qs_fail(err, QS_E_REFUSED,
			       "%s is a LUKS device that qs-util did not make and has no key of",
			       t->dev->node);
	return qs_fail(err, QS_E_NOT_LUKS,
		       "%s has no LUKS header and is not known: nothing to destroy", t->dev->node);
}

/* A known disk on which somebody made a file system since: not ours to overwrite. */
static int refuse_other_content(const struct destroy *d, const struct target *t, int fd,
				struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *found = NULL;
	int r = qs_device_signatures(fd, t->dev->node, &found, err);

	if (r < 0 || !found || d->options->force || strncmp(found, "crypto_LUKS", 11) == 0)
		return r;
	return qs_fail(err, QS_E_REFUSED, "%s holds %s now, which would be lost", t->dev->node,
		       found);
}

/* The mapping may be open, but nothing may use it; nothing else may stand on the disk. */
static int check_uses(const struct destroy *d, const struct target *t, struct qs_error *err)
{
	const unsigned lines = 1U << QS_USE_CRYPTTAB | 1U << QS_USE_FSTAB;
	QS_AUTO(qs_mapping_list_done) struct qs_mapping_list mappings = {};
	QS_AUTO(qs_auto_device) struct qs_device *dm = NULL;
	QS_AUTO(qs_auto_free) char *node = NULL;
	const struct qs_mapping *m;
	int r = qs_mapping_scan(&mappings, err);

	if (r < 0)
		return r;
	m = qs_mapping_of_device(&mappings, t->dev);
	if (!m)
		return qs_device_check_unused(d->env, t->dev, lines, err);
	node = qs_printf("/dev/%s", m->dm);
	r = qs_device_find(d->env, node, &dm, err);
	if (r == 0)
		r = qs_device_check_unused(d->env, dm, lines, err);
	if (r == 0)
		r = qs_device_check_unused(d->env, t->dev, lines | 1U << QS_USE_HOLDER, err);
	return r;
}

static int look_for_journal(const struct destroy *d, struct target *t, struct qs_error *err)
{
	QS_AUTO(qs_journal_done) struct qs_journal journal = {};
	int r = qs_journal_read(d->env, t->name, &journal, err);

	if (r <= 0)
		return r;
	t->begun = true;
	if (!t->uuid[0])
		(void)snprintf(t->uuid, sizeof(t->uuid), "%s", journal.uuid);
	return 0;
}

static int find_name(const struct destroy *d, struct target *t, const struct qs_luks_header *h,
		     struct qs_error *err)
{
	const char *uuid = h->version ? h->uuid : NULL;

	(void)snprintf(t->uuid, sizeof(t->uuid), "%s", uuid ? uuid : "");
	return qs_device_known_as(d->env, t->dev, uuid, &t->link, &t->name, err);
}

static int prepare_absent(const struct destroy *d, struct target *t, struct qs_outcome *o)
{
	t->name = name_of_absent(d->env, o->device);
	if (!t->name)
		return -ENODEV;
	t->link = qs_name_to_link(t->name);
	o->error = (struct qs_error){};
	qs_outcome_set(&o->name, t->name);
	qs_outcome_set(&o->by_id, t->link);
	qs_outcome_set(
		&o->note,
		"the disk is absent: its key and header backups are erased, its header is not");
	return 0;
}

static int prepare(const struct destroy *d, struct target *t, struct qs_outcome *o)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	struct qs_error *err = &o->error;
	int r = qs_device_find(d->env, o->device, &t->dev, err);

	if (r == -ENODEV)
		return prepare_absent(d, t, o);
	if (r < 0)
		return r;
	qs_outcome_set_device(o, t->dev);
	if (!d->preview) {
		t->lock = qs_device_lock(d->env, t->dev, 0, err);
		if (t->lock < 0)
			return t->lock;
	}
	r = qs_device_read_header(t->dev, &h, err);
	if (r == 0)
		r = find_name(d, t, &h, err);
	if (r < 0)
		return r;
	qs_outcome_set(&o->by_id, t->link);
	qs_outcome_set(&o->name, t->name);
	if (d->preview)
		qs_outcome_detail_disk(o, t->dev);
	r = look_for_journal(d, t, err);
	if (r < 0)
		return r;
	if (t->uuid[0])
		qs_outcome_set(&o->uuid, t->uuid);
	measure(d, t, &h);
	r = refuse_foreign(d, t, &h, err);
	return r < 0 ? r : check_uses(d, t, err);
}

/* ---- in the worker ---- */

static int close_it(const struct destroy *d, const struct target *t, struct qs_error *err)
{
	QS_AUTO(qs_mapping_list_done) struct qs_mapping_list mappings = {};
	const struct qs_mapping *m;
	int r = qs_mapping_scan(&mappings, err);

	if (r < 0)
		return r;
	m = qs_mapping_of_device(&mappings, t->dev);
	return m ? qs_close_mapping(d->env, m, err) : 0;
}

static int zero(int fd, const char *node, uint64_t from, uint64_t to, struct qs_error *err)
{
	static char zeros[1 << 20]; /* not const: a megabyte of zeros need not be in the program */
	int r = 0;

	for (uint64_t at = from; r == 0 && at < to; at += sizeof(zeros))
		r = qs_file_pwrite(fd, zeros, smaller(sizeof(zeros), to - at), (off_t)at);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r < 0 ? qs_fail_errno(err, r, "cannot overwrite the header of %s", node) : 0;
}

/* Read it all again from the disk: nothing but zeros, and nobody sees LUKS there. */
static int check_gone(const struct target *t, int fd, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) void *zeros = calloc(1, t->size);
	QS_AUTO(qs_auto_free) char *found = NULL;
	int r;

	if (!zeros)
		return qs_fail(err, QS_E_MEMORY, "no memory to check %s", t->dev->node);
	r = qs_device_sync_and_compare(fd, t->dev->node, zeros, t->size, err);
	if (r == 0)
		r = qs_device_signatures(fd, t->dev->node, &found, err);
	if (r == 0 && found && strstr(found, "crypto_LUKS"))
		r = qs_fail(err, QS_E_FAILED, "%s still holds %s", t->dev->node, found);
	return r;
}

static int erase_disk(const struct destroy *d, const struct target *t, struct qs_error *err)
{
	struct qs_journal journal = { .op = "destroy", .link = t->link };
	QS_AUTO(qs_auto_close) int disk = -1, fd = -1;
	int r = close_it(d, t, err);

	if (r < 0)
		return r;
	fd = qs_device_open_exclusive(t->dev, &disk, err);
	if (fd < 0)
		return fd;
	r = refuse_other_content(d, t, fd, err);
	if (r < 0)
		return r;
	(void)snprintf(journal.uuid, sizeof(journal.uuid), "%s", t->uuid);
	r = qs_journal_write(d->env, t->name, &journal, err);
	if (r == 0)
		r = zero(fd, t->dev->node, t->head, t->size, err);
	if (r == 0)
		r = zero(fd, t->dev->node, 0, t->head, err);
	if (r == 0)
		r = check_gone(t, fd, err);
	return r;
}

static int erase_secrets(const struct destroy *d, const struct target *t, json_t *result,
			 struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *key = qs_key_path(d->env, t->name);
	int shared = qs_key_is_shared(d->env, t->name, key, err);
	int keys, backups;

	if (shared < 0)
		return shared;
	keys = shared ? 0 : qs_key_erase(d->env, key, err);
	if (keys < 0)
		return keys;
	backups = qs_backup_erase(d->env, t->name, err);
	if (backups < 0)
		return backups;
	(void)json_object_set_new(result, "keys_erased", json_integer(keys));
	(void)json_object_set_new(result, "backups_erased", json_integer(backups));
	if (shared)
		(void)json_object_set_new(result, "key_kept", json_string(key));
	return 0;
}

/* On flash the old blocks are out of our reach; say what is and is not promised. */
static void warn_of_flash(const struct target *t, json_t *result)
{
	if (!t->dev || t->dev->rotational || t->dev->kind == QS_DEVICE_IMAGE)
		return;
	(void)json_object_set_new(
		result, "note",
		json_string("on flash, old copies of the overwritten header may survive in spare "
			    "blocks; without the key file and the backups nothing opens them"));
}

static void note_retained(json_t *result)
{
	const json_t *until = json_object_get(json_object_get(result, "kept"), "until");

	(void)json_object_set_new(
		result, "note",
		json_sprintf("cryptrestore can bring it back until %s, or until `qs-util keystore "
			     "purge --all`",
			     json_string_value(until)));
}

static int destroy_one(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		       struct qs_error *err)
{
	const struct destroy *d = cookie;
	const struct target *t = &d->targets[i];
	int r = 0;

	*ret = json_object();
	if (!d->options->purge)
		r = qs_retired_keep(d->env, t->name, *ret, err);
	if (r >= 0 && t->dev) {
		qs_worker_step(worker, "erase");
		r = erase_disk(d, t, err);
	}
	if (r < 0)
		return r;
	qs_worker_step(worker, "keys");
	r = erase_secrets(d, t, *ret, err);
	if (r < 0)
		qs_error_append(err, " (the disk is erased; run the same command again to finish)");
	else if (json_object_get(*ret, "kept"))
		note_retained(*ret);
	else
		warn_of_flash(t, *ret);
	return r;
}

/* ---- in the parent: after ---- */

static int remove_lines(const struct destroy *d, struct qs_error *err)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	QS_AUTO(qs_auto_close) int lock = qs_tab_lock(d->env, err);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(d->env, QS_CRYPTTAB);
	bool changed = false;
	int r;

	if (lock < 0)
		return lock;
	r = qs_crypttab_load(d->env, &tab, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < d->outcomes->count; i++)
		if (d->outcomes->items[i].error.kind == QS_E_NONE)
			changed |= qs_crypttab_remove(tab, d->targets[i].name) > 0;
	/* Unchanged: perhaps the line went in a run that was killed before it was durable. */
	return changed ? qs_crypttab_save(d->env, tab, err) : qs_file_sync_parent(real, err);
}

static void finish(const struct destroy *d)
{
	struct qs_error table = {};
	int r = remove_lines(d, &table);

	if (r < 0)
		qs_error_append(&table,
				" (disk, key and backups are erased; run the same command again "
				"to finish)");
	for (size_t i = 0; i < d->outcomes->count; i++) {
		struct qs_outcome *o = &d->outcomes->items[i];

		if (o->error.kind != QS_E_NONE)
			continue;
		if (r < 0)
			o->error = table;
		else
			(void)qs_journal_remove(d->env, d->targets[i].name, &o->error);
	}
}

static void targets_done(struct destroy *d)
{
	for (size_t i = 0; d->targets && i < d->outcomes->count; i++) {
		qs_device_free(d->targets[i].dev);
		qs_auto_close(&d->targets[i].lock);
		free(d->targets[i].name);
		free(d->targets[i].link);
	}
	free(d->targets);
}

static int plan(struct destroy *d, const char *const *devices, size_t count, struct qs_error *err)
{
	int r = qs_outcomes_init(d->outcomes, devices, count, err);

	if (r == 0)
		r = qs_key_dir_answers(d->env, err);
	if (r < 0)
		return r;
	d->targets = calloc(count ? count : 1, sizeof(*d->targets));
	if (!d->targets)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", count);
	for (size_t i = 0; i < count; i++)
		d->targets[i].lock = -1;
	for (size_t i = 0; i < count; i++)
		(void)prepare(d, &d->targets[i], &d->outcomes->items[i]);
	return 0;
}

int qs_destroy_preview(const struct qs_env *env, const char *const *devices, size_t count,
		       const struct qs_destroy_options *options, struct qs_outcomes *ret,
		       struct qs_error *err)
{
	struct destroy d = { .env = env, .options = options, .outcomes = ret, .preview = true };
	int r = plan(&d, devices, count, err);

	targets_done(&d);
	return r;
}

int qs_destroy(const struct qs_env *env, const char *const *devices, size_t count,
	       const struct qs_destroy_options *options, struct qs_outcomes *ret,
	       struct qs_error *err)
{
	struct destroy d = { .env = env, .options = options, .outcomes = ret };
	int r = plan(&d, devices, count, err);

	if (r == 0)
		r = qs_outcomes_run(env, ret, NULL, destroy_one, &d, err);
	if (r == 0)
		finish(&d);
	targets_done(&d);
	return r;
}
