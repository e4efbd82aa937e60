/*
 * cryptenroll --list and --test: what opens a device. Nothing is written.
 */
#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "key/keyfile.h"
#include "luks/kind.h"
#include "luks/slots.h"
#include "luks/unlock.h"
#include "ops/internal.h"
#include "ops/keystore.h"
#include "ops/open.h"
#include "ops/tpm2.h"

#define MAX_KEYSLOTS 32

static json_t *describe(const struct qs_luks_header *h, const struct qs_keyslot *slot)
{
	char since[QS_SLOT_TIME_L];
	const char *kind = qs_slot_kind(h->json, slot->number, since);

	return json_pack("{s:i,s:s,s:s,s:s*,s:s*}", "number", slot->number, "kind", kind, "kdf",
			 slot->kdf, "token", slot->token_type[0] ? slot->token_type : NULL, "since",
			 since[0] ? since : NULL);
}

static json_t *list_slots(const struct qs_luks_header *h)
{
	struct qs_keyslot slots[MAX_KEYSLOTS];
	size_t n = qs_luks_keyslots(h, slots, MAX_KEYSLOTS);
	json_t *list = json_array();

	for (int number = 0; number < MAX_KEYSLOTS; number++)
		for (size_t i = 0; i < n; i++)
			if (slots[i].number == number)
				(void)json_array_append_new(list, describe(h, &slots[i]));
	return list;
}

/* A key file that opens a slot is that slot's opener; a second one for the same slot is left out.
 */
static void mark(json_t *list, int slot, const char *key_file)
{
	json_t *entry;
	size_t i;

	json_array_foreach(list, i, entry)
	{
		if (json_integer_value(json_object_get(entry, "number")) != slot ||
		    json_object_get(entry, "opened_by"))
			continue;
		(void)json_object_set_new(entry, "opened_by", qs_utf8_json(key_file));
		if (strcmp(json_string_value(json_object_get(entry, "kind")), QS_KIND_UNKNOWN) == 0)
			(void)json_object_set_new(entry, "kind", json_string(QS_KIND_KEY_FILE));
	}
}

/* Each key file at hand on each slot that it may open; one that cannot be read opens nothing. */
static int try_key_files(const struct qs_open_jobs *jobs, struct qs_worker *worker, json_t *list,
			 struct crypt_device *cd, const struct qs_luks_header *h,
			 struct qs_error *err)
{
	const struct qs_open_request *request = jobs->requests;

	for (size_t i = 0; i < QS_OPEN_KEYS && request->key_files[i]; i++) {
		QS_AUTO(qs_secret_done) struct qs_secret key = {};
		const struct qs_unlock how = { .test = true, .slot = -1, .worker = worker };
		struct qs_error own = {};
		int r;

		if (qs_key_load(jobs->env, request->key_files[i], &key, NULL) < 0)
			continue;
		r = qs_luks_unlock_loaded(cd, request->node, h, &key, &how, &own);
		if (r < 0 && r != -EPERM) {
			if (err)
				*err = own;
			return r;
		}
		if (r >= 0)
			mark(list, r, request->key_files[i]);
	}
	return 0;
}

/* Does the keystore open its keyslot? Marked at the slot, as a key file is. */
static void mark_keystore(const struct qs_env *env, json_t *list, struct crypt_device *cd,
			  const struct qs_luks_header *h)
{
	int slot = -1;
	QS_AUTO(qs_auto_json) json_t *found = qs_keystore_look(env, cd, h, &slot);
	json_t *entry;
	size_t i;

	json_array_foreach(list, i, entry) if (found && json_integer_value(json_object_get(
								entry, "number")) == slot)(void)
		json_object_set(entry, "keystore", found);
}

static int list_job(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		    struct qs_error *err)
{
	const struct qs_open_jobs *jobs = cookie;
	const struct qs_open_request *request = &jobs->requests[i];
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_auto_cd) struct crypt_device *cd = NULL;
	json_t *list;
	int r = qs_luks_load(jobs->env, request->node, request->name, &cd, &h, err);

	if (r < 0)
		return r;
	list = list_slots(&h);
	*ret = json_pack("{s:o}", "keyslots", list);
	qs_tpm2_describe(h.json, *ret);
	if (h.version == 2)
		mark_keystore(jobs->env, list, cd, &h);
	return try_key_files(jobs, worker, list, cd, &h, err);
}

int qs_enroll_list(const struct qs_env *env, const char *device, struct qs_outcomes *ret,
		   struct qs_error *err)
{
	QS_AUTO(qs_open_request_done) struct qs_open_request request = {};
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;
	struct qs_open_jobs jobs = { env, &request };
	int r = qs_outcomes_init(ret, &device, 1, err);

	if (r < 0)
		return r;
	if (qs_open_find(env, NULL, &ret->items[0], &dev, &h, &request) < 0)
		return 0;
	r = qs_outcomes_run(env, ret, NULL, list_job, &jobs, err);
	return r == 0 ? qs_tpm2_look(env, ret, err) : r;
}

int qs_enroll_test(const struct qs_env *env, const char *device,
		   const struct qs_open_options *options, struct qs_outcomes *ret,
		   struct qs_error *err)
{
	struct qs_open_options test = *options;
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	struct qs_device dev = {};
	const json_t *slot;
	int r;

	test.test = true;
	r = qs_open(env, device, &test, ret, err);
	if (r < 0 || ret->items[0].error.kind != QS_E_NONE)
		return r;
	slot = json_object_get(ret->items[0].details, "keyslot");
	dev.node = ret->items[0].node;
	if (slot && qs_device_read_header(&dev, &h, NULL) == 0)
		qs_outcome_detail(
			&ret->items[0], "kind",
			json_string(qs_slot_kind(h.json, (int)json_integer_value(slot), NULL)));
	return 0;
}
