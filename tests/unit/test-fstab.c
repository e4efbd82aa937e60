#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "tab/fstab.h"
#include "tab/table.h"

#include "scratch.h"

#define NEW "/dev/mapper/enc-a"

static struct qs_fstab *parse(const char *text)
{
	struct qs_fstab *tab = NULL;
	struct qs_error err = {};

	if (qs_fstab_parse(text, strlen(text), &tab, &err) < 0)
		fail_msg("%s", err.text);
	return tab;
}

static void assert_text(const struct qs_fstab *tab, const char *expected)
{
	size_t size;
	const char *text = qs_fstab_text(tab, &size);

	assert_string_equal(text, expected);
	assert_int_equal(size, strlen(expected));
}

static void assert_set(const char *before, size_t i, const char *after)
{
	QS_AUTO(qs_auto_fstab) struct qs_fstab *tab = parse(before);
	struct qs_error err = {};

	if (qs_fstab_set_source(tab, i, NEW, &err) != 1)
		fail_msg("%s", err.text);
	assert_text(tab, after);
	assert_string_equal(qs_fstab_get(tab, i)->source, NEW);
	assert_int_equal(qs_fstab_set_source(tab, i, NEW, &err), 0);
	assert_text(tab, after);
}

static void test_entries_are_decoded(void **state)
{
	QS_AUTO(qs_auto_fstab)
	struct qs_fstab *tab = parse("# c\n\nLABEL=\"a\\040b\" none swap pri=5,nofail 0 0\r\n"
				     "/dev/sdb1\t/d\\040e\n");

	(void)state;
	assert_int_equal(qs_fstab_count(tab), 2);
	assert_string_equal(qs_fstab_get(tab, 0)->source, "LABEL=a b");
	assert_string_equal(qs_fstab_get(tab, 0)->type, "swap");
	assert_string_equal(qs_fstab_get(tab, 0)->options, "pri=5,nofail");
	assert_int_equal(qs_fstab_get(tab, 0)->line, 3);
	assert_string_equal(qs_fstab_get(tab, 1)->target, "/d e");
	assert_string_equal(qs_fstab_get(tab, 1)->type, "");
	assert_null(qs_fstab_get(tab, 2));
}

static void test_only_the_first_field_changes(void **state)
{
	(void)state;
	assert_set("UUID=x none swap sw 0 0\n", 0, NEW " none swap sw 0 0\n");
	assert_set(
		"/dev/a / ext4 rw 0 1\n \tUUID=\"x\"\t\tnone  swap pri=5,discard\t0 0 # mine\r\n#e",
		1,
		"/dev/a / ext4 rw 0 1\n \t" NEW "\t\tnone  swap pri=5,discard\t0 0 # mine\r\n#e");
	assert_set("LABEL=a\\040b none swap", 0, NEW " none swap");
}

static void test_a_line_is_added_behind_an_open_end(void **state)
{
	QS_AUTO(qs_auto_fstab) struct qs_fstab *tab = parse("/dev/a / ext4 rw 0 1");
	QS_AUTO(qs_auto_fstab) struct qs_fstab *empty = parse("");
	struct qs_error err = {};

	(void)state;
	assert_int_equal(qs_fstab_add_swap(tab, NEW, "sw", &err), 1);
	assert_text(tab, "/dev/a / ext4 rw 0 1\n" NEW "  none  swap  sw  0  0\n");
	assert_string_equal(qs_fstab_get(tab, 1)->options, "sw");
	assert_int_equal(qs_fstab_add_swap(empty, NEW, "sw", &err), 1);
	assert_text(empty, NEW "  none  swap  sw  0  0\n");
}

static void assert_refused(const char *text, const char *source, const char *pattern)
{
	QS_AUTO(qs_auto_fstab) struct qs_fstab *tab = parse(text);
	struct qs_error err = {};

	assert_true(qs_fstab_set_source(tab, 0, source, &err) < 0);
	assert_int_equal(err.kind, QS_E_FAILED);
	assert_non_null(strstr(err.text, pattern));
	assert_text(tab, text);
}

static void test_what_readers_would_not_agree_on_is_refused(void **state)
{
	(void)state;
	assert_refused("UUID=x\vnone swap sw\n", NEW, "line 1");
	assert_refused("\rUUID=x none swap sw\n", NEW, "line 1");
	assert_refused("# c\nUUID=x\n", NEW, "line 2");
	assert_refused("UUID=x", NEW, "line 1");
	assert_refused("UUID=x none swap sw\n", "/dev/mapper/a b", "cannot stand");
	assert_refused("UUID=x none swap sw\n", "/dev/mapper/a\\040b", "cannot stand");
	assert_refused("UUID=x none swap sw\n", "dev", "cannot stand");
}

static void test_nul_in_an_entry_and_a_huge_file_are_refused(void **state)
{
	static const char nul[] = "# \0 is fine here\n/dev/a\0 / ext4\n";
	QS_AUTO(qs_auto_free) char *huge = calloc(1, QS_TABLE_MAX + 1);
	struct qs_fstab *tab = NULL;
	struct qs_error err = {};

	(void)state;
	assert_true(qs_fstab_parse(nul, sizeof(nul) - 1, &tab, &err) < 0);
	assert_non_null(strstr(err.text, "line 2"));
	assert_int_equal(qs_fstab_parse(nul, 18, &tab, &err), 0);
	qs_auto_fstab(&tab);
	memset(huge, '#', QS_TABLE_MAX + 1);
	assert_true(qs_fstab_parse(huge, QS_TABLE_MAX + 1, &tab, &err) < 0);
}

static void write_text(const char *path, const char *text)
{
	QS_AUTO(qs_auto_fclose) FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
}

static void assert_file(const char *path, const char *expected)
{
	QS_AUTO(qs_auto_free) char *text = NULL;
	struct qs_error err = {};
	size_t size;

	if (qs_file_read(path, 1 << 20, &text, &size, &err) < 0)
		fail_msg("%s", err.text);
	assert_string_equal(text, expected);
}

static void test_link_mode_and_last_version_stay(void **state)
{
	struct qs_env env = { .root = *state };
	QS_AUTO(qs_auto_free) char *etc = qs_printf("%s/etc", env.root);
	QS_AUTO(qs_auto_free) char *link = qs_printf("%s/fstab", etc);
	QS_AUTO(qs_auto_free) char *target = qs_printf("%s/real", etc);
	QS_AUTO(qs_auto_free) char *kept = qs_printf("%s/fstab.qs-bak", etc);
	QS_AUTO(qs_auto_fstab) struct qs_fstab *tab = NULL;
	struct qs_error err = {};
	struct stat st;

	assert_int_equal(mkdir(etc, 0755), 0);
	write_text(target, "UUID=x none swap sw\n");
	assert_int_equal(chmod(target, 0640), 0);
	assert_int_equal(symlink("real", link), 0);
	if (qs_fstab_load(&env, &tab, &err) < 0 || qs_fstab_set_source(tab, 0, NEW, &err) < 0 ||
	    qs_fstab_save(&env, tab, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(lstat(link, &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(stat(target, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_file(target, NEW " none swap sw\n");
	assert_file(kept, "UUID=x none swap sw\n");
}

static int make_scratch(void **state)
{
	*state = scratch_make();
	return 0;
}

static int drop_scratch(void **state)
{
	scratch_drop(*state);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entries_are_decoded),
		cmocka_unit_test(test_only_the_first_field_changes),
		cmocka_unit_test(test_a_line_is_added_behind_an_open_end),
		cmocka_unit_test(test_what_readers_would_not_agree_on_is_refused),
		cmocka_unit_test(test_nul_in_an_entry_and_a_huge_file_are_refused),
		cmocka_unit_test_setup_teardown(test_link_mode_and_last_version_stay, make_scratch,
						drop_scratch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
