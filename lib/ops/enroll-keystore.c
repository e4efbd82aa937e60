/*
 * cryptenroll --keystore: a keyslot whose key only the keystore has. The slot is made
 * in memory; its key is wrapped for just that slot, unwrapped again from the text that the
 * header will hold, and compared, before anything is written. Enrolling again replaces
 * the keyslot that this keystore had: the new one is there, proven and backed up, before the
 * old one goes.
 *
 * keystore rewrap moves a device with a key file into the keystore; what comes on top of the
 * steps in enroll.c:
 *
 *   step                                left behind                    second run
 *   journal, with the key file's slot   + journal                      goes on with that slot
 *   enrolled, read again, opened by it  both open                      enrols anew
 *   line in crypttab without key file   both open                      finds it so
 *   the key file's slot revoked         the key file opens nothing     goes on
 *   key file, journal                   finished                       "has no key file"
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "key/keyfile.h"
#include "key/place.h"
#include "keystore/device.h"
#include "keystore/identity.h"
#include "keystore/provider.h"
#include "luks/kind.h"
#include "ops/enroll.h"
#include "ops/keystore.h"
#include "tab/crypttab.h"

/* Until the batch is done, so that the keystore is not disabled meanwhile. */
static int lock_together(struct qs_enroll_batch *b, struct qs_error *err)
{
	struct qs_keystore ks = {};
	struct qs_error why = {};
	uint32_t number;
	int r = -ENOLCK;

	(void)err;
	b->lock = qs_keystore_lock(b->env, b->env->config.lock_wait_s * 1000, &why);
	if (b->lock >= 0)
		r = qs_keystore_load_enabled(b->env, &ks, &why);
	number = r == 0 ? qs_keystore_wraps_with(&ks) : 0;
	if (r == 0)
		(void)qs_keystore_prepare_wrapping(b->env, &ks, number, b->count, true, &why);
	for (size_t i = 0; i < b->count; i++)
		if (why.kind != QS_E_NONE && b->outcomes->items[i].error.kind == QS_E_NONE)
			b->outcomes->items[i].error = why;
	return 0;
}

static int make_keystore(struct qs_enroll *e, struct qs_error *err)
{
	return qs_secret_random(&e->secret, QS_DEVICE_KEY_L, err);
}

/* Another keyslot's one token that is of this store. */
static bool find_old(const struct qs_enroll *e, const char *store, struct qs_keystore_token *ret)
{
	json_t *tokens = json_object_get(e->slots.header.json, "tokens"), *json;
	const char *number;

	json_object_foreach(tokens, number, json)
	{
		if (qs_keystore_token_is(json) &&
		    qs_keystore_token_parse(json, e->slots.header.uuid, ret, NULL) == 0 &&
		    ret->slot != e->slot && strcmp(ret->store, store) == 0)
			return true;
	}
	return false;
}

/* That of a key for some devices only stays with that key. */
static uint32_t choose_generation(const struct qs_enroll *e, const struct qs_keystore *ks)
{
	struct qs_keystore_token old;

	return find_old(e, ks->store, &old) ? qs_keystore_successor(ks, old.generation)
					    : qs_keystore_wraps_with(ks);
}

/* The slot's number is known only now, and the wrapping is bound to it. */
static int wrap_keystore(struct qs_enroll *e, const char *salt, struct qs_error *err)
{
	struct qs_keystore ks;
	uint32_t number = 0;
	int r = qs_keystore_load_enabled(e->env, &ks, err);

	(void)salt;
	json_decref(e->token);
	e->token = NULL;
	if (r == 0) {
		number = choose_generation(e, &ks);
		r = qs_keystore_wrap(e->env, &ks, number, e->slots.cd, e->slot, &e->secret,
				     &e->token, err);
	}
	if (r == 0)
		r = qs_slots_set_token(&e->slots, e->token, e->slot, err);
	if (r == 0)
		(void)json_object_set_new(e->result, "generation", json_integer(number));
	return r;
}

static int replace_old(struct qs_enroll *e, struct qs_error *err)
{
	struct qs_keystore_token old;
	struct qs_keystore ks;
	int r = qs_keystore_load_enabled(e->env, &ks, err);

	while (r == 0 && find_old(e, ks.store, &old)) {
		free(e->drop);
		e->drop = qs_strdup(qs_slots_salt(e->slots.header.json, old.slot));
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

/* ---- a device of a key file goes into the keystore ---- */

/* Not usual_key() of enroll-rekey.c: a line that names no key file has none. */
static int prepare_move(struct qs_enroll *e, struct qs_error *err)
{
	int there = 0;

	if (e->pending.op[0]) {
		e->file = qs_strdup(e->pending.key_file);
		return 0;
	}
	for (size_t i = 0; there == 0 && i < QS_OPEN_KEYS && e->request.key_files[i]; i++) {
		if (!qs_key_is_in_dir(e->env, e->request.key_files[i]))
			continue;
		there = qs_enroll_exists(e, e->request.key_files[i], err);
		if (there == 1)
			e->file = qs_strdup(e->request.key_files[i]);
	}
	if (there < 0)
		return there;
	return e->file ? 0
		       : qs_fail(err, QS_E_KEY_FILE, "%s has no key file in %s", e->dev->node,
				 e->env->config.keys_dir);
}

/* The slot that will go is written down: later its key file opens nothing that could tell. */
static int make_move(struct qs_enroll *e, struct qs_error *err)
{
	const char *salt = NULL;
	int r = 0;

	if (!e->pending.op[0]) {
		r = qs_enroll_key_slot(e, &salt, err);
		free(e->drop);
		e->drop = qs_strdup(salt);
	}
	/* Written again at a second run: the first may not have synced it. */
	if (r == 0)
		r = qs_enroll_note(e, e->file, e->drop, err);
	return r < 0 ? r : make_keystore(e, err);
}

static int undo_move(struct qs_enroll *e)
{
	return qs_journal_remove(e->env, e->name, NULL);
}

/* The line's own options stay, and no boot waits for a passphrase that nobody has. */
static int change_line(const struct qs_enroll *e, struct qs_error *err)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	QS_AUTO(qs_auto_close) int lock = qs_tab_lock(e->env, err);
	QS_AUTO(qs_auto_free) char *options = NULL;
	QS_AUTO(qs_auto_free) char *name = NULL;
	QS_AUTO(qs_auto_free) char *device = NULL;
	const struct qs_crypttab_entry *line;
	int r = lock < 0 ? lock : qs_crypttab_load(e->env, &tab, err);

	if (r < 0)
		return r;
	line = qs_open_line_of(e->env, tab, e->dev, e->slots.header.uuid);
	if (!line || !line->key || line->key[0] != '/')
		return 0;
	name = qs_strdup(line->name);
	device = qs_strdup(line->device);
	options = qs_key_line_options(e->env, QS_CRYPTTAB_NO_KEY,
				      line->options ? line->options
						    : e->env->config.crypttab_options);
	r = qs_crypttab_set(tab, name, device, QS_CRYPTTAB_NO_KEY, options, err);
	return r <= 0 ? r : qs_crypttab_save(e->env, tab, err);
}

/* From here on it opens by the keystore alone: shown by what lies on the disk. */
static int settle_move(struct qs_enroll *e, struct qs_error *err)
{
	char *drop = QS_TAKE(e->drop);
	struct qs_keystore ks;
	int r = replace_old(e, err);

	free(e->drop);
	e->drop = drop;
	if (r == 0)
		r = qs_keystore_load_enabled(e->env, &ks, err);
	if (r == 0)
		r = qs_keystore_prove(e->env, &ks, e->dev->node, err);
	return r < 0 ? r : change_line(e, err);
}

static int close_move(struct qs_enroll *e, struct qs_error *err)
{
	int shared = qs_key_is_shared(e->env, e->request.name, e->file, err);
	int r = shared ? shared : qs_key_erase(e->env, e->file, err);

	if (r < 0)
		return r;
	(void)json_object_set_new(e->result, shared ? "key_kept" : "key_erased",
				  json_string(e->file));
	return qs_journal_remove(e->env, e->name, err);
}

const struct qs_enroll_method qs_enroll_keystore_move = {
	.name = "keystore-move",
	.kind = QS_KIND_KEYSTORE,
	.op = "rewrap",
	.prepare = prepare_move,
	.together = lock_together,
	.make = make_move,
	.before = wrap_keystore,
	.undo = undo_move,
	.settle = settle_move,
	.close = close_move,
};
