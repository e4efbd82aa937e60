/*
 * Opening: what the keystore's provider is asked before the workers begin, in one call for all
 * devices. They are looked at first where a provider has to know which KEKs are needed (it is
 * asked, or a TPM unseals them); files are read.
 */
#include <stdlib.h>

#include "base/cleanup.h"
#include "keystore/device.h"
#include "keystore/provider.h"
#include "ops/keystore.h"

struct look {
	const struct qs_env *env;
	const struct qs_open_request *requests;
	const bool *only;
	struct qs_keystore ks;
	uint32_t *generation; /* for each request, 0: none; and how its content key is wrapped */
	char **wrapped;
	bool ask; /* one of them has no other key at hand */
};

/* What the TPM gave is tried first; a disk that did not answer it is not asked again. */
static bool is_wanted(const struct look *l, size_t i)
{
	const struct qs_open_request *r = &l->requests[i];

	return r->keystore && (!l->only || l->only[i]) &&
	       !(r->tpm2 && (r->tpm2->there || r->tpm2->silent));
}

static int look_job(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		    struct qs_error *err)
{
	const struct look *l = cookie;
	QS_AUTO(qs_auto_free) char *wrapped = NULL;
	uint32_t generation =
		is_wanted(l, i) ? qs_open_keystore_peek(&l->requests[i], &l->ks, &wrapped) : 0;

	(void)worker;
	(void)err;
	*ret = json_pack("{s:I,s:s*}", "generation", (json_int_t)generation, "wrapped", wrapped);
	return 0;
}

static void look_done(size_t i, json_t *result, const struct qs_error *error, void *cookie)
{
	struct look *l = cookie;
	json_int_t found = json_integer_value(json_object_get(result, "generation"));
	const char *wrapped = json_string_value(json_object_get(result, "wrapped"));

	(void)error;
	if (found == 0)
		return;
	l->generation[i] = (uint32_t)found;
	l->wrapped[i] = wrapped ? qs_strdup(wrapped) : NULL;
	l->ask |= !qs_open_has_key_file(l->env, &l->requests[i]) && !l->requests[i].command;
}

int qs_open_prepare_keystore(const struct qs_env *env, const struct qs_open_request *requests,
			     size_t count, const bool *only, struct qs_error *err)
{
	struct look l = { .env = env, .requests = requests, .only = only };
	const struct qs_pool pool = {
		.workers = env->config.workers,
		.deadline_ms = QS_LOOK_MS,
		.job = look_job,
		.done = look_done,
		.cookie = &l,
	};
	size_t wanted = 0;
	int r;

	for (size_t i = 0; i < count; i++)
		wanted += is_wanted(&l, i);
	/* What is wrong with it is told of each device. */
	if (wanted == 0 || qs_keystore_load(env, &l.ks, NULL) < 0)
		return 0;
	if (!qs_keystore_wants_prepare(&l.ks))
		return qs_keystore_prepare_all(env, &l.ks, false, err);
	l.generation = calloc(count, sizeof(*l.generation));
	l.wrapped = calloc(count, sizeof(char *));
	r = l.generation && l.wrapped
		    ? qs_pool_run(&pool, count, err)
		    : qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", count);
	if (r == 0)
		r = qs_keystore_prepare_devices(env, &l.ks, l.generation, l.wrapped, count, l.ask,
						err);
	for (size_t i = 0; l.wrapped && i < count; i++)
		free(l.wrapped[i]);
	free(l.wrapped);
	free(l.generation);
	return r;
}
