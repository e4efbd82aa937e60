/*
 * Device keys from one generation into another. What a wrapping holds, key and identity, is
 * carried over byte for byte: no keyslot is tried, as none is changed.
 *
 * A server that has wrapped a content key may be able to wrap it for the other generation by
 * itself: then the key is seen by nobody, and the JWE stays what it is, but for that one text.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "keystore/device.h"
#include "keystore/jwe.h"
#include "keystore/provider.h"

/* A batch on its way; as many of each as there are items. */
struct batch {
	const struct qs_env *env;
	const struct qs_keystore *ks;
	struct qs_rewrap *items;
	size_t count;
	struct qs_wrapping *old, *new, *again;
};

typedef int key_function(const struct qs_env *env, const struct qs_keystore *ks,
			 struct qs_wrapping *items, size_t count, struct qs_error *err);

/*
 * Is it still in question for this step? What is kept is over when it was unwrapped; what the
 * server has rewrapped begins with unwrapping it again.
 */
static bool takes_part(const struct batch *b, const struct qs_wrapping *all, size_t i)
{
	const struct qs_rewrap *item = &b->items[i];

	if (item->error.kind != QS_E_NONE)
		return false;
	if (all == b->old)
		return !item->made;
	return !item->keep && (all == b->again || !item->made);
}

/* Those that have not failed yet, in one call. */
static int call(const struct batch *b, key_function *function, struct qs_wrapping *all,
		struct qs_error *err)
{
	QS_AUTO(qs_auto_free) struct qs_wrapping *some = calloc(b->count, sizeof(*some));
	size_t n = 0;
	int r;

	if (!some)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", b->count);
	for (size_t i = 0; i < b->count; i++)
		if (takes_part(b, all, i))
			some[n++] = all[i];
	r = n ? function(b->env, b->ks, some, n, err) : 0;
	n = 0;
	for (size_t i = 0; i < b->count; i++) {
		if (!takes_part(b, all, i))
			continue;
		all[i] = some[n++];
		b->items[i].error = all[i].error;
	}
	return r;
}

static void begin(const struct batch *b, size_t i)
{
	struct qs_rewrap *item = &b->items[i];
	struct qs_keystore_token t;

	if (qs_keystore_token_parse(item->token, item->uuid, &t, &item->error) < 0 ||
	    qs_keystore_check_token(b->ks, &t, &item->error) < 0)
		return;
	b->old[i].generation = t.generation;
	b->old[i].jwe = json_incref((json_t *)t.jwe);
	b->new[i].generation = b->again[i].generation = item->target;
	b->new[i].volume = qs_keystore_volume(item->uuid, t.slot);
}

/* The token as the header will hold it, read back from its text. */
static void make(const struct batch *b, size_t i)
{
	struct qs_rewrap *item = &b->items[i];
	QS_AUTO(qs_auto_free) char *text = NULL;
	QS_AUTO(qs_auto_json) json_t *token = NULL;
	struct qs_keystore_token t;

	token = qs_keystore_token_make(b->ks, b->new[i].generation, QS_TAKE(b->new[i].jwe));
	(void)json_object_set(token, "keyslots", json_object_get(item->token, "keyslots"));
	text = json_dumps(token, JSON_COMPACT);
	item->made = text ? json_loads(text, 0, NULL) : NULL;
	if (qs_keystore_token_parse(item->made, item->uuid, &t, &item->error) == 0)
		b->again[i].jwe = json_incref((json_t *)t.jwe);
}

/* With its content key as KEY has it. */
static void hand_over(const struct batch *b, size_t i, const struct qs_content_key *key)
{
	if (key->error.kind != QS_E_NONE) {
		/* It goes the long way, if that is not to end like this, too. */
		if (qs_kind_retryable(key->error.kind))
			b->items[i].error = key->error;
		return;
	}
	b->new[i].jwe = json_deep_copy(b->old[i].jwe);
	if (json_object_set_new(json_object_get(b->new[i].jwe, "header"), QS_JWE_WRAPPED,
				json_string(key->wrapped)) < 0)
		(void)qs_fail(&b->items[i].error, QS_E_MEMORY, "no memory for its wrapped key");
	else
		make(b, i);
}

/* Who can rewrap the Ith without showing its key, or NULL. */
static const struct qs_provider *rewrapper(const struct batch *b, size_t i)
{
	return takes_part(b, b->new, i) && qs_jwe_wrapped(b->old[i].jwe)
		       ? qs_keystore_rewrapper(b->env, b->ks, b->old[i].generation,
					       b->new[i].generation)
		       : NULL;
}

/* All that go to the server of PROVIDER; before FIRST there is none. */
static int have_rewrapped(const struct batch *b, const struct qs_provider *provider, size_t first,
			  struct qs_error *err)
{
	struct qs_content_key *keys = calloc(b->count, sizeof(*keys));
	QS_AUTO(qs_auto_free) size_t *whose = calloc(b->count, sizeof(*whose));
	size_t n = 0;
	int r = keys && whose ? 0 : qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", b->count);

	for (size_t i = first; r == 0 && i < b->count; i++) {
		if (rewrapper(b, i) != provider)
			continue;
		whose[n] = i;
		keys[n++] = (struct qs_content_key){
			.generation = b->new[i].generation,
			.from = b->old[i].generation,
			.wrapped = qs_strdup(qs_jwe_wrapped(b->old[i].jwe)),
		};
	}
	if (r == 0)
		r = provider->rewrap(b->env, b->ks, keys, n, err);
	for (size_t i = 0; i < n; i++) {
		if (r == 0)
			hand_over(b, whose[i], &keys[i]);
		free(keys[i].wrapped);
	}
	free(keys);
	return r;
}

/* Each server once: what it could not do is not asked again. */
static int ask_servers(const struct batch *b, struct qs_error *err)
{
	const struct qs_provider *last = NULL;
	int r = 0;

	for (size_t i = 0; r == 0 && i < b->count; i++) {
		const struct qs_provider *p = rewrapper(b, i);

		if (!p || p == last)
			continue;
		last = p;
		r = have_rewrapped(b, p, i, err);
	}
	return r;
}

static int run(const struct batch *b, struct qs_error *err)
{
	int r;

	for (size_t i = 0; i < b->count; i++)
		begin(b, i);
	r = ask_servers(b, err);
	if (r == 0)
		r = call(b, qs_keystore_unwrap_keys, b->old, err);
	for (size_t i = 0; i < b->count; i++)
		b->new[i].plain = qs_secret_move(&b->old[i].plain);
	if (r == 0)
		r = call(b, qs_keystore_wrap_keys, b->new, err);
	for (size_t i = 0; r == 0 && i < b->count; i++)
		if (takes_part(b, b->new, i))
			make(b, i);
	if (r == 0)
		r = call(b, qs_keystore_unwrap_keys, b->again, err);
	for (size_t i = 0; r == 0 && i < b->count; i++)
		if (takes_part(b, b->again, i) && b->new[i].plain.data &&
		    !qs_secret_equal(&b->new[i].plain, &b->again[i].plain))
			(void)qs_fail(&b->items[i].error, QS_E_FAILED,
				      "generation %u unwraps another key than it was given",
				      (unsigned)b->new[i].generation);
	return r;
}

static void release(struct qs_wrapping *all, size_t count)
{
	for (size_t i = 0; all && i < count; i++)
		qs_wrapping_done(&all[i]);
	free(all);
}

int qs_keystore_rewrap(const struct qs_env *env, const struct qs_keystore *ks,
		       struct qs_rewrap *items, size_t count, struct qs_error *err)
{
	int r = 0;

	for (size_t from = 0; r == 0 && from < count; from += QS_REWRAP_BATCH) {
		size_t n = count - from < QS_REWRAP_BATCH ? count - from : QS_REWRAP_BATCH;
		struct batch b = {
			.env = env,
			.ks = ks,
			.items = items + from,
			.count = n,
			.old = calloc(n, sizeof(*b.old)),
			.new = calloc(n, sizeof(*b.new)),
			.again = calloc(n, sizeof(*b.again)),
		};

		r = b.old && b.new &&b.again
			    ? run(&b, err)
			    : qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", n);
		release(b.old, n);
		release(b.new, n);
		release(b.again, n);
	}
	return r;
}
