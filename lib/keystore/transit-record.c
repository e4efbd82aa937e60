/*
 * The provider vault: which version of which key of the server is a generation.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/sum.h"
#include "key/keyfile.h"
#include "keystore/transit-internal.h"
#include "luks/fields.h"

#define VERSION 1

char *qs_transit_record_path(uint32_t number)
{
	return qs_printf("%s/%u.vault", QS_KEYSTORE_DIR, (unsigned)number);
}

void qs_transit_own_key(const char *store, char ret[QS_TRANSIT_NAME_L])
{
	(void)snprintf(ret, QS_TRANSIT_NAME_L, "qs-util-%s", store);
}

/* Absent: "". */
static bool parse_text(const json_t *json, const char *field, char ret[QS_TRANSIT_NAME_L])
{
	const char *text = qs_fields_text(json, field);

	if (!json_object_get(json, field))
		return true;
	if (!text || !qs_transit_is_text(text) || strlen(text) >= QS_TRANSIT_NAME_L)
		return false;
	memcpy(ret, text, strlen(text) + 1);
	return true;
}

static bool parse_dedicated(const json_t *json, struct qs_transit_record *ret)
{
	ret->dedicated = json_is_true(json_object_get(json, "dedicated"));
	return parse_text(json, "namespace", ret->name_space) &&
	       parse_text(json, "role_id", ret->role) &&
	       parse_text(json, "secret_id_file", ret->secret_id_file) &&
	       !*ret->role == !*ret->secret_id_file &&
	       (ret->dedicated || !(*ret->name_space || *ret->role)) &&
	       qs_sum_others(json) ==
		       4U + ret->dedicated + (*ret->name_space != '\0') + 2U * (*ret->role != '\0');
}

static int parse(const struct qs_secret *text, const char *path, struct qs_transit_record *ret,
		 struct qs_error *err)
{
	QS_AUTO(qs_auto_json)
	json_t *json = json_loadb(text->data, text->size, JSON_REJECT_DUPLICATES, NULL);
	const char *key = qs_fields_text(json, "key");
	uint64_t version, number;
	int r = qs_sum_check(json, path, err);

	if (r < 0)
		return r;
	if (!qs_fields_number(json, "version", &version) || version != VERSION || !key ||
	    !qs_transit_is_text(key) || strlen(key) >= sizeof(ret->key) ||
	    !qs_fields_number(json, "key_version", &number) || number < 1 || number > INT32_MAX ||
	    !parse_dedicated(json, ret))
		return qs_fail(err, QS_E_CONFIG,
			       "%s is not usable: it is malformed, or was written by a newer "
			       "qs-util; take it from a key bundle (keyrestore)",
			       path);
	memcpy(ret->key, key, strlen(key) + 1);
	ret->version = (uint32_t)number;
	ret->adopted = json_is_true(json_object_get(json, "adopted"));
	return 0;
}

int qs_transit_record_load(const struct qs_env *env, uint32_t number, struct qs_transit_record *ret,
			   struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_transit_record_path(number);
	QS_AUTO(qs_secret_done) struct qs_secret text = {};
	int r;

	*ret = (struct qs_transit_record){};
	r = qs_key_load_record_if_there(env, path, &text, err);
	if (r <= 0)
		return r;
	r = parse(&text, path, ret, err);
	return r < 0 ? r : 1;
}

static void add_text(json_t *json, const char *field, const char *text)
{
	if (*text)
		(void)json_object_set_new(json, field, json_string(text));
}

int qs_transit_record_save(const struct qs_env *env, uint32_t number,
			   const struct qs_transit_record *record, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_transit_record_path(number);
	QS_AUTO(qs_auto_json)
	json_t *json =
		json_pack("{s:i,s:s,s:I,s:b}", "version", VERSION, "key", record->key,
			  "key_version", (json_int_t)record->version, "adopted", record->adopted);
	QS_AUTO(qs_auto_free) char *text = NULL;

	if (record->dedicated)
		(void)json_object_set_new(json, "dedicated", json_true());
	add_text(json, "namespace", record->name_space);
	add_text(json, "role_id", record->role);
	add_text(json, "secret_id_file", record->secret_id_file);
	text = qs_sum_print(json);
	if (!text)
		return qs_fail(err, QS_E_MEMORY, "no memory for %s", path);
	return qs_key_store(env, path, &(struct qs_secret){ text, strlen(text) }, false, err);
}
