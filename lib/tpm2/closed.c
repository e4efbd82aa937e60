/*
 * PCRs that qs-util itself extended when unlocking was over: what they were before,
 * and so will be again after the next start.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/cleanup.h"
#include "tpm2/internal.h"

/* Each cryptopenall --early of one boot closes once more. */
#define CLOSINGS_MAX 8U

static bool parse_hex(const char *text, size_t size, uint8_t *ret)
{
	if (!text || strlen(text) != 2 * size)
		return false;
	for (size_t i = 0; i < size; i++) {
		const char pair[3] = { text[2 * i], text[2 * i + 1], '\0' };
		char *end = NULL;

		ret[i] = (uint8_t)strtoul(pair, &end, 16);
		if (*end)
			return false;
	}
	return true;
}

/* value = H(value, H(event)), as TPM2_PCR_Event does. */
static bool extend(const struct qs_tpm2_bank *bank, const char *event, uint8_t *value)
{
	uint8_t both[2 * TPM2_SHA512_DIGEST_SIZE];
	EVP_MD *hash = EVP_MD_fetch(NULL, qs_tpm2_bank_name(bank->alg), NULL);
	bool good;

	memcpy(both, value, bank->size);
	good = hash && EVP_Digest(event, strlen(event), both + bank->size, NULL, hash, NULL) == 1 &&
	       EVP_Digest(both, 2 * bank->size, value, NULL, hash, NULL) == 1;
	EVP_MD_free(hash);
	return good;
}

static void take_back(const struct qs_tpm2 *tpm, struct qs_tpm2_bank *bank, unsigned pcr,
		      const char *recorded)
{
	uint8_t before[TPM2_SHA512_DIGEST_SIZE], value[TPM2_SHA512_DIGEST_SIZE];

	if (!parse_hex(recorded, bank->size, before))
		return;
	memcpy(value, before, bank->size);
	for (unsigned i = 0; i < CLOSINGS_MAX; i++) {
		if (!extend(bank, tpm->closing_event, value))
			return;
		if (memcmp(value, bank->values[pcr], bank->size) == 0) {
			memcpy(bank->values[pcr], before, bank->size);
			return;
		}
	}
}

void qs_tpm2_take_back_closing(const struct qs_tpm2 *tpm, struct qs_tpm2_bank *bank, uint32_t pcrs)
{
	const json_t *values = json_object_get(tpm->closed, qs_tpm2_bank_name(bank->alg));

	for (unsigned i = 0; values && i < QS_TPM2_PCRS; i++) {
		char number[4];

		(void)snprintf(number, sizeof(number), "%u", i);
		if (pcrs & UINT32_C(1) << i)
			take_back(tpm, bank, i, json_string_value(json_object_get(values, number)));
	}
}

void qs_tpm2_before_closing(struct qs_tpm2 *tpm, json_t *closed, const char *event)
{
	json_decref(tpm->closed);
	tpm->closed = json_incref(closed);
	tpm->closing_event = event;
	for (unsigned i = 0; i < QS_TPM2_BANKS; i++)
		tpm->banks[i].known = 0;
}
