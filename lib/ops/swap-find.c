#define _GNU_SOURCE
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "luks/mapping.h"
#include "ops/internal.h"
#include "ops/journal.h"
#include "ops/swap.h"
#include "tab/crypttab.h"
#include "tab/fstab.h"

/* The mapping that the device node DEV is, or NULL. */
static const struct qs_mapping *mapping_at(const struct qs_mapping_list *list,
					   const struct qs_device *dev)
{
	for (size_t i = 0; i < list->count; i++)
		if (strncmp(dev->node, "/dev/", 5) == 0 &&
		    strcmp(list->items[i].dm, dev->node + 5) == 0)
			return &list->items[i];
	return NULL;
}

/* What crypttab says of the mapping NAME: 1 a swap with a new key at each start, 0 nothing, else 2.
 */
static int look_up(const struct qs_env *env, const char *name, struct qs_error *err)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	const struct qs_crypttab_entry *e;
	int r = qs_crypttab_load(env, &tab, err);

	if (r < 0)
		return r;
	e = qs_crypttab_find(tab, name);
	return !e ? 0 : qs_crypttab_is_swap(e) ? 1 : 2;
}

/* By its name: qs_device_find() takes the mapping for the device below it, open or not. */
static int is_named_mapping(const struct qs_env *env, const char *word, char **ret_by,
			    struct qs_error *err)
{
	static const char mapper[] = "/dev/mapper/";
	int r = strncmp(word, mapper, strlen(mapper)) == 0
			? look_up(env, word + strlen(mapper), err)
			: 0;

	if (r == 2)
		*ret_by = qs_strdup(word + strlen(mapper));
	return r < 0 ? r : r == 2;
}

int qs_swap_find(const struct qs_env *env, const char *word, struct qs_device **ret, char **ret_by,
		 struct qs_error *err)
{
	QS_AUTO(qs_mapping_list_done) struct qs_mapping_list mappings = {};
	QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;
	const struct qs_mapping *m;
	int r = qs_device_find(env, word, &dev, err);

	if (r == 0)
		r = qs_mapping_scan(&mappings, err);
	if (r < 0)
		return r;
	m = mapping_at(&mappings, dev);
	if (m && m->luks == 0 && m->backing != 0 && look_up(env, m->name, NULL) == 1)
		return qs_device_find(env, m->backing_node, ret, err);
	r = is_named_mapping(env, word, ret_by, err);
	if (r == 0)
		r = qs_device_is_encrypted(dev->devno, ret_by, err);
	if (r >= 0)
		*ret = QS_TAKE(dev);
	return r;
}

/* SPEC without the quotes that a shell file may have around it. */
static char *bare(const char *spec)
{
	size_t length = strlen(spec);

	if (length >= 2 && (*spec == '"' || *spec == '\'') && spec[length - 1] == *spec)
		return qs_printf("%.*s", (int)length - 2, spec + 1);
	return qs_strdup(spec);
}

/* Does SPEC have this tag, and is the answer known because VALUE (NULL: unknown) is? */
static bool is_tag(const char *spec, const char *tag, const char *value, bool *ret_same)
{
	size_t length = strlen(tag);

	if (!value || strncmp(spec, tag, length) != 0)
		return false;
	*ret_same = strcasecmp(spec + length, value) == 0;
	return true;
}

static bool leads_to(const struct qs_env *env, const char *spec, const struct qs_device *dev)
{
	QS_AUTO(qs_auto_device) struct qs_device *found = NULL;

	if (*spec != '/' && !strchr(spec, '='))
		return false;
	return qs_device_find(env, spec, &found, NULL) == 0 && strcmp(found->node, dev->node) == 0;
}

bool qs_swap_is_named(const struct qs_env *env, const struct qs_swap_target *t, const char *spec)
{
	QS_AUTO(qs_auto_free) char *plain = bare(spec);
	QS_AUTO(qs_auto_free)
	char *number = qs_printf("%u:%u", major(t->dev->devno), minor(t->dev->devno));
	bool same;

	if (strcmp(plain, t->mapper) == 0 || (t->fstab && strcmp(plain, t->fstab) == 0))
		return true;
	/* Asking udev for every UUID that some table holds would take its time. */
	if (is_tag(plain, "UUID=", t->uuid, &same) || is_tag(plain, "LABEL=", t->label, &same))
		return same;
	if (t->dev->devno != 0 && strcmp(plain, number) == 0)
		return true;
	return leads_to(env, plain, t->dev);
}

/* ---- the list ---- */

/* The device node of an outcome while the list is made; unknown for one that cannot be found. */
static void add(const struct qs_env *env, struct qs_outcomes *list, const char *word)
{
	QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;
	QS_AUTO(qs_auto_free) char *by = NULL;
	struct qs_outcome *o;

	(void)qs_swap_find(env, word, &dev, &by, NULL);
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->items[i].device, word) == 0 ||
		    (dev && list->items[i].node && strcmp(list->items[i].node, dev->node) == 0))
			return;
	o = qs_outcomes_add(list, word);
	if (dev)
		qs_outcome_set(&o->node, dev->node);
}

static int add_active(const struct qs_env *env, struct qs_outcomes *list, struct qs_error *err)
{
	QS_AUTO(qs_swap_list_done) struct qs_swap_list swaps = {};
	int r = qs_swaps_read(&swaps, err);

	for (size_t i = 0; r == 0 && i < swaps.count; i++)
		if (!swaps.items[i].memory)
			add(env, list, swaps.items[i].path);
	return r;
}

/*
 * What interrupted runs left. The fstab lines that they remember are put into
 * *KNOWN: they are theirs, also when they lead nowhere now.
 */
static int add_pending(const struct qs_env *env, struct qs_outcomes *list,
		       struct qs_outcomes *known, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, QS_PENDING_DIR);
	QS_AUTO(qs_auto_closedir) DIR *d = opendir(path);
	const struct dirent *e;

	if (!d)
		return errno == ENOENT ? 0 : qs_fail_errno(err, errno, "cannot open %s", path);
	while ((e = readdir(d))) {
		QS_AUTO(qs_journal_done) struct qs_journal journal = {};
		const char *end = strstr(e->d_name, ".json");
		QS_AUTO(qs_auto_free) char *name = NULL;
		int r;

		if (!end || end[strlen(".json")])
			continue;
		name = qs_printf("%.*s", (int)(end - e->d_name), e->d_name);
		r = qs_journal_read(env, name, &journal, err);
		if (r < 0)
			return r;
		if (strcmp(journal.op, "swap") != 0)
			continue;
		add(env, list, journal.link);
		if (journal.fstab)
			(void)qs_outcomes_add(known, journal.fstab);
	}
	return 0;
}

static bool is_listed(const struct qs_outcomes *list, const char *word)
{
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->items[i].device, word) == 0)
			return true;
	return false;
}

struct from_fstab {
	const struct qs_env *env;
	struct qs_outcomes *list, *known;
};

static int add_fstab(const struct qs_fstab_entry *e, void *cookie)
{
	const struct from_fstab *from = cookie;

	if (strcmp(e->type, "swap") == 0 && !is_listed(from->known, e->source) &&
	    strncmp(e->source, "/dev/zram", strlen("/dev/zram")) != 0)
		add(from->env, from->list, e->source);
	return 0;
}

int qs_swap_list_all(const struct qs_env *env, struct qs_outcomes *ret, struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes known = {};
	struct from_fstab from = { env, ret, &known };
	int r = qs_outcomes_init(ret, NULL, 0, err);

	if (r == 0)
		r = add_pending(env, ret, &known, err);
	/* What is active here says nothing about another tree. */
	if (r == 0 && *env->root == '\0')
		r = add_active(env, ret, err);
	return r < 0 ? r : qs_fstab_each(env, add_fstab, &from, err);
}
