/*
 * What the TPM's answers mean for somebody who wants to open a disk. The codes
 * were seen with the operations of this module (systemd-tpm2 tokens, swtpm);
 * hardware gives the same but for the layer's bits.
 */
#include <string.h>

#include "base/cleanup.h"
#include "tpm2/internal.h"

TSS2_RC qs_tpm2_code(TSS2_RC rc)
{
	TSS2_RC layer = rc & TSS2_RC_LAYER_MASK, code = rc & 0xfffU;

	if (layer != TSS2_TPM_RC_LAYER && layer != TSS2_RESMGR_TPM_RC_LAYER)
		return rc;
	/* Format one (bit 7): the number of a parameter, session or handle is in the other bits. */
	return code & TPM2_RC_FMT1 ? code & 0xbfU : code;
}

static const struct {
	TSS2_RC code;
	enum qs_kind kind;
	const char *sentence;
} answers[] = {
	{ TPM2_RC_LOCKOUT, QS_E_TPM_LOCKOUT,
	  "the TPM is locked after too many wrong PINs or power losses; wait for it to recover, or "
	  "clear the lockout with tpm2_dictionarylockout --clear-lockout" },
	{ TPM2_RC_AUTH_FAIL, QS_E_PIN,
	  "the PIN is wrong (each wrong one counts towards the TPM's lockout)" },
	{ TPM2_RC_INTEGRITY, QS_E_TPM,
	  "this keyslot was sealed by another TPM, or before this TPM was cleared; open the device "
	  "another way and enrol it again with qs-util cryptenroll --tpm2" },
	{ TPM2_RC_HANDLE, QS_E_TPM,
	  "this TPM does not have the key that the keyslot was sealed under; open the device "
	  "another way and enrol it again with qs-util cryptenroll --tpm2" },
	{ TPM2_RC_POLICY_FAIL, QS_E_TPM_PCR,
	  "the machine is not in the state in which the keyslot was enrolled (the TPM's policy "
	  "does not hold)" },
	{ TPM2_RC_BAD_AUTH, QS_E_TPM,
	  "the TPM's owner hierarchy has a password, so that it gives no key to unattended use" },
	{ TPM2_RC_OBJECT_MEMORY, QS_E_TPM,
	  "the TPM has no room for another key; other programs hold it (tpm2_flushcontext -t)" },
	{ TPM2_RC_SESSION_MEMORY, QS_E_TPM,
	  "the TPM has no room for another session; other programs hold it (tpm2_flushcontext -l)" },
	{ TPM2_RC_SESSION_HANDLES, QS_E_TPM,
	  "the TPM has no room for another session; other programs hold it (tpm2_flushcontext -s)" },
	{ TPM2_RC_PCR_CHANGED, QS_E_TEMPORARY, "measurements kept arriving in the TPM; try again" },
	{ TPM2_RC_FAILURE, QS_E_TPM,
	  "the TPM is in failure mode; it needs a reset, by switching the machine off and on" },
	{ TPM2_RC_INITIALIZE, QS_E_TPM, "the TPM has not been started" },
	{ TPM2_RC_SIGNATURE, QS_E_TPM,
	  "the signature of the PCR policy is not one of its public key" },
};

#define ANEW "; open the devices another way, and disable and enable the keystore again"

/* The same of a generation of the keystore, where the sentence above speaks of a keyslot. */
static const struct {
	TSS2_RC code;
	const char *sentence;
} of_kek[] = {
	{ TPM2_RC_INTEGRITY, "it was sealed by another TPM, or before this TPM was cleared" ANEW },
	{ TPM2_RC_HANDLE,
	  "this TPM does not have the storage root key that it was sealed under: it is another TPM, "
	  "or was cleared" ANEW },
	{ TPM2_RC_POLICY_FAIL,
	  "the machine is not in the state in which it was sealed (the TPM's policy does not hold)" },
};

int qs_tpm2_fail(struct qs_error *err, TSS2_RC rc, const char *doing)
{
	TSS2_RC code = qs_tpm2_code(rc);

	for (size_t i = 0; i < QS_ARRAY_SIZE(answers); i++)
		if (answers[i].code == code)
			return qs_fail(err, answers[i].kind, "%s", answers[i].sentence);
	if ((rc & TSS2_RC_LAYER_MASK) == TSS2_TCTI_RC_LAYER)
		return qs_fail(err, QS_E_TPM, "the TPM does not answer (%s while %s)",
			       Tss2_RC_Decode(rc), doing);
	return qs_fail(err, QS_E_TPM, "the TPM refused: %s, 0x%x, while %s", Tss2_RC_Decode(rc),
		       (unsigned)rc, doing);
}

void qs_tpm2_explain_kek(struct qs_error *err)
{
	TSS2_RC code = TSS2_RC_SUCCESS;

	for (size_t i = 0; i < QS_ARRAY_SIZE(answers); i++)
		if (strcmp(answers[i].sentence, err->text) == 0)
			code = answers[i].code;
	for (size_t i = 0; i < QS_ARRAY_SIZE(of_kek); i++)
		if (of_kek[i].code == code)
			(void)qs_fail(err, err->kind, "%s", of_kek[i].sentence);
}
