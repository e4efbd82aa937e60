#include "keystore/session.h"

#include <string.h>

#define SIZE (QS_KEYSTORE_GENERATIONS * sizeof(struct qs_kek))

void qs_keystore_session_done(struct qs_keystore_session *s)
{
	qs_secret_unshare(s->keks, SIZE);
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
	if (s->count >= QS_KEYSTORE_GENERATIONS)
		return qs_fail(err, QS_E_FAILED, "more than %d generations are asked for at once",
			       QS_KEYSTORE_GENERATIONS);
	*ret = &s->keks[s->count++];
	**ret = (struct qs_kek){ .generation = generation };
	memcpy((*ret)->store, store, strnlen(store, QS_KEYSTORE_UUID_L - 1));
	return 0;
}
