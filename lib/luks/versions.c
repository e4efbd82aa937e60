#define _GNU_SOURCE
#include <endian.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/sha.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "luks/backup.h"

#define HEADER ".header"
#define RAW ".raw"
#define RAW_PREFIX "damaged-"
#define IMAGE_MAX (136U << 20) /* no image is larger (luks/image.c) */

/* What a name in NAME.d says; that of an interrupted write's temporary too. */
struct entry {
	char *file; /* without what marks a temporary */
	bool raw, temporary;
	uint64_t number;
	time_t time; /* of a raw file */
};

struct entries {
	struct entry *items;
	size_t count;
};

static void entries_done(struct entries *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i].file);
	free(list->items);
	*list = (struct entries){};
}

static char *versions_dir(const struct qs_env *env, const char *name)
{
	return qs_printf("%s/%s.d", env->config.headers_dir, name);
}

static bool cut_suffix(char *text, const char *suffix)
{
	size_t length = strlen(text), cut = strlen(suffix);

	if (length <= cut || strcmp(text + length - cut, suffix) != 0)
		return false;
	text[length - cut] = '\0';
	return true;
}

/* False for a file that is not ours. */
static bool parse_name(const char *name, struct entry *ret)
{
	bool temporary = name[0] == '.';
	QS_AUTO(qs_auto_free) char *file = qs_strdup(name + temporary);
	QS_AUTO(qs_auto_free) char *stem = NULL;
	char *end = NULL;

	if (temporary && !cut_suffix(file, QS_TEMPORARY_SUFFIX))
		return false;
	stem = qs_strdup(file);
	*ret = (struct entry){ .temporary = temporary };
	if (cut_suffix(stem, HEADER)) {
		ret->number = strtoull(stem, &end, 10);
		if (end == stem || *end != '\0' || *stem == '-' || *stem == '+' || *stem == ' ')
			return false;
	} else if (strncmp(stem, RAW_PREFIX, strlen(RAW_PREFIX)) == 0 && cut_suffix(stem, RAW)) {
		ret->raw = true;
	} else {
		return false;
	}
	ret->file = QS_TAKE(file);
	return true;
}

/* Versions before raw files; the newest first. */
static int by_age(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->raw != y->raw)
		return x->raw - y->raw;
	if (!x->raw && x->number != y->number)
		return x->number > y->number ? -1 : 1;
	if (x->time != y->time)
		return x->time > y->time ? -1 : 1;
	return strcmp(x->file, y->file);
}

static void add_entry(struct entries *list, struct entry entry)
{
	struct entry *grown;

	/* A temporary beside its file is one of two names of the same thing. */
	for (size_t i = 0; i < list->count; i++) {
		if (strcmp(list->items[i].file, entry.file) != 0)
			continue;
		list->items[i].temporary &= entry.temporary;
		free(entry.file);
		return;
	}
	grown = reallocarray(list->items, list->count + 1, sizeof(*grown));
	if (!grown)
		abort();
	list->items = grown;
	grown[list->count++] = entry;
}

static int scan(const char *dir, struct entries *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_closedir) DIR *d = opendir(dir);
	const struct dirent *e;
	struct entry entry;
	struct stat st;

	if (!d)
		return errno == ENOENT
			       ? 0
			       : qs_fail_errno(err, errno, "cannot open the directory %s", dir);
	for (errno = 0; (e = readdir(d)); errno = 0) {
		if (!parse_name(e->d_name, &entry))
			continue;
		if (entry.raw && fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			entry.time = st.st_mtime;
		add_entry(ret, entry);
	}
	if (errno)
		return qs_fail_errno(err, errno, "cannot read the directory %s", dir);
	if (ret->count > 1)
		qsort(ret->items, ret->count, sizeof(*ret->items), by_age);
	return 0;
}

/* ---- listing ---- */

static int add_version(const struct qs_env *env, struct qs_backup_list *list,
		       struct qs_backup_version version, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, version.path);
	struct qs_backup_version *grown;
	struct stat st;

	if (stat(real, &st) < 0) {
		free(version.path);
		return errno == ENOENT ? 0 : qs_fail_errno(err, errno, "cannot look at %s", real);
	}
	grown = reallocarray(list->items, list->count + 1, sizeof(*grown));
	if (!grown)
		abort();
	version.time = st.st_mtime;
	list->items = grown;
	grown[list->count++] = version;
	return 0;
}

int qs_backup_list(const struct qs_env *env, const char *name, struct qs_backup_list *ret,
		   struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *dir = versions_dir(env, name);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, dir);
	QS_AUTO(entries_done) struct entries entries = {};
	struct qs_backup_version version = { .path = qs_backup_path(env, name), .current = true };
	int r = add_version(env, ret, version, err);

	if (r == 0)
		r = scan(real, &entries, err);
	for (size_t i = 0; r == 0 && i < entries.count; i++) {
		const struct entry *e = &entries.items[i];

		if (e->temporary)
			continue;
		version = (struct qs_backup_version){
			.path = qs_printf("%s/%s", dir, e->file),
			.number = e->number,
			.raw = e->raw,
		};
		r = add_version(env, ret, version, err);
	}
	return r;
}

void qs_backup_list_done(struct qs_backup_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i].path);
	free(list->items);
	*list = (struct qs_backup_list){};
}

void qs_backup_names_done(char ***names)
{
	for (char **name = *names; name && *name; name++)
		free(*name);
	free(*names);
	*names = NULL;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int qs_backup_names(const struct qs_env *env, char ***ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, env->config.headers_dir);
	QS_AUTO(qs_auto_closedir) DIR *d = opendir(real);
	QS_AUTO(qs_backup_names_done) char **names = NULL;
	const struct dirent *e;
	size_t n = 0;

	if (!d && errno != ENOENT)
		return qs_fail_errno(err, errno, "cannot open the directory %s", real);
	names = calloc(1, sizeof(*names));
	for (errno = 0; names && d && (e = readdir(d)); errno = 0) {
		QS_AUTO(qs_auto_free) char *name = qs_strdup(e->d_name);
		char **grown;

		if (name[0] == '.' || !cut_suffix(name, HEADER))
			continue;
		grown = reallocarray(names, n + 2, sizeof(*grown));
		if (!grown)
			abort();
		names = grown;
		names[n++] = QS_TAKE(name);
		names[n] = NULL;
	}
	if (d && errno)
		return qs_fail_errno(err, errno, "cannot read the directory %s", real);
	if (!names)
		return qs_fail(err, QS_E_MEMORY, "no memory for the header backups");
	qsort(names, n, sizeof(*names), by_name);
	*ret = QS_TAKE(names);
	return 0;
}

/* ---- keeping ---- */

/* 1 the same, 0 another, -ENOENT absent. */
static int compare_file(const char *path, const struct qs_header_image *image, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *bytes = NULL;
	size_t size = 0;
	int r = qs_file_read(path, IMAGE_MAX, &bytes, &size, err);

	if (r < 0)
		return r;
	return size == image->size && memcmp(bytes, image->data, size) == 0;
}

int qs_backup_version_path(const struct qs_env *env, const char *name,
			   const struct qs_header_image *image, const struct qs_luks_header *h,
			   char **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *logical = versions_dir(env, name);
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(env, logical);
	int r = qs_file_make_dirs(dir, 0700, err);

	/* A number is taken twice when another tool put an older header back and changed that. */
	for (uint64_t number = h->version == 2 ? h->seqid : 1; r >= 0; number++) {
		QS_AUTO(qs_auto_free) char *path = qs_printf("%s/%" PRIu64 HEADER, dir, number);
		struct qs_error own = {};

		r = compare_file(path, image, &own);
		if (r == 1 || r == -ENOENT) {
			*ret = QS_TAKE(path);
			return 0;
		}
		if (r < 0 && err)
			*err = own;
	}
	return r;
}

static bool is_current(const struct qs_env *env, const char *name,
		       const struct qs_header_image *image)
{
	QS_AUTO(qs_auto_free) char *logical = qs_backup_path(env, name);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, logical);

	return compare_file(real, image, NULL) == 1;
}

int qs_backup_keep(const struct qs_env *env, const char *name, const struct qs_header_image *image,
		   const struct qs_luks_header *h, struct qs_error *err)
{
	const struct qs_replace how = { .mode = 0600 };
	QS_AUTO(qs_auto_free) char *path = NULL;
	int r;

	if (is_current(env, name, image))
		return 0;
	r = qs_backup_version_path(env, name, image, h, &path, err);
	if (r < 0)
		return r;
	if (access(path, F_OK) == 0)
		return qs_file_sync(path, err);
	return qs_file_replace(path, image->data, image->size, &how, err);
}

/* By its content, so that a second run finds what an interrupted one has left, and finishes it. */
static char *raw_path(const char *dir, const struct qs_header_image *image)
{
	unsigned char sum[SHA256_DIGEST_LENGTH];
	uint64_t number;

	(void)SHA256(image->data, image->size, sum);
	memcpy(&number, sum, sizeof(number));
	return qs_printf("%s/" RAW_PREFIX "%016" PRIx64 RAW, dir, be64toh(number));
}

int qs_backup_keep_raw(const struct qs_env *env, const char *name,
		       const struct qs_header_image *image, char **ret_path, struct qs_error *err)
{
	const struct qs_replace how = { .mode = 0600 };
	QS_AUTO(qs_auto_free) char *logical = versions_dir(env, name);
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(env, logical);
	QS_AUTO(qs_auto_free) char *path = raw_path(dir, image);
	int r = qs_file_make_dirs(dir, 0700, err);

	if (r < 0)
		return r;
	r = compare_file(path, image, NULL) == 1
		    ? qs_file_sync(path, err)
		    : qs_file_replace(path, image->data, image->size, &how, err);
	if (r == 0)
		*ret_path = qs_strdup(qs_env_logical(env, path));
	return r;
}

/* ---- erasing ---- */

static bool is_same_file(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/*
 * A store that was killed may have left PATH, or its temporary, as a second name
 * of the current backup, which must not be overwritten by that name.
 */
static int erase_version(const char *current, const char *dir, const struct entry *e,
			 struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/%s", dir, e->file);
	QS_AUTO(qs_auto_free)
	char *temporary = qs_printf("%s/.%s" QS_TEMPORARY_SUFFIX, dir, e->file);

	if (is_same_file(current, path) || is_same_file(current, temporary))
		return qs_file_remove(path, err);
	return qs_file_erase(path, err);
}

int qs_backup_prune(const struct qs_env *env, const char *name, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *backup = qs_backup_path(env, name);
	QS_AUTO(qs_auto_free) char *current = qs_env_path(env, backup);
	QS_AUTO(qs_auto_free) char *logical = versions_dir(env, name);
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(env, logical);
	QS_AUTO(entries_done) struct entries entries = {};
	size_t keep = env->config.header_versions, seen[2] = {};
	int r = scan(dir, &entries, err);

	for (size_t i = 0; r >= 0 && i < entries.count; i++) {
		const struct entry *e = &entries.items[i];

		if (++seen[e->raw] > (keep == 0 && e->raw ? 1 : keep))
			r = erase_version(current, dir, e, err);
	}
	return r < 0 ? r : 0;
}

int qs_backup_erase_if(const struct qs_env *env, const char *name, qs_backup_judge *judge,
		       void *cookie, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *backup = qs_backup_path(env, name);
	QS_AUTO(qs_auto_free) char *current = qs_env_path(env, backup);
	QS_AUTO(qs_auto_free) char *logical = versions_dir(env, name);
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(env, logical);
	QS_AUTO(qs_auto_free) char *inside = qs_printf("%s/x", dir); /* for its parent */
	QS_AUTO(entries_done) struct entries entries = {};
	int r = scan(dir, &entries, err), n = 0;

	for (size_t i = 0; r >= 0 && i < entries.count; i++) {
		const struct entry *e = &entries.items[i];
		QS_AUTO(qs_auto_free)
		char *path = e->temporary ? qs_printf("%s/.%s" QS_TEMPORARY_SUFFIX, dir, e->file)
					  : qs_printf("%s/%s", dir, e->file);

		if (!judge(path, e->raw, cookie))
			continue;
		r = erase_version(current, dir, e, err);
		n++;
	}
	/* One that is gone may have gone in a run that was killed before that was durable. */
	if (r >= 0 && access(dir, F_OK) == 0)
		r = qs_file_sync_parent(inside, err);
	return r < 0 ? r : n;
}

static int remove_dir(const char *dir, struct qs_error *err)
{
	int r = rmdir(dir) < 0 ? errno : 0;

	if (r == ENOTEMPTY || r == EEXIST)
		qs_log(QS_LOG_WARNING, "%s holds files that are not ours and stays", dir);
	else if (r && r != ENOENT)
		return qs_fail_errno(err, r, "cannot remove the directory %s", dir);
	return 0;
}

int qs_backup_erase(const struct qs_env *env, const char *name, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *backup = qs_backup_path(env, name);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, backup);
	QS_AUTO(qs_auto_free) char *logical = versions_dir(env, name);
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(env, logical);
	QS_AUTO(entries_done) struct entries entries = {};
	int r = scan(dir, &entries, err), n = 0;

	for (size_t i = 0; r >= 0 && i < entries.count; i++) {
		QS_AUTO(qs_auto_free) char *path = qs_printf("%s/%s", dir, entries.items[i].file);

		r = qs_file_erase(path, err);
		n += r > 0;
	}
	if (r >= 0)
		r = remove_dir(dir, err);
	if (r >= 0)
		r = qs_file_erase(real, err);
	return r < 0 ? r : n + r;
}
