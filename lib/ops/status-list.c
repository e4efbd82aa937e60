/*
 * cryptstatus: which devices are shown. Each is described in a worker, as a disk
 * that hangs must not hide the others.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "device/links.h"
#include "key/keydir.h"
#include "ops/open.h"
#include "ops/status.h"

static bool is_state(const struct qs_outcome *o, const char *state)
{
	const char *now = json_string_value(json_object_get(o->details, "state"));

	return now && strcmp(now, state) == 0;
}

static bool is_listed(const struct qs_outcomes *list, const char *node)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->items[i].node && strcmp(list->items[i].node, node) == 0)
			return true;
	return false;
}

/* A mapping that we list with the disk below it. */
static bool is_mapping(const struct qs_status *st, const struct qs_device *dev)
{
	for (size_t i = 0; i < st->mappings.count; i++)
		if (strncmp(dev->node, "/dev/", 5) == 0 &&
		    strcmp(st->mappings.items[i].dm, dev->node + 5) == 0)
			return true;
	return false;
}

/* Takes DEV over, which a worker will describe; NULL: there is nothing to look into. */
static void add(struct qs_status *st, const char *word, struct qs_device *dev)
{
	size_t count = st->list->count + 1;
	struct qs_device **grown = realloc(st->devices, count * sizeof(struct qs_device *));

	if (!grown)
		abort();
	st->devices = grown;
	grown[count - 1] = dev;
	if (dev)
		qs_outcome_set_device(qs_outcomes_add(st->list, word), dev);
}

/* qs_job: what can be told of device I. A disk that hangs takes only its own worker with it. */
static int describe_one(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
			struct qs_error *err)
{
	const struct qs_status *st = cookie;
	struct qs_outcomes own = {};
	struct qs_outcome *o = qs_outcomes_add(&own, st->list->items[i].device);

	(void)worker;
	qs_status_describe(st, st->devices[i], o);
	*ret = json_pack("{s:s*,s:s*,s:s*}", "uuid", o->uuid, "name", o->name, "by_id", o->by_id);
	(void)json_object_update(*ret, o->details);
	*err = o->error;
	qs_outcomes_done(&own);
	return err->kind == QS_E_NONE ? 0 : qs_kind_errno(err->kind);
}

/* Those from FROM on. */
static int describe_all(struct qs_status *st, size_t from, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) bool *todo = calloc(st->list->count + 1, sizeof(*todo));
	size_t count = 0;

	if (!todo)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", st->list->count);
	for (size_t i = from; i < st->list->count; i++) {
		todo[i] = st->devices[i] && st->list->items[i].error.kind == QS_E_NONE;
		count += todo[i];
	}
	return count == 0 ? 0 : qs_outcomes_look(st->env, st->list, todo, describe_one, st, err);
}

static void add_swap(struct qs_status *st, const char *word, const struct qs_crypttab_entry *line,
		     const struct qs_device *dev)
{
	add(st, word, NULL);
	qs_status_swap(st, line, dev, qs_outcomes_add(st->list, word));
}

/* Not permitted: an ordinary user looks, who sees what may be seen. */
static bool is_shown(const struct qs_outcome *o)
{
	return !is_state(o, "not-luks") && o->error.kind != QS_E_NOT_PERMITTED;
}

static void exchange(struct qs_status *st, size_t a, size_t b)
{
	struct qs_outcome o = st->list->items[a];
	struct qs_device *dev = st->devices[a];

	st->list->items[a] = st->list->items[b];
	st->list->items[b] = o;
	st->devices[a] = st->devices[b];
	st->devices[b] = dev;
}

/* Every LUKS device that is there, damaged ones too. */
static int describe_present(struct qs_status *st, struct qs_error *err)
{
	QS_AUTO(qs_device_list_done) struct qs_device_list devices = {};
	struct qs_outcomes *list = st->list;
	size_t kept = 0;
	int r = qs_device_scan(st->env, true, &devices, err);

	for (size_t i = 0; r == 0 && i < devices.count; i++) {
		struct qs_device *dev = devices.items[i];

		if (is_mapping(st, dev))
			continue;
		add(st, dev->node, dev);
		devices.items[i] = NULL;
	}
	if (r == 0)
		r = describe_all(st, 0, err);
	for (size_t i = 0; i < list->count; i++)
		if (is_shown(&list->items[i]))
			exchange(st, kept++, i);
	while (list->count > kept) {
		qs_device_free(st->devices[list->count - 1]);
		qs_outcomes_pop(list);
	}
	return r;
}

/* What the tables know beyond that: image files, and disks that are gone. */
static int describe_tabled(struct qs_status *st, struct qs_error *err)
{
	size_t from = st->list->count;

	for (size_t i = 0; i < qs_crypttab_count(st->tab); i++) {
		const struct qs_crypttab_entry *e = qs_crypttab_get(st->tab, i);
		QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;
		bool swap = qs_crypttab_is_swap(e) && strncmp(e->name, "enc-", 4) == 0;

		if (!swap && !qs_open_is_our_line(st->env, e))
			continue;
		(void)qs_device_find(st->env, e->device, &dev, NULL);
		if (swap) {
			add_swap(st, e->device, e, dev);
		} else if (!dev) {
			add(st, e->device, NULL);
			qs_status_describe_absent(st, e, st->list);
		} else if (!is_listed(st->list, dev->node)) {
			add(st, e->device, QS_TAKE(dev));
		}
	}
	return describe_all(st, from, err);
}

static int describe_named(struct qs_status *st, const char *const *names, size_t count,
			  struct qs_error *err)
{
	int r;

	for (size_t i = 0; i < count; i++) {
		QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;
		const struct qs_crypttab_entry *e = NULL;
		struct qs_error own = {};

		if (qs_device_find(st->env, names[i], &dev, &own) < 0) {
			add(st, names[i], NULL);
			qs_outcomes_add(st->list, names[i])->error = own;
			continue;
		}
		e = qs_open_line_of(st->env, st->tab, dev, "");
		if (e && qs_crypttab_is_swap(e))
			add_swap(st, names[i], e, dev);
		else
			add(st, names[i], QS_TAKE(dev));
	}
	r = describe_all(st, 0, err);
	for (size_t i = 0; r == 0 && i < count; i++) {
		struct qs_outcome *o = &st->list->items[i];

		if (is_state(o, "not-luks") &&
		    !qs_open_line_of(st->env, st->tab, st->devices[i], o->uuid ? o->uuid : ""))
			(void)qs_fail(&o->error, QS_E_NOT_LUKS, "%s has no LUKS header", o->node);
	}
	return r;
}

static void status_done(struct qs_status *st)
{
	for (size_t i = 0; st->devices && i < st->list->count; i++)
		qs_device_free(st->devices[i]);
	free(st->devices);
	qs_mapping_list_done(&st->mappings);
	qs_crypttab_free(st->tab);
}

int qs_status(const struct qs_env *env, const char *const *devices, size_t count,
	      struct qs_outcomes *ret, struct qs_error *err)
{
	QS_AUTO(qs_links_done) struct qs_links links = {};
	struct qs_env walk = *env;
	struct qs_status st = { .env = &walk, .list = ret };
	int r = qs_outcomes_init(ret, NULL, 0, err);

	walk.links = &links;
	if (r == 0)
		r = qs_crypttab_load(env, &st.tab, err);
	if (r == 0)
		r = qs_mapping_scan(&st.mappings, err);
	if (r == 0)
		(void)qs_key_dir_answers(env, &st.keys_hang);
	if (r == 0 && count > 0)
		r = describe_named(&st, devices, count, err);
	if (r == 0 && count == 0)
		r = describe_present(&st, err);
	if (r == 0 && count == 0)
		r = describe_tabled(&st, err);
	if (r == 0)
		r = qs_tpm2_look(env, ret, err);
	status_done(&st);
	return r;
}
