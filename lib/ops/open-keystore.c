/*
 * The keystore's part in opening one device.
 */
#include <string.h>

#include <libcryptsetup.h>

#include "base/cleanup.h"
#include "keystore/device.h"
#include "keystore/jwe.h"
#include "keystore/session.h"
#include "luks/fields.h"
#include "ops/keystore.h"

uint32_t qs_open_keystore_peek(const struct qs_open_request *request, const struct qs_keystore *ks,
			       char **ret_wrapped)
{
	const struct qs_device dev = { .node = request->node };
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	struct qs_keystore_token t;
	const json_t *token;
	int number;

	if (qs_device_peek_header(&dev, &h, NULL) < 0)
		return 0;
	token = qs_keystore_token_find(h.json, &number);
	if (!token || !ks)
		return token != NULL;
	if (qs_keystore_token_parse(token, h.uuid, &t, NULL) < 0 ||
	    qs_keystore_check_token(ks, &t, NULL) < 0)
		return 0;
	if (ret_wrapped && qs_jwe_wrapped(t.jwe))
		*ret_wrapped = qs_strdup(qs_jwe_wrapped(t.jwe));
	return t.generation;
}

bool qs_open_keystore_has(const struct qs_env *env, const struct qs_open_request *request)
{
	QS_AUTO(qs_auto_free) char *wrapped = NULL;
	const struct qs_got_key *got = NULL;
	const struct qs_kek *known = NULL;
	struct qs_keystore ks;
	uint32_t generation;

	if (!request->keystore || qs_keystore_load(env, &ks, NULL) < 0)
		return false;
	generation = qs_open_keystore_peek(request, &ks, &wrapped);
	if (env->keystore)
		known = qs_keystore_session_find(env->keystore, ks.store, generation);
	if (wrapped)
		got = qs_keystore_session_content(env, wrapped);
	return generation > 0 && (!known || known->there) && (!got || got->there);
}

static int open_with(struct qs_worker *worker, const struct qs_open_request *request,
		     struct crypt_device *cd, const struct qs_luks_header *h, int slot,
		     const struct qs_secret *key, const struct qs_secret *volume_key,
		     struct qs_error *err)
{
	struct qs_unlock how = qs_open_how(request, slot, worker);

	how.volume_key = volume_key;
	if (request->attempt)
		return request->attempt(request->attempt_cookie, key, err);
	return qs_luks_unlock_loaded(cd, request->node, h, key, &how, err);
}

/*
 * One load for all of it, so that nothing can change between the check of the identity
 * and what is activated.
 */
int qs_open_by_keystore(const struct qs_env *env, struct qs_worker *worker,
			const struct qs_open_request *request, json_t **ret, bool *ret_final,
			struct qs_error *err)
{
	QS_AUTO(qs_auto_cd) struct crypt_device *cd = NULL;
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	QS_AUTO(qs_secret_done) struct qs_secret volume_key = {};
	struct qs_keystore_token t = {};
	struct qs_keystore ks;
	const json_t *token;
	struct qs_error own = {};
	int number, r;

	if (!qs_open_keystore_peek(request, NULL, NULL))
		return 1;
	*ret_final = true;
	r = qs_luks_load(env, request->node, request->name, &cd, &h, err);
	if (r < 0)
		return r;
	token = qs_keystore_token_find(h.json, &number);
	r = token ? qs_keystore_load(env, &ks, &own) : 1;
	if (r == 0)
		r = qs_keystore_unwrap(env, &ks, cd, token, &key, &volume_key, &t, &own);
	*ret_final = own.kind == QS_E_HOSTILE;
	if (r < 0 && env->held)
		qs_error_append(&own, " (by the keystore in the bundle%s)",
				own.kind == QS_E_CONFIG
					? ", which may have what is missing here: "
					  "`qs-util keyrestore`, then `qs-util cryptopenall`"
					: "");
	if (r < 0 && err)
		*err = own;
	if (r != 0)
		return r;
	r = open_with(worker, request, cd, &h, t.slot, &key, &volume_key, err);
	if (r >= 0)
		*ret = json_pack("{s:i,s:i,s:i}", "token", number, "keyslot", r,
				 "keystore_generation", (int)t.generation);
	/* The key fits its keyslot; in attempts that keyslot may be excluded. */
	*ret_final = !request->attempt;
	return r < 0 ? r : 0;
}

/* "generation", and "key" where that is one of a key server's. */
static json_t *describe(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number)
{
	const struct qs_provider *provider = qs_keystore_provider(ks, number);

	return json_pack("{s:i,s:o*}", "generation", (int)number, "key",
			 provider->key ? provider->key(env, ks, number) : NULL);
}

int qs_keystore_describe(const struct qs_env *env, const struct qs_luks_header *h, json_t *keyslots,
			 struct qs_error *err)
{
	struct qs_keystore_token t;
	struct qs_keystore ks;
	json_t *slot;
	size_t i;
	int number;
	const json_t *token = qs_keystore_token_find(h->json, &number);

	int r;

	if (!token || qs_keystore_token_parse(token, h->uuid, &t, NULL) < 0)
		return 0;
	r = qs_keystore_load(env, &ks, err);
	if (r == 0)
		r = qs_keystore_check_token(&ks, &t, err);
	if (r < 0)
		return r;
	json_array_foreach(keyslots, i, slot)
	{
		if (json_integer_value(json_object_get(slot, "number")) == t.slot)
			(void)json_object_set_new(slot, "keystore",
						  describe(env, &ks, t.generation));
	}
	return 0;
}

json_t *qs_keystore_look(const struct qs_env *env, struct crypt_device *cd,
			 const struct qs_luks_header *h, int *ret_slot)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	struct qs_keystore_token t = { .slot = -1 };
	struct qs_keystore ks;
	struct qs_error err = {};
	int number, r;
	const json_t *token = qs_keystore_token_find(h->json, &number);

	if (!token)
		return NULL;
	r = qs_keystore_load(env, &ks, &err);
	if (r == 0)
		r = qs_keystore_unwrap(env, &ks, cd, token, &key, NULL, &t, &err);
	*ret_slot = qs_fields_slot(
		json_string_value(json_array_get(json_object_get(token, "keyslots"), 0)) ?: "");
	if (r < 0)
		return json_pack("{s:s}", "problem", err.text);
	return describe(env, &ks, t.generation);
}
