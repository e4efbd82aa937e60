#include "luks/tpm2-token.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "luks/fields.h"

/* Bytes. A sealed object takes 240, an SRK 170, a PEM of RSA 4096 800. */
#define BLOB_MAX 4096
#define SRK_MAX 2048
#define PEM_MAX 8192
#define SALT_MIN 16
#define SALT_MAX 64
#define REF_MAX 256
#define PCRS_MAX 256 /* entries; order and repeats mean nothing */

/* TPMT_PUBLIC of a sealed object (TPM 2.0 library, part 2, 12.2.4). */
#define TYPE_KEYEDHASH 0x0008

struct reader {
	const json_t *json;
	struct qs_tpm2_token *token;
	struct qs_error *err;
};

static int bad(const struct reader *in, const char *field)
{
	return qs_fail(in->err, QS_E_DAMAGED, "the TPM2 token's field %s is missing or malformed",
		       field);
}

void qs_tpm2_token_done(struct qs_tpm2_token *token)
{
	qs_bytes_done(&token->blob);
	qs_bytes_done(&token->salt);
	qs_bytes_done(&token->srk);
	free(token->pubkey);
	free(token->pubkey_ref);
	free(token->enrolled);
	*token = (struct qs_tpm2_token){};
}

bool qs_tpm2_token_is(const json_t *json)
{
	const char *type = qs_fields_text(json, "type");

	return type && strcmp(type, QS_TPM2_TOKEN_TYPE) == 0;
}

static int read_keyslots(const struct reader *in)
{
	const json_t *list = json_object_get(in->json, "keyslots");

	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *text = json_string_value(json_array_get(list, i));
		int slot = text ? qs_fields_slot(text) : -1;

		if (slot < 0)
			return bad(in, "keyslots");
		in->token->keyslots |= UINT32_C(1) << slot;
	}
	return in->token->keyslots ? 0 : bad(in, "keyslots");
}

/* Absent: 0. */
static int read_pcrs(const struct reader *in, const char *field, uint32_t *ret)
{
	const json_t *list = json_object_get(in->json, field);

	if (!list)
		return 0;
	if (!json_is_array(list) || json_array_size(list) > PCRS_MAX)
		return bad(in, field);
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *item = json_array_get(list, i);

		if (!json_is_integer(item) || json_integer_value(item) < 0 ||
		    json_integer_value(item) >= QS_TPM2_PCRS)
			return bad(in, field);
		*ret |= UINT32_C(1) << json_integer_value(item);
	}
	return 0;
}

/* Absent: *ret is left alone. */
static int read_bool(const struct reader *in, const char *field, bool *ret)
{
	const json_t *value = json_object_get(in->json, field);

	if (!value)
		return 0;
	if (!json_is_boolean(value))
		return bad(in, field);
	*ret = json_is_true(value);
	return 0;
}

/* Absent: *ret is left alone. */
static int read_base64(const struct reader *in, const char *field, size_t min, size_t max,
		       struct qs_bytes *ret)
{
	const json_t *value = json_object_get(in->json, field);

	if (!value)
		return 0;
	if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value))
		return bad(in, field);
	if (qs_base64_decode(json_string_value(value), max, ret) < 0 || ret->size < min)
		return bad(in, field);
	return 0;
}

static int read_hash(const struct reader *in)
{
	const char *text = qs_fields_text(in->json, "tpm2-policy-hash");

	if (!text || strlen(text) != (size_t)2 * QS_TPM2_DIGEST_L ||
	    strspn(text, "0123456789abcdefABCDEF") != strlen(text))
		return bad(in, "tpm2-policy-hash");
	for (size_t i = 0; i < QS_TPM2_DIGEST_L; i++) {
		const char byte[3] = { text[2 * i], text[2 * i + 1], '\0' };

		in->token->policy_hash[i] = (uint8_t)strtoul(byte, NULL, 16);
	}
	return 0;
}

static int read_algorithms(const struct reader *in)
{
	const json_t *bank = json_object_get(in->json, "tpm2-pcr-bank");
	const json_t *primary = json_object_get(in->json, "tpm2-primary-alg");
	const char *text = json_string_value(primary);

	if (bank && !json_is_string(bank))
		return bad(in, "tpm2-pcr-bank");
	if (bank) {
		in->token->bank = qs_tpm2_bank_of_name(json_string_value(bank));
		if (in->token->bank == QS_TPM2_NONE)
			return bad(in, "tpm2-pcr-bank");
	}
	in->token->primary_alg = QS_TPM2_ECC;
	if (!primary || (text && strcmp(text, "ecc") == 0))
		return 0;
	if (!text || strcmp(text, "rsa") != 0)
		return bad(in, "tpm2-primary-alg");
	in->token->primary_alg = QS_TPM2_RSA;
	return 0;
}

static int read_signed_policy(const struct reader *in)
{
	struct qs_tpm2_token *t = in->token;
	QS_AUTO(qs_bytes_done) struct qs_bytes pem = {};
	const json_t *ref = json_object_get(in->json, "tpm2_pubkey_ref");
	int r = read_pcrs(in, "tpm2_pubkey_pcrs", &t->pubkey_pcrs);

	if (r == 0)
		r = read_base64(in, "tpm2_pubkey", 1, PEM_MAX, &pem);
	if (r < 0)
		return r;
	if (t->pubkey_pcrs && !pem.data)
		return bad(in, "tpm2_pubkey");
	if (!t->pubkey_pcrs)
		return 0;
	if (memchr(pem.data, '\0', pem.size))
		return bad(in, "tpm2_pubkey");
	t->pubkey = strndup((char *)pem.data, pem.size);
	if (!t->pubkey)
		abort();
	if (!ref)
		return 0;
	if (!json_is_string(ref) || json_string_length(ref) > REF_MAX ||
	    strlen(json_string_value(ref)) != json_string_length(ref))
		return bad(in, "tpm2_pubkey_ref");
	t->pubkey_ref = strdup(json_string_value(ref));
	return 0;
}

static int read_pin(const struct reader *in)
{
	struct qs_tpm2_token *t = in->token;
	int r = read_bool(in, "tpm2-pin", &t->pin);

	if (r == 0)
		r = read_base64(in, "tpm2_salt", SALT_MIN, SALT_MAX, &t->salt);
	if (r < 0 || !json_object_get(in->json, "tpm2_argon2id_memcost"))
		return r;
	if (!qs_fields_number(in->json, "tpm2_argon2id_memcost", &t->argon2_memory) ||
	    t->argon2_memory == 0)
		return bad(in, "tpm2_argon2id_memcost");
	if (!qs_fields_number(in->json, "tpm2_argon2id_iterations", &t->argon2_passes) ||
	    t->argon2_passes == 0)
		return bad(in, "tpm2_argon2id_iterations");
	if (!qs_fields_number(in->json, "tpm2_argon2id_lanes", &t->argon2_lanes) ||
	    t->argon2_lanes == 0)
		return bad(in, "tpm2_argon2id_lanes");
	return t->salt.size > 0 ? 0 : bad(in, "tpm2_salt");
}

static size_t be16(const uint8_t *p)
{
	return (size_t)p[0] << 8 | p[1];
}

/* The end of the TPM2B that begins at AT, or 0 when it does not fit. */
static size_t end_of_2b(const struct qs_bytes *blob, size_t at)
{
	size_t end;

	if (blob->size - at < 2)
		return 0;
	end = at + 2 + be16(blob->data + at);
	return end <= blob->size ? end : 0;
}

/* Nothing that is no sealed object of this very policy goes to the TPM. */
static bool is_sealed_object(const struct qs_tpm2_token *t)
{
	const uint8_t *public = t->blob.data + t->public_at + 2;
	size_t size = t->seed_at - t->public_at - 2;

	return size >= 10 + QS_TPM2_DIGEST_L && be16(public) == TYPE_KEYEDHASH &&
	       be16(public + 2) == QS_TPM2_SHA256 && be16(public + 8) == QS_TPM2_DIGEST_L &&
	       memcmp(public + 10, t->policy_hash, QS_TPM2_DIGEST_L) == 0;
}

static int read_blob(const struct reader *in)
{
	struct qs_tpm2_token *t = in->token;
	int r = read_base64(in, "tpm2-blob", 4, BLOB_MAX, &t->blob);

	if (r < 0)
		return r;
	if (!t->blob.data)
		return bad(in, "tpm2-blob");
	t->public_at = end_of_2b(&t->blob, 0);
	if (t->public_at > 0)
		t->seed_at = end_of_2b(&t->blob, t->public_at);
	if (t->seed_at == 0 || !is_sealed_object(t))
		return bad(in, "tpm2-blob");
	if (t->seed_at < t->blob.size && end_of_2b(&t->blob, t->seed_at) != t->blob.size)
		return bad(in, "tpm2-blob");
	return 0;
}

/* What cannot be read is left out: it is only a help for people. */
static void read_our_own(const struct reader *in)
{
	const json_t *hints = json_object_get(in->json, "qs-pcrs");
	const char *enrolled = qs_fields_text(in->json, "qs-time");
	struct qs_tpm2_token *t = in->token;

	if (enrolled && strlen(enrolled) == strlen("2026-01-01T00:00:00Z") &&
	    strspn(enrolled, "0123456789-:TZ") == strlen(enrolled))
		t->enrolled = strdup(enrolled);
	for (unsigned i = 0; i < QS_TPM2_PCRS; i++) {
		char name[8];
		const char *text;

		(void)snprintf(name, sizeof(name), "%u", i);
		text = qs_fields_text(hints, name);
		if (text && strlen(text) == QS_TPM2_PCR_HINT_L &&
		    strspn(text, "0123456789abcdef") == QS_TPM2_PCR_HINT_L)
			memcpy(t->pcr_hints[i], text, QS_TPM2_PCR_HINT_L + 1);
	}
}

static int read_policy(const struct reader *in)
{
	struct qs_tpm2_token *t = in->token;
	int r = read_bool(in, "tpm2_pcrlock", &t->pcrlock);

	if (r == 0 && !json_object_get(in->json, "tpm2-pcrs"))
		r = bad(in, "tpm2-pcrs");
	if (r == 0)
		r = read_pcrs(in, "tpm2-pcrs", &t->pcrs);
	if (r == 0)
		r = read_algorithms(in);
	if (r == 0)
		r = read_signed_policy(in);
	return r;
}

static int read_token(const struct reader *in)
{
	struct qs_tpm2_token *t = in->token;
	int r = read_keyslots(in);

	if (r == 0)
		r = read_policy(in);
	if (r == 0)
		r = read_pin(in);
	if (r == 0)
		r = read_base64(in, "tpm2_srk", 12, SRK_MAX, &t->srk);
	if (r < 0)
		return r;
	read_our_own(in);
	/* Two blobs are one secret in two halves: for a signed policy and for pcrlock. */
	t->sharded = json_is_array(json_object_get(in->json, "tpm2-blob")) ||
		     json_is_array(json_object_get(in->json, "tpm2-policy-hash"));
	if (t->sharded)
		return 0;
	r = read_hash(in);
	return r == 0 ? read_blob(in) : r;
}

int qs_tpm2_token_parse(const json_t *json, struct qs_tpm2_token *ret, struct qs_error *err)
{
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
	const struct reader in = { json, &token, err };
	int r;

	if (!qs_tpm2_token_is(json))
		return qs_fail(err, QS_E_DAMAGED, "this is no token of type " QS_TPM2_TOKEN_TYPE);
	r = read_token(&in);
	if (r < 0)
		return r;
	*ret = token;
	token = (struct qs_tpm2_token){};
	return 0;
}

int qs_tpm2_token_check_supported(const struct qs_tpm2_token *token, struct qs_error *err)
{
	if (!token->pcrlock && !token->sharded)
		return 0;
	return qs_fail(err, QS_E_TPM,
		       "the TPM2 token is managed by systemd-pcrlock, which qs-util leaves to "
		       "systemd; use systemctl start systemd-cryptsetup@NAME, or enrol anew with "
		       "qs-util cryptenroll --tpm2");
}
