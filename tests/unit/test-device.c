/* Inventory, names and finding of disks as recorded in udev/. */
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

static char *order[] = { "scsi-3", "scsi-", "nvme-eui.", "nvme-", "ata-", "virtio-", "wwn-", NULL };
static struct qs_env host = { .root = "", .config = { .name_order = order } };
static struct qs_env tree = { .config = { .name_order = order } };
static char *scratch, *root;

static struct qs_device *find(const struct qs_env *env, const char *word)
{
	struct qs_device *dev = NULL;
	struct qs_error err = {};
	int r = qs_device_find(env, word, &dev, &err);

	if (r < 0)
		print_error("%s: %s\n", word, err.text);
	assert_int_equal(r, 0);
	assert_string_equal(dev->given, word);
	return dev;
}

static void find_fails(const struct qs_env *env, const char *word, enum qs_kind kind,
		       const char *text)
{
	struct qs_device *dev = NULL;
	struct qs_error err = {};

	assert_int_equal(qs_device_find(env, word, &dev, &err), qs_kind_errno(kind));
	assert_null(dev);
	assert_int_equal(err.kind, kind);
	if (!strstr(err.text, text))
		fail_msg("%s: \"%s\" does not say \"%s\"", word, err.text, text);
}

static void same(const char *is, const char *should)
{
	if (should)
		assert_string_equal(is ? is : "(null)", should);
	else
		assert_null(is);
}

struct expected {
	const char *word, *node, *link, *vendor, *model, *serial, *revision, *transport;
	enum qs_device_kind kind;
};

static void check(const struct expected *e)
{
	QS_AUTO(qs_auto_device) struct qs_device *dev = find(&host, e->word);

	assert_string_equal(dev->node, e->node);
	assert_int_equal(dev->kind, e->kind);
	same(dev->link, e->link);
	same(dev->vendor, e->vendor);
	same(dev->model, e->model);
	same(dev->serial, e->serial);
	same(dev->revision, e->revision);
	same(dev->transport, e->transport);
	if (e->link) {
		assert_memory_equal(dev->name, "enc-", 4);
		if (strstr(e->link, "/by-id/"))
			assert_string_equal(dev->name + 4, strrchr(e->link, '/') + 1);
	} else {
		assert_null(dev->name);
	}
}

#define ID "/dev/disk/by-id/"

static void test_each_kind_of_disk(void **state)
{
	/* clang-format off */
	static const struct expected list[] = {
		{ "/dev/sdb", "/dev/sdb", ID "scsi-350000393a8c96130", "TOSHIBA", "MK1001TRKB", "Y1M0A01HFM16", "0106", "sas", QS_DEVICE_DISK },
		{ ID "wwn-0x50000393a8c96130", "/dev/sdb", ID "scsi-350000393a8c96130", "TOSHIBA", "MK1001TRKB", "Y1M0A01HFM16", "0106", "sas", QS_DEVICE_DISK },
		{ "/dev/sda", "/dev/sda", ID "ata-WDC_WD10EZEX-00BN5A0_WD-WCC3F1234567", "ATA", "WDC WD10EZEX-00BN5A0", "WD-WCC3F1234567", "01.01A01", "sata", QS_DEVICE_DISK },
		{ "/dev/sda5", "/dev/sda5", ID "ata-WDC_WD10EZEX-00BN5A0_WD-WCC3F1234567-part5", "ATA", "WDC WD10EZEX-00BN5A0", "WD-WCC3F1234567", "01.01A01", "sata", QS_DEVICE_PARTITION },
		{ "/dev/sdq", "/dev/sdq", ID "scsi-SATA_Samsung_SSD_870_S6PTNX0T000001", "ATA", "Samsung_SSD_870_EVO_1TB", "S6PTNX0T000001", "SVT02B6Q", "sata", QS_DEVICE_DISK },
		{ "/dev/nvme0n1", "/dev/nvme0n1", ID "nvme-eui.002538b911b2c3d4", NULL, "Samsung SSD 980 PRO 1TB", "S5GXNX0T123456", "5B2QGXA7", "nvme", QS_DEVICE_DISK },
		{ "/dev/nvme0n1p5", "/dev/nvme0n1p5", ID "nvme-eui.002538b911b2c3d4-part5", NULL, "Samsung SSD 980 PRO 1TB", "S5GXNX0T123456", "5B2QGXA7", "nvme", QS_DEVICE_PARTITION },
		{ "/dev/nvme1n1", "/dev/nvme1n1", ID "nvme-QEMU_NVMe_Ctrl_demo2", NULL, "QEMU NVMe Ctrl", "demo2", "1.0", "nvme", QS_DEVICE_DISK },
		{ "/dev/vda", "/dev/vda", ID "virtio-demo1", NULL, NULL, "demo1", NULL, "virtio", QS_DEVICE_DISK },
		{ "/dev/vdb", "/dev/vdb", "/dev/disk/by-uuid/3f2b7c64-91f1-4e0b-a1a0-5a1c2d3e4f50", NULL, NULL, NULL, NULL, "virtio", QS_DEVICE_DISK },
		{ "/dev/sds", "/dev/sds", ID "scsi-0QEMU_QEMU_HARDDISK_demo3", "QEMU", "QEMU_HARDDISK", "demo3", "2.5+", "virtio", QS_DEVICE_DISK },
		{ "/dev/sdi", "/dev/sdi", ID "usb-SanDisk_Ultra_4C530001-0:0", "SanDisk", "Ultra", "4C530001", "1.00", "usb", QS_DEVICE_DISK },
		{ "/dev/sdd", "/dev/sdd", ID "scsi-3600a098038304479363f4c4870455a31", "NETAPP", "LUN_C-Mode", "600a098038304479363f4c4870455a31", "9121", "fc", QS_DEVICE_DISK },
		{ "/dev/mapper/mpatha", "/dev/dm-2", ID "dm-name-mpatha", NULL, NULL, NULL, NULL, NULL, QS_DEVICE_MAPPER },
		{ "/dev/md0", "/dev/md0", ID "md-name-shelf:0", NULL, NULL, NULL, NULL, NULL, QS_DEVICE_MD },
		{ "/dev/loop0", "/dev/loop0", NULL, NULL, NULL, NULL, NULL, NULL, QS_DEVICE_LOOP },
		{ "/dev/zram0", "/dev/zram0", NULL, NULL, NULL, NULL, NULL, NULL, QS_DEVICE_OTHER },
	};
	/* clang-format on */

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(list); i++)
		check(&list[i]);
}

static void test_sizes_and_flags(void **state)
{
	QS_AUTO(qs_auto_device) struct qs_device *sda = find(&host, "/dev/sda");
	QS_AUTO(qs_auto_device) struct qs_device *part = find(&host, "/dev/sda5");
	QS_AUTO(qs_auto_device) struct qs_device *nvme = find(&host, "/dev/nvme1n1");
	QS_AUTO(qs_auto_device) struct qs_device *usb = find(&host, "/dev/sdi");

	(void)state;
	assert_int_equal(sda->size, 931ULL << 30);
	assert_int_equal(sda->logical_block, 512);
	assert_int_equal(sda->physical_block, 4096);
	assert_true(sda->rotational);
	assert_false(sda->removable);
	assert_string_equal(sda->wwn, "0x50014ee2b1234567");
	assert_null(sda->disk);
	assert_int_equal(part->size, 500ULL << 30);
	assert_int_equal(part->physical_block, 4096);
	assert_string_equal(part->disk, "/dev/sda");
	assert_int_equal(nvme->logical_block, 4096);
	assert_false(nvme->rotational);
	assert_true(usb->removable);
}

static void test_members_name_their_parent(void **state)
{
	QS_AUTO(qs_auto_device) struct qs_device *path = find(&host, "/dev/sde");
	QS_AUTO(qs_auto_device) struct qs_device *idle = find(&host, "/dev/sdf");
	QS_AUTO(qs_auto_device) struct qs_device *part = find(&host, "/dev/sdg1");
	QS_AUTO(qs_auto_device) struct qs_device *disk = find(&host, "/dev/sdg");
	QS_AUTO(qs_auto_device) struct qs_device *lvm = find(&host, "/dev/sda3");

	(void)state;
	same(path->member_of, "/dev/mapper/mpatha");
	same(idle->member_of, NULL);
	same(part->member_of, "/dev/md0");
	same(disk->member_of, NULL);
	same(lvm->member_of, NULL);
}

static void test_scan_order(void **state)
{
	static const char *const first[] = { "/dev/nvme0n1", "/dev/nvme1n1", "/dev/sda",
					     "/dev/sdb" };
	QS_AUTO(qs_device_list_done) struct qs_device_list disks = {};
	QS_AUTO(qs_device_list_done) struct qs_device_list all = {};
	struct qs_error err = {};
	size_t extra = 0;

	(void)state;
	assert_int_equal(qs_device_scan(&host, false, &disks, &err), 0);
	assert_int_equal(disks.count, 23);
	for (size_t i = 0; i < QS_ARRAY_SIZE(first); i++)
		assert_string_equal(disks.items[i]->node, first[i]);
	assert_string_equal(disks.items[19]->node, "/dev/sds");
	assert_string_equal(disks.items[20]->node, "/dev/sdaa"); /* after all of sd[a-z] */
	for (size_t i = 0; i < disks.count; i++)
		assert_int_equal(disks.items[i]->kind, QS_DEVICE_DISK);

	assert_int_equal(qs_device_scan(&host, true, &all, &err), 0);
	for (size_t i = 0; i < all.count; i++) {
		assert_string_not_equal(all.items[i]->node, "/dev/loop7"); /* no medium */
		extra += all.items[i]->kind != QS_DEVICE_DISK;
	}
	/* 4 + 1 + 2 + 1 partitions, 3 dm, md0, 2 loops, zram0, sr0 */
	assert_int_equal(extra, 16);
	assert_int_equal(all.count, disks.count + extra);
}

static void test_foreign_text_is_cleaned(void **state)
{
	QS_AUTO(qs_auto_device) struct qs_device *dev = find(&host, "/dev/sdr");

	(void)state;
	same(dev->model, "Evil?[31m");
	same(dev->link, NULL); /* "\x20" and "%" in both of its links */
}

static void test_name_is_refused_without_a_link(void **state)
{
	QS_AUTO(qs_auto_device) struct qs_device *dev = find(&host, "/dev/sdr");
	char *link = NULL, *name = NULL;
	struct qs_error err = {};

	(void)state;
	assert_true(qs_device_name(&host, dev, NULL, &link, &name, &err) < 0);
	assert_int_equal(err.kind, QS_E_WRONG_DEVICE);
	assert_non_null(strstr(err.text, "/dev/sdr has no usable link"));
	assert_true(qs_device_name(&host, dev, "../etc", &link, &name, &err) < 0);
	assert_null(link);
	assert_int_equal(qs_device_name(&host, dev, "0a-1", &link, &name, &err), 0);
	assert_string_equal(link, "/dev/disk/by-uuid/0a-1");
	assert_string_equal(name, "enc-uuid-0a-1");
	free(link);
	free(name);
}

static void test_order_is_the_configured_one(void **state)
{
	char *reversed[] = { "wwn-", NULL };
	struct qs_env env = { .root = "", .config = { .name_order = reversed } };
	QS_AUTO(qs_auto_device) struct qs_device *dev = find(&env, "/dev/sdb");
	QS_AUTO(qs_auto_device) struct qs_device *pv = find(&env, "/dev/sda3");

	(void)state;
	same(dev->link, ID "wwn-0x50000393a8c96130");
	reversed[0] = "lvm-";
	qs_auto_device(&pv);
	pv = find(&env, "/dev/sda3"); /* never lvm-pv-uuid-, which a format takes away */
	same(pv->link, ID "ata-WDC_WD10EZEX-00BN5A0_WD-WCC3F1234567-part3");
}

static void test_open_mapping_means_its_disk(void **state)
{
	static const char *const words[] = {
		"enc-scsi-35000c50057a1b2c3",
		"/dev/mapper/enc-scsi-35000c50057a1b2c3",
		"6c9d5d9e-7f0e-4a77-8bfe-0d2f5fd1c0aa",
		"6C9D5D9E-7F0E-4A77-8BFE-0D2F5FD1C0AA",
		"UUID=6c9d5d9e-7f0e-4a77-8bfe-0d2f5fd1c0aa",
		"/dev/disk/by-uuid/6c9d5d9e-7f0e-4a77-8bfe-0d2f5fd1c0aa",
		"ID=wwn-0x5000c50057a1b2c3",
	};

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(words); i++) {
		QS_AUTO(qs_auto_device) struct qs_device *dev = find(&host, words[i]);

		assert_string_equal(dev->node, "/dev/sdc");
		same(dev->name, "enc-scsi-35000c50057a1b2c3");
	}
}

static void test_uuid_of_a_map_is_not_its_paths(void **state)
{
	QS_AUTO(qs_auto_device)
	struct qs_device *dev = find(&host, "aaaaaaaa-1111-4222-8333-bbbbbbbbbbbb");

	(void)state;
	assert_string_equal(dev->node, "/dev/dm-2");
}

static void test_two_devices_with_one_uuid(void **state)
{
	(void)state;
	find_fails(&host, "dddddddd-1111-4222-8333-eeeeeeeeeeee", QS_E_FAILED, "/dev/sdn");
	find_fails(&host, "dddddddd-1111-4222-8333-eeeeeeeeeeee", QS_E_FAILED, "/dev/sdo");
}

static void test_what_is_no_device(void **state)
{
	char dangling[PATH_MAX], loop[PATH_MAX], fifo[PATH_MAX];

	(void)state;
	snprintf(dangling, sizeof(dangling), "%s/dangling", root);
	snprintf(loop, sizeof(loop), "%s/loop", root);
	snprintf(fifo, sizeof(fifo), "%s/fifo", root);
	assert_int_equal(symlink("nowhere", dangling), 0);
	assert_int_equal(symlink("loop", loop), 0);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	find_fails(&tree, dangling, QS_E_NO_DEVICE, "is a link to nowhere, which does not exist");
	find_fails(&tree, loop, QS_E_NO_DEVICE, "leads back to itself");
	find_fails(&tree, fifo, QS_E_WRONG_DEVICE, "is a pipe");
	find_fails(&tree, root, QS_E_WRONG_DEVICE, "is a directory");
	find_fails(&tree, "/dev/null", QS_E_WRONG_DEVICE, "/dev/null is a character device");
	find_fails(&tree, "..", QS_E_WRONG_DEVICE, "is a directory");
	find_fails(&tree, "/dev/sdzz", QS_E_NO_DEVICE, "there is no /dev/sdzz");
	find_fails(&tree, "/dev/mapper/..", QS_E_WRONG_DEVICE, "is a directory");
	find_fails(&tree, "/dev/mapper/nobody", QS_E_NO_DEVICE, "there is no /dev/mapper/nobody");
	find_fails(&tree, "sdb", QS_E_NO_DEVICE, "do you mean /dev/sdb?");
	find_fails(&tree, "nobody", QS_E_NO_DEVICE, "not in /etc/crypttab");
	find_fails(&tree, "", QS_E_NO_DEVICE, "empty");
	find_fails(&tree, "a\nb", QS_E_NO_DEVICE, "control characters");
	find_fails(&tree, "ffffffff-1111-4222-8333-eeeeeeeeeeee", QS_E_NO_DEVICE, "no device has");
	find_fails(&tree, "LABEL=none", QS_E_NO_DEVICE, "/dev/disk/by-label/none");
}

static void put(const char *path, const char *text)
{
	char real[PATH_MAX];
	FILE *f;

	snprintf(real, sizeof(real), "%s/%s", root, path);
	f = fopen(real, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void link_to(const char *target, const char *path)
{
	char real[PATH_MAX];

	snprintf(real, sizeof(real), "%s/%s", root, path);
	assert_int_equal(symlink(target, real), 0);
}

static void test_image_by_every_name(void **state)
{
	static const char *const words[] = {
		"/dev/disk/by-id/scsi-3abc",
		"enc-scsi-3abc",
		"/dev/mapper/enc-scsi-3abc",
		"/var/disk.img",
		"LABEL=a b",
		"11111111-2222-4333-8444-555555555555",
	};
	char real[PATH_MAX];

	(void)state;
	put("var/disk.img", "image");
	snprintf(real, sizeof(real), "%s/var/disk.img", root);
	link_to("../../../var/disk.img", "dev/disk/by-id/scsi-3abc");
	link_to("../../../var/disk.img", "dev/disk/by-id/ata-abc");
	link_to("../../../var/disk.img", "dev/disk/by-label/a\\x20b");
	link_to(real, "dev/disk/by-uuid/11111111-2222-4333-8444-555555555555");
	put("etc/crypttab", "enc-scsi-3abc  /dev/disk/by-id/scsi-3abc  /k  luks\n"
			    "gone  /dev/disk/by-id/scsi-3gone  /k  luks\n");
	for (size_t i = 0; i < QS_ARRAY_SIZE(words); i++) {
		QS_AUTO(qs_auto_device) struct qs_device *dev = find(&tree, words[i]);

		assert_int_equal(dev->kind, QS_DEVICE_IMAGE);
		assert_string_equal(dev->node, real);
		assert_int_equal(dev->size, 5);
		same(dev->link, "/dev/disk/by-id/scsi-3abc");
		same(dev->name, "enc-scsi-3abc");
	}
	find_fails(&tree, "gone", QS_E_NO_DEVICE, "gone is line 2 of /etc/crypttab");
}

static void test_image_without_a_link_is_its_path(void **state)
{
	QS_AUTO(qs_auto_device) struct qs_device *plain = NULL;
	QS_AUTO(qs_auto_device) struct qs_device *odd = NULL;
	char *link = NULL, *name = NULL;
	struct qs_error err = {};
	char real[PATH_MAX];

	(void)state;
	put("var/b.img", "");
	put("var/odd name.img", "");
	plain = find(&tree, "/var/b.img");
	same(plain->link, "/var/b.img");
	same(plain->name, "enc-b.img");
	assert_int_equal(qs_device_wait_link(&tree, plain, plain->link, 0, &err), 0);
	snprintf(real, sizeof(real), "%s/var/odd name.img", root);
	odd = find(&tree, real);
	same(odd->link, NULL);
	assert_true(qs_device_name(&tree, odd, NULL, &link, &name, &err) < 0);
	assert_int_equal(err.kind, QS_E_WRONG_DEVICE);
	assert_non_null(strstr(err.text, "rename it"));
}

/* A table of all links that was taken once gives the same names, but none that is wrong by now. */
static void test_a_table_of_links_names_nothing_that_has_moved(void **state)
{
	QS_AUTO(qs_links_done) struct qs_links links = {};
	struct qs_env walk = tree;
	char moved[PATH_MAX];

	(void)state;
	put("var/first.img", "");
	put("var/other.img", "");
	link_to("../../../var/first.img", "dev/disk/by-id/scsi-3first");
	link_to("../../../var/first.img", "dev/disk/by-id/ata-first");
	link_to("../../../var/other.img", "dev/disk/by-id/ata-other");
	link_to("../../../var/gone.img", "dev/disk/by-id/scsi-3nowhere");
	walk.links = &links;
	for (unsigned i = 0; i < 2; i++) {
		QS_AUTO(qs_auto_device) struct qs_device *first = find(&walk, "/var/first.img");
		QS_AUTO(qs_auto_device) struct qs_device *other = find(&walk, "/var/other.img");

		same(first->name, i == 0 ? "enc-scsi-3first" : "enc-ata-first");
		same(other->name, "enc-ata-other");
		snprintf(moved, sizeof(moved), "%s/dev/disk/by-id/scsi-3first", root);
		if (i == 0) {
			assert_int_equal(unlink(moved), 0);
			link_to("../../../var/other.img", "dev/disk/by-id/scsi-3first");
		}
	}
}

static void test_a_line_is_looked_at_once_for_all_devices(void **state)
{
	QS_AUTO(qs_links_done) struct qs_links links = {};
	QS_AUTO(qs_auto_device) struct qs_device *one = NULL;
	QS_AUTO(qs_auto_device) struct qs_device *two = NULL;
	struct qs_env walk = tree;
	const struct qs_device by_hand = { .kind = QS_DEVICE_IMAGE };

	(void)state;
	put("var/one.img", "");
	put("var/two.img", "");
	link_to("../../../var/one.img", "dev/disk/by-label/one");
	one = find(&tree, "/var/one.img");
	two = find(&tree, "/var/two.img");
	assert_true(qs_links_may_lead(&tree, 0, "/dev/null", one));
	walk.links = &links;
	assert_true(qs_links_may_lead(&walk, 70, "LABEL=one", one));
	assert_false(qs_links_may_lead(&walk, 70, "LABEL=one", two));
	assert_true(qs_links_may_lead(&walk, 70, "LABEL=one", &by_hand));
	assert_false(qs_links_may_lead(&walk, 3, "LABEL=two", two));
	link_to("../../../var/two.img", "dev/disk/by-label/two");
	assert_false(qs_links_may_lead(&walk, 3, "LABEL=two", two));
	/* Another table's line of that number. */
	assert_true(qs_links_may_lead(&walk, 3, "/var/two.img", two));
	assert_false(qs_links_may_lead(&walk, 3, "nodev", two));
}

static void test_links_out_of_the_tree(void **state)
{
	(void)state;
	link_to("/etc/passwd", "dev/disk/by-id/scsi-3out");
	put("../root-twin", "image");
	link_to("../../../../root-twin", "dev/disk/by-id/scsi-3twin");
	find_fails(&tree, "/dev/disk/by-id/scsi-3twin", QS_E_WRONG_DEVICE, "outside of");
	find_fails(&tree, "/dev/disk/by-id/scsi-3out", QS_E_WRONG_DEVICE, "outside of");
}

static void test_wait_for_a_link(void **state)
{
	QS_AUTO(qs_auto_device) struct qs_device *dev = find(&host, "/dev/sdb");
	struct qs_error err = {};

	(void)state;
	assert_int_equal(qs_device_wait_link(&host, dev, dev->link, 0, &err), 0);
	assert_int_equal(qs_device_wait_link(&host, dev, ID "wwn-0x50014ee2b1234567", 20, &err),
			 -ETIMEDOUT);
	assert_int_equal(err.kind, QS_E_DEADLINE);
}

static int make_tree(void **state)
{
	static const char *const directories[] = { "",
						   "etc",
						   "var",
						   "dev",
						   "dev/disk",
						   "dev/disk/by-id",
						   "dev/disk/by-uuid",
						   "dev/disk/by-label" };
	char path[PATH_MAX];

	(void)state;
	mockdev_complete();
	scratch = scratch_make();
	root = qs_printf("%s/root", scratch);
	for (size_t i = 0; i < QS_ARRAY_SIZE(directories); i++) {
		snprintf(path, sizeof(path), "%s/%s", root, directories[i]);
		if (mkdir(path, 0755) < 0)
			return -1;
	}
	tree.root = root;
	return 0;
}

static int remove_tree(void **state)
{
	(void)state;
	free(root);
	scratch_drop(scratch);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_kind_of_disk),
		cmocka_unit_test(test_sizes_and_flags),
		cmocka_unit_test(test_members_name_their_parent),
		cmocka_unit_test(test_scan_order),
		cmocka_unit_test(test_foreign_text_is_cleaned),
		cmocka_unit_test(test_name_is_refused_without_a_link),
		cmocka_unit_test(test_order_is_the_configured_one),
		cmocka_unit_test(test_open_mapping_means_its_disk),
		cmocka_unit_test(test_uuid_of_a_map_is_not_its_paths),
		cmocka_unit_test(test_two_devices_with_one_uuid),
		cmocka_unit_test(test_what_is_no_device),
		cmocka_unit_test(test_image_by_every_name),
		cmocka_unit_test(test_image_without_a_link_is_its_path),
		cmocka_unit_test(test_a_table_of_links_names_nothing_that_has_moved),
		cmocka_unit_test(test_a_line_is_looked_at_once_for_all_devices),
		cmocka_unit_test(test_links_out_of_the_tree),
		cmocka_unit_test(test_wait_for_a_link),
	};

	(void)argc;
	mockdev_enter(argv);
	return cmocka_run_group_tests(tests, make_tree, remove_tree);
}
