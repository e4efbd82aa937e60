/* Signatures on image files: made by the tools themselves where they can, by hand where not. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "device/device.h"
#include "scratch.h"

#define MIB ((off_t)1 << 20)

static char *root, *image;

/* Reads at or behind this byte fail from now on, as on a disk with bad sectors; -1: none do. */
static off_t bad_from = -1, bad_to = -1;

ssize_t pread64(int fd, void *data, size_t size, off_t offset);
ssize_t pread64(int fd, void *data, size_t size, off_t offset)
{
	ssize_t (*real)(int, void *, size_t, off_t) =
		(ssize_t(*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread64");

	if (bad_from >= 0 && offset < bad_to && offset + (off_t)size > bad_from) {
		errno = EIO;
		return -1;
	}
	return real(fd, data, size, offset);
}

static void run(const char *command)
{
	QS_AUTO(qs_auto_free)
	char *quiet =
		qs_printf("PATH=$PATH:/usr/sbin:/sbin; export IMG='%s'; { %s; } >'%s.log' 2>&1",
			  image, command, image);

	if (system(quiet) != 0)
		fail_msg("%s failed; which tool is missing?", command);
}

static int open_fresh(off_t size)
{
	int fd;

	(void)unlink(image);
	fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	return fd;
}

static void write_at(int fd, off_t offset, const void *data, size_t size)
{
	assert_int_equal(qs_file_pwrite(fd, data, size, offset), 0);
}

static void check_signatures(int fd, const char *expected)
{
	QS_AUTO(qs_auto_free) char *list = NULL;
	struct qs_error err = {};

	if (qs_device_signatures(fd, image, &list, &err) < 0)
		fail_msg("%s", err.text);
	if (expected)
		assert_string_equal(list ? list : "(none)", expected);
	else
		assert_null(list);
}

/* What is found, that wiping takes it away, and that it does so for stock tools too. */
static void check(int fd, const char *expected)
{
	struct qs_error err = {};

	check_signatures(fd, expected);
	if (qs_device_wipe_signatures(fd, image, &err) < 0)
		fail_msg("%s", err.text);
	check_signatures(fd, NULL);
	run("test -z \"$(wipefs -n $IMG)\"");
}

static void test_made_by_tools(void **state)
{
	static const struct {
		const char *command;
		off_t size;
		const char *expected;
	} list[] = {
		{ "mke2fs -q -t ext4 -F $IMG", 8 * MIB, "ext4" },
		{ "mkfs.xfs -q $IMG", 320 * MIB, "xfs" },
		{ "mkfs.btrfs -q $IMG", 128 * MIB, "btrfs" },
		{ "mkswap $IMG", 8 * MIB, "swap" },
		{ "echo 2048,2048 | sfdisk -q -X gpt $IMG", 8 * MIB, "gpt" },
		{ "echo 2048,2048 | sfdisk -q -X dos $IMG", 8 * MIB, "dos" },
		{ "echo x | cryptsetup -q luksFormat --type luks1 --pbkdf-force-iterations 1000 "
		  "$IMG",
		  8 * MIB, "crypto_LUKS" },
		{ "echo x | cryptsetup -q luksFormat --type luks2 --pbkdf pbkdf2 "
		  "--pbkdf-force-iterations 1000 $IMG",
		  32 * MIB, "crypto_LUKS" },
		{ "mke2fs -q -t ext4 -F $IMG 4M; echo 2048,2048 | sfdisk -q -X dos --wipe never "
		  "--force $IMG",
		  8 * MIB, "ext4, dos" },
	};

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(list); i++) {
		QS_AUTO(qs_auto_close) int fd = open_fresh(list[i].size);

		run(list[i].command);
		check(fd, list[i].expected);
	}
}

static void test_second_luks2_header_alone(void **state)
{
	QS_AUTO(qs_auto_close) int fd = open_fresh(32 * MIB);
	static const char zeros[131072];

	(void)state;
	run("echo x | cryptsetup -q luksFormat --type luks2 --pbkdf pbkdf2 "
	    "--pbkdf-force-iterations 1000 --luks2-metadata-size 128k $IMG");
	write_at(fd, 0, zeros, sizeof(zeros));
	check_signatures(fd, "crypto_LUKS (second header)");
	write_at(fd, sizeof(zeros) + 4096, "damage to its text", 18);
	check(fd, "crypto_LUKS (second header)");
}

static void test_second_luks2_header_at_its_last_place(void **state)
{
	QS_AUTO(qs_auto_close) int fd = open_fresh(32 * MIB);

	(void)state;
	write_at(fd, 4 * MIB, "SKUL\xba\xbe\0\2", 8);
	check(fd, "crypto_LUKS (second header)");
}

/* md(4): a magic and a version; 1.x also says where it stands, in sectors. */
static void put_md1(int fd, off_t offset)
{
	unsigned char sb[256] = { 0xfc, 0x4e, 0x2b, 0xa9, 1 };
	uint64_t sector = (uint64_t)offset / 512;

	memcpy(sb + 144, &sector, sizeof(sector));
	write_at(fd, offset, sb, sizeof(sb));
}

static void test_md_of_each_version(void **state)
{
	static const unsigned char old[] = { 0xfc, 0x4e, 0x2b, 0xa9, 0, 0, 0, 0, 90 };
	const off_t size = 8 * MIB;
	int fd = open_fresh(size);

	(void)state;
	write_at(fd, size - 65536, old, sizeof(old)); /* 0.90: the last whole 64 KiB */
	check(fd, "linux_raid_member");
	put_md1(fd, size - 8192); /* 1.0: 8 KiB before the end */
	check(fd, "linux_raid_member");
	put_md1(fd, 0); /* 1.1 */
	check(fd, "linux_raid_member");
	put_md1(fd, 4096); /* 1.2 */
	check(fd, "linux_raid_member");
	close(fd);
}

static void test_lvm(void **state)
{
	QS_AUTO(qs_auto_close) int fd = open_fresh(8 * MIB);
	unsigned char label[512] =
		"LABELONE\1"; /* its checksum is wrong: a damaged one counts too */

	(void)state;
	memcpy(label + 20, "\x20\0\0\0LVM2 001", 12);
	write_at(fd, 512, label, sizeof(label));
	check(fd, "LVM2_member");
}

/* An uberblock magic in every KiB of the array that begins 128 KiB into each label. */
static void test_zfs_at_either_end(void **state)
{
	static const uint64_t magic = 0x00bab10c;
	const off_t size = 64 * MIB;
	const off_t labels[] = { 0, 256 * 1024, size - 512 * 1024, size - 256 * 1024 };

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(labels); i++) {
		QS_AUTO(qs_auto_close) int fd = open_fresh(size);

		for (off_t k = 0; k < 128; k++)
			write_at(fd, labels[i] + (128 + k) * 1024, &magic, sizeof(magic));
		check(fd, "zfs_member");
	}
}

static void test_bcache(void **state)
{
	static const unsigned char magic[] = { 0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca,
					       0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81 };
	QS_AUTO(qs_auto_close) int fd = open_fresh(8 * MIB);
	unsigned char sb[512] = {}; /* in sector 8; its checksum is wrong, as above */

	(void)state;
	sb[8] = 8;
	sb[16] = 1;
	memcpy(sb + 24, magic, sizeof(magic));
	write_at(fd, 4096, sb, sizeof(sb));
	check(fd, "bcache");
}

static void test_ceph(void **state)
{
	QS_AUTO(qs_auto_close) int fd = open_fresh(8 * MIB);

	(void)state;
	write_at(fd, 0, "bluestore block device\n", 23);
	check(fd, "ceph_bluestore");
}

static void test_backup_gpt_alone(void **state)
{
	QS_AUTO(qs_auto_close) int fd = open_fresh(8 * MIB);
	static const char zeros[34 * 512];

	(void)state;
	run("echo 2048,2048 | sfdisk -q -X gpt $IMG");
	write_at(fd, 0, zeros, sizeof(zeros));
	check(fd, "gpt");
}

static void test_nothing(void **state)
{
	static const off_t sizes[] = { 0, 1, 511, 512, 4096, MIB, MIB + 1, 6 * MIB + 513 };

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(sizes); i++) {
		QS_AUTO(qs_auto_close) int fd = open_fresh(sizes[i]);

		check_signatures(fd, NULL);
		assert_int_equal(qs_device_is_blank(fd, image, NULL), 1);
	}
}

static void test_blank_is_the_first_mib(void **state)
{
	static const off_t places[] = { 0, 1, 4095, MIB / 2, MIB - 1 };

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(places); i++) {
		QS_AUTO(qs_auto_close) int fd = open_fresh(4 * MIB);

		write_at(fd, MIB, "x", 1);
		assert_int_equal(qs_device_is_blank(fd, image, NULL), 1);
		write_at(fd, places[i], "\x80", 1);
		assert_int_equal(qs_device_is_blank(fd, image, NULL), 0);
	}
}

static void fails_to_read(int fd, const char *where)
{
	QS_AUTO(qs_auto_free) char *list = NULL;
	struct qs_error err = {};

	assert_int_equal(qs_device_signatures(fd, image, &list, &err), -EIO);
	assert_int_equal(err.kind, QS_E_IO);
	assert_non_null(strstr(err.text, where));
	assert_null(list);
	assert_int_equal(qs_device_wipe_signatures(fd, image, &err), -EIO);
}

static void test_bad_sectors_are_never_empty(void **state)
{
	QS_AUTO(qs_auto_close) int fd = open_fresh(64 * MIB);
	static const struct {
		off_t offset;
		const char *where;
	} bad[] = { { 512, "at byte 0:" },
		    { MIB + 7, "at byte 1048576:" },
		    { 4 * MIB, "at byte 4194304:" },
		    { 64 * MIB - 1, "at byte 67043328:" } };
	struct qs_error err = {};

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(bad); i++) {
		bad_from = bad[i].offset;
		bad_to = bad_from + 1;
		fails_to_read(fd, bad[i].where);
	}
	bad_from = 512;
	bad_to = 1024;
	assert_int_equal(qs_device_is_blank(fd, image, &err), -EIO);
	assert_int_equal(err.kind, QS_E_IO);
	bad_from = 32 * MIB; /* data that no probe looks at */
	bad_to = 33 * MIB;
	check_signatures(fd, NULL);
	bad_from = -1;
}

static void test_wiping_fails_on_a_read_only_descriptor(void **state)
{
	QS_AUTO(qs_auto_close) int fd = open_fresh(8 * MIB);
	QS_AUTO(qs_auto_close) int reader = open(image, O_RDONLY | O_CLOEXEC);
	struct qs_error err = {};

	(void)state;
	run("mkswap $IMG");
	assert_true(qs_device_wipe_signatures(reader, image, &err) < 0);
	assert_non_null(strstr(err.text, "cannot remove the swap signature"));
	check_signatures(fd, "swap");
}

static void test_looking_does_not_write(void **state)
{
	QS_AUTO(qs_auto_close) int fd = open_fresh(32 * MIB);

	(void)state;
	run("echo x | cryptsetup -q luksFormat --type luks2 --pbkdf pbkdf2 "
	    "--pbkdf-force-iterations 1000 $IMG; sha256sum $IMG > $IMG.sum");
	check_signatures(fd, "crypto_LUKS");
	assert_int_equal(qs_device_is_blank(fd, image, NULL), 0);
	run("sha256sum -c $IMG.sum");
}

static int setup(void **state)
{
	(void)state;
	root = scratch_make();
	image = qs_printf("%s/disk.img", root);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bad_from = -1;
	free(image);
	scratch_drop(root);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_made_by_tools),
		cmocka_unit_test(test_second_luks2_header_alone),
		cmocka_unit_test(test_second_luks2_header_at_its_last_place),
		cmocka_unit_test(test_md_of_each_version),
		cmocka_unit_test(test_lvm),
		cmocka_unit_test(test_zfs_at_either_end),
		cmocka_unit_test(test_bcache),
		cmocka_unit_test(test_ceph),
		cmocka_unit_test(test_backup_gpt_alone),
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_blank_is_the_first_mib),
		cmocka_unit_test(test_bad_sectors_are_never_empty),
		cmocka_unit_test(test_wiping_fails_on_a_read_only_descriptor),
		cmocka_unit_test(test_looking_does_not_write),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
