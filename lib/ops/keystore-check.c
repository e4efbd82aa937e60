#include "ops/keystore-check.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "keystore/lease.h"
#include "keystore/provider.h"
#include "keystore/session.h"
#include "luks/fields.h"
#include "ops/event.h"
#include "ops/internal.h"

#define STATE_DIR "/var/lib/qs-util"
#define STATE_FILE STATE_DIR "/keystore-check.json"
#define STATE_MAX 4096 /* bytes; we write 100 */

#define DAY 86400L
#define WARN_DAYS 30L /* time enough for a company to issue a certificate */

/* ---- what ends ---- */

/* Once, though several keys are at one server. */
static void add_warning(json_t *list, json_t *text)
{
	const json_t *one;
	bool there = false;
	size_t i;

	json_array_foreach(list, i, one) there |= json_equal(one, text);
	if (there)
		json_decref(text);
	else
		(void)json_array_append_new(list, text);
}

static void warn(json_t *list, const json_t *one, time_t now)
{
	const char *what = qs_fields_text(one, "what");
	const char *when = qs_fields_text(one, "time");
	time_t end;
	long days;

	if (!what || !when || qs_keystore_parse_time(when, &end) < 0)
		return;
	days = (long)((end - now) / DAY);
	if (end <= now)
		add_warning(list, json_sprintf("%s ended on %s", what, when));
	else if (days < WARN_DAYS)
		add_warning(list, json_sprintf("%s ends in %ld day%s, on %s", what, days,
					       days == 1 ? "" : "s", when));
}

/* Of the generation that wraps, else of the last other one that has a server. */
static json_t *describe(const struct qs_env *env, const struct qs_keystore *ks)
{
	uint32_t number = qs_keystore_wraps_with(ks);
	const struct qs_provider *p = qs_keystore_provider(ks, number);

	for (size_t i = ks->count; !p->describe && i > 0; i--) {
		number = ks->generations[i - 1].number;
		p = qs_keystore_provider(ks, number);
	}
	return p->describe ? p->describe(env, number) : NULL;
}

/* Those of keys for some devices only which have credentials of their own. */
static json_t *describe_keys(const struct qs_env *env, const struct qs_keystore *ks)
{
	json_t *list = json_array();

	for (size_t i = 0; i < ks->count; i++) {
		const struct qs_keystore_generation *g = &ks->generations[i];
		QS_AUTO(qs_auto_json) json_t *key = NULL;
		json_t *server;

		if (!g->line || qs_keystore_head(ks, g->line) != g)
			continue;
		key = qs_keystore_provider(ks, g->number)->key(env, ks, g->number);
		if (!json_object_get(key, "role_id"))
			continue;
		server = qs_keystore_provider(ks, g->number)->describe(env, g->number);
		(void)json_object_set_new(server, "generation", json_integer(g->number));
		(void)json_array_append_new(list, server);
	}
	return list;
}

static void warn_all(json_t *list, const json_t *server, time_t now)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(server, "expires"), i, one) warn(list, one, now);
}

/* ---- when the keys were had last ---- */

static json_t *load_state(const struct qs_env *env)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, STATE_FILE);
	QS_AUTO(qs_auto_free) char *text = NULL;
	size_t size = 0;
	json_t *json = NULL;
	time_t time;

	if (qs_file_read(real, STATE_MAX, &text, &size, NULL) == 0)
		json = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
	if (json && qs_keystore_parse_time(qs_fields_text(json, "time"), &time) == 0 &&
	    (!json_object_get(json, "succeeded") ||
	     qs_keystore_parse_time(qs_fields_text(json, "succeeded"), &time) == 0))
		return json;
	json_decref(json);
	return NULL;
}

/* Nothing depends on it: that it cannot be written is told, and no failure of the check. */
static void save_state(const struct qs_env *env, bool succeeded)
{
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(env, STATE_DIR);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, STATE_FILE);
	QS_AUTO(qs_auto_json) json_t *old = load_state(env);
	QS_AUTO(qs_auto_json) json_t *now = qs_json_time(time(NULL));
	QS_AUTO(qs_auto_json)
	json_t *json = json_pack("{s:O,s:O*}", "time", now, "succeeded",
				 succeeded ? now : json_object_get(old, "succeeded"));
	QS_AUTO(qs_auto_free) char *text = json_dumps(json, JSON_INDENT(2));
	struct qs_error err = {};
	int r = qs_file_make_dirs(dir, 0700, &err);

	if (r == 0)
		r = qs_file_replace(real, text, strlen(text), &(struct qs_replace){ .mode = 0600 },
				    &err);
	if (r < 0)
		qs_log(QS_LOG_WARNING, "keystore status will not know of this check: %s", err.text);
}

/* ---- together ---- */

static int check_interrupt(struct qs_error *err)
{
	return qs_pool_interrupted() ? qs_fail(err, QS_E_INTERRUPTED, "interrupted") : 0;
}

/* Of each generation that check makes one of, is there one? And those that are there. */
static void add_leases(const struct qs_env *env, const struct qs_keystore *ks, json_t *result)
{
	bool possible = false, missing = false;
	json_t *leases = json_array();

	for (size_t i = 0; i < ks->count; i++) {
		const struct qs_keystore_generation *g = &ks->generations[i];
		bool ours = !g->begun && qs_lease_may_be(ks, g->number);
		json_t *lease = qs_lease_describe(env, g->number);

		possible |= ours;
		missing |= ours && !lease;
		if (lease)
			(void)json_array_append_new(leases, lease);
	}
	if (possible)
		(void)json_object_set_new(result, "lease_state",
					  json_string(!qs_lease_is_wanted(env) ? "off"
						      : missing                ? "missing"
									       : "made"));
	if (json_array_size(leases) > 0)
		(void)json_object_set(result, "leases", leases);
	json_decref(leases);
}

int qs_keystore_add_server(const struct qs_env *env, const struct qs_keystore *ks, json_t *result,
			   struct qs_error *err)
{
	json_t *server = describe(env, ks);
	json_t *keys = describe_keys(env, ks);
	json_t *last = load_state(env);
	json_t *warnings = json_array();
	const json_t *one;
	time_t now = time(NULL);
	size_t i;

	warn_all(warnings, server, now);
	json_array_foreach(keys, i, one) warn_all(warnings, one, now);
	if (server)
		(void)json_object_set_new(result, "server", server);
	if (json_array_size(keys) > 0)
		(void)json_object_set(result, "key_servers", keys);
	json_decref(keys);
	add_leases(env, ks, result);
	if (json_array_size(warnings) > 0)
		(void)json_object_set(result, "warnings", warnings);
	if (last)
		(void)json_object_set_new(result, "last_check", last);
	json_decref(warnings);
	/* A server that was not waited for is not known to be away. */
	return check_interrupt(err);
}

static bool is_refused(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number)
{
	const struct qs_kek *kek =
		env->keystore ? qs_keystore_session_find(env->keystore, ks->store, number) : NULL;

	return kek && !kek->there && kek->denial == QS_KMIP_DENIED;
}

/*
 * A server that gives the key renews its lease; one that refuses ends it. One that is away or
 * in trouble leaves it, and so does what fails on this machine, as a disk that cannot be read.
 */
static void follow_lease(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
			 const struct qs_error *problem)
{
	struct qs_error err = {};
	int r = 0;

	if (!qs_lease_is_wanted(env) || !qs_lease_may_be(ks, number) || is_refused(env, ks, number))
		r = qs_lease_drop(env, ks, number, &err);
	else if (problem->kind == QS_E_NONE)
		r = qs_lease_renew(env, ks, number, &err);
	if (r < 0)
		qs_log(QS_LOG_WARNING, "the lease of generation %u: %s", (unsigned)number,
		       err.text);
}

/* The first failure stays in FAILED, whatever others say. */
static void try_generation(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
			   json_t *tried, struct qs_error *failed)
{
	struct qs_error own = {};

	if (qs_keystore_probe_any(env, ks, number, &own) == 0)
		(void)json_array_append_new(tried, json_integer(number));
	else if (own.kind != QS_E_PIN && failed->kind == QS_E_NONE)
		*failed = own;
	follow_lease(env, ks, number, &own);
}

/* What monitoring has to know, to the journal too. */
static int tell(const struct qs_env *env, const json_t *result, const struct qs_error *failed,
		struct qs_error *err)
{
	const json_t *warnings = json_object_get(result, "warnings");
	const json_t *one;
	size_t i;

	json_array_foreach(warnings, i, one)
		qs_event_send(env, QS_EVENT_EXPIRES, NULL, NULL, json_string_value(one));
	if (failed->kind != QS_E_NONE) {
		qs_event_send(env, QS_EVENT_KEYS_LOST, NULL, NULL, failed->text);
		*err = *failed;
		return qs_negative(qs_kind_errno(failed->kind));
	}
	if (!warnings)
		return 0;
	(void)qs_fail(err, QS_E_FAILED, "the keys can be had, but %s",
		      json_string_value(json_array_get(warnings, 0)));
	for (i = 1; i < json_array_size(warnings); i++)
		qs_error_append(err, "; %s", json_string_value(json_array_get(warnings, i)));
	return -EIO;
}

int qs_keystore_check(const struct qs_env *env, json_t **ret, struct qs_error *err)
{
	struct qs_error failed = {}, ahead = {};
	struct qs_keystore ks;
	json_t *tried;
	int r = qs_keystore_load_enabled(env, &ks, err);

	if (env->keystore)
		env->keystore->no_lease = true;
	/* For monitoring, no keystore is another thing than a certificate that ends soon. */
	if (r < 0 && err->kind == QS_E_FAILED)
		err->kind = QS_E_CONFIG;
	if (r < 0)
		return qs_negative(qs_kind_errno(err->kind));
	/* What fails here fails for each of them again, and is told there. */
	(void)qs_keystore_prepare_all(env, &ks, true, &ahead);
	tried = json_array();
	for (size_t i = 0; i < ks.count; i++)
		if (!ks.generations[i].begun)
			try_generation(env, &ks, ks.generations[i].number, tried, &failed);
	/* No event and no record: that somebody ended it says nothing of the keys. */
	r = check_interrupt(err);
	if (r < 0) {
		json_decref(tried);
		return r;
	}
	save_state(env, failed.kind == QS_E_NONE);
	*ret = json_pack("{s:s,s:s,s:i,s:o}", "state", qs_keystore_state_name(ks.state), "provider",
			 ks.provider, "generation", (int)ks.current, "tried", tried);
	r = qs_keystore_add_server(env, &ks, *ret, err);
	return r < 0 ? r : tell(env, *ret, &failed, err);
}
