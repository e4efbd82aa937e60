/*
 * The keys of a bundle, for opening devices without any file: each in a
 * struct qs_secret, matched to its device by the manifest; and the files of the keystore.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "keystore/keystore.h"
#include "ops/bundle.h"

struct taking {
	const struct qs_manifest *manifest;
	struct qs_bundle_keys *ret;
};

/* Destroyed devices (cryptconf/retired/), of the same kind, are not opened. */
static int take_store(struct qs_member *m, struct qs_held_files *held, struct qs_error *err)
{
	void *paths, *contents;

	if (strncmp(m->name, QS_MEMBER_KEYSTORE, strlen(QS_MEMBER_KEYSTORE)) != 0)
		return 0;
	paths = reallocarray(held->paths, held->count + 1, sizeof(char *));
	held->paths = paths ? paths : held->paths;
	contents = reallocarray(held->contents, held->count + 1, sizeof(*held->contents));
	held->contents = contents ? contents : held->contents;
	if (!paths || !contents)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu files", held->count + 1);
	held->paths[held->count] =
		qs_printf("%s/%s", QS_KEYSTORE_DIR, m->name + strlen(QS_MEMBER_KEYSTORE));
	held->contents[held->count++] = qs_secret_move(&m->content);
	return 0;
}

/* One key may open several devices: each gets a copy. */
static int take_member(struct qs_member *m, void *cookie, struct qs_error *err)
{
	const struct taking *t = cookie;
	int r = 0;

	if (m->kind == QS_MEMBER_STORE)
		return take_store(m, &t->ret->keystore, err);
	if (m->kind != QS_MEMBER_KEY || !m->content.data)
		return 0;
	for (size_t i = 0; r == 0 && i < t->manifest->count; i++)
		if (strcmp(t->manifest->devices[i].key, m->name) == 0)
			r = qs_secret_copy(&m->content, &t->ret->keys[i], err);
	return r;
}

static int copy_devices(const struct qs_manifest *m, struct qs_bundle_keys *ret,
			struct qs_error *err)
{
	ret->devices = calloc(m->count + 1, sizeof(*ret->devices));
	ret->keys = calloc(m->count + 1, sizeof(*ret->keys));
	if (!ret->devices || !ret->keys)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", m->count);
	for (size_t i = 0; i < m->count; i++)
		qs_manifest_device_copy(&m->devices[i], &ret->devices[i]);
	ret->count = m->count;
	ret->keystore.dir = QS_KEYSTORE_DIR;
	return 0;
}

int qs_bundle_keys_load(const struct qs_env *env, const char *file,
			const struct qs_bundle_unlock *unlock, struct qs_bundle_keys *ret,
			struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *absolute = qs_env_absolute(file);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, absolute);
	QS_AUTO(qs_auto_bundle) struct qs_bundle *b = NULL;
	QS_AUTO(qs_bundle_keys_done) struct qs_bundle_keys keys = {};
	struct taking t = { .ret = &keys };
	int r;

	qs_secret_lock_all();
	r = qs_bundle_open(env, real, unlock, &b, err);
	if (r < 0)
		return r;
	t.manifest = qs_bundle_manifest(b);
	r = copy_devices(t.manifest, &keys, err);
	if (r == 0)
		r = qs_bundle_each(b, take_member, &t, err);
	if (r < 0)
		return r;
	*ret = keys;
	keys = (struct qs_bundle_keys){};
	return 0;
}

const struct qs_held_files *qs_bundle_keystore(const struct qs_bundle_keys *keys)
{
	for (size_t i = 0; i < keys->keystore.count; i++)
		if (strcmp(keys->keystore.paths[i], QS_KEYSTORE_FILE) == 0)
			return &keys->keystore;
	return NULL;
}

void qs_bundle_keys_done(struct qs_bundle_keys *keys)
{
	for (size_t i = 0; i < keys->count; i++) {
		qs_manifest_device_done(&keys->devices[i]);
		qs_secret_done(&keys->keys[i]);
	}
	for (size_t i = 0; i < keys->keystore.count; i++) {
		free(keys->keystore.paths[i]);
		qs_secret_done(&keys->keystore.contents[i]);
	}
	free(keys->keystore.paths);
	free(keys->keystore.contents);
	free(keys->devices);
	free(keys->keys);
	*keys = (struct qs_bundle_keys){};
}
