/*
 * The keys of a bundle, for opening devices without any file: each in a
 * struct qs_secret, matched to its device by the manifest.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "ops/bundle.h"

struct taking {
	const struct qs_manifest *manifest;
	struct qs_bundle_keys *ret;
};

static int copy_secret(const struct qs_secret *from, struct qs_secret *ret, struct qs_error *err)
{
	int r = qs_secret_init(ret, from->size, err);

	if (r == 0)
		memcpy(ret->data, from->data, from->size);
	return r;
}

/* One key may open several devices: each gets a copy. */
static int take_key(struct qs_member *m, void *cookie, struct qs_error *err)
{
	const struct taking *t = cookie;
	int r = 0;

	if (m->kind != QS_MEMBER_KEY || !m->content.data)
		return 0;
	for (size_t i = 0; r == 0 && i < t->manifest->count; i++)
		if (strcmp(t->manifest->devices[i].key, m->name) == 0)
			r = copy_secret(&m->content, &t->ret->keys[i], err);
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
		r = qs_bundle_each(b, take_key, &t, err);
	if (r < 0)
		return r;
	*ret = keys;
	keys = (struct qs_bundle_keys){};
	return 0;
}

void qs_bundle_keys_done(struct qs_bundle_keys *keys)
{
	for (size_t i = 0; i < keys->count; i++) {
		qs_manifest_device_done(&keys->devices[i]);
		qs_secret_done(&keys->keys[i]);
	}
	free(keys->devices);
	free(keys->keys);
	*keys = (struct qs_bundle_keys){};
}
