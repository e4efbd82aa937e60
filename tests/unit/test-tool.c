#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/tool.h"

#define SH(script) ((const char *const[]){ "/bin/sh", "-c", script, NULL })

static void assert_fails(const char *const *argv, const char *expected)
{
	struct qs_error err = {};

	assert_true(qs_tool_run(argv, &err) < 0);
	assert_int_equal(err.kind, QS_E_FAILED);
	assert_string_equal(err.text, expected);
}

static void test_success_says_nothing(void **state)
{
	struct qs_error err = {};

	(void)state;
	assert_int_equal(qs_tool_run(SH("echo words; echo more >&2"), &err), 0);
	assert_int_equal(err.kind, QS_E_NONE);
}

static void test_the_last_line_is_the_reason(void **state)
{
	(void)state;
	assert_fails(SH("echo a; echo why >&2; echo >&2; exit 3"), "sh failed with status 3: why");
	assert_fails(SH("printf 'sh: cut off'; exit 1"), "sh: cut off");
	assert_fails(SH("exit 1"), "sh failed with status 1");
	assert_fails(SH("kill -TERM $$"), "sh was ended by signal 15");
}

static void test_much_output_does_not_stop_it(void **state)
{
	struct qs_error err = {};

	(void)state;
	assert_int_equal(qs_tool_run(SH("head -c 1000000 /dev/zero; exit 0"), &err), 0);
	assert_true(qs_tool_run(SH("head -c 1000000 /dev/zero | tr '\\0' x; exit 1"), &err) < 0);
	assert_true(strlen(err.text) < 400);
}

static void test_environment_input_and_group_are_its_own(void **state)
{
	struct qs_error err = {};

	(void)state;
	assert_int_equal(setenv("QS_SECRET_OF_THE_CALLER", "x", 1), 0);
	if (qs_tool_run(SH("test -z \"$QS_SECRET_OF_THE_CALLER\" && test -n \"$PATH\" && "
			   "test \"$(readlink /proc/self/fd/0)\" = /dev/null && "
			   "read -r _ _ _ _ group _ </proc/$$/stat && test \"$group\" = $$"),
			&err) < 0)
		fail_msg("%s", err.text);
}

static void test_a_program_that_is_not_there_is_named(void **state)
{
	const char *const argv[] = { "/nonexistent/tool", NULL };
	struct qs_error err = {};

	(void)state;
	assert_true(qs_tool_run(argv, &err) < 0);
	assert_non_null(strstr(err.text, "/nonexistent/tool: No such file"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_success_says_nothing),
		cmocka_unit_test(test_the_last_line_is_the_reason),
		cmocka_unit_test(test_much_output_does_not_stop_it),
		cmocka_unit_test(test_environment_input_and_group_are_its_own),
		cmocka_unit_test(test_a_program_that_is_not_there_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
