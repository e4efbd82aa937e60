/*
 * The provider vault: content keys, wrapped and unwrapped at the server. Those of one key there go
 * in one request.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "keystore/transit-internal.h"

struct crypt_work {
	const char *name;
	uint32_t version; /* 0: decrypt */
	struct qs_transit_item *items;
	size_t count;
};

static int crypt_job(const struct qs_hcvault_functions *module,
		     const struct qs_hcvault_access *access, void *cookie, json_t **ret,
		     struct qs_error *err)
{
	const struct crypt_work *w = cookie;

	(void)ret;
	return module->crypt(access, w->name, w->version, w->items, w->count, err);
}

/* One key of the server's, and those of a batch that are its work. */
struct part {
	struct qs_transit_record record;
	struct qs_content_key **its;
	size_t count;
};

static void put(const struct qs_content_key *from, bool wrap, struct qs_transit_item *to)
{
	if (wrap)
		memcpy(to->key, from->key.data, sizeof(to->key));
	else
		memcpy(to->text, from->wrapped, strlen(from->wrapped) + 1);
}

static void take(const struct qs_transit_item *from, bool wrap, const struct qs_error *failed,
		 struct qs_content_key *to)
{
	if (!from->done) {
		to->error = from->error.kind != QS_E_NONE ? from->error : *failed;
		return;
	}
	if (wrap)
		to->wrapped = qs_strdup(from->text);
	else if (qs_secret_init(&to->key, sizeof(from->key), &to->error) == 0)
		memcpy(to->key.data, from->key, sizeof(from->key));
}

static int run_part(const struct qs_env *env, const struct part *p, bool wrap, struct qs_error *err)
{
	size_t size = p->count * sizeof(struct qs_transit_item);
	struct qs_error failed = {};
	struct crypt_work w = {
		.name = p->record.key,
		.version = wrap ? p->record.version : 0,
		.count = p->count,
	};
	void *memory = NULL;
	int r = qs_secret_share(&memory, size, err);

	if (r < 0)
		return r;
	w.items = memory;
	for (size_t i = 0; i < p->count; i++)
		put(p->its[i], wrap, &w.items[i]);
	if (qs_transit_call(env, &p->record, crypt_job, &w, NULL, &failed) < 0)
		qs_error_append(&failed, " (key %s)", p->record.key);
	for (size_t i = 0; i < p->count; i++)
		take(&w.items[i], wrap, &failed, p->its[i]);
	qs_secret_unshare(memory, size);
	return 0;
}

/* Which key of the server's an item is for. */
struct need {
	struct qs_transit_record record;
	bool todo;
};

static void find_need(const struct qs_env *env, struct qs_content_key *k, bool wrap,
		      struct need *ret)
{
	QS_AUTO(qs_auto_free) char *path = qs_transit_record_path(k->generation);
	int known = qs_transit_record_load(env, k->generation, &ret->record, &k->error);

	if (known == 0)
		(void)qs_fail(&k->error, QS_E_KEY_FILE,
			      "%s does not exist, so it is not known which key of the server is "
			      "generation %u; take it from a key bundle (keyrestore)",
			      path, (unsigned)k->generation);
	if (known == 1 && !wrap && !qs_transit_is_text(k->wrapped))
		(void)qs_fail(&k->error, QS_E_DAMAGED,
			      "its wrapped key is none of a Vault server's");
	ret->todo = k->error.kind == QS_E_NONE;
}

/* What of NEEDS can go into one request with FIRST; one version only is wrapped with at a time. */
static bool goes_with(const struct need *first, const struct need *n, bool wrap)
{
	return n->todo && strcmp(n->record.key, first->record.key) == 0 &&
	       strcmp(n->record.name_space, first->record.name_space) == 0 &&
	       qs_transit_same_login(&n->record, &first->record) &&
	       (!wrap || n->record.version == first->record.version);
}

static int run(const struct qs_env *env, struct qs_content_key *items, size_t count, bool wrap,
	       struct qs_error *err)
{
	struct qs_content_key **its = calloc(count + 1, sizeof(struct qs_content_key *));
	struct need *needs = calloc(count + 1, sizeof(*needs));
	int r = its && needs ? 0 : qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", count);

	for (size_t i = 0; r == 0 && i < count; i++)
		find_need(env, &items[i], wrap, &needs[i]);
	for (size_t i = 0; r == 0 && i < count; i++) {
		const struct need first = needs[i];
		struct part p = { .record = first.record, .its = its };

		for (size_t k = i; k < count; k++) {
			if (!goes_with(&first, &needs[k], wrap))
				continue;
			needs[k].todo = false;
			its[p.count++] = &items[k];
		}
		r = p.count > 0 ? run_part(env, &p, wrap, err) : 0;
	}
	free(its);
	free(needs);
	return r;
}

int qs_transit_wrap(const struct qs_env *env, const struct qs_keystore *ks,
		    struct qs_content_key *items, size_t count, struct qs_error *err)
{
	(void)ks;
	return run(env, items, count, true, err);
}

int qs_transit_unwrap(const struct qs_env *env, const struct qs_keystore *ks,
		      struct qs_content_key *items, size_t count, struct qs_error *err)
{
	(void)ks;
	return run(env, items, count, false, err);
}
