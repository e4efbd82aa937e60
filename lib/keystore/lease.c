#include "keystore/lease.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/utf8.h"
#include "key/keyfile.h"
#include "key/tpm2.h"
#include "keystore/lease-record.h"
#include "keystore/provider.h"
#include "keystore/token.h"

#define SLOT 0

bool qs_lease_is_wanted(const struct qs_env *env)
{
	return env->config.kms_lease_s > 0 || env->config.kms_lease_boots > 0;
}

/* N.sealed is the keystore's own where the provider is tpm2. */
static bool is_fetched(const struct qs_keystore *ks, uint32_t number)
{
	const struct qs_provider *p = qs_keystore_provider(ks, number);

	return p->network && p->fetch;
}

bool qs_lease_may_be(const struct qs_keystore *ks, uint32_t number)
{
	return is_fetched(ks, number) &&
	       strcmp(qs_keystore_provider_name(ks, number), ks->provider) == 0;
}

static char *path_of(uint32_t number)
{
	return qs_printf("%s/%u.lease", QS_KEYSTORE_DIR, (unsigned)number);
}

/* What the TPM's key is a generation of. */
static struct qs_keystore beside(const char *store)
{
	struct qs_keystore ks = { .state = QS_KEYSTORE_ENABLED };

	(void)snprintf(ks.provider, sizeof(ks.provider), "%s", qs_provider_tpm2.name);
	(void)snprintf(ks.store, sizeof(ks.store), "%s", store);
	return ks;
}

/* ---- the file ---- */

/* Returns 1 read, 0 there is none. */
static int load(const struct qs_env *env, uint32_t number, struct qs_lease *ret,
		struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = path_of(number);
	QS_AUTO(qs_secret_done) struct qs_secret text = {};
	int r = qs_key_load_if_there(env, path, &text, err);

	if (r <= 0)
		return r;
	r = qs_lease_parse(text.data, text.size, path, ret, err);
	return r < 0 ? r : 1;
}

/* ---- making ---- */

static int put(const struct qs_secret *kek, const char *bound, struct qs_secret *ret,
	       struct qs_error *err)
{
	size_t length = strlen(bound);
	int r = qs_secret_init(ret, kek->size + length, err);

	if (r < 0)
		return r;
	memcpy(ret->data, kek->data, kek->size);
	memcpy((char *)ret->data + kek->size, bound, length);
	return 0;
}

/* A lease on its way into its file. */
struct making {
	struct qs_lease_limits limits;
	struct qs_wrapping w;
};

static void making_done(struct making *m)
{
	qs_wrapping_done(&m->w);
}

/* From now on, by both clocks. */
static int limit(const struct qs_env *env, struct qs_lease_limits *ret, struct qs_error *err)
{
	*ret = (struct qs_lease_limits){ .made = (uint64_t)time(NULL),
					 .boots = env->config.kms_lease_boots };
	if (env->config.kms_lease_s > 0)
		ret->until = ret->made + env->config.kms_lease_s;
	return qs_tpm2_read_clock(env, &ret->clock, err);
}

/* By the TPM's key of OWN. */
static int wrap(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		const struct qs_keystore *own, struct making *ret, struct qs_error *err)
{
	struct qs_wrapping *const items[] = { &ret->w };
	QS_AUTO(qs_secret_done) struct qs_secret kek = {};
	QS_AUTO(qs_auto_free) char *bound = NULL;
	int r = qs_keystore_kek(env, ks, number, &kek, err);

	if (r == 0)
		r = limit(env, &ret->limits, err);
	ret->w.generation = number;
	ret->w.volume = qs_keystore_volume(ks->store, SLOT);
	bound = qs_lease_bound(ks, number, &ret->limits);
	if (r == 0)
		r = put(&kek, bound, &ret->w.plain, err);
	if (r == 0)
		r = qs_provider_wrap(&qs_provider_tpm2, env, own, items, 1, err);
	if (r == 0 && ret->w.error.kind != QS_E_NONE) {
		*err = ret->w.error;
		r = qs_negative(qs_kind_errno(ret->w.error.kind));
	}
	return r;
}

static int write_lease(const struct qs_env *env, const struct qs_keystore *own,
		       const struct making *m, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = path_of(m->w.generation);
	QS_AUTO(qs_auto_free)
	char *text = qs_lease_print(own, m->w.generation, &m->limits, m->w.jwe);

	if (!text)
		return qs_fail(err, QS_E_MEMORY, "no memory for a lease");
	return qs_key_store(env, path, &(struct qs_secret){ text, strlen(text) }, true, err);
}

/* With a new key in the TPM, if that can be had: the old one may be good again later. */
static int make_anew(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		     struct qs_error *err)
{
	QS_AUTO(making_done) struct making m = {};
	char store[QS_KEYSTORE_UUID_L];
	struct qs_keystore own;
	int r = qs_provider_tpm2.health(env, err);

	if (r == 0)
		r = qs_keystore_new_uuid(store, err);
	if (r == 0)
		r = qs_lease_drop(env, ks, number, err);
	if (r < 0)
		return r;
	own = beside(store);
	r = qs_provider_tpm2.create(env, &own, number, err);
	if (r == 0)
		r = wrap(env, ks, number, &own, &m, err);
	return r < 0 ? r : write_lease(env, &own, &m, err);
}

/* What may be over the next time: no word of the TPM's on the key that it has. */
static bool is_passing(const struct qs_error *err)
{
	return err->kind == QS_E_TEMPORARY || err->kind == QS_E_DEADLINE ||
	       err->kind == QS_E_MEMORY;
}

/* One that cannot be written is no reason to give up the one that is there. */
int qs_lease_renew(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		   struct qs_error *err)
{
	QS_AUTO(qs_lease_done) struct qs_lease old = {};
	QS_AUTO(making_done) struct making m = {};
	struct qs_error own_err = {};
	bool there = load(env, number, &old, &own_err) == 1;
	const struct qs_keystore own = beside(old.store);
	int r = there ? wrap(env, ks, number, &own, &m, &own_err) : 0;

	if (there && r == 0)
		return write_lease(env, &own, &m, err);
	if (there && is_passing(&own_err)) {
		*err = own_err;
		return r;
	}
	/* This TPM gives it no more, in this state, or it is damaged. */
	return make_anew(env, ks, number, err);
}

int qs_lease_drop(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		  struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = path_of(number);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
	const struct qs_keystore own = beside("");
	int r, sealed;

	if (!is_fetched(ks, number))
		return 0;
	r = qs_file_erase(real, err);
	sealed = r < 0 ? r : qs_provider_tpm2.retire(env, &own, number, err);
	return sealed < 0 ? sealed : r > 0 || sealed > 0;
}

void qs_lease_drop_left(const struct qs_env *env, const struct qs_keystore *ks)
{
	for (size_t i = 0; i < ks->count; i++) {
		uint32_t number = ks->generations[i].number;
		struct qs_error err = {};

		if (!qs_lease_may_be(ks, number) && qs_lease_drop(env, ks, number, &err) < 0)
			qs_log(QS_LOG_WARNING, "the lease of generation %u: %s", (unsigned)number,
			       err.text);
	}
}

/* ---- using ---- */

/* Is what came out the KEK of this generation, with this end? */
static int take(const struct qs_lease *l, const struct qs_keystore *ks,
		const struct qs_secret *plain, struct qs_kek *kek, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *bound = qs_lease_bound(ks, kek->generation, &l->limits);
	size_t length = strlen(bound);

	if (plain->size != sizeof(kek->bytes) + length ||
	    memcmp((const char *)plain->data + sizeof(kek->bytes), bound, length) != 0)
		return qs_fail(err, QS_E_DAMAGED, "the lease is for another key, or was changed");
	memcpy(kek->bytes, plain->data, sizeof(kek->bytes));
	kek->there = true;
	return 0;
}

/* What has ended is not unsealed. */
static int look(const struct qs_env *env, const struct qs_lease *l, struct qs_lease_left *ret,
		struct qs_error *err)
{
	struct qs_tpm2_clock clock;
	int r = qs_tpm2_read_clock(env, &clock, err);

	return r < 0 ? r : qs_lease_look(&l->limits, (uint64_t)time(NULL), &clock, ret, err);
}

static int open_lease(const struct qs_env *env, const struct qs_keystore *ks,
		      const struct qs_lease *l, struct qs_kek *kek, struct qs_error *err)
{
	const struct qs_keystore own = beside(l->store);
	QS_AUTO(qs_wrapping_done) struct qs_wrapping w = { .generation = kek->generation };
	struct qs_wrapping *const items[] = { &w };
	struct qs_keystore_token t;
	int r = qs_keystore_token_parse(l->token, ks->store, &t, err);

	if (r < 0)
		return r;
	if (t.generation != kek->generation)
		return qs_fail(err, QS_E_DAMAGED, "the lease is for another generation");
	w.jwe = json_incref((json_t *)t.jwe);
	r = qs_provider_unwrap(&qs_provider_tpm2, env, &own, items, 1, err);
	if (r < 0)
		return r;
	if (w.error.kind != QS_E_NONE) {
		*err = w.error;
		return qs_negative(qs_kind_errno(w.error.kind));
	}
	return take(l, ks, &w.plain, kek, err);
}

static void tell_use(const struct qs_lease_limits *l, const struct qs_lease_left *left,
		     const struct qs_error *why)
{
	char until[QS_LEASE_TIME_L] = "", boots[64] = "";

	if (l->boots)
		(void)snprintf(boots, sizeof(boots), " for %u more starts at most",
			       (unsigned)left->boots);
	qs_log(QS_LOG_WARNING, "the lease is used: %s; it opens%s%s%s", why->text, boots,
	       l->until ? " until " : "", l->until ? qs_lease_time(l->until, until) : "");
}

static void use_one(const struct qs_env *env, const struct qs_keystore *ks, struct qs_kek *kek)
{
	QS_AUTO(qs_lease_done) struct qs_lease l = {};
	struct qs_lease_left left;
	struct qs_error err = {};
	int r = load(env, kek->generation, &l, &err);

	if (r == 0)
		return;
	if (r > 0)
		r = look(env, &l, &left, &err);
	if (r == 0)
		r = open_lease(env, ks, &l, kek, &err);
	if (r < 0)
		qs_error_append(&kek->error, "; %s", err.text);
	else
		tell_use(&l.limits, &left, &kek->error);
}

void qs_lease_use(const struct qs_env *env, struct qs_keystore_session *s,
		  const struct qs_keystore *ks, const uint32_t *numbers, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct qs_kek *kek = qs_keystore_session_find(s, ks->store, numbers[i]);

		if (kek && !kek->there && kek->denial == QS_KMIP_NOT_DENIED &&
		    qs_lease_may_be(ks, numbers[i]) &&
		    (kek->error.kind == QS_E_TEMPORARY || kek->error.kind == QS_E_DEADLINE))
			use_one(env, ks, kek);
	}
}

static void add_limits(json_t *json, const struct qs_lease_limits *l)
{
	char until[QS_LEASE_TIME_L];

	if (l->until)
		(void)json_object_set_new(json, "until",
					  json_string(qs_lease_time(l->until, until)));
	if (l->boots)
		(void)json_object_set_new(json, "boots", json_integer((json_int_t)l->boots));
}

static void add_left(json_t *json, const struct qs_lease_limits *l,
		     const struct qs_lease_left *left)
{
	if (l->until)
		(void)json_object_set_new(json, "seconds_left",
					  json_integer((json_int_t)left->seconds));
	if (l->boots)
		(void)json_object_set_new(json, "boots_left",
					  json_integer((json_int_t)left->boots));
}

json_t *qs_lease_describe(const struct qs_env *env, uint32_t number)
{
	QS_AUTO(qs_lease_done) struct qs_lease l = {};
	struct qs_lease_left left;
	struct qs_error err = {};
	json_t *json;
	int r = load(env, number, &l, &err);

	if (r == 0)
		return NULL;
	json = json_pack("{s:i}", "generation", (int)number);
	add_limits(json, &l.limits);
	if (r > 0 && !qs_lease_is_wanted(env))
		r = qs_fail(&err, QS_E_FAILED,
			    "kms_lease is off; the next `keystore check` erases it");
	if (r > 0)
		r = look(env, &l, &left, &err);
	if (r < 0)
		(void)json_object_set_new(json, "problem", qs_utf8_json(err.text));
	else
		add_left(json, &l.limits, &left);
	return json;
}
