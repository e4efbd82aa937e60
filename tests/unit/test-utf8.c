/* Text that a disk or a file name may bring. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/utf8.h"

static void expect_printable(const char *text, const char *expected)
{
	QS_AUTO(qs_auto_free) char *shown = qs_utf8_printable(text);

	assert_string_equal(shown, expected);
}

static void expect_json(const char *text, const char *expected)
{
	QS_AUTO(qs_auto_json) json_t *string = qs_utf8_json(text);

	assert_string_equal(json_string_value(string), expected);
}

static void test_plain_text_stays(void **state)
{
	(void)state;
	expect_printable("SAMSUNG MZ7 \\x41~", "SAMSUNG MZ7 \\x41~");
	expect_printable("B\u00fccher \u20ac \U0001F600", "B\u00fccher \u20ac \U0001F600");
	expect_printable("", "");
	expect_printable(NULL, "");
}

static void test_what_a_terminal_obeys_is_shown_as_bytes(void **state)
{
	(void)state;
	expect_printable("a\x1b[31mb\n\r\t\x7f", "a\\x1b[31mb\\x0a\\x0d\\x09\\x7f");
	expect_printable("\xc2\x80\xc2\x9b\u00a0", "\\xc2\\x80\\xc2\\x9b\u00a0"); /* C1; not NBSP */
	expect_printable("\u202e\u2066\u200f\u2028", "\\xe2\\x80\\xae\\xe2\\x81\\xa6"
						     "\\xe2\\x80\\x8f\\xe2\\x80\\xa8");
}

static void test_wrong_utf8_is_shown_as_bytes(void **state)
{
	static const char *const wrong[][2] = {
		{ "\xff", "\\xff" },
		{ "\x80", "\\x80" },
		{ "\xc3", "\\xc3" }, /* cut */
		{ "\xe2\x82", "\\xe2\\x82" },
		{ "\xc3(", "\\xc3(" },        /* no continuation */
		{ "\xc0\xaf", "\\xc0\\xaf" }, /* too long for '/' */
		{ "\xe0\x80\xaf", "\\xe0\\x80\\xaf" },
		{ "\xf0\x80\x80\xaf", "\\xf0\\x80\\x80\\xaf" },
		{ "\xed\xa0\x80", "\\xed\\xa0\\x80" },          /* half of a surrogate pair */
		{ "\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80" }, /* above U+10FFFF */
		{ "\xf8\x88\x80\x80\x80", "\\xf8\\x88\\x80\\x80\\x80" },
	};

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(wrong); i++) {
		expect_printable(wrong[i][0], wrong[i][1]);
		expect_json(wrong[i][0], wrong[i][1]);
	}
}

static void test_json_keeps_control_characters(void **state)
{
	(void)state;
	expect_json("a\x1b\n\xc2\x9b\u202e", "a\x1b\n\xc2\x9b\u202e");
	assert_null(qs_utf8_json(NULL));
}

/* Every string of two bytes: always text that jansson takes, never a control character. */
static void test_all_pairs_of_bytes(void **state)
{
	(void)state;
	for (unsigned a = 1; a < 256; a++)
		for (unsigned b = 1; b < 256; b++) {
			const char text[] = { (char)a, (char)b, '\0' };
			QS_AUTO(qs_auto_free) char *shown = qs_utf8_printable(text);
			QS_AUTO(qs_auto_json) json_t *string = qs_utf8_json(text);
			QS_AUTO(qs_auto_json) json_t *again = json_string(shown);

			assert_non_null(string);
			assert_non_null(again);
			for (const char *c = shown; *c; c++)
				assert_true((unsigned char)*c >= 0x20 && *c != 0x7f);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain_text_stays),
		cmocka_unit_test(test_what_a_terminal_obeys_is_shown_as_bytes),
		cmocka_unit_test(test_wrong_utf8_is_shown_as_bytes),
		cmocka_unit_test(test_json_keeps_control_characters),
		cmocka_unit_test(test_all_pairs_of_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
