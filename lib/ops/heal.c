/*
 * Which keyslots heal: those without a PIN, bound to literal PCRs, whose object this
 * very TPM sealed. One that another TPM sealed belongs to another machine; a signed
 * policy is the signer's to renew; and PCRs that our own boot path closed are as they
 * will be again, so nothing moved. A header that was refused was not opened, and
 * does not come here; one that is older than its backup is left alone. The keyslot is replaced in
 * the order of ops/enroll.c, by the key that opened the device:
 *
 *   step                                left behind                    second run
 *   look, seal, unseal (TPM only)       nothing                        all
 *   add, prove, refresh the backup      both keyslots, the old one     adds another, removes
 *                                         does not open                  all old ones
 *   remove the old one                  healed; the backup holds both   nothing moved any more:
 *   refresh the backup, erase older       keyslots, older ones the old   the next change of
 *     backups that hold the old one         one                            keyslots does it
 */
#include "ops/heal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "ops/event.h"
#include "ops/internal.h"

struct heal {
	const struct qs_env *env;
	const struct qs_open_options *options;
	const struct qs_open_request *requests;
	struct qs_outcomes *list;
	json_t *found; /* array of device, pcrs, bank, reason */

	/* In the worker only: */
	const struct qs_tpm2_functions *tpm2;
	struct qs_tpm2 *tpm;
	size_t device;
};

static bool opened_otherwise(const struct qs_outcome *o)
{
	return o->error.kind == QS_E_NONE && json_object_get(o->details, "keyslot") &&
	       !json_object_get(o->details, "token");
}

/* ---- in the worker ---- */

static bool may_heal(const struct qs_tpm2_token *t)
{
	bool one_keyslot = (t->keyslots & (t->keyslots - 1)) == 0;

	return t->pcrs && !t->pin && !t->pubkey_pcrs && !t->pcrlock && !t->sharded && one_keyslot;
}

static void look_at_token(void *cookie, int number, const struct qs_tpm2_token *token)
{
	const struct heal *h = cookie;
	struct qs_error why = {};
	uint32_t moved;

	(void)number;
	if (!may_heal(token) || h->tpm2->match(h->tpm, token, NULL, &moved, &why) == 0 ||
	    why.kind != QS_E_TPM_PCR || h->tpm2->owns(h->tpm, token, NULL) < 0)
		return;
	(void)json_array_append_new(h->found,
				    json_pack("{s:i,s:I,s:i,s:s}", "device", (int)h->device, "pcrs",
					      (json_int_t)token->pcrs, "bank", (int)token->bank,
					      "reason", why.text));
}

static void look_at_device(struct heal *h)
{
	const struct qs_open_request *request = &h->requests[h->device];
	const struct qs_tpm2_device device = { request->node, request->name };
	QS_AUTO(qs_auto_close) int fd = open(request->node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	QS_AUTO(qs_luks_header_done) struct qs_luks_header header = {};

	if (fd >= 0 && qs_luks_header_peek(fd, &header, NULL) == 0 && header.version == 2 &&
	    qs_tpm2_check_age(h->env, &device, fd, &header, NULL) == 0)
		qs_tpm2_for_each_token(header.json, look_at_token, h);
}

static int job(struct qs_worker *worker, void *cookie, json_t **ret, struct qs_error *err)
{
	struct heal *h = cookie;
	QS_AUTO(qs_auto_json) json_t *closed = qs_tpm2_closed(h->env);
	int r = qs_tpm2_connect(h->env, &h->tpm2, &h->tpm, err);

	(void)worker;
	if (r < 0)
		return r;
	h->tpm2->before_closing(h->tpm, closed, QS_TPM2_CLOSING_EVENT);
	h->found = *ret = json_array();
	for (h->device = 0; h->device < h->list->count; h->device++) {
		if (opened_otherwise(&h->list->items[h->device]))
			look_at_device(h);
	}
	h->tpm2->close(h->tpm);
	return 0;
}

/* ---- in the parent ---- */

static bool same_policy(const json_t *a, const json_t *b)
{
	return json_equal(json_object_get(a, "pcrs"), json_object_get(b, "pcrs")) &&
	       json_equal(json_object_get(a, "bank"), json_object_get(b, "bank"));
}

static void tell(const struct heal *h, const json_t *found, const struct qs_outcome *done)
{
	struct qs_outcome *o =
		&h->list->items[json_integer_value(json_object_get(found, "device"))];
	const char *reason = json_string_value(json_object_get(found, "reason"));

	if (done->error.kind != QS_E_NONE) {
		qs_log(QS_LOG_WARNING, "%s: its TPM2 keyslot could not be sealed anew: %s", o->name,
		       done->error.text);
		return;
	}
	qs_outcome_detail(o, "tpm2_healed", json_incref(json_object_get(done->details, "keyslot")));
	qs_log(QS_LOG_NOTICE, "%s: its TPM2 keyslot was sealed anew: %s", o->name, reason);
	qs_event_send(h->env, QS_EVENT_HEALED, o, NULL, reason);
}

/* All with the policy of the first that was found; they leave h->found. */
static void heal_alike(const struct heal *h)
{
	const json_t *first = json_array_get(h->found, 0);
	const struct qs_enroll_tpm2 how = {
		.pcrs = (uint32_t)json_integer_value(json_object_get(first, "pcrs")),
		.bank = (enum qs_tpm2_alg)json_integer_value(json_object_get(first, "bank")),
	};
	const struct qs_enroll_options options = {
		.unlock = { .key_file = h->options->key_file,
			    .passphrase = h->requests[0].passphrase },
		.method = "tpm2",
		.tpm2 = &how,
	};
	QS_AUTO(qs_outcomes_done) struct qs_outcomes healed = {};
	QS_AUTO(qs_auto_json) json_t *alike = json_array();
	QS_AUTO(qs_auto_json) json_t *others = json_array();
	QS_AUTO(qs_auto_free)
	const char **links = calloc(json_array_size(h->found), sizeof(*links));
	struct qs_error err = {};
	json_t *found;
	size_t i;

	json_array_foreach(h->found, i, found)
	{
		size_t device = (size_t)json_integer_value(json_object_get(found, "device"));

		(void)json_array_append(same_policy(first, found) ? alike : others, found);
		if (links && same_policy(first, found))
			links[json_array_size(alike) - 1] = h->requests[device].link;
	}
	if (!links || qs_enroll(h->env, links, json_array_size(alike), &options, &healed, &err) < 0)
		qs_log(QS_LOG_WARNING, "no TPM2 keyslot could be sealed anew: %s", err.text);
	for (i = 0; i < healed.count; i++)
		tell(h, json_array_get(alike, i), &healed.items[i]);
	(void)json_array_clear(h->found);
	(void)json_array_extend(h->found, others);
}

void qs_heal(const struct qs_env *env, const struct qs_open_options *options,
	     const struct qs_open_request *requests, struct qs_outcomes *list)
{
	struct heal h = { .env = env, .options = options, .requests = requests, .list = list };
	const struct qs_tpm2_work work = { .job = job, .cookie = &h };
	struct qs_error failed = {};
	bool any = false;

	for (size_t i = 0; i < list->count; i++)
		any |= opened_otherwise(&list->items[i]);
	if (!any || !env->config.tpm2_self_heal || options->test || options->early ||
	    options->bundle || !qs_tpm2_is_there(env))
		return;
	if (qs_tpm2_run(env, &work, &h.found, &failed, &failed) < 0 || failed.kind != QS_E_NONE)
		qs_log(QS_LOG_WARNING, "no TPM2 keyslot could be looked at to seal it anew: %s",
		       failed.text);
	while (json_array_size(h.found) > 0)
		heal_alike(&h);
	json_decref(h.found);
}
