/*
 * The provider "vault": the KEK is a key of the transit engine of a HashiCorp Vault or OpenBao
 * server, which it never leaves: content keys are wrapped and unwrapped there. A generation is a
 * version of that key; what lies here is a record of which (N.vault).
 *
 *   create                            left behind                 second run
 *   look at the key                   nothing                     all
 *   make it, or a new version of it   a version that is nobody's  takes the latest that is nobody's
 *   N.vault, durable                  finished                    finds it, and the version there
 *
 *   retire                            left behind                 second run
 *   our key: end the versions that    N.vault                     as before
 *   no other generation needs, or
 *   delete it with the last
 *   erase N.vault                     finished
 *
 * Somebody else's key is not deleted, and none of its versions ended: others may use it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/utf8.h"
#include "keystore/server.h"
#include "keystore/transit-internal.h"

static bool is_dedicated(const struct qs_keystore *ks, uint32_t number)
{
	const struct qs_keystore_generation *g = qs_keystore_generation(ks, number);

	return g && g->line;
}

/* ---- health and description ---- */

static int64_t boottime(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec;
}

/* COOKIE: where the secret-id is, to look at what ends, too; or NULL. */
static int look(const struct qs_hcvault_functions *module, const struct qs_hcvault_access *access,
		void *cookie, json_t **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free)
	char *what = qs_printf("the secret-id in %s", cookie ? (char *)cookie : "");
	struct qs_hcvault_description d;
	int r = module->describe(access, cookie != NULL, &d, err);

	*ret = json_object();
	if (*d.server)
		(void)json_object_set_new(*ret, "address", qs_utf8_json(d.server));
	if (*d.health.version) {
		(void)json_object_set_new(*ret, "version", qs_utf8_json(d.health.version));
		(void)json_object_set_new(*ret, "sealed", json_boolean(d.health.sealed));
	}
	qs_server_add_end(*ret, "ca_expires", "the authority's certificate (vault_ca)",
			  d.ca_expires);
	qs_server_add_end(*ret, "server_expires", "the Vault server's certificate",
			  d.server_expires);
	qs_server_add_end(*ret, "secret_id_expires", what, d.secret_id.ends);
	if (d.secret_id.uses)
		(void)json_object_set_new(*ret, "secret_id_uses",
					  json_integer((json_int_t)d.secret_id.uses));
	if (r == 0) {
		(void)json_object_set_new(*ret, "answered_ms", json_integer(d.answered_ms));
		if (d.token_ends)
			(void)json_object_set_new(*ret, "token_seconds",
						  json_integer(d.token_ends - boottime()));
	}
	return r;
}

static json_t *describe(const struct qs_env *env, uint32_t number)
{
	struct qs_transit_record record;
	struct qs_error err = {};
	json_t *json = NULL;
	int r = qs_transit_record_load(env, number, &record, &err);

	if (r >= 0)
		r = qs_transit_call(env, &record, look,
				    *record.role ? record.secret_id_file
						 : env->config.vault_secret_id_file,
				    &json, &err);

	return qs_server_describe(json, r, &err);
}

/* For the workers to come. Keys for some devices only are not waited for before they are used. */
static int log_in(const struct qs_env *env, const struct qs_keystore *ks, const uint32_t *numbers,
		  size_t count, struct qs_error *err)
{
	bool own = false;

	for (size_t i = 0; i < count; i++)
		own |= !is_dedicated(ks, numbers[i]);
	return own ? qs_transit_call(env, NULL, look, NULL, NULL, err) : 0;
}

/* ---- keys of the server ---- */

struct key_work {
	const char *name;
	enum qs_hcvault_action action;
	uint32_t number;
	struct qs_transit_key key;
};

static int key_job(const struct qs_hcvault_functions *module,
		   const struct qs_hcvault_access *access, void *cookie, json_t **ret,
		   struct qs_error *err)
{
	struct key_work *w = cookie;
	int r = module->key(access, w->name, w->action, w->number, &w->key, err);

	if (r >= 0)
		*ret = json_pack("{s:I,s:I}", "latest", (json_int_t)w->key.latest, "least",
				 (json_int_t)w->key.least);
	return r < 0 ? r : 0;
}

int qs_transit_do_key(const struct qs_env *env, const struct qs_transit_record *record,
		      enum qs_hcvault_action action, uint32_t number, struct qs_transit_key *ret,
		      struct qs_error *err)
{
	struct key_work w = { .name = record->key, .action = action, .number = number };
	QS_AUTO(qs_auto_json) json_t *json = NULL;
	int r = qs_transit_call(env, record, key_job, &w, &json, err);

	ret->latest = (uint32_t)json_integer_value(json_object_get(json, "latest"));
	ret->least = (uint32_t)json_integer_value(json_object_get(json, "least"));
	return r;
}

/* May we look at keys? Before anything is made there, as cleaning up would fail like it. */
static int health(const struct qs_env *env, struct qs_error *err)
{
	struct qs_transit_record record = {};
	struct qs_transit_key key;
	struct qs_error own = {};
	int r = qs_kek_health(err);

	(void)snprintf(record.key, sizeof(record.key), "%s",
		       *env->config.vault_key ? env->config.vault_key : "qs-util-");
	if (r == 0)
		r = qs_transit_call(env, NULL, look, NULL, NULL, err);
	if (r < 0)
		return r;
	r = qs_transit_do_key(env, &record, QS_HCVAULT_READ, 0, &key, &own);
	if (r < 0 && own.kind == QS_E_NO_KEY)
		return 0;
	if (r < 0)
		*err = own;
	return r;
}

/* Those of other generations than NUMBER that are versions of the key NAME. */
struct others {
	size_t count;
	uint32_t least, latest; /* versions */
	bool unknown;           /* the record of one is missing */
};

static int add_other(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		     const char *name, struct others *ret, struct qs_error *err)
{
	struct qs_transit_record record;
	int r = qs_transit_record_load(env, number, &record, err);

	if (r < 0)
		return r;
	ret->unknown |= r == 0 && ks->state == QS_KEYSTORE_ENABLED;
	if (r == 0 || strcmp(record.key, name) != 0)
		return 0;
	if (ret->count == 0 || record.version < ret->least)
		ret->least = record.version;
	if (record.version > ret->latest)
		ret->latest = record.version;
	ret->count++;
	return 0;
}

static int find_others(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		       const char *name, struct others *ret, struct qs_error *err)
{
	int r = 0;

	*ret = (struct others){};
	for (size_t i = 0; r == 0 && i < ks->count; i++) {
		uint32_t other = ks->generations[i].number;

		/* Keys for some devices only are others': no version of them is ended. */
		if (other != number && !ks->generations[i].line &&
		    qs_keystore_provider(ks, other) == &qs_provider_vault)
			r = add_other(env, ks, other, name, ret, err);
	}
	return r;
}

/* ---- create ---- */

int qs_transit_take_name(const char *name, char ret[QS_TRANSIT_NAME_L], struct qs_error *err)
{
	if (!qs_transit_is_text(name) || strpbrk(name, "/?#%") || strlen(name) >= QS_TRANSIT_NAME_L)
		return qs_fail(err, QS_E_USAGE,
			       "'%.100s' is no name of a key of the transit engine", name);
	memcpy(ret, name, strlen(name) + 1);
	return 0;
}

/* The key that the next generation is a version of, in this order. */
static int choose_key(const struct qs_env *env, const struct qs_keystore *ks,
		      struct qs_transit_record *ret, struct qs_error *err)
{
	char own[QS_TRANSIT_NAME_L];
	const struct qs_keystore_generation *before = qs_keystore_last_own(ks);
	struct qs_transit_record last = {};
	const char *name = env->keystore ? env->keystore->key_id : NULL;
	int r = 0;

	qs_transit_own_key(ks->store, own);
	if (!name && *env->config.vault_key)
		name = env->config.vault_key;
	if (!name && before && qs_keystore_provider(ks, before->number) == &qs_provider_vault) {
		r = qs_transit_record_load(env, before->number, &last, err);
		name = r == 1 ? last.key : NULL;
	}
	name = name ? name : own;
	if (r < 0)
		return r;
	r = qs_transit_take_name(name, ret->key, err);
	if (r < 0)
		return r;
	ret->adopted = strcmp(name, own) != 0;
	return 0;
}

static int no_such_key(const struct qs_transit_record *record, struct qs_error *err)
{
	qs_error_append(err,
			"; its administrator can make it: vault write -f transit/keys/%s, or "
			"without vault_key (and --key-id) this machine makes its own",
			record->key);
	return -ENOKEY;
}

/* The version that is to be the generation: the latest, unless that is another's already. */
static int find_version(const struct qs_env *env, const struct others *others,
			struct qs_transit_record *record, struct qs_error *err)
{
	struct qs_transit_key key = {};
	struct qs_error own = {};
	int r = qs_transit_do_key(env, record, QS_HCVAULT_READ, 0, &key, &own);

	if (r < 0 && own.kind == QS_E_NO_KEY && !record->adopted) {
		own = (struct qs_error){};
		r = qs_transit_do_key(env, record, QS_HCVAULT_CREATE, 0, &key, &own);
	}
	if (r == 0 && others->count > 0 && key.latest <= others->latest)
		r = qs_transit_do_key(env, record, QS_HCVAULT_ROTATE, others->latest, &key, &own);
	record->version = key.latest;
	if (r < 0 && own.kind == QS_E_NO_KEY && record->adopted)
		r = no_such_key(record, &own);
	if (r < 0 && err)
		*err = own;
	return r;
}

static int create(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		  struct qs_error *err)
{
	struct qs_transit_record record;
	struct qs_transit_key key;
	struct others others;
	int r;

	if (is_dedicated(ks, number))
		return qs_transit_create_dedicated(env, ks, number, err);
	r = qs_transit_record_load(env, number, &record, err);
	if (r == 1 && record.dedicated)
		return qs_transit_refuse_record(number, err);
	if (r == 1)
		return qs_transit_do_key(env, &record, QS_HCVAULT_READ, 0, &key, err);
	if (r == 0)
		r = choose_key(env, ks, &record, err);
	if (r == 0)
		r = find_others(env, ks, number, record.key, &others, err);
	if (r == 0)
		r = find_version(env, &others, &record, err);
	return r < 0 ? r : qs_transit_record_save(env, number, &record, err);
}

/* Of a key that somebody has made: --key-id. */
static int check_key(const struct qs_env *env, const struct qs_keystore *ks, struct qs_error *err)
{
	struct qs_transit_record record = {};
	struct qs_transit_key key;
	struct qs_error own = {};
	int r = choose_key(env, ks, &record, err);

	if (r < 0)
		return r;
	r = qs_transit_do_key(env, &record, QS_HCVAULT_READ, 0, &key, &own);
	if (r < 0 && own.kind == QS_E_NO_KEY)
		r = no_such_key(&record, &own);
	if (r < 0)
		*err = own;
	return r;
}

/* ---- retire ---- */

/* Returns 1 something was ended, 0 nothing had to be. */
static int end_versions(const struct qs_env *env, const struct qs_transit_record *record,
			const struct others *others, struct qs_error *err)
{
	struct qs_transit_key key;
	struct qs_error own = {};
	int r;

	if (record->adopted || others->unknown)
		return 0;
	if (others->count == 0) {
		r = qs_transit_do_key(env, record, QS_HCVAULT_DELETE, 0, &key, err);
		return r < 0 ? r : 1;
	}
	r = qs_transit_do_key(env, record, QS_HCVAULT_READ, 0, &key, &own);
	if (r == 0 && key.least < others->least)
		r = qs_transit_do_key(env, record, QS_HCVAULT_RAISE, others->least, &key, &own);
	if (r < 0 && own.kind == QS_E_NO_KEY)
		return 0;
	if (r < 0 && err)
		*err = own;
	return r < 0 ? r : 1;
}

static int retire(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		  struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_transit_record_path(number);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
	struct qs_transit_record record;
	struct qs_error own = {};
	struct others others;
	int ended = 0, known, r;

	/* Somebody else's, and without a record one that was begun. */
	if (is_dedicated(ks, number))
		return qs_file_erase(real, err);
	known = qs_transit_record_load(env, number, &record, err);
	r = known < 0 ? known : 0;
	/* Without a record a run that was cut off may have made our key, but nobody depends on it
	 * only before the keystore is enabled, and when it is being disabled. */
	if (known == 0)
		qs_transit_own_key(ks->store, record.key);
	if (r == 0)
		r = find_others(env, ks, number, record.key, &others, err);
	if (r == 0 && (known == 1 || ks->state != QS_KEYSTORE_ENABLED))
		r = ended = end_versions(env, &record, &others, &own);
	/* What we may not even look at was not made by us. */
	if (known == 0 && own.kind == QS_E_NOT_PERMITTED)
		r = ended = 0;
	else if (r < 0 && own.kind != QS_E_NONE && err)
		*err = own;
	if (r >= 0)
		r = qs_file_erase(real, err);
	return r < 0 ? r : r || (known == 1 && ended);
}

const struct qs_provider qs_provider_vault = {
	.name = "vault",
	.suffix = "vault",
	.network = true,
	.health = health,
	.create = create,
	.check_key = check_key,
	.wrap = qs_transit_wrap,
	.unwrap = qs_transit_unwrap,
	.rewrap = qs_transit_rewrap,
	.log_in = log_in,
	.is_key = qs_transit_is_key,
	.key = qs_transit_key_of,
	.retire = retire,
	.describe = describe,
};
