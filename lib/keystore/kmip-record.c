/*
 * The provider kmip: which key of the server is a generation.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/sum.h"
#include "base/utf8.h"
#include "key/keyfile.h"
#include "keystore/kmip-internal.h"
#include "luks/fields.h"

#define VERSION 1

char *qs_kmip_record_path(uint32_t number)
{
	return qs_printf("%s/%u.kmip", QS_KEYSTORE_DIR, (unsigned)number);
}

static int parse(const struct qs_secret *text, const char *path, struct qs_kmip_record *ret,
		 struct qs_error *err)
{
	QS_AUTO(qs_auto_json)
	json_t *json = json_loadb(text->data, text->size, JSON_REJECT_DUPLICATES, NULL);
	const char *name = qs_fields_text(json, "name");
	const char *uid = qs_fields_text(json, "uid");
	const json_t *adopted = json_object_get(json, "adopted");
	const json_t *cipher = json_object_get(json, "cipher");
	uint64_t version;
	int r = qs_sum_check(json, path, err);

	if (r < 0)
		return r;
	if (qs_sum_others(json) != 3U + (adopted != NULL) + (cipher != NULL) ||
	    !qs_fields_number(json, "version", &version) || version != VERSION || !name || !uid ||
	    !*uid || strlen(uid) >= sizeof(ret->uid) ||
	    (cipher && !qs_kmip_cipher_parse(json_string_value(cipher))))
		return qs_fail(err, QS_E_CONFIG,
			       "%s is not usable: it is malformed, or was written by a newer "
			       "qs-util; take it from a key bundle (keyrestore)",
			       path);
	if (strcmp(name, ret->name) != 0)
		return qs_fail(err, QS_E_CONFIG, "%s is for another key (%s) than %s", path, name,
			       ret->name);
	memcpy(ret->uid, uid, strlen(uid) + 1);
	ret->adopted = json_is_true(adopted);
	ret->cipher = qs_kmip_cipher_parse(json_string_value(cipher));
	return 0;
}

int qs_kmip_record_load(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
			struct qs_kmip_record *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_kmip_record_path(number);
	QS_AUTO(qs_secret_done) struct qs_secret text = {};
	int r;

	*ret = (struct qs_kmip_record){};
	(void)snprintf(ret->name, sizeof(ret->name), "qs-util/%s/%u", ks->store, (unsigned)number);
	r = qs_key_load_record_if_there(env, path, &text, err);
	if (r <= 0)
		return r;
	r = parse(&text, path, ret, err);
	return r < 0 ? r : 1;
}

json_t *qs_kmip_key_of(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number)
{
	struct qs_kmip_record record;
	struct qs_error err = {};
	int r = qs_kmip_record_load(env, ks, number, &record, &err);

	if (r == 0)
		r = qs_kmip_no_record(number, &err);
	if (r < 0)
		return json_pack("{s:o}", "problem", qs_utf8_json(err.text));
	return json_pack("{s:o,s:s*,s:b}", "name", qs_utf8_json(record.uid), "cipher",
			 qs_kmip_cipher_name(record.cipher), "adopted", record.adopted);
}

int qs_kmip_no_record(uint32_t number, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_kmip_record_path(number);

	return qs_keystore_no_record(path, number, err);
}

int qs_kmip_record_save(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
			const struct qs_kmip_record *record, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_kmip_record_path(number);
	QS_AUTO(qs_auto_json)
	json_t *json =
		json_pack("{s:i,s:s,s:s,s:o*,s:s*}", "version", VERSION, "name", record->name,
			  "uid", record->uid, "adopted", record->adopted ? json_true() : NULL,
			  "cipher", qs_kmip_cipher_name(record->cipher));
	QS_AUTO(qs_auto_free) char *text = qs_sum_print(json);
	struct qs_kmip_record old;
	int r = qs_kmip_record_load(env, ks, number, &old, err);

	if (r < 0)
		return r;
	if (!text)
		return qs_fail(err, QS_E_FAILED,
			       "the key server's identifier for a key is no text");
	return qs_key_store(env, path, &(struct qs_secret){ text, strlen(text) }, r == 1, err);
}
