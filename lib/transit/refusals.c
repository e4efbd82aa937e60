#include "transit/refusals.h"

#include <string.h>

#include "base/cleanup.h"

/* Texts of Vault 1.8 to 1.14 and OpenBao 2.6. */
static const struct qs_transit_refusal refusals[] = {
	{ QS_TRANSIT_FORGED, QS_E_NO_KEY,
	  "the wrapped key was changed, or is another key's of the server" },
	{ "encryption key not found", QS_E_NO_KEY, "it has no such key" },
	{ "key not found", QS_E_NO_KEY, "it has no such key" },
	{ "no existing key named", QS_E_NO_KEY, "it has no such key" },
	{ "(too old)", QS_E_NO_KEY,
	  "the key's min_decryption_version is above the version that wrapped this; its "
	  "administrator can lower it again, unless older versions were trimmed" },
	{ "version is too new", QS_E_NO_KEY,
	  "the server does not have the version of the key that wrapped this: it was restored from "
	  "an older state, or the key made anew" },
	{ "invalid ciphertext", QS_E_NO_KEY, "the wrapped key is damaged" },
	{ "missing 'context'", QS_E_CONFIG,
	  "the key is a derived one; make one without derived=true" },
	{ "namespace not found", QS_E_CONFIG,
	  "it has no such namespace (vault_namespace in qs-util.conf, or a key's own: "
	  "--kms-namespace)" },
	{ "no handler for route", QS_E_CONFIG,
	  "it has no transit engine there (vault_mount in qs-util.conf)" },
	{ "unsupported path", QS_E_CONFIG,
	  "what is there is no transit engine (vault_mount in qs-util.conf)" },
	{ "wrapping token is not valid", QS_E_NOT_PERMITTED,
	  "the wrapping token has expired, or somebody has used it before: if that was not you, take "
	  "it for stolen, have the secret-id revoked and a new one made" },
};

const struct qs_transit_refusal *qs_transit_refusal(const char *words)
{
	for (size_t i = 0; i < QS_ARRAY_SIZE(refusals); i++)
		if (strstr(words, refusals[i].words))
			return &refusals[i];
	return NULL;
}
