/* Recovery keys: their form, and every spelling in which people type them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "key/recovery.h"

#define KEY "cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv"

static void assert_spelt(const char *typed, int want)
{
	QS_AUTO(qs_secret_done) struct qs_secret s = {};
	QS_AUTO(qs_secret_done) struct qs_secret spelt = {};

	assert_int_equal(qs_secret_init(&s, strlen(typed), NULL), 0);
	memcpy(s.data, typed, s.size);
	assert_int_equal(qs_recovery_spell(&s, &spelt, NULL), want);
	assert_int_equal(spelt.data != NULL, want == 1);
	if (want == 1) {
		assert_int_equal(spelt.size, QS_RECOVERY_L);
		assert_memory_equal(spelt.data, KEY, QS_RECOVERY_L);
	}
}

static void test_new_keys_have_the_form_and_differ(void **state)
{
	QS_AUTO(qs_secret_done) struct qs_secret one = {};
	QS_AUTO(qs_secret_done) struct qs_secret two = {};
	QS_AUTO(qs_secret_done) struct qs_secret spelt = {};

	(void)state;
	assert_int_equal(qs_recovery_generate(&one, NULL), 0);
	assert_int_equal(qs_recovery_generate(&two, NULL), 0);
	assert_int_equal(one.size, QS_RECOVERY_L);
	assert_false(qs_secret_equal(&one, &two));
	for (size_t i = 0; i < QS_RECOVERY_L; i++)
		assert_true(i % 9 == 8 ? ((char *)one.data)[i] == '-'
				       : strchr("cbdefghijklnrtuv", ((char *)one.data)[i]) != NULL);
	assert_int_equal(qs_recovery_spell(&one, &spelt, NULL), 1);
	assert_true(qs_secret_equal(&one, &spelt));
}

static void test_other_spellings_become_the_enrolled_one(void **state)
{
	(void)state;
	assert_spelt(KEY, 1);
	assert_spelt("cbdefghijklnrtuvcbdefghijklnrtuvcbdefghijklnrtuvcbdefghijklnrtuv", 1);
	assert_spelt("CBDEFGHI JKLNRTUV CBDEFGHI JKLNRTUV CBDEFGHI JKLNRTUV CBDEFGHI JKLNRTUV", 1);
	assert_spelt("  cbde-fghijklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-",
		     1);
}

static void test_other_passphrases_are_left_alone(void **state)
{
	(void)state;
	assert_spelt("a passphrase", 0);
	assert_spelt("cbdefghi", 0);
	assert_spelt(KEY "c", 0);
	assert_spelt("abdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv", 0);
	assert_spelt("cbdefghi\tjklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv", 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_new_keys_have_the_form_and_differ),
		cmocka_unit_test(test_other_spellings_become_the_enrolled_one),
		cmocka_unit_test(test_other_passphrases_are_left_alone),
	};

	return cmocka_run_group_tests_name("recovery", tests, NULL, NULL);
}
