/*
 * What depends on the keystore, and the proof that all of it opens. Only reads.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "device/links.h"
#include "keystore/device.h"
#include "keystore/jwe.h"
#include "luks/backup.h"
#include "luks/fields.h"
#include "luks/image.h"
#include "luks/unlock.h"
#include "ops/keystore.h"
#include "ops/retired.h"

struct scan {
	const struct qs_env *env;
	const struct qs_keystore *ks;
	struct qs_outcomes *list;
	enum qs_keystore_scan how;
	struct qs_crypttab *tab; /* with QS_SCAN_REWRAP */
};

static bool is_backup(const struct qs_outcome *o)
{
	return json_object_get(o->details, "backup") != NULL;
}

static int add_backups(const struct scan *s, const char *name, struct qs_error *err)
{
	QS_AUTO(qs_backup_list_done) struct qs_backup_list found = {};
	int r = qs_backup_list(s->env, name, &found, err);

	for (size_t i = 0; r >= 0 && i < found.count; i++) {
		QS_AUTO(qs_auto_free) char *real = qs_env_path(s->env, found.items[i].path);
		struct qs_outcome *o;

		if (found.items[i].raw)
			continue;
		o = qs_outcomes_add(s->list, found.items[i].path);
		qs_outcome_set(&o->node, real);
		qs_outcome_set(&o->name, name);
		qs_outcome_detail(o, "backup", json_true());
		if (s->how == QS_SCAN_REWRAP && found.items[i].current)
			qs_outcome_detail(o, "current", json_true());
	}
	return r < 0 ? r : 0;
}

static int add_all_backups(const struct scan *s, struct qs_error *err)
{
	QS_AUTO(qs_backup_names_done) char **names = NULL;
	int r = qs_backup_names(s->env, &names, err);

	for (size_t i = 0; r >= 0 && names && names[i]; i++)
		r = add_backups(s, names[i], err);
	return r < 0 ? r : 0;
}

/* After the backups: what cryptdestroy copies from there to here is seen in one place at least. */
static int add_retired(const struct scan *s, struct qs_error *err)
{
	QS_AUTO(qs_retired_list_done) struct qs_retired_list list = {};
	int r = qs_retired_list(s->env, &list, err);

	for (size_t i = 0; r == 0 && i < list.count; i++) {
		QS_AUTO(qs_auto_free) char *real = qs_env_path(s->env, list.items[i].path);
		struct qs_outcome *o = qs_outcomes_add(s->list, list.items[i].path);

		qs_outcome_set(&o->node, real);
		qs_outcome_set(&o->name, list.items[i].name);
		qs_outcome_detail(o, "backup", json_true());
	}
	return r;
}

/* ---- in a worker ---- */

/* What was read of a device or backup. */
struct seen {
	struct qs_luks_header h;
	struct qs_header_image copies; /* as they are, if the header lacks nothing; else empty */
};

static void seen_done(struct seen *seen)
{
	qs_luks_header_done(&seen->h);
	qs_header_image_done(&seen->copies);
}

static int read_seen(int fd, const char *node, struct seen *ret, struct qs_error *err)
{
	int r = qs_header_image_alike(fd, node, &ret->copies, &ret->h, err);

	if (r == 0)
		return qs_luks_header_read(fd, &ret->h, err);
	return r < 0 ? r : 0;
}

/* The device's header and its backup say the same, and all of it is whole. */
static bool agrees(const struct scan *s, const char *name, const struct qs_luks_header *h)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header b = {};
	time_t when;

	return qs_backup_load(s->env, name, &b, &when, NULL) == 1 && b.copy[0] == QS_COPY_OK &&
	       b.copy[1] == QS_COPY_OK && !b.copies_differ && b.seqid == h->seqid &&
	       json_equal(b.json, h->json);
}

/* What rewrapping has to know of a device: nothing here is secret. */
static int describe(const struct scan *s, const struct qs_outcome *o, const struct seen *seen,
		    const json_t *token, json_t *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;
	QS_AUTO(qs_auto_free) char *link = NULL;
	QS_AUTO(qs_auto_free) char *name = NULL;
	uint64_t generation = 0;
	uint32_t target;
	bool alike;
	int r = qs_device_find(s->env, o->device, &dev, err);

	if (r == 0)
		r = qs_device_known_in(s->env, s->tab, dev, seen->h.uuid, &link, &name, err);
	if (r < 0)
		return r;
	alike = seen->copies.data && qs_backup_has(s->env, name, &seen->copies, true);
	if (alike)
		(void)json_object_set_new(ret, "alike", json_true());
	(void)qs_fields_number(token, "generation", &generation);
	target = qs_keystore_successor(s->ks, (uint32_t)generation);
	(void)json_object_set_new(ret, "name", json_string(name));
	(void)json_object_set(ret, "token", (json_t *)token);
	(void)json_object_set_new(ret, "target", json_integer(target));
	(void)json_object_set_new(
		ret, "behind",
		json_boolean(generation != target || (!alike && !agrees(s, name, &seen->h))));
	return 0;
}

int qs_keystore_prove(const struct qs_env *env, const struct qs_keystore *ks, const char *node,
		      struct qs_error *err)
{
	QS_AUTO(qs_auto_cd) struct crypt_device *cd = NULL;
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	struct qs_keystore_token t;
	int number, r = qs_luks_load(env, node, NULL, &cd, &h, err);

	if (r < 0)
		return r;
	r = qs_keystore_unwrap(env, ks, cd, qs_keystore_token_find(h.json, &number), &key, NULL, &t,
			       err);
	return r;
}

/* A header that is there, but cannot be used, may hold anything. */
static int check_seen(const struct scan *s, const struct qs_outcome *o, const struct seen *seen,
		      struct qs_error *err)
{
	if (seen->h.version == 0 && qs_luks_header_is_trace(&seen->h))
		return qs_luks_explain(o->node, err);
	if (s->how == QS_SCAN_REWRAP && is_backup(o) && qs_header_is_cut_update(&seen->h))
		return qs_fail(
			err, QS_E_TEMPORARY,
			"%s is half-way to another generation: it is finished when its device "
			"is there",
			o->node);
	return 0;
}

static int judge_token(const struct scan *s, const struct qs_outcome *o, const struct seen *seen,
		       const json_t *token, json_t **ret, struct qs_error *err)
{
	struct qs_keystore_token t;
	int r = qs_keystore_token_parse(token, seen->h.uuid, &t, err);

	if (r == 0)
		r = s->how == QS_SCAN_PROVE ? qs_keystore_check_token(s->ks, &t, err) : 0;
	if (r < 0)
		return r;
	if (strcmp(t.store, s->ks->store) != 0) {
		*ret = json_pack("{s:s,s:i}", "note", "belongs to another keystore", "elsewhere",
				 (int)t.generation);
		return 0;
	}
	*ret = json_pack("{s:i,s:s,s:s}", "generation", (int)t.generation, "provider", t.provider,
			 "uuid", seen->h.uuid);
	if (s->how == QS_SCAN_WRAPPED && qs_jwe_wrapped(t.jwe))
		(void)json_object_set_new(*ret, "wrapped", json_string(qs_jwe_wrapped(t.jwe)));
	if (s->how == QS_SCAN_REWRAP && !is_backup(o))
		return describe(s, o, seen, token, *ret, err);
	if (s->how != QS_SCAN_PROVE)
		return 0;
	(void)json_object_set_new(*ret, "note",
				  json_sprintf("opens with generation %u", (unsigned)t.generation));
	return qs_keystore_prove(s->env, s->ks, o->node, err);
}

static int job(struct qs_worker *worker, size_t i, void *cookie, json_t **ret, struct qs_error *err)
{
	const struct scan *s = cookie;
	const struct qs_outcome *o = &s->list->items[i];
	QS_AUTO(qs_auto_close) int fd = open(o->node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	QS_AUTO(seen_done) struct seen seen = {};
	const json_t *token;
	int number, r;

	if (fd < 0)
		return qs_fail_errno(err, errno, "cannot open %s", o->node);
	qs_worker_step(worker, s->how == QS_SCAN_PROVE ? "prove" : "look");
	if (s->how == QS_SCAN_REWRAP)
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	r = read_seen(fd, o->node, &seen, err);
	if (r == 0)
		r = check_seen(s, o, &seen, err);
	if (r < 0)
		return r;
	token = qs_keystore_token_find(seen.h.json, &number);
	if (token)
		return judge_token(s, o, &seen, token, ret, err);
	*ret = json_pack("{s:s}", "note", "has no key in the keystore");
	return 0;
}

/* ---- in the parent ---- */

/* What a device says, the backup that has its very bytes says, too: it is not looked at again. */
static void settle(const struct scan *s, const json_t *backups, const struct qs_outcome *device,
		   bool *todo)
{
	QS_AUTO(qs_auto_free) char *path = qs_backup_path(s->env, device->name);
	const json_t *index = json_object_get(backups, path);
	struct qs_outcome *o;

	if (!index)
		return;
	o = &s->list->items[json_integer_value(index)];
	todo[json_integer_value(index)] = false;
	qs_outcome_set(&o->uuid, device->uuid);
	qs_outcome_detail(o, "generation",
			  json_incref(json_object_get(device->details, "generation")));
	qs_outcome_detail(o, "provider", json_incref(json_object_get(device->details, "provider")));
}

/* The devices' present backups last, and only those that they do not settle. */
static int look_at_both(struct scan *s, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) bool *todo = calloc(s->list->count + 1, sizeof(*todo));
	QS_AUTO(qs_auto_json) json_t *backups = json_object();
	int r;

	if (!todo)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", s->list->count);
	for (size_t i = 0; i < s->list->count; i++) {
		const struct qs_outcome *o = &s->list->items[i];

		todo[i] = !json_object_get(o->details, "current");
		if (!todo[i])
			(void)json_object_set_new(backups, o->device, json_integer((json_int_t)i));
	}
	r = qs_outcomes_look(s->env, s->list, todo, job, s, err);
	for (size_t i = 0; i < s->list->count; i++)
		todo[i] = !todo[i];
	for (size_t i = 0; r == 0 && i < s->list->count; i++) {
		const struct qs_outcome *o = &s->list->items[i];

		if (o->error.kind == QS_E_NONE && json_object_get(o->details, "alike"))
			settle(s, backups, o, todo);
	}
	return r < 0 ? r : qs_outcomes_look(s->env, s->list, todo, job, s, err);
}

int qs_keystore_scan(const struct qs_env *env, const struct qs_keystore *ks,
		     enum qs_keystore_scan how, struct qs_outcomes *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	QS_AUTO(qs_links_done) struct qs_links links = {};
	struct qs_env walk = *env;
	struct scan s = { .env = &walk, .ks = ks, .list = ret, .how = how };
	int r = qs_outcomes_init(ret, NULL, 0, err);

	walk.links = &links;
	if (r == 0 && how != QS_SCAN_BACKUPS)
		r = qs_outcomes_add_ours(&walk, ret, err);
	/* What a keystore that is gone opened. */
	if (r == 0 && ks->state == QS_KEYSTORE_DISABLED)
		r = qs_outcomes_add_lines(&walk, ret, err);
	if (r == 0)
		r = add_all_backups(&s, err);
	if (r == 0)
		r = add_retired(&s, err);
	/* Once for all of them: the lines of a hundred devices are ten thousand otherwise. */
	if (r == 0 && how == QS_SCAN_REWRAP)
		r = qs_crypttab_load(env, &tab, err);
	s.tab = tab;
	if (r < 0)
		return r;
	return how == QS_SCAN_REWRAP ? look_at_both(&s, err)
				     : qs_outcomes_look(&walk, ret, NULL, job, &s, err);
}
