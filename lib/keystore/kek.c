/*
 * Wrapping and unwrapping with a KEK at hand.
 */
#include "base/cleanup.h"
#include "keystore/jwe.h"
#include "keystore/provider.h"

static int load_module(const struct qs_jwe_functions **ret, struct qs_error *err)
{
	const struct qs_module *module = NULL;
	int r = qs_module_load(QS_JWE_MODULE_NAME, QS_JWE_MODULE_SYMBOL, QS_JWE_MODULE_VERSION,
			       &module, err);

	if (r < 0)
		return r;
	qs_secret_wipe_json();
	*ret = (const struct qs_jwe_functions *)module;
	return 0;
}

int qs_kek_health(struct qs_error *err)
{
	const struct qs_jwe_functions *jwe;

	return load_module(&jwe, err);
}

/* What the last key of a call needed: one KEK is got once for all keys of its generation. */
struct last {
	uint32_t number;
	struct qs_secret kek;
};

static int use(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
	       qs_kek_get *get, struct last *last, struct qs_error *err)
{
	if (last->kek.data && last->number == number)
		return 0;
	qs_secret_done(&last->kek);
	last->number = number;
	return get(env, ks, number, &last->kek, err);
}

typedef void one_key(const struct qs_keystore *ks, const struct qs_jwe_functions *jwe,
		     const struct qs_secret *kek, struct qs_wrapping *w);

static int each(const struct qs_env *env, const struct qs_keystore *ks, struct qs_wrapping *items,
		size_t count, qs_kek_get *get, one_key *one, struct qs_error *err)
{
	const struct qs_jwe_functions *jwe;
	struct last last = {};
	int r = load_module(&jwe, err);

	for (size_t i = 0; r == 0 && i < count; i++)
		if (use(env, ks, items[i].generation, get, &last, &items[i].error) == 0)
			one(ks, jwe, &last.kek, &items[i]);
	qs_secret_done(&last.kek);
	return r;
}

static void wrap_one(const struct qs_keystore *ks, const struct qs_jwe_functions *jwe,
		     const struct qs_secret *kek, struct qs_wrapping *w)
{
	QS_AUTO(qs_auto_free) char *kid = qs_keystore_kid(ks->store, w->generation);

	(void)jwe->wrap(kek, kid, w->volume, &w->plain, &w->jwe, &w->error);
}

int qs_kek_wrap(const struct qs_env *env, const struct qs_keystore *ks, struct qs_wrapping *items,
		size_t count, qs_kek_get *get, struct qs_error *err)
{
	return each(env, ks, items, count, get, wrap_one, err);
}

static void unwrap_one(const struct qs_keystore *ks, const struct qs_jwe_functions *jwe,
		       const struct qs_secret *kek, struct qs_wrapping *w)
{
	(void)ks;
	(void)jwe->unwrap(w->jwe, kek, &w->plain, &w->error);
}

int qs_kek_unwrap(const struct qs_env *env, const struct qs_keystore *ks, struct qs_wrapping *items,
		  size_t count, qs_kek_get *get, struct qs_error *err)
{
	return each(env, ks, items, count, get, unwrap_one, err);
}
