/*
 * crypttabrepair. What a crash after each step leaves, and what a second run does:
 *
 *   step                                left behind             second run
 *   read keys, backups, headers;        nothing                 all
 *     test-open each device once
 *   lock, read the table again          nothing                 all
 *   the last version as crypttab.qs-bak + crypttab.qs-bak       all
 *   the new table takes its place       finished                finds it right, syncs it
 *
 * Nothing else is ever written: neither a disk nor a key, nor with --dry-run the
 * lock. The table is not locked while keys are tried, which may take minutes;
 * what was found is put into the table as it is then.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/utf8.h"
#include "ops/repair.h"
#include "tab/diff.h"

static void report_unused(struct qs_repair *r)
{
	json_t *list = json_object_get(r->result, "unused_keys");

	for (size_t k = 0; k < r->key_count; k++)
		if (r->used[r->keys[k].first] != QS_REPAIR_PROVEN)
			(void)json_array_append_new(list, qs_utf8_json(r->keys[k].path));
}

static int load_table(const struct qs_repair *r, struct qs_repair_table *ret, struct qs_error *err)
{
	struct qs_crypttab *tab = NULL;
	int result = qs_crypttab_load(r->env, &tab, err);

	if (result < 0)
		qs_error_append(err, "; nothing was changed (to have a new table made, move "
				     "this one away and run the command again)");
	else
		qs_repair_table_init(r, tab, ret);
	return result;
}

/* Shared with the workers: they see at once which keys have found their devices. */
static int share_used(struct qs_repair *r, struct qs_error *err)
{
	void *shared = mmap(NULL, r->key_count + 1, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (shared == MAP_FAILED)
		return qs_fail_errno(err, errno, "no memory for %zu keys", r->key_count);
	r->used = shared;
	return 0;
}

static int look_and_prove(struct qs_repair *r, struct qs_error *err)
{
	QS_AUTO(qs_repair_table_done) struct qs_repair_table table = {};
	int result = load_table(r, &table, err);

	if (result == 0)
		result = qs_repair_find_keys(r, err);
	if (result == 0)
		result = share_used(r, err);
	if (result < 0)
		return result;
	qs_repair_find_backups(r);
	result = qs_repair_find_devices(r, table.tab, err);
	if (result < 0)
		return result;
	qs_repair_assign(r, &table);
	qs_repair_claim(r, table.tab);
	return qs_repair_prove(r, err);
}

static bool was_interrupted(const struct qs_repair *r)
{
	for (size_t i = 0; i < r->outcomes->count; i++)
		if (r->outcomes->items[i].error.kind == QS_E_INTERRUPTED)
			return true;
	return false;
}

static bool has_lines(const struct qs_repair *r)
{
	for (size_t i = 0; i < r->outcomes->count; i++)
		if (r->devices[i].action)
			return true;
	return false;
}

/* A run that was killed may have left a right table that is not durable. */
static int save(const struct qs_repair *r, const struct qs_crypttab *tab, bool changed,
		struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(r->env, QS_CRYPTTAB);

	if (changed)
		return qs_crypttab_save(r->env, tab, err);
	return has_lines(r) ? qs_file_sync(real, err) : 0;
}

static int write_table(struct qs_repair *r, struct qs_error *err)
{
	QS_AUTO(qs_repair_table_done) struct qs_repair_table table = {};
	QS_AUTO(qs_auto_free) char *old = NULL;
	QS_AUTO(qs_auto_free) char *diff = NULL;
	QS_AUTO(qs_auto_close) int lock = -1;
	size_t old_size, size;
	const char *text;
	int result;

	if (!r->options->dry_run) {
		lock = qs_tab_lock(r->env, err);
		if (lock < 0)
			return lock;
	}
	result = load_table(r, &table, err);
	if (result < 0)
		return result;
	text = qs_crypttab_text(table.tab, &old_size);
	old = malloc(old_size + 1);
	if (!old)
		return qs_fail(err, QS_E_MEMORY, "no memory for crypttab");
	memcpy(old, text, old_size + 1);
	qs_repair_assign(r, &table);
	qs_repair_change(r, &table);
	text = qs_crypttab_text(table.tab, &size);
	diff = qs_diff(QS_CRYPTTAB, old, old_size, text, size);
	(void)json_object_set_new(r->result, "diff", qs_utf8_json(diff));
	result = r->options->dry_run ? 0 : save(r, table.tab, *diff, err);
	(void)json_object_set_new(r->result, "changed", json_boolean(result == 0 && *diff));
	return result;
}

static void repair_done(struct qs_repair *r)
{
	for (size_t i = 0; r->devices && i < r->outcomes->count; i++) {
		qs_device_free(r->devices[i].dev);
		free(r->devices[i].twin);
		free(r->devices[i].link);
		free(r->devices[i].by_rule);
		free(r->devices[i].name);
	}
	free(r->devices);
	for (size_t i = 0; i < r->backup_count; i++)
		free(r->backups[i].name);
	free(r->backups);
	for (size_t i = 0; i < r->key_count; i++) {
		free(r->keys[i].path);
		qs_secret_done(&r->keys[i].digest);
		qs_secret_done(&r->keys[i].bytes);
	}
	free(r->keys);
	if (r->used)
		(void)munmap(r->used, r->key_count + 1);
}

int qs_repair(const struct qs_env *env, const struct qs_repair_options *options,
	      struct qs_outcomes *ret, json_t **ret_result, struct qs_error *err)
{
	struct qs_repair r = { .env = env, .options = options, .outcomes = ret };
	int result = qs_outcomes_init(ret, NULL, 0, err);

	if (result < 0)
		return result;
	r.result = json_pack("{s:b, s:s, s:i, s:[], s:[], s:[], s:[]}", "changed", 0, "diff", "",
			     "tries", 0, "unused_keys", "unusable_keys", "duplicate_keys",
			     "stale_lines");
	*ret_result = r.result;
	result = look_and_prove(&r, err);
	if (result == 0)
		report_unused(&r);
	if (result == 0 && was_interrupted(&r))
		result = qs_fail(err, QS_E_INTERRUPTED, "interrupted; %s was not changed",
				 QS_CRYPTTAB);
	if (result == 0)
		result = write_table(&r, err);
	repair_done(&r);
	return result;
}
