/*
 * cryptenroll: another way to open a device, and an end to old ones. What a crash
 * after each step leaves, and what a second run of the same command does:
 *
 *   step                                left behind                    second run
 *   refuse, unlock, back the header up  nothing                        all
 *   journal (recovery key, new key      + journal                      all, with what it
 *     file), then the file, durable     + a file that opens nothing      finds there
 *   slot and token in memory, written   the new way opens, or not      finds the slot by
 *     in one go, synced, read again                                      its secret
 *   prove it by a fresh load            as before                      proves it
 *   refresh the backup                  + a backup that has it         nothing to do
 *   new key file: takes the old one's   the name leads to either,      goes on from there
 *     name                                both open
 *   revoke: key material, then header   the slot is there, opens or    wipes it again
 *     refresh the backup                  not; or gone
 *   erase backups that hold it          some are left                  erases the rest
 *   journal                             finished                       finds nothing to do
 *
 * A recovery key that was to be shown and was not is known to nobody: the journal
 * names its slot, and the next run removes it.
 */
#define _GNU_SOURCE
#include "ops/enroll.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "luks/backup.h"
#include "luks/kind.h"
#include "luks/unlock.h"

/* How often another program may change the header under our hands. */
#define TRIES 3

int qs_enroll_exists(const struct qs_enroll *e, const char *logical, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(e->env, logical);

	if (faccessat(AT_FDCWD, real, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return 1;
	return errno == ENOENT || errno == ENOTDIR
		       ? 0
		       : qs_fail_errno(err, errno, "cannot look for %s", logical);
}

int qs_enroll_note(const struct qs_enroll *e, const char *key_file, const char *salt,
		   struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *file = qs_strdup(key_file);
	QS_AUTO(qs_auto_free) char *its_salt = qs_strdup(salt);
	struct qs_journal journal = { .link = e->request.link, .key_file = file, .salt = its_salt };

	(void)snprintf(journal.op, sizeof(journal.op), "%s", e->method->op);
	return qs_journal_write(e->env, e->name, &journal, err);
}

/* ---- in the worker: one change ---- */

int qs_enroll_try(const struct qs_enroll *e, const struct qs_secret *secret, uint32_t skip,
		  struct qs_error *err)
{
	const struct qs_unlock how = {
		.test = true, .slot = -1, .skip = skip, .worker = e->worker
	};

	return qs_luks_unlock_loaded(e->slots.cd, e->dev->node, &e->slots.header, secret, &how,
				     err);
}

struct attempt {
	struct qs_enroll *e;
	uint32_t skip;
};

static int attempt(void *cookie, const struct qs_secret *key, struct qs_error *err)
{
	const struct attempt *a = cookie;
	int r = qs_enroll_try(a->e, key, a->skip, err);

	if (r < 0)
		return r;
	a->e->by = r;
	qs_secret_done(&a->e->key);
	r = qs_secret_init(&a->e->key, key->size, err);
	if (r < 0)
		return r;
	memcpy(a->e->key.data, key->data, key->size);
	return a->e->by;
}

int qs_enroll_unlock(struct qs_enroll *e, uint32_t skip, struct qs_error *err)
{
	struct attempt a = { e, skip };
	QS_AUTO(qs_auto_json) json_t *found = NULL;
	int r;

	if (e->key.data) {
		r = qs_enroll_try(e, &e->key, skip, NULL);
		if (r >= 0)
			e->by = r;
		if (r != -EPERM)
			return r < 0 ? r : 0;
	}
	e->request.attempt = attempt;
	e->request.attempt_cookie = &a;
	r = qs_open_request_run(e->env, e->worker, &e->request, &found, err);
	return r < 0 ? r : 0;
}

static int load(struct qs_enroll *e, struct qs_error *err)
{
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	int r;

	qs_slots_done(&e->slots);
	r = qs_slots_load(e->env, e->fd, e->dev->size, e->dev->node, e->name, &e->slots, err);
	if (r == 0)
		r = qs_slots_image(&e->slots, &image, err);
	if (r == 0)
		r = qs_backup_store(e->env, e->name, &image, err);
	return r < 0 ? r : 0;
}

int qs_enroll_apply(struct qs_enroll *e, qs_enroll_change *change, void *cookie,
		    struct qs_error *err)
{
	int r = -EAGAIN;

	for (unsigned i = 0; r == -EAGAIN && i < TRIES; i++) {
		r = load(e, err);
		if (r == 0)
			r = change(e, cookie, err);
		e->touched |= r == 0;
		/* Also when nothing changed: who did it may have been killed before it was durable.
		 */
		if (r == 0)
			r = qs_slots_write(&e->slots, e->fd, err);
	}
	if (r < 0)
		return r;
	return qs_device_sync_and_compare(e->fd, e->dev->node, e->slots.disk.data,
					  e->slots.disk.size, err);
}

int qs_enroll_back_up(const struct qs_enroll *e, struct qs_error *err)
{
	int r = qs_backup_store(e->env, e->name, &e->slots.disk, err);

	return r < 0 ? r : 0;
}

/* ---- in the worker: adding ---- */

static int add(struct qs_enroll *e, void *cookie, struct qs_error *err)
{
	struct qs_slot_new new = { .pbkdf = e->method->pbkdf, .worker = e->worker };
	int r = qs_enroll_unlock(e, 0, err);

	(void)cookie;
	if (r == 0 && !e->made)
		r = e->method->make(e, err);
	if (r < 0)
		return r;
	e->made = true;
	/* What an interrupted run added, or somebody else: no second slot for one secret. */
	e->slot = qs_enroll_try(e, &e->secret, 0, NULL);
	e->found = e->slot >= 0;
	if (e->found || e->slot != -EPERM)
		return e->found ? 0 : qs_fail_errno(err, e->slot, "cannot try the new key");
	qs_worker_step(e->worker, "add");
	new.by = e->by;
	new.key = &e->key;
	new.secret = &e->secret;
	new.token = e->token;
	e->slot = qs_slots_add(&e->slots, &new, err);
	if (e->slot < 0 || !e->method->before)
		return e->slot < 0 ? e->slot : 0;
	return e->method->before(e, qs_slots_salt(e->slots.header.json, e->slot), err);
}

static int take_back(struct qs_enroll *e, void *cookie, struct qs_error *err)
{
	const char *salt = cookie;
	int slot = qs_slots_by_salt(e->slots.header.json, salt);

	return slot < 0 ? 0 : qs_slots_remove(&e->slots, slot, err);
}

/* The slot does not open: it must not stay. The error of the proof is what is told. */
static void undo(struct qs_enroll *e, struct qs_error *err)
{
	QS_AUTO(qs_auto_free)
	char *salt = qs_strdup(qs_slots_salt(e->slots.header.json, e->slot));

	if (e->found || !salt)
		return;
	if (qs_enroll_apply(e, take_back, salt, NULL) == 0 && qs_enroll_back_up(e, NULL) == 0)
		qs_error_append(err, " (keyslot %d was removed again)", e->slot);
	else
		qs_error_append(err, " (keyslot %d is still there; remove it with --wipe)",
				e->slot);
}

static int prove(struct qs_enroll *e, struct qs_error *err)
{
	const struct qs_unlock how = {
		.name = e->name, .test = true, .slot = e->slot, .worker = e->worker
	};
	int r;

	qs_worker_step(e->worker, "prove");
	r = qs_luks_unlock(e->env, e->dev->node, &e->secret, &how, err);
	if (r < 0) {
		qs_error_prefix(err, "the new keyslot %d does not open", e->slot);
		undo(e, err);
	}
	return r < 0 ? r : 0;
}

static int enroll(struct qs_enroll *e, struct qs_error *err)
{
	int r = qs_enroll_apply(e, add, NULL, err);

	if (r < 0 && !e->touched && !e->pending.op[0] && e->method->undo)
		(void)e->method->undo(e);
	if (r == 0)
		r = prove(e, err);
	if (r == 0)
		r = qs_enroll_back_up(e, err);
	if (r < 0)
		return r;
	(void)json_object_set_new(e->result, "keyslot", json_integer(e->slot));
	(void)json_object_set_new(e->result, "kind", json_string(e->method->kind));
	return e->method->settle ? e->method->settle(e, err) : 0;
}

static int run(struct qs_enroll *e, struct qs_error *err)
{
	bool settles = e->method && e->method->settle;
	int r = 0;

	/* A slot whose key nobody ever saw goes before another one is added. */
	if (e->drop && !settles)
		r = qs_enroll_drop(e, err);
	if (r == 0 && e->method)
		r = enroll(e, err);
	if (r == 0 && e->drop && settles)
		r = qs_enroll_drop(e, err);
	if (r == 0 && e->options->wipe)
		r = qs_enroll_wipe(e, err);
	if (r == 0 && (e->drop || e->options->wipe))
		r = qs_enroll_purge(e, err);
	if (r == 0 && e->method && e->method->close)
		r = e->method->close(e, err);
	return r;
}

/* One clause for people; programs have the fields. */
static void add_note(const struct qs_enroll *e)
{
	json_int_t erased = json_integer_value(json_object_get(e->result, "backups_erased"));
	QS_AUTO(qs_auto_free)
	char *slot = e->slot < 0 ? qs_strdup("")
				 : qs_printf("keyslot %d%s", e->slot,
					     e->found ? ", which it opened before" : "");
	QS_AUTO(qs_auto_free)
	char *old = erased == 0 ? qs_strdup("")
				: qs_printf("%s%lld old header backup%s erased", *slot ? "; " : "",
					    (long long)erased, erased == 1 ? "" : "s");
	QS_AUTO(qs_auto_free) char *note = qs_printf("%s%s", slot, old);

	if (*note && !json_object_get(e->result, "note"))
		(void)json_object_set_new(e->result, "note", json_string(note));
}

static void warn_of_left(const struct qs_enroll *e)
{
	const json_t *left = json_object_get(e->result, "backups_left"), *path;
	size_t i;

	json_array_foreach(left, i, path)
		qs_log(QS_LOG_WARNING, "%s still holds a revoked key; erase it if it is not needed",
		       json_string_value(path));
}

int qs_enroll_job(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		  struct qs_error *err)
{
	struct qs_enroll *e = &((struct qs_enroll_batch *)cookie)->items[i];
	int r;

	*ret = json_object();
	e->result = *ret;
	e->worker = worker;
	if (e->secret.data)
		qs_secret_lock(&e->secret);
	e->fd = qs_device_open_below(e->dev, &e->disk, err);
	r = e->fd < 0 ? e->fd : run(e, err);
	add_note(e);
	warn_of_left(e);
	qs_slots_done(&e->slots);
	qs_secret_done(&e->key);
	qs_auto_close(&e->fd);
	qs_auto_close(&e->disk);
	return r;
}
