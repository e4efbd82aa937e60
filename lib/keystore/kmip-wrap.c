/*
 * The provider kmip-wrap: content keys, which the server encrypts and decrypts by a key that never
 * leaves it. All of a call go there in one conversation, whatever their generations.
 *
 * They are bound to nothing there, as the JWE that a content key is for is bound to its volume.
 * Where the server has AES-GCM, a changed one is refused by it; with AES-CBC it gives another
 * key, and it is the JWE (A256GCM) that does not open.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "keystore/kmip-internal.h"

struct work {
	bool wrap;
	struct qs_kmip_item *items; /* in shared memory */
	size_t count;
};

static int crypt_job(const struct qs_kmip_functions *module, const struct qs_kmip_access *access,
		     void *cookie, json_t **ret, struct qs_error *err)
{
	const struct work *w = cookie;

	(void)ret;
	return module->crypt(access, w->wrap, w->items, w->count, err);
}

static int load_record(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		       struct qs_kmip_record *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_kmip_record_path(number);
	int known = qs_kmip_record_load(env, ks, number, ret, err);

	if (known < 0)
		return known;
	if (known == 0)
		return qs_kmip_no_record(number, err);
	if (ret->cipher == QS_KMIP_NO_CIPHER)
		return qs_fail(err, QS_E_CONFIG,
			       "%s does not say how the server encrypts: take it from a key bundle "
			       "(keyrestore)",
			       path);
	return 0;
}

/* What the server is to be asked; false: K has an error. */
static bool put(const struct qs_env *env, const struct qs_keystore *ks, bool wrap,
		struct qs_content_key *k, struct qs_kmip_item *ret)
{
	struct qs_kmip_wrapped w = {};
	struct qs_kmip_record record;

	if (load_record(env, ks, k->generation, &record, &k->error) < 0)
		return false;
	memcpy(ret->uid, record.uid, sizeof(ret->uid));
	if (wrap) {
		ret->encrypted.cipher = record.cipher;
		memcpy(ret->key, k->key.data, sizeof(ret->key));
		return true;
	}
	if (qs_kmip_wrapped_parse(k->wrapped, &w) < 0)
		return qs_fail(&k->error, QS_E_DAMAGED,
			       "its wrapped key is none of a KMIP server's") == 0;
	/* A header is foreign: it does not choose which of the server's keys is used. */
	if (strcmp(w.uid, record.uid) != 0)
		return qs_fail(&k->error, QS_E_NO_KEY,
			       "its key was wrapped by another key of the server's than %s, which is "
			       "generation %u",
			       record.uid, (unsigned)k->generation) == 0;
	ret->encrypted = w.encrypted;
	return true;
}

static void take(const struct qs_kmip_item *from, bool wrap, const struct qs_error *failed,
		 struct qs_content_key *to)
{
	struct qs_kmip_wrapped w = { .encrypted = from->encrypted };

	if (!from->done) {
		to->error = from->error.kind != QS_E_NONE ? from->error : *failed;
		qs_error_append(&to->error, " (generation %u of the keystore)",
				(unsigned)to->generation);
		return;
	}
	if (wrap) {
		memcpy(w.uid, from->uid, sizeof(w.uid));
		to->wrapped = qs_kmip_wrapped_print(&w);
		return;
	}
	if (qs_secret_init(&to->key, sizeof(from->key), &to->error) == 0)
		memcpy(to->key.data, from->key, sizeof(from->key));
}

static int run(const struct qs_env *env, const struct qs_keystore *ks, struct qs_content_key *keys,
	       size_t count, bool wrap, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) size_t *asked = calloc(count + 1, sizeof(*asked)); /* of KEYS */
	struct work w = { .wrap = wrap };
	size_t size = (count + 1) * sizeof(struct qs_kmip_item);
	struct qs_error failed = {};
	void *memory = NULL;
	int r = asked ? qs_secret_share(&memory, size, err)
		      : qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", count);

	if (r < 0)
		return r;
	w.items = memory;
	for (size_t i = 0; i < count; i++)
		if (put(env, ks, wrap, &keys[i], &w.items[w.count]))
			asked[w.count++] = i;
	if (w.count > 0)
		(void)qs_kmip_call(env, crypt_job, &w, NULL, &failed);
	for (size_t i = 0; i < w.count; i++)
		take(&w.items[i], wrap, &failed, &keys[asked[i]]);
	qs_secret_unshare(memory, size);
	return 0;
}

int qs_kmip_wrap_keys(const struct qs_env *env, const struct qs_keystore *ks,
		      struct qs_content_key *items, size_t count, struct qs_error *err)
{
	return run(env, ks, items, count, true, err);
}

int qs_kmip_unwrap_keys(const struct qs_env *env, const struct qs_keystore *ks,
			struct qs_content_key *items, size_t count, struct qs_error *err)
{
	return run(env, ks, items, count, false, err);
}
