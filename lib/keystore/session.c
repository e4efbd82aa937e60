#include "keystore/session.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "hcvault/hcvault.h"

/* Of each generation, and of its lease the TPM's key: the one that it has, and one made anew. */
#define KEKS_MAX ((size_t)3 * QS_KEYSTORE_GENERATIONS)
#define SIZE (KEKS_MAX * sizeof(struct qs_kek))

void qs_keystore_session_done(struct qs_keystore_session *s)
{
	qs_secret_unshare(s->keks, SIZE);
	qs_secret_unshare(s->got, s->got_count * sizeof(*s->got));
	qs_secret_unshare(s->ready, sizeof(*s->ready));
	for (size_t i = 0; i < s->login_count; i++) {
		qs_secret_unshare(s->logins[i].login, sizeof(*s->logins[i].login));
		free(s->logins[i].who);
	}
	qs_secret_unshare(s->silence, sizeof(*s->silence));
	for (size_t i = 0; i < s->got_count; i++)
		free(s->got_wrapped[i]);
	free(s->got_wrapped);
	qs_secret_done(&s->asked);
	*s = (struct qs_keystore_session){};
}

struct qs_kek *qs_keystore_session_find(const struct qs_keystore_session *s, const char *store,
					uint32_t generation)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->keks[i].generation == generation && strcmp(s->keks[i].store, store) == 0)
			return &s->keks[i];
	return NULL;
}

int qs_keystore_session_add(struct qs_keystore_session *s, const char *store, uint32_t generation,
			    struct qs_kek **ret, struct qs_error *err)
{
	void *memory = s->keks;
	int r = memory ? 0 : qs_secret_share(&memory, SIZE, err);

	if (r < 0)
		return r;
	s->keks = memory;
	if (s->count >= KEKS_MAX)
		return qs_fail(err, QS_E_FAILED, "more than %zu keys are asked for at once",
			       KEKS_MAX);
	*ret = &s->keks[s->count++];
	**ret = (struct qs_kek){ .generation = generation };
	memcpy((*ret)->store, store, strnlen(store, QS_KEYSTORE_UUID_L - 1));
	return 0;
}

struct qs_keystore_session *qs_keystore_session_writable(const struct qs_env *env,
							 struct qs_keystore_session *own)
{
	struct qs_keystore_session *s = env->keystore;

	return s && s->owner == getpid() ? s : own;
}

int qs_keystore_session_copy(const struct qs_kek *kek, struct qs_secret *ret, struct qs_error *err)
{
	int r;

	if (!kek->there) {
		if (err)
			*err = kek->error;
		return qs_negative(qs_kind_errno(kek->error.kind));
	}
	r = qs_secret_init(ret, sizeof(kek->bytes), err);
	if (r == 0)
		memcpy(ret->data, kek->bytes, sizeof(kek->bytes));
	return r;
}

/* The KEK, there or failed, that somebody has got already; NULL: nobody has. */
static const struct qs_kek *known(const struct qs_env *env, const struct qs_keystore *ks,
				  uint32_t number)
{
	return env->keystore ? qs_keystore_session_find(env->keystore, ks->store, number) : NULL;
}

/* What there is no room for is read again each time. */
static void remember(struct qs_keystore_session *s, const char *store, uint32_t number,
		     const struct qs_secret *key)
{
	struct qs_kek *kek = NULL;

	if (key->size != sizeof(kek->bytes) ||
	    qs_keystore_session_add(s, store, number, &kek, NULL) < 0)
		return;
	memcpy(kek->bytes, key->data, sizeof(kek->bytes));
	kek->there = true;
}

int qs_keystore_session_read(const struct qs_env *env, const struct qs_keystore *ks,
			     uint32_t number, qs_kek_get *get, struct qs_secret *ret,
			     struct qs_error *err)
{
	struct qs_keystore_session *s = qs_keystore_session_writable(env, NULL);
	const struct qs_kek *kek = known(env, ks, number);
	int r;

	if (kek)
		return qs_keystore_session_copy(kek, ret, err);
	r = get(env, ks, number, ret, err);
	if (r == 0 && s)
		remember(s, ks->store, number, ret);
	return r;
}

int qs_keystore_session_prepare(const struct qs_env *env, const struct qs_keystore *ks,
				const uint32_t *numbers, size_t count, bool ask,
				qs_kek_fetch *fetch, struct qs_error *err)
{
	struct qs_keystore_session *s = qs_keystore_session_writable(env, NULL);

	return s ? fetch(env, s, ks, numbers, count, ask, err) : 0;
}

int qs_keystore_session_get(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
			    qs_kek_fetch *fetch, struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_keystore_session_done) struct qs_keystore_session own = {};
	struct qs_keystore_session *s = qs_keystore_session_writable(env, &own);
	const struct qs_kek *kek = known(env, ks, number);
	int r;

	if (kek)
		return qs_keystore_session_copy(kek, ret, err);
	r = fetch(env, s, ks, &number, 1, false, err);
	return r < 0 ? r
		     : qs_keystore_session_copy(qs_keystore_session_find(s, ks->store, number), ret,
						err);
}
