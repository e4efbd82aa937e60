#include "keystore/provider.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "keystore/lease.h"
#include "keystore/session.h"

#define PROBE_L 64 /* bytes, as a device key has */

static const struct qs_provider *const providers[] = { &qs_provider_local, &qs_provider_tpm2,
						       &qs_provider_kmip, &qs_provider_kmip_wrap,
						       &qs_provider_vault };

const struct qs_provider *qs_provider_at(size_t i)
{
	return i < QS_ARRAY_SIZE(providers) ? providers[i] : NULL;
}

const struct qs_provider *qs_provider_find(const char *name)
{
	for (size_t i = 0; i < QS_ARRAY_SIZE(providers); i++)
		if (strcmp(providers[i]->name, name) == 0)
			return providers[i];
	return NULL;
}

const struct qs_provider *qs_keystore_provider(const struct qs_keystore *ks, uint32_t number)
{
	return qs_provider_find(qs_keystore_provider_name(ks, number));
}

int qs_keystore_no_record(const char *path, uint32_t number, struct qs_error *err)
{
	return qs_fail(err, QS_E_KEY_FILE,
		       "%s does not exist, so it is not known which key of the server is "
		       "generation %u; take it from a key bundle (keyrestore)",
		       path, (unsigned)number);
}

static bool is_left(const struct qs_env *env, const struct qs_provider *provider)
{
	return provider->network && env->keystore && env->keystore->local;
}

const struct qs_provider *qs_keystore_rewrapper(const struct qs_env *env,
						const struct qs_keystore *ks, uint32_t from,
						uint32_t to)
{
	const struct qs_provider *p = qs_keystore_provider(ks, from);

	return p->rewrap && p == qs_keystore_provider(ks, to) && !is_left(env, p) ? p : NULL;
}

static int prepare_one(const struct qs_env *env, const struct qs_keystore *ks,
		       const struct qs_provider *provider, const uint32_t *numbers, size_t count,
		       bool ask, struct qs_error *err)
{
	struct qs_keystore_session *s = qs_keystore_session_writable(env, NULL);
	int r = qs_keystore_session_prepare(env, ks, numbers, count, ask, provider->fetch, err);

	if (r == 0 && s && provider->network && qs_lease_is_wanted(env) && !s->no_lease)
		qs_lease_use(env, s, ks, numbers, count);
	return r;
}

/* What is wrong with a file is told by each use of it. */
static void read_all(const struct qs_env *env, const struct qs_keystore *ks,
		     const uint32_t *numbers, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		QS_AUTO(qs_secret_done) struct qs_secret kek = {};

		(void)qs_keystore_kek(env, ks, numbers[i], &kek, NULL);
	}
}

int qs_keystore_prepare(const struct qs_env *env, const struct qs_keystore *ks,
			const uint32_t *generations, size_t count, bool ask, struct qs_error *err)
{
	int r = 0;

	for (size_t p = 0; r == 0 && p < QS_ARRAY_SIZE(providers); p++) {
		uint32_t its[QS_KEYSTORE_GENERATIONS];
		size_t n = 0;

		for (size_t i = 0; i < count && n < QS_KEYSTORE_GENERATIONS; i++)
			if (qs_keystore_provider(ks, generations[i]) == providers[p])
				its[n++] = generations[i];
		if (providers[p]->get && qs_keystore_session_writable(env, NULL))
			read_all(env, ks, its, n);
		if (n > 0 && providers[p]->fetch && !is_left(env, providers[p]))
			r = prepare_one(env, ks, providers[p], its, n, ask, err);
		if (n > 0 && r == 0 && providers[p]->log_in && !is_left(env, providers[p]))
			r = providers[p]->log_in(env, ks, its, n, err);
	}
	return r;
}

int qs_keystore_prepare_all(const struct qs_env *env, const struct qs_keystore *ks, bool ask,
			    struct qs_error *err)
{
	uint32_t all[QS_KEYSTORE_GENERATIONS];

	for (size_t i = 0; i < ks->count; i++)
		all[i] = ks->generations[i].number;
	return qs_keystore_prepare(env, ks, all, ks->count, ask, err);
}

bool qs_keystore_wants_prepare(const struct qs_keystore *ks)
{
	for (size_t i = 0; i < ks->count; i++) {
		const struct qs_provider *p = qs_keystore_provider(ks, ks->generations[i].number);

		if (p->fetch || p->unwrap)
			return true;
	}
	return false;
}

static int prepare_content(const struct qs_env *env, const struct qs_keystore *ks,
			   const struct qs_provider *provider, const uint32_t *generations,
			   char *const *wrapped, size_t count, struct qs_error *err)
{
	struct qs_content_key *keys = calloc(count + 1, sizeof(*keys));
	size_t n = 0;
	int r;

	if (!keys)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", count);
	for (size_t i = 0; i < count; i++)
		if (wrapped[i] && qs_keystore_provider(ks, generations[i]) == provider &&
		    !qs_keystore_session_content(env, wrapped[i]))
			keys[n++] = (struct qs_content_key){ .generation = generations[i],
							     .wrapped = wrapped[i] };
	r = qs_keystore_session_get_content(env, ks, provider, keys, n, err);
	for (size_t i = 0; i < n; i++)
		qs_secret_done(&keys[i].key);
	free(keys);
	return r;
}

/* Add NUMBER, which the keystore has, unless it is there. */
static size_t add_number(uint32_t *list, size_t count, uint32_t number)
{
	for (size_t i = 0; i < count; i++)
		if (list[i] == number)
			return count;
	list[count] = number;
	return count + 1;
}

int qs_keystore_prepare_devices(const struct qs_env *env, const struct qs_keystore *ks,
				const uint32_t *generations, char *const *wrapped, size_t count,
				bool ask, struct qs_error *err)
{
	uint32_t by_kek[QS_KEYSTORE_GENERATIONS];
	size_t n = 0;
	int r = 0;

	for (size_t p = 0; r == 0 && p < QS_ARRAY_SIZE(providers); p++)
		if (providers[p]->unwrap && !is_left(env, providers[p]))
			r = prepare_content(env, ks, providers[p], generations, wrapped, count,
					    err);
	for (size_t i = 0; i < count; i++)
		if (!wrapped[i] && qs_keystore_generation(ks, generations[i]))
			n = add_number(by_kek, n, generations[i]);
	return r < 0 ? r : qs_keystore_prepare(env, ks, by_kek, n, ask, err);
}

int qs_keystore_prepare_wrapping(const struct qs_env *env, const struct qs_keystore *ks,
				 uint32_t number, size_t count, bool ask, struct qs_error *err)
{
	const struct qs_provider *provider = qs_keystore_provider(ks, number);

	if (!provider->wrap || is_left(env, provider))
		return qs_keystore_prepare(env, ks, &number, 1, ask, err);
	return qs_keystore_session_make_content(env, ks, provider, number, count, err);
}

int qs_keystore_kek(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		    struct qs_secret *ret, struct qs_error *err)
{
	const struct qs_provider *p = qs_keystore_provider(ks, number);

	if (p->get)
		return qs_keystore_session_read(env, ks, number, p->get, ret, err);
	if (p->fetch)
		return qs_keystore_session_get(env, ks, number, p->fetch, ret, err);
	return qs_fail(err, QS_E_FAILED, "the provider %s gives no key away", p->name);
}

typedef int by_provider(const struct qs_provider *provider, const struct qs_env *env,
			const struct qs_keystore *ks, struct qs_wrapping *const *items,
			size_t count, struct qs_error *err);

static void leave(struct qs_wrapping *const *items, size_t count)
{
	for (size_t i = 0; i < count; i++)
		(void)qs_fail(
			&items[i]->error, QS_E_TEMPORARY,
			"its key is at a key server, and none is asked in this turn (--local)");
}

static int by_each_provider(const struct qs_env *env, const struct qs_keystore *ks,
			    struct qs_wrapping *items, size_t count, by_provider *function,
			    struct qs_error *err)
{
	QS_AUTO(qs_auto_free)
	struct qs_wrapping **its = calloc(count + 1, sizeof(struct qs_wrapping *));
	int r = its ? 0 : qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", count);

	for (size_t p = 0; r == 0 && p < QS_ARRAY_SIZE(providers); p++) {
		size_t n = 0;

		for (size_t i = 0; i < count; i++)
			if (qs_keystore_provider(ks, items[i].generation) == providers[p])
				its[n++] = &items[i];
		if (is_left(env, providers[p]))
			leave(its, n);
		else
			r = n > 0 ? function(providers[p], env, ks, its, n, err) : 0;
	}
	return r;
}

int qs_keystore_wrap_keys(const struct qs_env *env, const struct qs_keystore *ks,
			  struct qs_wrapping *items, size_t count, struct qs_error *err)
{
	return by_each_provider(env, ks, items, count, qs_provider_wrap, err);
}

int qs_keystore_unwrap_keys(const struct qs_env *env, const struct qs_keystore *ks,
			    struct qs_wrapping *items, size_t count, struct qs_error *err)
{
	return by_each_provider(env, ks, items, count, qs_provider_unwrap, err);
}

int qs_keystore_check_key(const struct qs_env *env, const struct qs_provider *provider,
			  const struct qs_keystore *ks, struct qs_error *err)
{
	if (!env->keystore || !env->keystore->key_id)
		return 0;
	if (!provider->check_key)
		return qs_fail(
			err, QS_E_USAGE,
			"--key-id is for keys of a key server; the provider %s makes its own",
			provider->name);
	return provider->check_key(env, ks, err);
}

void qs_wrapping_done(struct qs_wrapping *w)
{
	free(w->volume);
	qs_secret_done(&w->plain);
	json_decref(w->jwe);
	*w = (struct qs_wrapping){};
}

char *qs_keystore_volume(const char *uuid, int slot)
{
	return qs_printf("%s/%d", uuid, slot);
}

char *qs_keystore_kid(const char *store, uint32_t generation)
{
	return qs_printf("%s/%u", store, (unsigned)generation);
}

static int probe(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		 enum qs_kind *ret_no_wrap, struct qs_error *err)
{
	QS_AUTO(qs_wrapping_done)
	struct qs_wrapping in = { .generation = number, .volume = qs_strdup("probe") };
	QS_AUTO(qs_wrapping_done) struct qs_wrapping out = { .generation = number };
	int r = qs_secret_random(&in.plain, PROBE_L, err);

	if (r == 0)
		r = qs_keystore_wrap_keys(env, ks, &in, 1, err);
	if (r < 0)
		return r;
	out.jwe = json_incref(in.jwe);
	if (in.jwe)
		r = qs_keystore_unwrap_keys(env, ks, &out, 1, err);
	if (r < 0)
		return r;
	*ret_no_wrap = in.error.kind;
	if (in.error.kind != QS_E_NONE || out.error.kind != QS_E_NONE)
		return qs_fail(err, in.jwe ? out.error.kind : in.error.kind,
			       "generation %u cannot wrap and unwrap a key: %s", (unsigned)number,
			       in.jwe ? out.error.text : in.error.text);
	if (!qs_secret_equal(&in.plain, &out.plain))
		return qs_fail(err, QS_E_FAILED,
			       "generation %u unwraps another key than it was given",
			       (unsigned)number);
	return 0;
}

int qs_keystore_probe(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		      struct qs_error *err)
{
	enum qs_kind ignored;

	return probe(env, ks, number, &ignored, err);
}

int qs_keystore_probe_any(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
			  struct qs_error *err)
{
	const struct qs_keystore_generation *g = qs_keystore_generation(ks, number);
	bool wraps = !g || g == qs_keystore_head(ks, g->line);
	enum qs_kind no_wrap = QS_E_NONE;
	struct qs_error own = {};
	int r = probe(env, ks, number, &no_wrap, &own);

	/* That there is no such key is another matter, and who hands out a KEK always wraps. */
	if (r < 0 && !wraps && qs_keystore_provider(ks, number)->wrap &&
	    (no_wrap == QS_E_FAILED || no_wrap == QS_E_NOT_PERMITTED))
		return 0;
	if (r < 0 && err)
		*err = own;
	return r;
}
