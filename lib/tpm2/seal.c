/*
 * Sealing so that systemd 252 unseals it.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "tpm2/internal.h"

/* What the token says before anything is sealed; the policy is computed from it. */
static int describe(struct qs_tpm2 *tpm, const struct qs_tpm2_seal *how,
		    struct qs_tpm2_token *token, struct qs_error *err)
{
	struct qs_tpm2_policy policy = { .token = token };
	const struct qs_tpm2_bank *bank;
	int r = qs_tpm2_choose_bank(tpm, how, &token->bank, err);

	if (r < 0)
		return r;
	token->pcrs = how->pcrs;
	token->pin = how->pin != NULL;
	token->pubkey_pcrs = how->pubkey_pcrs;
	token->pubkey = how->pubkey_pcrs ? qs_strdup(how->pubkey) : NULL;
	policy.bank = token->bank;
	r = qs_tpm2_policy_compute(tpm, &policy, err);
	if (r < 0)
		return r;
	memcpy(token->policy_hash, policy.digest, sizeof(token->policy_hash));
	bank = qs_tpm2_find_bank(tpm, token->bank);
	for (unsigned i = 0; i < QS_TPM2_PCRS; i++)
		if (token->pcrs & UINT32_C(1) << i)
			qs_tpm2_pcr_hint(bank, i, token->pcr_hints[i]);
	return 0;
}

static TPM2B_PUBLIC sealed_template(const struct qs_tpm2_token *token)
{
	bool kek = token->srk.size > 0;
	TPM2B_PUBLIC public = {
		.publicArea = {
			.type = TPM2_ALG_KEYEDHASH,
			.nameAlg = TPM2_ALG_SHA256,
			/* Not userWithAuth: the policy alone opens it. */
			.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT,
			.authPolicy.size = QS_TPM2_DIGEST_L,
			.parameters.keyedHashDetail.scheme.scheme = TPM2_ALG_NULL,
			.unique.keyedHash.size = QS_TPM2_DIGEST_L,
		},
	};

	if (kek && !token->pin)
	public.publicArea.objectAttributes |= TPMA_OBJECT_NODA;
	memcpy(public.publicArea.authPolicy.buffer, token->policy_hash, QS_TPM2_DIGEST_L);
	return public;
}

static int marshal(const TPM2B_PRIVATE *private, const TPM2B_PUBLIC *public,
		   struct qs_tpm2_token *token, struct qs_error *err)
{
	uint8_t blob[sizeof(*private) + sizeof(*public)];
	size_t at = 0;
	TSS2_RC rc = Tss2_MU_TPM2B_PRIVATE_Marshal(private, blob, sizeof(blob), &at);

	token->public_at = at;
	if (rc == TSS2_RC_SUCCESS)
		rc = Tss2_MU_TPM2B_PUBLIC_Marshal(public, blob, sizeof(blob), &at);
	if (rc != TSS2_RC_SUCCESS)
		return qs_tpm2_fail(err, rc, "encoding the sealed object");
	token->seed_at = at;
	token->blob = qs_bytes_copy(blob, at);
	return 0;
}

static int create(struct qs_tpm2 *tpm, ESYS_TR parent, const TPM2B_SENSITIVE_CREATE *sensitive,
		  struct qs_tpm2_token *token, struct qs_error *err)
{
	const TPM2B_PUBLIC template = sealed_template(token);
	const TPML_PCR_SELECTION no_pcrs = {};
	const TPM2B_DATA no_data = {};
	TPM2B_PRIVATE *private = NULL;
	TPM2B_PUBLIC *public = NULL;
	TSS2_RC rc = Esys_Create(tpm->esys, parent, ESYS_TR_PASSWORD, tpm->encryption, ESYS_TR_NONE,
				 sensitive, &template, &no_data, &no_pcrs, &private, &public, NULL,
				 NULL, NULL);
	int r;

	if (rc != TSS2_RC_SUCCESS)
		return qs_tpm2_fail(err, rc, "sealing");
	r = marshal(private, public, token, err);
	Esys_Free(private);
	Esys_Free(public);
	return r;
}

/* Secret and PIN in the TPM's form, in locked memory. */
static int make_sensitive(const struct qs_secret *secret, const struct qs_tpm2_pin *pin,
			  struct qs_secret *ret, struct qs_error *err)
{
	TPMS_SENSITIVE_CREATE *sensitive;
	int r = qs_secret_init(ret, sizeof(TPM2B_SENSITIVE_CREATE), err);

	if (r < 0)
		return r;
	sensitive = &((TPM2B_SENSITIVE_CREATE *)ret->data)->sensitive;
	if (pin->auth.data)
		sensitive->userAuth = *(const TPM2B_AUTH *)pin->auth.data;
	sensitive->data.size = (UINT16)secret->size;
	memcpy(sensitive->data.buffer, secret->data, secret->size);
	return 0;
}

static char *now_text(void)
{
	time_t now = time(NULL);
	struct tm utc;
	char text[32];

	if (!gmtime_r(&now, &utc) || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
		return NULL;
	return qs_strdup(text);
}

static int seal(struct qs_tpm2 *tpm, const struct qs_tpm2_seal *how, struct qs_tpm2_token *token,
		struct qs_secret *ret_passphrase, struct qs_error *err)
{
	QS_AUTO(qs_tpm2_pin_done) struct qs_tpm2_pin pin = {};
	QS_AUTO(qs_secret_done) struct qs_secret secret = {};
	QS_AUTO(qs_secret_done) struct qs_secret sensitive = {};
	ESYS_TR parent = ESYS_TR_NONE;
	int r = how->pin ? qs_tpm2_pin_new(how->pin, how->kek, &pin, err) : 0;

	if (r == 0)
		r = describe(tpm, how, token, err);
	if (r == 0)
		r = how->kek ? qs_tpm2_srk(tpm, token, &parent, err)
			     : qs_tpm2_sealing_parent(tpm, &parent, &token->primary_alg, err);
	if (r == 0)
		r = qs_tpm2_encryption_session(tpm, parent, err);
	if (r == 0)
		r = qs_secret_random(&secret, QS_TPM2_SECRET_L, err);
	if (r == 0)
		r = make_sensitive(&secret, &pin, &sensitive, err);
	if (r == 0)
		r = create(tpm, parent, sensitive.data, token, err);
	if (r < 0)
		return r;
	token->enrolled = now_text();
	return qs_tpm2_passphrase(&secret, &pin, ret_passphrase, err);
}

int qs_tpm2_seal(struct qs_tpm2 *tpm, const struct qs_tpm2_seal *how,
		 struct qs_tpm2_token *ret_token, struct qs_secret *ret_passphrase,
		 struct qs_error *err)
{
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
	int r = seal(tpm, how, &token, ret_passphrase, err);

	if (r < 0)
		return r;
	*ret_token = token;
	token = (struct qs_tpm2_token){};
	return 0;
}
