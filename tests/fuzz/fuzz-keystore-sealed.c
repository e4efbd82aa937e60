/*
 * N.sealed of a keystore in the TPM: it may come out of a bundle or from another hand. What
 * passes is what we write, byte for byte but for blanks, so that nothing else reaches the TPM.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "keystore/sealed.h"

#define STORE "7a63ef61-6a7f-4a6c-9e5c-2a1c6c3f3d10" /* of the corpus */
#define GENERATION 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
	if (!holds)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token again = {};
	QS_AUTO(qs_auto_free) char *text = NULL;
	struct qs_error err = {};
	int r = qs_sealed_kek_parse((const char *)data, size, STORE, GENERATION, &token, &err);

	demand(r == 0 || (err.kind == QS_E_CONFIG && err.text[0]));
	if (r < 0)
		return 0;
	demand(token.blob.size > 0 && token.srk.size >= 12 && token.salt.size == 0);
	demand(!token.pubkey_pcrs && !token.sharded && !token.pcrlock);
	text = qs_sealed_kek_print(STORE, GENERATION, &token);
	demand(qs_sealed_kek_parse(text, strlen(text), STORE, GENERATION, &again, NULL) == 0);
	demand(again.pin == token.pin && again.pcrs == token.pcrs && again.bank == token.bank);
	return 0;
}
