#define _GNU_SOURCE
#include "device/swaps.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <blkid/blkid.h>
#include <libmount.h>

#include "base/cleanup.h"
#include "device/internal.h"

/* The kernel stacks no deeper than this by far; a loop cannot happen, but must not hang us. */
#define MAX_DEPTH 16

static void release_table(struct libmnt_table **table)
{
	mnt_unref_table(*table);
}

static void release_iter(struct libmnt_iter **iter)
{
	mnt_free_iter(*iter);
}

static void release_probe(blkid_probe *probe)
{
	blkid_free_probe(*probe);
}

static void add_area(struct qs_swap_list *list, struct libmnt_fs *fs)
{
	struct qs_swap_area *area;
	struct stat st;

	list->items = reallocarray(list->items, list->count + 1, sizeof(*list->items));
	if (!list->items)
		abort();
	area = &list->items[list->count++];
	*area = (struct qs_swap_area){
		.path = qs_strdup(mnt_fs_get_source(fs)),
		.size = (uint64_t)mnt_fs_get_size(fs) * 1024,
		.used = (uint64_t)mnt_fs_get_usedsize(fs) * 1024,
		.priority = mnt_fs_get_priority(fs),
	};
	if (stat(area->path, &st) == 0 && S_ISBLK(st.st_mode))
		area->devno = st.st_rdev;
	area->memory = strncmp(area->path, "/dev/zram", strlen("/dev/zram")) == 0;
}

int qs_swaps_read(struct qs_swap_list *ret, struct qs_error *err)
{
	static const char file[] = "/proc/swaps";
	QS_AUTO(release_table) struct libmnt_table *table = mnt_new_table();
	QS_AUTO(release_iter) struct libmnt_iter *iter = mnt_new_iter(MNT_ITER_FORWARD);
	struct libmnt_fs *fs;
	int r;

	if (!table || !iter)
		return qs_fail(err, QS_E_MEMORY, "out of memory");
	*ret = (struct qs_swap_list){};
	if (access(file, F_OK) < 0 && errno == ENOENT)
		return 0;
	r = mnt_table_parse_swaps(table, file);
	if (r != 0)
		return qs_fail_errno(err, r < 0 ? r : EIO, "cannot read %s", file);
	while (mnt_table_next_fs(table, iter, &fs) == 0)
		if (mnt_fs_get_source(fs))
			add_area(ret, fs);
	return 0;
}

void qs_swap_list_done(struct qs_swap_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i].path);
	free(list->items);
	*list = (struct qs_swap_list){};
}

const struct qs_swap_area *qs_swaps_find(const struct qs_swap_list *list, dev_t devno)
{
	for (size_t i = 0; devno != 0 && i < list->count; i++)
		if (list->items[i].devno == devno)
			return &list->items[i];
	return NULL;
}

static char *value_of(blkid_probe probe, const char *name)
{
	const char *value;

	return blkid_probe_lookup_value(probe, name, &value, NULL) == 0 ? qs_strdup(value)
									: qs_strdup("");
}

int qs_swap_identity(int fd, const char *node, char **ret_uuid, char **ret_label,
		     struct qs_error *err)
{
	QS_AUTO(release_probe) blkid_probe probe = blkid_new_probe();
	static char *only[] = { (char *)"swap", NULL };

	if (!probe || blkid_probe_set_device(probe, fd, 0, 0) != 0 ||
	    blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_UUID | BLKID_SUBLKS_LABEL) != 0 ||
	    blkid_probe_filter_superblocks_type(probe, BLKID_FLTR_ONLYIN, only) != 0)
		return qs_fail(err, QS_E_MEMORY, "cannot look at %s", node);
	if (blkid_do_probe(probe) != 0)
		return qs_fail(err, QS_E_IO, "cannot read the swap header of %s", node);
	*ret_uuid = value_of(probe, "UUID");
	*ret_label = value_of(probe, "LABEL");
	return 0;
}

/* Fills *ret with what DEVNO stands on; a partition of a stacked device stands on that. */
static int below(dev_t devno, struct qs_devset *ret, struct qs_error *err)
{
	int r = qs_sysfs_links(devno, "slaves", ret, err);

	if (r == 0 && ret->count == 0)
		qs_devset_add(ret, qs_sysfs_disk(devno));
	return r;
}

static int is_encrypted(dev_t devno, unsigned depth, char **ret_name, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *uuid = qs_sysfs_text(devno, "dm/uuid");
	QS_AUTO(qs_devset_done) struct qs_devset under = {};
	int r;

	if (uuid && strncmp(uuid, "CRYPT-", strlen("CRYPT-")) == 0) {
		if (!*ret_name)
			*ret_name = qs_sysfs_text(devno, "dm/name");
		return 1;
	}
	r = below(devno, &under, err);
	if (r < 0 || under.count == 0 || depth == MAX_DEPTH)
		return r;
	for (size_t i = 0; i < under.count; i++) {
		r = is_encrypted(under.items[i], depth + 1, ret_name, err);
		if (r <= 0)
			return r;
	}
	return 1;
}

int qs_device_is_encrypted(dev_t devno, char **ret_name, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *name = NULL;
	int r = devno == 0 ? 0 : is_encrypted(devno, 0, &name, err);

	if (r > 0)
		*ret_name = QS_TAKE(name);
	return r;
}
