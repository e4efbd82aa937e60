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
