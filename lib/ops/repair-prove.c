/*
 * crypttabrepair: which key opens which device. First the key that the
 * fingerprint names, then those whose names fit, then all others, unused ones
 * first; the first that opens a keyslot is the one. A header of ours so costs
 * one key derivation. Each device is a job of its own in a worker process; costly
 * keyslots wait for their turn and memory (base/pool.h).
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include <libcryptsetup.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "key/command.h"
#include "key/keyfile.h"
#include "luks/unlock.h"
#include "ops/ops.h"
#include "ops/repair.h"

#define MAX_KEYSLOTS 32

/* Instead of a key's number: what the key command printed. */
#define COMMAND (QS_REPAIR_NONE - 1)

bool qs_repair_key_has_name(const char *path, const char *name)
{
	const char *file = strrchr(path, '/') + 1;
	size_t length = strlen(name);

	return strncmp(file, name, length) == 0 && strcmp(file + length, ".key") == 0;
}

/* ---- in the parent: keys by name ---- */

static void claim(struct qs_repair *r, struct qs_repair_device *d, size_t key)
{
	key = r->keys[key].first;
	if (r->used[key] == QS_REPAIR_FREE)
		r->used[key] = QS_REPAIR_CLAIMED;
	for (size_t i = 0; i < d->named_count; i++)
		if (d->named[i] == key)
			return;
	if (d->named_count < QS_REPAIR_NAMED)
		d->named[d->named_count++] = key;
}

static void claim_name(struct qs_repair *r, struct qs_repair_device *d, const char *name)
{
	for (size_t k = 0; name && *name && k < r->key_count; k++)
		if (qs_repair_key_has_name(r->keys[k].path, name))
			claim(r, d, k);
}

static void claim_path(struct qs_repair *r, struct qs_repair_device *d, const char *path)
{
	for (size_t k = 0; path && k < r->key_count; k++)
		if (strcmp(r->keys[k].path, path) == 0)
			claim(r, d, k);
}

void qs_repair_claim(struct qs_repair *r, const struct qs_crypttab *tab)
{
	for (size_t i = 0; i < r->outcomes->count; i++) {
		struct qs_repair_device *d = &r->devices[i];

		if (d->printed != QS_REPAIR_NONE)
			r->used[d->printed] = QS_REPAIR_CLAIMED;
		if (d->line != QS_REPAIR_NONE)
			claim_path(r, d, qs_crypttab_get(tab, d->line)->key);
		claim_name(r, d, d->name);
		claim_name(r, d, d->by_rule);
		if (d->labelled)
			claim_name(r, d, d->label);
		for (size_t b = 0; b < r->backup_count; b++)
			if (d->uuid[0] && strcmp(r->backups[b].uuid, d->uuid) == 0)
				claim_name(r, d, r->backups[b].name);
	}
}

/* ---- in the worker ---- */

/* One device being tried. */
struct trial {
	const struct qs_repair *repair;
	const struct qs_repair_device *device;
	struct qs_worker *worker;
	struct crypt_device *cd;
	struct qs_keyslot slots[MAX_KEYSLOTS];
	size_t slot_count;
	unsigned tries;          /* key derivations */
	int slot;                /* the keyslot that was opened */
	struct qs_error problem; /* the first key or keyslot that could not be tried */
};

/* What cannot be tried is noted and hinders nothing else. */
static void note_problem(struct trial *t, const struct qs_error *err)
{
	if (t->problem.kind == QS_E_NONE)
		t->problem = *err;
}

static bool try_bytes(struct trial *t, const struct qs_secret *bytes, const struct qs_keyslot *slot)
{
	struct qs_error err = {};
	int r;

	t->tries++;
	r = qs_luks_try(t->cd, t->device->dev->node, slot, bytes, t->worker, &err);
	if (r < 0)
		note_problem(t, &err);
	if (r == 1)
		t->slot = slot->number;
	return r == 1;
}

static bool try_one(struct trial *t, size_t key, const struct qs_keyslot *slot)
{
	const struct qs_repair_key *k = &t->repair->keys[key];
	QS_AUTO(qs_secret_done) struct qs_secret bytes = {};
	struct qs_error err = {};

	if (k->bytes.size > 0)
		return try_bytes(t, &k->bytes, slot);
	if (qs_key_load(t->repair->env, k->path, &bytes, &err) < 0) {
		note_problem(t, &err);
		return false;
	}
	return try_bytes(t, &bytes, slot);
}

/* The key command is asked for devices of ours only: it may count, log, or ask a person. */
static bool try_command(struct trial *t)
{
	const struct qs_repair_device *d = t->device;
	const struct qs_env *env = t->repair->env;
	QS_AUTO(qs_secret_done) struct qs_secret bytes = {};
	struct qs_error err = {};

	if (!qs_key_command_is_set(env) || !d->name || !qs_repair_is_ours(t->repair, d))
		return false;
	if (qs_key_command_run(env, d->name, d->uuid, d->dev->node, &bytes, &err) < 0) {
		note_problem(t, &err);
		return false;
	}
	for (size_t s = 0; s < t->slot_count; s++)
		if (try_bytes(t, &bytes, &t->slots[s]))
			return true;
	return false;
}

static bool is_printed(const struct trial *t, size_t key, const struct qs_keyslot *slot)
{
	return key == t->device->printed && slot->number == t->device->slot;
}

static bool try_printed(struct trial *t)
{
	for (size_t s = 0; t->device->printed != QS_REPAIR_NONE && s < t->slot_count; s++)
		if (is_printed(t, t->device->printed, &t->slots[s]))
			return try_one(t, t->device->printed, &t->slots[s]);
	return false;
}

static bool is_named(const struct qs_repair_device *d, size_t key)
{
	for (size_t i = 0; i < d->named_count; i++)
		if (d->named[i] == key)
			return true;
	return false;
}

/* Keys whose names fit, the nearest name first, each on every keyslot. */
static size_t try_named(struct trial *t)
{
	for (size_t i = 0; i < t->device->named_count; i++)
		for (size_t s = 0; s < t->slot_count; s++) {
			size_t key = t->device->named[i];

			if (!is_printed(t, key, &t->slots[s]) && try_one(t, key, &t->slots[s]))
				return key;
		}
	return QS_REPAIR_NONE;
}

/* The next key for a keyslot: one that opens nothing yet before those that do. */
static size_t next_key(const struct trial *t, const bool *done)
{
	const struct qs_repair *r = t->repair;
	size_t best = QS_REPAIR_NONE;
	unsigned char rank = QS_REPAIR_PROVEN + 1;

	for (size_t k = 0; k < r->key_count; k++) {
		unsigned char used = __atomic_load_n(&r->used[k], __ATOMIC_RELAXED);

		if (done[k] || used >= rank || r->keys[k].first != k || is_named(t->device, k))
			continue;
		best = k;
		rank = used;
	}
	return best;
}

static size_t try_all(struct trial *t)
{
	for (size_t s = 0; s < t->slot_count; s++) {
		QS_AUTO(qs_auto_free) bool *done = calloc(t->repair->key_count + 1, sizeof(*done));
		size_t key;

		if (!done)
			return QS_REPAIR_NONE;
		while ((key = next_key(t, done)) != QS_REPAIR_NONE) {
			done[key] = true;
			if (!is_printed(t, key, &t->slots[s]) && try_one(t, key, &t->slots[s]))
				return key;
		}
	}
	return QS_REPAIR_NONE;
}

static size_t find_key(struct trial *t, const char **ret_how)
{
	size_t key;

	*ret_how = is_named(t->device, t->device->printed) ? "name" : "fingerprint";
	if (try_printed(t))
		return t->device->printed;
	*ret_how = "name";
	key = try_named(t);
	if (key != QS_REPAIR_NONE)
		return key;
	*ret_how = "command";
	if (try_command(t))
		return COMMAND;
	*ret_how = "trial";
	return try_all(t);
}

static int prove_one(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		     struct qs_error *err)
{
	const struct qs_repair *r = cookie;
	struct trial t = { .repair = r, .device = &r->devices[i], .worker = worker };
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_auto_cd) struct crypt_device *cd = NULL;
	const char *node = t.device->dev->node, *how;
	size_t key;
	int result;

	qs_worker_step(worker, "test");
	result = qs_luks_load(r->env, node, t.device->name, &cd, &h, err);
	if (result < 0)
		return result;
	t.cd = cd;
	t.slot_count = qs_luks_keyslots(&h, t.slots, MAX_KEYSLOTS);
	key = find_key(&t, &how);
	*ret = json_pack("{s:i}", "tries", (int)t.tries);
	if (key != QS_REPAIR_NONE) {
		if (key != COMMAND) {
			__atomic_store_n(&r->used[key], QS_REPAIR_PROVEN, __ATOMIC_RELAXED);
			(void)json_object_set_new(*ret, "key", json_integer((json_int_t)key));
		}
		(void)json_object_set_new(*ret, "keyslot", json_integer(t.slot));
		(void)json_object_set_new(*ret, "matched_by", json_string(how));
		return 0;
	}
	if (t.problem.kind != QS_E_NONE) {
		if (err)
			*err = t.problem;
		return qs_kind_errno(t.problem.kind);
	}
	return qs_fail(err, QS_E_NO_KEY,
		       "none of the %zu keys at hand opens %s; bring its key back, or name the "
		       "directory that it is in with --keys",
		       r->key_count, node);
}

/* ---- in the parent: what came out ---- */

/* A stranger's disk that no key of ours opens, or that is refused, is no failure of ours. */
static void excuse(struct qs_repair *r, size_t i)
{
	struct qs_outcome *o = &r->outcomes->items[i];
	enum qs_kind kind = o->error.kind;

	if (qs_repair_is_ours(r, &r->devices[i]))
		return;
	if (kind != QS_E_NO_KEY && kind != QS_E_HOSTILE && kind != QS_E_DAMAGED)
		return;
	if (kind != QS_E_NO_KEY)
		qs_repair_warn(r, &r->devices[i], "%s", o->error.text);
	o->error = (struct qs_error){};
	qs_outcome_set(&o->note, "no key at hand opens it, and nothing says that it is ours");
}

int qs_repair_prove(struct qs_repair *r, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) bool *todo = calloc(r->outcomes->count + 1, sizeof(*todo));
	json_int_t tries = 0;
	int result;

	if (!todo)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", r->outcomes->count);
	for (size_t i = 0; i < r->outcomes->count; i++)
		todo[i] = r->devices[i].version > 0 && r->devices[i].foreign == QS_REPAIR_NONE;
	if (r->outcomes->count > 1)
		qs_luks_warm_up();
	result = qs_outcomes_run(r->env, r->outcomes, todo, prove_one, r, err);
	for (size_t i = 0; result == 0 && i < r->outcomes->count; i++) {
		struct qs_outcome *o = &r->outcomes->items[i];
		const json_t *key = json_object_get(o->details, "key");
		const char *how = json_string_value(json_object_get(o->details, "matched_by"));

		r->devices[i].by_command = how && strcmp(how, "command") == 0;
		tries += json_integer_value(json_object_get(o->details, "tries"));
		if (key)
			r->devices[i].key = (size_t)json_integer_value(key);
		if (key)
			(void)json_object_del(o->details, "key");
		if (o->error.kind != QS_E_NONE)
			excuse(r, i);
	}
	(void)json_object_set_new(r->result, "tries", json_integer(tries));
	return result;
}
