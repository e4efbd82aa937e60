#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "base/cleanup.h"
#include "base/text.h"

static void test_sizes_and_times_as_text(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t bytes;
	} sizes[] = {
		{ "0", 0, 0 },
		{ "512", 0, 512 },
		{ "512 B", 0, 512 },
		{ "1KiB", 0, 1024 },
		{ "3   MiB", 0, 3 << 20 },
		{ "16777215 TiB", 0, 16777215ULL << 40 },
		{ "16777216 TiB", -ERANGE, 0 },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "", -EINVAL, 0 },
		{ " 1", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ "+1", -EINVAL, 0 },
		{ "1 kB", -EINVAL, 0 },
		{ "1.5 GiB", -EINVAL, 0 },
		{ "KiB", -EINVAL, 0 },
		{ "1 KiB ", -EINVAL, 0 },
	};
	uint64_t n;

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(sizes); i++) {
		assert_int_equal(qs_text_parse_size(sizes[i].text, &n), sizes[i].r);
		if (sizes[i].r == 0)
			assert_int_equal(n, sizes[i].bytes);
	}
	assert_int_equal(qs_text_parse_seconds("90", &n), 0);
	assert_int_equal(n, 90);
	assert_int_equal(qs_text_parse_seconds("2 h", &n), 0);
	assert_int_equal(n, 7200);
	assert_int_equal(qs_text_parse_seconds("90 KiB", &n), -EINVAL);
	assert_int_equal(qs_text_parse_span("2M", &n), 0);
	assert_int_equal(n, 60 * 86400);
	assert_int_equal(qs_text_parse_span("2m", &n), 0);
	assert_int_equal(n, 120);
	assert_int_equal(qs_text_parse_span("6W", &n), 0);
	assert_int_equal(n, 42 * 86400);
	assert_int_equal(qs_text_parse_span("1 y", &n), -EINVAL);
}

static void test_printed_sizes_are_exact_and_read_back(void **state)
{
	static const uint64_t sizes[] = { 0,         1,         1000,       4096,
					  1536,      128 << 10, 4ULL << 30, (4ULL << 30) + 512,
					  UINT64_MAX };
	char text[QS_TEXT_SIZE_L];
	uint64_t n;

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(sizes); i++) {
		qs_text_print_size(sizes[i], text);
		assert_int_equal(qs_text_parse_size(text, &n), 0);
		assert_int_equal(n, sizes[i]);
	}
	qs_text_print_size(128 << 10, text);
	assert_string_equal(text, "128 KiB");
}

static void test_seconds_in_a_sentence(void **state)
{
	char text[QS_TEXT_SIZE_L];

	(void)state;
	assert_string_equal(qs_text_seconds(0, text), "0 seconds");
	assert_string_equal(qs_text_seconds(1, text), "1 second");
	assert_string_equal(qs_text_seconds(UINT64_MAX, text), "18446744073709551615 seconds");
}

static void test_times(void **state)
{
	static const char *const good[][2] = {
		{ "2026-11-22T14:05:00Z", "20261122T140500Z" },
		{ "1970-01-01T00:00:00Z", "19700101T000000Z" },
		{ "2028-02-29T23:59:59Z", "20280229T235959Z" },
	};
	static const char *const bad[][2] = {
		{ "", "" },
		{ "2026-02-30T00:00:00Z", "20260230T000000Z" },
		{ "2026-11-22T14:05:00", "20261122T140500" },
		{ "2026-11-22 14:05:00Z", "20261122 140500Z" },
		{ "2026-11-22T14:05:00Z ", "20261122T140500Zx" },
		{ "2026-11-22T4:05:00Z", "2026-11-22T14:05:00Z" },
	};
	char again[QS_TEXT_TIME_L];
	time_t rfc, compact;

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(good); i++) {
		assert_int_equal(qs_text_parse_time(good[i][0], QS_TEXT_RFC3339, &rfc), 0);
		assert_int_equal(qs_text_parse_time(good[i][1], QS_TEXT_COMPACT, &compact), 0);
		assert_int_equal(rfc, compact);
		assert_string_equal(qs_text_print_time(rfc, QS_TEXT_RFC3339, again), good[i][0]);
		assert_string_equal(qs_text_print_time(rfc, QS_TEXT_COMPACT, again), good[i][1]);
	}
	for (size_t i = 0; i < QS_ARRAY_SIZE(bad); i++) {
		assert_int_equal(qs_text_parse_time(bad[i][0], QS_TEXT_RFC3339, &rfc), -EINVAL);
		assert_int_equal(qs_text_parse_time(bad[i][1], QS_TEXT_COMPACT, &rfc), -EINVAL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes_and_times_as_text),
		cmocka_unit_test(test_printed_sizes_are_exact_and_read_back),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_seconds_in_a_sentence),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
