/*
 * cryptrestore, before anything is touched: which device, and which header it
 * would get. Whether it may get it is restore-check.c's.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/sum.h"
#include "ops/journal.h"
#include "ops/restore.h"
#include "ops/retired.h"

void qs_restore_backup_done(struct qs_restore_backup *b)
{
	free(b->path);
	qs_header_image_done(&b->image);
	qs_luks_header_done(&b->h);
	*b = (struct qs_restore_backup){};
}

void qs_restore_target_done(struct qs_restore_target *t)
{
	qs_device_free(t->dev);
	qs_auto_close(&t->fd);
	qs_auto_close(&t->lock);
	free(t->link);
	free(t->name);
	free(t->damage);
	qs_header_image_done(&t->present);
	qs_luks_header_done(&t->has);
	qs_restore_backup_done(&t->best);
	qs_restore_backup_done(&t->from);
}

/* ---- the device ---- */

static bool is_unusable(const struct qs_error *err)
{
	return err->kind == QS_E_DAMAGED || err->kind == QS_E_HOSTILE;
}

/* What is left of the header: the whole of it, made whole, or only what it says of itself. */
static int read_present(struct qs_restore_target *t, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	struct qs_error own = {};
	int r = qs_luks_header_read(t->fd, &h, err);

	if (r < 0) {
		qs_error_prefix(err, "%s", t->dev->node);
		return r;
	}
	t->damage = qs_luks_header_damage(&h, t->fd, t->dev->node);
	if (!t->damage && h.copies_differ)
		t->damage = qs_strdup("the two copies of the LUKS2 header differ, as an update of "
				      "it was interrupted");
	t->intact = h.version && !t->damage;
	if (t->intact)
		r = qs_header_image_read(t->fd, t->dev->node, &t->present, &t->has, &own);
	else
		r = qs_header_image_salvage(t->fd, t->dev->node, &t->present, &t->has, &own);
	if (r < 0 && !is_unusable(&own)) {
		if (err)
			*err = own;
		return r;
	}
	if (r < 0) {
		t->intact = false;
		memcpy(t->has.uuid, h.uuid, sizeof(t->has.uuid));
	}
	return 0;
}

static int look_at_device(const struct qs_restore_run *run, struct qs_restore_target *t,
			  struct qs_outcome *o)
{
	struct qs_error *err = &o->error;
	int r = qs_device_find(run->env, o->device, &t->dev, err);

	if (r < 0)
		return r;
	qs_outcome_set_device(o, t->dev);
	if (!run->preview) {
		t->lock = qs_device_lock(run->env, t->dev, 0, err);
		if (t->lock < 0)
			return t->lock;
	}
	t->fd = open(t->dev->node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (t->fd < 0)
		return qs_fail_errno(err, errno, "cannot open %s", t->dev->node);
	return read_present(t, err);
}

static int find_name(const struct qs_restore_run *run, struct qs_restore_target *t,
		     struct qs_outcome *o)
{
	const char *uuid = t->has.uuid[0] ? t->has.uuid : t->from.h.uuid;
	int r = qs_device_known_as(run->env, t->dev, uuid[0] ? uuid : NULL, &t->link, &t->name,
				   &o->error);

	if (r < 0)
		return r;
	qs_outcome_set(&o->by_id, t->link);
	qs_outcome_set(&o->name, t->name);
	if (t->has.uuid[0])
		qs_outcome_set(&o->uuid, t->has.uuid);
	return 0;
}

/* ---- backups ---- */

/* PATH is a real path, SHOWN what a person calls it. */
static int read_backup(const char *path, const char *shown, struct qs_restore_backup *ret,
		       struct qs_error *err)
{
	int r = qs_backup_read(path, &ret->image, &ret->h, &ret->time, err);

	if (r == 0)
		ret->path = qs_strdup(shown);
	return r;
}

/* The newest version of NAME that can be used. Returns 1 found, 0 not. */
static int find_newest(const struct qs_restore_run *run, const char *name,
		       struct qs_restore_backup *ret, struct qs_error *err)
{
	QS_AUTO(qs_backup_list_done) struct qs_backup_list list = {};
	int r = qs_backup_list(run->env, name, &list, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < list.count && !list.items[i].raw; i++) {
		QS_AUTO(qs_auto_free) char *real = qs_env_path(run->env, list.items[i].path);
		struct qs_error own = {};

		if (read_backup(real, list.items[i].path, ret, &own) == 0 &&
		    qs_restore_check_hostile(run->env, &ret->h, &own) == 0)
			return 1;
		qs_restore_backup_done(ret);
		if (own.kind && !is_unusable(&own)) {
			*err = own;
			return qs_kind_errno(own.kind);
		}
	}
	return 0;
}

/* The disk has got another link since: its backup has the old name and the same UUID. */
static int find_by_uuid(const struct qs_restore_run *run, const char *uuid,
			struct qs_restore_backup *ret, struct qs_error *err)
{
	QS_AUTO(qs_backup_names_done) char **names = NULL;
	int r = qs_backup_names(run->env, &names, err);

	for (char **name = names; r == 0 && *name; name++) {
		QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};

		if (qs_backup_peek(run->env, *name, &h, NULL) == 1 && strcasecmp(h.uuid, uuid) == 0)
			r = find_newest(run, *name, ret, err);
	}
	return r;
}

/* A destroyed device inside its retention time: it has no header, so only its name tells. */
static int find_retired(const struct qs_restore_run *run, const char *name,
			struct qs_restore_backup *ret, struct qs_error *err)
{
	QS_AUTO(qs_retired_list_done) struct qs_retired_list list = {};
	int r = qs_retired_list(run->env, &list, err);

	for (size_t i = 0; r == 0 && i < list.count; i++) {
		QS_AUTO(qs_auto_free) char *real = qs_env_path(run->env, list.items[i].path);

		if (strcmp(list.items[i].name, name) == 0)
			return read_backup(real, list.items[i].path, ret, err);
	}
	return r;
}

static int find_best(const struct qs_restore_run *run, struct qs_restore_target *t,
		     struct qs_error *err)
{
	int r = find_newest(run, t->name, &t->best, err);

	if (r == 0 && t->has.uuid[0])
		r = find_by_uuid(run, t->has.uuid, &t->best, err);
	if (r == 0 && !t->best.path && !t->has.uuid[0])
		r = find_retired(run, t->name, &t->best, err);
	return r < 0 ? r : 0;
}

static int find_sequence(const struct qs_restore_run *run, struct qs_restore_target *t,
			 struct qs_error *err)
{
	QS_AUTO(qs_backup_list_done) struct qs_backup_list list = {};
	uint64_t wanted = run->options->sequence;
	int r = qs_backup_list(run->env, t->name, &list, err);

	for (size_t i = 0; r == 0 && i < list.count && !list.items[i].raw; i++) {
		const struct qs_backup_version *v = &list.items[i];
		QS_AUTO(qs_auto_free) char *real = qs_env_path(run->env, v->path);

		if (!v->current && v->number != wanted)
			continue;
		r = read_backup(real, v->path, &t->from, v->current ? NULL : err);
		if (r == 0 && (!v->current || t->from.h.seqid == wanted))
			return 0;
		qs_restore_backup_done(&t->from);
		r = v->current ? 0 : r;
	}
	if (r < 0)
		return r;
	return qs_fail(err, QS_E_FAILED,
		       "%s has no backup with the sequence number %" PRIu64
		       "; `qs-util cryptbackup --list %s` shows what there is",
		       t->name, wanted, t->link);
}

/* ---- the choice ---- */

static bool is_same_volume(const struct qs_luks_header *a, const struct qs_luks_header *b)
{
	return a->version == b->version &&
	       qs_luks_json_compare(a->json, a->uuid, b->json, b->uuid, NULL) == 0;
}

static int copy_image(const struct qs_header_image *from, struct qs_header_image *ret,
		      struct qs_error *err)
{
	ret->data = malloc(from->size);
	if (!ret->data)
		return qs_fail(err, QS_E_MEMORY, "no memory for a header");
	memcpy(ret->data, from->data, from->size);
	ret->size = from->size;
	return 0;
}

static void copy_header(const struct qs_luks_header *from, struct qs_luks_header *ret)
{
	*ret = *from;
	json_incref(ret->json);
}

static int take_best(struct qs_restore_target *t, struct qs_error *err)
{
	t->source = QS_RESTORE_BACKUP;
	t->from.path = qs_strdup(t->best.path);
	t->from.time = t->best.time;
	copy_header(&t->best.h, &t->from.h);
	return copy_image(&t->best.image, &t->from.image, err);
}

/* The device's own header; keyslots that are damaged come from the backup if it knows them. */
static int take_present(struct qs_restore_target *t, struct qs_error *err)
{
	int r = copy_image(&t->present, &t->from.image, err);

	if (r < 0)
		return r;
	t->source = QS_RESTORE_COPY;
	copy_header(&t->has, &t->from.h);
	if (t->best.path)
		qs_luks_areas_copy(
			&t->has,
			qs_luks_areas_differ(&t->has, &t->present, &t->best.h, &t->best.image),
			&t->best.image, &t->from.image);
	return 0;
}

/*
 * The newer one of what survives and the newest backup; of equal ones the backup.
 * LUKS1 has no numbers: its header is good or gone.
 */
static int choose(const struct qs_restore_run *run, struct qs_restore_target *t,
		  struct qs_error *err)
{
	bool usable = t->present.data && qs_restore_check_hostile(run->env, &t->has, NULL) == 0;

	if (!usable && !t->best.path)
		return qs_fail(err, QS_E_DAMAGED,
			       "%s: no copy of a LUKS header can be used, and there is no header "
			       "backup of %s; if there is one elsewhere, name its file",
			       t->dev->node, t->name);
	if (!usable)
		return take_best(t, err);
	if (!t->best.path)
		return take_present(t, err);
	if (!is_same_volume(&t->has, &t->best.h) || t->has.seqid < t->best.h.seqid ||
	    (t->has.seqid == t->best.h.seqid && json_equal(t->has.json, t->best.h.json)))
		return take_best(t, err);
	return take_present(t, err);
}

/* What an interrupted run was about to write is the current backup, if it came that far. */
static int read_begun(const struct qs_restore_run *run, const struct qs_restore_target *t,
		      const struct qs_journal *journal, struct qs_restore_backup *ret)
{
	QS_AUTO(qs_auto_free) char *logical = qs_backup_path(run->env, t->name);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(run->env, logical);
	char sum[QS_SUM_L];

	if (read_backup(real, logical, ret, NULL) < 0)
		return 0;
	qs_sum(ret->image.data, ret->image.size, sum);
	return strcmp(sum, journal->image) == 0;
}

static bool is_same_content(const struct qs_restore_backup *a, const struct qs_restore_backup *b)
{
	if (a->h.version == 2 && b->h.version == 2)
		return strcmp(a->h.uuid, b->h.uuid) == 0 && json_equal(a->h.json, b->h.json);
	return a->image.size == b->image.size &&
	       memcmp(a->image.data, b->image.data, a->image.size) == 0;
}

/* Go on with an interrupted restore, unless another header was named since. */
static int look_for_journal(const struct qs_restore_run *run, struct qs_restore_target *t,
			    struct qs_error *err)
{
	QS_AUTO(qs_restore_backup_done) struct qs_restore_backup begun = {};
	QS_AUTO(qs_journal_done) struct qs_journal journal = {};
	QS_AUTO(qs_auto_free) char *command = NULL;
	int r = qs_journal_read(run->env, t->name, &journal, err);

	if (r <= 0)
		return r;
	command = qs_journal_command(&journal, t->link);
	if (strcmp(journal.op, "restore") != 0)
		return run->options->force
			       ? 0
			       : qs_fail(err, QS_E_REFUSED,
					 "a %s of %s was begun: finish it with `%s`; --force "
					 "puts a header back instead",
					 journal.op, t->dev->node, command);
	if (!read_begun(run, t, &journal, &begun) ||
	    (t->from.path && !is_same_content(&begun, &t->from)))
		return 0;
	qs_restore_backup_done(&t->from);
	t->from = begun;
	begun = (struct qs_restore_backup){};
	t->source = QS_RESTORE_BACKUP;
	t->begun = true;
	return 0;
}

/* ---- the sequence number ---- */

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* The largest sequence number that a backup claims. */
static int newest_number(const struct qs_restore_run *run, const struct qs_restore_target *t,
			 uint64_t *ret, struct qs_error *err)
{
	QS_AUTO(qs_backup_list_done) struct qs_backup_list list = {};
	int r = qs_backup_list(run->env, t->name, &list, err);

	*ret = t->best.h.seqid;
	for (size_t i = 0; r == 0 && i < list.count; i++)
		*ret = larger(*ret, list.items[i].number);
	return r;
}

/*
 * A header that takes the place of a newer one gets a number above all known
 * ones. Then its first copy counts as soon as it is whole, where with its own
 * number the second copy of the old header would win; and versions stay in order.
 */
static int raise_sequence(const struct qs_restore_run *run, struct qs_restore_target *t,
			  struct qs_error *err)
{
	bool alike = json_equal(t->has.json, t->from.h.json) &&
		     strcasecmp(t->has.uuid, t->from.h.uuid) == 0;
	uint64_t newest = 0;
	int r;

	if (t->begun || t->from.h.version != 2 || t->source == QS_RESTORE_COPY)
		return 0;
	/* Restored already: it has its number. */
	if (alike && t->has.seqid >= t->from.h.seqid)
		return qs_header_image_set_seqid(&t->from.image, &t->from.h, t->has.seqid, err);
	r = newest_number(run, t, &newest, err);
	if (r < 0 || (t->from.h.seqid >= newest && t->from.h.seqid > t->has.seqid))
		return r;
	newest = larger(newest, t->has.seqid);
	if (newest == UINT64_MAX)
		return qs_fail(err, QS_E_HOSTILE, "the sequence number of %s is at its end",
			       t->dev->node);
	return qs_header_image_set_seqid(&t->from.image, &t->from.h, newest + 1, err);
}

/* Does the device hold all this already? */
static int compare_device(struct qs_restore_target *t, struct qs_error *err)
{
	QS_AUTO(qs_header_image_done) struct qs_header_image now = {};
	struct qs_error own = {};
	int r = qs_header_image_read_raw(t->fd, t->dev->node, t->from.image.size, &now, &own);

	if (t->present.data)
		t->repaired =
			qs_luks_areas_differ(&t->has, &t->present, &t->from.h, &t->from.image);
	if (r == 0)
		t->same = memcmp(now.data, t->from.image.data, now.size) == 0;
	/* A sector that cannot be read is not the same, and may be mended by writing it. */
	if (r == 0 || own.kind == QS_E_IO || own.kind == QS_E_DAMAGED)
		return 0;
	*err = own;
	return r;
}

static int find_source(const struct qs_restore_run *run, struct qs_restore_target *t,
		       struct qs_error *err)
{
	int r = find_best(run, t, err);

	if (r == 0 && run->options->sequence)
		r = find_sequence(run, t, err);
	if (r == 0)
		r = look_for_journal(run, t, err);
	if (r == 0 && !t->from.path)
		r = choose(run, t, err);
	return r;
}

int qs_restore_prepare(struct qs_restore_run *run, struct qs_outcome *o)
{
	struct qs_restore_target *t = &run->target;
	struct qs_error *err = &o->error;
	int r = look_at_device(run, t, o);

	if (r == 0 && run->options->file) {
		t->source = QS_RESTORE_FILE;
		r = read_backup(run->options->file, run->options->file, &t->from, err);
	}
	if (r == 0)
		r = find_name(run, t, o);
	if (r == 0)
		r = find_source(run, t, err);
	if (r == 0)
		r = qs_restore_check(run, err);
	if (r == 0)
		r = raise_sequence(run, t, err);
	if (r == 0)
		r = compare_device(t, err);
	return r;
}
