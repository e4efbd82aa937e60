/*
 * The connection: opening, the lockout counter, closing, and the struct that
 * the module exports.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tpm2/internal.h"

#define DEVICE "/dev/tpmrm0"

void qs_tpm2_flush(const struct qs_tpm2 *tpm, ESYS_TR *handle)
{
	if (*handle != ESYS_TR_NONE)
		(void)Esys_FlushContext(tpm->esys, *handle);
	*handle = ESYS_TR_NONE;
}

static void tpm2_close(struct qs_tpm2 *tpm)
{
	if (!tpm)
		return;
	if (tpm->esys) {
		qs_tpm2_drop_sessions(tpm);
		qs_tpm2_flush(tpm, &tpm->ecc);
		qs_tpm2_flush(tpm, &tpm->rsa);
		if (tpm->srk != ESYS_TR_NONE)
			(void)Esys_TR_Close(tpm->esys, &tpm->srk);
		Esys_Finalize(&tpm->esys);
	}
	if (tpm->tcti)
		Tss2_TctiLdr_Finalize(&tpm->tcti);
	json_decref(tpm->closed);
	free(tpm);
}

static int connect_to(struct qs_tpm2 *tpm, const char *device, struct qs_error *err)
{
	bool automatic = strcmp(device, "auto") == 0;
	TSS2_RC rc;

	if (automatic && access(DEVICE, F_OK) < 0)
		return qs_fail(err, QS_E_TPM_ABSENT,
			       "this machine has no TPM 2.0 (there is no " DEVICE
			       "); is it switched on in the firmware?");
	rc = Tss2_TctiLdr_Initialize(automatic ? "device:" DEVICE : device, &tpm->tcti);
	if (rc != TSS2_RC_SUCCESS)
		return qs_fail(err, QS_E_TPM_ABSENT, "cannot reach the TPM %s: %s",
			       automatic ? DEVICE : device, Tss2_RC_Decode(rc));
	rc = Esys_Initialize(&tpm->esys, tpm->tcti, NULL);
	if (rc == TSS2_RC_SUCCESS)
		rc = Esys_Startup(tpm->esys, TPM2_SU_CLEAR);
	if (rc == TPM2_RC_INITIALIZE) /* it has been started already, as it should be */
		rc = TSS2_RC_SUCCESS;
	return rc == TSS2_RC_SUCCESS ? 0 : qs_tpm2_fail(err, rc, "connecting");
}

static int tpm2_open(const char *device, struct qs_tpm2 **ret, struct qs_error *err)
{
	struct qs_tpm2 *tpm = calloc(1, sizeof(*tpm));
	int r;

	if (!tpm)
		return qs_fail(err, QS_E_MEMORY, "no memory for the TPM");
	tpm->ecc = tpm->rsa = tpm->srk = tpm->parent = ESYS_TR_NONE;
	tpm->encryption = tpm->policy = ESYS_TR_NONE;
	/* The stack prints its own errors on stderr; ours are sentences. */
	(void)setenv("TSS2_LOG", "all+none", 0);
	r = connect_to(tpm, device, err);
	if (r < 0) {
		tpm2_close(tpm);
		return r;
	}
	*ret = tpm;
	return 0;
}

/* COUNT properties from FIRST on into VALUES, 0 where the TPM has none. */
static int read_properties(const struct qs_tpm2 *tpm, TPM2_PT first, uint32_t *values,
			   uint32_t count, struct qs_error *err)
{
	TPMS_CAPABILITY_DATA *data = NULL;
	TPMI_YES_NO more;
	TSS2_RC rc = Esys_GetCapability(tpm->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
					TPM2_CAP_TPM_PROPERTIES, first, count, &more, &data);

	if (rc != TSS2_RC_SUCCESS)
		return qs_tpm2_fail(err, rc, "reading its properties");
	memset(values, 0, count * sizeof(*values));
	for (uint32_t i = 0; i < data->data.tpmProperties.count; i++) {
		const TPMS_TAGGED_PROPERTY *p = &data->data.tpmProperties.tpmProperty[i];

		if (p->property >= first && p->property - first < count)
			values[p->property - first] = p->value;
	}
	Esys_Free(data);
	return 0;
}

static int tpm2_health(struct qs_tpm2 *tpm, struct qs_tpm2_health *ret, struct qs_error *err)
{
	enum { LOCKOUT_L = TPM2_PT_LOCKOUT_RECOVERY - TPM2_PT_LOCKOUT_COUNTER + 1 };
	uint32_t maker[1] = {}, firmware[2] = {}, permanent[1] = {}, lockout[LOCKOUT_L] = {};
	int r = read_properties(tpm, TPM2_PT_MANUFACTURER, maker, 1, err);

	if (r == 0)
		r = read_properties(tpm, TPM2_PT_FIRMWARE_VERSION_1, firmware, 2, err);
	if (r == 0)
		r = read_properties(tpm, TPM2_PT_PERMANENT, permanent, 1, err);
	if (r == 0)
		r = read_properties(tpm, TPM2_PT_LOCKOUT_COUNTER, lockout, LOCKOUT_L, err);
	if (r != 0)
		return r;
	*ret = (struct qs_tpm2_health){
		.failures = lockout[0],
		.limit = lockout[TPM2_PT_MAX_AUTH_FAIL - TPM2_PT_LOCKOUT_COUNTER],
		.recovery_s = lockout[TPM2_PT_LOCKOUT_INTERVAL - TPM2_PT_LOCKOUT_COUNTER],
		.locked = permanent[0] & TPMA_PERMANENT_INLOCKOUT,
		.firmware = { firmware[0], firmware[1] },
	};
	for (unsigned i = 0; i < 4; i++) {
		char c = (char)(maker[0] >> (24 - 8 * i));

		ret->manufacturer[i] = (char)(c >= '!' && c <= '~' ? c : '\0');
	}
	return 0;
}

static int tpm2_clock(struct qs_tpm2 *tpm, struct qs_tpm2_clock *ret, struct qs_error *err)
{
	TPMS_TIME_INFO *now = NULL;
	TSS2_RC rc = Esys_ReadClock(tpm->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &now);

	if (rc != TSS2_RC_SUCCESS)
		return qs_tpm2_fail(err, rc, "reading its clock");
	*ret = (struct qs_tpm2_clock){
		.ms = now->clockInfo.clock,
		.resets = now->clockInfo.resetCount,
		.restarts = now->clockInfo.restartCount,
	};
	Esys_Free(now);
	return 0;
}

QS_MODULE_EXPORT extern const struct qs_tpm2_functions qs_tpm2_module;
const struct qs_tpm2_functions qs_tpm2_module = {
	.module = { QS_TPM2_MODULE_VERSION },
	.open = tpm2_open,
	.close = tpm2_close,
	.health = tpm2_health,
	.clock = tpm2_clock,
	.seal = qs_tpm2_seal,
	.unseal = qs_tpm2_unseal,
	.match = qs_tpm2_match,
	.owns = qs_tpm2_owns,
	.before_closing = qs_tpm2_before_closing,
	.values = qs_tpm2_values,
	.extend = qs_tpm2_extend,
};
