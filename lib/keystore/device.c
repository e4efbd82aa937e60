#include "keystore/device.h"

#include <string.h>

#include <libcryptsetup.h>

#include "base/cleanup.h"
#include "keystore/identity.h"
#include "keystore/provider.h"

int qs_keystore_check_token(const struct qs_keystore *ks, const struct qs_keystore_token *token,
			    struct qs_error *err)
{
	const char *provider;

	if (ks->state == QS_KEYSTORE_DISABLED)
		return qs_fail(err, QS_E_NO_KEY,
			       "its key is in the keystore, which is not on this machine: put it "
			       "back from a key bundle (qs-util keyrestore)");
	if (strcmp(token->store, ks->store) != 0)
		return qs_fail(err, QS_E_NO_KEY,
			       "its key was wrapped by another keystore (%s) than this machine's",
			       token->store);
	if (!qs_keystore_generation(ks, token->generation))
		return qs_fail(err, QS_E_NO_KEY,
			       "its key was wrapped by generation %u, which the keystore %s (%s)",
			       (unsigned)token->generation,
			       ks->count == 0 || token->generation >
							 ks->generations[ks->count - 1].number
				       ? "does not have yet"
				       : "no longer has",
			       QS_KEYSTORE_FILE);
	provider = qs_keystore_provider_name(ks, token->generation);
	if (strcmp(token->provider, provider) != 0)
		return qs_fail(err, QS_E_NO_KEY,
			       "its key was wrapped by the provider %s, and generation %u of the "
			       "keystore has %s",
			       token->provider, (unsigned)token->generation, provider);
	return 0;
}

static int unwrap(const struct qs_env *env, const struct qs_keystore *ks, struct crypt_device *cd,
		  const struct qs_keystore_token *t, struct qs_secret *ret,
		  struct qs_secret *ret_volume_key, struct qs_error *err)
{
	QS_AUTO(qs_wrapping_done) struct qs_wrapping w = { .generation = t->generation };
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	struct qs_identity identity;
	int r;

	w.jwe = json_incref((json_t *)t->jwe);
	r = qs_keystore_unwrap_keys(env, ks, &w, 1, err);
	if (r < 0)
		return r;
	if (w.error.kind != QS_E_NONE) {
		if (err)
			*err = w.error;
		return qs_negative(qs_kind_errno(w.error.kind));
	}
	r = qs_identity_unpack(&w.plain, &identity, &key, err);
	if (r == 0)
		r = qs_identity_check(cd, t->slot, &key, &identity, ret_volume_key, err);
	if (r == 0)
		*ret = qs_secret_move(&key);
	return r;
}

int qs_keystore_unwrap(const struct qs_env *env, const struct qs_keystore *ks,
		       struct crypt_device *cd, const json_t *token, struct qs_secret *ret,
		       struct qs_secret *ret_volume_key, struct qs_keystore_token *ret_token,
		       struct qs_error *err)
{
	int r = qs_keystore_token_parse(token, crypt_get_uuid(cd), ret_token, err);

	if (r == 0)
		r = qs_keystore_check_token(ks, ret_token, err);
	return r < 0 ? r : unwrap(env, ks, cd, ret_token, ret, ret_volume_key, err);
}

/* By the text that the header will hold, not by what is in memory. */
static int prove(const struct qs_env *env, const struct qs_keystore *ks, struct crypt_device *cd,
		 int slot, const json_t *token, const struct qs_secret *device_key,
		 struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *text = json_dumps(token, JSON_COMPACT);
	QS_AUTO(qs_auto_json) json_t *again = text ? json_loads(text, 0, NULL) : NULL;
	QS_AUTO(qs_secret_done) struct qs_secret found = {};
	struct qs_keystore_token parsed;
	json_t *slots = json_array();
	int r;

	(void)json_array_append_new(slots, json_sprintf("%d", slot));
	(void)json_object_set_new(again, "keyslots", slots);
	r = qs_keystore_unwrap(env, ks, cd, again, &found, NULL, &parsed, err);
	if (r == 0 && !qs_secret_equal(&found, device_key))
		r = qs_fail(err, QS_E_FAILED, "it unwraps to another key");
	if (r < 0)
		qs_error_prefix(err, "what the keystore wrapped cannot be unwrapped again");
	return r;
}

int qs_keystore_wrap(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		     struct crypt_device *cd, int slot, const struct qs_secret *device_key,
		     json_t **ret, struct qs_error *err)
{
	QS_AUTO(qs_wrapping_done) struct qs_wrapping w = { .generation = number };
	QS_AUTO(qs_auto_json) json_t *token = NULL;
	struct qs_identity identity = {};
	int r = qs_identity_take(cd, slot, device_key, &identity, err);

	if (r == 0)
		r = qs_identity_pack(&identity, device_key, &w.plain, err);
	if (r < 0)
		return r;
	w.volume = qs_keystore_volume(identity.uuid, slot);
	r = qs_keystore_wrap_keys(env, ks, &w, 1, err);
	if (r == 0 && w.error.kind != QS_E_NONE) {
		if (err)
			*err = w.error;
		r = qs_negative(qs_kind_errno(w.error.kind));
	}
	if (r < 0)
		return r;
	token = qs_keystore_token_make(ks, w.generation, QS_TAKE(w.jwe));
	r = prove(env, ks, cd, slot, token, device_key, err);
	if (r == 0)
		*ret = QS_TAKE(token);
	return r;
}
