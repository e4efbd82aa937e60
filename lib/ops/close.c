/*
 * cryptclose and cryptcloseall.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <libcryptsetup.h>

#include "base/cleanup.h"
#include "key/place.h"
#include "ops/internal.h"
#include "ops/open.h"
#include "tab/crypttab.h"

/* Who holds the mapping: mounts, swap, LVM, md, ZFS. */
static int explain_busy(const struct qs_env *env, const struct qs_mapping *mapping,
			struct qs_error *err)
{
	QS_AUTO(qs_use_list_done) struct qs_use_list uses = {};
	QS_AUTO(qs_auto_device) struct qs_device *dm = NULL;
	QS_AUTO(qs_auto_free) char *node = qs_printf("/dev/%s", mapping->dm);
	int r = qs_device_find(env, node, &dm, NULL);

	if (r == 0)
		r = qs_device_uses(env, dm, &uses, NULL);
	(void)qs_fail(err, QS_E_IN_USE, "/dev/mapper/%s is in use", mapping->name);
	for (size_t i = 0; r == 0 && i < uses.count; i++)
		if (uses.items[i].kind != QS_USE_CRYPTTAB && uses.items[i].kind != QS_USE_FSTAB)
			qs_error_append(err, "%s %s", i == 0 ? ":" : ",", uses.items[i].detail);
	if (r < 0 || uses.count == 0)
		qs_error_append(err,
				" by a program that has it open (ZFS, a virtual machine, dd, ...); "
				"see `fuser -v /dev/mapper/%s`",
				mapping->name);
	return qs_kind_errno(QS_E_IN_USE);
}

int qs_close_mapping(const struct qs_env *env, const struct qs_mapping *mapping,
		     struct qs_error *err)
{
	int r = crypt_deactivate_by_name(NULL, mapping->name, 0);

	if (r == -ENODEV || r == 0)
		return 0;
	if (r == -EBUSY)
		return explain_busy(env, mapping, err);
	return qs_fail_errno(err, r, "cannot close /dev/mapper/%s", mapping->name);
}

static const char *mapper_name(const char *word)
{
	return strncmp(word, "/dev/mapper/", 12) == 0 ? word + 12 : word;
}

struct close_all {
	const struct qs_env *env;
	const struct qs_mapping **mappings; /* one per outcome */
};

static int close_job(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		     struct qs_error *err)
{
	const struct close_all *all = cookie;

	(void)ret;
	qs_worker_step(worker, "close");
	return qs_close_mapping(all->env, all->mappings[i], err);
}

static void fill(struct qs_outcome *o, const struct qs_mapping *m)
{
	qs_outcome_set(&o->node, m->image ? m->image : m->backing_node);
	qs_outcome_set(&o->name, m->name);
	if (m->uuid[0])
		qs_outcome_set(&o->uuid, m->uuid);
}

int qs_close(const struct qs_env *env, const char *device, struct qs_outcomes *ret,
	     struct qs_error *err)
{
	QS_AUTO(qs_mapping_list_done) struct qs_mapping_list mappings = {};
	QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;
	const struct qs_mapping *m;
	struct close_all all = { env, &m };
	int r = qs_outcomes_init(ret, &device, 1, err);

	if (r == 0)
		r = qs_mapping_scan(&mappings, err);
	if (r < 0)
		return r;
	/* By name first: the disk below a dead mapping cannot be found any more. */
	m = qs_mapping_by_name(&mappings, mapper_name(device));
	if (!m) {
		r = qs_device_find(env, device, &dev, &ret->items[0].error);
		if (r < 0)
			return 0;
		qs_outcome_set_device(&ret->items[0], dev);
		m = qs_mapping_of_device(&mappings, dev);
	}
	if (!m) {
		qs_outcome_set(&ret->items[0].note, "not open");
		return 0;
	}
	fill(&ret->items[0], m);
	return qs_outcomes_run(env, ret, NULL, close_job, &all, err);
}

static bool is_ours(const struct qs_env *env, const struct qs_crypttab *tab,
		    const struct qs_mapping *m)
{
	const struct qs_crypttab_entry *e = qs_crypttab_find(tab, m->name);

	if (m->luks == 0)
		return false;
	return strncmp(m->name, "enc-", 4) == 0 || (e && e->key && qs_key_is_in_dir(env, e->key));
}

int qs_close_all(const struct qs_env *env, struct qs_outcomes *ret, struct qs_error *err)
{
	QS_AUTO(qs_mapping_list_done) struct qs_mapping_list mappings = {};
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	QS_AUTO(qs_auto_free) const struct qs_mapping **ours = NULL;
	struct close_all all = { .env = env };
	int r = qs_outcomes_init(ret, NULL, 0, err);

	if (r == 0)
		r = qs_crypttab_load(env, &tab, err);
	if (r == 0)
		r = qs_mapping_scan(&mappings, err);
	if (r < 0)
		return r;
	ours = calloc(mappings.count + 1, sizeof(const struct qs_mapping *));
	if (!ours)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu mappings", mappings.count);
	for (size_t i = 0; i < mappings.count; i++) {
		const struct qs_mapping *m = &mappings.items[i];

		if (!is_ours(env, tab, m))
			continue;
		ours[ret->count] = m;
		fill(qs_outcomes_add(ret, m->name), m);
	}
	all.mappings = ours;
	return qs_outcomes_run(env, ret, NULL, close_job, &all, err);
}
