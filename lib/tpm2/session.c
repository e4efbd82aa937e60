/*
 * Sessions: always salted with the parent key, and one that encrypts parameters
 * in every call that carries a secret, so that nothing secret crosses the TPM's
 * bus in clear.
 */
#include "tpm2/internal.h"

#define ENCRYPTION_ATTRIBUTES                                                                      \
	(TPMA_SESSION_DECRYPT | TPMA_SESSION_ENCRYPT | TPMA_SESSION_CONTINUESESSION)

int qs_tpm2_start_session(const struct qs_tpm2 *tpm, ESYS_TR parent, ESYS_TR bound, TPM2_SE type,
			  ESYS_TR protect, ESYS_TR *ret, struct qs_error *err)
{
	const TPMT_SYM_DEF aes = { TPM2_ALG_AES, { .aes = 128 }, { .aes = TPM2_ALG_CFB } };
	TPMA_SESSION attributes =
		type == TPM2_SE_HMAC ? ENCRYPTION_ATTRIBUTES : TPMA_SESSION_CONTINUESESSION;
	ESYS_TR session = ESYS_TR_NONE;
	TSS2_RC rc =
		Esys_StartAuthSession(tpm->esys, parent, bound, protect, ESYS_TR_NONE, ESYS_TR_NONE,
				      NULL, type, &aes, TPM2_ALG_SHA256, &session);

	if (rc != TSS2_RC_SUCCESS)
		return qs_tpm2_fail(err, rc, "starting a session");
	rc = Esys_TRSess_SetAttributes(tpm->esys, session, attributes, 0xff);
	if (rc != TSS2_RC_SUCCESS) {
		qs_tpm2_flush(tpm, &session);
		return qs_tpm2_fail(err, rc, "setting up a session");
	}
	*ret = session;
	return 0;
}

void qs_tpm2_drop_sessions(struct qs_tpm2 *tpm)
{
	qs_tpm2_flush(tpm, &tpm->policy);
	qs_tpm2_flush(tpm, &tpm->encryption);
	tpm->parent = ESYS_TR_NONE;
}

/* Sessions are of one parent at a time: a TPM without a resource manager holds three. */
static void take_parent(struct qs_tpm2 *tpm, ESYS_TR parent)
{
	if (tpm->parent != parent)
		qs_tpm2_drop_sessions(tpm);
	tpm->parent = parent;
}

int qs_tpm2_encryption_session(struct qs_tpm2 *tpm, ESYS_TR parent, struct qs_error *err)
{
	take_parent(tpm, parent);
	if (tpm->encryption != ESYS_TR_NONE)
		return 0;
	return qs_tpm2_start_session(tpm, parent, ESYS_TR_NONE, TPM2_SE_HMAC, ESYS_TR_NONE,
				     &tpm->encryption, err);
}

static int restart_policy(struct qs_tpm2 *tpm, struct qs_error *err)
{
	TSS2_RC rc;

	if (tpm->policy_empty)
		return 0;
	rc = Esys_PolicyRestart(tpm->esys, tpm->policy, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE);
	return rc == TSS2_RC_SUCCESS ? 0 : qs_tpm2_fail(err, rc, "restarting a session");
}

int qs_tpm2_policy_session(struct qs_tpm2 *tpm, ESYS_TR parent, struct qs_error *err)
{
	TSS2_RC rc;
	int r;

	take_parent(tpm, parent);
	if (tpm->policy != ESYS_TR_NONE)
		return restart_policy(tpm, err);
	r = qs_tpm2_start_session(tpm, parent, ESYS_TR_NONE, TPM2_SE_POLICY, ESYS_TR_NONE,
				  &tpm->policy, err);
	if (r < 0)
		return r;
	rc = Esys_TRSess_SetAttributes(tpm->esys, tpm->policy, TPMA_SESSION_ENCRYPT,
				       TPMA_SESSION_ENCRYPT);
	if (rc == TSS2_RC_SUCCESS)
		return 0;
	qs_tpm2_flush(tpm, &tpm->policy);
	return qs_tpm2_fail(err, rc, "setting up a session");
}
