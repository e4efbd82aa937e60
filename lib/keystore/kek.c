/*
 * Wrapping and unwrapping keys of one provider: with a KEK at hand, or with a content key that
 * the provider wraps.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "keystore/jwe.h"
#include "keystore/provider.h"
#include "keystore/session.h"

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

struct batch {
	const struct qs_env *env;
	const struct qs_keystore *ks;
	const struct qs_jwe_functions *jwe;
	struct qs_wrapping *const *items;
	size_t count;
};

/* ---- with a KEK ---- */

/* What the last key of a call needed: one KEK is got once for all keys of its generation. */
struct last {
	uint32_t number;
	struct qs_secret kek;
};

static int get_kek(const struct batch *b, struct last *last, struct qs_wrapping *w)
{
	if (last->kek.data && last->number == w->generation)
		return 0;
	qs_secret_done(&last->kek);
	last->number = w->generation;
	return qs_keystore_kek(b->env, b->ks, w->generation, &last->kek, &w->error);
}

static void wrap_by_kek(const struct batch *b)
{
	struct last last = {};

	for (size_t i = 0; i < b->count; i++) {
		struct qs_wrapping *w = b->items[i];
		QS_AUTO(qs_auto_free) char *kid = qs_keystore_kid(b->ks->store, w->generation);

		if (get_kek(b, &last, w) == 0)
			(void)b->jwe->wrap(&last.kek, kid, w->volume, NULL, &w->plain, &w->jwe,
					   &w->error);
	}
	qs_secret_done(&last.kek);
}

static void unwrap_by_kek(const struct batch *b)
{
	struct last last = {};

	for (size_t i = 0; i < b->count; i++) {
		struct qs_wrapping *w = b->items[i];

		if (get_kek(b, &last, w) == 0)
			(void)b->jwe->unwrap(w->jwe, &last.kek, &w->plain, &w->error);
	}
	qs_secret_done(&last.kek);
}

/* ---- with a content key ---- */

static void release(struct qs_content_key *keys, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		qs_secret_done(&keys[i].key);
		free(keys[i].wrapped);
	}
	free(keys);
}

static void wrap_with(const struct batch *b, const struct qs_secret *key, const char *wrapped,
		      struct qs_wrapping *w)
{
	QS_AUTO(qs_auto_free) char *kid = qs_keystore_kid(b->ks->store, w->generation);

	(void)b->jwe->wrap(key, kid, w->volume, wrapped, &w->plain, &w->jwe, &w->error);
}

/* With a key that was made ahead, if one is left. */
static bool wrap_with_ready(const struct batch *b, struct qs_wrapping *w)
{
	const char *wrapped = NULL;
	const struct qs_got_key *ready =
		qs_keystore_session_take_content(b->env, w->generation, &wrapped);
	struct qs_secret key = {};

	if (!ready)
		return false;
	key = (struct qs_secret){ (void *)ready->bytes, sizeof(ready->bytes) };
	wrap_with(b, &key, wrapped, w);
	return true;
}

static int wrap_content_keys(const struct batch *b, const struct qs_provider *provider,
			     struct qs_content_key *keys, struct qs_error *err)
{
	QS_AUTO(qs_auto_free)
	struct qs_wrapping **asked = calloc(b->count + 1, sizeof(struct qs_wrapping *));
	size_t n = 0;
	int r = asked ? 0 : qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", b->count);

	for (size_t i = 0; r == 0 && i < b->count; i++) {
		if (wrap_with_ready(b, b->items[i]))
			continue;
		asked[n] = b->items[i];
		keys[n].generation = asked[n]->generation;
		r = qs_secret_random(&keys[n++].key, QS_KEK_L, err);
	}
	if (r == 0 && n > 0)
		r = provider->wrap(b->env, b->ks, keys, n, err);
	for (size_t i = 0; r == 0 && i < n; i++) {
		asked[i]->error = keys[i].error;
		if (keys[i].error.kind == QS_E_NONE)
			wrap_with(b, &keys[i].key, keys[i].wrapped, asked[i]);
	}
	return r;
}

/* A key that was got ahead, or why it was not. */
static void use_got(const struct batch *b, const struct qs_got_key *got, struct qs_wrapping *w)
{
	const struct qs_secret key = { (void *)got->bytes, sizeof(got->bytes) };

	if (got->there)
		(void)b->jwe->unwrap(w->jwe, &key, &w->plain, &w->error);
	else
		w->error = got->error;
}

static int unwrap_content_keys(const struct batch *b, const struct qs_provider *provider,
			       struct qs_content_key *keys, struct qs_error *err)
{
	struct qs_wrapping **asked = calloc(b->count + 1, sizeof(struct qs_wrapping *));
	size_t n = 0;
	int r = asked ? 0 : qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", b->count);

	for (size_t i = 0; r == 0 && i < b->count; i++) {
		struct qs_wrapping *w = b->items[i];
		const struct qs_got_key *got =
			qs_keystore_session_content(b->env, qs_jwe_wrapped(w->jwe));

		if (got) {
			use_got(b, got, w);
			continue;
		}
		asked[n] = w;
		keys[n].generation = w->generation;
		keys[n++].wrapped = qs_strdup(qs_jwe_wrapped(w->jwe));
	}
	if (r == 0 && n > 0)
		r = provider->unwrap(b->env, b->ks, keys, n, err);
	for (size_t i = 0; r == 0 && i < n; i++) {
		asked[i]->error = keys[i].error;
		if (keys[i].error.kind == QS_E_NONE)
			(void)b->jwe->unwrap(asked[i]->jwe, &keys[i].key, &asked[i]->plain,
					     &asked[i]->error);
	}
	free(asked);
	return r;
}

/* ---- either ---- */

int qs_provider_wrap(const struct qs_provider *provider, const struct qs_env *env,
		     const struct qs_keystore *ks, struct qs_wrapping *const *items, size_t count,
		     struct qs_error *err)
{
	struct batch b = { .env = env, .ks = ks, .items = items, .count = count };
	struct qs_content_key *keys;
	int r = load_module(&b.jwe, err);

	if (r < 0)
		return r;
	if (!provider->wrap) {
		wrap_by_kek(&b);
		return 0;
	}
	keys = calloc(count + 1, sizeof(*keys));
	if (!keys)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", count);
	r = wrap_content_keys(&b, provider, keys, err);
	release(keys, count);
	return r;
}

/* A wrapping says itself how it was made; PROVIDER may be able to do both. */
static size_t choose(struct qs_wrapping *const *items, size_t count, bool content_key,
		     const struct qs_provider *provider, struct qs_wrapping **ret)
{
	bool can = content_key ? provider->unwrap != NULL : provider->get || provider->fetch;
	size_t n = 0;

	for (size_t i = 0; i < count; i++) {
		if ((qs_jwe_wrapped(items[i]->jwe) != NULL) != content_key)
			continue;
		if (can)
			ret[n++] = items[i];
		else
			(void)qs_fail(&items[i]->error, QS_E_DAMAGED,
				      "its key was not wrapped in the way of the provider %s",
				      provider->name);
	}
	return n;
}

int qs_provider_unwrap(const struct qs_provider *provider, const struct qs_env *env,
		       const struct qs_keystore *ks, struct qs_wrapping *const *items, size_t count,
		       struct qs_error *err)
{
	QS_AUTO(qs_auto_free)
	struct qs_wrapping **some = calloc(count + 1, sizeof(struct qs_wrapping *));
	struct batch b = { .env = env, .ks = ks, .items = some };
	struct qs_content_key *keys = calloc(count + 1, sizeof(*keys));
	int r = some && keys ? load_module(&b.jwe, err)
			     : qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", count);

	if (r == 0) {
		b.count = choose(items, count, false, provider, some);
		unwrap_by_kek(&b);
		b.count = choose(items, count, true, provider, some);
		r = b.count > 0 ? unwrap_content_keys(&b, provider, keys, err) : 0;
	}
	if (keys)
		release(keys, count);
	return r;
}
