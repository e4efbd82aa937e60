/*
 * The policy of a sealed object: its digest computed on the host (TPM 2.0
 * library, part 3, 23), and the same steps in a session of the TPM.
 *
 * Computing it shows without loading anything, and without counting anything,
 * whether the present PCRs are the right ones.
 */
#include <string.h>

#include <openssl/sha.h>

#include "base/cleanup.h"
#include "tpm2/internal.h"

#define SELECTION_L 10U /* marshalled, one bank */

/* digest = H(digest, command code, more) */
static void extend(uint8_t digest[QS_TPM2_DIGEST_L], TPM2_CC code, const void *more, size_t size)
{
	uint8_t buffer[QS_TPM2_DIGEST_L + 4 + 64];

	memcpy(buffer, digest, QS_TPM2_DIGEST_L);
	for (unsigned i = 0; i < 4; i++)
		buffer[QS_TPM2_DIGEST_L + i] = (uint8_t)(code >> (24 - 8 * i));
	if (size > 0)
		memcpy(buffer + QS_TPM2_DIGEST_L + 4, more, size);
	(void)SHA256(buffer, QS_TPM2_DIGEST_L + 4 + size, digest);
}

static int extend_pcrs(struct qs_tpm2 *tpm, enum qs_tpm2_alg alg, uint32_t pcrs,
		       uint8_t digest[QS_TPM2_DIGEST_L], struct qs_error *err)
{
	const TPML_PCR_SELECTION selection = qs_tpm2_selection(alg, pcrs);
	uint8_t values[QS_TPM2_PCRS * TPM2_SHA512_DIGEST_SIZE];
	uint8_t more[SELECTION_L + SHA256_DIGEST_LENGTH];
	size_t size = 0, at = 0;
	struct qs_tpm2_bank *bank;
	int r = qs_tpm2_read_banks(tpm, err);

	if (r < 0)
		return r;
	bank = qs_tpm2_find_bank(tpm, alg);
	if (!bank || (bank->assigned & pcrs) != pcrs)
		return qs_fail(err, QS_E_TPM, "this TPM has no %s bank of PCRs",
			       qs_tpm2_bank_name(alg));
	r = qs_tpm2_read_pcrs(tpm, bank, pcrs, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < QS_TPM2_PCRS; i++) {
		if (!(pcrs & UINT32_C(1) << i))
			continue;
		memcpy(values + size, bank->values[i], bank->size);
		size += bank->size;
	}
	(void)Tss2_MU_TPML_PCR_SELECTION_Marshal(&selection, more, sizeof(more), &at);
	(void)SHA256(values, size, more + SELECTION_L);
	extend(digest, TPM2_CC_PolicyPCR, more, sizeof(more));
	return 0;
}

int qs_tpm2_policy_of_pcrs(struct qs_tpm2 *tpm, enum qs_tpm2_alg bank, uint32_t pcrs,
			   uint8_t ret[QS_TPM2_DIGEST_L], struct qs_error *err)
{
	memset(ret, 0, QS_TPM2_DIGEST_L);
	return extend_pcrs(tpm, bank, pcrs, ret, err);
}

/* PolicyAuthorize forgets what came before it: only the key and the reference count. */
static int authorize(struct qs_tpm2_policy *policy, struct qs_error *err)
{
	uint8_t both[QS_TPM2_DIGEST_L + SHA256_DIGEST_LENGTH];
	TPM2B_NONCE ref;
	int r = qs_tpm2_pubkey(policy->token->pubkey, policy->exponent_zero, &policy->pubkey,
			       &policy->pubkey_name, err);

	if (r < 0)
		return r;
	extend(policy->digest, TPM2_CC_PolicyAuthorize, policy->pubkey_name.name,
	       policy->pubkey_name.size);
	qs_tpm2_policy_ref(policy->token, &ref);
	memcpy(both, policy->digest, QS_TPM2_DIGEST_L);
	memcpy(both + QS_TPM2_DIGEST_L, ref.buffer, ref.size);
	(void)SHA256(both, QS_TPM2_DIGEST_L + ref.size, policy->digest);
	return 0;
}

int qs_tpm2_policy_compute(struct qs_tpm2 *tpm, struct qs_tpm2_policy *policy, struct qs_error *err)
{
	const struct qs_tpm2_token *token = policy->token;
	int r = 0;

	memset(policy->digest, 0, sizeof(policy->digest));
	if (token->pubkey_pcrs)
		r = authorize(policy, err);
	if (r == 0 && (token->pcrs || policy->pcr_always))
		r = extend_pcrs(tpm, policy->bank, token->pcrs, policy->digest, err);
	if (r == 0 && token->pin)
		extend(policy->digest, TPM2_CC_PolicyAuthValue, NULL, 0);
	return r;
}

/* Returns 1 when one of the forms that versions have used has the token's digest, 0 when none. */
static int try_forms(struct qs_tpm2 *tpm, struct qs_tpm2_policy *policy, struct qs_error *err)
{
	for (unsigned form = 0; form < 4; form++) {
		int r;

		policy->exponent_zero = form & 1;
		policy->pcr_always = form & 2;
		if ((policy->exponent_zero && !policy->token->pubkey_pcrs) ||
		    (policy->pcr_always && policy->token->pcrs))
			continue;
		r = qs_tpm2_policy_compute(tpm, policy, err);
		if (r < 0)
			return r;
		if (memcmp(policy->digest, policy->token->policy_hash, QS_TPM2_DIGEST_L) == 0)
			return 1;
	}
	return 0;
}

int qs_tpm2_policy_find(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token,
			struct qs_tpm2_policy *ret, struct qs_error *err)
{
	/* Before version 250 there was no other. */
	enum qs_tpm2_alg alg = token->bank ? token->bank : QS_TPM2_SHA256;
	struct qs_tpm2_bank *bank;
	int r;

	*ret = (struct qs_tpm2_policy){ .token = token, .bank = alg };
	r = try_forms(tpm, ret, err);
	if (r != 0)
		return r < 0 ? r : 0;
	/* Perhaps only what was read for an earlier token is out of date. */
	r = qs_tpm2_read_banks(tpm, err);
	if (r < 0)
		return r;
	bank = qs_tpm2_find_bank(tpm, alg);
	bank->known = 0;
	r = try_forms(tpm, ret, err);
	if (r != 0)
		return r < 0 ? r : 0;
	return qs_tpm2_explain_pcrs(token, bank, err);
}

static TSS2_RC run_pcrs(struct qs_tpm2 *tpm, const struct qs_tpm2_policy *policy, uint32_t pcrs,
			ESYS_TR session)
{
	const TPML_PCR_SELECTION selection = qs_tpm2_selection(policy->bank, pcrs);
	const TPM2B_DIGEST present = {}; /* empty: the TPM takes the values that it has */

	return Esys_PolicyPCR(tpm->esys, session, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
			      &present, &selection);
}

/* A ticket: the TPM has checked that the policy's key signed APPROVED. */
static int verify(struct qs_tpm2 *tpm, const struct qs_tpm2_policy *policy,
		  const TPM2B_DIGEST *approved, const TPM2B_NONCE *ref,
		  const TPMT_SIGNATURE *signature, TPMT_TK_VERIFIED **ret, struct qs_error *err)
{
	uint8_t both[QS_TPM2_DIGEST_L + SHA256_DIGEST_LENGTH];
	TPM2B_DIGEST digest = { .size = SHA256_DIGEST_LENGTH };
	ESYS_TR key = ESYS_TR_NONE;
	TSS2_RC rc = Esys_LoadExternal(tpm->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, NULL,
				       &policy->pubkey, ESYS_TR_RH_OWNER, &key);

	if (rc != TSS2_RC_SUCCESS)
		return qs_tpm2_fail(err, rc, "loading the public key");
	memcpy(both, approved->buffer, approved->size);
	memcpy(both + approved->size, ref->buffer, ref->size);
	(void)SHA256(both, (size_t)approved->size + ref->size, digest.buffer);
	rc = Esys_VerifySignature(tpm->esys, key, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &digest,
				  signature, ret);
	qs_tpm2_flush(tpm, &key);
	return rc == TSS2_RC_SUCCESS ? 0 : qs_tpm2_fail(err, rc, "checking a signature");
}

struct approval {
	TPM2B_DIGEST policy; /* of the PCRs' values */
	TPM2B_NONCE ref;
	TPMT_TK_VERIFIED *ticket;
};

/* The policy of the PCRs as they are (or were before closing), if its key signed that. */
static int approve(struct qs_tpm2 *tpm, const struct qs_tpm2_policy *policy,
		   const json_t *signatures, struct approval *ret, struct qs_error *err)
{
	TPMT_SIGNATURE signature;
	int r;

	*ret = (struct approval){ .policy.size = QS_TPM2_DIGEST_L };
	r = qs_tpm2_policy_of_pcrs(tpm, policy->bank, policy->token->pubkey_pcrs,
				   ret->policy.buffer, err);
	if (r == 0)
		r = qs_tpm2_find_signature(policy, ret->policy.buffer, signatures, &signature, err);
	if (r < 0)
		return r;
	qs_tpm2_policy_ref(policy->token, &ret->ref);
	return verify(tpm, policy, &ret->policy, &ret->ref, &signature, &ret->ticket, err);
}

int qs_tpm2_policy_is_signed(struct qs_tpm2 *tpm, const struct qs_tpm2_policy *policy,
			     const json_t *signatures, struct qs_error *err)
{
	struct approval approval;
	int r = approve(tpm, policy, signatures, &approval, err);

	Esys_Free(approval.ticket);
	return r;
}

static int run_authorize(struct qs_tpm2 *tpm, const struct qs_tpm2_policy *policy,
			 const json_t *signatures, ESYS_TR session, struct qs_error *err)
{
	char pcrs[QS_TPM2_PCRS_TEXT_L];
	struct approval approval;
	TSS2_RC rc;
	int r = approve(tpm, policy, signatures, &approval, err);

	if (r < 0)
		return r;
	rc = run_pcrs(tpm, policy, policy->token->pubkey_pcrs, session);
	if (rc == TSS2_RC_SUCCESS)
		rc = Esys_PolicyAuthorize(tpm->esys, session, ESYS_TR_NONE, ESYS_TR_NONE,
					  ESYS_TR_NONE, &approval.policy, &approval.ref,
					  &policy->pubkey_name, approval.ticket);
	Esys_Free(approval.ticket);
	if (qs_tpm2_code(rc) == TPM2_RC_VALUE)
		return qs_fail(err, QS_E_TPM_PCR, "PCR %s is not in the state that was signed",
			       qs_tpm2_pcrs_text(policy->token->pubkey_pcrs, pcrs));
	return rc == TSS2_RC_SUCCESS ? 0 : qs_tpm2_fail(err, rc, "satisfying the signed policy");
}

int qs_tpm2_policy_run(struct qs_tpm2 *tpm, const struct qs_tpm2_policy *policy,
		       const json_t *signatures, ESYS_TR session, struct qs_error *err)
{
	const struct qs_tpm2_token *token = policy->token;
	TSS2_RC rc = TSS2_RC_SUCCESS;
	int r = 0;

	if (token->pubkey_pcrs)
		r = run_authorize(tpm, policy, signatures, session, err);
	if (r < 0)
		return r;
	if (token->pcrs || policy->pcr_always)
		rc = run_pcrs(tpm, policy, token->pcrs, session);
	if (rc == TSS2_RC_SUCCESS && token->pin)
		rc = Esys_PolicyAuthValue(tpm->esys, session, ESYS_TR_NONE, ESYS_TR_NONE,
					  ESYS_TR_NONE);
	return rc == TSS2_RC_SUCCESS ? 0 : qs_tpm2_fail(err, rc, "satisfying the policy");
}
