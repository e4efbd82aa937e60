#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "base/utf8.h"
#include "ops/internal.h"

void qs_outcome_set(char **field, const char *value)
{
	char *copy = qs_strdup(value);

	free(*field);
	*field = copy;
}

struct qs_outcome *qs_outcomes_add(struct qs_outcomes *list, const char *device)
{
	struct qs_outcome *grown = realloc(list->items, (list->count + 1) * sizeof(*grown));

	if (!grown)
		abort();
	list->items = grown;
	grown[list->count] = (struct qs_outcome){ .device = qs_strdup(device) };
	return &grown[list->count++];
}

int qs_outcomes_init(struct qs_outcomes *ret, const char *const *devices, size_t count,
		     struct qs_error *err)
{
	ret->items = calloc(count ? count : 1, sizeof(*ret->items));
	ret->count = 0;
	if (!ret->items)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", count);
	for (size_t i = 0; i < count; i++)
		ret->items[ret->count++].device = qs_strdup(devices[i]);
	return 0;
}

void qs_outcomes_pop(struct qs_outcomes *list)
{
	struct qs_outcome *o = &list->items[--list->count];

	free(o->device);
	free(o->node);
	free(o->by_id);
	free(o->name);
	free(o->uuid);
	free(o->note);
	json_decref(o->details);
}

void qs_outcomes_done(struct qs_outcomes *list)
{
	while (list->count > 0)
		qs_outcomes_pop(list);
	free(list->items);
	list->items = NULL;
}

void qs_outcome_set_device(struct qs_outcome *outcome, const struct qs_device *dev)
{
	qs_outcome_set(&outcome->node, dev->node);
	if (dev->link)
		qs_outcome_set(&outcome->by_id, dev->link);
	if (dev->name)
		qs_outcome_set(&outcome->name, dev->name);
}

void qs_outcome_detail(struct qs_outcome *outcome, const char *key, json_t *value)
{
	if (!outcome->details)
		outcome->details = json_object();
	(void)json_object_set_new(outcome->details, key, value);
}

json_t *qs_json_time(time_t when)
{
	char text[QS_TEXT_TIME_L];

	return json_string(*qs_text_print_time(when, QS_TEXT_RFC3339, text) ? text : "unknown");
}

void qs_outcome_warn(struct qs_outcome *outcome, const char *format, ...)
{
	json_t *list = json_object_get(outcome->details, "warnings");
	char text[512];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (!list)
		qs_outcome_detail(outcome, "warnings", list = json_array());
	(void)json_array_append_new(list, qs_utf8_json(text));
}

int qs_outcomes_verdict(const struct qs_outcomes *list, struct qs_error *err)
{
	const struct qs_outcome *first = NULL;
	size_t failed = 0;
	bool alike = true;

	for (size_t i = 0; i < list->count; i++) {
		const struct qs_outcome *o = &list->items[i];

		if (o->error.kind == QS_E_NONE)
			continue;
		failed++;
		if (!first)
			first = o;
		else if (qs_kind_exit(o->error.kind) != qs_kind_exit(first->error.kind))
			alike = false;
	}
	if (!first)
		return 0;
	if (list->count == 1) {
		*err = first->error;
		return qs_kind_errno(err->kind);
	}
	if (failed < list->count)
		return qs_fail(err, QS_E_PARTIAL, "%zu of %zu devices failed", failed, list->count);
	return qs_fail(err, alike ? first->error.kind : QS_E_FAILED, "all %zu devices failed",
		       failed);
}

struct outcomes_run {
	const struct qs_env *env;
	struct qs_outcomes *list;
	size_t *index; /* of each job in list */
	size_t total, finished;
	qs_job *job;
	void *cookie;
	const struct qs_beside *beside;
};

static int run_one(struct qs_worker *worker, size_t job, void *cookie, json_t **ret,
		   struct qs_error *err)
{
	const struct outcomes_run *run = cookie;

	return run->job(worker, run->index[job], run->cookie, ret, err);
}

static void merge(struct qs_outcome *outcome, json_t *result)
{
	const struct {
		const char *key;
		char **field;
	} fields[] = {
		{ "uuid", &outcome->uuid },
		{ "name", &outcome->name },
		{ "by_id", &outcome->by_id },
		{ "note", &outcome->note },
	};
	const char *key;
	json_t *value;

	for (size_t i = 0; i < QS_ARRAY_SIZE(fields); i++) {
		const char *text = json_string_value(json_object_get(result, fields[i].key));

		if (!text)
			continue;
		qs_outcome_set(fields[i].field, text);
		(void)json_object_del(result, fields[i].key);
	}
	json_object_foreach(result, key, value) qs_outcome_detail(outcome, key, json_incref(value));
}

static void one_done(size_t job, json_t *result, const struct qs_error *error, void *cookie)
{
	struct outcomes_run *run = cookie;
	struct qs_outcome *outcome = &run->list->items[run->index[job]];

	outcome->error = *error;
	merge(outcome, result);
	qs_env_progress(run->env, outcome->device, "done", ++run->finished, run->total);
}

static void one_step(size_t job, const char *step, void *cookie)
{
	const struct outcomes_run *run = cookie;

	qs_env_progress(run->env, run->list->items[run->index[job]].device, step, run->finished,
			run->total);
}

static bool one_is_ready(size_t job, void *cookie)
{
	const struct outcomes_run *run = cookie;

	return run->beside->ready(run->index[job], run->beside->cookie);
}

int qs_outcomes_run(const struct qs_env *env, struct qs_outcomes *list, const bool *only,
		    qs_job *job, void *cookie, struct qs_error *err)
{
	const struct qs_beside none = {};

	return qs_outcomes_run_beside(env, list, only, job, cookie, &none, err);
}

int qs_outcomes_run_beside(const struct qs_env *env, struct qs_outcomes *list, const bool *only,
			   qs_job *job, void *cookie, const struct qs_beside *beside,
			   struct qs_error *err)
{
	QS_AUTO(qs_auto_free) size_t *index = calloc(list->count + 1, sizeof(*index));
	struct outcomes_run run = { env, list, index, 0, 0, job, cookie, beside };
	const struct qs_pool pool = {
		.workers = env->config.workers,
		.memory_limit = env->config.memory_limit,
		.deadline_ms = env->config.open_deadline_s * 1000,
		.job = run_one,
		.done = one_done,
		.step = one_step,
		.cookie = &run,
		.beside = beside->pool,
		.ready = one_is_ready,
		.prepare = beside->prepare,
	};

	if (!index)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", list->count);
	for (size_t i = 0; i < list->count; i++)
		if (list->items[i].error.kind == QS_E_NONE && (!only || only[i]))
			index[run.total++] = i;
	return run.total == 0 ? 0 : qs_pool_run(&pool, run.total, err);
}

/* A disk that has to spin up first takes up to 30 s; whoever looks does not wait longer. */
#define LOOK_DEADLINE_S 30

/* Where most of the work is waiting for disks, more of them answer at once than there are cores. */
#define DISK_WORKERS 8

unsigned qs_outcomes_disk_workers(const struct qs_env *env)
{
	unsigned cores = qs_pool_cores();

	if (env->config.workers > 0)
		return env->config.workers;
	return cores > DISK_WORKERS ? cores : DISK_WORKERS;
}

int qs_outcomes_look(const struct qs_env *env, struct qs_outcomes *list, const bool *only,
		     qs_job *job, void *cookie, struct qs_error *err)
{
	struct qs_env quick = *env;
	char seconds[QS_TEXT_SIZE_L];
	int r;

	if (quick.config.open_deadline_s > LOOK_DEADLINE_S)
		quick.config.open_deadline_s = LOOK_DEADLINE_S;
	quick.config.workers = qs_outcomes_disk_workers(env);
	r = qs_outcomes_run(&quick, list, only, job, cookie, err);
	for (size_t i = 0; r == 0 && i < list->count; i++) {
		struct qs_outcome *o = &list->items[i];

		if ((!only || only[i]) && o->error.kind == QS_E_DEADLINE)
			(void)qs_fail(&o->error, QS_E_DEADLINE,
				      "%s has not answered for %s: it hangs",
				      o->node ? o->node : o->device,
				      qs_text_seconds(quick.config.open_deadline_s, seconds));
	}
	return r;
}
