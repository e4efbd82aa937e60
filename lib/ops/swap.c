/*
 * cryptswap. What a crash after each step leaves, and what a second run does:
 *
 *   step                              left behind                    second run
 *   refuse what is used, or not swap  nothing                        all
 *   journal "swap"                    + journal                      all
 *   swapoff                           swap is off until the next     all
 *                                     start, which is as before
 *   zeros over all but the first      the same: the swap header is   all
 *     page, synced, read again        still there
 *   RESUME=none                       the same                       all
 *   crypttab line                     boots; swap may be either      fstab line; overwrites
 *                                                                    again if it was plain
 *   fstab line                        encrypted at the next start    goes on
 *   zeros over the first page         the same                       goes on
 *   journal removed                   the same                       "already encrypted"
 *   with --now: map, mkswap, swapon   the same                       goes on
 *
 * The area is overwritten before the tables change: where they name the mapping,
 * nothing readable is left. The first page holds no data but is the swap header that
 * fstab's UUID= means, so it goes last.
 *
 * When a step fails, those before it are taken back in reverse order: mapping, first
 * page, tables, journal, and the old swap is switched on again. Devices are done one
 * after another, so that what one holds finds room in another.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/tool.h"
#include "luks/plain.h"
#include "ops/internal.h"
#include "ops/journal.h"
#include "ops/swap.h"
#include "tab/crypttab.h"

struct convert {
	const struct qs_env *env;
	struct qs_swap_target *t;
	struct qs_outcome *outcome;
	uint64_t done, total; /* devices */
	struct qs_swap_tables tables;
	int table_lock;
	char *head; /* the first page as it was */
	size_t head_size;
	/* What has to be taken back after a failure: */
	bool off, head_gone, opened, journal;
};

static void tell(const struct convert *c, const char *step)
{
	qs_env_progress(c->env, c->outcome->device, step, c->done, c->total);
}

/* ---- swapoff and swapon ---- */

/* Bytes that programs could still get, by the kernel's own estimate; 0 when it says nothing. */
static uint64_t available_memory(void)
{
	static const char word[] = "MemAvailable:";
	QS_AUTO(qs_auto_fclose) FILE *f = fopen("/proc/meminfo", "re");
	char line[128];
	uint64_t found = 0;

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, word, strlen(word)) == 0)
			found = strtoull(line + strlen(word), NULL, 10) * 1024;
	return found;
}

/* What may take in the content of one swap: free memory, and room in the others. */
static int measure_room(dev_t but, uint64_t *ret, struct qs_error *err)
{
	QS_AUTO(qs_swap_list_done) struct qs_swap_list swaps = {};
	int r = qs_swaps_read(&swaps, err);

	if (r < 0)
		return r;
	*ret = available_memory();
	for (size_t i = 0; i < swaps.count; i++)
		if (swaps.items[i].devno != but)
			*ret += swaps.items[i].size - swaps.items[i].used;
	return 0;
}

/* The kernel would try for minutes, and kill programs, before it says that there is no room. */
static int check_room(const struct qs_swap_target *t, struct qs_error *err)
{
	uint64_t room;
	int r = measure_room(t->dev->devno, &room, err);

	if (r < 0 || t->used <= room)
		return r;
	return qs_fail(err, QS_E_MEMORY,
		       "cannot switch off the swap on %s: it holds %ju MiB, and memory and other "
		       "swaps have room for %ju MiB; end some programs, or add another swap "
		       "meanwhile",
		       t->dev->node, (uintmax_t)(t->used >> 20), (uintmax_t)(room >> 20));
}

static int swap_off(struct convert *c, struct qs_error *err)
{
	const char *const argv[] = { "/sbin/swapoff", c->t->dev->node, NULL };
	int r = check_room(c->t, err);

	if (r < 0)
		return r;
	tell(c, "swapoff");
	r = qs_tool_run(argv, err);
	if (r < 0)
		qs_error_prefix(err, "cannot switch off the swap on %s", c->t->dev->node);
	else
		c->off = true;
	return r;
}

/* With the options of its line in fstab; a priority that it had without one stays. */
static int swap_on(const struct qs_swap_target *t, const char *node, struct qs_error *err)
{
	char priority[16];
	const char *argv[7] = { "/sbin/swapon" };
	size_t n = 1;
	int r;

	if (t->options && *t->options) {
		argv[n++] = "-o";
		argv[n++] = t->options;
	}
	if (t->active && t->priority >= 0) {
		(void)snprintf(priority, sizeof(priority), "%d", t->priority);
		argv[n++] = "-p";
		argv[n++] = priority;
	}
	argv[n++] = node;
	r = qs_tool_run(argv, err);
	if (r < 0)
		qs_error_prefix(err, "cannot switch on the swap on %s", node);
	return r;
}

/* ---- the old content ---- */

static int read_head(struct convert *c, int fd, struct qs_error *err)
{
	int r;

	c->head_size = (size_t)sysconf(_SC_PAGESIZE);
	c->head = malloc(c->head_size);
	if (!c->head)
		return qs_fail(err, QS_E_MEMORY, "no memory for a page of %s", c->t->dev->node);
	r = qs_file_pread(fd, c->head, c->head_size, 0);
	return r < 0 ? qs_fail_errno(err, r, "cannot read %s", c->t->dev->node) : 0;
}

static int write_head(const struct convert *c, const void *data, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int disk = -1;
	QS_AUTO(qs_auto_close) int fd = qs_device_open_exclusive(c->t->dev, &disk, err);
	int r;

	if (fd < 0)
		return fd;
	r = qs_file_pwrite(fd, data, c->head_size, 0);
	if (r < 0)
		return qs_fail_errno(err, r, "cannot write the first page of %s", c->t->dev->node);
	return qs_device_sync_and_compare(fd, c->t->dev->node, data, c->head_size, err);
}

static int overwrite(struct convert *c, struct qs_error *err)
{
	struct qs_overwrite how = { .env = c->env,
				    .dev = c->t->dev,
				    .label = c->outcome->device,
				    .done = c->done,
				    .total = c->total };
	QS_AUTO(qs_auto_close) int disk = -1;
	QS_AUTO(qs_auto_close) int fd = qs_device_open_exclusive(c->t->dev, &disk, err);
	int r;

	if (fd < 0)
		return fd;
	/* The disk's other partitions may have events; nothing is half-written for minutes. */
	qs_auto_close(&disk);
	r = read_head(c, fd, err);
	if (r < 0)
		return r;
	how.from = c->head_size;
	return qs_device_overwrite(&how, fd, err);
}

static int clear_head(struct convert *c, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *zeros = calloc(1, c->head_size);

	if (!zeros)
		return qs_fail(err, QS_E_MEMORY, "no memory for a page of %s", c->t->dev->node);
	c->head_gone = true;
	return write_head(c, zeros, err);
}

/* ---- tables ---- */

static int write_journal(struct convert *c, struct qs_error *err)
{
	struct qs_journal journal = { .op = "swap", .link = c->t->link, .fstab = c->t->fstab };

	(void)snprintf(journal.uuid, sizeof(journal.uuid), "%s", c->t->uuid ? c->t->uuid : "");
	c->journal = !c->t->begun;
	return qs_journal_write(c->env, c->t->name, &journal, err);
}

static int write_tables(struct convert *c, struct qs_error *err)
{
	int r;

	tell(c, "tables");
	c->table_lock = qs_tab_lock(c->env, err);
	if (c->table_lock < 0)
		return c->table_lock;
	r = qs_swap_tables_edit(c->env, c->t, &c->tables, err);
	return r < 0 ? r : qs_swap_tables_write(c->env, &c->tables, err);
}

/* ---- the encrypted swap ---- */

static int activate(struct convert *c, struct qs_error *err)
{
	const char *const argv[] = { "/sbin/mkswap", c->t->mapper, NULL };
	int r = 0;

	tell(c, "map");
	c->opened = !c->t->mapped;
	if (c->opened)
		r = qs_plain_open(c->t->dev->node, c->t->name, c->t->sector_size, c->t->discards,
				  err);
	if (r < 0)
		return r;
	tell(c, "mkswap");
	c->head_gone = c->head != NULL;
	r = qs_tool_run(argv, err);
	if (r < 0)
		return r;
	tell(c, "swapon");
	return swap_on(c->t, c->t->mapper, err);
}

/* ---- all of it ---- */

static int run_steps(struct convert *c, struct qs_error *err)
{
	const struct qs_swap_target *t = c->t;
	bool change = t->wipe || t->tables;
	int r = change ? write_journal(c, err) : 0;

	if (r == 0 && t->active)
		r = swap_off(c, err);
	if (r == 0 && t->wipe)
		r = overwrite(c, err);
	if (r == 0 && change)
		r = write_tables(c, err);
	if (r == 0 && t->wipe)
		r = clear_head(c, err);
	/* Also where nothing is to be done: a run that was killed may not have synced its end. */
	if (r == 0)
		r = qs_journal_remove(c->env, t->name, err);
	if (r == 0 && t->activate)
		r = activate(c, err);
	return r;
}

/* The old swap only where the tables are the old ones: else the next start would not wipe it. */
static int take_back(struct convert *c, struct qs_error *err)
{
	int r = c->opened ? qs_plain_close(c->t->name, err) : 0;

	if (r == 0 && c->head_gone)
		r = write_head(c, c->head, err);
	if (r == 0)
		r = qs_swap_tables_undo(&c->tables, err);
	if (r == 0 && c->off)
		r = swap_on(c->t, c->t->dev->node, err);
	if (r == 0 && c->journal)
		r = qs_journal_remove(c->env, c->t->name, err);
	return r;
}

/* The undo is told only where it failed; that there is none to take back is no failure. */
static void undo(struct convert *c, struct qs_error *err)
{
	struct qs_error own = {};

	if (take_back(c, &own) < 0)
		qs_error_append(err,
				" (and the old state could not be brought back: %s; run the same "
				"command again)",
				own.text);
}

static void describe(const struct convert *c)
{
	const struct qs_swap_target *t = c->t;
	bool active = t->encrypted_active || t->activate;
	bool resume = c->tables.files[QS_SWAP_RESUME].written;
	struct qs_outcome *o = c->outcome;
	QS_AUTO(qs_auto_free) char *note = NULL;

	qs_outcome_detail(o, "state", json_string(active ? "active" : "next-start"));
	if (t->wipe)
		qs_outcome_detail(o, "wiped", json_integer((json_int_t)t->dev->size));
	if (resume)
		qs_outcome_detail(o, "update_initramfs", json_true());
	note = qs_printf("%s%s",
			 !(t->wipe || t->tables || t->activate) ? "already encrypted"
			 : active                               ? "in use"
				  : "from the next start; off until then",
			 resume ? "; RESUME is none now: run `update-initramfs -u`" : "");
	qs_outcome_set(&o->note, note);
}

static void convert_done(struct convert *c)
{
	qs_swap_tables_done(&c->tables);
	qs_auto_close(&c->table_lock);
	free(c->head);
}

static int convert(struct convert *c)
{
	struct qs_error *err = &c->outcome->error;
	int r = run_steps(c, err);

	if (r < 0)
		undo(c, err);
	else
		describe(c);
	convert_done(c);
	return r;
}

/* Find the device of an outcome. Returns 1 when somebody else's mapping encrypts it. */
static int find(const struct qs_env *env, struct qs_outcome *o, struct qs_swap_target *t)
{
	QS_AUTO(qs_auto_free) char *by = NULL;
	QS_AUTO(qs_auto_free) char *note = NULL;
	int r = qs_swap_find(env, o->device, &t->dev, &by, &o->error);

	if (r < 0)
		return r;
	qs_outcome_set_device(o, t->dev);
	if (r == 0)
		return 0;
	note = qs_printf("already encrypted, by /dev/mapper/%s", by);
	qs_outcome_set(&o->note, note);
	return 1;
}

static void name_outcome(struct qs_outcome *o, const struct qs_swap_target *t)
{
	if (t->link)
		qs_outcome_set(&o->by_id, t->link);
	if (t->name)
		qs_outcome_set(&o->name, t->name);
}

static void swap_one(const struct qs_env *env, const struct qs_swap_options *options,
		     struct qs_outcomes *list, size_t i)
{
	QS_AUTO(qs_swap_target_done) struct qs_swap_target t;
	struct qs_outcome *o = &list->items[i];
	struct convert c = { env, &t, o, i, list->count, .table_lock = -1 };
	int r;

	qs_swap_target_init(&t);
	if (qs_pool_interrupted()) {
		(void)qs_fail(&o->error, QS_E_INTERRUPTED, "not begun: interrupted");
		return;
	}
	r = find(env, o, &t);
	if (r == 0)
		r = qs_swap_examine(env, options, false, &t, &o->error);
	name_outcome(o, &t);
	if (r == 0)
		(void)convert(&c);
	qs_env_progress(env, o->device, "done", i + 1, list->count);
}

static int list_devices(const struct qs_env *env, const char *device, struct qs_outcomes *ret,
			struct qs_error *err)
{
	return device ? qs_outcomes_init(ret, &device, 1, err) : qs_swap_list_all(env, ret, err);
}

int qs_swap(const struct qs_env *env, const char *device, const struct qs_swap_options *options,
	    struct qs_outcomes *ret, struct qs_error *err)
{
	int r;

	if (options->now && *env->root)
		return qs_fail(err, QS_E_USAGE,
			       "--now is for the running system, and --root names another tree");
	r = list_devices(env, device, ret, err);
	for (size_t i = 0; r == 0 && i < ret->count; i++)
		swap_one(env, options, ret, i);
	return r;
}

int qs_swap_preview(const struct qs_env *env, const char *device,
		    const struct qs_swap_options *options, struct qs_outcomes *ret,
		    struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes all = {};
	int r = list_devices(env, device, &all, err);

	for (size_t i = 0; r == 0 && i < all.count; i++) {
		QS_AUTO(qs_swap_target_done) struct qs_swap_target t;
		QS_AUTO(qs_auto_free) char *note = NULL;
		struct qs_outcome *o;

		qs_swap_target_init(&t);
		if (find(env, &all.items[i], &t) != 0 ||
		    qs_swap_examine(env, options, true, &t, NULL) < 0 || !t.holds)
			continue;
		o = qs_outcomes_add(ret, all.items[i].device);
		qs_outcome_set_device(o, t.dev);
		qs_outcome_detail_disk(o, t.dev);
		name_outcome(o, &t);
		note = qs_printf("holds %s", t.holds);
		qs_outcome_set(&o->note, note);
	}
	return r;
}
