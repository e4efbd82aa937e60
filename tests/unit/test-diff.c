#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "headers.h"
#include "scratch.h"
#include "tab/diff.h"

static char *directory;

static int setup(void **state)
{
	(void)state;
	directory = scratch_make();
	return chdir(directory);
}

static int teardown(void **state)
{
	(void)state;
	if (chdir("/") < 0)
		return -1;
	scratch_drop(directory);
	return 0;
}

static void assert_diff(const char *old, const char *new, const char *wanted)
{
	QS_AUTO(qs_auto_free) char *text = qs_diff("f", old, strlen(old), new, strlen(new));

	assert_string_equal(text, wanted);
}

static void save(const char *name, const char *text)
{
	const struct qs_replace how = { .mode = 0644 };

	assert_int_equal(qs_file_replace(name, text, strlen(text), &how, NULL), 0);
}

/* patch(1) makes NEW of OLD with it. */
static void assert_patches(const char *old, const char *new)
{
	QS_AUTO(qs_auto_free) char *diff = qs_diff("f", old, strlen(old), new, strlen(new));

	save("f", old);
	save("wanted", new);
	save("diff", diff);
	if (headers_shell("patch -s -p0 --posix <diff && cmp f wanted") != 0)
		fail_msg("of\n%s\nto\n%s\npatch cannot use:\n%s", old, new, diff);
}

static void test_equal_texts_have_no_difference(void **state)
{
	(void)state;
	assert_diff("", "", "");
	assert_diff("a\nb", "a\nb", "");
}

static void test_a_changed_line_has_three_lines_of_context(void **state)
{
	(void)state;
	assert_diff("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nx\n6\n7\n8\n9\n",
		    "--- f\n+++ f\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+x\n 6\n 7\n 8\n");
}

static void test_a_new_file_and_an_emptied_one(void **state)
{
	(void)state;
	assert_diff("", "a\n", "--- f\n+++ f\n@@ -0,0 +1 @@\n+a\n");
	assert_diff("a\n", "", "--- f\n+++ f\n@@ -1 +0,0 @@\n-a\n");
}

static void test_a_missing_last_newline_is_told(void **state)
{
	(void)state;
	assert_diff("a", "a\nb\n",
		    "--- f\n+++ f\n@@ -1 +1,2 @@\n-a\n\\ No newline at end of file\n+a\n+b\n");
}

static void test_a_nul_is_shown_and_cuts_nothing(void **state)
{
	QS_AUTO(qs_auto_free) char *text = qs_diff("f", "#\0x\na\n", 6, "#\0x\nb\n", 6);

	(void)state;
	assert_string_equal(text, "--- f\n+++ f\n@@ -1,2 +1,2 @@\n #?x\n-a\n+b\n");
}

#define TEXT_L 200

static void add(char text[static TEXT_L], const char *line)
{
	size_t size = strlen(text);

	(void)snprintf(text + size, TEXT_L - size, "%s", line);
}

/* Random edits of a text of few different lines, so that wrong matches are near. */
static void test_patch_takes_whatever_comes(void **state)
{
	(void)state;
	srandom(1);
	for (unsigned round = 0; round < 150; round++) {
		char old[TEXT_L] = "", new[TEXT_L] = "";
		size_t n = (size_t)random() % 30;

		for (size_t i = 0; i < n; i++) {
			char line[] = { (char)('a' + random() % 4), '\n', '\0' };
			long kind = random() % 8;

			add(old, line);
			if (kind == 0)
				add(new, "x\n");
			if (kind != 1)
				add(new, line);
			if (kind == 2)
				add(new, "y\n");
		}
		assert_patches(old, new);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equal_texts_have_no_difference),
		cmocka_unit_test(test_a_changed_line_has_three_lines_of_context),
		cmocka_unit_test(test_a_new_file_and_an_emptied_one),
		cmocka_unit_test(test_a_missing_last_newline_is_told),
		cmocka_unit_test(test_a_nul_is_shown_and_cuts_nothing),
		cmocka_unit_test(test_patch_takes_whatever_comes),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
