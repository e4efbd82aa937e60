#define _GNU_SOURCE
#include "ops/retired.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "keystore/token.h"
#include "luks/backup.h"

#define END ".header"
#define UUID_L (sizeof("00000000-0000-0000-0000-000000000000") - 1)

static char *path_of(const char *name, const char *uuid)
{
	return qs_printf("%s/%s.%s" END, QS_RETIRED_DIR, name, uuid);
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

/* "NAME.UUID.header"; all else is not ours to look at. */
static bool parse_name(const char *file, struct qs_retired *ret)
{
	size_t length = strlen(file), tail = 1 + UUID_L + strlen(END);
	const char *dot = file + length - tail;

	if (file[0] == '.' || length <= tail || *dot != '.' ||
	    strcmp(file + length - strlen(END), END) != 0)
		return false;
	memcpy(ret->uuid, dot + 1, UUID_L);
	ret->uuid[UUID_L] = '\0';
	if (!qs_keystore_is_uuid(ret->uuid))
		return false;
	ret->name = qs_printf("%.*s", (int)(length - tail), file);
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

/* An existing one is of an earlier destruction of the same volume: this one counts. */
static int copy(const struct qs_env *env, const char *name, const char *backup, char **ret_path,
		struct qs_error *err)
{
	const struct qs_replace how = { .mode = 0600 };
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(env, QS_RETIRED_DIR);
	QS_AUTO(qs_auto_free) char *real = NULL;
	int r = qs_backup_read(backup, &image, &h, NULL, err);

	if (r < 0)
		return r;
	*ret_path = path_of(name, h.uuid);
	real = qs_env_path(env, *ret_path);
	r = qs_file_make_dirs(dir, 0700, err);
	if (r == 0)
		r = qs_file_sync_parent(dir, err);
	if (r == 0)
		r = qs_file_replace(real, image.data, image.size, &how, err);
	if (r == 0)
		r = qs_file_equals(real, image.data, image.size, err);
	if (r == 0)
		r = qs_fail(err, QS_E_IO, "%s reads back differently from what was written", real);
	return r < 0 ? r : 0;
}

int qs_retired_keep(const struct qs_env *env, const char *name, json_t *result,
		    struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *backup = qs_backup_path(env, name);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, backup);
	QS_AUTO(qs_auto_free) char *path = NULL;
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
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
		r = copy(env, name, real, &path, err);
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
			  qs_json_time(time(NULL) + (time_t)qs_keystore_retention(&ks))));
	return 1;
}

int qs_retired_forget(const struct qs_env *env, const char *name, const char *uuid,
		      struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = path_of(name, uuid);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);

	return qs_file_erase(real, err);
}
