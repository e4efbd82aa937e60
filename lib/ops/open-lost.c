/*
 * Opening where the keystore is lost: a device whose key was in it is still ours, and what is
 * wrong with it is said.
 */
#define _GNU_SOURCE
#include <stdlib.h>

#include "base/cleanup.h"
#include "keystore/device.h"
#include "luks/backup.h"
#include "ops/keystore.h"
#include "tab/crypttab.h"

static struct qs_error lost(void)
{
	struct qs_error err = {};

	(void)qs_keystore_check_token(&(struct qs_keystore){}, &(struct qs_keystore_token){}, &err);
	return err;
}

void qs_open_mention_keystore(const struct qs_env *env, const struct qs_open_request *request,
			      struct qs_error *err)
{
	if (!err || !request->no_keystore ||
	    (err->kind != QS_E_NO_KEY && err->kind != QS_E_KEY_FILE) ||
	    !qs_open_keystore_peek(request, NULL, NULL))
		return;
	/* That there is no key file is nothing new where none is expected. */
	if (request->passphrase || request->command || qs_open_has_key_file(env, request))
		qs_error_append(err, "; and %s", lost().text);
	else
		*err = lost();
}

/* ---- which devices of crypttab are meant ---- */

struct look {
	const struct qs_env *env;
	struct qs_outcomes *list;
};

/* A header that is destroyed, or of another disk by now, does not make the backup's key another. */
static int job(struct qs_worker *worker, size_t i, void *cookie, json_t **ret, struct qs_error *err)
{
	const struct look *l = cookie;
	const struct qs_outcome *o = &l->list->items[i];
	const struct qs_device dev = { .node = o->node };
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_luks_header_done) struct qs_luks_header backup = {};
	time_t when;
	int number, r = qs_device_peek_header(&dev, &h, err);

	(void)worker;
	if (r < 0)
		return r;
	if (qs_keystore_token_find(h.json, &number) ||
	    (qs_backup_load(l->env, o->name, &backup, &when, NULL) == 1 &&
	     qs_keystore_token_find(backup.json, &number)))
		*ret = json_pack("{s:b}", "lost", 1);
	return 0;
}

static void add(const struct look *l, const struct qs_crypttab_entry *e)
{
	QS_AUTO(qs_auto_free) char *link = qs_spec_path(e->device);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(l->env, link ? link : e->device);
	QS_AUTO(qs_auto_free) char *node = realpath(real, NULL);
	int code = node ? 0 : errno;
	struct qs_outcome *o;

	if (code == ENOENT || code == ENOTDIR)
		return;
	o = qs_outcomes_add(l->list, link ? link : e->device);
	qs_outcome_set(&o->name, e->name);
	if (node)
		qs_outcome_set(&o->node, node);
	else
		(void)qs_fail_errno(&o->error, code, "cannot look at %s", o->device);
}

/* Only what was found, and what cannot be looked at, which is not nothing. */
static void keep_lost(const struct qs_outcomes *all, struct qs_outcomes *ret)
{
	for (size_t i = 0; i < all->count; i++) {
		const struct qs_outcome *from = &all->items[i];
		struct qs_outcome *o;

		if (from->error.kind == QS_E_NONE && !json_object_get(from->details, "lost"))
			continue;
		o = qs_outcomes_add(ret, from->device);
		qs_outcome_set(&o->name, from->name);
		o->error = from->error;
	}
}

int qs_open_find_lost(const struct qs_env *env, const struct qs_crypttab *tab,
		      struct qs_outcomes *ret, struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes all = {};
	struct qs_env quiet = *env;
	struct look l = { .env = &quiet, .list = &all };
	int r = qs_outcomes_init(&all, NULL, 0, err);

	quiet.progress = NULL;
	if (r == 0)
		r = qs_outcomes_init(ret, NULL, 0, err);
	if (r < 0 || qs_keystore_is_there(env))
		return r;
	for (size_t i = 0; i < qs_crypttab_count(tab); i++) {
		const struct qs_crypttab_entry *e = qs_crypttab_get(tab, i);

		if (qs_open_may_be_our_line(env, e) && !qs_open_is_our_line(env, e))
			add(&l, e);
	}
	r = qs_outcomes_look(&quiet, &all, NULL, job, &l, err);
	if (r == 0)
		keep_lost(&all, ret);
	return r;
}
