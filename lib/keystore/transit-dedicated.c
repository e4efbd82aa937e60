/*
 * The provider vault: keys for some devices only, with a namespace and credentials of their own if
 * they have any. Who made such a key ends it: here it is only used, and rotated when that is asked
 * for.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "key/keyfile.h"
#include "keystore/transit-internal.h"

static int take_text(const char *what, const char *text, char ret[QS_TRANSIT_NAME_L],
		     struct qs_error *err)
{
	ret[0] = '\0';
	if (!text)
		return 0;
	if (!qs_transit_is_text(text) || strlen(text) >= QS_TRANSIT_NAME_L)
		return qs_fail(err, QS_E_USAGE, "'%.100s' is no %s", text, what);
	memcpy(ret, text, strlen(text) + 1);
	return 0;
}

/* KEY as a record would have it, without a version. */
static int take_key(const struct qs_keystore_key *key, struct qs_transit_record *ret,
		    struct qs_error *err)
{
	int r;

	*ret = (struct qs_transit_record){ .adopted = true, .dedicated = true };
	r = qs_transit_take_name(key->name, ret->key, err);
	if (r == 0)
		r = take_text("namespace", key->name_space, ret->name_space, err);
	if (r == 0)
		r = take_text("role-id", key->role, ret->role, err);
	if (r == 0)
		r = take_text("path of a file", key->secret_id_file, ret->secret_id_file, err);
	return r;
}

static bool is_same(const struct qs_transit_record *a, const struct qs_transit_record *b)
{
	return a->dedicated && b->dedicated && strcmp(a->key, b->key) == 0 &&
	       strcmp(a->name_space, b->name_space) == 0 && qs_transit_same_login(a, b);
}

int qs_transit_is_key(const struct qs_env *env, uint32_t number, const struct qs_keystore_key *key,
		      bool loose, struct qs_error *err)
{
	struct qs_transit_record wanted, record = {};
	int r = take_key(key, &wanted, err);

	if (r == 0)
		r = qs_transit_record_load(env, number, &record, err);
	if (r <= 0)
		return r;
	if (loose && !key->role) {
		memcpy(wanted.role, record.role, sizeof(wanted.role));
		memcpy(wanted.secret_id_file, record.secret_id_file, sizeof(wanted.secret_id_file));
	}
	return is_same(&record, &wanted);
}

json_t *qs_transit_key_of(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number)
{
	struct qs_transit_record record;
	struct qs_error err = {};
	QS_AUTO(qs_auto_free) char *path = qs_transit_record_path(number);
	const struct qs_keystore_generation *g = qs_keystore_generation(ks, number);
	const char *space = env->config.vault_namespace;
	int r = qs_transit_record_load(env, number, &record, &err);

	/* What was begun may not have come to its record. */
	if (r == 0 && g && g->begun)
		return NULL;
	if (r == 0)
		r = qs_keystore_no_record(path, number, &err);
	if (r < 0)
		return json_pack("{s:s}", "problem", err.text);
	if (*record.name_space)
		space = record.name_space;
	return json_pack("{s:s,s:I,s:s*,s:s*,s:s*}", "name", record.key, "version",
			 (json_int_t)record.version, "namespace", *space ? space : NULL, "role_id",
			 *record.role ? record.role : NULL, "secret_id_file",
			 *record.secret_id_file ? record.secret_id_file : NULL);
}

int qs_transit_refuse_record(uint32_t number, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_transit_record_path(number);

	return qs_fail(err, QS_E_REFUSED,
		       "%s is there already, of another key: take keystore.json from the same key "
		       "bundle (keyrestore), or move it away if nothing needs it",
		       path);
}

/* Ours is not for that: its versions end when the keystore's generations do. */
static int refuse_own(const struct qs_keystore *ks, const struct qs_transit_record *record,
		      struct qs_error *err)
{
	char own[QS_TRANSIT_NAME_L];

	qs_transit_own_key(ks->store, own);
	if (strcmp(own, record->key) != 0)
		return 0;
	return qs_fail(
		err, QS_E_USAGE,
		"%s is the keystore's own key: `qs-util keystore rewrap --cluster-key` brings "
		"devices to it",
		own);
}

static int explain(const struct qs_transit_record *record, const struct qs_error *why,
		   struct qs_error *err)
{
	struct qs_error own = *why;

	if (own.kind == QS_E_NO_KEY)
		qs_error_append(&own,
				"; its administrator can make it: vault write -f transit/keys/%s",
				record->key);
	if (err)
		*err = own;
	return qs_negative(qs_kind_errno(own.kind));
}

/* The first of a line is the latest version that there is. */
static int find_first(const struct qs_env *env, const struct qs_keystore *ks,
		      struct qs_transit_record *record, struct qs_error *err)
{
	struct qs_transit_key key = {};
	struct qs_error own = {};
	int r = env->keystore && env->keystore->key ? take_key(env->keystore->key, record, err)
						    : qs_fail(err, QS_E_USAGE, "no key is named");

	if (r == 0)
		r = refuse_own(ks, record, err);
	if (r < 0)
		return r;
	if (qs_transit_do_key(env, record, QS_HCVAULT_READ, 0, &key, &own) < 0)
		return explain(record, &own, err);
	record->version = key.latest;
	return 0;
}

/* A later version than that of BEFORE, which may be there already. */
static int find_next(const struct qs_env *env, uint32_t before, struct qs_transit_record *record,
		     struct qs_error *err)
{
	struct qs_transit_key key = {};
	struct qs_error own = {};
	int r = qs_transit_record_load(env, before, record, err);

	if (r <= 0)
		return r < 0 ? r
			     : qs_fail(err, QS_E_KEY_FILE, "the record of generation %u is missing",
				       (unsigned)before);
	if (qs_transit_do_key(env, record, QS_HCVAULT_ROTATE, record->version, &key, &own) < 0)
		return explain(record, &own, err);
	record->version = key.latest;
	return 0;
}

int qs_transit_create_dedicated(const struct qs_env *env, const struct qs_keystore *ks,
				uint32_t number, struct qs_error *err)
{
	const struct qs_keystore_generation *g = qs_keystore_generation(ks, number);
	const struct qs_keystore_generation *before = qs_keystore_head(ks, g->line);
	struct qs_transit_record record;
	int r = qs_transit_record_load(env, number, &record, err);

	if (r == 1)
		return qs_transit_refuse_record(number, err);
	if (r == 0)
		r = before ? find_next(env, before->number, &record, err)
			   : find_first(env, ks, &record, err);
	return r < 0 ? r : qs_transit_record_save(env, number, &record, err);
}
