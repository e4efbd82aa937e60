/* Content keys as the provider kmip-wrap puts them into headers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "keystore/kmip-internal.h"

#define IV12 "AAECAwQFBgcICQoL"
#define IV16 "AAECAwQFBgcICQoLDA0ODw=="
#define DATA32 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define DATA48 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v"

static void test_there_and_back(void **state)
{
	static const char *const texts[] = {
		"kmip:v1:aes-gcm:MQ==:" IV12 ":" DATA32 ":" IV16,
		"kmip:v1:aes-gcm:MQ==:" IV16 ":" DATA32 ":" IV16,
		"kmip:v1:aes-cbc:YSB1aWQ6L8Ok:" IV16 ":" DATA48,
	};

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(texts); i++) {
		QS_AUTO(qs_auto_free) char *again = NULL;
		struct qs_kmip_wrapped w;

		assert_int_equal(qs_kmip_wrapped_parse(texts[i], &w), 0);
		assert_int_equal(w.encrypted.data[31], 31);
		again = qs_kmip_wrapped_print(&w);
		assert_string_equal(again, texts[i]);
	}
}

static void test_nothing_else(void **state)
{
	static const char *const texts[] = {
		"",
		"kmip",
		"kmip:v1",
		"kmip:v1:",
		"vault:v1:" DATA48,
		"kmip:v2:aes-gcm:MQ==:" IV12 ":" DATA32 ":" IV16,
		"kmip:v1:aes-ctr:MQ==:" IV16 ":" DATA32,
		"kmip:v1::MQ==:" IV16 ":" DATA48,
		"kmip:v1:aes-gcm:MQ==:" IV12 ":" DATA32, /* no tag */
		"kmip:v1:aes-gcm:MQ==:" IV12 ":" DATA32 ":",
		"kmip:v1:aes-gcm:MQ==:" IV12 ":" DATA32 ":" IV12,     /* a short one */
		"kmip:v1:aes-gcm:MQ==:" IV12 ":" DATA32 ":" IV16 ":", /* more behind it */
		"kmip:v1:aes-cbc:MQ==:" IV16 ":" DATA48 ":" IV16,     /* CBC has none */
		"kmip:v1:aes-cbc:MQ==:" IV12 ":" DATA48,
		"kmip:v1:aes-cbc:MQ==:" IV16 ":" DATA32,
		"kmip:v1:aes-gcm:MQ==:" IV16 ":" DATA48 ":" IV16,
		"kmip:v1:aes-gcm:MQ==::" DATA32 ":" IV16,
		"kmip:v1:aes-gcm::" IV12 ":" DATA32 ":" IV16,     /* whose key? */
		"kmip:v1:aes-gcm:MQA=:" IV12 ":" DATA32 ":" IV16, /* a NUL in it */
		"kmip:v1:aes-gcm:MQ:" IV12 ":" DATA32 ":" IV16,
		"kmip:v1:aes-gcm:MR==:" IV12 ":" DATA32 ":" IV16, /* another spelling */
		" kmip:v1:aes-gcm:MQ==:" IV12 ":" DATA32 ":" IV16,
		"KMIP:v1:aes-gcm:MQ==:" IV12 ":" DATA32 ":" IV16,
	};

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(texts); i++) {
		struct qs_kmip_wrapped w;

		if (qs_kmip_wrapped_parse(texts[i], &w) != -EINVAL)
			fail_msg("accepted: %s", texts[i]);
	}
}

static void test_the_longest_identifier(void **state)
{
	QS_AUTO(qs_auto_free) char *text = NULL;
	QS_AUTO(qs_auto_free) char *longer = NULL;
	struct qs_kmip_wrapped again, w = { .encrypted = { .cipher = QS_KMIP_GCM, .iv_size = 16 } };

	(void)state;
	memset(w.uid, 'u', sizeof(w.uid) - 1);
	text = qs_kmip_wrapped_print(&w);
	assert_true(strlen(text) <= QS_WRAPPED_MAX);
	assert_int_equal(qs_kmip_wrapped_parse(text, &again), 0);
	assert_string_equal(again.uid, w.uid);
	longer = qs_printf("kmip:v1:aes-gcm:dXV1%s", text + strlen("kmip:v1:aes-gcm:"));
	assert_int_equal(qs_kmip_wrapped_parse(longer, &again), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_nothing_else),
		cmocka_unit_test(test_the_longest_identifier),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
