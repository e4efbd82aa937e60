/*
 * PCR values as they are, and extending them: the one thing that this module
 * does to a TPM for all who come after it in the same boot.
 */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "tpm2/internal.h"

static json_t *values_of(const struct qs_tpm2_bank *bank, uint32_t pcrs)
{
	json_t *values = json_object();

	for (unsigned i = 0; i < QS_TPM2_PCRS; i++) {
		char number[4], hex[2 * TPM2_SHA512_DIGEST_SIZE + 1];

		if (!(pcrs & UINT32_C(1) << i))
			continue;
		(void)snprintf(number, sizeof(number), "%u", i);
		for (size_t n = 0; n < bank->size; n++)
			(void)snprintf(hex + 2 * n, 3, "%02x", bank->values[i][n]);
		(void)json_object_set_new(values, number, json_string(hex));
	}
	return values;
}

int qs_tpm2_values(struct qs_tpm2 *tpm, uint32_t pcrs, json_t **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *all = json_object();
	int r = qs_tpm2_read_banks(tpm, err);

	for (unsigned i = 0; r == 0 && i < QS_TPM2_BANKS; i++) {
		struct qs_tpm2_bank *bank = &tpm->banks[i];

		if ((bank->assigned & pcrs) != pcrs)
			continue;
		bank->known = 0;
		r = qs_tpm2_read_pcrs(tpm, bank, pcrs, err);
		if (r == 0)
			(void)json_object_set_new(all, qs_tpm2_bank_name(bank->alg),
						  values_of(bank, pcrs));
	}
	if (r == 0)
		*ret = QS_TAKE(all);
	return r;
}

/* TPM2_PCR_Event hashes for every bank, so that no bank is left as it was. */
int qs_tpm2_extend(struct qs_tpm2 *tpm, uint32_t pcrs, const char *event, struct qs_error *err)
{
	TPM2B_EVENT data = { .size = (UINT16)strlen(event) };
	TPML_DIGEST_VALUES *digests = NULL;

	if (strlen(event) > sizeof(data.buffer))
		return qs_fail(err, QS_E_TPM, "the event '%s' is too long for the TPM", event);
	memcpy(data.buffer, event, data.size);
	for (unsigned i = 0; i < QS_TPM2_PCRS; i++) {
		TSS2_RC rc;

		if (!(pcrs & UINT32_C(1) << i))
			continue;
		rc = Esys_PCR_Event(tpm->esys, ESYS_TR_PCR0 + i, ESYS_TR_PASSWORD, ESYS_TR_NONE,
				    ESYS_TR_NONE, &data, &digests);
		if (rc != TSS2_RC_SUCCESS)
			return qs_tpm2_fail(err, rc, "extending a PCR");
		Esys_Free(digests);
		digests = NULL;
	}
	for (unsigned i = 0; i < QS_TPM2_BANKS; i++)
		tpm->banks[i].known &= ~pcrs;
	return 0;
}
