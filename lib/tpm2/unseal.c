/*
 * Unsealing. In this order: the token, the present PCRs (computed on the host),
 * the parent key, the object, sessions, policy, secret; so that whatever can be
 * told without the TPM counting anything is told before.
 */
#include <string.h>

#include "base/cleanup.h"
#include "tpm2/internal.h"

/* Any measurement between PolicyPCR and Unseal, IMA's too, means to begin anew (systemd's limit).
 */
#define ATTEMPTS 30

struct opening {
	struct qs_tpm2 *tpm;
	const struct qs_tpm2_policy *policy;
	const struct qs_tpm2_unseal *with;
	ESYS_TR parent, object;
	ESYS_TR encryption; /* the session that keeps the secret off the bus, with a PIN */
};

static int take_secret(TPM2B_SENSITIVE_DATA *data, struct qs_secret *ret, struct qs_error *err)
{
	int r = data->size > 0 ? qs_secret_init(ret, data->size, err)
			       : qs_fail(err, QS_E_DAMAGED, "the sealed object is empty");

	if (r == 0 && ret->data)
		memcpy(ret->data, data->buffer, data->size);
	explicit_bzero(data, sizeof(*data));
	Esys_Free(data);
	return r;
}

static bool changed_meanwhile(TSS2_RC rc)
{
	return qs_tpm2_code(rc) == TPM2_RC_PCR_CHANGED;
}

/* Returns 1 when PCRs were extended since the policy was satisfied in SESSION. */
static int unseal_in(const struct opening *o, ESYS_TR session, struct qs_secret *ret,
		     struct qs_error *err)
{
	TPM2B_SENSITIVE_DATA *data = NULL;
	TSS2_RC rc =
		Esys_Unseal(o->tpm->esys, o->object, session, o->encryption, ESYS_TR_NONE, &data);
	int r;

	if (rc == TSS2_RC_SUCCESS)
		return take_secret(data, ret, err);
	r = qs_tpm2_fail(err, rc, "unsealing");
	return changed_meanwhile(rc) ? 1 : r;
}

static int run_policy(const struct opening *o, ESYS_TR session, struct qs_error *err)
{
	return qs_tpm2_policy_run(o->tpm, o->policy, o->with->signatures, session, err);
}

static int load(struct opening *o, struct qs_error *err)
{
	if (o->object != ESYS_TR_NONE)
		return 0;
	return qs_tpm2_load(o->tpm, o->policy->token, o->parent, &o->object, err);
}

/*
 * Without a PIN: the connection's own session, whatever object it is. The object is loaded last,
 * as it makes every command dearer (see qs_tpm2_policy_session()).
 */
static int unseal_shared(struct opening *o, struct qs_secret *ret, struct qs_error *err)
{
	struct qs_tpm2 *tpm = o->tpm;

	for (unsigned i = 0; i < ATTEMPTS; i++) {
		int r = qs_tpm2_policy_session(tpm, o->parent, err);

		tpm->policy_empty = false;
		if (r == 0)
			r = run_policy(o, tpm->policy, err);
		if (r == 0)
			r = load(o, err);
		if (r == 0)
			r = unseal_in(o, tpm->policy, ret, err);
		/* The TPM empties a policy session that was used (part 1, 19.7.5 of its library).
		 */
		tpm->policy_empty = r == 0;
		if (r <= 0)
			return r;
	}
	return qs_tpm2_fail(err, TPM2_RC_PCR_CHANGED, "unsealing");
}

/* With a PIN: sessions bound to the object, so that nobody without the PIN can take part. */
static int unseal_bound(struct opening *o, struct qs_secret *ret, struct qs_error *err)
{
	int r = qs_tpm2_start_session(o->tpm, o->parent, o->object, TPM2_SE_HMAC, ESYS_TR_NONE,
				      &o->encryption, err);

	for (unsigned i = 0; r == 0 && i < ATTEMPTS; i++) {
		ESYS_TR session = ESYS_TR_NONE;

		/* A wrong PIN shows here already, and counts; it is not tried again. */
		r = qs_tpm2_start_session(o->tpm, o->parent, ESYS_TR_NONE, TPM2_SE_POLICY,
					  o->encryption, &session, err);
		if (r == 0)
			r = run_policy(o, session, err);
		if (r == 0)
			r = unseal_in(o, session, ret, err);
		qs_tpm2_flush(o->tpm, &session);
		if (r <= 0)
			break;
		r = i + 1 < ATTEMPTS ? 0 : qs_negative(-EAGAIN);
	}
	qs_tpm2_flush(o->tpm, &o->encryption);
	return r;
}

static int unseal_with_pin(struct opening *o, const struct qs_tpm2_pin *pin, struct qs_secret *ret,
			   struct qs_error *err)
{
	TSS2_RC rc;
	int r = load(o, err);

	if (r < 0)
		return r;
	/* A TPM without a resource manager holds three sessions. */
	qs_tpm2_drop_sessions(o->tpm);
	rc = Esys_TR_SetAuth(o->tpm->esys, o->object, pin->auth.data);
	if (rc != TSS2_RC_SUCCESS)
		return qs_tpm2_fail(err, rc, "using the PIN");
	return unseal_bound(o, ret, err);
}

/* The TPM has the last word: what was computed for the PCRs may be out of date by then. */
static void name_pcrs(const struct opening *o, struct qs_error *err)
{
	struct qs_tpm2_policy again;
	struct qs_error own = {};

	if (!err || err->kind != QS_E_TPM_PCR || !o->policy->token->pcrs)
		return;
	for (unsigned i = 0; i < QS_TPM2_BANKS; i++)
		o->tpm->banks[i].known = 0;
	if (qs_tpm2_policy_find(o->tpm, o->policy->token, &again, &own) < 0)
		*err = own;
}

static int unseal(struct qs_tpm2 *tpm, const struct qs_tpm2_policy *policy,
		  const struct qs_tpm2_unseal *with, struct qs_secret *ret_passphrase,
		  struct qs_error *err)
{
	QS_AUTO(qs_tpm2_pin_done) struct qs_tpm2_pin pin = {};
	QS_AUTO(qs_secret_done) struct qs_secret secret = {};
	struct opening o = {
		.tpm = tpm,
		.policy = policy,
		.with = with,
		.object = ESYS_TR_NONE,
		.encryption = ESYS_TR_NONE,
	};
	/* A PIN that the token does not want stays away from the TPM: it would count as wrong. */
	int r = policy->token->pin ? qs_tpm2_pin_of(policy->token, with, &pin, err) : 0;

	if (r == 0)
		r = qs_tpm2_parent(tpm, policy->token, &o.parent, err);
	if (r == 0)
		r = pin.auth.data ? unseal_with_pin(&o, &pin, &secret, err)
				  : unseal_shared(&o, &secret, err);
	qs_tpm2_flush(tpm, &o.object);
	if (r < 0) {
		name_pcrs(&o, err);
		return r;
	}
	if (!with->kek)
		return qs_tpm2_passphrase(&secret, &pin, ret_passphrase, err);
	*ret_passphrase = qs_secret_move(&secret);
	return 0;
}

/* What the token's hints tell of the values that its bank has now. */
static uint32_t moved_for_sure(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token)
{
	const struct qs_tpm2_bank *bank =
		qs_tpm2_find_bank(tpm, token->bank ? token->bank : QS_TPM2_SHA256);
	bool sure = false;
	uint32_t moved = bank ? qs_tpm2_moved(token, bank, &sure) : 0;

	return sure ? moved : 0;
}

/* Of a keystore's generation, ERR tells which PCRs moved, and what can be done about it. */
static void explain_kek(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token,
			struct qs_error *err)
{
	char list[QS_TPM2_PCRS_TEXT_L];
	uint32_t moved;

	if (!err)
		return;
	moved = err->kind == QS_E_TPM_PCR ? moved_for_sure(tpm, token) : 0;
	if (!moved) {
		qs_tpm2_explain_kek(err);
		return;
	}
	(void)qs_fail(err, QS_E_TPM_PCR,
		      "PCR %s changed since it was sealed; if that is right, open the devices "
		      "another way, and disable and enable the keystore again",
		      qs_tpm2_pcrs_text(moved, list));
}

int qs_tpm2_unseal(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token,
		   const struct qs_tpm2_unseal *with, struct qs_secret *ret_passphrase,
		   struct qs_error *err)
{
	struct qs_tpm2_policy policy;
	int r = qs_tpm2_token_check_supported(token, err);

	if (r == 0)
		r = qs_tpm2_policy_find(tpm, token, &policy, err);
	if (r == 0)
		r = unseal(tpm, &policy, with, ret_passphrase, err);
	if (r < 0 && with->kek)
		explain_kek(tpm, token, err);
	return r;
}

int qs_tpm2_owns(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token, struct qs_error *err)
{
	ESYS_TR parent = ESYS_TR_NONE, object = ESYS_TR_NONE;
	int r = qs_tpm2_token_check_supported(token, err);

	if (r == 0)
		r = qs_tpm2_parent(tpm, token, &parent, err);
	if (r == 0)
		r = qs_tpm2_load(tpm, token, parent, &object, err);
	qs_tpm2_flush(tpm, &object);
	return r;
}

int qs_tpm2_match(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token,
		  const struct qs_tpm2_unseal *with, uint32_t *ret_moved, struct qs_error *err)
{
	struct qs_tpm2_policy policy;
	struct qs_error own = {};
	int r = qs_tpm2_token_check_supported(token, &own);

	*ret_moved = 0;
	if (r == 0)
		r = qs_tpm2_policy_find(tpm, token, &policy, &own);
	if (r == 0 && with && token->pubkey_pcrs)
		r = qs_tpm2_policy_is_signed(tpm, &policy, with->signatures, &own);
	if (r == 0)
		return qs_tpm2_owns(tpm, token, err);
	if (own.kind == QS_E_TPM_PCR)
		*ret_moved = moved_for_sure(tpm, token);
	if (err)
		*err = own;
	return r;
}
