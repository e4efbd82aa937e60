/*
 * What a timer asks every few minutes: is there anything for a rotation to do? Answered
 * without the keystore's lock, its provider, or the header of any device. And what a person is
 * told who asks too soon.
 */
#include <string.h>

#include "base/cleanup.h"
#include "keystore/token.h"
#include "luks/backup.h"
#include "luks/image.h"
#include "ops/keystore.h"

/* Less often, unless forced: each generation is another key that has to be kept. */
#define MINIMUM_INTERVAL (24L * 3600)

/* A backup follows its device to the last step, so one that is behind tells of both. */
static bool is_behind(const struct qs_env *env, const struct qs_keystore *ks, const char *name)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	struct qs_keystore_token t;
	const json_t *token;
	time_t when;
	int number;

	if (qs_backup_load(env, name, &h, &when, NULL) != 1)
		return false;
	token = qs_keystore_token_find(h.json, &number);
	if (!token || qs_keystore_token_parse(token, h.uuid, &t, NULL) < 0 ||
	    strcmp(t.store, ks->store) != 0)
		return false;
	return t.generation != qs_keystore_successor(ks, t.generation) ||
	       qs_header_is_cut_update(&h);
}

/* Or it cannot be looked at: then whoever goes on tells that. */
static bool is_found(const struct qs_env *env, const char *word)
{
	QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;
	struct qs_error err = {};

	return qs_device_find(env, word, &dev, &err) == 0 || !qs_device_is_absent(&err);
}

static bool is_present(const struct qs_env *env, const char *name)
{
	QS_AUTO(qs_auto_free) char *link = qs_name_to_link(name);

	return is_found(env, name) || (link && is_found(env, link));
}

/* Is a device there that was away, or failed, when the others came to their generation? */
static int find_returned(const struct qs_env *env, const struct qs_keystore *ks, bool *ret,
			 struct qs_error *err)
{
	QS_AUTO(qs_backup_names_done) char **names = NULL;
	int r = qs_backup_names(env, &names, err);

	*ret = false;
	for (size_t i = 0; r >= 0 && names && names[i] && !*ret; i++)
		*ret = is_behind(env, ks, names[i]) && is_present(env, names[i]);
	return r < 0 ? r : 0;
}

bool qs_keystore_is_due(const struct qs_keystore *ks)
{
	time_t now = time(NULL), next = qs_schedule_next(ks, now);

	return ks->state == QS_KEYSTORE_ENABLED && next && next <= now;
}

int qs_keystore_has_work(const struct qs_env *env, const struct qs_keystore *ks, bool *ret,
			 struct qs_error *err)
{
	*ret = false;
	if (ks->state != QS_KEYSTORE_ENABLED)
		return 0;
	*ret = ks->rotation != QS_ROTATION_IDLE || qs_keystore_is_due(ks);
	return *ret ? 0 : find_returned(env, ks, ret, err);
}

int qs_keystore_refuse_interval(const struct qs_keystore_generation *g, struct qs_error *err)
{
	time_t age = time(NULL) - g->created;

	/* A generation of the future is a clock that was wrong, and no reason to wait. */
	if (age < 0 || age >= MINIMUM_INTERVAL)
		return 0;
	return qs_fail(
		err, QS_E_REFUSED,
		"generation %u is only %ld minutes old, and a rotation is due no sooner than "
		"after 24 hours; --force makes the next one now",
		(unsigned)g->number, (long)age / 60);
}
