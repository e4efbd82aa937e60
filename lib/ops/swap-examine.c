#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "luks/mapping.h"
#include "ops/internal.h"
#include "ops/journal.h"
#include "ops/open.h"
#include "ops/swap.h"
#include "tab/crypttab.h"
#include "tab/fstab.h"

/* mkswap wants ten pages. */
#define MIN_PAGES 10

void qs_swap_target_init(struct qs_swap_target *t)
{
	*t = (struct qs_swap_target){ .lock = -1 };
}

void qs_swap_target_done(struct qs_swap_target *t)
{
	char **const texts[] = { &t->name,  &t->link,  &t->mapper, &t->uuid,
				 &t->label, &t->fstab, &t->holds,  &t->options };

	for (size_t i = 0; i < QS_ARRAY_SIZE(texts); i++)
		qs_auto_free(texts[i]);
	qs_auto_device(&t->dev);
	qs_auto_close(&t->lock);
}

static int refuse_kind(const struct qs_device *dev, struct qs_error *err)
{
	if (strncmp(dev->node, "/dev/zram", strlen("/dev/zram")) == 0)
		return qs_fail(err, QS_E_WRONG_DEVICE,
			       "%s is swap in memory: nothing of it is on a disk, and it is left "
			       "alone",
			       dev->node);
	if (dev->read_only)
		return qs_fail(err, QS_E_WRONG_DEVICE, "%s is read-only", dev->node);
	if (dev->size < MIN_PAGES * (uint64_t)sysconf(_SC_PAGESIZE))
		return qs_fail(err, QS_E_TOO_SMALL, "%s is too small for a swap", dev->node);
	return 0;
}

/* Link and name for the tables; a swap line that leads to the device gives its own. */
static int find_names(const struct qs_env *env, struct qs_swap_target *t, struct qs_error *err)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	const struct qs_crypttab_entry *e;
	int r = qs_device_name_place(env, t->dev, &t->link, &t->name, err);

	if (r < 0 && t->dev->kind == QS_DEVICE_IMAGE)
		return qs_fail(err, QS_E_WRONG_DEVICE,
			       "%s is a swap file, which cannot be encrypted by itself: put it on "
			       "an encrypted file system, or use a partition instead",
			       t->dev->node);
	if (r == 0)
		r = qs_crypttab_load(env, &tab, err);
	if (r < 0)
		return r;
	e = qs_open_line_of(env, tab, t->dev, "");
	t->has_line = e && qs_crypttab_is_swap(e);
	if (t->has_line)
		qs_outcome_set(&t->name, e->name);
	t->mapper = qs_printf("/dev/mapper/%s", t->name);
	return 0;
}

static int read_journal(const struct qs_env *env, struct qs_swap_target *t, struct qs_error *err)
{
	QS_AUTO(qs_journal_done) struct qs_journal journal = {};
	int r = qs_journal_read(env, t->name, &journal, err);

	if (r <= 0)
		return r;
	if (strcmp(journal.op, "swap") != 0)
		return qs_fail(err, QS_E_IN_USE,
			       "a %s of %s was begun and is not finished: run `qs-util crypt%s %s` "
			       "again first",
			       journal.op, t->dev->node, journal.op, t->link);
	t->begun = true;
	t->uuid = *journal.uuid ? qs_strdup(journal.uuid) : NULL;
	t->fstab = qs_strdup(journal.fstab);
	return 0;
}

static int look_at_mapping(struct qs_swap_target *t, const struct qs_swap_list *swaps,
			   struct qs_error *err)
{
	QS_AUTO(qs_mapping_list_done) struct qs_mapping_list mappings = {};
	QS_AUTO(qs_auto_free) char *node = NULL;
	const struct qs_mapping *m;
	struct stat st;
	int r = qs_mapping_scan(&mappings, err);

	if (r < 0)
		return r;
	m = qs_mapping_of_device(&mappings, t->dev);
	/* What an interrupted --now left holds the device without being a mapping yet. */
	if (!m && t->lock >= 0)
		r = qs_mapping_remove_leftover(t->name, err);
	if (r < 0)
		return r;
	if (!m && qs_mapping_by_name(&mappings, t->name))
		return qs_fail(err, QS_E_EXISTS, "/dev/mapper/%s belongs to another device",
			       t->name);
	if (!m)
		return 0;
	if (m->luks != 0 || strcmp(m->name, t->name) != 0)
		return qs_fail(err, QS_E_IN_USE, "%s is in use: held by /dev/mapper/%s",
			       t->dev->node, m->name);
	t->mapped = true;
	node = qs_printf("/dev/%s", m->dm);
	t->encrypted_active = stat(node, &st) == 0 && qs_swaps_find(swaps, st.st_rdev) != NULL;
	return 0;
}

static int look_at_swaps(const struct qs_env *env, struct qs_swap_target *t, struct qs_error *err)
{
	QS_AUTO(qs_swap_list_done) struct qs_swap_list swaps = {};
	const struct qs_swap_area *area;
	int r = *env->root ? 0 : qs_swaps_read(&swaps, err);

	if (r < 0)
		return r;
	area = qs_swaps_find(&swaps, t->dev->devno);
	if (area) {
		t->active = true;
		t->priority = area->priority;
		t->used = area->used;
	}
	return look_at_mapping(t, &swaps, err);
}

/* The swap line of fstab that is ours to change; of others the use is a refusal. */
static bool is_own_line(const struct qs_env *env, const struct qs_swap_target *t,
			const struct qs_use *use)
{
	QS_AUTO(qs_auto_fstab) struct qs_fstab *tab = NULL;
	unsigned long line;

	if (qs_fstab_load(env, &tab, NULL) < 0 || strncmp(use->detail, "line ", 5) != 0)
		return false;
	line = strtoul(use->detail + 5, NULL, 10);
	for (size_t i = 0; i < qs_fstab_count(tab); i++) {
		const struct qs_fstab_entry *e = qs_fstab_get(tab, i);

		if (e->line == line)
			return strcmp(e->type, "swap") == 0 && qs_swap_is_named(env, t, e->source);
	}
	return false;
}

static bool is_expected(const struct qs_env *env, const struct qs_swap_target *t,
			const struct qs_use *use)
{
	switch (use->kind) {
	case QS_USE_SWAP:
		return t->active || t->encrypted_active;
	case QS_USE_HOLDER:
		return t->mapped;
	case QS_USE_CRYPTTAB:
		return t->has_line && use->name && strcmp(use->name, t->name) == 0;
	case QS_USE_FSTAB:
		return is_own_line(env, t, use);
	default:
		return false;
	}
}

static int check_uses(const struct qs_env *env, const struct qs_swap_target *t,
		      struct qs_error *err)
{
	QS_AUTO(qs_use_list_done) struct qs_use_list uses = {};
	int r = qs_device_uses(env, t->dev, &uses, err);

	for (size_t i = 0; r == 0 && i < uses.count; i++)
		if (!is_expected(env, t, &uses.items[i]))
			r = qs_device_refuse_use(t->dev, &uses.items[i], err);
	return r;
}

static int identify(struct qs_swap_target *t, int fd, struct qs_error *err)
{
	char *uuid, *label;
	int r = qs_swap_identity(fd, t->dev->node, &uuid, &label, err);

	if (r < 0)
		return r;
	free(t->uuid);
	t->uuid = uuid;
	t->label = label;
	t->swap_header = true;
	return 0;
}

/* Blank, a swap, what a mapping of ours left, or something that would be lost. */
static int look_at_content(struct qs_swap_target *t, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int fd = open(t->dev->node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	QS_AUTO(qs_auto_free) char *found = NULL;
	int r;

	if (fd < 0)
		return qs_fail_errno(err, errno, "cannot open %s", t->dev->node);
	r = qs_device_signatures(fd, t->dev->node, &found, err);
	if (r < 0)
		return r;
	if (found && strcmp(found, "swap") == 0)
		return identify(t, fd, err);
	if (found) {
		t->holds = strstr(found, "suspend") ? qs_strdup("the image of a hibernated system")
						    : QS_TAKE(found);
		return 0;
	}
	r = t->has_line ? 1 : qs_device_is_blank(fd, t->dev->node, err);
	if (r == 0)
		t->holds = qs_strdup("data of an unknown kind");
	return r < 0 ? r : 0;
}

static int decide(const struct qs_env *env, const struct qs_swap_options *options,
		  struct qs_swap_target *t, struct qs_error *err)
{
	QS_AUTO(qs_swap_tables_done) struct qs_swap_tables tables = {};
	int r = qs_swap_tables_edit(env, t, &tables, err);

	if (r < 0)
		return r;
	t->tables = qs_swap_tables_changed(&tables) || t->begun;
	t->wipe = !t->mapped && (t->active || t->swap_header || t->holds || t->tables);
	t->activate = options->now && !t->encrypted_active;
	if (!t->fstab)
		t->fstab = qs_strdup(tables.source);
	if (t->activate && !t->mapped && !t->standard)
		return qs_fail(err, QS_E_FAILED,
			       "the line of %s in " QS_CRYPTTAB
			       " has options that qs-util does not handle: run it without --now, "
			       "then `systemctl start systemd-cryptsetup@%s` and `swapon %s`",
			       t->name, t->name, t->mapper);
	return 0;
}

int qs_swap_examine(const struct qs_env *env, const struct qs_swap_options *options, bool look,
		    struct qs_swap_target *t, struct qs_error *err)
{
	int r = refuse_kind(t->dev, err);

	if (r == 0)
		r = find_names(env, t, err);
	if (r == 0 && !look) {
		t->lock = qs_device_lock(env, t->dev, 0, err);
		r = t->lock < 0 ? t->lock : 0;
	}
	if (r == 0)
		r = read_journal(env, t, err);
	if (r == 0)
		r = look_at_swaps(env, t, err);
	if (r == 0 && !t->mapped)
		r = look_at_content(t, err);
	if (r == 0)
		r = check_uses(env, t, err);
	if (r < 0)
		return r;
	if (t->holds && !options->force)
		return qs_fail(err, QS_E_REFUSED, "%s holds %s, which would be lost", t->dev->node,
			       t->holds);
	r = decide(env, options, t, err);
	if (r < 0 || options->force || !(t->wipe || t->tables || t->activate))
		return r;
	return qs_swap_check_hibernation(env, t, err);
}
