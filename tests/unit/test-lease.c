/*
 * How much of a lease is left (keystore/lease-record.h): by this machine's clock, the TPM's, and
 * the starts that the TPM has counted.
 */
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "keystore/lease-record.h"

#define MADE UINT64_C(1800000000)
#define HOUR 3600U
#define NOW(s) (MADE + (s))

static const struct qs_lease_limits LIMITS = {
	.made = MADE,
	.until = MADE + 10 * (uint64_t)HOUR,
	.boots = 3,
	.clock = { .ms = 5000, .resets = 40, .restarts = 2 },
};

static void test_left(void **state)
{
	static const struct {
		const char *what;
		uint64_t now;
		struct qs_tpm2_clock clock;
		uint64_t seconds, boots; /* 0, 0: refused */
		const char *why;
	} rows[] = {
		{ "at once", NOW(0), { 5000, 40, 2 }, 36000, 3, NULL },
		{ "an hour later", NOW(HOUR), { 5000 + HOUR * 1000, 40, 2 }, 32400, 3, NULL },
		{ "switched off meanwhile", NOW(HOUR), { 6000, 41, 0 }, 32400, 2, NULL },
		{ "this clock set back", NOW(0), { 5000 + 9 * HOUR * 1000, 40, 2 }, 3600, 3, NULL },
		{ "the TPM's clock lost its last hour", NOW(60), { 10, 41, 0 }, 35940, 2, NULL },
		{ "resumed", NOW(0), { 5000, 40, 4 }, 36000, 1, NULL },
		{ "started and resumed", NOW(0), { 5000, 41, 1 }, 36000, 1, NULL },
		{ "one start too many", NOW(0), { 5000, 44, 0 }, 0, 0, "3 starts" },
		{ "hidden behind resumes", NOW(0), { 5000, 41, 3 }, 0, 0, "3 starts" },
		{ "its last second is over",
		  NOW(10 * HOUR),
		  { 5000, 40, 2 },
		  0,
		  0,
		  "ended on 2027-01-15T18:00:00Z" },
		{ "over by the TPM",
		  NOW(1),
		  { 5000 + 10 * HOUR * 1000, 40, 2 },
		  0,
		  0,
		  "TPM's clock" },
		{ "two days before", MADE - 48 * HOUR, { 5000, 40, 2 }, 0, 0, "in the future" },
		{ "fewer starts", NOW(0), { 9000, 39, 9 }, 0, 0, "cleared" },
		{ "fewer resumes", NOW(0), { 9000, 40, 1 }, 0, 0, "cleared" },
		{ "less time", NOW(0), { 4999, 40, 2 }, 0, 0, "cleared" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct qs_lease_left left;
		struct qs_error err = {};
		int r = qs_lease_look(&LIMITS, rows[i].now, &rows[i].clock, &left, &err);

		if (left.seconds != rows[i].seconds || left.boots != rows[i].boots ||
		    (r == 0) != !rows[i].why)
			fail_msg("%s: %d, %ju s and %ju starts left: %s", rows[i].what, r,
				 (uintmax_t)left.seconds, (uintmax_t)left.boots, err.text);
		if (rows[i].why)
			assert_non_null(strstr(err.text, rows[i].why));
		if (rows[i].why)
			assert_int_equal(err.kind, QS_E_TEMPORARY);
	}
}

static void test_one_limit(void **state)
{
	const struct qs_tpm2_clock late = { UINT64_C(1) << 60, 90, 0 };
	struct qs_lease_limits l = LIMITS;
	struct qs_lease_left left;

	(void)state;
	l.boots = 0;
	assert_int_equal(
		qs_lease_look(&l, NOW(HOUR), &(struct qs_tpm2_clock){ 0, 99, 0 }, &left, NULL), 0);
	assert_int_equal(left.seconds, 9 * HOUR);
	assert_int_equal(left.boots, 0);
	l = LIMITS;
	l.until = 0;
	l.boots = 50;
	assert_int_equal(qs_lease_look(&l, NOW(UINT32_MAX), &late, &left, NULL), 0);
	assert_int_equal(left.seconds, 0);
	assert_int_equal(left.boots, 0);
}

static void test_counts_to_the_end(void **state)
{
	const struct qs_lease_limits l = { .made = MADE,
					   .boots = 1,
					   .clock = { .resets = UINT32_MAX - 1 } };
	struct qs_lease_left left;

	(void)state;
	assert_int_equal(
		qs_lease_look(&l, MADE, &(struct qs_tpm2_clock){ 0, UINT32_MAX, 0 }, &left, NULL),
		0);
	assert_true(qs_lease_look(&l, MADE, &(struct qs_tpm2_clock){ 0, UINT32_MAX, UINT32_MAX },
				  &left, NULL) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_left),
		cmocka_unit_test(test_one_limit),
		cmocka_unit_test(test_counts_to_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
