/*
 * The storage root key: persistent, shared by everybody who seals on this machine
 * (systemd 254 and later use it too). It is made where there is none, and never replaced.
 */
#include "base/cleanup.h"
#include "tpm2/internal.h"

#define NEEDED                                                                                     \
	(TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_RESTRICTED |                 \
	 TPMA_OBJECT_DECRYPT)

/* Returns 1 when it is there: tpm->srk is it. */
static int find(struct qs_tpm2 *tpm, struct qs_error *err)
{
	TSS2_RC rc;

	if (tpm->srk != ESYS_TR_NONE && tpm->srk_handle != QS_TPM2_SRK)
		(void)Esys_TR_Close(tpm->esys, &tpm->srk);
	if (tpm->srk != ESYS_TR_NONE)
		return 1;
	rc = Esys_TR_FromTPMPublic(tpm->esys, QS_TPM2_SRK, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
				   &tpm->srk);
	if (rc == TSS2_RC_SUCCESS) {
		tpm->srk_handle = QS_TPM2_SRK;
		return 1;
	}
	tpm->srk = ESYS_TR_NONE;
	if (qs_tpm2_code(rc) == TPM2_RC_HANDLE)
		return 0;
	return qs_tpm2_fail(err, rc, "looking for its storage root key");
}

/* What systemd would make: its older template, but outside of the lockout. */
static int make_primary(struct qs_tpm2 *tpm, ESYS_TR *ret, struct qs_error *err)
{
	TPM2B_PUBLIC ecc = qs_tpm2_ecc_template, rsa = qs_tpm2_rsa_template;
	int r;

	ecc.publicArea.objectAttributes |= TPMA_OBJECT_NODA;
	rsa.publicArea.objectAttributes |= TPMA_OBJECT_NODA;
	qs_tpm2_flush(tpm, &tpm->ecc);
	r = qs_tpm2_make_primary(tpm, &ecc, ret, &tpm->rsa, NULL);
	return r == 0 ? 0 : qs_tpm2_make_primary(tpm, &rsa, ret, &tpm->rsa, err);
}

/* Another program that is quicker is as good. */
static int make(struct qs_tpm2 *tpm, struct qs_error *err)
{
	ESYS_TR primary = ESYS_TR_NONE, persistent = ESYS_TR_NONE;
	TSS2_RC rc;
	int r = make_primary(tpm, &primary, err);

	if (r < 0)
		return r;
	rc = Esys_EvictControl(tpm->esys, ESYS_TR_RH_OWNER, primary, ESYS_TR_PASSWORD, ESYS_TR_NONE,
			       ESYS_TR_NONE, QS_TPM2_SRK, &persistent);
	qs_tpm2_flush(tpm, &primary);
	if (rc == TSS2_RC_SUCCESS)
		(void)Esys_TR_Close(tpm->esys, &persistent);
	else if (qs_tpm2_code(rc) != TPM2_RC_NV_DEFINED)
		return qs_tpm2_fail(err, rc, "keeping its storage root key");
	r = find(tpm, err);
	if (r == 0)
		return qs_fail(err, QS_E_TPM, "the TPM does not keep its storage root key");
	return r < 0 ? r : 0;
}

/* Whoever provisioned the TPM may have put any key there: one that has a copy elsewhere, too. */
static int check(struct qs_tpm2 *tpm, enum qs_tpm2_alg *ret_alg, struct qs_error *err)
{
	TPM2B_PUBLIC *public = NULL;
	TPMA_OBJECT attributes;
	TSS2_RC rc = Esys_ReadPublic(tpm->esys, tpm->srk, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
				     &public, NULL, NULL);

	if (rc != TSS2_RC_SUCCESS)
		return qs_tpm2_fail(err, rc, "reading its storage root key");
	attributes = public->publicArea.objectAttributes;
	*ret_alg = (enum qs_tpm2_alg) public->publicArea.type;
	Esys_Free(public);
	if ((attributes & NEEDED) == NEEDED && (*ret_alg == QS_TPM2_ECC || *ret_alg == QS_TPM2_RSA))
		return 0;
	return qs_fail(
		err, QS_E_TPM,
		"the TPM's storage root key (0x%08x) is not one that never leaves the TPM, so "
		"nothing is sealed under it",
		(unsigned)QS_TPM2_SRK);
}

static int name_it(struct qs_tpm2 *tpm, struct qs_bytes *ret, struct qs_error *err)
{
	uint8_t *bytes = NULL;
	size_t size = 0;
	TSS2_RC rc = Esys_TR_Serialize(tpm->esys, tpm->srk, &bytes, &size);

	if (rc != TSS2_RC_SUCCESS)
		return qs_tpm2_fail(err, rc, "reading the name of its storage root key");
	*ret = qs_bytes_copy(bytes, size);
	Esys_Free(bytes);
	return 0;
}

int qs_tpm2_srk(struct qs_tpm2 *tpm, struct qs_tpm2_token *token, ESYS_TR *ret,
		struct qs_error *err)
{
	int r = find(tpm, err);

	if (r == 0)
		r = make(tpm, err);
	if (r >= 0)
		r = check(tpm, &token->primary_alg, err);
	if (r == 0)
		r = name_it(tpm, &token->srk, err);
	*ret = tpm->srk;
	return r;
}
