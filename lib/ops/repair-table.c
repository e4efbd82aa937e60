/*
 * crypttabrepair: the new table. Lines of devices are corrected where they stand
 * or added behind the last; a line of ours that names a device whose line is
 * another goes; other stale lines of ours go only if that is asked for; every
 * line of others stays.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "key/place.h"
#include "ops/repair.h"

static struct qs_error *error_of(const struct qs_repair *r, const struct qs_repair_device *d)
{
	return &r->outcomes->items[d - r->devices].error;
}

static bool gets_line(const struct qs_repair *r, const struct qs_repair_device *d)
{
	return (d->key != QS_REPAIR_NONE || d->by_command) && error_of(r, d)->kind == QS_E_NONE;
}

/* ---- fields of a device's line ---- */

/* Of files with the same bytes the one with the device's name, then the one of its line. */
static const char *choose_key(const struct qs_repair *r, const struct qs_repair_table *table,
			      const struct qs_repair_device *d)
{
	const char *const names[] = { d->name, d->labelled ? d->label : NULL, d->by_rule };
	const char *old =
		d->line == QS_REPAIR_NONE ? NULL : qs_crypttab_get(table->tab, d->line)->key;

	if (d->by_command)
		return QS_CRYPTTAB_NO_KEY;
	for (size_t n = 0; n < QS_ARRAY_SIZE(names); n++)
		for (size_t k = 0; names[n] && k < r->key_count; k++)
			if (r->keys[k].first == d->key &&
			    qs_repair_key_has_name(r->keys[k].path, names[n]))
				return r->keys[k].path;
	for (size_t k = 0; old && k < r->key_count; k++)
		if (r->keys[k].first == d->key && strcmp(r->keys[k].path, old) == 0)
			return r->keys[k].path;
	return r->keys[d->key].path;
}

/* The link that the line has, if it leads to this disk after the next boot too. */
static const char *choose_link(const struct qs_repair_table *table,
			       const struct qs_repair_device *d)
{
	static const char *const lasting[] = { "/dev/disk/by-id/", "/dev/disk/by-uuid/", "UUID=" };
	const char *old;

	if (d->line == QS_REPAIR_NONE || !qs_repair_leads_to(table, d->line, d))
		return d->link;
	old = qs_crypttab_get(table->tab, d->line)->device;
	for (size_t i = 0; i < QS_ARRAY_SIZE(lasting); i++)
		if (strncmp(old, lasting[i], strlen(lasting[i])) == 0)
			return old;
	return d->dev->kind == QS_DEVICE_IMAGE && strncmp(old, "/dev/", 5) != 0 ? old : d->link;
}

static void tell_copies(struct qs_repair *r, const struct qs_repair_device *d, const char *chosen)
{
	for (size_t k = 0; !d->by_command && k < r->key_count; k++)
		if (r->keys[k].first == d->key && strcmp(r->keys[k].path, chosen) != 0)
			qs_repair_warn(r, d, "%s is the same key; the line names %s",
				       r->keys[k].path, chosen);
}

/* ---- lines of devices ---- */

static int check_names(const struct qs_repair_device *d, const char *link, struct qs_error *err)
{
	if (!link) {
		*err = d->nameless;
		return -EINVAL;
	}
	if (!d->name)
		return qs_fail(err, QS_E_EXISTS,
			       "every name for %s is used by another line of %s already",
			       d->dev->node, QS_CRYPTTAB);
	return 0;
}

/* Returns 1 when the table changed. Strings of the entry are gone then. */
static int correct(struct qs_repair *r, struct qs_repair_table *table, struct qs_repair_device *d)
{
	const struct qs_crypttab_entry *e = qs_crypttab_get(table->tab, d->line);
	const char *key = choose_key(r, table, d), *link = choose_link(table, d);
	struct qs_error *err = error_of(r, d);
	int result = check_names(d, link, err);
	bool right;

	if (result < 0)
		return result;
	tell_copies(r, d, key);
	right = e->options && strcmp(e->name, d->name) == 0 && strcmp(e->device, link) == 0 &&
		strcmp(e->key, key) == 0;
	result = qs_crypttab_change(table->tab, d->line, d->name, link, key, right ? NULL : err);
	/* What the administrator wrote, and is right, stays though we would not have written it. */
	if (right && result < 0)
		result = 0;
	d->action = result > 0 ? "changed" : "unchanged";
	return result;
}

static int add(struct qs_repair *r, struct qs_repair_table *table, struct qs_repair_device *d)
{
	const char *key = choose_key(r, table, d);
	struct qs_error *err = error_of(r, d);
	int result = check_names(d, d->link, err);

	if (result < 0)
		return result;
	tell_copies(r, d, key);
	d->action = "added";
	return qs_key_set_line(r->env, table->tab, d->name, d->link, key, err);
}

/* ---- lines of ours that are no device's ---- */

/* Its device has another line, or its name is another line's. */
static char *conflict(const struct qs_repair *r, const struct qs_repair_table *table, size_t i)
{
	const char *name = qs_crypttab_get(table->tab, i)->name;

	for (size_t k = 0; k < r->outcomes->count; k++) {
		const struct qs_repair_device *d = &r->devices[k];

		if (!gets_line(r, d) || !d->name)
			continue;
		if (qs_repair_leads_to(table, i, d) || qs_repair_names_twins(table, i, d))
			return qs_printf("names %s, which is %s", d->dev->node, d->name);
		if (qs_repair_is_loose(table, i, d) && strcmp(name, d->name) == 0)
			return qs_printf("has the name of %s", d->dev->node);
	}
	return NULL;
}

static bool leads_to_listed(const struct qs_repair *r, const struct qs_repair_table *table,
			    size_t i)
{
	for (size_t k = 0; k < r->outcomes->count; k++)
		if (qs_repair_leads_to(table, i, &r->devices[k]) ||
		    (table->lines[i].node &&
		     strcmp(table->lines[i].node, r->devices[k].dev->node) == 0))
			return true;
	return false;
}

/* Why the line is of no use now, as far as that can be told; NULL: it is of use. */
static char *stale(const struct qs_repair *r, const struct qs_repair_table *table, size_t i,
		   bool *ret_keep)
{
	const struct qs_crypttab_entry *e = qs_crypttab_get(table->tab, i);

	if (leads_to_listed(r, table, i))
		return NULL;
	*ret_keep = table->lines[i].untold;
	if (table->lines[i].untold)
		return qs_printf("names %s, which cannot be looked at", e->device);
	if (!e->device)
		return qs_printf("is cut off and names no device");
	if (!table->lines[i].node)
		return qs_printf("names %s, which is absent", e->device);
	if (r->incomplete)
		return NULL;
	*ret_keep = qs_repair_backup_of(r, e->name) != NULL;
	return qs_printf("names %s, which has no LUKS header any more%s", e->device,
			 *ret_keep ? "; its header backup is still there" : "");
}

/* Returns true when the line has to go. */
static bool judge_line(struct qs_repair *r, const struct qs_repair_table *table, size_t i)
{
	const struct qs_crypttab_entry *e = qs_crypttab_get(table->tab, i);
	QS_AUTO(qs_auto_free) char *problem = NULL;
	bool keep = false, go = true;

	if (!table->lines[i].ours || table->lines[i].device != QS_REPAIR_NONE)
		return false;
	problem = conflict(r, table, i);
	if (!problem) {
		problem = stale(r, table, i, &keep);
		go = r->options->prune && !keep;
	}
	if (!problem)
		return false;
	(void)json_array_append_new(json_object_get(r->result, "stale_lines"),
				    json_pack("{s:i, s:o, s:o, s:b}", "line", (int)e->line, "name",
					      qs_utf8_json(e->name), "problem",
					      qs_utf8_json(problem), "removed", go));
	return go;
}

/* ---- all of it ---- */

static void tell(struct qs_repair *r, const struct qs_repair_table *table,
		 struct qs_repair_device *d)
{
	const struct qs_crypttab_entry *e =
		d->name && d->action ? qs_crypttab_find(table->tab, d->name) : NULL;
	struct qs_outcome *o = &r->outcomes->items[d - r->devices];

	if (o->error.kind != QS_E_NONE)
		return;
	if (d->action) {
		qs_outcome_set(&o->name, d->name);
		qs_outcome_set(&o->by_id, e && e->device[0] == '/' ? e->device : d->link);
		if (e && !d->by_command)
			qs_outcome_detail(o, "key_file", qs_utf8_json(e->key));
		qs_outcome_detail(
			o, "crypttab",
			json_pack("{s:s, s:i}", "action", d->action, "line", e ? (int)e->line : 0));
	}
	if (d->twin)
		qs_repair_warn(r, d,
			       "%s has the same UUID (a copy of this disk): both open with the "
			       "same key, and only their links in /dev/disk/by-id tell them apart",
			       d->twin);
}

/* Before anything changes: the entries of others keep their numbers only until then. */
static void tell_foreign(struct qs_repair *r, const struct qs_repair_table *table)
{
	for (size_t i = 0; i < r->outcomes->count; i++) {
		struct qs_repair_device *d = &r->devices[i];
		struct qs_outcome *o = &r->outcomes->items[i];
		const struct qs_crypttab_entry *e = qs_crypttab_get(table->tab, d->foreign);

		if (!e)
			continue;
		qs_outcome_set(&o->name, e->name);
		qs_outcome_set(&o->note, "its line is not ours and stays as it is");
		qs_outcome_detail(o, "crypttab",
				  json_pack("{s:s, s:i}", "action", "left", "line", (int)e->line));
	}
	for (size_t i = 0; i < table->count; i++)
		for (size_t k = 0; !table->lines[i].ours && k < r->outcomes->count; k++)
			if (r->devices[k].line != QS_REPAIR_NONE &&
			    qs_repair_leads_to(table, i, &r->devices[k]))
				qs_repair_warn(r, &r->devices[k],
					       "line %u of %s, which is not ours, names it too",
					       qs_crypttab_get(table->tab, i)->line, QS_CRYPTTAB);
}

void qs_repair_change(struct qs_repair *r, struct qs_repair_table *table)
{
	QS_AUTO(qs_auto_free) bool *go = calloc(table->count + 1, sizeof(*go));

	if (!go)
		abort();
	tell_foreign(r, table);
	for (size_t i = 0; i < table->count; i++)
		go[i] = judge_line(r, table, i);
	for (size_t i = 0; i < r->outcomes->count; i++)
		if (gets_line(r, &r->devices[i]) && r->devices[i].line != QS_REPAIR_NONE)
			(void)correct(r, table, &r->devices[i]);
	for (size_t i = table->count; i-- > 0;)
		if (go[i])
			qs_crypttab_remove_at(table->tab, i);
	for (size_t i = 0; i < r->outcomes->count; i++)
		if (gets_line(r, &r->devices[i]) && r->devices[i].line == QS_REPAIR_NONE)
			(void)add(r, table, &r->devices[i]);
	for (size_t i = 0; i < r->outcomes->count; i++)
		tell(r, table, &r->devices[i]);
}
