/* Schedules: which words are taken, and when the next rotation is due, by the calendar. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "keystore/keystore.h"

#define HOUR 3600
#define DAY (24L * HOUR)

static time_t at(int year, int month, int day)
{
	struct tm utc = { .tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day };

	return timegm(&utc);
}

static void test_words(void **state)
{
	static const struct {
		const char *text, *again;
	} taken[] = {
		{ "6W", "6W" },       { "2M", "2M" },         { "1Y", "1Y" },
		{ "10Y", "10Y" },     { "1d", "1D" },         { "24h", "24h" },
		{ "1440m", "1440m" }, { "86400s", "86400s" }, { "120M", "120M" },
		{ "Never", "Never" }, { "never", "Never" },   { "012W", "12W" },
	};
	static const char *const malformed[] = { "",    "6",    "W",     "6w",   "6WW",
						 "-6W", "1Y6M", "86400", "6 W W" };
	static const char *const out_of_range[] = {
		"23h", "0D", "86399s", "11Y", "121M", "3651D", "99999999999999999999Y"
	};
	struct qs_schedule s;
	char again[QS_SCHEDULE_L];

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(taken); i++) {
		assert_int_equal(qs_schedule_parse(taken[i].text, &s), 0);
		assert_string_equal(qs_schedule_print(&s, again), taken[i].again);
	}
	for (size_t i = 0; i < QS_ARRAY_SIZE(malformed); i++)
		assert_int_equal(qs_schedule_parse(malformed[i], &s), -EINVAL);
	for (size_t i = 0; i < QS_ARRAY_SIZE(out_of_range); i++)
		assert_int_equal(qs_schedule_parse(out_of_range[i], &s), -ERANGE);
}

static time_t next(const char *text, time_t created, time_t since, time_t now)
{
	struct qs_keystore ks = { .current = 2, .generations = { { 2, created } }, .count = 1 };

	assert_int_equal(qs_schedule_parse(text, &ks.schedule), 0);
	ks.schedule.since = since;
	return qs_schedule_next(&ks, now);
}

static void test_calendar(void **state)
{
	static const struct {
		const char *text;
		int from[3], due[3];
	} cases[] = {
		{ "1M", { 2026, 1, 31 }, { 2026, 2, 28 } },
		{ "1M", { 2028, 1, 31 }, { 2028, 2, 29 } },
		{ "2M", { 2026, 12, 31 }, { 2027, 2, 28 } },
		{ "1M", { 2026, 3, 15 }, { 2026, 4, 15 } },
		{ "1Y", { 2028, 2, 29 }, { 2029, 2, 28 } },
		{ "4Y", { 2028, 2, 29 }, { 2032, 2, 29 } },
		{ "13M", { 2026, 11, 22 }, { 2027, 12, 22 } },
		{ "6W", { 2026, 11, 22 }, { 2027, 1, 3 } },
	};

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(cases); i++) {
		const int *f = cases[i].from, *d = cases[i].due;
		time_t from = at(f[0], f[1], f[2]) + 5 * HOUR;

		assert_int_equal(next(cases[i].text, from, 0, from),
				 at(d[0], d[1], d[2]) + 5 * HOUR);
	}
}

static void test_due(void **state)
{
	time_t made = at(2026, 1, 1), set = at(2026, 6, 1);
	struct qs_keystore ks = { .current = 1,
				  .generations = { { 1, made } },
				  .count = 1,
				  .schedule = { 2, 'D', made } };

	(void)state;
	assert_int_equal(next("Never", made, set, set), 0);
	/* What the age made due before the schedule was set is due since then. */
	assert_int_equal(next("6W", made, set, set), set);
	assert_int_equal(next("1Y", made, set, set), at(2027, 1, 1));
	/* A clock that was wrong when it was made; a few minutes are none. */
	assert_int_equal(next("6W", at(2099, 1, 1), set, set + DAY), set);
	assert_int_equal(next("1D", set + HOUR, made, set), set + HOUR + DAY);
	assert_false(qs_schedule_overdue(&ks, made + 3 * DAY));
	assert_true(qs_schedule_overdue(&ks, made + 3 * DAY + 1));
	ks.schedule.unit = 0;
	assert_false(qs_schedule_overdue(&ks, made + 300 * DAY));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_calendar),
		cmocka_unit_test(test_due),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
