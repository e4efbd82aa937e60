/*
 * devicemap: the inventory of disks. Whoever only looks never writes, and one
 * disk that does not answer must not hide the others.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "luks/header.h"
#include "ops/internal.h"

static const char *const kind_names[] = {
	[QS_DEVICE_DISK] = "disk",   [QS_DEVICE_PARTITION] = "partition",
	[QS_DEVICE_LOOP] = "loop",   [QS_DEVICE_MAPPER] = "mapper",
	[QS_DEVICE_MD] = "md",       [QS_DEVICE_OTHER] = "other",
	[QS_DEVICE_IMAGE] = "image",
};

static const char *const copy_names[] = {
	[QS_COPY_ABSENT] = "absent",     [QS_COPY_OK] = "ok",
	[QS_COPY_BAD_SIZE] = "bad-size", [QS_COPY_BAD_SUM] = "bad-checksum",
	[QS_COPY_BAD_JSON] = "bad-json", [QS_COPY_IO] = "unreadable",
};

static void set_text(struct qs_outcome *o, const char *key, const char *value)
{
	if (value)
		qs_outcome_detail(o, key, qs_utf8_json(value));
}

static void set_number(struct qs_outcome *o, const char *key, uint64_t value)
{
	qs_outcome_detail(o, key, json_integer((json_int_t)value));
}

static void describe(struct qs_outcome *o, const struct qs_device *dev)
{
	qs_outcome_set_device(o, dev);
	set_text(o, "kind", kind_names[dev->kind]);
	set_text(o, "vendor", dev->vendor);
	set_text(o, "model", dev->model);
	set_text(o, "serial", dev->serial);
	set_text(o, "revision", dev->revision);
	set_text(o, "wwn", dev->wwn);
	set_text(o, "transport", dev->transport);
	set_text(o, "disk", dev->disk);
	set_text(o, "member_of", dev->member_of);
	set_number(o, "size", dev->size);
	set_number(o, "logical_block", dev->logical_block);
	set_number(o, "physical_block", dev->physical_block);
	qs_outcome_detail(o, "rotational", json_boolean(dev->rotational));
	qs_outcome_detail(o, "read_only", json_boolean(dev->read_only));
	qs_outcome_detail(o, "removable", json_boolean(dev->removable));
}

static int describe_uses(const struct qs_snapshot *shot, const struct qs_device *dev,
			 struct qs_outcome *o)
{
	QS_AUTO(qs_use_list_done) struct qs_use_list uses = {};
	json_t *all;
	int r = qs_snapshot_uses(shot, dev, &uses, &o->error);

	if (r < 0)
		return r;
	all = json_array();
	for (size_t i = 0; i < uses.count; i++)
		json_array_append_new(all, json_pack("{s:s, s:o}", "kind",
						     qs_use_kind_name(uses.items[i].kind), "detail",
						     qs_utf8_json(uses.items[i].detail)));
	qs_outcome_detail(o, "uses", all);
	return 0;
}

static void set_luks(struct qs_outcome *o, const struct qs_luks_header *h, int fd)
{
	QS_AUTO(qs_auto_free) char *damage = qs_luks_header_damage(h, fd, o->node);
	json_t *luks = json_pack("{s:i}", "version", h->version);

	if (*h->label)
		json_object_set_new(luks, "label", qs_utf8_json(h->label));
	if (*h->subsystem)
		json_object_set_new(luks, "subsystem", qs_utf8_json(h->subsystem));
	json_object_set_new(luks, "copies", json_pack("[s]", copy_names[h->copy[0]]));
	if (h->version != 1)
		json_array_append_new(json_object_get(luks, "copies"),
				      json_string(copy_names[h->copy[1]]));
	if (damage)
		json_object_set_new(luks, "damage", qs_utf8_json(damage));
	qs_outcome_detail(o, "luks", luks);
	if (*h->uuid)
		qs_outcome_set(&o->uuid, h->uuid);
}

/* What looking into the devices needs. */
struct look {
	const struct qs_device_list *devices;
	struct qs_mapping_list mappings;
	struct qs_snapshot *shot;
};

static void look_done(struct look *look)
{
	qs_auto_snapshot(&look->shot);
	qs_mapping_list_done(&look->mappings);
}

static int look_begin(const struct qs_env *env, struct look *look, struct qs_error *err)
{
	int r = qs_snapshot_take(env, &look->shot, err);

	return r < 0 ? r : qs_mapping_scan(&look->mappings, err);
}

/* Without the right to read the device, the rest still is an answer. */
static int describe_luks(struct qs_outcome *o)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header header = {};
	QS_AUTO(qs_auto_close) int fd = open(o->node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int r;

	if (fd < 0 && (errno == EACCES || errno == EPERM)) {
		qs_outcome_set(&o->note, "LUKS state unknown: not permitted to read the device");
		return 0;
	}
	if (fd < 0)
		return qs_fail_errno(&o->error, errno, "cannot open %s", o->node);
	qs_luks_header_ask(fd);
	r = qs_luks_header_read(fd, &header, &o->error);
	if (r >= 0 && qs_luks_header_is_trace(&header))
		set_luks(o, &header, fd);
	return r;
}

/* qs_job: a disk that hangs takes only its own worker with it. */
static int probe(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		 struct qs_error *err)
{
	const struct look *look = cookie;
	const struct qs_device *dev = look->devices->items[i];
	const struct qs_mapping *mapping = qs_mapping_of_device(&look->mappings, dev);
	QS_AUTO(qs_outcomes_done) struct qs_outcomes own = {};
	struct qs_outcome *o = qs_outcomes_add(&own, dev->node);

	(void)worker;
	qs_outcome_set(&o->node, dev->node);
	if (mapping)
		set_text(o, "mapper", mapping->name);
	if (describe_uses(look->shot, dev, o) >= 0)
		(void)describe_luks(o);
	*ret = json_pack("{s:s*,s:s*}", "uuid", o->uuid, "note", o->note);
	(void)json_object_update(*ret, o->details);
	*err = o->error;
	return err->kind == QS_E_NONE ? 0 : qs_kind_errno(err->kind);
}

static int probe_all(const struct qs_env *env, struct look *look, struct qs_outcomes *list,
		     struct qs_error *err)
{
	QS_AUTO(qs_auto_free) bool *todo = calloc(list->count + 1, sizeof(*todo));

	if (!todo)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", list->count);
	for (size_t i = 0; i < list->count; i++)
		todo[i] = true;
	return qs_outcomes_look(env, list, todo, probe, look, err);
}

int qs_devicemap(const struct qs_env *env, const struct qs_devicemap_options *options,
		 struct qs_outcomes *ret, struct qs_error *err)
{
	QS_AUTO(qs_device_list_done) struct qs_device_list devices = {};
	QS_AUTO(look_done) struct look look = { .devices = &devices };
	int r = qs_device_scan(env, options->all, &devices, err);

	if (r >= 0 && options->probe)
		r = look_begin(env, &look, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < devices.count; i++)
		describe(qs_outcomes_add(ret, devices.items[i]->node), devices.items[i]);
	return options->probe ? probe_all(env, &look, ret, err) : 0;
}
