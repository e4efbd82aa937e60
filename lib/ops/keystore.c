/*
 * keystore enable and disable. What a crash after each step leaves, and what a second
 * run of the same command does:
 *
 *   enable                                left behind                  second run
 *   refuse while something depends on     nothing                      all
 *   another store; ask the provider
 *   directory, keystore.json "enabling"   nothing depends on it        erases the rest, all
 *   the KEK of generation 1, durable        as before                    as before
 *   wrap and unwrap a probe with it         as before                    as before
 *   keystore.json "enabled"               finished                     "enabled already"
 *
 *   disable                               left behind                  second run
 *   refuse while something depends on it  nothing                      all
 *   keystore.json "disabling"             nothing can depend on it     goes on
 *   erase every generation                + some are left              erases the rest
 *   remove keystore.json, the directory   finished                     "not enabled"
 *
 * A failure of enabling that is no crash takes all of it back. Enrolling and both of
 * these hold the keystore's lock, so no device comes to depend on what is going.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "keystore/provider.h"
#include "ops/keystore-check.h"
#include "ops/keystore-record.h"
#include "ops/keystore.h"

#define LOCK QS_RUN_DIR "/keystore.lock"
#define FIRST 1

int qs_keystore_lock(const struct qs_env *env, unsigned wait_ms, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(env, QS_RUN_DIR);
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, LOCK);
	int r = qs_file_make_dirs(dir, 0755, err);

	return r < 0 ? r : qs_file_lock(path, wait_ms, "the keystore", err);
}

/* ---- the end of a keystore ---- */

static int retire(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		  struct qs_error *err)
{
	return qs_keystore_provider(ks, number)->retire(env, ks, number, err);
}

/* The directory stays when somebody has put something else into it. */
static int remove_all(const struct qs_env *env, const struct qs_keystore *ks, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(env, QS_KEYSTORE_DIR);
	QS_AUTO(qs_auto_free) char *file = qs_env_path(env, QS_KEYSTORE_FILE);
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ks->count; i++)
		r = retire(env, ks, ks->generations[i].number, err);
	if (r >= 0 && ks->state == QS_KEYSTORE_ENABLING)
		r = retire(env, ks, FIRST, err);
	if (r >= 0 && ks->rotation == QS_ROTATION_DISTRIBUTING)
		r = retire(env, ks, ks->target, err);
	if (r >= 0)
		r = qs_file_remove(file, err);
	if (r >= 0 && rmdir(dir) == 0)
		r = qs_file_sync_parent(dir, err);
	return r < 0 ? r : 0;
}

/* ---- enable ---- */

static int refuse_state(const struct qs_env *env, const struct qs_keystore *ks,
			struct qs_error *err)
{
	if (ks->state == QS_KEYSTORE_ENABLED)
		return qs_fail(err, QS_E_EXISTS, "the keystore is enabled already (provider %s)",
			       ks->provider);
	if (ks->state == QS_KEYSTORE_DISABLING)
		return qs_fail(err, QS_E_FORBIDDEN,
			       "the keystore is being disabled: run `qs-util keystore disable` "
			       "again to finish that");
	return ks->state == QS_KEYSTORE_DISABLED ? qs_keystore_refuse_remains(env, true, err) : 0;
}

/* A new keystore opens nothing of an older one, and leaves its files no place to come back to. */
static int refuse_elsewhere(const struct qs_outcomes *found, struct qs_error *err)
{
	const struct qs_outcome *first = NULL, *unknown = NULL;
	size_t count = 0;
	const char *s;

	for (size_t i = found->count; i > 0; i--) {
		const struct qs_outcome *o = &found->items[i - 1];

		unknown = o->error.kind != QS_E_NONE ? o : unknown;
		first = json_object_get(o->details, "elsewhere") ? o : first;
		count += first == o;
	}
	s = count == 1 ? "" : "s";
	if (first)
		return qs_fail(err, QS_E_FORBIDDEN,
			       "%zu device%s and header backup%s %s a key in a keystore that is "
			       "not on this machine, %s first: put that keystore back from a key "
			       "bundle (qs-util keyrestore), or take these keys away: `qs-util "
			       "cryptenroll DEVICE --wipe keystore`; `qs-util keystore purge "
			       "--all` ends the retention of what was destroyed",
			       count, s, s, count == 1 ? "has" : "have", first->device);
	return !unknown
		       ? 0
		       : qs_fail(err, QS_E_FORBIDDEN,
				 "it cannot be told whether %s has a key in another keystore (%s): "
				 "take it away, or restore its header (qs-util cryptrestore), first",
				 unknown->device, unknown->error.text);
}

/* May a keystore begin here? KS is none, or one whose enabling was cut off. */
static int refuse_beginning(const struct qs_env *env, const struct qs_keystore *ks,
			    struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes found = {};
	struct qs_env quiet = *env;
	int r = refuse_state(env, ks, err);

	quiet.progress = NULL;
	if (r == 0)
		r = qs_keystore_scan(&quiet, ks, QS_SCAN_COUNT, &found, err);
	return r < 0 ? r : refuse_elsewhere(&found, err);
}

int qs_keystore_may_enable(const struct qs_env *env, struct qs_error *err)
{
	struct qs_keystore ks;
	int r = qs_keystore_load(env, &ks, err);

	return r < 0 ? r : refuse_beginning(env, &ks, err);
}

static int make_first(const struct qs_env *env, const struct qs_provider *provider,
		      struct qs_keystore *ks, struct qs_error *err)
{
	int r = provider->create(env, ks, FIRST, err);

	if (r == 0)
		r = qs_keystore_probe(env, ks, FIRST, err);
	if (r < 0)
		return r;
	ks->state = QS_KEYSTORE_ENABLED;
	ks->current = FIRST;
	ks->generations[0] =
		(struct qs_keystore_generation){ .number = FIRST, .created = time(NULL) };
	ks->count = 1;
	return qs_keystore_save(env, ks, err);
}

static int begin(const struct qs_env *env, const struct qs_provider *provider,
		 struct qs_keystore *ks, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(env, QS_KEYSTORE_DIR);
	int r = 0;

	if (ks->state == QS_KEYSTORE_ENABLING)
		r = remove_all(env, ks, err);
	*ks = (struct qs_keystore){ .state = QS_KEYSTORE_ENABLING };
	(void)snprintf(ks->provider, sizeof(ks->provider), "%s", provider->name);
	if (r == 0)
		r = qs_keystore_new_uuid(ks->store, err);
	if (r == 0)
		r = qs_file_make_dirs(dir, 0700, err);
	if (r == 0)
		r = qs_file_sync_parent(dir, err);
	return r < 0 ? r : qs_keystore_save(env, ks, err);
}

int qs_keystore_enable(const struct qs_env *env, const char *name, struct qs_error *err)
{
	const struct qs_provider *provider = qs_provider_find(name);
	QS_AUTO(qs_auto_close) int lock = -1;
	struct qs_keystore ks;
	int r;

	if (!provider)
		return qs_fail(err, QS_E_USAGE, "no provider is called '%s'", name);
	lock = qs_keystore_lock(env, env->config.lock_wait_s * 1000, err);
	if (lock < 0)
		return lock;
	r = qs_keystore_load(env, &ks, err);
	if (r == 0)
		r = refuse_beginning(env, &ks, err);
	if (r == 0)
		r = provider->health(env, err);
	if (r == 0)
		r = qs_keystore_check_key(env, provider, &(struct qs_keystore){}, err);
	if (r < 0)
		return r;
	r = begin(env, provider, &ks, err);
	if (r == 0)
		r = make_first(env, provider, &ks, err);
	if (r == 0)
		return 0;
	ks.state = QS_KEYSTORE_ENABLING;
	if (remove_all(env, &ks, NULL) < 0)
		qs_error_append(err,
				" (something is left in %s; the same command again removes "
				"it)",
				QS_KEYSTORE_DIR);
	return r;
}

/* ---- disable ---- */

/* What cannot be read may depend on it: that is no reason to go on. */
static int refuse_dependents(const struct qs_outcomes *found, struct qs_error *err)
{
	const struct qs_outcome *first = NULL;
	size_t count = 0;

	for (size_t i = 0; i < found->count; i++) {
		const struct qs_outcome *o = &found->items[i];

		if (o->error.kind != QS_E_NONE)
			return qs_fail(err, QS_E_FORBIDDEN,
				       "it cannot be told whether %s depends on the keystore: %s",
				       o->device, o->error.text);
		/* Where keystore.json is wrong about who it is, all devices are like this. */
		if (json_object_get(o->details, "elsewhere"))
			return qs_fail(
				err, QS_E_FORBIDDEN,
				"%s has a key of another keystore, or %s is not of this one: "
				"take it away, or that file from a key bundle, first",
				o->device, QS_KEYSTORE_FILE);
		if (!json_object_get(o->details, "generation"))
			continue;
		count++;
		first = first ? first : o;
	}
	if (!first)
		return 0;
	return qs_fail(err, QS_E_FORBIDDEN,
		       "%zu device%s and header backup%s depend%s on the keystore, %s first: give "
		       "the devices another key and run `qs-util cryptenroll DEVICE --wipe "
		       "keystore`; `qs-util keystore purge --all` ends the retention of what was "
		       "destroyed",
		       count, count == 1 ? "" : "s", count == 1 ? "" : "s", count == 1 ? "s" : "",
		       first->device);
}

/* One that is not completely enabled, or being disabled, has no dependents: only the rest goes. */
static int load_to_disable(const struct qs_env *env, struct qs_keystore *ret, struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes found = {};
	int r = qs_keystore_load(env, ret, err);

	if (r < 0)
		return r;
	if (ret->state == QS_KEYSTORE_DISABLED)
		return qs_fail(err, QS_E_FAILED, "the keystore is not enabled");
	if (ret->state != QS_KEYSTORE_ENABLED)
		return 0;
	r = qs_keystore_scan(env, ret, QS_SCAN_COUNT, &found, err);
	return r < 0 ? r : refuse_dependents(&found, err);
}

int qs_keystore_may_disable(const struct qs_env *env, struct qs_error *err)
{
	struct qs_env quiet = *env;
	struct qs_keystore ks;

	quiet.progress = NULL; /* disabling shows it */
	return load_to_disable(&quiet, &ks, err);
}

int qs_keystore_disable(const struct qs_env *env, struct qs_error *err)
{
	QS_AUTO(qs_auto_close)
	int lock = qs_keystore_lock(env, env->config.lock_wait_s * 1000, err);
	struct qs_keystore ks;
	int r = lock < 0 ? lock : load_to_disable(env, &ks, err);

	if (r == 0 && ks.state == QS_KEYSTORE_ENABLED) {
		ks.state = QS_KEYSTORE_DISABLING;
		r = qs_keystore_save(env, &ks, err);
	}
	return r < 0 ? r : remove_all(env, &ks, err);
}

/* ---- looking ---- */

static json_int_t count_of(const struct qs_outcomes *found, uint32_t generation, bool backups)
{
	json_int_t count = 0;

	for (size_t i = 0; i < found->count; i++) {
		const json_t *details = found->items[i].details;
		const json_t *its = json_object_get(details, "generation");

		count += its && json_integer_value(its) == generation &&
			 json_is_true(json_object_get(details, "backup")) == backups;
	}
	return count;
}

static json_t *unreadable(const struct qs_outcomes *found)
{
	json_t *list = json_array();

	for (size_t i = 0; i < found->count; i++) {
		const struct qs_outcome *o = &found->items[i];

		if (o->error.kind != QS_E_NONE)
			(void)json_array_append_new(
				list, json_sprintf("%s: %s", o->device, o->error.text));
	}
	return list;
}

static json_t *rotation(const struct qs_keystore *ks, const struct qs_outcomes *found)
{
	json_int_t total = 0;

	for (size_t i = 0; i < ks->count; i++)
		if (!ks->generations[i].line)
			total += count_of(found, ks->generations[i].number, false);
	return json_pack("{s:s,s:i,s:s,s:I,s:I}", "state", qs_rotation_state_name(ks->rotation),
			 "generation", (int)ks->target, "provider",
			 qs_keystore_provider_name(ks, ks->target), "done",
			 count_of(found, ks->target, false), "total", total);
}

static json_t *generation(const struct qs_env *env, const struct qs_keystore *ks,
			  const struct qs_keystore_generation *g, const struct qs_outcomes *found)
{
	const struct qs_provider *provider = qs_keystore_provider(ks, g->number);
	json_t *tpm2 = provider->binding ? provider->binding(env, ks, g->number) : NULL;
	json_t *key = provider->key ? provider->key(env, ks, g->number) : NULL;
	json_t *json = json_pack("{s:i,s:o,s:s,s:I,s:I,s:o*,s:o*}", "number", (int)g->number,
				 "created", qs_json_time(g->created), "provider", provider->name,
				 "devices", count_of(found, g->number, false), "backups",
				 count_of(found, g->number, true), "tpm2", tpm2, "key", key);

	if (g->line)
		(void)json_object_set_new(json, "line", json_integer(g->line));
	return json;
}

int qs_keystore_status(const struct qs_env *env, json_t **ret, struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes found = {};
	struct qs_keystore ks;
	json_t *list;
	int r = qs_keystore_load(env, &ks, err);

	if (r < 0)
		return r;
	*ret = json_pack("{s:s}", "state", qs_keystore_state_name(ks.state));
	if (ks.state == QS_KEYSTORE_DISABLED)
		return 0;
	r = qs_keystore_scan(env, &ks, QS_SCAN_COUNT, &found, err);
	if (r < 0)
		return r;
	list = json_array();
	for (size_t i = 0; i < ks.count; i++)
		(void)json_array_append_new(list, generation(env, &ks, &ks.generations[i], &found));
	(void)json_object_set_new(*ret, "provider", json_string(ks.provider));
	(void)json_object_set_new(*ret, "store", json_string(ks.store));
	(void)json_object_set_new(*ret, "generation", json_integer(ks.current));
	(void)json_object_set_new(*ret, "generations", list);
	(void)json_object_set_new(*ret, "unreadable", unreadable(&found));
	(void)json_object_set_new(*ret, "rotation_state",
				  json_string(qs_rotation_state_name(ks.rotation)));
	if (ks.rotation != QS_ROTATION_IDLE)
		(void)json_object_set_new(*ret, "rotation", rotation(&ks, &found));
	qs_keystore_add_schedule(&ks, *ret);
	qs_rotation_add_error(env, &ks, *ret);
	if (ks.rotated)
		(void)json_object_set_new(*ret, "rotated", qs_json_time(ks.rotated));
	r = qs_keystore_add_server(env, &ks, *ret, err);
	return r < 0 ? r : qs_keystore_add_retained(env, &ks, *ret, err);
}

/* What its workers will want of providers, in one call for all that there is. */
static int prepare_verify(const struct qs_env *env, const struct qs_keystore *ks,
			  const struct qs_outcomes *found, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) uint32_t *generations = calloc(found->count + 1, sizeof(uint32_t));
	QS_AUTO(qs_auto_free) char **wrapped = calloc(found->count + 1, sizeof(char *));

	if (!generations || !wrapped)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", found->count);
	for (size_t i = 0; i < found->count; i++) {
		const json_t *details = found->items[i].details;

		generations[i] =
			(uint32_t)json_integer_value(json_object_get(details, "generation"));
		wrapped[i] = (char *)json_string_value(json_object_get(details, "wrapped"));
	}
	return qs_keystore_prepare_devices(env, ks, generations, wrapped, found->count, true, err);
}

int qs_keystore_verify(const struct qs_env *env, struct qs_outcomes *ret, struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes found = {};
	struct qs_env quiet = *env;
	struct qs_keystore ks;
	int r = qs_keystore_load_enabled(env, &ks, err);

	quiet.progress = NULL;
	if (r == 0)
		r = qs_keystore_scan(&quiet, &ks, QS_SCAN_WRAPPED, &found, err);
	if (r == 0)
		r = prepare_verify(env, &ks, &found, err);
	return r < 0 ? r : qs_keystore_scan(env, &ks, QS_SCAN_PROVE, ret, err);
}
