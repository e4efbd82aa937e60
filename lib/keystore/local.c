/*
 * The provider "local": each generation's KEK is a file that only root may read.
 */
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "key/keyfile.h"
#include "keystore/provider.h"
#include "keystore/session.h"

static char *kek_path(uint32_t number)
{
	return qs_printf("%s/%u.kek", QS_KEYSTORE_DIR, (unsigned)number);
}

static int health(const struct qs_env *env, struct qs_error *err)
{
	(void)env;
	return qs_kek_health(err);
}

static int create(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		  struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = kek_path(number);
	QS_AUTO(qs_secret_done) struct qs_secret kek = {};
	int r = qs_secret_random(&kek, QS_KEK_L, err);

	(void)ks;
	return r < 0 ? r : qs_key_store(env, path, &kek, false, err);
}

static int load(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = kek_path(number);
	int r = qs_key_load(env, path, ret, err);

	(void)ks;
	if (r == 0 && ret->size != QS_KEK_L)
		r = qs_fail(err, QS_E_KEY_FILE, "%s has %zu bytes instead of %d", path, ret->size,
			    QS_KEK_L);
	if (r < 0)
		qs_error_append(err,
				" (generation %u of the keystore; a key bundle has it, too: "
				"keyrestore)",
				(unsigned)number);
	return r;
}

/* Only what is wrong with it: nobody looks at a KEK to tell that. */
static json_t *key_of(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number)
{
	QS_AUTO(qs_auto_free) char *path = kek_path(number);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
	QS_AUTO(qs_secret_done) struct qs_secret kek = {};
	struct qs_error err = {};
	struct stat st;

	if ((lstat(real, &st) == 0 && st.st_size == QS_KEK_L) ||
	    load(env, ks, number, &kek, &err) == 0)
		return NULL;
	return json_pack("{s:s}", "problem", err.text);
}

static int retire(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		  struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = kek_path(number);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);

	(void)ks;
	return qs_file_erase(real, err);
}

const struct qs_provider qs_provider_local = {
	.name = "local",
	.suffix = "kek",
	.health = health,
	.create = create,
	.get = load,
	.key = key_of,
	.retire = retire,
};
