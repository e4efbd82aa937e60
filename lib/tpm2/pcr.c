/*
 * Platform configuration registers: which banks there are, their values, and
 * which of them moved since a keyslot was enrolled.
 */
#include <stdio.h>
#include <string.h>

#include <openssl/sha.h>

#include "base/cleanup.h"
#include "tpm2/internal.h"

#define ALL_PCRS ((UINT32_C(1) << QS_TPM2_PCRS) - 1)

/* UAPI group, Linux TPM PCR registry; and the TCG's PC Client profile for the first ones. */
static const char *const meanings[QS_TPM2_PCRS] = {
	[0] = "firmware",
	[1] = "firmware settings",
	[2] = "option ROMs",
	[3] = "option ROM settings",
	[4] = "boot loader",
	[5] = "partition table and boot loader settings",
	[7] = "Secure Boot keys and state",
	[8] = "kernel command line",
	[9] = "kernel and initramfs",
	[10] = "IMA",
	[11] = "unified kernel image and boot phase",
	[12] = "kernel command line and credentials",
	[13] = "system extensions",
	[14] = "shim's keys",
	[15] = "system identity",
};

TPML_PCR_SELECTION qs_tpm2_selection(enum qs_tpm2_alg bank, uint32_t pcrs)
{
	TPML_PCR_SELECTION selection = {
		.count = 1,
		.pcrSelections[0] = {
			.hash = (TPMI_ALG_HASH)bank,
			.sizeofSelect = 3,
			.pcrSelect = { pcrs & 0xff, pcrs >> 8 & 0xff, pcrs >> 16 & 0xff },
		},
	};

	return selection;
}

static uint32_t mask_of(const TPMS_PCR_SELECTION *s)
{
	uint32_t mask = 0;

	for (unsigned i = 0; i < s->sizeofSelect && i < 3; i++)
		mask |= (uint32_t)s->pcrSelect[i] << (8 * i);
	return mask;
}

int qs_tpm2_read_banks(struct qs_tpm2 *tpm, struct qs_error *err)
{
	static const struct qs_tpm2_bank all[QS_TPM2_BANKS] = {
		{ .alg = QS_TPM2_SHA1, .size = TPM2_SHA1_DIGEST_SIZE },
		{ .alg = QS_TPM2_SHA256, .size = TPM2_SHA256_DIGEST_SIZE },
		{ .alg = QS_TPM2_SHA384, .size = TPM2_SHA384_DIGEST_SIZE },
		{ .alg = QS_TPM2_SHA512, .size = TPM2_SHA512_DIGEST_SIZE },
	};
	TPMS_CAPABILITY_DATA *data = NULL;
	TPMI_YES_NO more;
	TSS2_RC rc;

	if (tpm->banks_known)
		return 0;
	rc = Esys_GetCapability(tpm->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, TPM2_CAP_PCRS,
				0, 1, &more, &data);
	if (rc != TSS2_RC_SUCCESS)
		return qs_tpm2_fail(err, rc, "asking for its PCR banks");
	memcpy(tpm->banks, all, sizeof(all));
	for (uint32_t i = 0; i < data->data.assignedPCR.count; i++) {
		const TPMS_PCR_SELECTION *s = &data->data.assignedPCR.pcrSelections[i];
		struct qs_tpm2_bank *bank = qs_tpm2_find_bank(tpm, (enum qs_tpm2_alg)s->hash);

		if (bank)
			bank->assigned = mask_of(s);
	}
	Esys_Free(data);
	tpm->banks_known = true;
	return 0;
}

struct qs_tpm2_bank *qs_tpm2_find_bank(struct qs_tpm2 *tpm, enum qs_tpm2_alg alg)
{
	for (unsigned i = 0; i < QS_TPM2_BANKS; i++)
		if (tpm->banks[i].alg == alg)
			return &tpm->banks[i];
	return NULL;
}

/* One call: a TPM gives at most 8 values. Returns the PCRs that it gave. */
static int read_some(struct qs_tpm2 *tpm, struct qs_tpm2_bank *bank, uint32_t pcrs,
		     uint32_t *ret_got, struct qs_error *err)
{
	const TPML_PCR_SELECTION wanted = qs_tpm2_selection(bank->alg, pcrs);
	TPML_PCR_SELECTION *got = NULL;
	TPML_DIGEST *values = NULL;
	uint32_t n = 0;
	TSS2_RC rc = Esys_PCR_Read(tpm->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &wanted,
				   NULL, &got, &values);

	if (rc != TSS2_RC_SUCCESS)
		return qs_tpm2_fail(err, rc, "reading PCRs");
	*ret_got = got->count > 0 ? mask_of(&got->pcrSelections[0]) & pcrs : 0;
	for (unsigned i = 0; i < QS_TPM2_PCRS; i++) {
		if (!(*ret_got & UINT32_C(1) << i))
			continue;
		if (n < values->count && values->digests[n].size == bank->size)
			memcpy(bank->values[i], values->digests[n].buffer, bank->size);
		else
			*ret_got &= ~(UINT32_C(1) << i);
		n++;
	}
	Esys_Free(got);
	Esys_Free(values);
	return 0;
}

int qs_tpm2_read_pcrs(struct qs_tpm2 *tpm, struct qs_tpm2_bank *bank, uint32_t pcrs,
		      struct qs_error *err)
{
	while (pcrs & ~bank->known) {
		uint32_t got = 0;
		int r = read_some(tpm, bank, pcrs & ~bank->known, &got, err);

		if (r < 0)
			return r;
		if (got == 0)
			return qs_fail(err, QS_E_TPM, "the TPM has no %s values of PCR %u",
				       qs_tpm2_bank_name(bank->alg),
				       (unsigned)__builtin_ctz(pcrs & ~bank->known));
		qs_tpm2_take_back_closing(tpm, bank, got);
		bank->known |= got;
	}
	return 0;
}

static bool is_unset(const struct qs_tpm2_bank *bank, unsigned pcr)
{
	const uint8_t *value = bank->values[pcr];

	if (value[0] != 0x00 && value[0] != 0xff)
		return false;
	for (size_t i = 1; i < bank->size; i++)
		if (value[i] != value[0])
			return false;
	return true;
}

static int refuse_unset(const struct qs_tpm2_bank *bank, uint32_t pcrs, struct qs_error *err)
{
	char text[QS_TPM2_PCRS_TEXT_L];
	uint32_t unset = 0;

	for (unsigned i = 0; i < QS_TPM2_PCRS; i++)
		if (pcrs & UINT32_C(1) << i && is_unset(bank, i))
			unset |= UINT32_C(1) << i;
	if (unset == 0)
		return 0;
	return qs_fail(err, QS_E_REFUSED,
		       "nothing has been measured into PCR %s of the %s bank, so that sealing to "
		       "it protects nothing; choose other PCRs with --pcrs",
		       qs_tpm2_pcrs_text(unset, text), qs_tpm2_bank_name(bank->alg));
}

static void list_banks(const struct qs_tpm2 *tpm, char *ret, size_t size)
{
	size_t used = 0;

	(void)snprintf(ret, size, "none");
	for (unsigned i = 0; i < QS_TPM2_BANKS; i++)
		if (tpm->banks[i].assigned == ALL_PCRS)
			used += (size_t)snprintf(ret + used, size - used, "%s%s", used ? ", " : "",
						 qs_tpm2_bank_name(tpm->banks[i].alg));
}

int qs_tpm2_choose_bank(struct qs_tpm2 *tpm, const struct qs_tpm2_seal *how, enum qs_tpm2_alg *ret,
			struct qs_error *err)
{
	/* Never SHA-1 by itself: a bank that the firmware does not extend is the attacker's. */
	enum qs_tpm2_alg wanted = how->bank ? how->bank : QS_TPM2_SHA256;
	uint32_t pcrs = how->pcrs | how->pubkey_pcrs;
	struct qs_tpm2_bank *bank;
	char there[64];
	int r;

	*ret = wanted;
	if (pcrs == 0)
		return 0;
	r = qs_tpm2_read_banks(tpm, err);
	if (r < 0)
		return r;
	bank = qs_tpm2_find_bank(tpm, wanted);
	if (!bank || bank->assigned != ALL_PCRS) {
		list_banks(tpm, there, sizeof(there));
		return qs_fail(err, QS_E_REFUSED,
			       "the TPM has no complete %s bank; it has %s, choose with --bank",
			       qs_tpm2_bank_name(wanted), there);
	}
	bank->known = 0;
	r = qs_tpm2_read_pcrs(tpm, bank, pcrs, err);
	if (r == 0 && !how->unset_pcrs)
		r = refuse_unset(bank, pcrs, err);
	return r;
}

void qs_tpm2_pcr_hint(const struct qs_tpm2_bank *bank, unsigned pcr,
		      char ret[QS_TPM2_PCR_HINT_L + 1])
{
	uint8_t digest[SHA256_DIGEST_LENGTH];

	(void)SHA256(bank->values[pcr], bank->size, digest);
	for (unsigned i = 0; i < QS_TPM2_PCR_HINT_L / 2; i++)
		(void)snprintf(ret + (size_t)2 * i, 3, "%02x", digest[i]);
}

uint32_t qs_tpm2_moved(const struct qs_tpm2_token *token, const struct qs_tpm2_bank *bank,
		       bool *ret_sure)
{
	uint32_t changed = 0, unknown = 0;

	for (unsigned i = 0; i < QS_TPM2_PCRS; i++) {
		uint32_t bit = UINT32_C(1) << i;
		char now[QS_TPM2_PCR_HINT_L + 1];

		if (!(token->pcrs & bit))
			continue;
		qs_tpm2_pcr_hint(bank, i, now);
		if (!token->pcr_hints[i][0])
			unknown |= bit;
		else if (strcmp(token->pcr_hints[i], now) != 0)
			changed |= bit;
	}
	*ret_sure = changed || (unknown & (unknown - 1)) == 0;
	return changed ? changed : unknown;
}

int qs_tpm2_explain_pcrs(const struct qs_tpm2_token *token, const struct qs_tpm2_bank *bank,
			 struct qs_error *err)
{
	char list[QS_TPM2_PCRS_TEXT_L];
	bool sure;
	uint32_t changed = qs_tpm2_moved(token, bank, &sure);
	const char *meaning;

	if (changed == 0)
		return qs_fail(err, QS_E_TPM,
			       "the TPM2 token's policy does not belong to its PCRs %s; it is "
			       "damaged or of an unknown version",
			       qs_tpm2_pcrs_text(token->pcrs, list));
	meaning = meanings[__builtin_ctz(changed)];
	if ((changed & (changed - 1)) != 0 || !meaning)
		return qs_fail(err, QS_E_TPM_PCR,
			       "%s %s changed since the keyslot was enrolled; if that is right, "
			       "open the device another way and enrol it again",
			       sure ? "PCRs" : "at least one of the PCRs",
			       qs_tpm2_pcrs_text(changed, list));
	return qs_fail(err, QS_E_TPM_PCR,
		       "PCR %s (%s) changed since the keyslot was enrolled; if that is right, open "
		       "the device another way and enrol it again",
		       qs_tpm2_pcrs_text(changed, list), meaning);
}
