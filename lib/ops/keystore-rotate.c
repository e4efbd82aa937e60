/*
 * keystore rotate and migrate, and what else brings devices to the generation that wraps now. The
 * steps of a rotation and what a crash leaves stand in keystore/rotation.h, those of one device in
 * keystore-rewrap.c.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "keystore/lease.h"
#include "keystore/provider.h"
#include "keystore/rotation.h"
#include "keystore/session.h"
#include "ops/keystore-record.h"
#include "ops/keystore.h"

struct rotate {
	const struct qs_env *env;
	struct qs_outcomes found;   /* devices and backups, as last looked at */
	struct qs_outcomes *report; /* what was done */
	json_t *retired;            /* array of numbers */
	bool flushed;               /* backups were, behind the last change */
	bool unattended;            /* nobody can be asked */
	bool only_retire;           /* devices stay at the generation that they have */
};

static bool detail_is_true(const struct qs_outcome *o, const char *key)
{
	return json_is_true(json_object_get(o->details, key));
}

static bool is_backup(const struct qs_outcome *o)
{
	return detail_is_true(o, "backup");
}

/* ---- devices ---- */

/* Where a device belongs that cannot be looked at; 0: it may have any of several keys. */
static uint32_t only_target(const struct qs_keystore *ks)
{
	for (size_t i = 0; i < ks->count; i++)
		if (ks->generations[i].line)
			return 0;
	return qs_keystore_wraps_with(ks);
}

static void note(struct qs_rotation_view *view, const struct qs_keystore *ks,
		 const struct qs_outcome *o)
{
	const json_t *generation = json_object_get(o->details, "generation");
	const json_t *target = json_object_get(o->details, "target");

	if (o->error.kind != QS_E_NONE) {
		view->unknown = true;
		if (!is_backup(o))
			qs_rotation_view_wait(view, only_target(ks));
	}
	/*
	 * Another keystore's keeps ours of that number, too: it may be keystore.json that is wrong
	 * about who it is, and then all devices are like this.
	 */
	if (!generation)
		generation = json_object_get(o->details, "elsewhere");
	if (!generation)
		return;
	qs_rotation_view_add(view, (uint32_t)json_integer_value(generation));
	if (o->error.kind == QS_E_NONE && detail_is_true(o, "behind"))
		qs_rotation_view_wait(view, (uint32_t)json_integer_value(target));
}

static int look(void *cookie, const struct qs_keystore *ks, struct qs_rotation_view *ret,
		struct qs_error *err)
{
	struct rotate *ro = cookie;
	/* Progress is of devices that are brought along, from one to all: looking is none. */
	struct qs_env quiet = *ro->env;
	int r;

	quiet.progress = NULL;
	qs_outcomes_done(&ro->found);
	r = qs_keystore_scan(&quiet, ks, QS_SCAN_REWRAP, &ro->found, err);
	for (size_t i = 0; r == 0 && i < ro->found.count; i++)
		note(ret, ks, &ro->found.items[i]);
	if (ro->only_retire)
		ret->waiting = 0;
	if (r == 0 && qs_pool_interrupted())
		r = qs_fail(err, QS_E_INTERRUPTED, "interrupted: the next run goes on");
	return r;
}

static int rewrap(void *cookie, const struct qs_keystore *ks, struct qs_error *err)
{
	struct rotate *ro = cookie;
	int r = qs_keystore_bring(ro->env, ks, &ro->found, ro->report, err);

	ro->flushed = r == 0;
	return r;
}

/* ---- generations ---- */

static int save(void *cookie, const struct qs_keystore *ks, struct qs_error *err)
{
	const struct rotate *ro = cookie;
	int r = 0;

	/* What a run that was killed wrote is right, but perhaps not durable. */
	if (ks->rotation == QS_ROTATION_IDLE && !ro->flushed)
		r = qs_keystore_flush(ro->env, err);
	if (r == 0)
		r = qs_keystore_save(ro->env, ks, err);
	if (r == 0 && ks->rotation == QS_ROTATION_IDLE)
		qs_lease_drop_left(ro->env, ks);
	return r;
}

/*
 * One that is there already was left by a run that was cut off, or keystore.json is an older one
 * that was put back and devices may depend on it: it is taken as it is, and never made anew.
 */
static int make(void *cookie, const struct qs_keystore *ks, uint32_t number, struct qs_error *err)
{
	const struct rotate *ro = cookie;
	struct qs_error own = {};
	int r = qs_keystore_provider(ks, number)->create(ro->env, ks, number, &own);

	if (r < 0 && own.kind != QS_E_EXISTS) {
		*err = own;
		return r;
	}
	if (r < 0) {
		QS_AUTO(qs_auto_free) char *file = qs_env_path(ro->env, QS_KEYSTORE_FILE);

		r = qs_file_sync_parent(file, err);
	}
	if (r == 0)
		r = qs_keystore_probe(ro->env, ks, number, err);
	if (r < 0 && own.kind == QS_E_EXISTS)
		qs_error_append(err, " (it was there before: move it away)");
	return r;
}

static int retire(void *cookie, const struct qs_keystore *ks, uint32_t number, struct qs_error *err)
{
	struct rotate *ro = cookie;
	const struct qs_provider *provider = qs_keystore_provider(ks, number);
	struct qs_error own = {};
	int r = provider->retire(ro->env, ks, number, &own);

	if (r < 0 && err)
		*err = own;
	if (r < 0 && !qs_keystore_generation(ks, number))
		qs_log(QS_LOG_WARNING,
		       "what was begun of generation %u (provider %s) could not be erased; nothing "
		       "was wrapped by it: %s",
		       (unsigned)number, provider->name, own.text);
	if (r >= 0 && qs_keystore_generation(ks, number))
		(void)json_array_append_new(ro->retired, json_integer(number));
	return r < 0 ? r : 0;
}

static const struct qs_rotation_functions functions = {
	.save = save,
	.make = make,
	.look = look,
	.rewrap = rewrap,
	.retire = retire,
};

/* ---- the commands ---- */

/* What cannot be looked at is a failure of its own, told once. */
static void tell_unreadable(const struct rotate *ro)
{
	for (size_t i = 0; i < ro->found.count && !qs_pool_interrupted(); i++) {
		const struct qs_outcome *from = &ro->found.items[i];
		struct qs_outcome *o;

		if (from->error.kind == QS_E_NONE)
			continue;
		if (is_backup(from)) {
			qs_log(QS_LOG_WARNING, "no generation is retired: %s: %s", from->device,
			       from->error.text);
			continue;
		}
		o = qs_outcomes_add(ro->report, from->device);
		qs_outcome_set(&o->node, from->node);
		o->error = from->error;
	}
}

/* A key that cannot be used must not leave a rotation that is begun. */
static int refuse_key(const struct qs_env *env, const struct qs_keystore *ks, const char *provider,
		      struct qs_error *err)
{
	if (env->keystore && env->keystore->key_id && ks->rotation == QS_ROTATION_REWRAPPING)
		return qs_fail(err, QS_E_REFUSED,
			       "generation %u is made already: finish that rotation first, without "
			       "--key-id",
			       (unsigned)ks->target);
	return qs_keystore_check_key(env, qs_provider_find(provider), ks, err);
}

/*
 * With the keystore's lock, on KS as it is now: begin what is ASKED, go on with one, or with
 * devices.
 */
static int run(struct rotate *ro, struct qs_keystore *ks, const struct qs_rotation_wish *asked,
	       struct qs_error *err)
{
	bool fresh = asked && ks->rotation == QS_ROTATION_IDLE;
	uint32_t target = fresh ? ks->generations[ks->count - 1].number + 1 : ks->target;
	const struct qs_error well = {};
	int r = refuse_key(ro->env, ks,
			   asked ? asked->provider : qs_keystore_provider_name(ks, ks->target),
			   err);

	if (r < 0)
		return r;
	if (target)
		qs_rotation_tell_begin(ro->env, ks, target);
	r = qs_keystore_prepare_all(ro->env, ks, true, err);
	if (r == 0) {
		r = qs_rotation_run(ks, &functions, ro, asked, err);
		tell_unreadable(ro);
	}
	if (r < 0 && ro->unattended && err->kind == QS_E_PIN)
		qs_error_append(err, ": `qs-util keystore rotate` asks for it");
	qs_rotation_tell_end(ro->env, ks, target, r < 0 ? err : &well, ro->report);
	return r;
}

static int refuse_target(const struct qs_keystore *ks, const char *provider, struct qs_error *err)
{
	if (!qs_provider_find(provider))
		return qs_fail(err, QS_E_USAGE, "no provider is called '%s'", provider);
	if (ks->rotation == QS_ROTATION_IDLE && strcmp(provider, ks->provider) == 0)
		return qs_fail(
			err, QS_E_EXISTS,
			"the keystore has the provider %s already: `qs-util keystore rotate` "
			"makes a new generation",
			provider);
	return 0;
}

int qs_keystore_may_migrate(const struct qs_env *env, const char *provider, struct qs_error *err)
{
	struct qs_keystore ks;
	int r = qs_keystore_load_enabled(env, &ks, err);

	return r < 0 ? r : refuse_target(&ks, provider, err);
}

/* Before anything is begun: is there somewhere to go, and does it answer? */
static int refuse_migration(const struct qs_env *env, const struct qs_keystore *ks,
			    const char *provider, struct qs_error *err)
{
	int r = refuse_target(ks, provider, err);

	if (r < 0 || ks->rotation == QS_ROTATION_REWRAPPING)
		return r;
	return qs_provider_find(provider)->health(env, err);
}

static int migrate(struct rotate *ro, const char *provider, struct qs_keystore *ks,
		   struct qs_error *err)
{
	const struct qs_keystore_session *s = ro->env->keystore;
	bool into_tpm = s && strcmp(provider, "tpm2") == 0 && strcmp(ks->provider, "tpm2") != 0;
	const struct qs_rotation_wish wish = {
		.provider = provider,
		.pcrs = into_tpm ? s->pcrs : 0,
		.pin = into_tpm && s->want_pin,
	};
	int r = refuse_migration(ro->env, ks, provider, err);

	return r < 0 ? r : run(ro, ks, &wish, err);
}

static int rotate(struct rotate *ro, const struct qs_rotate_options *options,
		  struct qs_keystore *ks, struct qs_error *err)
{
	const struct qs_rotation_wish wish = { .provider = ks->provider };
	struct qs_error own = {};
	QS_AUTO(qs_auto_close) int lock = qs_keystore_lock(ro->env, 0, &own);
	bool idle;
	int r;

	/* The next turn of the timer looks again; all that is left by then is overdue, and told. */
	if (lock < 0 && options->if_due && own.kind == QS_E_LOCKED) {
		qs_log(QS_LOG_INFO, "nothing is done now: %s", own.text);
		return 0;
	}
	if (lock < 0)
		*err = own;
	r = lock < 0 ? lock : qs_keystore_load_enabled(ro->env, ks, err);
	idle = r == 0 && ks->rotation == QS_ROTATION_IDLE;
	if (r == 0 && options->provider)
		return migrate(ro, options->provider, ks, err);
	if (idle && !options->force && !options->if_due)
		r = qs_keystore_refuse_interval(qs_keystore_generation(ks, ks->current), err);
	if (r < 0)
		return r;
	return run(ro, ks, idle && (!options->if_due || qs_keystore_is_due(ks)) ? &wish : NULL,
		   err);
}

/* Nobody sees the sentence of a timer's run that could not even begin. */
static int look_for_work(const struct qs_env *env, struct qs_keystore *ks, bool *ret,
			 struct qs_error *err)
{
	const struct qs_outcomes none = {};
	int r = qs_keystore_load(env, ks, err);

	if (r == 0)
		r = qs_keystore_has_work(env, ks, ret, err);
	if (r == 0 && !*ret)
		qs_rotation_tell_settled(env, ks);
	if (r < 0)
		qs_rotation_tell_end(env, ks, 0, err, &none);
	return r;
}

int qs_keystore_rotate(const struct qs_env *env, const struct qs_rotate_options *options,
		       struct qs_outcomes *ret, json_t **ret_result, struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *retired = json_array();
	struct rotate ro = {
		.env = env, .report = ret, .retired = retired, .unattended = options->if_due
	};
	struct qs_key_rotation key = {};
	struct qs_keystore ks = {};
	struct qs_error own = {};
	bool work = true;
	int r = 0;

	err = err ? err : &own;
	if (options->if_due)
		r = look_for_work(env, &ks, &work, err);
	if (r == 0 && work)
		r = options->key
			    ? qs_keystore_rotate_key(env, options, &ks, ret, retired, &key, err)
			    : rotate(&ro, options, &ks, err);
	if (options->if_due)
		qs_rotation_tell_overdue(env, &ks);
	if (ks.state != QS_KEYSTORE_DISABLED || r == 0)
		*ret_result = qs_keystore_describe_rotation(&ks, retired);
	if (key.generation)
		(void)json_object_set_new(*ret_result, "key",
					  json_pack("{s:i,s:b}", "generation", (int)key.generation,
						    "made", key.made));
	qs_outcomes_done(&ro.found);
	return r;
}

/* ---- after a purge ---- */

/* A new keystore has one generation, and no header is read. */
static int may_retire(const struct qs_env *env, const struct qs_keystore *ks, bool *ret,
		      struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes found = {};
	struct qs_rotation_view view = {};
	int r;

	*ret = false;
	if (ks->state != QS_KEYSTORE_ENABLED || ks->rotation != QS_ROTATION_IDLE || ks->count < 2)
		return 0;
	r = qs_keystore_scan(env, ks, QS_SCAN_BACKUPS, &found, err);
	for (size_t i = 0; r == 0 && i < found.count; i++)
		note(&view, ks, &found.items[i]);
	*ret = r == 0 && qs_rotation_retirable(ks, &view) > 0;
	return r;
}

static int retire_now(struct rotate *ro, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int lock = -1;
	struct qs_keystore ks;
	struct qs_error own = {};
	bool may = false;
	int r = qs_keystore_load(ro->env, &ks, err);

	if (r == 0)
		r = may_retire(ro->env, &ks, &may, err);
	if (r < 0 || !may)
		return r;
	lock = qs_keystore_lock(ro->env, 0, &own);
	if (lock < 0 && own.kind == QS_E_LOCKED)
		return 0;
	if (lock < 0 && err)
		*err = own;
	r = lock < 0 ? lock : qs_keystore_load_enabled(ro->env, &ks, err);
	if (r < 0 || ks.rotation != QS_ROTATION_IDLE)
		return r;
	return qs_rotation_run(&ks, &functions, ro, NULL, err);
}

int qs_keystore_retire(const struct qs_env *env, json_t *ret, struct qs_error *err)
{
	struct rotate ro = { .env = env, .retired = ret, .only_retire = true };
	int r = retire_now(&ro, err);

	qs_outcomes_done(&ro.found);
	return r;
}

/* ---- after an open ---- */

static bool is_behind(const struct qs_keystore *ks, const struct qs_outcome *o)
{
	const json_t *generation = json_object_get(o->details, "keystore_generation");
	uint32_t number = (uint32_t)json_integer_value(generation);

	return o->error.kind == QS_E_NONE && generation &&
	       number != qs_keystore_successor(ks, number);
}

static bool any_behind(const struct qs_env *env, const struct qs_outcomes *list)
{
	struct qs_keystore ks;
	bool any = false;

	for (size_t i = 0; i < list->count; i++)
		any |= json_object_get(list->items[i].details, "keystore_generation") != NULL;
	if (!any || qs_keystore_load_enabled(env, &ks, NULL) < 0)
		return false;
	any = false;
	for (size_t i = 0; i < list->count; i++)
		any |= is_behind(&ks, &list->items[i]);
	return any;
}

static int follow_up(struct rotate *ro, struct qs_error *err)
{
	struct qs_keystore ks;
	int r = qs_keystore_load_enabled(ro->env, &ks, err);

	/* A rotation that was cut off is for whoever rotates: it may take long. */
	if (r < 0 || ks.rotation != QS_ROTATION_IDLE)
		return r;
	r = qs_rotation_run(&ks, &functions, ro, NULL, err);
	if (r == 0)
		qs_rotation_tell_settled(ro->env, &ks);
	return r;
}

void qs_keystore_follow_up(const struct qs_env *env, const struct qs_outcomes *list)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes report = {};
	/* The progress is of opening, which has come to its end. */
	struct qs_env quiet = *env;
	struct rotate ro = { .env = &quiet, .report = &report };
	QS_AUTO(qs_auto_close) int lock = -1;
	struct qs_error err = {};
	int r;

	if (!any_behind(env, list))
		return;
	quiet.progress = NULL;
	ro.retired = json_array();
	lock = qs_keystore_lock(env, 0, &err);
	r = lock < 0 ? lock : follow_up(&ro, &err);
	for (size_t i = 0; i < report.count; i++)
		if (report.items[i].error.kind != QS_E_NONE)
			qs_log(QS_LOG_WARNING,
			       "%s stays at an older generation of the keystore: %s",
			       report.items[i].device, report.items[i].error.text);
	if (r < 0 && err.kind != QS_E_PARTIAL)
		qs_log(QS_LOG_WARNING, "devices stay at an older generation of the keystore: %s",
		       err.text);
	qs_outcomes_done(&ro.found);
	json_decref(ro.retired);
}

/* ---- for those who change devices, or keys, themselves ---- */

int qs_keystore_settle(const struct qs_env *env, struct qs_keystore *ks, struct qs_outcomes *report,
		       json_t *retired, struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *own = json_array();
	struct rotate ro = { .env = env, .report = report, .retired = retired ? retired : own };
	int r = qs_rotation_run(ks, &functions, &ro, NULL, err);

	if (r == 0)
		qs_rotation_tell_settled(env, ks);
	if (r < 0 && err->kind == QS_E_PARTIAL)
		tell_unreadable(&ro);
	qs_outcomes_done(&ro.found);
	return r;
}
