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

static int wrap_one(const struct qs_env *env, const struct qs_keystore *ks,
		    const struct qs_jwe_functions *jwe, struct qs_wrapping *w, qs_kek_get *get)
{
	QS_AUTO(qs_auto_free) char *kid = qs_keystore_kid(ks->store, w->generation);
	QS_AUTO(qs_secret_done) struct qs_secret kek = {};
	int r = get(env, ks, w->generation, &kek, &w->error);

	return r < 0 ? r : jwe->wrap(&kek, kid, w->volume, &w->plain, &w->jwe, &w->error);
}

int qs_kek_wrap(const struct qs_env *env, const struct qs_keystore *ks, struct qs_wrapping *items,
		size_t count, qs_kek_get *get, struct qs_error *err)
{
	const struct qs_jwe_functions *jwe;
	int r = load_module(&jwe, err);

	for (size_t i = 0; r == 0 && i < count; i++)
		(void)wrap_one(env, ks, jwe, &items[i], get);
	return r;
}

static int unwrap_one(const struct qs_env *env, const struct qs_keystore *ks,
		      const struct qs_jwe_functions *jwe, struct qs_wrapping *w, qs_kek_get *get)
{
	QS_AUTO(qs_secret_done) struct qs_secret kek = {};
	int r = get(env, ks, w->generation, &kek, &w->error);

	return r < 0 ? r : jwe->unwrap(w->jwe, &kek, &w->plain, &w->error);
}

int qs_kek_unwrap(const struct qs_env *env, const struct qs_keystore *ks, struct qs_wrapping *items,
		  size_t count, qs_kek_get *get, struct qs_error *err)
{
	const struct qs_jwe_functions *jwe;
	int r = load_module(&jwe, err);

	for (size_t i = 0; r == 0 && i < count; i++)
		(void)unwrap_one(env, ks, jwe, &items[i], get);
	return r;
}
