#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "luks/tpm2-token.h"

static const struct {
	enum qs_tpm2_alg bank;
	const char *name;
} banks[] = {
	{ QS_TPM2_SHA1, "sha1" },
	{ QS_TPM2_SHA256, "sha256" },
	{ QS_TPM2_SHA384, "sha384" },
	{ QS_TPM2_SHA512, "sha512" },
};

const char *qs_tpm2_bank_name(enum qs_tpm2_alg bank)
{
	for (size_t i = 0; i < QS_ARRAY_SIZE(banks); i++)
		if (banks[i].bank == bank)
			return banks[i].name;
	return NULL;
}

enum qs_tpm2_alg qs_tpm2_bank_of_name(const char *name)
{
	for (size_t i = 0; i < QS_ARRAY_SIZE(banks); i++)
		if (strcasecmp(banks[i].name, name) == 0)
			return banks[i].bank;
	return QS_TPM2_NONE;
}

const char *qs_tpm2_pcrs_text(uint32_t pcrs, char ret[QS_TPM2_PCRS_TEXT_L])
{
	size_t used = 0;

	ret[0] = '\0';
	for (unsigned i = 0; i < QS_TPM2_PCRS; i++)
		if (pcrs & UINT32_C(1) << i)
			used += (size_t)snprintf(ret + used, QS_TPM2_PCRS_TEXT_L - used, "%s%u",
						 used ? "+" : "", i);
	return ret;
}

int qs_tpm2_pcrs_parse(const char *text, uint32_t *ret)
{
	uint32_t pcrs = 0;

	while (*text) {
		size_t digits = strspn(text, "0123456789");
		unsigned long n = strtoul(text, NULL, 10);

		if (digits < 1 || digits > 2 || n >= QS_TPM2_PCRS)
			return -EINVAL;
		pcrs |= UINT32_C(1) << n;
		text += digits;
		if (!*text)
			break;
		if ((*text != '+' && *text != ',') || !text[1])
			return -EINVAL;
		text++;
	}
	*ret = pcrs;
	return 0;
}

static json_t *pcr_array(uint32_t pcrs)
{
	json_t *list = json_array();

	for (int i = 0; i < QS_TPM2_PCRS; i++)
		if (pcrs & UINT32_C(1) << i)
			(void)json_array_append_new(list, json_integer(i));
	return list;
}

static json_t *slot_array(uint32_t slots)
{
	json_t *list = json_array();
	char text[8];

	for (unsigned i = 0; i < 32; i++) {
		(void)snprintf(text, sizeof(text), "%u", i);
		if (slots & UINT32_C(1) << i)
			(void)json_array_append_new(list, json_string(text));
	}
	return list;
}

static json_t *base64_text(const void *data, size_t size)
{
	QS_AUTO(qs_auto_free) char *text = qs_base64_encode(data, size);

	return json_string(text);
}

static json_t *hash_text(const uint8_t hash[QS_TPM2_DIGEST_L])
{
	char text[2 * QS_TPM2_DIGEST_L + 1];

	for (size_t i = 0; i < QS_TPM2_DIGEST_L; i++)
		(void)snprintf(text + 2 * i, 3, "%02x", hash[i]);
	return json_string(text);
}

static void write_our_own(const struct qs_tpm2_token *t, json_t *json)
{
	json_t *hints = json_object();
	char name[8];

	for (unsigned i = 0; i < QS_TPM2_PCRS; i++) {
		(void)snprintf(name, sizeof(name), "%u", i);
		if (t->pcr_hints[i][0])
			(void)json_object_set_new(hints, name, json_string(t->pcr_hints[i]));
	}
	if (json_object_size(hints) > 0)
		(void)json_object_set(json, "qs-pcrs", hints);
	json_decref(hints);
	if (t->enrolled)
		(void)json_object_set_new(json, "qs-time", json_string(t->enrolled));
}

json_t *qs_tpm2_token_write(const struct qs_tpm2_token *t)
{
	const char *primary = t->primary_alg == QS_TPM2_RSA ? "rsa" : "ecc";
	json_t *json = json_object();

	(void)json_object_set_new(json, "type", json_string(QS_TPM2_TOKEN_TYPE));
	(void)json_object_set_new(json, "keyslots", slot_array(t->keyslots));
	(void)json_object_set_new(json, "tpm2-blob", base64_text(t->blob.data, t->blob.size));
	(void)json_object_set_new(json, "tpm2-pcrs", pcr_array(t->pcrs));
	if (t->pcrs || t->pubkey_pcrs)
		(void)json_object_set_new(json, "tpm2-pcr-bank",
					  json_string(qs_tpm2_bank_name(t->bank)));
	(void)json_object_set_new(json, "tpm2-primary-alg", json_string(primary));
	(void)json_object_set_new(json, "tpm2-policy-hash", hash_text(t->policy_hash));
	(void)json_object_set_new(json, "tpm2-pin", json_boolean(t->pin));
	if (t->pubkey_pcrs) {
		(void)json_object_set_new(json, "tpm2_pubkey_pcrs", pcr_array(t->pubkey_pcrs));
		(void)json_object_set_new(json, "tpm2_pubkey",
					  base64_text(t->pubkey, strlen(t->pubkey)));
	}
	if (t->srk.size > 0)
		(void)json_object_set_new(json, "tpm2_srk", base64_text(t->srk.data, t->srk.size));
	write_our_own(t, json);
	return json;
}
