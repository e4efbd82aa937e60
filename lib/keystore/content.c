/*
 * Content keys that a command gets once, ahead of the workers that need them: a hundred devices
 * cost one request to the server that keeps the KEK.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "keystore/session.h"

const struct qs_got_key *qs_keystore_session_content(const struct qs_env *env, const char *wrapped)
{
	const struct qs_keystore_session *s = env->keystore;

	for (size_t i = 0; s && i < s->got_count; i++)
		if (strcmp(s->got_wrapped[i], wrapped) == 0)
			return &s->got[i];
	return NULL;
}

/* Room for COUNT more; what is there is kept. */
static int grow(struct qs_keystore_session *s, size_t count, struct qs_error *err)
{
	size_t total = s->got_count + count;
	char **wrapped = calloc(total, sizeof(char *));
	void *memory = NULL;
	int r = wrapped ? qs_secret_share(&memory, total * sizeof(*s->got), err)
			: qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", total);

	if (r < 0) {
		free(wrapped);
		return r;
	}
	if (s->got_count > 0) {
		memcpy(memory, s->got, s->got_count * sizeof(*s->got));
		memcpy(wrapped, s->got_wrapped, s->got_count * sizeof(char *));
	}
	qs_secret_unshare(s->got, s->got_count * sizeof(*s->got));
	free(s->got_wrapped);
	s->got = memory;
	s->got_wrapped = wrapped;
	return 0;
}

int qs_keystore_session_get_content(const struct qs_env *env, const struct qs_keystore *ks,
				    const struct qs_provider *provider,
				    struct qs_content_key *items, size_t count,
				    struct qs_error *err)
{
	struct qs_keystore_session *s = qs_keystore_session_writable(env, NULL);
	struct qs_error failed = {};
	int r = s && count > 0 ? grow(s, count, err) : 0;

	if (r < 0 || !s || count == 0)
		return r;
	r = provider->unwrap(env, ks, items, count, &failed);
	for (size_t i = 0; i < count; i++) {
		struct qs_got_key *got = &s->got[s->got_count];

		got->there = r == 0 && items[i].error.kind == QS_E_NONE && items[i].key.data;
		got->error = r < 0 ? failed : items[i].error;
		if (got->there)
			memcpy(got->bytes, items[i].key.data, sizeof(got->bytes));
		s->got_wrapped[s->got_count++] = qs_strdup(items[i].wrapped);
	}
	return 0;
}

/* ---- for wrapping ---- */

static int share_ready(struct qs_keystore_session *s, struct qs_error *err)
{
	void *memory = s->ready;
	int r = memory ? 0 : qs_secret_share(&memory, sizeof(*s->ready), err);

	if (r < 0)
		return r;
	s->ready = memory;
	*s->ready = (struct qs_ready_keys){};
	return 0;
}

static int refuse(const struct qs_error *why, struct qs_error *err)
{
	if (err)
		*err = *why;
	return qs_negative(qs_kind_errno(why->kind));
}

/* The provider gives back what it was given, all of it. */
static int compare(const struct qs_keystore_session *s, size_t from,
		   const struct qs_content_key *made, size_t count, struct qs_error *err)
{
	for (size_t i = 0; i < count; i++) {
		struct qs_got_key *got = &s->got[from + i];
		const struct qs_secret back = { got->bytes, sizeof(got->bytes) };

		if (!got->there)
			return refuse(&got->error, err);
		if (!qs_secret_equal(&back, &made[i].key))
			return qs_fail(err, QS_E_FAILED,
				       "generation %u unwraps another key than it was given",
				       (unsigned)made[i].generation);
	}
	return 0;
}

static int wrap_all(const struct qs_env *env, const struct qs_keystore *ks,
		    const struct qs_provider *provider, uint32_t number,
		    struct qs_content_key *made, size_t count, struct qs_error *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < count; i++) {
		made[i].generation = number;
		r = qs_secret_random(&made[i].key, QS_KEK_L, err);
	}
	if (r == 0)
		r = provider->wrap(env, ks, made, count, err);
	for (size_t i = 0; r == 0 && i < count; i++)
		if (made[i].error.kind != QS_E_NONE)
			r = refuse(&made[i].error, err);
	return r;
}

static int make(const struct qs_env *env, const struct qs_keystore *ks,
		const struct qs_provider *provider, uint32_t number, struct qs_content_key *made,
		struct qs_content_key *again, size_t count, struct qs_error *err)
{
	struct qs_keystore_session *s = env->keystore;
	size_t from = s->got_count;
	int r = share_ready(s, err);

	if (r == 0)
		r = wrap_all(env, ks, provider, number, made, count, err);
	for (size_t i = 0; r == 0 && i < count; i++) {
		again[i].generation = number;
		again[i].wrapped = made[i].wrapped;
	}
	if (r == 0)
		r = qs_keystore_session_get_content(env, ks, provider, again, count, err);
	if (r == 0)
		r = compare(s, from, made, count, err);
	if (r == 0)
		*s->ready = (struct qs_ready_keys){ number, from, count, 0 };
	return r;
}

int qs_keystore_session_make_content(const struct qs_env *env, const struct qs_keystore *ks,
				     const struct qs_provider *provider, uint32_t number,
				     size_t count, struct qs_error *err)
{
	struct qs_content_key *made = NULL, *again = NULL;
	int r;

	if (!qs_keystore_session_writable(env, NULL) || count == 0)
		return 0;
	made = calloc(count, sizeof(*made));
	again = calloc(count, sizeof(*again));
	r = made && again ? make(env, ks, provider, number, made, again, count, err)
			  : qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", count);
	for (size_t i = 0; made && again && i < count; i++) {
		qs_secret_done(&made[i].key);
		qs_secret_done(&again[i].key);
		free(made[i].wrapped);
	}
	free(made);
	free(again);
	return r;
}

const struct qs_got_key *qs_keystore_session_take_content(const struct qs_env *env, uint32_t number,
							  const char **ret_wrapped)
{
	const struct qs_keystore_session *s = env->keystore;
	struct qs_ready_keys *ready = s ? s->ready : NULL;
	size_t i;

	if (!ready || ready->generation != number)
		return NULL;
	i = __atomic_fetch_add(&ready->taken, 1, __ATOMIC_RELAXED);
	if (i >= ready->count)
		return NULL;
	*ret_wrapped = s->got_wrapped[ready->from + i];
	return &s->got[ready->from + i];
}
