/*
 * crypttabrepair: whose line is whose, and what each device is called.
 *
 * A mapping's name stands in fstab, so it belongs to the data and not to the
 * slot that a disk sits in: a line follows its disk by header backup and label,
 * and only where these say nothing by the link in the line. Two devices with one
 * UUID share backup and label: for them only links count that lead to the disk.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "luks/make.h"
#include "ops/open.h"
#include "ops/repair.h"

/* ---- the table ---- */

/* A line that was cut behind its name or device, or one that cryptopenall would take. */
static bool is_ours(const struct qs_env *env, const struct qs_crypttab_entry *e)
{
	return qs_open_is_our_line(env, e) || (strncmp(e->name, "enc-", 4) == 0 && !e->key);
}

void qs_repair_table_init(const struct qs_repair *r, struct qs_crypttab *tab,
			  struct qs_repair_table *ret)
{
	size_t count = qs_crypttab_count(tab);
	struct qs_repair_line *lines = calloc(count + 1, sizeof(*lines));

	if (!lines)
		abort();
	for (size_t i = 0; i < count; i++) {
		const struct qs_crypttab_entry *e = qs_crypttab_get(tab, i);

		lines[i].ours = is_ours(r->env, e);
		lines[i].device = QS_REPAIR_NONE;
		lines[i].untold =
			e->device && qs_device_node_of(r->env, e->device, &lines[i].node, NULL) < 0;
	}
	*ret = (struct qs_repair_table){ tab, lines, count };
}

void qs_repair_table_done(struct qs_repair_table *table)
{
	for (size_t i = 0; i < table->count; i++)
		free(table->lines[i].node);
	free(table->lines);
	qs_crypttab_free(table->tab);
	*table = (struct qs_repair_table){};
}

const struct qs_repair_backup *qs_repair_backup_of(const struct qs_repair *r, const char *name)
{
	for (size_t i = 0; i < r->backup_count; i++)
		if (strcmp(r->backups[i].name, name) == 0)
			return &r->backups[i];
	return NULL;
}

/* The header backup of this name is of another LUKS device: opening would refuse the name. */
static bool is_anothers(const struct qs_repair *r, const struct qs_repair_device *d,
			const char *name)
{
	const struct qs_repair_backup *b = qs_repair_backup_of(r, name);

	return b && strcmp(b->uuid, d->uuid) != 0;
}

bool qs_repair_is_ours(const struct qs_repair *r, const struct qs_repair_device *d)
{
	if (d->labelled || d->line != QS_REPAIR_NONE ||
	    (d->version == 0 && d->by_rule && qs_repair_backup_of(r, d->by_rule)))
		return true;
	for (size_t i = 0; i < r->backup_count; i++)
		if (d->uuid[0] && strcmp(r->backups[i].uuid, d->uuid) == 0)
			return true;
	return false;
}

/* ---- whose line ---- */

bool qs_repair_leads_to(const struct qs_repair_table *table, size_t line,
			const struct qs_repair_device *d)
{
	const char *device = qs_crypttab_get(table->tab, line)->device;
	const char *node = table->lines[line].node;

	if (device && strncmp(device, "UUID=", 5) == 0)
		return !d->twin && d->uuid[0] && strcasecmp(device + 5, d->uuid) == 0;
	if (d->twin && device && strncmp(device, "/dev/disk/by-uuid/", 18) == 0)
		return false;
	return node && strcmp(node, d->dev->node) == 0;
}

bool qs_repair_names_twins(const struct qs_repair_table *table, size_t line,
			   const struct qs_repair_device *d)
{
	static const char *const prefixes[] = { "UUID=", "/dev/disk/by-uuid/" };
	const char *device = qs_crypttab_get(table->tab, line)->device;

	for (size_t i = 0; d->twin && device && i < QS_ARRAY_SIZE(prefixes); i++)
		if (strncmp(device, prefixes[i], strlen(prefixes[i])) == 0 &&
		    strcasecmp(device + strlen(prefixes[i]), d->uuid) == 0)
			return true;
	return false;
}

static bool has_label(const struct qs_repair_device *d, const char *name)
{
	char label[QS_LUKS_LABEL_L];

	qs_luks_label(name, label);
	return d->labelled && strcmp(d->label, label) == 0;
}

static bool has_key(const struct qs_repair *r, const struct qs_repair_device *d, const char *path)
{
	for (size_t k = 0; path && d->key != QS_REPAIR_NONE && k < r->key_count; k++)
		if (r->keys[k].first == r->keys[d->key].first && strcmp(r->keys[k].path, path) == 0)
			return true;
	return false;
}

/* How sure it is that the line is the device's: 0 not at all. */
static unsigned rate(const struct qs_repair *r, const struct qs_repair_table *table, size_t line,
		     const struct qs_repair_device *d)
{
	const struct qs_crypttab_entry *e = qs_crypttab_get(table->tab, line);
	bool leads = qs_repair_leads_to(table, line, d);
	bool nowhere = !table->lines[line].node && !table->lines[line].untold;
	bool loose = leads || nowhere || qs_repair_names_twins(table, line, d);
	unsigned sure = leads ? 4 : 0;

	if (d->version == 0)
		return sure;
	if (is_anothers(r, d, e->name))
		return 0;
	if (!d->twin && qs_repair_backup_of(r, e->name))
		sure += 16;
	if (!d->twin && has_label(d, e->name))
		sure += 8;
	/* Weaker signs count only for a line that leads nowhere else. */
	if (loose && d->by_rule && strcmp(d->by_rule, e->name) == 0)
		sure += 2;
	if (loose && has_key(r, d, e->key))
		sure += 1;
	return sure;
}

struct pair {
	unsigned sure;
	size_t line, device;
};

static int by_sureness(const void *a, const void *b)
{
	const struct pair *x = a, *y = b;

	if (x->sure != y->sure)
		return x->sure > y->sure ? -1 : 1;
	if (x->line != y->line)
		return x->line < y->line ? -1 : 1;
	return x->device < y->device ? -1 : x->device > y->device;
}

static size_t collect_pairs(const struct qs_repair *r, const struct qs_repair_table *table,
			    struct pair **ret)
{
	size_t n = 0;

	for (size_t line = 0; line < table->count; line++)
		for (size_t i = 0; table->lines[line].ours && i < r->outcomes->count; i++) {
			unsigned sure = rate(r, table, line, &r->devices[i]);
			struct pair *grown;

			if (sure == 0)
				continue;
			grown = reallocarray(*ret, n + 1, sizeof(*grown));
			if (!grown)
				abort();
			*ret = grown;
			grown[n++] = (struct pair){ sure, line, i };
		}
	return n;
}

static void assign_lines(const struct qs_repair *r, const struct qs_repair_table *table)
{
	QS_AUTO(qs_auto_free) struct pair *pairs = NULL;
	size_t n = collect_pairs(r, table, &pairs);

	if (n > 1)
		qsort(pairs, n, sizeof(*pairs), by_sureness);
	for (size_t i = 0; i < n; i++) {
		struct qs_repair_line *line = &table->lines[pairs[i].line];
		struct qs_repair_device *d = &r->devices[pairs[i].device];

		if (line->device != QS_REPAIR_NONE || d->line != QS_REPAIR_NONE)
			continue;
		line->device = pairs[i].device;
		d->line = pairs[i].line;
	}
}

/* A line of somebody else's for a device that has none of ours. */
static void find_foreign(const struct qs_repair_table *table, struct qs_repair_device *d)
{
	d->foreign = QS_REPAIR_NONE;
	for (size_t i = 0; d->line == QS_REPAIR_NONE && i < table->count; i++)
		if (!table->lines[i].ours && qs_repair_leads_to(table, i, d)) {
			d->foreign = i;
			return;
		}
}

/* ---- names ---- */

bool qs_repair_is_loose(const struct qs_repair_table *table, size_t i,
			const struct qs_repair_device *d)
{
	const struct qs_repair_line *line = &table->lines[i];

	return line->ours && line->device == QS_REPAIR_NONE && !line->untold &&
	       (!line->node || qs_repair_leads_to(table, i, d) ||
		qs_repair_names_twins(table, i, d));
}

static bool is_taken(const struct qs_repair *r, const struct qs_repair_table *table,
		     const struct qs_repair_device *d, const char *name)
{
	for (size_t i = 0; i < table->count; i++)
		if (i != d->line && !qs_repair_is_loose(table, i, d) &&
		    strcmp(qs_crypttab_get(table->tab, i)->name, name) == 0)
			return true;
	for (size_t i = 0; i < r->outcomes->count; i++)
		if (&r->devices[i] != d && r->devices[i].name &&
		    strcmp(r->devices[i].name, name) == 0)
			return true;
	return false;
}

static bool take_name(const struct qs_repair *r, const struct qs_repair_table *table,
		      struct qs_repair_device *d, const char *name)
{
	if (!name || is_anothers(r, d, name) || is_taken(r, table, d, name) ||
	    qs_crypttab_check(name, "/dev/null", "none", "luks", NULL) < 0)
		return false;
	qs_outcome_set(&d->name, name);
	return true;
}

/* The name of its line; else what it was called when it was formatted; else by the rule. */
static void choose_name(const struct qs_repair *r, const struct qs_repair_table *table,
			struct qs_repair_device *d)
{
	QS_AUTO(qs_auto_free) char *by_uuid = qs_printf("enc-uuid-%s", d->uuid);
	const char *label = d->labelled && strncmp(d->label, "enc-", 4) == 0 &&
					    strlen(d->label) + 1 < QS_LUKS_LABEL_L
				    ? d->label
				    : NULL;

	if (d->line != QS_REPAIR_NONE &&
	    take_name(r, table, d, qs_crypttab_get(table->tab, d->line)->name))
		return;
	for (size_t i = 0; !d->twin && i < r->backup_count; i++)
		if (strcmp(r->backups[i].uuid, d->uuid) == 0 &&
		    take_name(r, table, d, r->backups[i].name))
			return;
	if (!d->twin && take_name(r, table, d, label))
		return;
	if (take_name(r, table, d, d->by_rule) || d->twin)
		return;
	(void)take_name(r, table, d, by_uuid);
}

static void find_link(const struct qs_repair *r, struct qs_repair_device *d)
{
	const char *uuid = d->twin || !d->uuid[0] ? NULL : d->uuid;

	if (d->link || d->nameless.kind != QS_E_NONE)
		return;
	/* Found with the device already, unless what is on the disk counts for it. */
	if (d->dev->link && strncmp(d->dev->link, "/dev/disk/by-uuid/", 18) != 0) {
		d->link = qs_strdup(d->dev->link);
		d->by_rule = qs_strdup(d->dev->name);
		return;
	}
	if (qs_device_name(r->env, d->dev, uuid, &d->link, &d->by_rule, &d->nameless) < 0 &&
	    d->twin)
		qs_error_append(&d->nameless, "; its UUID is of no use, as %s has it too", d->twin);
}

void qs_repair_assign(struct qs_repair *r, struct qs_repair_table *table)
{
	for (size_t i = 0; i < r->outcomes->count; i++) {
		find_link(r, &r->devices[i]);
		r->devices[i].line = QS_REPAIR_NONE;
		qs_outcome_set(&r->devices[i].name, NULL);
	}
	assign_lines(r, table);
	for (size_t i = 0; i < r->outcomes->count; i++) {
		find_foreign(table, &r->devices[i]);
		/* Lines first: a device without one must not take the name of another's. */
		if (r->devices[i].line != QS_REPAIR_NONE && r->devices[i].version > 0)
			choose_name(r, table, &r->devices[i]);
	}
	for (size_t i = 0; i < r->outcomes->count; i++)
		if (!r->devices[i].name && r->devices[i].version > 0)
			choose_name(r, table, &r->devices[i]);
}
