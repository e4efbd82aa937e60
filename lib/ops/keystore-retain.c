/*
 * keystore retention and purge.
 *
 *   purge, for each file that is over its time   left behind         second run
 *   overwrite it, sync                           no header           erases it
 *   unlink, sync the directory                   nothing names its   syncs it again
 *                                                  generation
 *   the KEK of the generation (rotation.h)       it is still listed  erases it again
 *   keystore.json without it                     finished            nothing
 *
 * What is no header any more is over whatever its date says: it could bring nothing back, and
 * overwriting moves the time of a file that has no date in its name.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "ops/keystore.h"
#include "ops/retired.h"

#define USUAL_MIN (7 * QS_KEYSTORE_DAY)
#define USUAL_MAX (30 * QS_KEYSTORE_DAY)

int qs_keystore_set_retention(const struct qs_env *env, const char *text, uint32_t *ret,
			      struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int lock = -1;
	struct qs_keystore ks;
	uint64_t seconds;
	int r;

	if (qs_text_parse_span(text, &seconds) < 0)
		return qs_fail(err, QS_E_USAGE,
			       "'%s' is no time: a number and Y, M, W, D, h, m or s, as in 10D",
			       text);
	if (seconds < QS_KEYSTORE_RETENTION_MIN || seconds > QS_KEYSTORE_RETENTION_MAX)
		return qs_fail(err, QS_E_USAGE, "a retention time is 1 to 365 days");
	lock = qs_keystore_lock(env, env->config.lock_wait_s * 1000, err);
	r = lock < 0 ? lock : qs_keystore_load_enabled(env, &ks, err);
	if (r < 0)
		return r;
	if (seconds < USUAL_MIN || seconds > USUAL_MAX)
		qs_log(QS_LOG_WARNING, "%s",
		       seconds < USUAL_MIN
			       ? "less than 7 days is little time to notice a mistake"
			       : "for more than 30 days, what was destroyed can be brought back");
	ks.retention = *ret = (uint32_t)seconds;
	return qs_keystore_save(env, &ks, err);
}

/* Could cryptrestore use it? It wants both copies. */
static bool is_whole(const struct qs_env *env, const struct qs_retired *one)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, one->path);
	QS_AUTO(qs_auto_close) int fd = open(real, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};

	/* What cannot be read now is not judged. */
	if (fd < 0 || qs_luks_header_read(fd, &h, NULL) < 0)
		return true;
	return h.copy[0] == QS_COPY_OK && h.copy[1] == QS_COPY_OK;
}

static bool is_over(const struct qs_env *env, const struct qs_keystore *ks,
		    const struct qs_retired *one)
{
	time_t now = time(NULL);

	return one->when + (time_t)qs_keystore_retention(ks) <= now || !is_whole(env, one);
}

static void erase(const struct qs_env *env, const struct qs_retired *one, struct qs_outcome *o)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, one->path);

	qs_outcome_set(&o->name, one->name);
	qs_outcome_set(&o->uuid, one->uuid);
	qs_outcome_detail(o, "destroyed", qs_json_time(one->when));
	(void)qs_file_erase(real, &o->error);
}

static int sync_directory(const struct qs_env *env, const char *path, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *within = qs_env_path(env, path);
	struct qs_error own = {};
	int r = qs_file_sync_parent(within, &own);

	if (r >= 0 || r == -ENOENT)
		return 0;
	if (err)
		*err = own;
	return r;
}

/* What a run that was killed has erased, or written to keystore.json, may not be durable yet. */
static int sync_directories(const struct qs_env *env, struct qs_error *err)
{
	int r = sync_directory(env, QS_RETIRED_DIR "/.", err);

	return r < 0 ? r : sync_directory(env, QS_KEYSTORE_FILE, err);
}

int qs_keystore_purge(const struct qs_env *env, bool all, struct qs_outcomes *ret,
		      json_t **ret_retired, struct qs_error *err)
{
	QS_AUTO(qs_retired_list_done) struct qs_retired_list list = {};
	struct qs_keystore ks;
	int r = qs_outcomes_init(ret, NULL, 0, err);

	if (r == 0)
		r = qs_keystore_load(env, &ks, err);
	if (r == 0)
		r = qs_retired_list(env, &list, err);
	for (size_t i = 0; r == 0 && i < list.count; i++)
		if (all || is_over(env, &ks, &list.items[i]))
			erase(env, &list.items[i], qs_outcomes_add(ret, list.items[i].path));
	if (r == 0)
		r = sync_directories(env, err);
	*ret_retired = json_array();
	return r < 0 ? r : qs_keystore_retire(env, *ret_retired, err);
}

int qs_keystore_add_retained(const struct qs_env *env, const struct qs_keystore *ks, json_t *result,
			     struct qs_error *err)
{
	QS_AUTO(qs_retired_list_done) struct qs_retired_list list = {};
	json_t *all = json_array();
	int r = qs_retired_list(env, &list, err);

	for (size_t i = 0; i < list.count; i++) {
		const struct qs_retired *one = &list.items[i];

		(void)json_array_append_new(
			all,
			json_pack("{s:s,s:s,s:s,s:o,s:o}", "name", one->name, "uuid", one->uuid,
				  "path", one->path, "destroyed", qs_json_time(one->when), "until",
				  qs_json_time(one->when + (time_t)qs_keystore_retention(ks))));
	}
	(void)json_object_set_new(result, "retention", json_integer(qs_keystore_retention(ks)));
	(void)json_object_set_new(result, "kept", all);
	return r;
}
