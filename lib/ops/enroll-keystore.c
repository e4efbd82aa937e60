/*
 * cryptenroll --keystore: a keyslot whose key only the keystore has. The slot is made
 * in memory; its key is wrapped for just that slot, unwrapped again from the text that the
 * header will hold, and compared, before anything is written. Enrolling again replaces
 * the keyslot that this keystore had: the new one is there, proven and backed up, before the
 * old one goes.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "keystore/device.h"
#include "keystore/identity.h"
#include "keystore/provider.h"
#include "luks/kind.h"
#include "ops/enroll.h"
#include "ops/keystore.h"

/* Until the batch is done, so that the keystore is not disabled meanwhile. */
static int lock_together(struct qs_enroll_batch *b, struct qs_error *err)
{
	struct qs_keystore ks;
	struct qs_error why = {};
	uint32_t number;
	int r = -ENOLCK;

	(void)err;
	b->lock = qs_keystore_lock(b->env, b->env->config.lock_wait_s * 1000, &why);
	if (b->lock >= 0)
		r = qs_keystore_load_enabled(b->env, &ks, &why);
	number = r == 0 ? qs_keystore_wraps_with(&ks) : 0;
	if (r == 0)
		(void)qs_keystore_prepare(b->env, &ks, &number, 1, true, &why);
	for (size_t i = 0; i < b->count; i++)
		if (why.kind != QS_E_NONE && b->outcomes->items[i].error.kind == QS_E_NONE)
			b->outcomes->items[i].error = why;
	return 0;
}

static int make_keystore(struct qs_enroll *e, struct qs_error *err)
{
	return qs_secret_random(&e->secret, QS_DEVICE_KEY_L, err);
}

/* The slot's number is known only now, and the wrapping is bound to it. */
static int wrap_keystore(struct qs_enroll *e, const char *salt, struct qs_error *err)
{
	struct qs_keystore ks;
	int r = qs_keystore_load_enabled(e->env, &ks, err);

	(void)salt;
	json_decref(e->token);
	e->token = NULL;
	if (r == 0)
		r = qs_keystore_wrap(e->env, &ks, e->slots.cd, e->slot, &e->secret, &e->token, err);
	if (r == 0)
		r = qs_slots_set_token(&e->slots, e->token, e->slot, err);
	if (r == 0)
		(void)json_object_set_new(e->result, "generation",
					  json_integer(qs_keystore_wraps_with(&ks)));
	return r;
}

/* The salt of another keyslot whose one token is of this store, or NULL. */
static const char *find_old(const struct qs_enroll *e, const char *store)
{
	json_t *tokens = json_object_get(e->slots.header.json, "tokens"), *json;
	const char *number;

	json_object_foreach(tokens, number, json)
	{
		struct qs_keystore_token t;

		if (qs_keystore_token_is(json) &&
		    qs_keystore_token_parse(json, e->slots.header.uuid, &t, NULL) == 0 &&
		    t.slot != e->slot && strcmp(t.store, store) == 0)
			return qs_slots_salt(e->slots.header.json, t.slot);
	}
	return NULL;
}

static int replace_old(struct qs_enroll *e, struct qs_error *err)
{
	struct qs_keystore ks;
	const char *salt;
	int r = qs_keystore_load_enabled(e->env, &ks, err);

	while (r == 0 && (salt = find_old(e, ks.store))) {
		free(e->drop);
		e->drop = qs_strdup(salt);
		r = qs_enroll_drop(e, err);
	}
	return r;
}

const struct qs_enroll_method qs_enroll_keystore = {
	.name = "keystore",
	.kind = QS_KIND_KEYSTORE,
	.together = lock_together,
	.make = make_keystore,
	.before = wrap_keystore,
	.settle = replace_old,
};
