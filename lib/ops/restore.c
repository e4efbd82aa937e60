/*
 * cryptrestore. What a crash after each step leaves, and what a second run does:
 *
 *   step                                left behind              second run
 *   refuse, choose, prove the key       nothing                  all
 *     on the header in memory
 *   keep what will be overwritten       + a version, or          keeps it once more
 *     in NAME.d                         damaged-SUM.raw
 *   journal "restore" with the          + journal                all: the backup is not
 *     header's checksum                                          the journal's header yet
 *   header becomes the current backup   + backup                 writes this backup
 *   keyslot areas in use, first copy,   a header that opens with writes this backup
 *     second copy, rest (faults F6)     old or new keys, unless
 *                                       both use the same areas
 *   read again and compare, prove       restored                 writes it again
 *   journal removed                     finished                 "nothing to restore"
 *   old versions pruned; what was kept  a copy, until its        erases it
 *     of a destroyed device is erased    retention time is over
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/fs.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/sum.h"
#include "luks/unlock.h"
#include "ops/journal.h"
#include "ops/open.h"
#include "ops/restore.h"
#include "ops/retired.h"
#include "tab/crypttab.h"

/* ---- in the worker ---- */

/* Name and key files by which the device will be opened. Returns 1 when there is a key file. */
static int find_keys(const struct qs_restore_run *run, struct qs_open_request *ret)
{
	const struct qs_restore_target *t = &run->target;
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	int r = qs_crypttab_load(run->env, &tab, NULL);

	if (r == 0)
		r = qs_open_make_request(run->env, t->dev, &t->from.h, tab, NULL, ret, NULL);
	ret->test = true;
	ret->command = ret->keystore = false;
	return r == 0 && qs_open_has_key_file(run->env, ret);
}

/*
 * Does a key of ours open the header that is to be restored? Tried on the header
 * in memory, before anything is written. *ret gets key file and keyslot, or stays
 * NULL when there is no key to try.
 */
static int prove_before(const struct qs_restore_run *run, struct qs_worker *worker, json_t **ret,
			struct qs_error *err)
{
	const struct qs_restore_target *t = &run->target;
	QS_AUTO(qs_open_request_done) struct qs_open_request request = {};
	QS_AUTO(qs_auto_close) int file = -1;
	struct qs_error own = {};
	int r;

	if (!find_keys(run, &request))
		return 0;
	file = qs_header_image_file(&t->from.image, t->dev->size, err);
	if (file < 0)
		return file;
	free(request.node);
	free(request.name);
	request.name = NULL; /* not to be compared with the backup that it may replace */
	request.node = qs_printf("/proc/self/fd/%d", file);
	r = qs_open_request_run(run->env, worker, &request, ret, &own);
	if (r == 0 || own.kind == QS_E_KEY_FILE)
		return 0;
	if (own.kind != QS_E_NO_KEY) {
		*err = own;
		return r;
	}
	if (run->options->force)
		return 0;
	return qs_fail(err, QS_E_REFUSED,
		       "no key at hand would open %s with this header (%s); --force restores it "
		       "all the same",
		       t->dev->node, request.key_files[0]);
}

static bool is_all_zero(const struct qs_header_image *image)
{
	const char *bytes = image->data;

	return image->size == 0 || (*bytes == 0 && memcmp(bytes, bytes + 1, image->size - 1) == 0);
}

/* Everything that the restore overwrites. A good header is a version like any other. */
static int keep_present(const struct qs_restore_run *run, int fd, json_t *result,
			struct qs_error *err)
{
	const struct qs_restore_target *t = &run->target;
	QS_AUTO(qs_header_image_done) struct qs_header_image raw = {};
	QS_AUTO(qs_auto_free) char *path = NULL;
	size_t size = t->from.image.size;
	struct qs_error own = {};
	int r;

	if (t->begun)
		return 0;
	if (t->intact && !t->repaired)
		return qs_backup_keep(run->env, t->name, &t->present, &t->has, err);
	if (t->present.size > size)
		size = t->present.size;
	r = qs_header_image_read_raw(fd, t->dev->node, size, &raw, &own);
	if (r < 0) {
		qs_log(QS_LOG_WARNING, "%s; it is overwritten without a copy", own.text);
		return 0;
	}
	if (is_all_zero(&raw))
		return 0;
	r = qs_backup_keep_raw(run->env, t->name, &raw, &path, err);
	if (r == 0)
		(void)json_object_set_new(result, "saved", json_string(path));
	return r;
}

static int begin(const struct qs_restore_run *run, struct qs_error *err)
{
	const struct qs_restore_target *t = &run->target;
	struct qs_journal journal = { .op = "restore", .link = t->link };
	int r;

	(void)snprintf(journal.uuid, sizeof(journal.uuid), "%s", t->from.h.uuid);
	qs_sum(t->from.image.data, t->from.image.size, journal.image);
	r = qs_journal_write(run->env, t->name, &journal, err);
	if (r == 0)
		r = qs_backup_put(run->env, t->name, &t->from.image, err);
	if (r < 0)
		qs_error_append(err, " (the device has not been touched)");
	return r < 0 ? r : 0;
}

/* Partitions of a table that lay over the header must not stay in the kernel. */
static void forget_partitions(const struct qs_restore_target *t, int fd)
{
	if (!t->mapped && t->dev->kind == QS_DEVICE_DISK && ioctl(fd, BLKRRPART) < 0)
		qs_log(QS_LOG_DEBUG, "%s: partition table not read again: %m", t->dev->node);
}

/* What others left outside of the header, such as the second GPT at the end: the data's place. */
static void note_signatures(int fd, const char *node, json_t *result)
{
	QS_AUTO(qs_auto_free) char *found = NULL;
	QS_AUTO(qs_auto_free) char *others = qs_strdup("");

	if (qs_device_signatures(fd, node, &found, NULL) < 0 || !found)
		return;
	for (char *rest = found, *one; (one = strsep(&rest, ","));) {
		char *more;

		one += *one == ' ';
		if (strncmp(one, "crypto_LUKS", strlen("crypto_LUKS")) == 0)
			continue;
		more = qs_printf("%s%s%s", others, *others ? ", " : "", one);
		free(others);
		others = more;
	}
	if (*others)
		(void)json_object_set_new(result, "signatures", json_string(others));
}

static int write_header(const struct qs_restore_run *run, int fd, json_t *result,
			struct qs_error *err)
{
	const struct qs_restore_target *t = &run->target;
	const char *node = t->dev->node;
	int r = qs_header_image_restore(fd, node, &t->from.image, &t->from.h, err);

	if (r == 0)
		r = qs_device_sync_and_compare(fd, node, t->from.image.data, t->from.image.size,
					       err);
	if (r < 0)
		return r;
	forget_partitions(t, fd);
	note_signatures(fd, node, result);
	return 0;
}

/* Read anew from the device, as an open would; and with the key that was proven before. */
static int prove_after(const struct qs_restore_run *run, struct qs_worker *worker, bool with_key,
		       struct qs_error *err)
{
	const struct qs_restore_target *t = &run->target;
	QS_AUTO(qs_open_request_done) struct qs_open_request request = {};
	QS_AUTO(qs_auto_cd) struct crypt_device *cd = NULL;
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_auto_json) json_t *again = NULL;
	int r = qs_luks_load(run->env, t->dev->node, t->name, &cd, &h, err);

	if (r == 0 && with_key) {
		(void)find_keys(run, &request);
		qs_outcome_set(&request.name, t->name);
		r = qs_open_request_run(run->env, worker, &request, &again, err);
	}
	if (r < 0)
		qs_error_prefix(err, "the restored header does not hold");
	return r;
}

/* A copy would still open by keyslots that are revoked from now on. */
static int forget_retired(const struct qs_restore_run *run, struct qs_error *err)
{
	int r = qs_retired_forget(run->env, run->target.name, run->target.from.h.uuid, err);

	return r < 0 ? r : 0;
}

static int restore(const struct qs_restore_run *run, struct qs_worker *worker, int fd,
		   json_t *result, struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *proven = NULL;
	int r = prove_before(run, worker, &proven, err);

	if (r == 0)
		r = keep_present(run, fd, result, err);
	if (r < 0)
		return r;
	qs_worker_step(worker, "restore");
	r = begin(run, err);
	if (r < 0)
		return r;
	r = write_header(run, fd, result, err);
	if (r == 0)
		r = prove_after(run, worker, proven != NULL, err);
	if (r == 0)
		r = qs_journal_remove(run->env, run->target.name, err);
	if (r < 0) {
		qs_error_append(err, " (run the same command again to finish)");
		return r;
	}
	if (proven)
		(void)json_object_set(result, "proven", proven);
	r = qs_backup_prune(run->env, run->target.name, err);
	return r < 0 ? r : forget_retired(run, err);
}

static int restore_job(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		       struct qs_error *err)
{
	const struct qs_restore_run *run = cookie;
	QS_AUTO(qs_auto_close) int disk = -1, fd = -1;

	(void)i;
	*ret = json_object();
	qs_worker_step(worker, "prove");
	fd = run->target.mapped ? qs_device_open_below(run->target.dev, &disk, err)
				: qs_device_open_exclusive(run->target.dev, &disk, err);
	return fd < 0 ? fd : restore(run, worker, fd, *ret, err);
}

/* ---- in the parent ---- */

static void note_proof(struct qs_outcome *o)
{
	const json_t *proven = json_object_get(o->details, "proven");
	const char *key = json_string_value(json_object_get(proven, "key_file"));
	const char *left = json_string_value(json_object_get(o->details, "signatures"));
	QS_AUTO(qs_auto_free)
	char *note = qs_printf("%s; %s%s%s%s", o->note, key ? "opens with " : "no key tried",
			       key ? key : "", left ? "; left behind it: " : "", left ? left : "");

	qs_outcome_set(&o->note, note);
}

/* The device needs nothing, but its backup and the notes of an interrupted run may. */
static void finish_same(const struct qs_restore_run *run, struct qs_outcome *o)
{
	const struct qs_restore_target *t = &run->target;
	int r = 0;

	qs_outcome_detail(o, "restored", json_false());
	if (!run->preview && t->source != QS_RESTORE_COPY)
		r = qs_backup_store(run->env, t->name, &t->from.image, &o->error);
	/* Also when it is gone: perhaps only since a run that was killed before that was durable.
	 */
	if (r >= 0 && !run->preview)
		r = qs_journal_remove(run->env, t->name, &o->error);
	if (r >= 0 && !run->preview)
		(void)forget_retired(run, &o->error);
}

static int plan(struct qs_restore_run *run, const char *device, struct qs_outcomes *ret,
		struct qs_error *err)
{
	int r = qs_outcomes_init(ret, &device, 1, err);

	if (r < 0)
		return r;
	run->outcomes = ret;
	run->target.fd = run->target.lock = -1;
	if (qs_restore_prepare(run, &ret->items[0]) < 0)
		return 0;
	qs_restore_describe(&run->target, &ret->items[0]);
	return 1;
}

int qs_restore_preview(const struct qs_env *env, const char *device,
		       const struct qs_restore_options *options, struct qs_outcomes *ret,
		       struct qs_error *err)
{
	struct qs_restore_run run = { .env = env, .options = options, .preview = true };
	int r = plan(&run, device, ret, err);

	if (r == 1)
		qs_outcome_detail(&ret->items[0], "restored", json_false());
	qs_restore_target_done(&run.target);
	return r < 0 ? r : 0;
}

int qs_restore(const struct qs_env *env, const char *device,
	       const struct qs_restore_options *options, struct qs_outcomes *ret,
	       struct qs_error *err)
{
	struct qs_restore_run run = { .env = env, .options = options };
	int r = plan(&run, device, ret, err);

	if (r == 1 && run.target.same && !run.target.begun) {
		finish_same(&run, &ret->items[0]);
	} else if (r == 1) {
		/* The worker has its own, which it holds alone. */
		qs_auto_close(&run.target.fd);
		r = qs_outcomes_run(env, ret, NULL, restore_job, &run, err);
		qs_outcome_detail(&ret->items[0], "restored",
				  json_boolean(ret->items[0].error.kind == QS_E_NONE));
		if (ret->items[0].error.kind == QS_E_NONE)
			note_proof(&ret->items[0]);
	}
	qs_restore_target_done(&run.target);
	return r < 0 ? r : 0;
}
