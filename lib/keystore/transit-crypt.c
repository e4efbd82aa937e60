/*
 * The provider vault: content keys, wrapped, unwrapped and rewrapped at the server. Those of one
 * key there go in one request.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "keystore/transit-internal.h"

struct crypt_work {
	enum qs_transit_verb verb;
	const char *name;
	uint32_t version;
	struct qs_transit_item *items;
	size_t count;
};

static int crypt_job(const struct qs_hcvault_functions *module,
		     const struct qs_hcvault_access *access, void *cookie, json_t **ret,
		     struct qs_error *err)
{
	const struct crypt_work *w = cookie;

	(void)ret;
	return module->crypt(access, w->verb, w->name, w->version, w->items, w->count, err);
}

/* One key of the server's, and those of a batch that are its work. */
struct part {
	struct qs_transit_record record;
	struct qs_content_key **its;
	size_t count;
};

static void put(const struct qs_content_key *from, enum qs_transit_verb verb,
		struct qs_transit_item *to)
{
	if (verb == QS_TRANSIT_ENCRYPT)
		memcpy(to->key, from->key.data, sizeof(to->key));
	else
		memcpy(to->text, from->wrapped, strlen(from->wrapped) + 1);
}

static void take(const struct qs_transit_item *from, enum qs_transit_verb verb,
		 const struct qs_error *failed, struct qs_content_key *to)
{
	if (!from->done) {
		to->error = from->error.kind != QS_E_NONE ? from->error : *failed;
		return;
	}
	if (verb != QS_TRANSIT_DECRYPT) {
		free(to->wrapped);
		to->wrapped = qs_strdup(from->text);
	}
	if (verb == QS_TRANSIT_DECRYPT &&
	    qs_secret_init(&to->key, sizeof(from->key), &to->error) < 0)
		return;
	/* In encrypting it may be the server that has made the key. */
	if (verb != QS_TRANSIT_REWRAP)
		memcpy(to->key.data, from->key, sizeof(from->key));
}

static int run_part(const struct qs_env *env, const struct part *p, enum qs_transit_verb verb,
		    struct qs_error *err)
{
	size_t size = p->count * sizeof(struct qs_transit_item);
	struct qs_error failed = {};
	struct crypt_work w = {
		.verb = verb,
		.name = p->record.key,
		.version = p->record.version,
		.count = p->count,
	};
	void *memory = NULL;
	int r = qs_secret_share(&memory, size, err);

	if (r < 0)
		return r;
	w.items = memory;
	for (size_t i = 0; i < p->count; i++)
		put(p->its[i], verb, &w.items[i]);
	if (qs_transit_call(env, &p->record, crypt_job, &w, NULL, &failed) < 0)
		qs_error_append(&failed, " (key %s)", p->record.key);
	for (size_t i = 0; i < p->count; i++)
		take(&w.items[i], verb, &failed, p->its[i]);
	qs_secret_unshare(memory, size);
	return 0;
}

/* Which key of the server's an item is for. */
struct need {
	struct qs_transit_record record;
	bool todo;
};

/* *ret: of generation NUMBER. */
static bool load(const struct qs_env *env, uint32_t number, struct qs_transit_record *ret,
		 struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_transit_record_path(number);
	int known = qs_transit_record_load(env, number, ret, err);

	if (known == 0)
		(void)qs_keystore_no_record(path, number, err);
	return known == 1;
}

/* Can what K holds be of generation NUMBER? A header is foreign: it may say anything. */
static bool check_text(struct qs_content_key *k, uint32_t number,
		       const struct qs_transit_record *record)
{
	if (!qs_transit_is_text(k->wrapped))
		return qs_fail(&k->error, QS_E_DAMAGED,
			       "its wrapped key is none of a Vault server's") == 0;
	if (qs_transit_is_of_version(k->wrapped, record->version))
		return true;
	return qs_fail(&k->error, QS_E_NO_KEY,
		       "its key was wrapped by another version of the server's key than %u, which is "
		       "generation %u",
		       (unsigned)record->version, (unsigned)number) == 0;
}

static bool same_key(const struct qs_transit_record *a, const struct qs_transit_record *b)
{
	return strcmp(a->key, b->key) == 0 && strcmp(a->name_space, b->name_space) == 0 &&
	       qs_transit_same_login(a, b);
}

static bool can_rewrap(const struct qs_env *env, struct qs_content_key *k, struct need *ret)
{
	struct qs_transit_record from;

	if (!load(env, k->from, &from, &k->error) || !check_text(k, k->from, &from) ||
	    !load(env, k->generation, &ret->record, &k->error))
		return false;
	/* Nothing but the text would say then which generation it is of. */
	if (!qs_transit_says_version(k->wrapped))
		return qs_fail(&k->error, QS_E_FAILED, "what wraps it says no version") == 0;
	if (same_key(&from, &ret->record))
		return true;
	return qs_fail(&k->error, QS_E_FAILED,
		       "generations %u and %u are different keys of the server", (unsigned)k->from,
		       (unsigned)k->generation) == 0;
}

static void find_need(const struct qs_env *env, struct qs_content_key *k, enum qs_transit_verb verb,
		      struct need *ret)
{
	switch (verb) {
	case QS_TRANSIT_ENCRYPT:
		ret->todo = load(env, k->generation, &ret->record, &k->error);
		break;
	case QS_TRANSIT_DECRYPT:
		ret->todo = load(env, k->generation, &ret->record, &k->error) &&
			    check_text(k, k->generation, &ret->record);
		break;
	case QS_TRANSIT_REWRAP:
		ret->todo = can_rewrap(env, k, ret);
		break;
	}
}

/* What of NEEDS can go into one request with FIRST; one version only is wrapped with at a time. */
static bool goes_with(const struct need *first, const struct need *n, enum qs_transit_verb verb)
{
	return n->todo && same_key(&n->record, &first->record) &&
	       (verb == QS_TRANSIT_DECRYPT || n->record.version == first->record.version);
}

static int run(const struct qs_env *env, enum qs_transit_verb verb, struct qs_content_key *items,
	       size_t count, struct qs_error *err)
{
	struct qs_content_key **its = calloc(count + 1, sizeof(struct qs_content_key *));
	struct need *needs = calloc(count + 1, sizeof(*needs));
	int r = its && needs ? 0 : qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", count);

	for (size_t i = 0; r == 0 && i < count; i++)
		find_need(env, &items[i], verb, &needs[i]);
	for (size_t i = 0; r == 0 && i < count; i++) {
		const struct need first = needs[i];
		struct part p = { .record = first.record, .its = its };

		for (size_t k = i; k < count; k++) {
			if (!goes_with(&first, &needs[k], verb))
				continue;
			needs[k].todo = false;
			its[p.count++] = &items[k];
		}
		r = p.count > 0 ? run_part(env, &p, verb, err) : 0;
	}
	free(its);
	free(needs);
	return r;
}

int qs_transit_wrap(const struct qs_env *env, const struct qs_keystore *ks,
		    struct qs_content_key *items, size_t count, struct qs_error *err)
{
	(void)ks;
	return run(env, QS_TRANSIT_ENCRYPT, items, count, err);
}

int qs_transit_unwrap(const struct qs_env *env, const struct qs_keystore *ks,
		      struct qs_content_key *items, size_t count, struct qs_error *err)
{
	(void)ks;
	return run(env, QS_TRANSIT_DECRYPT, items, count, err);
}

int qs_transit_rewrap(const struct qs_env *env, const struct qs_keystore *ks,
		      struct qs_content_key *items, size_t count, struct qs_error *err)
{
	(void)ks;
	return run(env, QS_TRANSIT_REWRAP, items, count, err);
}
