/*
 * systemd-tpm2 tokens: JSON out of a header that anybody may have written. What
 * passes keeps what callers rely on, and is the same after writing it again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "luks/tpm2-token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
	if (!holds)
		abort();
}

static void check_accepted(const struct qs_tpm2_token *t)
{
	demand(t->keyslots != 0);
	demand(t->pcrs >> QS_TPM2_PCRS == 0 && t->pubkey_pcrs >> QS_TPM2_PCRS == 0);
	demand(t->primary_alg == QS_TPM2_ECC || t->primary_alg == QS_TPM2_RSA);
	demand(t->bank == QS_TPM2_NONE || qs_tpm2_bank_name(t->bank));
	demand((t->pubkey_pcrs != 0) == (t->pubkey != NULL));
	demand(t->argon2_memory == 0 || (t->argon2_passes && t->argon2_lanes && t->salt.size));
	if (t->sharded)
		return;
	demand(t->public_at >= 2 && t->public_at < t->seed_at && t->seed_at <= t->blob.size);
	demand(t->seed_at - t->public_at >= 2 + 10 + QS_TPM2_DIGEST_L);
}

static void check_written(const struct qs_tpm2_token *t)
{
	QS_AUTO(qs_auto_json) json_t *json = qs_tpm2_token_write(t);
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token again = {};

	demand(qs_tpm2_token_parse(json, &again, NULL) == 0);
	demand(again.keyslots == t->keyslots && again.pcrs == t->pcrs);
	demand(again.pubkey_pcrs == t->pubkey_pcrs && again.pin == t->pin);
	demand(again.blob.size == t->blob.size &&
	       memcmp(again.blob.data, t->blob.data, t->blob.size) == 0);
	demand(memcmp(again.policy_hash, t->policy_hash, sizeof(t->policy_hash)) == 0);
	demand(memcmp(again.pcr_hints, t->pcr_hints, sizeof(t->pcr_hints)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	QS_AUTO(qs_auto_json) json_t *json = json_loadb((const char *)data, size, 0, NULL);
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
	struct qs_error err = {};
	int r;

	if (!json)
		return 0;
	r = qs_tpm2_token_parse(json, &token, &err);
	demand(r == 0 || (err.kind == QS_E_DAMAGED && err.text[0]));
	if (r < 0)
		return 0;
	check_accepted(&token);
	if (!token.sharded && (token.bank || !(token.pcrs | token.pubkey_pcrs)))
		check_written(&token);
	return 0;
}
