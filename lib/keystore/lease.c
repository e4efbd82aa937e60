#include "keystore/lease.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/sum.h"
#include "key/keyfile.h"
#include "keystore/provider.h"
#include "keystore/token.h"
#include "luks/fields.h"

#define VERSION 1
#define SLOT 0
#define DAY 86400 /* seconds by which a clock may have been ahead when the lease was made */
#define FORM "%Y-%m-%dT%H:%M:%SZ"

struct lease {
	json_t *json; /* all of it */
	uint64_t made, until;
	const json_t *token;
	char store[QS_KEYSTORE_UUID_L]; /* of the key in the TPM */
};

static void lease_done(struct lease *l)
{
	json_decref(l->json);
	*l = (struct lease){};
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

/* What stands behind the KEK. */
static char *bound_to(const struct qs_keystore *ks, uint32_t number, uint64_t made, uint64_t until)
{
	return qs_printf("%s/%u %llu %llu", ks->store, (unsigned)number, (unsigned long long)made,
			 (unsigned long long)until);
}

/* ---- the file ---- */

static int parse(const struct qs_secret *text, const char *path, struct lease *ret,
		 struct qs_error *err)
{
	json_t *json = json_loadb(text->data, text->size, JSON_REJECT_DUPLICATES, NULL);
	const json_t *token = json_object_get(json, "token");
	const char *store = qs_fields_text(token, "store");
	uint64_t version;

	ret->json = json;
	ret->token = token;
	if (qs_sum_check(json, path, NULL) < 0 || qs_sum_others(json) != 4 ||
	    !qs_fields_number(json, "version", &version) || version != VERSION ||
	    !qs_fields_number(json, "made", &ret->made) ||
	    !qs_fields_number(json, "until", &ret->until) || !store || !qs_keystore_is_uuid(store))
		return qs_fail(err, QS_E_CONFIG, "%s is malformed: `keystore check` renews it",
			       path);
	memcpy(ret->store, store, sizeof(ret->store));
	return 0;
}

/* Returns 1 read, 0 there is none. */
static int load(const struct qs_env *env, uint32_t number, struct lease *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = path_of(number);
	QS_AUTO(qs_secret_done) struct qs_secret text = {};
	int r = qs_key_load_if_there(env, path, &text, err);

	if (r <= 0)
		return r;
	r = parse(&text, path, ret, err);
	if (r < 0)
		lease_done(ret);
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
	uint64_t made, until;
	struct qs_wrapping w;
};

static void making_done(struct making *m)
{
	qs_wrapping_done(&m->w);
}

/* By the TPM's key of OWN. */
static int wrap(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		const struct qs_keystore *own, struct making *ret, struct qs_error *err)
{
	struct qs_wrapping *const items[] = { &ret->w };
	QS_AUTO(qs_secret_done) struct qs_secret kek = {};
	QS_AUTO(qs_auto_free) char *bound = NULL;
	int r = qs_keystore_kek(env, ks, number, &kek, err);

	ret->made = (uint64_t)time(NULL);
	ret->until = ret->made + env->config.kms_lease_s;
	ret->w.generation = number;
	ret->w.volume = qs_keystore_volume(ks->store, SLOT);
	bound = bound_to(ks, number, ret->made, ret->until);
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
	json_t *token = qs_keystore_token_make(own, m->w.generation, json_incref(m->w.jwe));
	QS_AUTO(qs_auto_free) char *path = path_of(m->w.generation);
	QS_AUTO(qs_auto_free) char *text = NULL;
	QS_AUTO(qs_auto_json) json_t *json = NULL;

	(void)json_object_set_new(token, "keyslots", json_pack("[s]", "0"));
	json = json_pack("{s:i,s:I,s:I,s:o}", "version", VERSION, "made", (json_int_t)m->made,
			 "until", (json_int_t)m->until, "token", token);
	text = qs_sum_print(json);
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
		r = qs_lease_drop(env, number, err);
	if (r < 0)
		return r;
	own = beside(store);
	r = qs_provider_tpm2.create(env, &own, number, err);
	if (r == 0)
		r = wrap(env, ks, number, &own, &m, err);
	return r < 0 ? r : write_lease(env, &own, &m, err);
}

/* One that cannot be written is no reason to give up the one that is there. */
int qs_lease_renew(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		   struct qs_error *err)
{
	QS_AUTO(lease_done) struct lease old = {};
	QS_AUTO(making_done) struct making m = {};
	struct qs_error ignored = {};
	bool there = load(env, number, &old, &ignored) == 1;
	const struct qs_keystore own = beside(old.store);

	if (there && wrap(env, ks, number, &own, &m, &ignored) == 0)
		return write_lease(env, &own, &m, err);
	/* This TPM gives it no more, in this state, or it is damaged. */
	return make_anew(env, ks, number, err);
}

int qs_lease_drop(const struct qs_env *env, uint32_t number, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = path_of(number);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
	const struct qs_keystore own = beside("");
	int r = qs_file_erase(real, err);
	int sealed = r < 0 ? r : qs_provider_tpm2.retire(env, &own, number, err);

	return sealed < 0 ? sealed : r > 0 || sealed > 0;
}

/* ---- using ---- */

static int refuse_time(const struct lease *l, struct qs_error *err)
{
	time_t now = time(NULL), end = (time_t)l->until;
	char text[32] = "an unknown day";
	struct tm utc;

	if (gmtime_r(&end, &utc))
		(void)strftime(text, sizeof(text), FORM, &utc);
	if (now >= end)
		return qs_fail(err, QS_E_TEMPORARY, "the lease ended on %s", text);
	if ((uint64_t)now + DAY < l->made)
		return qs_fail(err, QS_E_TEMPORARY,
			       "the lease was made in the future by this machine's clock");
	return 0;
}

/* Is what came out the KEK of this generation, with this end? */
static int take(const struct lease *l, const struct qs_keystore *ks, const struct qs_secret *plain,
		struct qs_kek *kek, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *bound = bound_to(ks, kek->generation, l->made, l->until);
	size_t length = strlen(bound);

	if (plain->size != sizeof(kek->bytes) + length ||
	    memcmp((const char *)plain->data + sizeof(kek->bytes), bound, length) != 0)
		return qs_fail(err, QS_E_DAMAGED, "the lease is for another key, or was changed");
	memcpy(kek->bytes, plain->data, sizeof(kek->bytes));
	kek->there = true;
	return 0;
}

static int open_lease(const struct qs_env *env, const struct qs_keystore *ks, const struct lease *l,
		      struct qs_kek *kek, struct qs_error *err)
{
	const struct qs_keystore own = beside(l->store);
	QS_AUTO(qs_wrapping_done) struct qs_wrapping w = { .generation = kek->generation };
	struct qs_wrapping *const items[] = { &w };
	struct qs_keystore_token t;
	int r = refuse_time(l, err);

	if (r == 0)
		r = qs_keystore_token_parse(l->token, ks->store, &t, err);
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

static void use_one(const struct qs_env *env, const struct qs_keystore *ks, struct qs_kek *kek)
{
	QS_AUTO(lease_done) struct lease l = {};
	struct qs_error err = {};
	int r = load(env, kek->generation, &l, &err);

	if (r == 0)
		return;
	if (r > 0)
		r = open_lease(env, ks, &l, kek, &err);
	if (r < 0)
		qs_error_append(&kek->error, "; %s", err.text);
	else
		qs_log(QS_LOG_WARNING, "the lease is used: %s", kek->error.text);
}

void qs_lease_use(const struct qs_env *env, struct qs_keystore_session *s,
		  const struct qs_keystore *ks, const uint32_t *numbers, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct qs_kek *kek = qs_keystore_session_find(s, ks->store, numbers[i]);

		if (kek && !kek->there && !kek->denied &&
		    (kek->error.kind == QS_E_TEMPORARY || kek->error.kind == QS_E_DEADLINE))
			use_one(env, ks, kek);
	}
}

json_t *qs_lease_describe(const struct qs_env *env, uint32_t number)
{
	QS_AUTO(lease_done) struct lease l = {};
	char text[32];
	struct tm utc;
	time_t end;

	if (load(env, number, &l, NULL) != 1)
		return NULL;
	end = (time_t)l.until;
	if (!gmtime_r(&end, &utc) || strftime(text, sizeof(text), FORM, &utc) == 0)
		return NULL;
	return json_pack("{s:i,s:s}", "generation", (int)number, "until", text);
}
