/* TTLV, the bytes of KMIP: single items, and whether every recorded exchange decodes. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "exchanges.h"
#include "ttlv/message.h"

#define TAG 0x420020

/* ---- single items ---- */

static void test_items_of_the_standard(void **state)
{
	static const struct {
		const char *hex;
		enum qs_ttlv_type type;
		size_t size;
	} items[] = {
		{ "42002002000000040000000800000000", QS_TTLV_INTEGER, 4 },
		{ "420020030000000801b69b4ba5749200", QS_TTLV_LONG, 8 },
		{ "42002004000000100000000003fd35eb6bc2df4618080000", QS_TTLV_BIG, 16 },
		{ "4200200500000004000000ff00000000", QS_TTLV_ENUMERATION, 4 },
		{ "42002006000000080000000000000001", QS_TTLV_BOOLEAN, 8 },
		{ "420020070000000b48656c6c6f20576f726c640000000000", QS_TTLV_TEXT, 11 },
		{ "42002008000000030102030000000000", QS_TTLV_BYTES, 3 },
		{ "42002009000000080000000047da67f8", QS_TTLV_DATE, 8 },
		{ "4200200a00000004000d2f0000000000", QS_TTLV_INTERVAL, 4 },
		{ "42002001000000204200040500000004000000fe000000004200050200000004000000ff00000000",
		  QS_TTLV_STRUCTURE, 32 },
	};
	struct qs_ttlv item;

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(items); i++) {
		struct bytes b = {};

		add_hex(&b, items[i].hex);
		assert_int_equal(qs_ttlv_check(b.data, b.size, &item, NULL), 0);
		assert_int_equal(item.tag, TAG);
		assert_int_equal(item.type, items[i].type);
		assert_int_equal(item.size, items[i].size);
	}
}

static void test_written_items(void **state)
{
	unsigned char data[200];
	struct qs_ttlv_writer w = { .data = data, .size = sizeof(data) };
	struct bytes b = {};
	struct qs_ttlv item, child;
	char text[12];
	int32_t number;

	(void)state;
	add_hex(&b,
		"42002001000000404200040500000004000000fe000000004200050200000004fffffff000000000"
		"42000607000000054865"
		"6c6c6f00000042000708000000020102000000000000");
	qs_ttlv_begin(&w, TAG);
	qs_ttlv_enumeration(&w, 0x420004, 254);
	qs_ttlv_integer(&w, 0x420005, -16);
	qs_ttlv_text(&w, 0x420006, "Hello");
	qs_ttlv_bytes(&w, 0x420007, "\1\2", 2);
	qs_ttlv_end(&w);
	assert_false(w.full);
	assert_int_equal(w.used, b.size);
	assert_memory_equal(data, b.data, b.size);
	assert_int_equal(qs_ttlv_check(data, w.used, &item, NULL), 0);
	assert_true(qs_ttlv_find_integer(&item, 0x420005, &number));
	assert_int_equal(number, -16);
	assert_false(qs_ttlv_find_integer(&item, 0x420004, &number));
	assert_true(qs_ttlv_find_text(&item, 0x420006, text, sizeof(text)));
	assert_string_equal(text, "Hello");
	assert_false(qs_ttlv_find_text(&item, 0x420006, text, 5));
	assert_false(qs_ttlv_find(&item, 0x420009, &child));
	/* The first thing that does not fit ends it. */
	w = (struct qs_ttlv_writer){ .data = data, .size = 40 };
	qs_ttlv_begin(&w, TAG);
	qs_ttlv_text(&w, TAG, "0123456789abcdef0123456789");
	qs_ttlv_integer(&w, TAG, 1);
	assert_true(w.full);
	assert_int_equal(w.used, QS_TTLV_HEADER_L);
}

static void test_bad_items(void **state)
{
	static const char *const items[] = {
		"",
		"42002002",
		"4200200200000003000000080000000",        /* an integer of 3 bytes */
		"42002002000000080000000800000000",       /* of 8 */
		"42002006000000040000000000000001",       /* a boolean of 4 */
		"4200200c00000000",                       /* no such type */
		"4200200000000000",                       /* none at all */
		"42002007ffffffff",                       /* 4 GiB of text */
		"420020070000000148000000000000",         /* padding is cut */
		"42002002000000040000000800000000ff",     /* something behind it */
		"420020010000000842002007000000ff",       /* a child beyond its parent */
		"42002001000000044200200700000000",       /* no multiple of 8 */
		"42002001000000104200200700000000420020", /* a child that is cut */
	};
	unsigned char deep[QS_TTLV_HEADER_L * (QS_TTLV_DEPTH_MAX + 2)];
	struct qs_ttlv item;

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(items); i++) {
		struct qs_error err = {};
		struct bytes b = {};

		add_hex(&b, items[i]);
		if (qs_ttlv_check(b.data, b.size, &item, &err) >= 0)
			fail_msg("accepted: %s", items[i]);
		assert_int_equal(err.kind, QS_E_FAILED);
	}
	for (int levels = QS_TTLV_DEPTH_MAX; levels <= QS_TTLV_DEPTH_MAX + 1; levels++) {
		struct qs_ttlv_writer w = { .data = deep, .size = sizeof(deep) };

		for (int i = 0; i < QS_TTLV_DEPTH_MAX; i++)
			qs_ttlv_begin(&w, TAG);
		while (w.depth > 0)
			qs_ttlv_end(&w);
		/* The writer itself goes no deeper: one more around it by hand. */
		memmove(deep + QS_TTLV_HEADER_L, deep, w.used);
		deep[6] = (unsigned char)(w.used >> 8);
		deep[7] = (unsigned char)w.used;
		if (levels == QS_TTLV_DEPTH_MAX)
			assert_int_equal(
				qs_ttlv_check(deep + QS_TTLV_HEADER_L, w.used, &item, NULL), 0);
		else
			assert_true(qs_ttlv_check(deep, w.used + QS_TTLV_HEADER_L, &item, NULL) <
				    0);
	}
}

/* ---- the recorded exchanges ---- */

static void check_decodes(const struct exchange *e)
{
	static const char *const malformed[] = { "inner-length-too-long" };
	struct qs_error err = {};
	struct qs_ttlv item;
	int expected = 0;
	size_t length;

	for (size_t i = 0; i < QS_ARRAY_SIZE(malformed); i++)
		if (strcmp(malformed[i], e->name) == 0)
			expected = -1;
	if ((qs_ttlv_check(e->request.data, e->request.size, &item, &err) < 0) != (expected < 0))
		fail_msg("%s, %s: request: %s", e->file, e->name, err.text);
	if (qs_ttlv_check(e->response.data, e->response.size, &item, &err) < 0)
		fail_msg("%s, %s: response: %s", e->file, e->name, err.text);
	assert_int_equal(qs_ttlv_length(e->response.data, QS_KMIP_RESPONSE, &length, NULL), 0);
	assert_int_equal(length, e->response.size);
}

static void test_every_exchange_decodes(void **state)
{
	static const char *const files[] = {
		"attributes.txt",  "batch.txt",       "client-1.0.txt",  "client-1.1.txt",
		"client-1.2.txt",  "client-1.3.txt",  "client-1.4.txt",  "client-2.0.txt",
		"header.txt",      "malformed.txt",   "minimal-1.0.txt", "minimal-1.1.txt",
		"minimal-1.2.txt", "minimal-1.3.txt", "minimal-1.4.txt", "minimal-2.0.txt",
		"refused.txt",     "version.txt",     "wrap.txt",
	};
	int count = 0;

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(files); i++)
		count += each(files[i], check_decodes);
	assert_int_equal(count, 270);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_items_of_the_standard),
		cmocka_unit_test(test_written_items),
		cmocka_unit_test(test_bad_items),
		cmocka_unit_test(test_every_exchange_decodes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
