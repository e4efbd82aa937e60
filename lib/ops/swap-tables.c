#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "luks/plain.h"
#include "ops/internal.h"
#include "ops/swap.h"
#include "tab/crypttab.h"
#include "tab/fstab.h"

/* conf.d is sourced file by file, so the last version is kept beside that directory. */
#define RESUME_BACKUP "/etc/initramfs-tools/resume.qs-bak"

#define STANDARD "swap,cipher=" QS_PLAIN_CIPHER ",size=512"
_Static_assert(QS_PLAIN_KEY_BITS == 512, "the options say so");

/* A node that may be another disk's tomorrow: /dev/sda2, /dev/dm-0. */
static bool is_kernel_name(const char *device)
{
	return strncmp(device, "/dev/", 5) == 0 && !strchr(device + 5, '/');
}

/* `plain` says to Debian, too, what `swap` says to systemd. */
static char *new_options(const struct qs_swap_target *t)
{
	bool whole = t->dev->size % 4096 == 0;

	return qs_printf(STANDARD ",plain%s%s%s%s", whole ? ",sector-size=4096" : "",
			 qs_crypttab_has_option(t->options, "discard") ? ",discard" : "",
			 qs_crypttab_has_option(t->options, "noauto") ? ",noauto" : "",
			 qs_crypttab_has_option(t->options, "nofail") ? ",nofail" : "");
}

static char *copy_text(const char *text, size_t size)
{
	char *copy = malloc(size + 1);

	if (!copy)
		abort();
	memcpy(copy, text, size);
	copy[size] = '\0';
	return copy;
}

static void remember(const struct qs_env *env, struct qs_swap_file *file, const char *logical,
		     const char *text, size_t size)
{
	file->path = qs_env_path(env, logical);
	file->existed = access(file->path, F_OK) == 0;
	file->before = copy_text(text, size);
	file->before_size = size;
}

static void compare(struct qs_swap_file *file, const char *text, size_t size)
{
	file->after = copy_text(text, size);
	file->after_size = size;
	file->changed = size != file->before_size || memcmp(text, file->before, size) != 0;
}

/* The one swap line of the target; *ret is the number of entries when there is none. */
static int find_fstab_line(const struct qs_env *env, const struct qs_swap_target *t,
			   const struct qs_fstab *tab, size_t *ret, struct qs_error *err)
{
	size_t count = qs_fstab_count(tab);
	const struct qs_fstab_entry *found = NULL;

	*ret = count;
	for (size_t i = 0; i < count; i++) {
		const struct qs_fstab_entry *e = qs_fstab_get(tab, i);

		if (strcmp(e->type, "swap") != 0 || !qs_swap_is_named(env, t, e->source))
			continue;
		if (found)
			return qs_fail(err, QS_E_FAILED,
				       "%s is named by two lines of " QS_FSTAB
				       ", %u and %u; remove one of them",
				       t->dev->node, found->line, e->line);
		found = e;
		*ret = i;
	}
	return 0;
}

static int edit_fstab(const struct qs_env *env, struct qs_swap_target *t,
		      struct qs_swap_tables *tables, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *options = NULL;
	size_t i;
	int r = find_fstab_line(env, t, tables->fstab, &i, err);

	if (r < 0)
		return r;
	if (i < qs_fstab_count(tables->fstab)) {
		qs_outcome_set(&tables->source, qs_fstab_get(tables->fstab, i)->source);
		qs_outcome_set(&t->options, qs_fstab_get(tables->fstab, i)->options);
		return qs_fstab_set_source(tables->fstab, i, t->mapper, err);
	}
	/* Active without a line: what gave it its priority does so no longer. */
	options = t->active && t->priority >= 0 ? qs_printf("sw,pri=%d", t->priority)
						: qs_strdup("sw");
	qs_outcome_set(&t->options, options);
	return qs_fstab_add_swap(tables->fstab, t->mapper, options, err);
}

/* A line of somebody else's stays as it is, unless it names a disk by its place in the queue. */
static int edit_crypttab(struct qs_swap_target *t, struct qs_swap_tables *tables,
			 struct qs_error *err)
{
	const struct qs_crypttab_entry *e = qs_crypttab_find(tables->crypttab, t->name);
	QS_AUTO(qs_auto_free) char *options = NULL;
	QS_AUTO(qs_auto_free) char *key = NULL;

	if (e && !qs_crypttab_is_swap(e))
		return qs_fail(err, QS_E_EXISTS,
			       "line %u of " QS_CRYPTTAB
			       " has the name %s and is no swap; remove or rename it",
			       e->line, t->name);
	if (!e) {
		options = new_options(t);
		return qs_crypttab_set(tables->crypttab, t->name, t->link, "/dev/urandom", options,
				       err);
	}
	if (!is_kernel_name(e->device))
		return 0;
	key = qs_strdup(e->key);
	return qs_crypttab_set(tables->crypttab, t->name, t->link, key, NULL, err);
}

/* How --now has to map it: as the line says. */
static void read_line(struct qs_swap_target *t, const struct qs_swap_tables *tables)
{
	const struct qs_crypttab_entry *e = qs_crypttab_find(tables->crypttab, t->name);
	const char *options = e->options;
	QS_AUTO(qs_auto_free) char *sector = qs_crypttab_option(options, "sector-size");

	t->sector_size = sector ? (unsigned)strtoul(sector, NULL, 10) : 512;
	t->discards = qs_crypttab_has_option(options, "discard");
	t->standard = strncmp(options, STANDARD, strlen(STANDARD)) == 0 &&
		      !qs_crypttab_has_option(options, "offset") &&
		      !qs_crypttab_has_option(options, "skip");
}

static int edit_resume(const struct qs_env *env, const struct qs_swap_target *t,
		       struct qs_swap_file *file, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, QS_RESUME_FILE);
	QS_AUTO(qs_auto_free) char *text = NULL;
	QS_AUTO(qs_auto_free) char *edited = NULL;
	size_t size = 0, edited_size;
	int r = qs_file_read_optional(path, 1U << 20, &text, &size, err);

	if (r <= 0)
		return r;
	remember(env, file, QS_RESUME_FILE, text, size);
	edited = qs_swap_resume_edit(env, t, text, size, &edited_size);
	compare(file, edited, edited_size);
	return 0;
}

int qs_swap_tables_edit(const struct qs_env *env, struct qs_swap_target *t,
			struct qs_swap_tables *ret, struct qs_error *err)
{
	struct qs_swap_file *files = ret->files;
	const char *text;
	size_t size;
	int r = qs_crypttab_load(env, &ret->crypttab, err);

	if (r == 0)
		r = qs_fstab_load(env, &ret->fstab, err);
	if (r < 0)
		return r;
	text = qs_crypttab_text(ret->crypttab, &size);
	remember(env, &files[QS_SWAP_CRYPTTAB], QS_CRYPTTAB, text, size);
	text = qs_fstab_text(ret->fstab, &size);
	remember(env, &files[QS_SWAP_FSTAB], QS_FSTAB, text, size);
	r = edit_fstab(env, t, ret, err);
	if (r >= 0)
		r = edit_crypttab(t, ret, err);
	if (r >= 0)
		r = edit_resume(env, t, &files[QS_SWAP_RESUME], err);
	if (r < 0)
		return r;
	text = qs_crypttab_text(ret->crypttab, &size);
	compare(&files[QS_SWAP_CRYPTTAB], text, size);
	text = qs_fstab_text(ret->fstab, &size);
	compare(&files[QS_SWAP_FSTAB], text, size);
	read_line(t, ret);
	return 0;
}

bool qs_swap_tables_changed(const struct qs_swap_tables *tables)
{
	for (size_t i = 0; i < QS_SWAP_FILES; i++)
		if (tables->files[i].changed)
			return true;
	return false;
}

static int write_resume(const struct qs_env *env, const struct qs_swap_file *file,
			struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *backup = qs_env_path(env, RESUME_BACKUP);
	const struct qs_replace how = { .mode = 0644, .keep_as = backup };

	return qs_file_replace(file->path, file->after, file->after_size, &how, err);
}

static int write_one(const struct qs_env *env, const struct qs_swap_tables *tables, size_t i,
		     struct qs_error *err)
{
	switch (i) {
	case QS_SWAP_RESUME:
		return write_resume(env, &tables->files[i], err);
	case QS_SWAP_CRYPTTAB:
		return qs_crypttab_save(env, tables->crypttab, err);
	default:
		return qs_fstab_save(env, tables->fstab, err);
	}
}

int qs_swap_tables_write(const struct qs_env *env, struct qs_swap_tables *tables,
			 struct qs_error *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < QS_SWAP_FILES; i++) {
		struct qs_swap_file *file = &tables->files[i];

		/* A failure may come after the rename, so it counts as written. */
		file->written = file->changed;
		if (file->changed)
			r = write_one(env, tables, i, err);
		else if (file->existed)
			r = qs_file_sync(file->path, err);
	}
	return r;
}

static int undo_one(const struct qs_swap_file *file, struct qs_error *err)
{
	const struct qs_replace how = { .mode = 0644 };
	QS_AUTO(qs_auto_free) char *now = NULL;
	size_t size = 0;
	int r = qs_file_read_optional(file->path, SIZE_MAX - 1, &now, &size, err);

	if (r < 0)
		return r;
	if (r == file->existed && size == file->before_size &&
	    (r == 0 || memcmp(now, file->before, size) == 0))
		return 0;
	if (r == 0 || size != file->after_size || memcmp(now, file->after, size) != 0)
		return qs_fail(err, QS_E_FAILED, "%s was changed by somebody else meanwhile",
			       file->path);
	if (!file->existed) {
		r = qs_file_remove(file->path, err);
		return r < 0 ? r : 0;
	}
	return qs_file_replace(file->path, file->before, file->before_size, &how, err);
}

int qs_swap_tables_undo(struct qs_swap_tables *tables, struct qs_error *err)
{
	int r = 0;

	for (size_t i = QS_SWAP_FILES; r == 0 && i-- > 0;) {
		struct qs_swap_file *file = &tables->files[i];

		if (file->written)
			r = undo_one(file, err);
		file->written = r < 0;
	}
	return r;
}

void qs_swap_tables_done(struct qs_swap_tables *tables)
{
	for (size_t i = 0; i < QS_SWAP_FILES; i++) {
		free(tables->files[i].path);
		free(tables->files[i].before);
		free(tables->files[i].after);
	}
	qs_crypttab_free(tables->crypttab);
	qs_fstab_free(tables->fstab);
	free(tables->source);
	*tables = (struct qs_swap_tables){};
}
