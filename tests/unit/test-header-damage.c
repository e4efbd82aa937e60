#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "luks/header.h"

/* The eleven accidents, on a header with metadata areas of 128 KiB, and what is left. */
static const struct accident {
	const char *command;
	const char *sentence;
	bool heals; /* by `cryptsetup repair`, without a backup */
} accidents[] = {
	{ "dd if=/dev/zero of=x.img bs=512 count=1 conv=notrunc",
	  "zeros over the first copy, second copy intact", true },
	{ "dd if=/dev/zero of=x.img bs=4k count=1 conv=notrunc",
	  "zeros over the first copy, second copy intact", true },
	{ "dd if=/dev/zero of=x.img bs=64k count=1 conv=notrunc",
	  "zeros over the first copy, second copy intact", true },
	{ "dd if=/dev/zero of=x.img bs=1M count=1 conv=notrunc",
	  "no LUKS header: zeros in its place, neither copy is there", false },
	{ "echo 'label: gpt' | sfdisk x.img", "GPT over the first copy, second copy intact", true },
	{ "echo 'label: dos' | sfdisk x.img",
	  "MBR partition table over the first copy, second copy intact", true },
	{ "sgdisk -o x.img", "GPT over the first copy, second copy intact", true },
	{ "mkfs.xfs -f -q x.img", "xfs signature over the first copy, second copy intact", true },
	{ "mkfs.ext4 -F -q x.img",
	  "no LUKS header: ext4 signature in its place, neither copy is there", false },
	{ "mkswap x.img",
	  "swap signature over the first copy, only the magic bytes of the second copy are gone",
	  false },
	{ "wipefs -a x.img", "only the magic bytes of both copies are gone", false },
};

/* F1: stock cryptsetup heals it too. */
static void assert_heals(void)
{
	assert_shell("cryptsetup repair -q " IMAGE);
	assert_header(2, QS_COPY_OK, QS_COPY_OK, NULL);
	assert_shell("cryptsetup open --test-passphrase --key-file key " IMAGE);
}

static void test_each_accident_is_named_with_what_survives(void **state)
{
	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(accidents); i++) {
		QS_AUTO(qs_auto_free) char *damage = NULL;
		struct qs_luks_header h;
		const char *sentence;

		fresh("luks2.img");
		/* mkfs.xfs wants 300 MiB. */
		assert_shell("truncate -s 320M " IMAGE);
		assert_shell(accidents[i].command);
		h = read_image(&damage);
		qs_luks_header_done(&h);
		sentence = damage ? damage : "no damage";
		if (!strstr(sentence, accidents[i].sentence))
			fail_msg("%s: %s", accidents[i].command, sentence);
		assert_non_null(strstr(sentence, "'qs-util cryptrestore " IMAGE "'"));
		if (accidents[i].heals)
			assert_heals();
	}
}

static void test_small_metadata_loses_both_copies_to_a_gpt(void **state)
{
	(void)state;
	assert_shell("rm -f " IMAGE "; truncate -s 32M " IMAGE
		     "; cryptsetup -q luksFormat --pbkdf pbkdf2 --pbkdf-force-iterations 1000"
		     " --luks2-metadata-size 16k --key-file key " IMAGE
		     " && echo label: gpt | sfdisk " IMAGE);
	assert_header(0, QS_COPY_BAD_SUM, QS_COPY_ABSENT,
		      "GPT over the first copy, the second copy is gone; 'qs-util "
		      "cryptrestore " IMAGE "' restores it from its backup");
}

/* F8: reading must not write; stock luksDump does. */
static void test_reading_a_damaged_header_changes_nothing_but_luksdump_does(void **state)
{
	QS_AUTO(qs_auto_free) char *before = NULL;
	QS_AUTO(qs_auto_free) char *ours = NULL;
	QS_AUTO(qs_auto_free) char *stock = NULL;

	(void)state;
	fresh("luks2.img");
	assert_shell("dd if=/dev/zero of=" IMAGE " bs=512 count=1 conv=notrunc");
	before = first_bytes();
	assert_header(2, QS_COPY_ABSENT, QS_COPY_OK, "zeros over the first copy");
	ours = first_bytes();
	assert_memory_equal(before, ours, SHOWN_L);
	assert_shell("cryptsetup luksDump " IMAGE);
	stock = first_bytes();
	assert_int_not_equal(memcmp(before, stock, SHOWN_L), 0);
}

/* F9: a second signature makes every stock tool say "not LUKS". */
static void test_a_gpt_over_the_header_is_damage_where_stock_says_not_luks(void **state)
{
	(void)state;
	fresh("luks2.img");
	assert_shell("sgdisk -o " IMAGE);
	assert_int_not_equal(headers_shell("cryptsetup isLuks " IMAGE), 0);
	assert_shell("wipefs -n " IMAGE " | grep crypto_LUKS && wipefs -n " IMAGE " | grep gpt");
	assert_header(2, QS_COPY_BAD_SUM, QS_COPY_OK,
		      "LUKS2 header damaged: GPT over the first copy, second copy intact; "
		      "'qs-util cryptrestore " IMAGE "' restores it from what is intact");
}

static void test_lost_magic_still_tells_who_the_device_was(void **state)
{
	QS_AUTO(qs_auto_free) char *damage = NULL;
	QS_AUTO(qs_auto_free) char *none = NULL;
	struct qs_luks_header before, after;

	(void)state;
	fresh("luks2.img");
	before = read_image(&none);
	assert_shell("wipefs -a " IMAGE);
	after = read_image(&damage);
	assert_int_equal(after.version, 0);
	assert_string_equal(after.uuid, before.uuid);
	assert_int_equal(after.metadata_size, before.metadata_size);
	assert_non_null(strstr(damage, "qs-util cryptrestore " IMAGE));
	qs_luks_header_done(&before);
	qs_luks_header_done(&after);
}

static void test_damage_to_the_second_copy_is_named(void **state)
{
	(void)state;
	fresh("luks2.img");
	write_at(COPY_L + 5000, "x", 1);
	assert_header(2, QS_COPY_OK, QS_COPY_BAD_SUM,
		      "first copy intact, the second copy fails its checksum");
	write_at(COPY_L, "\0\0\0\0\0\0", 6);
	assert_header(2, QS_COPY_OK, QS_COPY_ABSENT, "first copy intact, the second copy is gone");
}

/* RAID metadata at the end and a backup GPT do not lie over the header. */
static void test_a_signature_elsewhere_is_not_named(void **state)
{
	static const char raid[] = "Intel Raid ISM Cfg Sig. 1.2.00";

	(void)state;
	fresh("luks2.img");
	write_at((64L << 20) - 1024, raid, sizeof(raid));
	assert_header(2, QS_COPY_OK, QS_COPY_OK, NULL);
	assert_shell("dd if=/dev/zero of=" IMAGE " bs=64k count=1 conv=notrunc &&"
		     "wipefs -n " IMAGE " | grep isw_raid_member");
	assert_header(2, QS_COPY_ABSENT, QS_COPY_OK, "zeros over the first copy, ");
	fresh("luks2.img");
	assert_shell("sgdisk -o " IMAGE "; dd if=/dev/zero of=" IMAGE
		     " bs=64k count=1 conv=notrunc && wipefs -n " IMAGE " | grep gpt");
	assert_header(2, QS_COPY_ABSENT, QS_COPY_OK, "zeros over the first copy, ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_accident_is_named_with_what_survives),
		cmocka_unit_test(test_small_metadata_loses_both_copies_to_a_gpt),
		cmocka_unit_test(test_reading_a_damaged_header_changes_nothing_but_luksdump_does),
		cmocka_unit_test(test_a_gpt_over_the_header_is_damage_where_stock_says_not_luks),
		cmocka_unit_test(test_lost_magic_still_tells_who_the_device_was),
		cmocka_unit_test(test_damage_to_the_second_copy_is_named),
		cmocka_unit_test(test_a_signature_elsewhere_is_not_named),
	};

	return cmocka_run_group_tests(tests, image_setup, image_teardown);
}
