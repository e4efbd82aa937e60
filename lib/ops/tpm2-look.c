/*
 * Would the TPM open keyslots now, and if not, what moved? For those who only look:
 * policies are computed and objects loaded, neither PIN nor secret is used, and
 * nothing is counted towards the TPM's lockout.
 */
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "luks/fields.h"
#include "ops/event.h"
#include "ops/internal.h"
#include "ops/tpm2.h"

#define TOKENS "tpm2_tokens" /* in the details, until the TPM has been asked */

static json_t *describe(const struct qs_tpm2_token *t)
{
	char pcrs[QS_TPM2_PCRS_TEXT_L];

	return json_pack("{s:s,s:s*,s:b,s:b}", "pcrs", qs_tpm2_pcrs_text(t->pcrs, pcrs), "bank",
			 qs_tpm2_bank_name(t->bank), "pin", t->pin, "signed", t->pubkey_pcrs != 0);
}

/* The element of "keyslots" with this number, or NULL. */
static json_t *entry_of(const json_t *keyslots, int number)
{
	json_t *entry;
	size_t i;

	json_array_foreach(keyslots, i, entry)
	{
		if (json_integer_value(json_object_get(entry, "number")) == number)
			return entry;
	}
	return NULL;
}

void qs_tpm2_describe(const json_t *header, json_t *details)
{
	json_t *keyslots = json_object_get(details, "keyslots");
	json_t *json, *good = json_object();
	const char *number;

	json_object_foreach(json_object_get(header, "tokens"), number, json)
	{
		QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
		struct qs_error err = {};
		const json_t *slots = json_object_get(json, "keyslots");
		int r;

		if (!qs_tpm2_token_is(json) || qs_fields_slot(number) < 0)
			continue;
		r = qs_tpm2_token_parse(json, &token, &err);
		if (r == 0)
			(void)json_object_set(good, number, json);
		for (size_t i = 0; i < json_array_size(slots) && i < 32; i++) {
			const char *slot = json_string_value(json_array_get(slots, i));
			json_t *entry = entry_of(keyslots, slot ? qs_fields_slot(slot) : -1);

			if (entry)
				(void)json_object_set_new(
					entry, "tpm2",
					r == 0 ? describe(&token)
					       : json_pack("{s:s}", "problem", err.text));
		}
	}
	if (json_object_size(good) > 0)
		(void)json_object_set(details, TOKENS, good);
	json_decref(good);
}

void qs_tpm2_for_each_token(const json_t *header,
			    void (*say)(void *cookie, int number,
					const struct qs_tpm2_token *token),
			    void *cookie)
{
	const char *number;
	json_t *json;

	json_object_foreach(json_object_get(header, "tokens"), number, json)
	{
		QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};

		if (qs_tpm2_token_is(json) && qs_fields_slot(number) >= 0 &&
		    qs_tpm2_token_parse(json, &token, NULL) == 0)
			say(cookie, qs_fields_slot(number), &token);
	}
}

/* ---- in the worker ---- */

struct look {
	const struct qs_env *env;
	const struct qs_outcomes *list;
	struct qs_error failed; /* in the parent: the worker as a whole */
	json_t *answers;        /* in the parent */

	/* In the worker only: */
	const struct qs_tpm2_functions *tpm2;
	struct qs_tpm2 *tpm;
	json_t *closed;
	struct qs_tpm2_unseal with; /* signatures */
};

/* Closed by us since the last start, and otherwise as it was enrolled? */
static bool is_closed(const struct look *l, const struct qs_tpm2_token *token)
{
	uint32_t moved;
	bool closed;

	if (!l->closed)
		return false;
	l->tpm2->before_closing(l->tpm, l->closed, QS_TPM2_CLOSING_EVENT);
	closed = l->tpm2->match(l->tpm, token, &l->with, &moved, NULL) == 0;
	l->tpm2->before_closing(l->tpm, NULL, NULL);
	return closed;
}

/* NULL: it would open it. */
static json_t *answer(const struct look *l, const struct qs_tpm2_token *token)
{
	char text[QS_TPM2_PCRS_TEXT_L];
	struct qs_error err = {};
	uint32_t moved = 0;

	if (l->tpm2->match(l->tpm, token, &l->with, &moved, &err) == 0)
		return NULL;
	if (err.kind == QS_E_TPM_PCR && is_closed(l, token))
		return json_pack("{s:s,s:b}", "problem",
				 "closed since this machine started; it opens at the next start",
				 "closed", 1);
	return json_pack("{s:s,s:s*}", "problem", err.text, "moved",
			 moved ? qs_tpm2_pcrs_text(moved, text) : NULL);
}

/* By token number, those that would not open. */
static json_t *answer_device(const struct look *l, const json_t *tokens)
{
	json_t *answers = json_object(), *json;
	const char *number;

	json_object_foreach((json_t *)tokens, number, json)
	{
		QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
		json_t *problem = NULL;

		if (qs_tpm2_token_parse(json, &token, NULL) == 0)
			problem = answer(l, &token);
		if (problem)
			(void)json_object_set_new(answers, number, problem);
	}
	return answers;
}

int qs_tpm2_look_at_health(const struct qs_tpm2_functions *tpm2, struct qs_tpm2 *tpm, json_t *ret,
			   struct qs_error *err)
{
	struct qs_tpm2_health health;
	int r = tpm2->health(tpm, &health, err);

	if (r == 0)
		(void)json_object_set_new(ret, "health",
					  json_pack("{s:i,s:i,s:b}", "failures",
						    (int)health.failures, "limit",
						    (int)health.limit, "locked", health.locked));
	return r;
}

static int job(struct qs_worker *worker, void *cookie, json_t **ret, struct qs_error *err)
{
	struct look *l = cookie;
	json_t *devices, *signatures;
	int r = qs_tpm2_connect(l->env, &l->tpm2, &l->tpm, err);

	(void)worker;
	if (r < 0)
		return r;
	l->closed = qs_tpm2_closed(l->env);
	l->with.signatures = signatures = qs_tpm2_signatures(l->env);
	devices = json_array();
	for (size_t n = 0; n < l->list->count; n++)
		(void)json_array_append_new(
			devices,
			answer_device(l, json_object_get(l->list->items[n].details, TOKENS)));
	*ret = json_pack("{s:o}", "devices", devices);
	r = qs_tpm2_look_at_health(l->tpm2, l->tpm, *ret, err);
	l->tpm2->close(l->tpm);
	json_decref(l->closed);
	json_decref(signatures);
	return r;
}

/* ---- in the parent ---- */

static int ask(struct look *l, struct qs_error *err)
{
	const struct qs_tpm2_work work = { .job = job, .cookie = l };

	if (qs_tpm2_is_there(l->env))
		return qs_tpm2_run(l->env, &work, &l->answers, &l->failed, err);
	(void)qs_fail(&l->failed, QS_E_TPM_ABSENT, "there is no TPM 2.0 to ask");
	return 0;
}

/* Put the answer for each token into its keyslots. */
static void merge(const struct look *l, const struct qs_outcome *o, const json_t *answers)
{
	const json_t *keyslots = json_object_get(o->details, "keyslots");
	const char *number;
	json_t *token;

	json_object_foreach(json_object_get(o->details, TOKENS), number, token)
	{
		QS_AUTO(qs_auto_json)
		json_t *problem = json_incref(json_object_get(answers, number));
		const json_t *slots = json_object_get(token, "keyslots");

		if (!problem && l->failed.kind != QS_E_NONE)
			problem = json_pack("{s:s}", "problem", l->failed.text);
		for (size_t i = 0; problem && i < json_array_size(slots); i++) {
			const char *slot = json_string_value(json_array_get(slots, i));
			const json_t *entry = entry_of(keyslots, qs_fields_slot(slot));

			(void)json_object_update(json_object_get(entry, "tpm2"), problem);
		}
	}
}

void qs_tpm2_warn(const struct qs_env *env, const json_t *answers)
{
	const json_t *health = json_object_get(answers, "health");
	json_int_t failures = json_integer_value(json_object_get(health, "failures"));
	json_int_t limit = json_integer_value(json_object_get(health, "limit"));

	QS_AUTO(qs_auto_free)
	char *text = qs_printf("the TPM has counted %d of %d failures after which it locks itself",
			       (int)failures, (int)limit);

	if (limit <= 0 || failures * 2 <= limit)
		return;
	qs_log(QS_LOG_WARNING, "%s", text);
	qs_event_send(env, QS_EVENT_LOCKOUT, NULL, NULL, text);
}

int qs_tpm2_look(const struct qs_env *env, struct qs_outcomes *list, struct qs_error *err)
{
	struct look l = { .env = env, .list = list };
	json_t *health;
	bool any = false;
	int r;

	for (size_t i = 0; i < list->count; i++)
		any |= json_object_get(list->items[i].details, TOKENS) != NULL;
	r = any ? ask(&l, err) : 0;
	health = json_object_get(l.answers, "health");
	for (size_t i = 0; any && i < list->count; i++) {
		struct qs_outcome *o = &list->items[i];

		if (!json_object_get(o->details, TOKENS))
			continue;
		merge(&l, o, json_array_get(json_object_get(l.answers, "devices"), i));
		if (health)
			qs_outcome_detail(o, "tpm", json_incref(health));
		(void)json_object_del(o->details, TOKENS);
	}
	qs_tpm2_warn(env, l.answers);
	json_decref(l.answers);
	return r;
}
