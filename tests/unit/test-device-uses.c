/* Why a disk may not be touched: the disks of udev/ with tables of our own. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "device/internal.h"
#include "mockdev.h"
#include "scratch.h"

static char *order[] = { "scsi-3", "scsi-", "nvme-eui.", "nvme-", "ata-", NULL };
static struct qs_env host = { .root = "", .config = { .name_order = order } };
static struct qs_env tree = { .config = { .name_order = order } };
static char *root;

/* Finds through the recorded links, uses the tables of the tree. */
static void uses_of(const char *node, struct qs_use_list *ret)
{
	QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;
	struct qs_error err = {};

	if (qs_device_find(*node == '/' ? &host : &tree, node, &dev, &err) < 0 ||
	    qs_device_uses(&tree, dev, ret, &err) < 0)
		fail_msg("%s: %s", node, err.text);
}

/* The list as text: "kind: detail" line by line. */
static char *uses_text(const char *node)
{
	QS_AUTO(qs_use_list_done) struct qs_use_list list = {};
	char *text = qs_strdup("");

	uses_of(node, &list);
	for (size_t i = 0; i < list.count; i++) {
		QS_AUTO(qs_auto_free) char *before = text;

		text = qs_printf("%s%s: %s\n", before, qs_use_kind_name(list.items[i].kind),
				 list.items[i].detail);
	}
	return text;
}

static void check(const char *node, const char *expected)
{
	QS_AUTO(qs_auto_free) char *text = uses_text(node);

	if (strcmp(text, expected) != 0)
		fail_msg("%s is used by:\n%snot by:\n%s", node, text, expected);
}

static void put(const char *path, const char *text)
{
	QS_AUTO(qs_auto_free) char *real = qs_printf("%s%s", root, path);
	FILE *f = fopen(real, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

#define MOUNT(number, target, type, source)                                                        \
	"30 1 " number " / " target " rw,relatime shared:1 - " type " " source " rw\n"

#define MOUNTS                                                                                     \
	MOUNT("254:0", "/", "ext4", "/dev/mapper/vg0-root")                                        \
	MOUNT("0:5", "/proc", "proc", "proc")                                                      \
	MOUNT("8:1", "/boot/efi", "vfat", "/dev/sda1")                                             \
	MOUNT("8:2", "/boot", "ext4", "/dev/sda2")

static void no_tables(void)
{
	mockdev_write("/proc/self/mountinfo", MOUNTS);
	mockdev_write("/proc/swaps", "Filename Type Size Used Priority\n");
	put("/etc/crypttab", "# nothing\n");
	put("/etc/fstab", "proc /proc proc defaults 0 0\nserver:/export /nfs nfs defaults 0 0\n");
}

static int setup(void **state)
{
	(void)state;
	no_tables();
	return 0;
}

static void test_free_disks(void **state)
{
	(void)state;
	check("/dev/sdb", "");
	check("/dev/vda", "");
	check("/dev/nvme0n1p5", "");
	check("/dev/sda5", ""); /* its siblings carry the system, it does not */
}

static void test_system_disk_and_what_carries_it(void **state)
{
	(void)state;
	check("/dev/sda", "system: below /\n"
			  "system: below /boot/efi\n"
			  "system: below /boot\n"
			  "mount: mounted on / (dm-0)\n"
			  "mount: mounted on /boot/efi (sda1)\n"
			  "mount: mounted on /boot (sda2)\n"
			  "holder: held by dm-0 (vg0-root)\n"
			  "partitions: sda1, sda2, sda3, sda5\n");
	check("/dev/sda3", "system: below /\n"
			   "mount: mounted on / (dm-0)\n"
			   "holder: held by dm-0 (vg0-root)\n");
	check("/dev/dm-0", "system: below /\nmount: mounted on /\n");
}

static void test_mounted_through_a_mapping(void **state)
{
	(void)state;
	mockdev_write("/proc/self/mountinfo", MOUNTS MOUNT("254:1", "/data/c", "xfs", "/dev/dm-1"));
	check("/dev/sdc", "mount: mounted on /data/c (dm-1)\n"
			  "holder: held by dm-1 (enc-scsi-35000c50057a1b2c3)\n");
	mockdev_write("/proc/self/mountinfo", MOUNTS);
	check("/dev/sdc", "holder: held by dm-1 (enc-scsi-35000c50057a1b2c3)\n");
}

static void test_whole_disk_below_a_partition(void **state)
{
	(void)state;
	mockdev_write("/proc/self/mountinfo",
		      MOUNTS MOUNT("259:0", "/srv", "ext4", "/dev/nvme0n1"));
	check("/dev/nvme0n1p5", "mount: mounted on /srv (nvme0n1)\n");
	check("/dev/nvme0n1", "mount: mounted on /srv\npartitions: nvme0n1p5\n");
}

static void test_swap_on_an_array(void **state)
{
	(void)state;
	mockdev_write("/proc/swaps", "Filename Type Size Used Priority\n"
				     "/dev/md0 partition 1000 0 -2\n"
				     "/dev/vda partition 1000 0 -3\n");
	check("/dev/vda", "swap: swap\n");
	check("/dev/sdg1", "swap: swap (md0)\nmember: a member of /dev/md0\n");
	check("/dev/sdg", "swap: swap (md0)\nholder: held by md0\n"
			  "partitions: sdg1\n");
}

static void test_system_on_a_partition_of_an_array(void **state)
{
	QS_AUTO(qs_auto_free) char *text = NULL;

	(void)state;
	mockdev_write("/proc/self/mountinfo", MOUNT("259:9", "/usr", "ext4", "/dev/md0p1"));
	text = uses_text("/dev/sdh1");
	assert_non_null(strstr(text, "system: below /usr\n"));
	assert_non_null(strstr(text, "mount: mounted on /usr (md0p1)\n"));
}

static void test_multipath(void **state)
{
	(void)state;
	check("/dev/sdd", "member: a member of /dev/mapper/mpatha\n");
	check("/dev/sdf", "member: a path of a multipath map that is not active\n");
	check("/dev/mapper/mpatha", "");
}

static void test_btrfs_of_two_disks(void **state)
{
	(void)state;
	mockdev_write("/sys/fs/btrfs/features/raid1c34", "0");
	mockdev_write("/sys/fs/btrfs/0badcafe/devices/sdk/size", "1");
	mockdev_write("/sys/fs/btrfs/0badcafe/devices/sdl/size", "1");
	mockdev_write("/proc/self/mountinfo", MOUNTS MOUNT("0:40", "/pool", "btrfs", "/dev/sdk"));
	check("/dev/sdk", "mount: mounted on /pool\n");
	check("/dev/sdl", "mount: mounted on /pool\n");
	check("/dev/sdm", "");
	mockdev_write("/proc/self/mountinfo", MOUNT("0:40", "/", "btrfs", "/dev/sdk"));
	check("/dev/sdl", "system: below /\nmount: mounted on /\n");
}

static void test_zfs_bcache_and_loop_on_a_disk(void **state)
{
	(void)state;
	check("/dev/sdm", "");
	mockdev_write("/proc/spl/kstat/zfs/tank/state", "ONLINE\n");
	check("/dev/sdm", "holder: held by the ZFS pool tank\n");
	check("/dev/sdp", "holder: held by bcache\n");
	check("/dev/sdi", "holder: held by loop1\n");
}

static void test_image_behind_a_loop_device(void **state)
{
	QS_AUTO(qs_auto_free) char *image = qs_printf("%s/var/a.img", root);
	QS_AUTO(qs_auto_free) char *other = qs_printf("%s/var/b.img", root);

	(void)state;
	put("/var/a.img", "image");
	put("/var/b.img", "image");
	mockdev_write("/sys/devices/virtual/block/loop0/loop/backing_file", image);
	mockdev_write("/proc/self/mountinfo", MOUNTS MOUNT("7:0", "/mnt", "ext4", "/dev/loop0"));
	check(image, "mount: mounted on /mnt (loop0)\nholder: held by loop0\n");
	check("/dev/loop0", "mount: mounted on /mnt\n");
	check(other, "");
	mockdev_write("/proc/self/mountinfo", MOUNT("7:0", "/", "ext4", "/dev/loop0"));
	check(image, "system: below /\nmount: mounted on / (loop0)\nholder: held by loop0\n");
	mockdev_write("/proc/swaps", "Filename Type Size Used Priority\n");
	put("/etc/fstab", "/var/b.img none swap sw 0 0\n");
	check(other, "fstab: line 1 of /etc/fstab\n");
}

static void test_swap_file(void **state)
{
	QS_AUTO(qs_auto_free) char *image = qs_printf("%s/var/swap.img", root);
	QS_AUTO(qs_auto_free) char *swaps = NULL;

	(void)state;
	put("/var/swap.img", "image");
	swaps = qs_printf("Filename Type Size Used Priority\n%s file 1000 0 -2\n", image);
	mockdev_write("/proc/swaps", swaps);
	check(image, "swap: swap\n");
}

static void test_tables(void **state)
{
	QS_AUTO(qs_use_list_done) struct qs_use_list list = {};

	(void)state;
	put("/etc/crypttab", "# comment\n"
			     "enc-x  /dev/vda  /k  luks\n"
			     "enc-y  /dev/disk/by-id/scsi-350000393a8c96130  /k  luks\n");
	put("/etc/fstab", "/dev/sda5 /data ext4 defaults 0 2\n"
			  "UUID=none /none ext4 defaults 0 2\n"
			  "/dev/mapper/enc-scsi-35000c50057a1b2c3 /c xfs defaults 0 2\n");
	check("/dev/vda", "crypttab: line 2 of /etc/crypttab (enc-x)\n");
	/* The link is not below the tree yet, but it is the one that the disk goes by. */
	check("/dev/sdb", "crypttab: line 3 of /etc/crypttab (enc-y)\n");
	check("/dev/sda5", "fstab: line 1 of /etc/fstab\n");
	check("/dev/sdc", "holder: held by dm-1 (enc-scsi-35000c50057a1b2c3)\n"
			  "fstab: line 3 of /etc/fstab\n");
	check("/dev/sdaa", "");
	uses_of("/dev/vda", &list);
	assert_string_equal(list.items[0].name, "enc-x");
}

static void test_tags_and_links_lead_to_an_image(void **state)
{
	QS_AUTO(qs_auto_free) char *image = qs_printf("%s/var/c.img", root);
	QS_AUTO(qs_auto_free) char *link = qs_printf("%s/dev/disk/by-partlabel/a\\x20b", root);

	(void)state;
	put("/var/c.img", "image");
	assert_int_equal(symlink(image, link), 0);
	put("/etc/fstab", "# a quoted tag\nPARTLABEL=\"a\\040b\" /data ext4 defaults 0 2\n");
	put("/etc/crypttab", "enc-c  PARTLABEL=other  /k  luks\n"
			     "enc-d  /var/../var/c.img  /k  luks\n");
	check(image, "crypttab: line 2 of /etc/crypttab (enc-d)\nfstab: line 2 of /etc/fstab\n");
}

static void test_unreadable_tables_are_errors(void **state)
{
	QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;
	QS_AUTO(qs_auto_free) char *crypttab = qs_printf("%s/etc/crypttab", root);
	struct qs_use_list list = {};
	struct qs_error err = {};

	(void)state;
	assert_int_equal(qs_device_find(&host, "/dev/sdb", &dev, &err), 0);
	mockdev_write("/proc/self/mountinfo", "");
	assert_true(qs_device_uses(&tree, dev, &list, &err) < 0);
	assert_non_null(strstr(err.text, "/proc/self/mountinfo is empty"));
	no_tables();
	assert_int_equal(unlink(crypttab), 0);
	assert_int_equal(mkdir(crypttab, 0755), 0);
	assert_true(qs_device_uses(&tree, dev, &list, &err) < 0);
	assert_non_null(strstr(err.text, "crypttab"));
	assert_int_equal(rmdir(crypttab), 0);
	assert_null(list.items);
}

static int make_tree(void **state)
{
	static const char *const directories[] = { "etc", "var", "dev", "dev/disk",
						   "dev/disk/by-partlabel" };

	(void)state;
	mockdev_complete();
	root = scratch_make();
	tree.root = root;
	for (size_t i = 0; i < QS_ARRAY_SIZE(directories); i++) {
		QS_AUTO(qs_auto_free) char *path = qs_printf("%s/%s", root, directories[i]);

		if (mkdir(path, 0755) < 0)
			return -1;
	}
	return 0;
}

static int remove_tree(void **state)
{
	(void)state;
	scratch_drop(root);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_free_disks, setup),
		cmocka_unit_test_setup(test_system_disk_and_what_carries_it, setup),
		cmocka_unit_test_setup(test_mounted_through_a_mapping, setup),
		cmocka_unit_test_setup(test_whole_disk_below_a_partition, setup),
		cmocka_unit_test_setup(test_swap_on_an_array, setup),
		cmocka_unit_test_setup(test_system_on_a_partition_of_an_array, setup),
		cmocka_unit_test_setup(test_multipath, setup),
		cmocka_unit_test_setup(test_btrfs_of_two_disks, setup),
		cmocka_unit_test_setup(test_zfs_bcache_and_loop_on_a_disk, setup),
		cmocka_unit_test_setup(test_image_behind_a_loop_device, setup),
		cmocka_unit_test_setup(test_swap_file, setup),
		cmocka_unit_test_setup(test_tables, setup),
		cmocka_unit_test_setup(test_tags_and_links_lead_to_an_image, setup),
		cmocka_unit_test_setup(test_unreadable_tables_are_errors, setup),
	};

	(void)argc;
	mockdev_enter(argv);
	return cmocka_run_group_tests(tests, make_tree, remove_tree);
}
