/*
 * The provider "kmip": each generation's KEK is a key of a KMIP server, fetched when it is
 * needed; and "kmip-wrap": it stays there, and the server wraps with it (kmip-wrap.c). What lies
 * here is a record of which key it is (N.kmip). Enabling and disabling
 * is crash-safe as ops/keystore.c has it, since
 *
 *   create                        left behind                second run
 *   key at the server (kmip.c)    a key with our name        retire() erases it by its name
 *   N.kmip, durable               the same                   erased with it
 *   activate                      finished, for kmip         as before
 *   N.kmip with its cipher        finished, for kmip-wrap
 *
 *   create, of a key that         left behind                second run
 *   somebody made (--key-id)
 *   look at it                    nothing                    must name it again
 *   N.kmip, durable               finished                   looks at it again
 *
 *   retire                        left behind                second run
 *   erase the key at the server   N.kmip                     "there is none"
 *   erase N.kmip                  finished
 *
 * A key that somebody else made is not erased: only its N.kmip is.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/utf8.h"
#include "keystore/kmip-internal.h"
#include "keystore/lease.h"
#include "keystore/server.h"
#include "keystore/session.h"

/* ---- health and description ---- */

static void add_text(json_t *json, const char *field, const char *text)
{
	if (*text)
		(void)json_object_set_new(json, field, qs_utf8_json(text));
}

static int look(const struct qs_kmip_functions *module, const struct qs_kmip_access *access,
		void *cookie, json_t **ret, struct qs_error *err)
{
	struct qs_kmip_description d;
	int r = module->describe(access, *(const bool *)cookie, &d, err);

	*ret = json_object();
	add_text(*ret, "address", d.server);
	add_text(*ret, "version", d.version);
	add_text(*ret, "vendor", d.vendor);
	qs_server_add_end(*ret, "certificate_expires",
			  "this machine's certificate (kmip_certificate)", d.certificate_expires);
	qs_server_add_end(*ret, "ca_expires", "the authority's certificate (kmip_ca)",
			  d.ca_expires);
	qs_server_add_end(*ret, "server_expires", "the key server's certificate", d.server_expires);
	if (r == 0)
		(void)json_object_set_new(*ret, "answered_ms", json_integer(d.answered_ms));
	return r;
}

static json_t *describe_server(const struct qs_env *env, bool there)
{
	struct qs_error err = {};
	json_t *json = NULL;
	int r = qs_kmip_call(env, look, &there, &json, &err);

	return qs_server_describe(json, r, &err);
}

static json_t *describe(const struct qs_env *env, uint32_t number)
{
	(void)number;
	return describe_server(env, false);
}

static json_t *describe_there(const struct qs_env *env, uint32_t number)
{
	(void)number;
	return describe_server(env, true);
}

static int look_at_server(const struct qs_env *env, bool there, struct qs_error *err)
{
	int r = qs_kek_health(err);

	return r < 0 ? r : qs_kmip_call(env, look, &there, NULL, err);
}

static int health(const struct qs_env *env, struct qs_error *err)
{
	return look_at_server(env, false, err);
}

static int health_there(const struct qs_env *env, struct qs_error *err)
{
	return look_at_server(env, true, err);
}

/* ---- create and retire ---- */

struct change {
	const struct qs_env *env;
	const struct qs_keystore *ks;
	uint32_t number;
	struct qs_kmip_record record;
	bool there;     /* the key is to stay at the server */
	bool known;     /* the record has an identifier */
	const char *id; /* of the key that somebody else made, or its name */
	char found[QS_KMIP_UID_L];
	enum qs_kmip_cipher cipher; /* of FOUND */
};

static int remember(const char *uid, enum qs_kmip_cipher cipher, void *cookie, struct qs_error *err)
{
	struct change *c = cookie;

	c->record.cipher = cipher;
	(void)snprintf(c->record.uid, sizeof(c->record.uid), "%s", uid);
	return qs_kmip_record_save(c->env, c->ks, c->number, &c->record, err);
}

static int create_key(const struct qs_kmip_functions *module, const struct qs_kmip_access *access,
		      void *cookie, json_t **ret, struct qs_error *err)
{
	struct change *c = cookie;

	(void)ret;
	return module->create(access, c->record.name, c->known ? c->record.uid : NULL, c->there,
			      remember, c, err);
}

/* Is it another generation's? Erasing one must not take the other's key. */
static int refuse_twice(const struct change *c, const char *uid, struct qs_error *err)
{
	for (size_t i = 0; i < c->ks->count; i++) {
		uint32_t number = c->ks->generations[i].number;
		struct qs_kmip_record other;
		int r = qs_kmip_record_load(c->env, c->ks, number, &other, err);

		if (r < 0)
			return r;
		if (number != c->number && strcmp(other.uid, uid) == 0)
			return qs_fail(err, QS_E_REFUSED,
				       "the server's key %s is generation %u already", uid,
				       (unsigned)number);
	}
	return 0;
}

static int look_at_key(const struct qs_kmip_functions *module, const struct qs_kmip_access *access,
		       void *cookie, json_t **ret, struct qs_error *err)
{
	struct change *c = cookie;
	int r = module->adopt(access, c->id, c->there, c->found, &c->cipher, err);

	(void)ret;
	return r < 0 ? r : refuse_twice(c, c->found, err);
}

static int check_id(const struct qs_env *env, const struct qs_keystore *ks, bool there,
		    struct qs_error *err)
{
	struct change c = {
		.env = env,
		.ks = ks,
		.there = there,
		.id = env->keystore->key_id,
	};

	return qs_kmip_call(env, look_at_key, &c, NULL, err);
}

static int check_key(const struct qs_env *env, const struct qs_keystore *ks, struct qs_error *err)
{
	return check_id(env, ks, false, err);
}

static int check_key_there(const struct qs_env *env, const struct qs_keystore *ks,
			   struct qs_error *err)
{
	return check_id(env, ks, true, err);
}

static int adopt_key(const struct qs_kmip_functions *module, const struct qs_kmip_access *access,
		     void *cookie, json_t **ret, struct qs_error *err)
{
	struct change *c = cookie;
	int r = look_at_key(module, access, c, ret, err);

	if (r == 0 && c->known && strcmp(c->record.uid, c->found) != 0)
		return qs_fail(err, QS_E_REFUSED,
			       "generation %u is the server's key %s already: finish that without "
			       "--key-id",
			       (unsigned)c->number, c->record.uid);
	if (r < 0 || c->known)
		return r;
	c->record.adopted = true;
	return remember(c->found, c->cipher, c, err);
}

static int make_generation(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
			   bool there, struct qs_error *err)
{
	struct change c = { .env = env, .ks = ks, .number = number, .there = there };
	int r = qs_kmip_record_load(env, ks, number, &c.record, err);

	c.known = r == 1;
	c.id = env->keystore ? env->keystore->key_id : NULL;
	if (!c.id && c.record.adopted)
		c.id = c.record.uid;
	return r < 0 ? r : qs_kmip_call(env, c.id ? adopt_key : create_key, &c, NULL, err);
}

static int create(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		  struct qs_error *err)
{
	return make_generation(env, ks, number, false, err);
}

static int create_there(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
			struct qs_error *err)
{
	return make_generation(env, ks, number, true, err);
}

static int erase_key(const struct qs_kmip_functions *module, const struct qs_kmip_access *access,
		     void *cookie, json_t **ret, struct qs_error *err)
{
	const struct change *c = cookie;
	int r = module->erase(access, c->record.name, c->known ? c->record.uid : NULL, err);

	if (r >= 0)
		*ret = json_boolean(r == 1);
	return r < 0 ? r : 0;
}

static int retire(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		  struct qs_error *err)
{
	struct change c = { .env = env, .ks = ks, .number = number };
	QS_AUTO(qs_auto_free) char *path = qs_kmip_record_path(number);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
	QS_AUTO(qs_auto_json) json_t *erased = NULL;
	int r = qs_kmip_record_load(env, ks, number, &c.record, err);

	if (r < 0)
		return r;
	c.known = r == 1;
	if (qs_lease_drop(env, ks, number, err) < 0)
		return -EIO;
	if (c.record.adopted)
		return qs_file_erase(real, err);
	r = qs_kmip_call(env, erase_key, &c, &erased, err);
	if (r == 0)
		r = qs_file_erase(real, err);
	return r < 0 ? r : r || json_is_true(erased);
}

/* ---- keys ---- */

struct fetch {
	struct qs_kmip_record records[QS_KMIP_BATCH_MAX];
	struct qs_kmip_key keys[QS_KMIP_BATCH_MAX];
	struct qs_kek *keks[QS_KMIP_BATCH_MAX]; /* in shared memory */
	size_t count;
};

/* Add generation NUMBER to the session, and to what is asked for. */
static int plan(const struct qs_env *env, struct qs_keystore_session *s,
		const struct qs_keystore *ks, uint32_t number, struct fetch *f,
		struct qs_error *err)
{
	struct qs_kmip_record *record = &f->records[f->count];
	struct qs_kek *kek;
	int known, r = qs_keystore_session_add(s, ks->store, number, &kek, err);

	if (r < 0)
		return r;
	known = qs_kmip_record_load(env, ks, number, record, &kek->error);
	if (known == 0)
		(void)qs_kmip_no_record(number, &kek->error);
	if (known <= 0)
		return 0;
	f->keys[f->count].uid = record->uid;
	f->keks[f->count++] = kek;
	return 0;
}

static int get_keys(const struct qs_kmip_functions *module, const struct qs_kmip_access *access,
		    void *cookie, json_t **ret, struct qs_error *err)
{
	struct fetch *f = cookie;
	struct qs_kmip_access watched = *access;
	int r;

	(void)ret;
	/* Where it outlives this process, should that come to its deadline. */
	watched.denial = &f->keks[0]->denial;
	r = module->get(&watched, f->keys, f->count, err);
	for (size_t i = 0; i < f->count; i++) {
		struct qs_kek *kek = f->keks[i];

		kek->there = f->keys[i].key.data != NULL;
		if (kek->there)
			memcpy(kek->bytes, f->keys[i].key.data, sizeof(kek->bytes));
		else if (r == 0)
			kek->error = f->keys[i].error;
		qs_secret_done(&f->keys[i].key);
	}
	return r;
}

static void ask_server(const struct qs_env *env, struct fetch *f)
{
	struct qs_error failed = {};

	if (f->count == 0)
		return;
	(void)qs_kmip_call(env, get_keys, f, NULL, &failed);
	for (size_t i = 0; i < f->count; i++) {
		struct qs_kek *kek = f->keks[i];

		kek->denial = f->keks[0]->denial;
		if (!kek->there && failed.kind != QS_E_NONE)
			kek->error = failed;
		if (!kek->there)
			qs_error_prefix(&kek->error, "generation %u of the keystore",
					(unsigned)kek->generation);
	}
}

/* qs_kek_fetch: one conversation for all of them, whose failure is remembered, too. */
static int fetch(const struct qs_env *env, struct qs_keystore_session *s,
		 const struct qs_keystore *ks, const uint32_t *numbers, size_t count, bool ask,
		 struct qs_error *err)
{
	QS_AUTO(qs_auto_free) struct fetch *f = calloc(1, sizeof(*f));
	int r = f ? 0 : qs_fail(err, QS_E_MEMORY, "no memory for %zu generations", count);

	(void)ask;
	for (size_t i = 0; r == 0 && i < count; i++)
		if (!qs_keystore_session_find(s, ks->store, numbers[i]))
			r = plan(env, s, ks, numbers[i], f, err);
	if (r == 0)
		ask_server(env, f);
	return r;
}

const struct qs_provider qs_provider_kmip = {
	.name = "kmip",
	.suffix = "kmip",
	.network = true,
	.health = health,
	.create = create,
	.check_key = check_key,
	.fetch = fetch,
	.retire = retire,
	.describe = describe,
	.key = qs_kmip_key_of,
};

const struct qs_provider qs_provider_kmip_wrap = {
	.name = "kmip-wrap",
	.suffix = "kmip",
	.network = true,
	.health = health_there,
	.create = create_there,
	.check_key = check_key_there,
	.wrap = qs_kmip_wrap_keys,
	.unwrap = qs_kmip_unwrap_keys,
	.retire = retire,
	.describe = describe_there,
	.key = qs_kmip_key_of,
};
