/*
 * Which of the devices that keystore rewrap was asked for have a key file to move; the steps of
 * moving one stand in enroll-keystore.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "key/place.h"
#include "keystore/provider.h"
#include "ops/journal.h"
#include "ops/keystore.h"
#include "tab/crypttab.h"

/* Has it a key file that is ours to move? What cannot be found out is left to the move itself. */
static bool has_key_file(const struct qs_env *env, struct qs_outcome *o)
{
	QS_AUTO(qs_open_request_done) struct qs_open_request request = {};
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;
	QS_AUTO(qs_journal_done) struct qs_journal journal = {};

	if (qs_open_find(env, NULL, o, &dev, &h, &request) < 0)
		return true;
	if (qs_journal_read(env, o->name, &journal, NULL) != 0)
		return true;
	for (size_t i = 0; i < QS_OPEN_KEYS && request.key_files[i]; i++) {
		QS_AUTO(qs_auto_free) char *real = qs_env_path(env, request.key_files[i]);

		/* One that cannot be looked at is there: moving it says what is wrong. */
		if (qs_key_is_in_dir(env, request.key_files[i]) &&
		    (access(real, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR)))
			return true;
	}
	return false;
}

static bool is_told(const struct qs_outcomes *list, const struct qs_outcome *o)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->items[i].node && o->node && strcmp(list->items[i].node, o->node) == 0)
			return true;
	return false;
}

/* Those without a key file have a note, unless they were rewrapped just now. */
static int move(const struct qs_env *env, struct qs_outcomes *asked, struct qs_outcomes *ret,
		struct qs_error *err)
{
	const struct qs_enroll_options options = { .method = "keystore-move" };
	QS_AUTO(qs_auto_free) const char **devices = calloc(asked->count + 1, sizeof(*devices));
	QS_AUTO(qs_outcomes_done) struct qs_outcomes moved = {};
	size_t count = 0;
	int r;

	if (!devices)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", asked->count);
	for (size_t i = 0; i < asked->count; i++) {
		struct qs_outcome *o = &asked->items[i];

		if (has_key_file(env, o)) {
			devices[count++] = o->device;
		} else if (!is_told(ret, o)) {
			qs_outcome_set(&o->note, "has no key file to move");
			qs_outcome_detail(o, "state", json_string("left"));
			*qs_outcomes_add(ret, NULL) = *o;
			*o = (struct qs_outcome){};
		}
	}
	r = count ? qs_enroll(env, devices, count, &options, &moved, err) : 0;
	for (size_t i = 0; i < moved.count; i++) {
		*qs_outcomes_add(ret, NULL) = moved.items[i];
		moved.items[i] = (struct qs_outcome){};
	}
	return r;
}

/* Let go of the lock again, which the move takes for itself. */
static int bring_all(const struct qs_env *env, struct qs_outcomes *report, struct qs_error *err)
{
	QS_AUTO(qs_auto_close)
	int lock = qs_keystore_lock(env, env->config.lock_wait_s * 1000, err);
	struct qs_keystore ks;
	int r = lock < 0 ? lock : qs_keystore_load_enabled(env, &ks, err);

	if (r == 0)
		r = qs_keystore_prepare_all(env, &ks, true, err);
	return r < 0 ? r : qs_keystore_settle(env, &ks, report, NULL, err);
}

int qs_keystore_rewrap_devices(const struct qs_env *env, const char *const *devices, size_t count,
			       struct qs_outcomes *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *table = qs_env_path(env, QS_CRYPTTAB);
	QS_AUTO(qs_outcomes_done) struct qs_outcomes asked = {};
	struct qs_error own = {};
	int r = bring_all(env, ret, &own);

	if (r < 0 && own.kind != QS_E_PARTIAL) {
		*err = own;
		return r;
	}
	r = qs_outcomes_init(&asked, devices, count, err);
	if (r == 0 && count == 0)
		r = qs_outcomes_add_ours(env, &asked, err);
	if (r == 0)
		r = move(env, &asked, ret, err);
	/* A run that was killed may have finished all of it but these. */
	if (r >= 0)
		r = qs_journal_sync(env, err);
	return r < 0 ? r : qs_file_sync_parent(table, err);
}
