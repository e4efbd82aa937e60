/*
 * The provider "local": each generation's KEK is a file that only root may read.
 */
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "key/keyfile.h"
#include "keystore/jwe.h"
#include "keystore/provider.h"

#define KEK_L 32 /* bytes: AES-256 */

static char *kek_path(uint32_t number)
{
	return qs_printf("%s/%u.kek", QS_KEYSTORE_DIR, (unsigned)number);
}

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

static int health(const struct qs_env *env, struct qs_error *err)
{
	const struct qs_jwe_functions *jwe;

	(void)env;
	return load_module(&jwe, err);
}

static int create(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		  struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = kek_path(number);
	QS_AUTO(qs_secret_done) struct qs_secret kek = {};
	int r = qs_secret_random(&kek, KEK_L, err);

	(void)ks;
	return r < 0 ? r : qs_key_store(env, path, &kek, false, err);
}

static int load_kek(const struct qs_env *env, uint32_t number, struct qs_secret *ret,
		    struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = kek_path(number);
	int r = qs_key_load(env, path, ret, err);

	if (r == 0 && ret->size != KEK_L)
		r = qs_fail(err, QS_E_KEY_FILE, "%s has %zu bytes instead of %d", path, ret->size,
			    KEK_L);
	return r;
}

static int wrap_one(const struct qs_env *env, const struct qs_keystore *ks,
		    const struct qs_jwe_functions *jwe, struct qs_wrapping *w, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *kid = qs_keystore_kid(ks->store, w->generation);
	QS_AUTO(qs_secret_done) struct qs_secret kek = {};
	int r = load_kek(env, w->generation, &kek, err);

	return r < 0 ? r : jwe->wrap(&kek, kid, w->volume, &w->plain, &w->jwe, err);
}

static int wrap(const struct qs_env *env, const struct qs_keystore *ks, struct qs_wrapping *items,
		size_t count, struct qs_error *err)
{
	const struct qs_jwe_functions *jwe;
	int r = load_module(&jwe, err);

	for (size_t i = 0; r == 0 && i < count; i++)
		(void)wrap_one(env, ks, jwe, &items[i], &items[i].error);
	return r;
}

static int unwrap_one(const struct qs_env *env, const struct qs_jwe_functions *jwe,
		      struct qs_wrapping *w, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret kek = {};
	int r = load_kek(env, w->generation, &kek, err);

	return r < 0 ? r : jwe->unwrap(w->jwe, &kek, &w->plain, err);
}

static int unwrap(const struct qs_env *env, const struct qs_keystore *ks, struct qs_wrapping *items,
		  size_t count, struct qs_error *err)
{
	const struct qs_jwe_functions *jwe;
	int r = load_module(&jwe, err);

	(void)ks;
	for (size_t i = 0; r == 0 && i < count; i++)
		(void)unwrap_one(env, jwe, &items[i], &items[i].error);
	return r;
}

static int export_kek(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		      struct qs_secret *ret, struct qs_error *err)
{
	(void)ks;
	return load_kek(env, number, ret, err);
}

static int retire(const struct qs_env *env, uint32_t number, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = kek_path(number);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);

	return qs_file_erase(real, err);
}

const struct qs_provider qs_provider_local = {
	.name = "local",
	.health = health,
	.create = create,
	.wrap = wrap,
	.unwrap = unwrap,
	.export_kek = export_kek,
	.retire = retire,
};
