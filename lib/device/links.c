#define _GNU_SOURCE
#include "device/links.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "device/internal.h"

struct qs_link {
	char *part;  /* the file name; of a line what stands in it, NULL: not yet asked for */
	int failed;  /* -errno: it could not be looked at */
	bool block;  /* a block device, else a file */
	dev_t devno; /* its number, or that of the file's file system */
	ino_t ino;   /* of a file */
};

void qs_links_done(struct qs_links *links)
{
	for (size_t i = 0; i < links->count; i++)
		free(links->items[i].part);
	free(links->items);
	for (size_t i = 0; i < links->line_count; i++)
		free(links->lines[i].part);
	free(links->lines);
	*links = (struct qs_links){};
}

static struct qs_link target_of(const struct stat *st)
{
	bool block = S_ISBLK(st->st_mode);

	return (struct qs_link){
		.block = block,
		.devno = block ? st->st_rdev : st->st_dev,
		.ino = block ? 0 : st->st_ino,
	};
}

static int compare(const void *left, const void *right)
{
	const struct qs_link *a = left, *b = right;

	if (!a->failed != !b->failed)
		return a->failed ? -1 : 1;
	if (a->block != b->block)
		return a->block ? 1 : -1;
	if (a->devno != b->devno)
		return a->devno < b->devno ? -1 : 1;
	return a->ino < b->ino ? -1 : a->ino > b->ino;
}

/* One that leads nowhere is no link; one that cannot be looked at may lead anywhere. */
static void add(const struct qs_env *env, const char *part, struct qs_links *ret)
{
	QS_AUTO(qs_auto_free) char *path = qs_printf(QS_BY_ID "%s", part);
	struct qs_link *grown, link = {};
	struct stat st;
	int r = qs_spec_stat(env, path, &st, NULL);

	if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
		return;
	if (r == 0)
		link = target_of(&st);
	link.failed = r;
	link.part = qs_strdup(part);
	grown = realloc(ret->items, (ret->count + 1) * sizeof(*grown));
	if (!grown)
		abort();
	ret->items = grown;
	ret->items[ret->count++] = link;
	ret->failed += r < 0;
}

/* Returns 0 or -errno. */
static int take(const struct qs_env *env, struct qs_links *ret)
{
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, QS_BY_ID);
	QS_AUTO(qs_auto_closedir) DIR *d = opendir(path);
	const struct dirent *entry;

	if (!d)
		return errno == ENOENT ? 0 : -errno;
	for (errno = 0; (entry = readdir(d)); errno = 0)
		if (entry->d_name[0] != '.')
			add(env, entry->d_name, ret);
	if (errno)
		return -errno;
	if (ret->count > 0)
		qsort(ret->items, ret->count, sizeof(*ret->items), compare);
	return 0;
}

/* The first one that is not before LINK. */
static size_t lower_bound(const struct qs_links *links, const struct qs_link *link)
{
	size_t from = 0, to = links->count;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (compare(&links->items[middle], link) < 0)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

int qs_links_each(const struct qs_env *env, struct qs_links *links, const struct stat *self,
		  qs_link_function *function, void *cookie)
{
	const struct qs_link target = target_of(self);

	if (!links->taken) {
		int r = take(env, links);

		if (r < 0) {
			qs_links_done(links);
			return r;
		}
		links->taken = true;
	}
	for (size_t i = 0; i < links->failed; i++)
		function(links->items[i].part, cookie);
	for (size_t i = lower_bound(links, &target);
	     i < links->count && compare(&links->items[i], &target) == 0; i++)
		function(links->items[i].part, cookie);
	return 0;
}

/* ---- lines ---- */

static void grow_lines(struct qs_links *links, size_t count)
{
	struct qs_link *grown;

	if (count <= links->line_count)
		return;
	count += count / 2 + 16;
	grown = realloc(links->lines, count * sizeof(*grown));
	if (!grown)
		abort();
	memset(grown + links->line_count, 0, (count - links->line_count) * sizeof(*grown));
	links->lines = grown;
	links->line_count = count;
}

static const struct qs_link *line_of(const struct qs_env *env, size_t index, const char *spec)
{
	QS_AUTO(qs_auto_free) char *path = NULL;
	struct qs_link *line;
	struct stat st;
	int r;

	grow_lines(env->links, index + 1);
	line = &env->links->lines[index];
	if (line->part && strcmp(line->part, spec) == 0)
		return line;
	path = qs_spec_path(spec);
	r = path ? qs_spec_stat(env, path, &st, NULL) : -ENOENT;
	free(line->part);
	*line = r == 0 ? target_of(&st) : (struct qs_link){ .failed = r };
	line->part = qs_strdup(spec);
	return line;
}

bool qs_links_may_lead(const struct qs_env *env, size_t index, const char *spec,
		       const struct qs_device *dev)
{
	const struct qs_link target = {
		.block = dev->kind != QS_DEVICE_IMAGE,
		.devno = dev->kind != QS_DEVICE_IMAGE ? dev->devno : dev->fs,
		.ino = dev->ino,
	};
	const struct qs_link *line;

	if (!env->links || target.devno == 0)
		return true;
	line = line_of(env, index, spec);
	if (line->failed)
		return line->failed != -ENOENT && line->failed != -ENOTDIR;
	return compare(line, &target) == 0;
}
