#include "keystore/provider.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define PROBE_L 64 /* bytes, as a device key has */

static const struct qs_provider *const providers[] = { &qs_provider_local, &qs_provider_tpm2,
						       &qs_provider_kmip };

const struct qs_provider *qs_provider_find(const char *name)
{
	for (size_t i = 0; i < QS_ARRAY_SIZE(providers); i++)
		if (strcmp(providers[i]->name, name) == 0)
			return providers[i];
	return NULL;
}

int qs_keystore_prepare(const struct qs_env *env, const struct qs_keystore *ks,
			const uint32_t *generations, size_t count, bool ask, struct qs_error *err)
{
	const struct qs_provider *provider = qs_provider_find(ks->provider);

	return provider && provider->prepare && count > 0
		       ? provider->prepare(env, ks, generations, count, ask, err)
		       : 0;
}

int qs_keystore_prepare_all(const struct qs_env *env, const struct qs_keystore *ks, bool ask,
			    struct qs_error *err)
{
	uint32_t all[QS_KEYSTORE_GENERATIONS];

	for (size_t i = 0; i < ks->count; i++)
		all[i] = ks->generations[i].number;
	return qs_keystore_prepare(env, ks, all, ks->count, ask, err);
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

int qs_keystore_probe(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		      struct qs_error *err)
{
	const struct qs_provider *provider = qs_provider_find(ks->provider);
	QS_AUTO(qs_wrapping_done)
	struct qs_wrapping in = { .generation = number, .volume = qs_strdup("probe") };
	QS_AUTO(qs_wrapping_done) struct qs_wrapping out = { .generation = number };
	int r = qs_secret_random(&in.plain, PROBE_L, err);

	if (r == 0)
		r = provider->wrap(env, ks, &in, 1, err);
	if (r < 0)
		return r;
	out.jwe = json_incref(in.jwe);
	if (in.jwe)
		r = provider->unwrap(env, ks, &out, 1, err);
	if (r < 0)
		return r;
	if (in.error.kind != QS_E_NONE || out.error.kind != QS_E_NONE)
		return qs_fail(err, QS_E_FAILED, "generation %u cannot wrap and unwrap a key: %s",
			       (unsigned)number, in.jwe ? out.error.text : in.error.text);
	if (!qs_secret_equal(&in.plain, &out.plain))
		return qs_fail(err, QS_E_FAILED,
			       "generation %u unwraps another key than it was given",
			       (unsigned)number);
	return 0;
}
