/*
 * cryptbackup. What a crash after each step leaves, and what a second run does:
 *
 *   step                              left behind            second run
 *   read and check the header         nothing                all
 *   link the last backup into NAME.d  + a second name of it  takes that name again
 *   put the new one in its place      finished, or a         "same as before"
 *                                     version too many       (the next store prunes)
 *
 * The device is only read.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "luks/backup.h"
#include "ops/internal.h"
#include "ops/journal.h"
#include "tab/crypttab.h"

struct target {
	struct qs_device *dev;
	char *name;
};

struct backup {
	const struct qs_env *env;
	const struct qs_backup_options *options;
	struct target *targets; /* one per outcome */
};

/* ---- in the worker ---- */

static int refuse_hostile(const struct backup *b, const struct target *t,
			  const struct qs_luks_header *h, struct qs_error *err)
{
	int r = h->version == 2 ? qs_luks_json_check(h->json, &b->env->config, err)
				: qs_luks1_check(h, &b->env->config, err);

	if (r < 0)
		qs_error_prefix(err, "the header of %s is not backed up", t->dev->node);
	return r;
}

/*
 * A backup of another volume under the same name is the only way back to that one's data.
 * *ret_other says that it was one, and forced.
 */
static int refuse_other_volume(const struct backup *b, const struct target *t,
			       const struct qs_luks_header *h, bool *ret_other,
			       struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header old = {};
	struct qs_error why = {};
	time_t when;
	int r = qs_backup_load(b->env, t->name, &old, &when, err);

	if (r <= 0 || old.version == 0)
		return r < 0 ? r : 0;
	r = qs_luks_json_compare(h->json, h->uuid, old.json, old.uuid, &why);
	*ret_other = r < 0;
	return r == 0 || b->options->force
		       ? 0
		       : qs_fail(err, QS_E_REFUSED,
				 "%s does not carry the volume that was backed up as %s (%s); "
				 "--force backs it up all the same",
				 t->dev->node, t->name, why.text);
}

static int refuse_pending(const struct backup *b, const struct target *t, struct qs_error *err)
{
	QS_AUTO(qs_journal_done) struct qs_journal journal = {};
	QS_AUTO(qs_auto_free) char *command = NULL;
	int r = qs_journal_read(b->env, t->name, &journal, err);

	if (r <= 0)
		return r;
	command = qs_journal_command(&journal, journal.link);
	return qs_fail(err, QS_E_FORBIDDEN,
		       "a %s of %s was begun and not finished: run `%s` again first", journal.op,
		       t->dev->node, command);
}

static json_t *describe(const struct backup *b, const struct target *t,
			const struct qs_luks_header *h, bool stored, bool other)
{
	QS_AUTO(qs_auto_free) char *path = qs_backup_path(b->env, t->name);
	QS_AUTO(qs_auto_free) char *note = NULL;
	QS_AUTO(qs_backup_list_done) struct qs_backup_list list = {};
	json_t *ret = json_pack("{s:s,s:s}", "uuid", h->uuid, "path", path);
	size_t older = 0;

	if (!stored)
		note = qs_strdup("same as before");
	else if (other)
		note = qs_strdup("stored, of another volume key: if the initramfs opens it, make "
				 "that again, or the next boot refuses it");
	else if (h->version == 2)
		note = qs_printf("stored, sequence %" PRIu64, h->seqid);
	else
		note = qs_strdup("stored");
	(void)json_object_set_new(ret, "note", json_string(note));
	(void)json_object_set_new(ret, "stored", json_boolean(stored));
	if (h->version == 2)
		(void)json_object_set_new(ret, "sequence", json_integer((json_int_t)h->seqid));
	if (qs_backup_list(b->env, t->name, &list, NULL) == 0) {
		for (size_t i = 0; i < list.count; i++)
			older += !list.items[i].current && !list.items[i].raw;
		(void)json_object_set_new(ret, "versions", json_integer((json_int_t)older));
	}
	return ret;
}

/* Under the device's lock, so that no command of ours changes the header meanwhile. */
static int store(const struct backup *b, const struct target *t, json_t **ret, struct qs_error *err)
{
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_auto_close) int fd = open(t->dev->node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool other = false;
	int r;

	if (fd < 0)
		return qs_fail_errno(err, errno, "cannot open %s", t->dev->node);
	r = qs_header_image_read(fd, t->dev->node, &image, &h, err);
	if (r == 0)
		r = refuse_hostile(b, t, &h, err);
	if (r == 0)
		r = refuse_pending(b, t, err);
	if (r == 0)
		r = refuse_other_volume(b, t, &h, &other, err);
	if (r == 0 && !b->options->force)
		r = qs_backup_check_areas(b->env, t->name, &image, &h, t->dev->node, err);
	if (r == 0)
		r = qs_backup_store(b->env, t->name, &image, err);
	if (r < 0)
		return r;
	*ret = describe(b, t, &h, r == 1, other);
	return 0;
}

static int backup_job(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		      struct qs_error *err)
{
	const struct backup *b = cookie;
	const struct target *t = &b->targets[i];
	QS_AUTO(qs_auto_close) int lock = -1;

	qs_worker_step(worker, "backup");
	lock = qs_device_lock(b->env, t->dev, b->env->config.lock_wait_s * 1000, err);
	return lock < 0 ? lock : store(b, t, ret, err);
}

/* ---- in the parent ---- */

static int find(const struct backup *b, struct target *t, const char *word, struct qs_outcome *o)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_auto_free) char *link = NULL;
	int r = qs_device_find(b->env, word, &t->dev, &o->error);

	if (r < 0)
		return r;
	qs_outcome_set_device(o, t->dev);
	r = qs_device_peek_header(t->dev, &h, &o->error);
	if (r < 0)
		return r;
	if (h.uuid[0])
		qs_outcome_set(&o->uuid, h.uuid);
	r = qs_device_known_as(b->env, t->dev, h.uuid[0] ? h.uuid : NULL, &link, &t->name,
			       &o->error);
	if (r < 0)
		return r;
	qs_outcome_set(&o->by_id, link);
	qs_outcome_set(&o->name, t->name);
	if (!qs_luks_header_is_trace(&h) && !qs_name_is_known(b->env, t->name))
		return qs_fail(&o->error, QS_E_NOT_LUKS, "%s has no LUKS header", t->dev->node);
	return 0;
}

static void targets_done(struct target *targets, size_t count)
{
	for (size_t i = 0; targets && i < count; i++) {
		qs_device_free(targets[i].dev);
		free(targets[i].name);
	}
	free(targets);
}

static int plan(struct backup *b, const char *const *devices, size_t count, struct qs_outcomes *ret,
		struct qs_error *err)
{
	int r = qs_outcomes_init(ret, devices, count, err);

	if (r == 0 && count == 0)
		r = qs_outcomes_add_ours(b->env, ret, err);
	if (r < 0)
		return r;
	b->targets = calloc(ret->count ? ret->count : 1, sizeof(*b->targets));
	if (!b->targets)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", ret->count);
	for (size_t i = 0; i < ret->count; i++)
		(void)find(b, &b->targets[i], ret->items[i].device, &ret->items[i]);
	return 0;
}

int qs_backup(const struct qs_env *env, const char *const *devices, size_t count,
	      const struct qs_backup_options *options, struct qs_outcomes *ret,
	      struct qs_error *err)
{
	struct backup b = { .env = env, .options = options };
	int r = plan(&b, devices, count, ret, err);

	if (r == 0)
		r = qs_outcomes_run(env, ret, NULL, backup_job, &b, err);
	targets_done(b.targets, ret->count);
	return r;
}

/* ---- cryptbackup --list ---- */

static json_t *describe_version(const struct qs_env *env, const struct qs_backup_version *v,
				const struct qs_luks_header *now)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, v->path);
	json_t *ret =
		json_pack("{s:s,s:o,s:s}", "path", v->path, "time", qs_json_time(v->time), "kind",
			  v->raw       ? "damaged"
			  : v->current ? "current"
				       : "older");

	if (v->raw)
		return ret;
	if (qs_backup_read(real, &image, &h, NULL, NULL) < 0) {
		(void)json_object_set_new(ret, "usable", json_false());
		return ret;
	}
	(void)json_object_set_new(ret, "usable", json_true());
	if (h.version == 2)
		(void)json_object_set_new(ret, "sequence", json_integer((json_int_t)h.seqid));
	if (now->version)
		(void)json_object_set_new(ret, "agrees",
					  json_boolean(h.version == now->version &&
						       strcmp(h.uuid, now->uuid) == 0 &&
						       h.seqid == now->seqid));
	return ret;
}

/* A name is enough: the backups of a disk that is absent are there all the same. */
static void find_or_name(const struct backup *b, struct target *t, struct qs_outcome *o)
{
	QS_AUTO(qs_auto_free) char *name = qs_name_of_word(o->device);
	QS_AUTO(qs_auto_free) char *link = name ? qs_name_to_link(name) : NULL;
	int r = find(b, t, o->device, o);

	if (r != -ENODEV || !name)
		return;
	o->error = (struct qs_error){};
	if (find(b, t, link, o) != -ENODEV)
		return;
	o->error = (struct qs_error){};
	t->name = QS_TAKE(name);
	qs_outcome_set(&o->name, t->name);
	qs_outcome_set(&o->note, "the disk is absent");
}

static void list_one(const struct backup *b, struct target *t, struct qs_outcome *o)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header now = {};
	QS_AUTO(qs_backup_list_done) struct qs_backup_list list = {};
	json_t *versions;

	find_or_name(b, t, o);
	if (o->error.kind != QS_E_NONE)
		return;
	/* Its damage, if there is one, is cryptstatus's business. */
	if (t->dev)
		(void)qs_device_read_header(t->dev, &now, NULL);
	if (qs_backup_list(b->env, t->name, &list, &o->error) < 0)
		return;
	versions = json_array();
	for (size_t i = 0; i < list.count; i++)
		(void)json_array_append_new(versions,
					    describe_version(b->env, &list.items[i], &now));
	qs_outcome_detail(o, "backups", versions);
}

/* Without arguments: every name that has a backup, whether its disk is there or not. */
static int add_names(const struct qs_env *env, struct qs_outcomes *ret, struct qs_error *err)
{
	QS_AUTO(qs_backup_names_done) char **names = NULL;
	int r = qs_backup_names(env, &names, err);

	for (char **name = names; r == 0 && *name; name++)
		(void)qs_outcomes_add(ret, *name);
	return r;
}

int qs_backup_show(const struct qs_env *env, const char *const *devices, size_t count,
		   struct qs_outcomes *ret, struct qs_error *err)
{
	struct backup b = { .env = env };
	int r = qs_outcomes_init(ret, devices, count, err);

	if (r == 0 && count == 0)
		r = add_names(env, ret, err);
	for (size_t i = 0; r == 0 && i < ret->count; i++) {
		struct target t = {};

		list_one(&b, &t, &ret->items[i]);
		qs_device_free(t.dev);
		free(t.name);
	}
	return r;
}
