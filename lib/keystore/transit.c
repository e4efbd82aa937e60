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

/* ---- health and description ---- */

static int64_t boottime(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec;
}

static int look(const struct qs_hcvault_functions *module, const struct qs_hcvault_access *access,
		void *cookie, json_t **ret, struct qs_error *err)
{
	struct qs_hcvault_description d;
	int r = module->describe(access, &d, err);

	(void)cookie;
	*ret = json_object();
	if (*d.server)
		(void)json_object_set_new(*ret, "address", qs_utf8_json(d.server));
	if (*d.health.version) {
		(void)json_object_set_new(*ret, "version", qs_utf8_json(d.health.version));
		(void)json_object_set_new(*ret, "sealed", json_boolean(d.health.sealed));
	}
	if (r == 0) {
		(void)json_object_set_new(*ret, "answered_ms", json_integer(d.answered_ms));
		if (d.token_ends)
			(void)json_object_set_new(*ret, "token_seconds",
						  json_integer(d.token_ends - boottime()));
	}
	return r;
}

static json_t *describe(const struct qs_env *env)
{
	struct qs_error err = {};
	json_t *json = NULL;
	int r = qs_transit_call(env, look, NULL, &json, &err);

	return qs_server_describe(json, r, &err);
}

/* For the workers to come. */
static int log_in(const struct qs_env *env, struct qs_error *err)
{
	return qs_transit_call(env, look, NULL, NULL, err);
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

/* *ret: as of struct qs_hcvault_functions. */
static int do_key(const struct qs_env *env, const char *name, enum qs_hcvault_action action,
		  uint32_t number, struct qs_transit_key *ret, struct qs_error *err)
{
	struct key_work w = { .name = name, .action = action, .number = number };
	QS_AUTO(qs_auto_json) json_t *json = NULL;
	int r = qs_transit_call(env, key_job, &w, &json, err);

	ret->latest = (uint32_t)json_integer_value(json_object_get(json, "latest"));
	ret->least = (uint32_t)json_integer_value(json_object_get(json, "least"));
	return r;
}

/* May we look at keys? Before anything is made there, as cleaning up would fail like it. */
static int health(const struct qs_env *env, struct qs_error *err)
{
	const char *name = *env->config.vault_key ? env->config.vault_key : "qs-util-";
	struct qs_transit_key key;
	struct qs_error own = {};
	int r = qs_kek_health(err);

	if (r == 0)
		r = log_in(env, err);
	if (r < 0)
		return r;
	r = do_key(env, name, QS_HCVAULT_READ, 0, &key, &own);
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

		if (other != number && qs_keystore_provider(ks, other) == &qs_provider_vault)
			r = add_other(env, ks, other, name, ret, err);
	}
	return r;
}

/* ---- create ---- */

/* The key that the next generation is a version of, in this order. */
static int choose_key(const struct qs_env *env, const struct qs_keystore *ks,
		      struct qs_transit_record *ret, struct qs_error *err)
{
	char own[QS_TRANSIT_NAME_L];
	struct qs_transit_record last = {};
	const char *name = env->keystore ? env->keystore->key_id : NULL;
	int r = 0;

	qs_transit_own_key(ks->store, own);
	if (!name && *env->config.vault_key)
		name = env->config.vault_key;
	if (!name && ks->count > 0 &&
	    qs_keystore_provider(ks, ks->generations[ks->count - 1].number) == &qs_provider_vault) {
		r = qs_transit_record_load(env, ks->generations[ks->count - 1].number, &last, err);
		name = r == 1 ? last.key : NULL;
	}
	name = name ? name : own;
	if (r < 0)
		return r;
	if (!qs_transit_is_text(name) || strpbrk(name, "/?#%") || strlen(name) >= sizeof(ret->key))
		return qs_fail(err, QS_E_USAGE,
			       "'%.100s' is no name of a key of the transit engine", name);
	memcpy(ret->key, name, strlen(name) + 1);
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
	int r = do_key(env, record->key, QS_HCVAULT_READ, 0, &key, &own);

	if (r < 0 && own.kind == QS_E_NO_KEY && !record->adopted) {
		own = (struct qs_error){};
		r = do_key(env, record->key, QS_HCVAULT_CREATE, 0, &key, &own);
	}
	if (r == 0 && others->count > 0 && key.latest <= others->latest)
		r = do_key(env, record->key, QS_HCVAULT_ROTATE, others->latest, &key, &own);
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
	int r = qs_transit_record_load(env, number, &record, err);

	if (r == 1)
		return do_key(env, record.key, QS_HCVAULT_READ, 0, &key, err);
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
	r = do_key(env, record.key, QS_HCVAULT_READ, 0, &key, &own);
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
		r = do_key(env, record->key, QS_HCVAULT_DELETE, 0, &key, err);
		return r < 0 ? r : 1;
	}
	r = do_key(env, record->key, QS_HCVAULT_READ, 0, &key, &own);
	if (r == 0 && key.least < others->least)
		r = do_key(env, record->key, QS_HCVAULT_RAISE, others->least, &key, &own);
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
	int ended = 0, known = qs_transit_record_load(env, number, &record, err);
	int r = known < 0 ? known : 0;

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
	else if (r < 0 && own.kind != QS_E_NONE)
		*err = own;
	if (r >= 0)
		r = qs_file_erase(real, err);
	return r < 0 ? r : r || (known == 1 && ended);
}

/* ---- content keys ---- */

struct crypt_work {
	const char *name;
	uint32_t version; /* 0: decrypt */
	struct qs_transit_item *items;
	size_t count;
};

static int crypt_job(const struct qs_hcvault_functions *module,
		     const struct qs_hcvault_access *access, void *cookie, json_t **ret,
		     struct qs_error *err)
{
	const struct crypt_work *w = cookie;

	(void)ret;
	return module->crypt(access, w->name, w->version, w->items, w->count, err);
}

/* One key of the server's, and those of a batch that are its work. */
struct part {
	struct qs_transit_record record;
	struct qs_content_key **its;
	size_t count;
};

static void put(const struct qs_content_key *from, bool wrap, struct qs_transit_item *to)
{
	if (wrap)
		memcpy(to->key, from->key.data, sizeof(to->key));
	else
		memcpy(to->text, from->wrapped, strlen(from->wrapped) + 1);
}

static void take(const struct qs_transit_item *from, bool wrap, const struct qs_error *failed,
		 struct qs_content_key *to)
{
	if (!from->done) {
		to->error = from->error.kind != QS_E_NONE ? from->error : *failed;
		return;
	}
	if (wrap)
		to->wrapped = qs_strdup(from->text);
	else if (qs_secret_init(&to->key, sizeof(from->key), &to->error) == 0)
		memcpy(to->key.data, from->key, sizeof(from->key));
}

static int run_part(const struct qs_env *env, const struct part *p, bool wrap, struct qs_error *err)
{
	size_t size = p->count * sizeof(struct qs_transit_item);
	struct qs_error failed = {};
	struct crypt_work w = {
		.name = p->record.key,
		.version = wrap ? p->record.version : 0,
		.count = p->count,
	};
	void *memory = NULL;
	int r = qs_secret_share(&memory, size, err);

	if (r < 0)
		return r;
	w.items = memory;
	for (size_t i = 0; i < p->count; i++)
		put(p->its[i], wrap, &w.items[i]);
	if (qs_transit_call(env, crypt_job, &w, NULL, &failed) < 0)
		qs_error_append(&failed, " (key %s)", p->record.key);
	for (size_t i = 0; i < p->count; i++)
		take(&w.items[i], wrap, &failed, p->its[i]);
	qs_secret_unshare(memory, size);
	return 0;
}

/* Which key of the server's an item is for. */
struct need {
	struct qs_transit_record record;
	bool todo;
};

static void find_need(const struct qs_env *env, struct qs_content_key *k, bool wrap,
		      struct need *ret)
{
	QS_AUTO(qs_auto_free) char *path = qs_transit_record_path(k->generation);
	int known = qs_transit_record_load(env, k->generation, &ret->record, &k->error);

	if (known == 0)
		(void)qs_fail(&k->error, QS_E_KEY_FILE,
			      "%s does not exist, so it is not known which key of the server is "
			      "generation %u; take it from a key bundle (keyrestore)",
			      path, (unsigned)k->generation);
	if (known == 1 && !wrap && !qs_transit_is_text(k->wrapped))
		(void)qs_fail(&k->error, QS_E_DAMAGED,
			      "its wrapped key is none of a Vault server's");
	ret->todo = k->error.kind == QS_E_NONE;
}

/* What of NEEDS can go into one request with FIRST; one version only is wrapped with at a time. */
static bool goes_with(const struct need *first, const struct need *n, bool wrap)
{
	return n->todo && strcmp(n->record.key, first->record.key) == 0 &&
	       (!wrap || n->record.version == first->record.version);
}

static int run(const struct qs_env *env, struct qs_content_key *items, size_t count, bool wrap,
	       struct qs_error *err)
{
	struct qs_content_key **its = calloc(count + 1, sizeof(struct qs_content_key *));
	struct need *needs = calloc(count + 1, sizeof(*needs));
	int r = its && needs ? 0 : qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", count);

	for (size_t i = 0; r == 0 && i < count; i++)
		find_need(env, &items[i], wrap, &needs[i]);
	for (size_t i = 0; r == 0 && i < count; i++) {
		const struct need first = needs[i];
		struct part p = { .record = first.record, .its = its };

		for (size_t k = i; k < count; k++) {
			if (!goes_with(&first, &needs[k], wrap))
				continue;
			needs[k].todo = false;
			its[p.count++] = &items[k];
		}
		r = p.count > 0 ? run_part(env, &p, wrap, err) : 0;
	}
	free(its);
	free(needs);
	return r;
}

static int wrap_keys(const struct qs_env *env, const struct qs_keystore *ks,
		     struct qs_content_key *items, size_t count, struct qs_error *err)
{
	(void)ks;
	return run(env, items, count, true, err);
}

static int unwrap_keys(const struct qs_env *env, const struct qs_keystore *ks,
		       struct qs_content_key *items, size_t count, struct qs_error *err)
{
	(void)ks;
	return run(env, items, count, false, err);
}

const struct qs_provider qs_provider_vault = {
	.name = "vault",
	.network = true,
	.health = health,
	.create = create,
	.check_key = check_key,
	.wrap = wrap_keys,
	.unwrap = unwrap_keys,
	.log_in = log_in,
	.retire = retire,
	.describe = describe,
};
