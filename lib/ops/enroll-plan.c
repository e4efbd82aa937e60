/*
 * cryptenroll in the parent: which devices, what unlocks each, and what is made for
 * all of them at once. The change itself runs in a worker for each (enroll.c).
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "ops/enroll.h"
#include "ops/keystore.h"

static const struct qs_enroll_method *const methods[] = {
	&qs_enroll_key_file, &qs_enroll_passphrase, &qs_enroll_recovery,      &qs_enroll_new_key,
	&qs_enroll_tpm2,     &qs_enroll_keystore,   &qs_enroll_keystore_move,
};

static const struct qs_enroll_method *find_method(const char *name)
{
	for (size_t i = 0; name && i < QS_ARRAY_SIZE(methods); i++)
		if (strcmp(methods[i]->name, name) == 0)
			return methods[i];
	return NULL;
}

/* Only the command that was cut off goes on with what it left. */
static int look_for_journal(struct qs_enroll *e, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *command = NULL;
	int r = qs_journal_read(e->env, e->name, &e->pending, err);

	if (r <= 0)
		return r;
	if (e->method && e->method->op && strcmp(e->method->op, e->pending.op) == 0) {
		e->drop = qs_strdup(e->pending.salt);
		return 0;
	}
	command = qs_journal_command(&e->pending, e->request.link);
	return qs_fail(err, QS_E_FORBIDDEN,
		       "a %s of %s was begun and not finished: run `%s` again first", e->pending.op,
		       e->dev->node, command);
}

/* Before the second would wait for the lock that the first one holds. */
static int refuse_twice(const struct qs_enroll_batch *b, size_t i, struct qs_error *err)
{
	const char *node = b->items[i].dev->node;

	for (size_t j = 0; j < i; j++)
		if (b->items[j].dev && strcmp(b->items[j].dev->node, node) == 0)
			return qs_fail(err, QS_E_USAGE, "%s and %s are the same device",
				       b->outcomes->items[j].device, b->outcomes->items[i].device);
	return 0;
}

static int prepare(struct qs_enroll_batch *b, size_t i)
{
	struct qs_enroll *e = &b->items[i];
	struct qs_outcome *o = &b->outcomes->items[i];
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_auto_free) char *link = NULL;
	struct qs_error *err = &o->error;
	int r = qs_open_find(b->env, b->options->unlock.key_file, o, &e->dev, &h, &e->request);

	if (r == 0)
		r = refuse_twice(b, i, err);
	if (r == 0)
		r = qs_device_name(b->env, e->dev, h.uuid, &link, &e->name, err);
	if (r < 0)
		return r;
	qs_outcome_set(&o->name, e->name);
	e->request.test = true;
	e->lock = qs_device_lock(b->env, e->dev, b->env->config.lock_wait_s * 1000, err);
	if (e->lock < 0)
		return e->lock;
	r = look_for_journal(e, err);
	return r == 0 && b->method && b->method->prepare ? b->method->prepare(e, err) : r;
}

/* A change needs no TPM where the device's own key is at hand. */
static int unlock_by_tpm2(struct qs_enroll_batch *b, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) bool *only = calloc(b->count + 1, sizeof(*only));
	QS_AUTO(qs_auto_free)
	struct qs_open_request *requests = calloc(b->count + 1, sizeof(*requests));
	bool any = false;
	int r;

	if (!only || !requests)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", b->count);
	for (size_t i = 0; i < b->count; i++) {
		const struct qs_open_request *request = &b->items[i].request;

		requests[i] = *request;
		only[i] = b->outcomes->items[i].error.kind == QS_E_NONE &&
			  !qs_open_has_own_key(b->env, request);
		any |= only[i];
	}
	if (!any)
		return 0;
	r = qs_open_ask_tpm2(b->env, &b->options->unlock, requests, b->count, only, &b->unlock,
			     err);
	for (size_t i = 0; r == 0 && i < b->count; i++)
		b->items[i].request.tpm2 = requests[i].tpm2;
	return r;
}

static int unlock_by_keystore(struct qs_enroll_batch *b, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) bool *only = calloc(b->count + 1, sizeof(*only));
	QS_AUTO(qs_auto_free)
	struct qs_open_request *requests = calloc(b->count + 1, sizeof(*requests));

	if (!only || !requests)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", b->count);
	for (size_t i = 0; i < b->count; i++) {
		requests[i] = b->items[i].request;
		only[i] = b->outcomes->items[i].error.kind == QS_E_NONE;
	}
	return qs_open_prepare_keystore(b->env, requests, b->count, only, err);
}

/* What is typed once is tried on all. */
static int ask(struct qs_enroll_batch *b, struct qs_open_request *request, struct qs_error *err)
{
	struct qs_open_options unlock = b->options->unlock;

	if (b->asked.data)
		unlock.passphrase = &b->asked;
	return qs_open_ask(b->env, &unlock, request, &b->asked, err);
}

static int run(struct qs_enroll_batch *b, struct qs_error *err)
{
	int r;

	for (size_t i = 0; i < b->count; i++)
		(void)prepare(b, i);
	r = unlock_by_tpm2(b, err);
	if (r == 0)
		r = unlock_by_keystore(b, err);
	for (size_t i = 0; r == 0 && i < b->count; i++)
		if (b->outcomes->items[i].error.kind == QS_E_NONE)
			(void)ask(b, &b->items[i].request, &b->outcomes->items[i].error);
	if (r == 0 && b->method && b->method->together)
		r = b->method->together(b, err);
	if (r == 0)
		r = qs_outcomes_run(b->env, b->outcomes, NULL, qs_enroll_job, b, err);
	for (size_t i = 0; r == 0 && i < b->count; i++) {
		struct qs_outcome *o = &b->outcomes->items[i];

		if (o->error.kind == QS_E_NONE && b->method && b->method->finish)
			(void)b->method->finish(&b->items[i], &o->error);
	}
	return r;
}

static void done(struct qs_enroll *e)
{
	qs_device_free(e->dev);
	free(e->name);
	qs_open_request_done(&e->request);
	qs_journal_done(&e->pending);
	qs_secret_done(&e->secret);
	json_decref(e->token);
	free(e->file);
	free(e->drop);
	qs_auto_close(&e->lock);
}

static int make_items(struct qs_enroll_batch *b, struct qs_error *err)
{
	b->items = calloc(b->count ? b->count : 1, sizeof(*b->items));
	if (!b->items)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", b->count);
	for (size_t i = 0; i < b->count; i++)
		b->items[i] = (struct qs_enroll){
			.env = b->env,
			.options = b->options,
			.method = b->method,
			.lock = -1,
			.fd = -1,
			.disk = -1,
			.slot = -1,
		};
	return 0;
}

int qs_enroll(const struct qs_env *env, const char *const *devices, size_t count,
	      const struct qs_enroll_options *options, struct qs_outcomes *ret,
	      struct qs_error *err)
{
	struct qs_enroll_batch b = {
		.env = env,
		.options = options,
		.method = find_method(options->method),
		.count = count,
		.outcomes = ret,
		.lock = -1,
	};
	int r = options->wipe ? qs_enroll_check_words(options->wipe, err) : 0;

	if (r == 0)
		r = qs_outcomes_init(ret, devices, count, err);
	if (r == 0)
		r = make_items(&b, err);
	if (r == 0)
		r = run(&b, err);
	for (size_t i = 0; b.items && i < count; i++)
		done(&b.items[i]);
	free(b.items);
	qs_tpm2_keys_done(&b.unlock);
	qs_tpm2_keys_done(&b.sealed);
	qs_secret_done(&b.asked);
	qs_auto_close(&b.lock);
	return r;
}
