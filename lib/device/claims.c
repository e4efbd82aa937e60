#define _GNU_SOURCE
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include <libmount.h>

#include "base/cleanup.h"
#include "device/internal.h"
#include "device/swaps.h"

/* Where the running system lives: what carries one of these is never formatted. */
static const char *const vital[] = {
	"/", "/usr", "/boot", "/boot/efi", "/efi", "/etc", QS_CONF_DIR
};

static void release_table(struct libmnt_table **table)
{
	mnt_unref_table(*table);
}

static void release_iter(struct libmnt_iter **iter)
{
	mnt_free_iter(*iter);
}

void qs_claim_add(struct qs_snapshot *shot, const struct qs_claim *claim, const char *format, ...)
{
	struct qs_claim *grown = reallocarray(shot->claims, shot->count + 1, sizeof(*grown));
	struct qs_claim *added;
	va_list ap;

	if (!grown)
		abort();
	shot->claims = grown;
	added = &grown[shot->count++];
	*added = *claim;
	added->literal = qs_strdup(claim->literal);
	added->name = qs_strdup(claim->name);
	va_start(ap, format);
	if (vasprintf(&added->detail, format, ap) < 0)
		abort();
	va_end(ap);
}

/* The block device or file behind a path that the kernel shows; all 0 when there is none. */
static void identify_path(const char *path, struct qs_claim *ret)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return;
	if (S_ISBLK(st.st_mode)) {
		ret->devno = st.st_rdev;
	} else if (S_ISREG(st.st_mode)) {
		ret->fs = st.st_dev;
		ret->ino = st.st_ino;
	}
}

static int claim_loops(struct qs_snapshot *shot, struct qs_error *err)
{
	QS_AUTO(qs_devset_done) struct qs_devset loops = {};
	int r = qs_sysfs_names("/sys/class/block", "loop", &loops, err);

	for (size_t i = 0; r == 0 && i < loops.count; i++) {
		struct qs_claim claim = { .kind = QS_USE_HOLDER, .holder = loops.items[i] };
		QS_AUTO(qs_auto_free) char *file = NULL;
		QS_AUTO(qs_auto_free) char *name = NULL;

		file = qs_sysfs_text(loops.items[i], "loop/backing_file");
		if (!file)
			continue;
		name = qs_sysfs_name(loops.items[i]);
		claim.literal = file;
		identify_path(file, &claim);
		qs_claim_add(shot, &claim, "held by %s", name);
	}
	return r;
}

/* A btrfs shows one of its devices in mountinfo: add the others. */
static int add_btrfs_devices(dev_t devno, struct qs_devset *ret, struct qs_error *err)
{
	static const char top[] = "/sys/fs/btrfs";
	QS_AUTO(qs_auto_closedir) DIR *d = opendir(top);
	const struct dirent *entry;
	int r = 0;

	while (r == 0 && d && (entry = readdir(d))) {
		QS_AUTO(qs_auto_free) char *path = qs_printf("%s/%s/devices", top, entry->d_name);
		QS_AUTO(qs_devset_done) struct qs_devset members = {};

		if (entry->d_name[0] == '.')
			continue;
		r = qs_sysfs_names(path, "", &members, err);
		for (size_t i = 0; qs_devset_has(&members, devno) && i < members.count; i++)
			qs_devset_add(ret, members.items[i]);
	}
	return r;
}

/* The block devices of one mount. btrfs and overlay have anonymous numbers: then the source tells.
 */
static int mount_devices(struct libmnt_fs *fs, struct qs_devset *ret, struct qs_error *err)
{
	const char *source = mnt_fs_get_srcpath(fs);
	const char *type = mnt_fs_get_fstype(fs);
	struct qs_claim claim = { .devno = mnt_fs_get_devno(fs) };

	if (major(claim.devno) == 0)
		claim.devno = 0;
	if (claim.devno == 0 && source && strncmp(source, "/dev/", strlen("/dev/")) == 0)
		identify_path(source, &claim);
	qs_devset_add(ret, claim.devno);
	if (claim.devno == 0 || !type || strcmp(type, "btrfs") != 0)
		return 0;
	return add_btrfs_devices(claim.devno, ret, err);
}

static bool is_vital(const char *target)
{
	for (size_t i = 0; i < QS_ARRAY_SIZE(vital); i++)
		if (strcmp(target, vital[i]) == 0)
			return true;
	return false;
}

/* What lies below a loop device: the block device, or the file and the device of its file system.
 */
static void below_loop(struct qs_snapshot *shot, dev_t loop, const char *target,
		       struct qs_devset *set)
{
	QS_AUTO(qs_auto_free) char *file = qs_sysfs_text(loop, "loop/backing_file");
	struct qs_claim claim = { .kind = QS_USE_SYSTEM };

	if (!file)
		return;
	identify_path(file, &claim);
	qs_devset_add(set, claim.devno);
	if (major(claim.fs) != 0)
		qs_devset_add(set, claim.fs);
	if (claim.ino != 0)
		qs_claim_add(shot, &claim, "below %s", target);
}

/* Walk from the devices of the mount TARGET down to the disks; all of them carry it. */
static int claim_vital(struct qs_snapshot *shot, const struct qs_devset *devices,
		       const char *target, struct qs_error *err)
{
	QS_AUTO(qs_devset_done) struct qs_devset below = {};

	for (size_t i = 0; i < devices->count; i++)
		qs_devset_add(&below, devices->items[i]);
	for (size_t i = 0; i < below.count; i++) {
		struct qs_claim claim = { .kind = QS_USE_SYSTEM, .devno = below.items[i] };
		int r = qs_sysfs_links(claim.devno, "slaves", &below, err);

		if (r < 0)
			return r;
		qs_devset_add(&below, qs_sysfs_disk(claim.devno));
		below_loop(shot, claim.devno, target, &below);
		qs_claim_add(shot, &claim, "below %s", target);
	}
	return 0;
}

static int claim_mount(struct qs_snapshot *shot, struct libmnt_fs *fs, struct qs_error *err)
{
	const char *target = mnt_fs_get_target(fs);
	QS_AUTO(qs_devset_done) struct qs_devset devices = {};
	int r = mount_devices(fs, &devices, err);

	if (r < 0 || !target)
		return r;
	for (size_t i = 0; i < devices.count; i++) {
		const struct qs_claim claim = { .kind = QS_USE_MOUNT, .devno = devices.items[i] };

		qs_claim_add(shot, &claim, "mounted on %s", target);
	}
	return is_vital(target) ? claim_vital(shot, &devices, target, err) : 0;
}

static int claim_mounts(struct qs_snapshot *shot, struct qs_error *err)
{
	static const char file[] = "/proc/self/mountinfo";
	QS_AUTO(release_table) struct libmnt_table *table = mnt_new_table();
	QS_AUTO(release_iter) struct libmnt_iter *iter = mnt_new_iter(MNT_ITER_FORWARD);
	struct libmnt_fs *fs;
	int r;

	if (!table || !iter)
		return qs_fail(err, QS_E_MEMORY, "out of memory");
	r = mnt_table_parse_file(table, file);
	if (r != 0)
		return qs_fail_errno(err, r < 0 ? r : EIO, "cannot read %s", file);
	if (mnt_table_get_nents(table) == 0) /* libmount does not report a failed read */
		return qs_fail(err, QS_E_IO, "%s is empty: is /proc mounted?", file);
	while (r == 0 && mnt_table_next_fs(table, iter, &fs) == 0)
		r = claim_mount(shot, fs, err);
	return r;
}

static int claim_swaps(struct qs_snapshot *shot, struct qs_error *err)
{
	QS_AUTO(qs_swap_list_done) struct qs_swap_list swaps = {};
	int r = qs_swaps_read(&swaps, err);

	for (size_t i = 0; r == 0 && i < swaps.count; i++) {
		struct qs_claim claim = { .kind = QS_USE_SWAP };

		identify_path(swaps.items[i].path, &claim);
		qs_claim_add(shot, &claim, "swap");
	}
	return r;
}

/* ZFS leaves no holders in sysfs: a member of an imported pool is known by the pool's name. */
static int claim_zfs(struct qs_snapshot *shot, struct qs_error *err)
{
	QS_AUTO(qs_auto_udev) struct udev *udev = NULL;
	QS_AUTO(qs_auto_udev_enumerate) struct udev_enumerate *list = NULL;
	struct udev_list_entry *entry;

	if (access("/proc/spl/kstat/zfs", F_OK) < 0)
		return 0;
	if (!(udev = udev_new()) || !(list = udev_enumerate_new(udev)) ||
	    udev_enumerate_add_match_property(list, "ID_FS_TYPE", "zfs_member") < 0 ||
	    udev_enumerate_scan_devices(list) < 0)
		return qs_fail(err, QS_E_FAILED, "cannot list the members of ZFS pools");
	udev_list_entry_foreach(entry, udev_enumerate_get_list_entry(list))
	{
		QS_AUTO(qs_auto_udev_device)
		struct udev_device *u =
			udev_device_new_from_syspath(udev, udev_list_entry_get_name(entry));
		const char *pool = u ? udev_device_get_property_value(u, "ID_FS_LABEL") : NULL;
		QS_AUTO(qs_auto_free)
		char *path = qs_printf("/proc/spl/kstat/zfs/%s", pool ? pool : "?");
		struct qs_claim claim = { .kind = QS_USE_HOLDER };

		if (!pool || strchr(pool, '/') || access(path, F_OK) < 0)
			continue;
		claim.devno = udev_device_get_devnum(u);
		qs_claim_add(shot, &claim, "held by the ZFS pool %s", pool);
	}
	return 0;
}

int qs_claim_system(struct qs_snapshot *shot, struct qs_error *err)
{
	int r = claim_mounts(shot, err);

	if (r == 0)
		r = claim_swaps(shot, err);
	if (r == 0)
		r = claim_loops(shot, err);
	if (r == 0)
		r = claim_zfs(shot, err);
	return r;
}
