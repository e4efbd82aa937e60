/*
 * cryptrestore: what is refused, and why. Headers that no honest tool wrote, that
 * are cut off, or that do not fit the device are refused whatever is given; other
 * volumes and older headers unless --force is.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "luks/fields.h"
#include "ops/restore.h"

int qs_restore_check_hostile(const struct qs_env *env, const struct qs_luks_header *h,
			     struct qs_error *err)
{
	return h->version == 2 ? qs_luks_json_check(h->json, &env->config, err)
			       : qs_luks1_check(h, &env->config, err);
}

static const char *source_of(const struct qs_restore_target *t)
{
	return t->from.path ? t->from.path : "what is left of the header";
}

/* Where the data of the volume end: its fixed size, or just behind their beginning. */
static uint64_t data_end(const struct qs_luks_header *h)
{
	uint64_t size = 0;

	if (!qs_fields_decimal(qs_fields_segment(h->json), "size", &size))
		size = h->sector_size;
	return h->data_offset + size;
}

static int check_size(const struct qs_restore_target *t, struct qs_error *err)
{
	uint64_t end = data_end(&t->from.h);

	if (end <= t->dev->size)
		return 0;
	return qs_fail(err, QS_E_TOO_SMALL,
		       "%s is the header of a bigger device: its data reach to byte %" PRIu64
		       ", but %s has %" PRIu64 " bytes",
		       source_of(t), end, t->dev->node, t->dev->size);
}

/* The header that says most about which volume this device carries: its own, else its backup's. */
static const struct qs_luks_header *reference(const struct qs_restore_target *t)
{
	if (t->present.data)
		return &t->has;
	return t->best.path ? &t->best.h : NULL;
}

static int refuse_volume(const struct qs_restore_target *t, const char *why, struct qs_error *err)
{
	return qs_fail(err, QS_E_REFUSED,
		       "%s does not belong to the volume on %s: %s. With it the data could not be "
		       "read any more; --force restores it all the same",
		       source_of(t), t->dev->node, why);
}

/* Nothing is left of a header: what else says that this device had one, and this one? */
static int check_blank(const struct qs_restore_target *t, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *found = NULL;
	int r = qs_device_is_blank(t->fd, t->dev->node, err);

	if (r != 0)
		return r < 0 ? r : 0;
	r = qs_device_signatures(t->fd, t->dev->node, &found, err);
	if (r < 0)
		return r;
	return qs_fail(err, QS_E_REFUSED,
		       "nothing says that %s ever carried the volume of %s: it holds %s, and there "
		       "is no header backup of %s; --force restores it all the same",
		       t->dev->node, source_of(t), found ? found : "unknown data", t->name);
}

static int check_volume(const struct qs_restore_target *t, struct qs_error *err)
{
	const struct qs_luks_header *is = reference(t), *gets = &t->from.h;
	struct qs_error why = {};

	if (t->has.uuid[0] && strcasecmp(t->has.uuid, gets->uuid) != 0) {
		(void)qs_fail(&why, QS_E_REFUSED, "its UUID is %s, the device's is %s", gets->uuid,
			      t->has.uuid);
		return refuse_volume(t, why.text, err);
	}
	if (!is)
		return t->has.uuid[0] || t->begun ? 0 : check_blank(t, err);
	if (qs_luks_json_compare(is->json, is->uuid, gets->json, gets->uuid, &why) < 0)
		return refuse_volume(t, why.text, err);
	return 0;
}

/* Keys that were revoked since the backup would open the device again. */
static int check_sequence(const struct qs_restore_run *run, struct qs_error *err)
{
	const struct qs_restore_target *t = &run->target;
	bool usable = t->present.data && qs_restore_check_hostile(run->env, &t->has, NULL) == 0;
	uint64_t newest = usable ? t->has.seqid : t->best.h.seqid;

	if (t->from.h.version != 2 || t->from.h.seqid >= newest)
		return 0;
	return qs_fail(err, QS_E_REFUSED,
		       "%s has the sequence number %" PRIu64 ", %s has %" PRIu64
		       ": keys that were removed since would open the device again; --force goes "
		       "back to it",
		       source_of(t), t->from.h.seqid,
		       usable ? "the header on the device" : t->best.path, newest);
}

/* A header may be restored below its own open mapping: the kernel has all that it needs. */
static int check_uses(const struct qs_restore_run *run, struct qs_restore_target *t,
		      struct qs_error *err)
{
	const unsigned harmless =
		1U << QS_USE_CRYPTTAB | 1U << QS_USE_FSTAB | 1U << QS_USE_PARTITIONS;
	QS_AUTO(qs_mapping_list_done) struct qs_mapping_list mappings = {};
	const struct qs_mapping *m;
	int r = qs_mapping_scan(&mappings, err);

	if (r < 0)
		return r;
	m = qs_mapping_of_device(&mappings, t->dev);
	if (!m)
		return qs_device_check_unused(run->env, t->dev, harmless, err);
	if (strcasecmp(m->uuid, t->from.h.uuid) != 0)
		return qs_fail(
			err, QS_E_IN_USE,
			"%s is open as /dev/mapper/%s, from a header with the UUID %s and not "
			"%s; close it first",
			t->dev->node, m->name, m->uuid[0] ? m->uuid : "(none)", t->from.h.uuid);
	t->mapped = true;
	return 0;
}

int qs_restore_check(struct qs_restore_run *run, struct qs_error *err)
{
	struct qs_restore_target *t = &run->target;
	int r = qs_restore_check_hostile(run->env, &t->from.h, err);

	if (r < 0) {
		qs_error_prefix(err, "%s is not restored", source_of(t));
		return r;
	}
	r = check_size(t, err);
	if (r == 0)
		r = check_uses(run, t, err);
	if (r == 0 && !run->options->force)
		r = check_volume(t, err);
	if (r == 0 && !run->options->force && !t->begun)
		r = check_sequence(run, err);
	return r;
}
