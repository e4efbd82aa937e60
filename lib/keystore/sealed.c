#include "keystore/sealed.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/sum.h"
#include "key/keyfile.h"
#include "luks/fields.h"

#define VERSION 1
#define FILE_MAX (64U << 10)
#define SRK 0x81000001U /* as tpm2/tpm2.h, and the handle that a serialised one begins with */

/* TPMA_OBJECT (TPM 2.0 library, part 2, 8.3) of what is sealed here: nothing else is set. */
#define FIXED_TPM 0x02U
#define FIXED_PARENT 0x10U
#define NO_DA 0x400U

char *qs_sealed_kek_path(uint32_t number)
{
	return qs_printf("%s/%u.sealed", QS_KEYSTORE_DIR, (unsigned)number);
}

static int bad(uint32_t number, const char *what, struct qs_error *err)
{
	return qs_fail(err, QS_E_CONFIG,
		       "%s/%u.sealed is not usable: %s; take it from a key bundle (keyrestore)",
		       QS_KEYSTORE_DIR, (unsigned)number, what);
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Made by this TPM under its storage root key, and opened by its policy alone. */
static bool is_ours(const struct qs_tpm2_token *t)
{
	uint32_t attributes = FIXED_TPM | FIXED_PARENT | (t->pin ? 0 : NO_DA);

	return t->keyslots == 1 && !t->pubkey_pcrs && !t->pcrlock && !t->sharded &&
	       t->salt.size == 0 && t->srk.size > 0 && be32(t->srk.data) == SRK &&
	       t->seed_at == t->blob.size &&
	       be32(t->blob.data + t->public_at + 2 + 4) == attributes;
}

static int parse_token(const json_t *json, uint32_t number, struct qs_tpm2_token *ret,
		       struct qs_error *err)
{
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
	QS_AUTO(qs_auto_json) json_t *again = NULL;
	struct qs_error why = {};
	int r = qs_tpm2_token_parse(json, &token, &why);

	if (r < 0)
		return bad(number, why.text, err);
	if (!is_ours(&token))
		return bad(number, "what is sealed in it is not what we seal", err);
	again = qs_tpm2_token_write(&token);
	if (!json_equal(json, again))
		return bad(number, "it has other fields than we write", err);
	*ret = token;
	token = (struct qs_tpm2_token){};
	return 0;
}

int qs_sealed_kek_parse(const char *text, size_t size, const char *store, uint32_t number,
			struct qs_tpm2_token *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_json)
	json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
	const char *its_store = qs_fields_text(json, "store");
	QS_AUTO(qs_auto_free) char *path = qs_sealed_kek_path(number);
	uint64_t version, its_number;
	int r = qs_sum_check(json, path, err);

	if (r < 0)
		return r;
	if (!json_is_object(json) || qs_sum_others(json) != 4)
		return bad(number, "its text is malformed", err);
	if (!qs_fields_number(json, "version", &version) || version != VERSION)
		return bad(number, "its version is none of ours", err);
	if (!its_store || strcmp(its_store, store) != 0)
		return bad(number, "it belongs to another keystore", err);
	if (!qs_fields_number(json, "generation", &its_number) || its_number != number)
		return bad(number, "it belongs to another generation", err);
	return parse_token(json_object_get(json, "sealed"), number, ret, err);
}

char *qs_sealed_kek_print(const char *store, uint32_t number, const struct qs_tpm2_token *token)
{
	QS_AUTO(qs_auto_json)
	json_t *json = json_pack("{s:i,s:s,s:i,s:o}", "version", VERSION, "store", store,
				 "generation", (int)number, "sealed", qs_tpm2_token_write(token));
	char *text = qs_sum_print(json);

	if (!text)
		abort();
	return text;
}

int qs_sealed_kek_load(const struct qs_env *env, const char *store, uint32_t number,
		       struct qs_tpm2_token *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_sealed_kek_path(number);
	QS_AUTO(qs_secret_done) struct qs_secret text = {};
	int r = qs_key_load_record(env, path, &text, err);

	if (r < 0)
		return r;
	if (text.size > FILE_MAX)
		return bad(number, "it is too large", err);
	return qs_sealed_kek_parse(text.data, text.size, store, number, ret, err);
}

int qs_sealed_kek_store(const struct qs_env *env, const char *store, uint32_t number,
			const struct qs_tpm2_token *token, struct qs_error *err)
{
	const struct qs_replace how = { .mode = 0600, .exclusive = true };
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token again = {};
	QS_AUTO(qs_auto_free) char *path = qs_sealed_kek_path(number);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
	QS_AUTO(qs_auto_free) char *text = qs_sealed_kek_print(store, number, token);
	/* What will be refused later is not written. */
	int r = qs_sealed_kek_parse(text, strlen(text), store, number, &again, err);

	if (r == 0)
		r = qs_file_replace(real, text, strlen(text), &how, err);
	if (r == 0)
		r = qs_file_equals(real, text, strlen(text), err);
	if (r == 0)
		r = qs_fail(err, QS_E_IO, "%s reads back differently from what was written", real);
	return r < 0 ? r : 0;
}
