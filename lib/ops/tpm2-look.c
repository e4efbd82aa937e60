/*
 * Would the TPM open a device's keyslots now? For --list, which changes nothing:
 * the policy is computed and the object loaded, neither PIN nor secret is used.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/pool.h"
#include "luks/fields.h"
#include "luks/header.h"
#include "ops/tpm2.h"

struct look {
	const struct qs_env *env;
	const char *node;
	json_t *slots; /* in the parent: described without the TPM; in the worker: with it */
	json_t *health;
	json_t *tokens;
};

static json_t *describe(const struct qs_tpm2_token *t)
{
	char pcrs[QS_TPM2_PCRS_TEXT_L];

	return json_pack("{s:s,s:s*,s:b,s:b}", "pcrs", qs_tpm2_pcrs_text(t->pcrs, pcrs), "bank",
			 qs_tpm2_bank_name(t->bank), "pin", t->pin, "signed", t->pubkey_pcrs != 0);
}

/* SAY for every keyslot of every TPM2 token; token NULL: it is malformed. */
static void for_each(struct look *l,
		     void (*say)(struct look *l, const char *slot,
				 const struct qs_tpm2_token *token, const struct qs_error *err))
{
	const char *number;
	json_t *json;

	json_object_foreach(l->tokens, number, json)
	{
		QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
		struct qs_error err = {};
		const json_t *slots = json_object_get(json, "keyslots");
		int r;

		if (!qs_tpm2_token_is(json))
			continue;
		r = qs_tpm2_token_parse(json, &token, &err);
		for (size_t i = 0; i < json_array_size(slots) && i < 32; i++) {
			const char *slot = json_string_value(json_array_get(slots, i));

			if (slot && qs_fields_slot(slot) >= 0)
				say(l, slot, r < 0 ? NULL : &token, &err);
		}
	}
}

static void say_fields(struct look *l, const char *slot, const struct qs_tpm2_token *token,
		       const struct qs_error *err)
{
	json_t *entry = token ? describe(token) : json_pack("{s:s}", "problem", err->text);

	(void)json_object_set_new(l->slots, slot, entry);
}

/* ---- in the worker ---- */

struct connection {
	struct look look;
	const struct qs_tpm2_functions *tpm2;
	struct qs_tpm2 *tpm;
};

static void say_problem(struct look *l, const char *slot, const struct qs_tpm2_token *token,
			const struct qs_error *err)
{
	struct connection *c = (struct connection *)l;
	struct qs_error own = {};

	(void)err;
	if (token && c->tpm2->match(c->tpm, token, &own) < 0)
		(void)json_object_set_new(l->slots, slot, json_string(own.text));
}

static int job(struct qs_worker *worker, size_t i, void *cookie, json_t **ret, struct qs_error *err)
{
	struct connection c = { .look = *(struct look *)cookie };
	struct qs_tpm2_health health;
	int r = qs_tpm2_connect(c.look.env, &c.tpm2, &c.tpm, err);

	(void)worker;
	(void)i;
	if (r < 0)
		return r;
	c.look.slots = json_object();
	for_each(&c.look, say_problem);
	*ret = json_pack("{s:o}", "problems", c.look.slots);
	r = c.tpm2->health(c.tpm, &health, err);
	if (r == 0)
		(void)json_object_set_new(*ret, "health",
					  json_pack("{s:i,s:i,s:b}", "failures",
						    (int)health.failures, "limit",
						    (int)health.limit, "locked", health.locked));
	c.tpm2->close(c.tpm);
	return r;
}

/* ---- in the parent ---- */

static void done(size_t i, json_t *result, const struct qs_error *error, void *cookie)
{
	struct look *l = cookie;
	const json_t *problems = json_object_get(result, "problems");
	const char *slot;
	json_t *entry;

	(void)i;
	json_object_foreach(l->slots, slot, entry)
	{
		const char *text = json_string_value(json_object_get(problems, slot));

		if (error->kind != QS_E_NONE)
			text = error->text;
		if (text && !json_object_get(entry, "problem"))
			(void)json_object_set_new(entry, "problem", json_string(text));
	}
	l->health = json_incref(json_object_get(result, "health"));
}

static void warn(const json_t *health)
{
	json_int_t failures = json_integer_value(json_object_get(health, "failures"));
	json_int_t limit = json_integer_value(json_object_get(health, "limit"));

	if (limit > 0 && failures * 2 > limit)
		qs_log(QS_LOG_WARNING,
		       "the TPM has counted %d of %d failures after which it locks itself",
		       (int)failures, (int)limit);
}

int qs_tpm2_look(const struct qs_env *env, const char *node, json_t **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int fd = open(node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	struct look l = { .env = env, .node = node, .slots = json_object() };
	const struct qs_pool pool = {
		.workers = 1,
		.deadline_ms = env->config.tpm2_deadline_s * 1000,
		.job = job,
		.done = done,
		.cookie = &l,
	};
	int r = 0;

	*ret = NULL;
	if (fd >= 0 && qs_luks_header_peek(fd, &h, NULL) == 0 && h.version == 2) {
		l.tokens = json_object_get(h.json, "tokens");
		for_each(&l, say_fields);
	}
	if (json_object_size(l.slots) > 0) {
		r = qs_pool_run(&pool, 1, err);
		*ret = json_pack("{s:O,s:o*}", "slots", l.slots, "health", l.health);
		warn(json_object_get(*ret, "health"));
	}
	json_decref(l.slots);
	return r;
}
