/*
 * Keeping the header backup of a device that is destroyed. What a crash after each step leaves, and
 * what a second run does:
 *
 *   step                                  left behind                    second run
 *   NAME.UUID.header, durable, compared   a copy, of the date of its     writes it again
 *                                           modification
 *   renamed to NAME.UUID.DATE.header      a copy that keeps its date     another one, of its own
 * date wherever it is copied to those of earlier destructions of the  finished: the newest counts
 * erases what is left of them volume erased
 *
 * All of them bring the device back, and purge erases each after its own time.
 */
#define _GNU_SOURCE
#include "ops/retired.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "keystore/token.h"
#include "luks/backup.h"

#define END ".header"
#define DATE_L (sizeof("20261122T140500Z") - 1)
#define UUID_L (sizeof("00000000-0000-0000-0000-000000000000") - 1)

static char *undated_path(const char *name, const char *uuid)
{
	return qs_printf("%s/%s.%s" END, QS_RETIRED_DIR, name, uuid);
}

static char *dated_path(const char *name, const char *uuid, time_t when)
{
	char date[QS_TEXT_TIME_L];

	return qs_printf("%s/%s.%s.%s" END, QS_RETIRED_DIR, name, uuid,
			 qs_text_print_time(when, QS_TEXT_COMPACT, date));
}

/* ---- the list ---- */

void qs_retired_list_done(struct qs_retired_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->items[i].path);
		free(list->items[i].name);
	}
	free(list->items);
	*list = (struct qs_retired_list){};
}

/* ".DATE" at the end of LENGTH bytes of FILE: its length, else 0. */
static size_t parse_date(const char *file, size_t length, time_t *ret)
{
	char date[DATE_L + 1] = "";

	if (length <= DATE_L || file[length - DATE_L - 1] != '.')
		return 0;
	memcpy(date, file + length - DATE_L, DATE_L);
	return qs_text_parse_time(date, QS_TEXT_COMPACT, ret) < 0 ? 0 : 1 + DATE_L;
}

/*
 * "NAME.UUID.DATE.header", or as older versions write it and as it is for a moment without a date
 * (0 then); all else is not ours to look at.
 */
static bool parse_name(const char *file, struct qs_retired *ret)
{
	size_t length = strlen(file);

	if (file[0] == '.' || length < strlen(END) || strcmp(file + length - strlen(END), END) != 0)
		return false;
	length -= strlen(END);
	length -= parse_date(file, length, &ret->when);
	if (length <= 1 + UUID_L || file[length - UUID_L - 1] != '.')
		return false;
	memcpy(ret->uuid, file + length - UUID_L, UUID_L);
	ret->uuid[UUID_L] = '\0';
	if (!qs_keystore_is_uuid(ret->uuid))
		return false;
	ret->name = qs_printf("%.*s", (int)(length - UUID_L - 1), file);
	ret->path = qs_printf("%s/%s", QS_RETIRED_DIR, file);
	return true;
}

static int newest_first(const void *a, const void *b)
{
	const struct qs_retired *x = a, *y = b;

	if (x->when != y->when)
		return x->when < y->when ? 1 : -1;
	return strcmp(x->path, y->path);
}

static int add(struct qs_retired_list *list, DIR *d, const char *file, struct qs_error *err)
{
	struct qs_retired one = {};
	struct qs_retired *more;
	struct stat st;

	if (!parse_name(file, &one))
		return 0;
	more = reallocarray(list->items, list->count + 1, sizeof(*more));
	if (!more || fstatat(dirfd(d), file, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		int code = more ? errno : ENOMEM;

		list->items = more ? more : list->items;
		free(one.path);
		free(one.name);
		/* Somebody has erased it meanwhile. */
		return code == ENOENT ? 0
				      : qs_fail_errno(err, code, "cannot look at %s in %s", file,
						      QS_RETIRED_DIR);
	}
	if (!one.when)
		one.when = st.st_mtime;
	list->items = more;
	list->items[list->count++] = one;
	return 0;
}

int qs_retired_list(const struct qs_env *env, struct qs_retired_list *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, QS_RETIRED_DIR);
	QS_AUTO(qs_auto_closedir) DIR *d = opendir(real);
	QS_AUTO(qs_retired_list_done) struct qs_retired_list list = {};
	const struct dirent *e;
	int r = 0;

	if (!d)
		return errno == ENOENT ? 0
				       : qs_fail_errno(err, errno, "cannot read the directory %s",
						       QS_RETIRED_DIR);
	while (r == 0 && (errno = 0, e = readdir(d)))
		r = add(&list, d, e->d_name, err);
	if (r == 0 && errno)
		r = qs_fail_errno(err, errno, "cannot read the directory %s", QS_RETIRED_DIR);
	if (r < 0)
		return r;
	if (list.count > 0)
		qsort(list.items, list.count, sizeof(*list.items), newest_first);
	*ret = list;
	list = (struct qs_retired_list){};
	return 0;
}

/* ---- one device ---- */

static bool has_key(const struct qs_keystore *ks, const struct qs_luks_header *h)
{
	struct qs_keystore_token t;
	int number;
	const json_t *token = qs_keystore_token_find(h->json, &number);

	return token && qs_keystore_token_parse(token, h->uuid, &t, NULL) == 0 &&
	       strcmp(t.store, ks->store) == 0;
}

/* Erase all that is kept of this volume but KEPT (a logical path, or NULL). Returns how many. */
static int erase_others(const struct qs_env *env, const char *name, const char *uuid,
			const char *kept, struct qs_error *err)
{
	QS_AUTO(qs_retired_list_done) struct qs_retired_list list = {};
	int count = 0, r = qs_retired_list(env, &list, err);

	for (size_t i = 0; r >= 0 && i < list.count; i++) {
		const struct qs_retired *one = &list.items[i];
		QS_AUTO(qs_auto_free) char *real = qs_env_path(env, one->path);

		if (strcmp(one->name, name) != 0 || strcmp(one->uuid, uuid) != 0 ||
		    (kept && strcmp(one->path, kept) == 0))
			continue;
		r = qs_file_erase(real, err);
		count++;
	}
	return r < 0 ? r : count;
}

/* A copy without a date gets WHEN; its temporary has one name only, so none is left behind. */
static int date(const struct qs_env *env, const char *undated, const char *name, const char *uuid,
		time_t when, char **ret_path, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *from = qs_env_path(env, undated);
	QS_AUTO(qs_auto_free) char *to = NULL;

	*ret_path = dated_path(name, uuid, when);
	to = qs_env_path(env, *ret_path);
	if (rename(from, to) < 0)
		return qs_fail_errno(err, errno, "cannot rename %s to %s", from, to);
	return qs_file_sync_parent(to, err);
}

static int copy(const struct qs_env *env, const char *name, const char *backup, time_t when,
		char **ret_path, struct qs_error *err)
{
	const struct qs_replace how = { .mode = 0600 };
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(env, QS_RETIRED_DIR);
	QS_AUTO(qs_auto_free) char *undated = NULL;
	QS_AUTO(qs_auto_free) char *real = NULL;
	int r = qs_backup_read(backup, &image, &h, NULL, err);

	if (r < 0)
		return r;
	undated = undated_path(name, h.uuid);
	real = qs_env_path(env, undated);
	r = qs_file_make_dirs(dir, 0700, err);
	if (r == 0)
		r = qs_file_sync_parent(dir, err);
	if (r == 0)
		r = qs_file_replace(real, image.data, image.size, &how, err);
	if (r == 0)
		r = qs_file_equals(real, image.data, image.size, err);
	if (r == 0)
		r = qs_fail(err, QS_E_IO, "%s reads back differently from what was written", real);
	if (r == 1)
		r = date(env, undated, name, h.uuid, when, ret_path, err);
	return r < 0 ? r : erase_others(env, name, h.uuid, *ret_path, err);
}

int qs_retired_keep(const struct qs_env *env, const char *name, json_t *result,
		    struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *backup = qs_backup_path(env, name);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, backup);
	QS_AUTO(qs_auto_free) char *path = NULL;
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	time_t now = time(NULL);
	struct qs_keystore ks;
	int r = 0;

	if (qs_keystore_is_there(env))
		r = qs_backup_peek(env, name, &h, err);
	if (r == 1)
		r = qs_keystore_load(env, &ks, err);
	else if (r == 0)
		return 0;
	if (r == 0 && !has_key(&ks, &h))
		return 0;
	if (r == 0)
		r = copy(env, name, real, now, &path, err);
	if (r < 0) {
		qs_error_append(err,
				" (so %s cannot be kept for the retention time: --purge destroys "
				"it at once)",
				name);
		return r;
	}
	(void)json_object_set_new(
		result, "kept",
		json_pack("{s:s,s:o}", "path", path, "until",
			  qs_json_time(now + (time_t)qs_keystore_retention(&ks))));
	return 1;
}

int qs_retired_forget(const struct qs_env *env, const char *name, const char *uuid,
		      struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = undated_path(name, uuid);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
	int count = erase_others(env, name, uuid, NULL, err);
	/* Also what a run that was killed left of it, and its directory durable. */
	int r = count < 0 ? count : qs_file_erase(real, err);

	return r < 0 ? r : count > 0;
}
