/*
 * cryptenroll --tpm2: a keyslot whose passphrase is sealed in the TPM. It is
 * unsealed again, by what goes into the header, before anything is written.
 * Enrolling again replaces the keyslot of the same kind of policy: the new one
 * is there, proven and backed up, before the old one goes.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "luks/fields.h"
#include "luks/kind.h"
#include "ops/enroll.h"
#include "ops/tpm2.h"

#define PEM_MAX 8192U /* bytes */

struct sealing {
	struct qs_enroll *e;
	const struct qs_tpm2_functions *tpm2;
	struct qs_tpm2 *tpm;
	struct qs_tpm2_token token;
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

/* By the JSON that the header will hold, not by what is in memory. */
static int prove(const struct sealing *s, struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *signatures = qs_tpm2_signatures(s->e->env);
	const struct qs_tpm2_unseal with = {
		.pin = s->e->options->tpm2->pin,
		.signatures = signatures,
	};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token again = {};
	QS_AUTO(qs_secret_done) struct qs_secret found = {};
	int r = qs_tpm2_token_parse(s->e->token, &again, err);

	if (r == 0)
		r = s->tpm2->unseal(s->tpm, &again, &with, &found, err);
	if (r == 0 && !qs_secret_equal(&found, &s->e->secret))
		r = qs_fail(err, QS_E_TPM, "the TPM gives another secret than it was given");
	if (r < 0)
		qs_error_prefix(err, "what the TPM sealed cannot be unsealed again");
	return r;
}

static int seal(struct sealing *s, struct qs_error *err)
{
	const struct qs_enroll_tpm2 *how = s->e->options->tpm2;
	const struct qs_tpm2_seal request = {
		.pcrs = how->pcrs,
		.bank = how->bank,
		.unset_pcrs = s->e->options->force,
		.pin = how->pin,
		.pubkey_pcrs = how->public_key ? how->public_key_pcrs : 0,
		.pubkey = s->e->file,
	};
	int r = s->tpm2->seal(s->tpm, &request, &s->token, &s->e->secret, err);

	if (r < 0)
		return r;
	s->token.keyslots = 1; /* set when its number is known (luks/slots.c) */
	json_decref(s->e->token);
	s->e->token = qs_tpm2_token_write(&s->token);
	return prove(s, err);
}

static int make_tpm2(struct qs_enroll *e, struct qs_error *err)
{
	struct sealing s = { .e = e };
	int r;

	qs_worker_step(e->worker, "seal");
	r = qs_tpm2_connect(e->env, &s.tpm2, &s.tpm, err);
	if (r < 0)
		return r;
	r = seal(&s, err);
	s.tpm2->close(s.tpm);
	qs_tpm2_token_done(&s.token);
	if (r < 0)
		qs_secret_done(&e->secret);
	return r;
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
	.make = make_tpm2,
	.settle = replace_old,
};
