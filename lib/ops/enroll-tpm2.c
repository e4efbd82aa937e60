/*
 * cryptenroll --tpm2: a keyslot whose passphrase is sealed in the TPM. One session
 * seals for all devices, and unseals each again by what goes into its header,
 * before anything is written.
 * Enrolling again replaces the keyslot of the same kind of policy: the new one
 * is there, proven and backed up, before the old one goes.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/pool.h"
#include "luks/fields.h"
#include "luks/kind.h"
#include "ops/enroll.h"
#include "ops/tpm2.h"

#define PEM_MAX 8192U /* bytes */

/* Besides tpm2_deadline: a TPM takes about a second to make an object and to unseal it. */
#define MS_PER_DEVICE 2000U

struct sealing {
	struct qs_enroll_batch *batch;
	struct qs_error failed; /* in the parent: the worker as a whole */

	/* In the worker only: */
	const struct qs_tpm2_functions *tpm2;
	struct qs_tpm2 *tpm;
	json_t *signatures;
	json_t *closed; /* PCRs that we closed in this boot, or NULL */
};

static int prepare_tpm2(struct qs_enroll *e, struct qs_error *err)
{
	const struct qs_enroll_tpm2 *how = e->options->tpm2;
	QS_AUTO(qs_auto_free) char *real = NULL;
	size_t size;

	if (!how->public_key)
		return 0;
	real = qs_env_path(e->env, how->public_key);
	return qs_file_read(real, PEM_MAX, &e->file, &size, err);
}

/* ---- in a worker that talks to the TPM: one session for all ---- */

/*
 * By the JSON that the header will hold, not by what is in memory. What is sealed to the value
 * that a closed PCR will have at the next start cannot be unsealed before: that the TPM loads it,
 * and that its policy is the one of those values or that they are signed, is all that can be shown.
 */
static int prove(const struct sealing *s, const json_t *json, const struct qs_secret *passphrase,
		 struct qs_error *err)
{
	const struct qs_tpm2_unseal with = {
		.pin = s->batch->options->tpm2->pin,
		.signatures = s->signatures,
	};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token again = {};
	QS_AUTO(qs_secret_done) struct qs_secret found = {};
	struct qs_error own = {};
	uint32_t moved;
	int r = qs_tpm2_token_parse(json, &again, &own);

	if (r == 0)
		r = s->tpm2->unseal(s->tpm, &again, &with, &found, &own);
	if (r < 0 && s->closed && own.kind == QS_E_TPM_PCR)
		return s->tpm2->match(s->tpm, &again, &with, &moved, err);
	if (r == 0 && !qs_secret_equal(&found, passphrase))
		r = qs_fail(&own, QS_E_TPM, "the TPM gives another secret than it was given");
	if (r < 0)
		(void)qs_fail(err, own.kind, "what the TPM sealed cannot be unsealed again: %s",
			      own.text);
	return r;
}

/* For the worker that changes the device, through the memory that they share. */
static int hand_over(const json_t *json, const struct qs_secret *passphrase,
		     struct qs_tpm2_key *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *text = json_dumps(json, JSON_COMPACT);

	if (!text || strlen(text) >= sizeof(ret->sealed) ||
	    passphrase->size > sizeof(ret->passphrase))
		return qs_fail(err, QS_E_TPM, "the TPM made a token that is too long");
	memcpy(ret->sealed, text, strlen(text) + 1);
	memcpy(ret->passphrase, passphrase->data, passphrase->size);
	ret->size = passphrase->size;
	ret->there = true;
	return 0;
}

static int seal(const struct sealing *s, const char *pubkey, struct qs_tpm2_key *ret,
		struct qs_error *err)
{
	const struct qs_enroll_tpm2 *how = s->batch->options->tpm2;
	const struct qs_tpm2_seal request = {
		.pcrs = how->pcrs,
		.bank = how->bank,
		.unset_pcrs = s->batch->options->force,
		.pin = how->pin,
		.pubkey_pcrs = how->public_key ? how->public_key_pcrs : 0,
		.pubkey = pubkey,
	};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	QS_AUTO(qs_auto_json) json_t *json = NULL;
	int r = s->tpm2->seal(s->tpm, &request, &token, &passphrase, err);

	if (r < 0)
		return r;
	token.keyslots = 1; /* set when its number is known (luks/slots.c) */
	json = qs_tpm2_token_write(&token);
	r = prove(s, json, &passphrase, err);
	return r < 0 ? r : hand_over(json, &passphrase, ret, err);
}

static bool is_wanted(const struct qs_enroll_batch *b, size_t i)
{
	return b->outcomes->items[i].error.kind == QS_E_NONE;
}

/* A TPM that refuses one refuses all: its answer to the first is told of the others. */
static void seal_all(const struct sealing *s)
{
	const struct qs_enroll_batch *b = s->batch;
	struct qs_error err = {};

	for (size_t i = 0; i < b->count; i++) {
		struct qs_tpm2_key *key = &b->sealed.items[i];

		if (!is_wanted(b, i))
			continue;
		if (err.kind != QS_E_NONE || seal(s, b->items[i].file, key, &err) < 0)
			key->error = err;
	}
}

static int seal_job(struct qs_worker *worker, void *cookie, json_t **ret, struct qs_error *err)
{
	struct sealing *s = cookie;
	const struct qs_env *env = s->batch->env;
	int r = qs_tpm2_connect(env, &s->tpm2, &s->tpm, err);

	(void)ret;
	if (r < 0)
		return r;
	qs_worker_step(worker, "seal");
	s->signatures = s->batch->options->tpm2->public_key ? qs_tpm2_signatures(env) : NULL;
	s->closed = qs_tpm2_closed(env);
	s->tpm2->before_closing(s->tpm, s->closed, QS_TPM2_CLOSING_EVENT);
	seal_all(s);
	s->tpm2->close(s->tpm);
	json_decref(s->signatures);
	json_decref(s->closed);
	return 0;
}

/* ---- in the parent ---- */

static void seal_step(const char *step, void *cookie)
{
	const struct sealing *s = cookie;

	qs_env_progress(s->batch->env, s->batch->outcomes->items[0].device, step, 0,
			s->batch->count);
}

static int seal_together(struct qs_enroll_batch *b, struct qs_error *err)
{
	struct sealing s = { .batch = b };
	size_t count = 0;
	struct qs_tpm2_work work = { .job = seal_job, .step = seal_step, .cookie = &s };
	int r;

	for (size_t i = 0; i < b->count; i++)
		count += is_wanted(b, i);
	if (count == 0)
		return 0;
	work.extra_ms = (unsigned)count * MS_PER_DEVICE;
	r = qs_tpm2_keys_make(b->count, &b->sealed, err);
	if (r == 0)
		r = qs_tpm2_run(b->env, &work, NULL, &s.failed, err);
	for (size_t i = 0; r == 0 && i < b->count; i++) {
		struct qs_tpm2_key *key = &b->sealed.items[i];
		struct qs_error *own = &b->outcomes->items[i].error;

		b->items[i].sealed = key;
		/* The worker ended early: what it did not come to failed as it did. */
		if (is_wanted(b, i) && !key->there)
			*own = key->error.kind != QS_E_NONE ? key->error : s.failed;
	}
	return r;
}

/* ---- in the worker that changes a device ---- */

static int make_tpm2(struct qs_enroll *e, struct qs_error *err)
{
	int r = qs_enroll_check_others(e, qs_slots_mask(e->slots.header.json), err);

	if (r == 0)
		r = qs_secret_init(&e->secret, e->sealed->size, err);
	if (r < 0)
		return r;
	memcpy(e->secret.data, e->sealed->passphrase, e->sealed->size);
	e->token = json_loads(e->sealed->sealed, 0, NULL);
	return 0;
}

static bool same_policy(const struct qs_tpm2_token *a, const struct qs_tpm2_token *b)
{
	return a->pcrs == b->pcrs && a->pin == b->pin && a->pubkey_pcrs == b->pubkey_pcrs &&
	       (!a->pubkey || strcmp(a->pubkey, b->pubkey) == 0);
}

/* The keyslot of an older token with the policy of NEW, or -1. Its values do not matter. */
static int find_old(const struct qs_enroll *e, const struct qs_tpm2_token *new)
{
	json_t *tokens = json_object_get(e->slots.header.json, "tokens"), *json;
	const char *number;

	json_object_foreach(tokens, number, json)
	{
		QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token old = {};
		int slot;

		if (!qs_tpm2_token_is(json) || qs_tpm2_token_parse(json, &old, NULL) < 0)
			continue;
		slot = __builtin_ctz(old.keyslots);
		/* One of several keyslots, or one that systemd-pcrlock keeps, is not ours to
		 * replace. */
		if (slot == e->slot || old.keyslots & (old.keyslots - 1) || old.pcrlock ||
		    old.sharded || !same_policy(&old, new))
			continue;
		if (qs_slots_salt(e->slots.header.json, slot))
			return slot;
	}
	return -1;
}

static int replace_old(struct qs_enroll *e, struct qs_error *err)
{
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token new = {};
	int slot, r = qs_tpm2_token_parse(e->token, &new, err);

	while (r == 0 && (slot = find_old(e, &new)) >= 0) {
		free(e->drop);
		e->drop = qs_strdup(qs_slots_salt(e->slots.header.json, slot));
		r = qs_enroll_drop(e, err);
	}
	return r;
}

const struct qs_enroll_method qs_enroll_tpm2 = {
	.name = "tpm2",
	.kind = QS_KIND_TPM2,
	.prepare = prepare_tpm2,
	.together = seal_together,
	.make = make_tpm2,
	.settle = replace_old,
};
