#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tab/crypttab.h"
#include "tab/table.h"

#define ID "/dev/disk/by-id/scsi-35"
#define KEY "/etc/cryptconf/keys/enc-a.key"

static struct qs_crypttab *table(const char *text)
{
	struct qs_crypttab *tab = NULL;
	struct qs_error err = {};

	if (qs_crypttab_parse(text, strlen(text), &tab, &err) < 0)
		fail_msg("%s", err.text);
	return tab;
}

static void assert_text(const struct qs_crypttab *tab, const char *expected)
{
	size_t size;
	const char *text = qs_crypttab_text(tab, &size);

	assert_string_equal(text, expected);
	assert_int_equal(size, strlen(expected));
}

/* Set enc-a in BEFORE and expect AFTER, and that a second time changes nothing. */
static void assert_set(const char *before, const char *options, const char *after)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = table(before);
	bool differs = strcmp(before, after) != 0;
	struct qs_error err = {};

	if (qs_crypttab_set(tab, "enc-a", ID, KEY, options, &err) != (differs ? 1 : 0))
		fail_msg("wrong result for: %s (%s)", before, err.text);
	assert_text(tab, after);
	assert_int_equal(qs_crypttab_set(tab, "enc-a", ID, KEY, options, &err), 0);
	assert_text(tab, after);
}

static void assert_entry(const struct qs_crypttab *tab, size_t i, unsigned line, const char *name,
			 const char *device)
{
	const struct qs_crypttab_entry *e = qs_crypttab_get(tab, i);

	assert_non_null(e);
	assert_string_equal(e->name, name);
	assert_int_equal(e->line, line);
	if (device)
		assert_string_equal(e->device, device);
	else
		assert_null(e->device);
}

static void test_entries_have_their_fields_and_lines(void **state)
{
	QS_AUTO(qs_auto_crypttab)
	struct qs_crypttab *tab =
		table("# head\n\na /dev/a none luks,discard\n\t b\t/dev/b\n  # c /dev/c\nd\n"
		      "e /dev/e k o extra # x\r\nf /dev/f k o\r");
	const struct qs_crypttab_entry *e;

	(void)state;
	assert_int_equal(qs_crypttab_count(tab), 5);
	assert_entry(tab, 0, 3, "a", "/dev/a");
	assert_string_equal(qs_crypttab_get(tab, 0)->key, "none");
	assert_string_equal(qs_crypttab_get(tab, 0)->options, "luks,discard");
	assert_entry(tab, 1, 4, "b", "/dev/b");
	assert_null(qs_crypttab_get(tab, 1)->key);
	assert_null(qs_crypttab_get(tab, 1)->options);
	assert_entry(tab, 2, 6, "d", NULL);
	assert_entry(tab, 3, 7, "e", "/dev/e");
	e = qs_crypttab_find(tab, "f");
	assert_non_null(e);
	assert_string_equal(e->options, "o");
	assert_null(qs_crypttab_get(tab, 5));
	assert_null(qs_crypttab_find(tab, "c"));
}

static void test_any_text_without_nul_in_entries_survives_parsing(void **state)
{
	static const char text[] =
		"# nul \0 in a comment\na /dev/a\\040b \xc3\xa4 \x01\r\n\n\n \t\n#";
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	struct qs_error err = {};
	const char *after;
	size_t size;

	(void)state;
	assert_int_equal(qs_crypttab_parse(text, sizeof(text) - 1, &tab, &err), 0);
	after = qs_crypttab_text(tab, &size);
	assert_int_equal(size, sizeof(text) - 1);
	assert_memory_equal(after, text, size);
	assert_int_equal(qs_crypttab_set(tab, "enc-a", ID, KEY, NULL, &err), 1);
	after = qs_crypttab_text(tab, &size);
	assert_memory_equal(after, text, sizeof(text) - 1);
	assert_string_equal(after + sizeof(text) - 1, "\nenc-a  " ID "  " KEY "  luks\n");
}

static void test_nul_in_an_entry_is_refused_with_its_line(void **state)
{
	static const char text[] = "# one\na /dev/a\nb /dev/b\0 none\n";
	struct qs_crypttab *tab = NULL;
	struct qs_error err = {};

	(void)state;
	assert_true(qs_crypttab_parse(text, sizeof(text) - 1, &tab, &err) < 0);
	assert_null(tab);
	assert_non_null(strstr(err.text, "line 3"));
	assert_int_equal(err.kind, QS_E_FAILED);
}

static void test_too_large_a_table_is_refused(void **state)
{
	size_t size = QS_TABLE_MAX + 1;
	QS_AUTO(qs_auto_free) char *text = malloc(size);
	struct qs_crypttab *tab = NULL;
	struct qs_error err = {};

	(void)state;
	memset(text, '#', size);
	assert_true(qs_crypttab_parse(text, size, &tab, &err) < 0);
	assert_int_equal(qs_crypttab_parse(text, size - 1, &tab, &err), 0);
	/* One more line would make it larger than what we read back. */
	assert_true(qs_crypttab_set(tab, "enc-a", ID, KEY, NULL, &err) < 0);
	(void)qs_crypttab_text(tab, &size);
	assert_int_equal(size, QS_TABLE_MAX);
	qs_crypttab_free(tab);
}

static void test_new_line_goes_to_the_end(void **state)
{
	(void)state;
	assert_set("", NULL, "enc-a  " ID "  " KEY "  luks\n");
	assert_set("# c\n\nb /dev/b\n", "luks,nofail",
		   "# c\n\nb /dev/b\nenc-a  " ID "  " KEY "  luks,nofail\n");
}

static void test_last_line_without_newline_is_ended_first(void **state)
{
	(void)state;
	assert_set("b /dev/b none luks", NULL,
		   "b /dev/b none luks\nenc-a  " ID "  " KEY "  luks\n");
	assert_set("# c\r\nb /dev/b\r", NULL, "# c\r\nb /dev/b\r\nenc-a  " ID "  " KEY "  luks\n");
}

static void test_changed_line_keeps_place_spacing_and_neighbours(void **state)
{
	(void)state;
	assert_set("x /dev/x\r\n \tenc-a\t\t/dev/old   " KEY " luks,discard \t\n#y", NULL,
		   "x /dev/x\r\n \tenc-a\t\t" ID "   " KEY " luks,discard \t\n#y");
	assert_set("enc-a /dev/old none -\n", NULL, "enc-a " ID " " KEY " luks\n");
	assert_set("enc-a /dev/old\n", NULL, "enc-a " ID "  " KEY "  luks\n");
	assert_set("enc-a\n", "luks,nofail", "enc-a  " ID "  " KEY "  luks,nofail\n");
}

static void test_line_that_says_so_is_left_alone(void **state)
{
	(void)state;
	assert_set("  enc-a\t" ID " \t " KEY "   luks,x \t \nb /dev/b", NULL,
		   "  enc-a\t" ID " \t " KEY "   luks,x \t \nb /dev/b");
	assert_set("enc-a  " ID "  " KEY "  luks\n", "luks", "enc-a  " ID "  " KEY "  luks\n");
}

/* Each of these says so to one of the judges only. */
static void test_line_that_the_judges_read_differently_is_made_plain(void **state)
{
	(void)state;
	assert_set("# c\r\nenc-a " ID " " KEY " luks\r\nb /dev/b\r\n", NULL,
		   "# c\r\nenc-a " ID " " KEY " luks\nb /dev/b\r\n");
	assert_set("enc-a " ID " " KEY " luks", NULL, "enc-a " ID " " KEY " luks\n");
	assert_set("enc-a\v" ID "\f" KEY " luks\n", NULL, "enc-a  " ID "  " KEY " luks\n");
}

static void test_text_behind_the_options_moves_to_a_comment(void **state)
{
	(void)state;
	assert_set("b\nenc-a " ID " " KEY " luks  # the big one \t\nc\n", NULL,
		   "b\n# the big one\nenc-a " ID " " KEY " luks\nc\n");
	assert_set("enc-a /dev/old none luks nofail\r\n", NULL,
		   "# nofail\nenc-a " ID " " KEY " luks\n");
	assert_set("enc-a " ID " " KEY " luks x\renc-a y\n", NULL,
		   "# x enc-a y\nenc-a " ID " " KEY " luks\n");
}

static void test_set_refuses_duplicates_and_names_both_lines(void **state)
{
	const char *text = "enc-a /dev/a\n# c\nenc-a /dev/b\n";
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = table(text);
	struct qs_error err = {};

	(void)state;
	assert_true(qs_crypttab_set(tab, "enc-a", ID, KEY, NULL, &err) < 0);
	assert_int_equal(err.kind, QS_E_FAILED);
	assert_non_null(strstr(err.text, "enc-a, 1 and 3"));
	assert_text(tab, text);
}

static void test_names_that_only_look_alike_are_others(void **state)
{
	const char *text = "enc-ab /dev/b\nenc /dev/c\n#enc-a /dev/d\nenc\\055a /dev/e\n";
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = table(text);
	struct qs_error err = {};

	(void)state;
	assert_null(qs_crypttab_find(tab, "enc-a"));
	assert_int_equal(qs_crypttab_remove(tab, "enc-a"), 0);
	assert_text(tab, text);
	assert_int_equal(qs_crypttab_set(tab, "enc-a", ID, KEY, NULL, &err), 1);
	assert_int_equal(qs_crypttab_count(tab), 4);
	assert_entry(tab, 0, 1, "enc-ab", "/dev/b");
}

static void test_remove_takes_all_lines_of_the_name(void **state)
{
	QS_AUTO(qs_auto_crypttab)
	struct qs_crypttab *tab = table("enc-a /dev/a\r\n# c\n enc-a\nb /dev/b\n\nenc-a x y z");

	(void)state;
	assert_int_equal(qs_crypttab_remove(tab, "enc-a"), 1);
	assert_text(tab, "# c\nb /dev/b\n\n");
	assert_int_equal(qs_crypttab_count(tab), 1);
	assert_entry(tab, 0, 2, "b", "/dev/b");
	assert_int_equal(qs_crypttab_remove(tab, "b"), 1);
	assert_text(tab, "# c\n\n");
	assert_int_equal(qs_crypttab_remove(tab, "b"), 0);
}

static void test_arguments_may_come_from_the_table_itself(void **state)
{
	QS_AUTO(qs_auto_crypttab)
	struct qs_crypttab *tab = table("enc-a /dev/a " KEY " luks,nofail\n");
	const struct qs_crypttab_entry *e = qs_crypttab_find(tab, "enc-a");
	struct qs_error err = {};

	(void)state;
	assert_int_equal(qs_crypttab_set(tab, e->name, ID, e->key, e->options, &err), 1);
	assert_text(tab, "enc-a " ID " " KEY " luks,nofail\n");
	e = qs_crypttab_find(tab, "enc-a");
	assert_int_equal(qs_crypttab_remove(tab, e->name), 1);
	assert_text(tab, "");
}

struct fields {
	const char *name, *device, *key, *options, *sentence;
};

static void test_fields_that_a_judge_would_misread_are_refused(void **state)
{
	static const struct fields bad[] = {
		{ "", ID, KEY, "luks", "the name" },
		{ "../x", ID, KEY, "luks", "'/' at byte 3" },
		{ "..", ID, KEY, "luks", "'..'" },
		{ "#a", ID, KEY, "luks", "'#' at byte 1" },
		{ "a b", ID, KEY, "luks", "byte 0x20 at byte 2" },
		{ "a%", ID, KEY, "luks", "'%' at byte 2" },
		{ "\xc3\xa4", ID, KEY, "luks", "0xc3 at byte 1" },
		{ "a", "", KEY, "luks", "the device" },
		{ "a", "/dev/a\\x20b", KEY, "luks", "'\\' at byte 7" },
		{ "a", "/dev/a\tb", KEY, "luks", "byte 0x09" },
		{ "a", "LABEL=\"x\"", KEY, "luks", "'\"'" },
		{ "a", "/dev/../dev/a", KEY, "luks", "the device" },
		{ "a", "/dev//a", KEY, "luks", "'//'" },
		{ "a", "sda", KEY, "luks", "absolute path" },
		{ "a", ID, "keys/a.key", "luks", "the key file" },
		{ "a", ID, "/keys/./a.key", "luks", "the key file" },
		{ "a", ID, "/keys/", "luks", "the key file" },
		{ "a", ID, "", "luks", "the key file" },
		{ "a", ID, "-", "luks", "cannot be '-'" },
		{ "a", ID, "/k/$HOME", "luks", "'$'" },
		{ "a", ID, "/k:/dev/sdb", "luks", "':'" },
		{ "a", ID, "/k:UUID=77", "luks", "':'" },
		{ "a", ID, KEY, "", "the options" },
		{ "a", ID, KEY, "none", "cannot be 'none'" },
		{ "a", ID, KEY, ",,", "cannot be ',,'" },
		{ "a", ID, KEY, "luks,header=/h:/dev/sdb,x", "header" },
		{ "a", ID, KEY, "luks\n", "byte 0x0a" },
		{ "a", ID, KEY, "luks\x7f", "byte 0x7f" },
	};

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(bad); i++) {
		const struct fields *b = &bad[i];
		QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = table("x /dev/x\n");
		struct qs_error err = {};

		assert_true(qs_crypttab_check(b->name, b->device, b->key, b->options, &err) < 0);
		assert_int_equal(err.kind, QS_E_FAILED);
		if (!strstr(err.text, b->sentence))
			fail_msg("'%s' lacks '%s'", err.text, b->sentence);
		assert_true(qs_crypttab_set(tab, b->name, b->device, b->key, b->options, &err) < 0);
		assert_text(tab, "x /dev/x\n");
	}
}

static void test_usual_fields_are_accepted(void **state)
{
	static const struct fields good[] = {
		{ "enc-usb-X-0:0", "/dev/disk/by-id/usb-X-0:0", "/k/enc-usb-X-0:0.key", "luks",
		  "" },
		{ "enc-nvme-eui.00_x+y=1@2", "UUID=aa-bb", "none", "luks,header=/h:0,nofail", "" },
		{ "a#", "/srv/disk-images~,%.img", "/dev/urandom", "swap", "" },
	};

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(good); i++) {
		const struct fields *g = &good[i];
		struct qs_error err = {};

		if (qs_crypttab_check(g->name, g->device, g->key, g->options, &err) < 0)
			fail_msg("%s", err.text);
	}
}

static void test_lengths_are_bounded(void **state)
{
	QS_AUTO(qs_auto_free) char *name = qs_printf("%0127d", 0);
	QS_AUTO(qs_auto_free) char *longer = qs_printf("%0128d", 0);
	QS_AUTO(qs_auto_free) char *path = qs_printf("/%04094d", 0);
	QS_AUTO(qs_auto_free) char *longer_path = qs_printf("/%04095d", 0);
	struct qs_error err = {};

	(void)state;
	assert_int_equal(qs_crypttab_check(name, path, path, path, &err), 0);
	assert_true(qs_crypttab_check(longer, ID, KEY, "luks", &err) < 0);
	assert_non_null(strstr(err.text, "more than 127 bytes"));
	assert_true(qs_crypttab_check("a", longer_path, KEY, "luks", &err) < 0);
	assert_true(qs_crypttab_check("a", ID, longer_path, "luks", &err) < 0);
	assert_true(qs_crypttab_check("a", ID, KEY, longer_path, &err) < 0);
}

static void test_line_of_a_megabyte_survives(void **state)
{
	size_t size = 1 << 20;
	QS_AUTO(qs_auto_free) char *text = malloc(size + 1);
	QS_AUTO(qs_auto_free) char *after = NULL;

	(void)state;
	memset(text, 'x', size);
	text[size] = '\0';
	text[1000] = ' ';
	after = qs_printf("%s\nenc-a  " ID "  " KEY "  luks\n", text);
	assert_set(text, NULL, after);
}

static char *many_lines(size_t count, size_t special, const char *device)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	for (size_t i = 0; i < count; i++)
		if (i == special)
			fprintf(out, "enc-a  %s  " KEY "  luks\n", device);
		else
			fprintf(out, "enc-%zu\t/dev/disk/by-id/x-%zu /k/%zu.key luks # %zu\n", i, i,
				i, i);
	(void)fclose(out);
	return text;
}

static void test_one_of_a_hundred_thousand_lines_is_changed(void **state)
{
	QS_AUTO(qs_auto_free) char *before = many_lines(100000, 70000, "/dev/old");
	QS_AUTO(qs_auto_free) char *after = many_lines(100000, 70000, ID);
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = table(before);

	(void)state;
	assert_int_equal(qs_crypttab_count(tab), 100000);
	assert_entry(tab, 99999, 100000, "enc-99999", "/dev/disk/by-id/x-99999");
	assert_set(before, NULL, after);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entries_have_their_fields_and_lines),
		cmocka_unit_test(test_any_text_without_nul_in_entries_survives_parsing),
		cmocka_unit_test(test_nul_in_an_entry_is_refused_with_its_line),
		cmocka_unit_test(test_too_large_a_table_is_refused),
		cmocka_unit_test(test_new_line_goes_to_the_end),
		cmocka_unit_test(test_last_line_without_newline_is_ended_first),
		cmocka_unit_test(test_changed_line_keeps_place_spacing_and_neighbours),
		cmocka_unit_test(test_line_that_says_so_is_left_alone),
		cmocka_unit_test(test_line_that_the_judges_read_differently_is_made_plain),
		cmocka_unit_test(test_text_behind_the_options_moves_to_a_comment),
		cmocka_unit_test(test_set_refuses_duplicates_and_names_both_lines),
		cmocka_unit_test(test_names_that_only_look_alike_are_others),
		cmocka_unit_test(test_remove_takes_all_lines_of_the_name),
		cmocka_unit_test(test_arguments_may_come_from_the_table_itself),
		cmocka_unit_test(test_fields_that_a_judge_would_misread_are_refused),
		cmocka_unit_test(test_usual_fields_are_accepted),
		cmocka_unit_test(test_lengths_are_bounded),
		cmocka_unit_test(test_line_of_a_megabyte_survives),
		cmocka_unit_test(test_one_of_a_hundred_thousand_lines_is_changed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
