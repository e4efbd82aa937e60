#include "ops/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libcryptsetup.h>

#include "base/cleanup.h"
#include "base/pool.h"
#include "key/command.h"
#include "key/keyfile.h"
#include "luks/backup.h"
#include "luks/image.h"
#include "luks/kind.h"
#include "luks/slots.h"
#include "luks/unlock.h"
#include "ops/event.h"
#include "ops/internal.h"
#include "ops/keystore.h"

#define TPM2 "tpm2_there" /* in the details: a token was seen */

/* Besides tpm2_deadline, for each device. */
#define MS_PER_DEVICE 2000U

struct check {
	const struct qs_env *env;
	const struct qs_open_request *requests;
	struct qs_outcomes *list;
	const bool *todo;
	struct qs_error failed; /* in the parent: the TPM's worker as a whole */
	json_t *by_tpm;         /* "ways", each with its "device", and "health" */

	/* In the TPM's worker only: */
	const struct qs_tpm2_functions *tpm2;
	struct qs_tpm2 *tpm;
	struct qs_error no_tpm;
	struct qs_error refused; /* why it is not asked for this device */
	json_t *closed, *signatures;
	struct qs_worker *worker;
	size_t device;
};

/* SLOT < 0: WHY says why not. */
static json_t *describe(const char *way, const char *file, int slot, const struct qs_error *why)
{
	json_t *entry = json_pack("{s:s,s:s*,s:b}", "way", way, "file", file, "proven", slot >= 0);

	if (slot >= 0)
		(void)json_object_set_new(entry, "keyslot", json_integer(slot));
	else
		(void)json_object_set_new(entry, "problem", json_string(why->text));
	return entry;
}

/* ---- in a worker for each device ---- */

struct device_check {
	const struct qs_env *env;
	struct qs_worker *worker;
	const struct qs_open_request *request;
	struct qs_luks_header header;
	struct crypt_device *cd;
	json_t *ways;
	uint32_t proven; /* keyslots, as bits */
};

static int try_secret(struct device_check *d, const struct qs_secret *key, struct qs_error *err)
{
	const struct qs_unlock how = { .test = true, .slot = -1, .worker = d->worker };
	int r = qs_luks_unlock_loaded(d->cd, d->request->node, &d->header, key, &how, err);

	if (r >= 0)
		d->proven |= UINT32_C(1) << r;
	return r;
}

/* One that only might be there, by its name, is no way as long as it is absent. */
static void try_key_file(struct device_check *d, const char *file, bool expected)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	QS_AUTO(qs_auto_free) char *real = qs_env_path(d->env, file);
	struct qs_error err = {};
	int r;

	if (!expected && access(real, F_OK) < 0 && errno == ENOENT)
		return;
	r = qs_key_load(d->env, file, &key, &err);
	if (r == 0)
		r = try_secret(d, &key, &err);
	(void)json_array_append_new(d->ways, describe("key-file", file, r, &err));
}

static void try_command(struct device_check *d)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	struct qs_error err = {};
	int r = qs_key_command_run(d->env, d->request->name, d->header.uuid, d->request->node, &key,
				   &err);

	if (r == 0)
		r = try_secret(d, &key, &err);
	(void)json_array_append_new(d->ways,
				    describe("key-command", d->env->config.key_command, r, &err));
}

/* Read once and unwrapped from what was loaded: the identity of the volume is checked, too. */
static void try_keystore(struct device_check *d)
{
	int slot = -1;
	QS_AUTO(qs_auto_json)
	json_t *found = qs_keystore_look(d->env, d->cd, &d->header, &slot);
	const char *problem = json_string_value(json_object_get(found, "problem"));
	struct qs_error err = {};

	if (!found)
		return;
	if (problem)
		(void)snprintf(err.text, sizeof(err.text), "%s", problem);
	else
		d->proven |= UINT32_C(1) << slot;
	(void)json_array_append_new(d->ways,
				    describe(QS_KIND_KEYSTORE, NULL, problem ? -1 : slot, &err));
}

static int read_areas(const char *path, struct qs_luks_header *ret_header,
		      struct qs_header_image *ret)
{
	QS_AUTO(qs_auto_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int r = fd < 0 ? -errno : qs_luks_header_read(fd, ret_header, NULL);

	return r < 0 ? r : qs_luks_areas_read(fd, path, ret_header, ret, NULL);
}

/* Keyslots whose key material is not that of the backup, though nobody has set them anew. */
static uint32_t damaged_slots(const struct device_check *d)
{
	QS_AUTO(qs_auto_free) char *logical = qs_backup_path(d->env, d->request->name);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(d->env, logical);
	QS_AUTO(qs_luks_header_done) struct qs_luks_header present = {};
	QS_AUTO(qs_luks_header_done) struct qs_luks_header recorded = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image now = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image then = {};

	if (read_areas(d->request->node, &present, &now) < 0 ||
	    read_areas(real, &recorded, &then) < 0)
		return 0;
	return qs_luks_areas_differ(&present, &now, &recorded, &then);
}

/* What a person has cannot be tried; its keyslot can be looked at. */
static void look_at_the_rest(struct device_check *d)
{
	static const struct qs_error damaged = {
		.text = "the key material of its keyslot is not that of the header backup, though "
			"nobody has set it anew; cryptrestore repairs it",
	};
	uint32_t bad = damaged_slots(d);

	for (int slot = 0; slot < QS_LUKS_AREAS_MAX; slot++) {
		const char *kind = qs_slot_kind(d->header.json, slot, NULL);
		uint32_t bit = UINT32_C(1) << slot;
		json_t *entry;

		if (!(qs_slots_mask(d->header.json) & bit) || d->proven & bit ||
		    strcmp(kind, QS_KIND_TPM2) == 0)
			continue;
		entry = bad & bit ? describe(kind, NULL, -1, &damaged)
				  : json_pack("{s:s,s:b}", "way", kind, "proven", 0);
		(void)json_object_set_new(entry, "keyslot", json_integer(slot));
		(void)json_array_append_new(d->ways, entry);
	}
}

static void note_token(void *cookie, int number, const struct qs_tpm2_token *token)
{
	(void)number;
	(void)token;
	*(bool *)cookie = true;
}

static int device_job(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		      struct qs_error *err)
{
	const struct check *c = cookie;
	const struct qs_open_request *request = &c->requests[i];
	struct device_check d = { .env = c->env, .worker = worker, .request = request };
	bool tpm2 = false;
	int r = qs_luks_load(c->env, request->node, request->name, &d.cd, &d.header, err);

	if (r < 0)
		return r;
	qs_worker_step(worker, "test");
	d.ways = json_array();
	for (size_t n = 0; n < QS_OPEN_KEYS && request->key_files[n]; n++)
		try_key_file(&d, request->key_files[n], request->line_key && n == 0);
	if (request->command)
		try_command(&d);
	if (d.header.version == 2)
		try_keystore(&d);
	look_at_the_rest(&d);
	qs_tpm2_for_each_token(d.header.json, note_token, &tpm2);
	*ret = json_pack("{s:o,s:b}", "ways", d.ways, TPM2, tpm2);
	crypt_free(d.cd);
	qs_luks_header_done(&d.header);
	return 0;
}

/* ---- in one worker for all: the TPM ---- */

/* The keyslots of a token by what the TPM gave. */
static int open_keyslots(const struct check *c, const struct qs_tpm2_token *token,
			 const struct qs_secret *passphrase, struct qs_error *err)
{
	const struct qs_open_request *request = &c->requests[c->device];
	int r = -EPERM;

	for (int slot = 0; slot < QS_LUKS_AREAS_MAX && r == -EPERM; slot++) {
		const struct qs_unlock how = {
			.name = request->name, .test = true, .slot = slot, .worker = c->worker
		};

		if (token->keyslots & UINT32_C(1) << slot)
			r = qs_luks_unlock(c->env, request->node, passphrase, &how, err);
	}
	return r;
}

/* Sealed to this machine's state, or to what it will be at the next start. */
static int match(const struct check *c, const struct qs_tpm2_token *token, struct qs_error *err)
{
	const struct qs_tpm2_unseal with = { .signatures = c->signatures };
	uint32_t moved;
	int r = c->tpm2->match(c->tpm, token, &with, &moved, err);

	if (r == 0 || !c->closed)
		return r;
	c->tpm2->before_closing(c->tpm, c->closed, QS_TPM2_CLOSING_EVENT);
	r = c->tpm2->match(c->tpm, token, &with, &moved, NULL);
	c->tpm2->before_closing(c->tpm, NULL, NULL);
	return r;
}

/* Returns the keyslot, or -1 when all is well as far as that can be told. */
static int try_token(const struct check *c, const struct qs_tpm2_token *token, struct qs_error *err)
{
	const struct qs_tpm2_unseal with = { .signatures = c->signatures };
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	int r = -EPERM;

	*err = c->refused;
	if (err->kind != QS_E_NONE)
		return r;
	if (!token->pin)
		r = c->tpm2->unseal(c->tpm, token, &with, &passphrase, err);
	if (r == 0)
		return open_keyslots(c, token, &passphrase, err);
	if (!token->pin && err->kind != QS_E_TPM_PCR)
		return r;
	if (match(c, token, token->pin ? err : NULL) == 0)
		*err = (struct qs_error){};
	return -1;
}

static void check_token(void *cookie, int number, const struct qs_tpm2_token *token)
{
	struct check *c = cookie;
	struct qs_error err = {};
	int slot = try_token(c, token, &err);
	json_t *entry = err.kind == QS_E_NONE && slot < 0
				? json_pack("{s:s,s:b}", "way", QS_KIND_TPM2, "proven", 0)
				: describe(QS_KIND_TPM2, NULL, slot, &err);

	(void)json_object_set_new(entry, "token", json_integer(number));
	(void)json_object_set_new(entry, "device", json_integer((json_int_t)c->device));
	(void)json_array_append_new(json_object_get(c->by_tpm, "ways"), entry);
}

static void check_tokens(struct check *c)
{
	const struct qs_open_request *request = &c->requests[c->device];
	const struct qs_tpm2_device device = { request->node, request->name };
	QS_AUTO(qs_auto_close) int fd = open(request->node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};

	if (fd < 0 || qs_luks_header_peek(fd, &h, NULL) < 0)
		return;
	c->refused = c->no_tpm;
	if (c->refused.kind == QS_E_NONE)
		(void)qs_tpm2_check_age(c->env, &device, fd, &h, &c->refused);
	qs_tpm2_for_each_token(h.json, check_token, c);
}

static int tpm_job(struct qs_worker *worker, void *cookie, json_t **ret, struct qs_error *err)
{
	struct check *c = cookie;

	(void)err;
	c->worker = worker;
	c->by_tpm = *ret = json_pack("{s:[]}", "ways");
	(void)qs_tpm2_connect(c->env, &c->tpm2, &c->tpm, &c->no_tpm);
	c->closed = qs_tpm2_closed(c->env);
	c->signatures = qs_tpm2_signatures(c->env);
	for (c->device = 0; c->device < c->list->count; c->device++) {
		if (json_is_true(json_object_get(c->list->items[c->device].details, TPM2)))
			check_tokens(c);
	}
	if (c->tpm) {
		(void)qs_tpm2_look_at_health(c->tpm2, c->tpm, *ret, NULL);
		c->tpm2->close(c->tpm);
	}
	json_decref(c->closed);
	json_decref(c->signatures);
	return 0;
}

/* ---- in the parent ---- */

static int ask_tpm(struct check *c, struct qs_error *err)
{
	struct qs_tpm2_work work = { .job = tpm_job, .cookie = c };
	unsigned count = 0;

	for (size_t i = 0; i < c->list->count; i++)
		count += json_is_true(json_object_get(c->list->items[i].details, TPM2));
	/* Whoever has switched the TPM off does not want to hear of it. */
	if (count == 0 || strcmp(c->env->config.tpm2_device, "none") == 0)
		return 0;
	work.extra_ms = count * MS_PER_DEVICE;
	return qs_tpm2_run(c->env, &work, &c->by_tpm, &c->failed, err);
}

static void take_answers(const struct check *c)
{
	json_t *way;
	size_t i;

	json_array_foreach(json_object_get(c->by_tpm, "ways"), i, way)
	{
		json_int_t device = json_integer_value(json_object_get(way, "device"));
		json_t *ways = json_object_get(c->list->items[device].details, "ways");

		(void)json_object_del(way, "device");
		(void)json_array_append(ways, way);
	}
	for (i = 0; i < c->list->count; i++) {
		json_t *details = c->list->items[i].details;

		if (json_is_true(json_object_get(details, TPM2)) && c->failed.kind != QS_E_NONE)
			(void)json_array_append_new(json_object_get(details, "ways"),
						    describe(QS_KIND_TPM2, NULL, -1, &c->failed));
		(void)json_object_del(details, TPM2);
	}
}

static const char *text_at(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* Every problem is an event, and together they are the device's error. */
static void judge(const struct qs_env *env, struct qs_outcome *o)
{
	const json_t *ways = json_object_get(o->details, "ways"), *way;
	QS_AUTO(qs_auto_free) char *bad = NULL;
	size_t i, proven = 0;

	json_array_foreach(ways, i, way)
	{
		const char *problem = text_at(way, "problem"), *file = text_at(way, "file");
		QS_AUTO(qs_auto_free)
		char *name =
			qs_printf("%s%s%s", text_at(way, "way"), file ? " " : "", file ? file : "");
		char *more;

		proven += json_is_true(json_object_get(way, "proven"));
		if (!problem)
			continue;
		qs_event_send(env, QS_EVENT_WAY_LOST, o, name, problem);
		more = qs_printf("%s%s%s: %s", bad ? bad : "", bad ? "; " : "", name, problem);
		free(bad);
		bad = more;
	}
	if (bad)
		(void)qs_fail(&o->error, QS_E_NO_KEY, "not every way opens it any more: %s", bad);
	else if (proven == 0)
		(void)qs_fail(&o->error, QS_E_NO_KEY,
			      "nothing at hand opens it; it needs a person at the next start");
}

int qs_check_ways(const struct qs_env *env, const struct qs_open_request *requests,
		  struct qs_outcomes *list, const bool *todo, struct qs_error *err)
{
	struct check c = { .env = env, .requests = requests, .list = list, .todo = todo };
	int r = qs_outcomes_run(env, list, todo, device_job, &c, err);

	if (r == 0)
		r = ask_tpm(&c, err);
	if (r == 0) {
		take_answers(&c);
		qs_tpm2_warn(env, c.by_tpm);
	}
	for (size_t i = 0; r == 0 && i < list->count; i++) {
		struct qs_outcome *o = &list->items[i];

		if (!todo[i])
			continue;
		if (o->error.kind == QS_E_NONE)
			judge(env, o);
		else
			qs_event_send(env,
				      o->error.kind == QS_E_HOSTILE ? QS_EVENT_REFUSED
								    : QS_EVENT_WAY_LOST,
				      o, NULL, o->error.text);
	}
	json_decref(c.by_tpm);
	return r;
}
