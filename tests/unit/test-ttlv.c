/* KMIP's wire format against exchanges recorded with a real server, and against damaged ones. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "ttlv/message.h"

#define VECTORS QS_SOURCE "/tests/vectors/kmip"
#define TAG 0x420020

struct bytes {
	unsigned char data[4096];
	size_t size;
};

struct exchange {
	char file[64], name[256];
	struct bytes request, response;
};

static void add_hex(struct bytes *b, const char *hex)
{
	unsigned byte;

	for (; sscanf(hex, "%2x", &byte) == 1; hex += 2) {
		assert_true(b->size < sizeof(b->data));
		b->data[b->size++] = (unsigned char)byte;
	}
}

/* Call CHECK with every exchange of FILE. Returns how many. */
static int each(const char *file, void (*check)(const struct exchange *e))
{
	QS_AUTO(qs_auto_free) char *path = qs_printf(VECTORS "/%s", file);
	QS_AUTO(qs_auto_fclose) FILE *f = fopen(path, "r");
	struct exchange e = {};
	struct bytes *into = NULL;
	char line[256];
	int count = 0;

	if (!f)
		fail_msg("cannot read %s", path);
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "exchange ", 9) == 0) {
			e = (struct exchange){};
			(void)snprintf(e.file, sizeof(e.file), "%s", file);
			(void)snprintf(e.name, sizeof(e.name), "%s", line + 9);
		} else if (strncmp(line, "request ", 8) == 0) {
			into = &e.request;
		} else if (strncmp(line, "response ", 9) == 0) {
			into = &e.response;
		} else if (!*line && into) {
			check(&e);
			count++;
			into = NULL;
		} else if (into && *line != '#') {
			add_hex(into, line);
		}
	}
	if (into)
		check(&e);
	return count + (into != NULL);
}

static struct exchange wanted;

static void pick(const struct exchange *e)
{
	if (strcmp(e->name, wanted.name) == 0)
		wanted = *e;
}

static const struct exchange *find(const char *file, const char *name)
{
	wanted = (struct exchange){};
	(void)snprintf(wanted.name, sizeof(wanted.name), "%s", name);
	(void)each(file, pick);
	if (wanted.response.size == 0)
		fail_msg("no exchange %s in %s", name, file);
	return &wanted;
}

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

static void expect_request(struct qs_kmip_version version, enum qs_kmip_operation operation,
			   const char *about, const struct exchange *e)
{
	unsigned char key[QS_KMIP_KEY_L], data[1024];
	const struct qs_kmip_request request = { .operation = operation,
						 .about = about,
						 .key = key };
	int size;

	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (unsigned char)i; /* as registered in the recordings */
	size = qs_kmip_request_write(version, NULL, &request, 1, data, sizeof(data), NULL);
	if (size != (int)e->request.size || memcmp(data, e->request.data, (size_t)size) != 0)
		fail_msg("%s, %s: our request is another one", e->file, e->name);
	assert_true(qs_kmip_request_write(version, NULL, &request, 1, data, (size_t)size - 1,
					  NULL) < 0);
}

static struct qs_kmip_answer read_one(const struct exchange *e, struct qs_kmip_version version,
				      enum qs_kmip_operation operation)
{
	const struct qs_kmip_request request = { .operation = operation };
	struct qs_kmip_answer answer;
	struct qs_error err = {};

	if (qs_kmip_response_read(e->response.data, e->response.size, version, &request, 1, &answer,
				  &err) < 0)
		fail_msg("%s, %s: %s", e->file, e->name, err.text);
	return answer;
}

/* The life of a key in every version: what we ask is what was recorded, byte for byte. */
static void test_life_in_every_version(void **state)
{
	(void)state;
	for (size_t i = 0; i < qs_kmip_version_count; i++) {
		struct qs_kmip_version v = qs_kmip_versions[i];
		QS_AUTO(qs_auto_free)
		char *file = qs_printf("minimal-%d.%d.txt", v.major, v.minor);
		QS_AUTO(qs_auto_free) char *name = qs_printf("m-%d.%d", v.major, v.minor);
		QS_AUTO(qs_auto_free) char *given = qs_printf("r-%d.%d", v.major, v.minor);
		char uid[QS_KMIP_UID_L], again[QS_KMIP_UID_L];
		const unsigned char *key;
		struct qs_kmip_attributes found;
		struct qs_kmip_answer a;

		expect_request(v, QS_KMIP_CREATE, name, find(file, "01-create"));
		a = read_one(&wanted, v, QS_KMIP_CREATE);
		assert_int_equal(qs_kmip_read_uid(&a, uid, NULL), 0);
		expect_request(v, QS_KMIP_ACTIVATE, uid, find(file, "02-activate"));
		assert_int_equal(read_one(&wanted, v, QS_KMIP_ACTIVATE).verdict, QS_KMIP_DONE);
		expect_request(v, QS_KMIP_GET, uid, find(file, "03-get-raw"));
		a = read_one(&wanted, v, QS_KMIP_GET);
		assert_int_equal(qs_kmip_read_key(&a, uid, &key, NULL), 0);
		assert_non_null(
			memmem(wanted.response.data, wanted.response.size, key, QS_KMIP_KEY_L));
		assert_true(qs_kmip_read_key(&a, "another", &key, NULL) < 0);
		expect_request(v, QS_KMIP_LOCATE, name, find(file, "04-locate"));
		a = read_one(&wanted, v, QS_KMIP_LOCATE);
		assert_int_equal(qs_kmip_read_located(&a, again, NULL), 1);
		assert_string_equal(again, uid);
		a = read_one(find(file, "05-get-state"), v, QS_KMIP_GET_ATTRIBUTES);
		assert_int_equal(qs_kmip_read_attributes(&a, name, &found, NULL), 0);
		assert_int_equal(found.state, QS_KMIP_ACTIVE);
		assert_false(found.named);
		expect_request(v, QS_KMIP_REGISTER, given, find(file, "06-register"));
		a = read_one(&wanted, v, QS_KMIP_REGISTER);
		assert_int_equal(qs_kmip_read_uid(&a, again, NULL), 0);
		expect_request(v, QS_KMIP_DESTROY, uid, find(file, "11-destroy"));
	}
}

static struct qs_kmip_version version_of(const char *text)
{
	struct qs_kmip_version v;

	assert_true(qs_kmip_version_parse(text, &v));
	return v;
}

/* What the server made of the bytes 0 to 31, and what it made of that again. */
static void test_encrypted_and_back(void **state)
{
	static const char *const versions[] = { "1.4", "2.0" };
	struct qs_kmip_encrypted e;
	struct qs_kmip_answer a;
	struct qs_error err = {};
	const unsigned char *key;
	char uid[QS_KMIP_UID_L];

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(versions); i++) {
		const struct qs_kmip_version v = version_of(versions[i]);
		QS_AUTO(qs_auto_free) char *file = qs_printf("minimal-%s.txt", versions[i]);

		a = read_one(find(file, "09b-encrypt-gcm-server-nonce"), v, QS_KMIP_ENCRYPT);
		assert_int_equal(qs_kmip_read_uid(&a, uid, NULL), 0);
		assert_int_equal(qs_kmip_read_encrypted(&a, uid, QS_KMIP_GCM, &e, NULL), 0);
		assert_int_equal(e.cipher, QS_KMIP_GCM);
		assert_int_equal(e.iv_size, 16);
		assert_non_null(memmem(wanted.response.data, wanted.response.size, e.tag, 16));
		assert_non_null(memmem(wanted.response.data, wanted.response.size, e.data, 32));
		assert_true(qs_kmip_read_encrypted(&a, "another", QS_KMIP_GCM, &e, &err) < 0);
		assert_true(qs_kmip_read_encrypted(&a, uid, QS_KMIP_CBC, &e, &err) < 0);
		assert_non_null(strstr(err.text, "32 bytes"));
		/* A vector that we chose is not told. */
		a = read_one(find(file, "07-encrypt-gcm"), v, QS_KMIP_ENCRYPT);
		assert_true(qs_kmip_read_encrypted(&a, uid, QS_KMIP_GCM, &e, &err) < 0);
		assert_non_null(strstr(err.text, "initialization vector"));
		a = read_one(find(file, "08-decrypt-gcm"), v, QS_KMIP_DECRYPT);
		assert_int_equal(qs_kmip_read_decrypted(&a, uid, &key, NULL), 0);
		for (unsigned char n = 0; n < QS_KMIP_KEY_L; n++)
			assert_int_equal(key[n], n);
		assert_true(qs_kmip_read_decrypted(&a, "another", &key, &err) < 0);
		a = read_one(find(file, "09a-decrypt-gcm-bad-tag"), v, QS_KMIP_DECRYPT);
		assert_int_equal(a.verdict, QS_KMIP_NOT_DECRYPTED);
		assert_int_equal(a.error.kind, QS_E_NO_KEY);
	}
	/* Before 1.4 there is no tag. */
	a = read_one(find("minimal-1.2.txt", "09b-encrypt-gcm-server-nonce"), version_of("1.2"),
		     QS_KMIP_ENCRYPT);
	assert_int_equal(qs_kmip_read_uid(&a, uid, NULL), 0);
	assert_true(qs_kmip_read_encrypted(&a, uid, QS_KMIP_GCM, &e, &err) < 0);
	assert_non_null(strstr(err.text, "no tag"));
	assert_false(qs_kmip_has_cipher(version_of("1.1"), QS_KMIP_CBC));
	assert_true(qs_kmip_has_cipher(version_of("1.2"), QS_KMIP_CBC));
	assert_false(qs_kmip_has_cipher(version_of("1.3"), QS_KMIP_GCM));
	assert_true(qs_kmip_has_cipher(version_of("2.0"), QS_KMIP_GCM));
}

/* 128 of them fit into one message with identifiers of 36 bytes, and say that all are wanted. */
static void test_a_batch_of_decrypt(void **state)
{
	static const struct qs_kmip_encrypted e = { .cipher = QS_KMIP_CBC, .iv_size = 16 };
	static unsigned char data[QS_TTLV_MESSAGE_MAX];
	struct qs_kmip_request requests[QS_KMIP_BATCH_MAX];
	struct qs_ttlv message, header, item;
	size_t at = 0, items = 0;
	uint32_t option;
	int size;

	(void)state;
	for (size_t i = 0; i < QS_KMIP_BATCH_MAX; i++)
		requests[i] = (struct qs_kmip_request){
			.operation = QS_KMIP_DECRYPT,
			.about = "0b8f7a5e-0c0f-4e9b-9b1f-3f1b2a6d7c11",
			.encrypted = &e,
		};
	size = qs_kmip_request_write(version_of("1.2"), NULL, requests, QS_KMIP_BATCH_MAX, data,
				     sizeof(data), NULL);
	assert_true(size > 0);
	assert_int_equal(qs_ttlv_check(data, (size_t)size, &message, NULL), 0);
	assert_true(qs_ttlv_find_structure(&message, 0x420077, &header));
	assert_true(qs_ttlv_find_enumeration(&header, 0x42000e, &option));
	assert_int_equal(option, 1);
	while (qs_ttlv_next(&message, &at, &item))
		items += item.tag == 0x42000f;
	assert_int_equal(items, QS_KMIP_BATCH_MAX);
	size = qs_kmip_request_write(version_of("1.2"), NULL, requests, 1, data, sizeof(data),
				     NULL);
	assert_int_equal(qs_ttlv_check(data, (size_t)size, &message, NULL), 0);
	assert_true(qs_ttlv_find_structure(&message, 0x420077, &header));
	assert_false(qs_ttlv_find_enumeration(&header, 0x42000e, &option));
}

/* As PyKMIP's own client sends it. */
static void test_a_login(void **state)
{
	static const char hex[] = "42000c0100000048420023010000004042002405000000040000000100000000"
				  "42002501000000284200990700000004757365720000000042"
				  "00a1070000000c7061737320776f72642e2e2e00000000";
	char text[] = "pass word...";
	struct qs_secret password = { text, strlen(text) };
	const struct qs_kmip_login login = { "user", &password };
	const struct qs_kmip_request request = { .operation = QS_KMIP_QUERY };
	unsigned char data[512];
	struct bytes wanted_bytes = {};
	int with, without;

	(void)state;
	add_hex(&wanted_bytes, hex);
	with = qs_kmip_request_write(version_of("1.0"), &login, &request, 1, data, sizeof(data),
				     NULL);
	assert_non_null(memmem(data, (size_t)with, wanted_bytes.data, wanted_bytes.size));
	without = qs_kmip_request_write(version_of("1.0"), &(struct qs_kmip_login){ .user = "" },
					&request, 1, data, sizeof(data), NULL);
	assert_int_equal(with, without + (int)wanted_bytes.size);
}

static void test_attributes_have_names(void **state)
{
	struct qs_kmip_attributes found;
	struct qs_kmip_answer a;

	(void)state;
	a = read_one(find("client-1.4.txt", "07-get-attributes"), (struct qs_kmip_version){ 1, 4 },
		     QS_KMIP_GET_ATTRIBUTES);
	assert_int_equal(qs_kmip_read_attributes(&a, "kek-1.4", &found, NULL), 0);
	assert_true(found.named);
	assert_int_equal(qs_kmip_read_attributes(&a, "kek-1.", &found, NULL), 0);
	assert_false(found.named);
	a = read_one(find("client-2.0.txt", "07-get-attributes"), (struct qs_kmip_version){ 2, 0 },
		     QS_KMIP_GET_ATTRIBUTES);
	assert_int_equal(qs_kmip_read_attributes(&a, "kek-2.0", &found, NULL), 0);
	assert_true(found.named);
}

/* A key of somebody else's making. */
static void test_keys_that_fit(void **state)
{
	static const struct qs_kmip_attributes good = { QS_KMIP_ACTIVE, true, 3, 256, 0x0c };
	static const char *const recorded[] = { "client-1.4.txt", "client-2.0.txt" };
	struct qs_kmip_attributes a;
	struct qs_error err = {};

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(recorded); i++) {
		const struct qs_kmip_version v = { i ? 2 : 1, i ? 0 : 4 };
		struct qs_kmip_answer answer =
			read_one(find(recorded[i], "07-get-attributes"), v, QS_KMIP_GET_ATTRIBUTES);

		assert_int_equal(qs_kmip_read_attributes(&answer, NULL, &a, NULL), 0);
		assert_int_equal(qs_kmip_check_attributes(&a, false, NULL), 0);
	}
	a = good;
	a.usage = 0x30;
	assert_int_equal(qs_kmip_check_attributes(&a, false, NULL), 0);
	assert_true(qs_kmip_check_attributes(&a, true, &err) < 0);
	assert_non_null(strstr(err.text, "usage mask"));
	a.usage = 0x24;
	assert_true(qs_kmip_check_attributes(&a, false, &err) < 0);
	assert_non_null(strstr(err.text, "usage mask"));
	a = good;
	a.bits = 128;
	assert_true(qs_kmip_check_attributes(&a, false, &err) < 0);
	assert_non_null(strstr(err.text, "128 bits"));
	a = good;
	a.algorithm = 2;
	assert_true(qs_kmip_check_attributes(&a, false, &err) < 0);
	a = good;
	a.state = QS_KMIP_PRE_ACTIVE;
	assert_true(qs_kmip_check_attributes(&a, false, &err) < 0);
	assert_non_null(strstr(err.text, "not activated"));
	a.state = QS_KMIP_DEACTIVATED;
	assert_true(qs_kmip_check_attributes(&a, false, &err) < 0);
}

static void test_versions_and_servers(void **state)
{
	const struct qs_kmip_version v = { 1, 1 };
	struct qs_kmip_version best;
	struct qs_kmip_answer a;
	struct qs_error err = {};
	char vendor[QS_KMIP_TEXT_L];

	(void)state;
	a = read_one(find("client-1.1.txt", "01-discover-versions"), v, QS_KMIP_DISCOVER);
	assert_int_equal(qs_kmip_read_versions(&a, &best, NULL), 0);
	assert_int_equal(best.major, 2);
	a = read_one(find("version.txt", "discover-at-1.0"), (struct qs_kmip_version){ 1, 0 },
		     QS_KMIP_DISCOVER);
	assert_int_equal(a.verdict, QS_KMIP_NOT_SUPPORTED);
	a = read_one(find("version.txt", "discover-at-3.0"), v, QS_KMIP_DISCOVER);
	assert_int_equal(a.verdict, QS_KMIP_NOT_UNDERSTOOD);
	a = read_one(find("version.txt", "discover-none-shared"), (struct qs_kmip_version){ 1, 4 },
		     QS_KMIP_DISCOVER);
	assert_int_equal(a.verdict, QS_KMIP_DONE);
	assert_true(qs_kmip_read_versions(&a, &best, &err) < 0);
	a = read_one(find("client-1.1.txt", "02-query"), v, QS_KMIP_QUERY);
	assert_int_equal(qs_kmip_read_query(&a, false, vendor, NULL), 0);
	assert_non_null(strstr(vendor, "PyKMIP"));
	assert_true(qs_kmip_read_query(&a, true, vendor, &err) < 0);
	assert_non_null(strstr(err.text, "operation Encrypt"));
	a = read_one(find("client-1.4.txt", "02-query"), (struct qs_kmip_version){ 1, 4 },
		     QS_KMIP_QUERY);
	assert_int_equal(qs_kmip_read_query(&a, true, vendor, NULL), 0);
}

/* ---- refusals ---- */

static void test_refusals_are_sentences(void **state)
{
	static const struct {
		const char *file, *name;
		enum qs_kmip_operation operation;
		enum qs_kmip_verdict verdict;
		const char *part;
	} cases[] = {
		{ "refused.txt", "get-unknown", QS_KMIP_GET, QS_KMIP_NOT_FOUND, "no such key" },
		{ "refused.txt", "get-wrong-format", QS_KMIP_GET, QS_KMIP_NOT_SUPPORTED, "raw" },
		{ "refused.txt", "activate-twice", QS_KMIP_ACTIVATE, QS_KMIP_NOT_ALLOWED,
		  "not pre-active" },
		{ "refused.txt", "other-owner-get", QS_KMIP_GET, QS_KMIP_NOT_ALLOWED,
		  "another client's" },
		{ "refused.txt", "certificate-without-client-auth", QS_KMIP_QUERY,
		  QS_KMIP_NOT_ALLOWED, "clientAuth" },
		{ "malformed.txt", "unknown-tag-in-payload", QS_KMIP_GET, QS_KMIP_NOT_UNDERSTOOD,
		  "invalid" },
		{ "header.txt", "max-response-size", QS_KMIP_QUERY, QS_KMIP_TOO_LARGE,
		  "too large" },
	};

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(cases); i++) {
		struct qs_kmip_answer a =
			read_one(find(cases[i].file, cases[i].name),
				 (struct qs_kmip_version){ 1, 4 }, cases[i].operation);

		assert_int_equal(a.verdict, cases[i].verdict);
		if (!strstr(a.error.text, cases[i].part))
			fail_msg("%s: %s", cases[i].name, a.error.text);
	}
}

/* The recorded ids are "a", "b", "c"; ours are 0, 1, 2. */
static struct bytes batch(const char *name)
{
	struct bytes b = find("batch.txt", name)->response;
	unsigned char id = 0;

	for (size_t i = 0; i + 9 <= b.size; i += 8)
		if (memcmp(b.data + i, "\x42\x00\x93\x08\0\0\0\1", 8) == 0)
			b.data[i + 8] = id++;
	return b;
}

static void test_batches(void **state)
{
	const struct qs_kmip_version v = { 1, 4 };
	const struct qs_kmip_request requests[] = {
		{ .operation = QS_KMIP_QUERY },
		{ .operation = QS_KMIP_GET, .about = "99999" },
		{ .operation = QS_KMIP_QUERY },
	};
	struct qs_kmip_answer answers[3];
	unsigned char request[1024];
	struct bytes b = batch("second-fails");

	(void)state;
	assert_true(qs_kmip_request_write(v, NULL, requests, 3, request, sizeof(request), NULL) >
		    0);
	assert_int_equal(qs_kmip_response_read(b.data, b.size, v, requests, 3, answers, NULL), 0);
	assert_int_equal(answers[0].verdict, QS_KMIP_DONE);
	assert_int_equal(answers[1].verdict, QS_KMIP_NOT_FOUND);
	assert_int_equal(answers[2].verdict, QS_KMIP_UNANSWERED);
	assert_non_null(strstr(answers[2].error.text, "was not answered"));
	b = batch("second-fails-continue");
	assert_int_equal(qs_kmip_response_read(b.data, b.size, v, requests, 3, answers, NULL), 0);
	assert_int_equal(answers[2].verdict, QS_KMIP_DONE);
	/* More answers than questions, and answers to others. */
	assert_true(qs_kmip_response_read(b.data, b.size, v, requests, 2, answers, NULL) < 0);
	assert_true(qs_kmip_response_read(b.data, b.size, v, requests, 1, answers, NULL) < 0);
	assert_true(qs_kmip_response_read(b.data, b.size, v, requests + 1, 2, answers, NULL) < 0);
	b = find("batch.txt", "second-fails-continue")->response;
	assert_true(qs_kmip_response_read(b.data, b.size, v, requests, 3, answers, NULL) < 0);
	b = find("batch.txt", "no-item-id")->response;
	assert_int_equal(qs_kmip_response_read(b.data, b.size, v, requests, 3, answers, NULL), 1);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(answers[i].verdict, QS_KMIP_NOT_UNDERSTOOD);
}

static void test_damaged_answers(void **state)
{
	const struct qs_kmip_version v = { 1, 4 };
	const struct qs_kmip_request get = { .operation = QS_KMIP_GET };
	struct bytes b = find("minimal-1.4.txt", "03-get-raw")->response;
	struct qs_kmip_answer a;
	struct qs_error err = {};
	size_t length;

	(void)state;
	for (size_t size = 0; size < b.size; size++)
		assert_true(qs_kmip_response_read(b.data, size, v, &get, 1, &a, &err) < 0);
	assert_true(qs_kmip_response_read(b.data, b.size, (struct qs_kmip_version){ 1, 3 }, &get, 1,
					  &a, &err) < 0);
	assert_non_null(strstr(err.text, "another version"));
	assert_true(qs_kmip_response_read(b.data, b.size, v,
					  &(struct qs_kmip_request){ .operation = QS_KMIP_CREATE },
					  1, &a, &err) < 0);
	assert_non_null(strstr(err.text, "another operation"));
	/* Every byte of structure in turn: no crash, and no key of another size. */
	for (size_t i = 0; i < b.size; i++) {
		struct bytes changed = b;
		const unsigned char *key;

		changed.data[i] ^= 0x11;
		if (qs_kmip_response_read(changed.data, changed.size, v, &get, 1, &a, &err) == 0 &&
		    a.verdict == QS_KMIP_DONE && qs_kmip_read_key(&a, "33", &key, NULL) == 0)
			assert_true(key > changed.data &&
				    key + QS_KMIP_KEY_L <= changed.data + b.size);
	}
	assert_true(qs_ttlv_length((const unsigned char *)"HTTP/1.1", QS_KMIP_RESPONSE, &length,
				   &err) < 0);
	assert_true(qs_ttlv_length((const unsigned char *)"\x42\x00\x7b\x01\x7f\xff\xff\xf8",
				   QS_KMIP_RESPONSE, &length, &err) < 0);
}

static void test_other_keys_are_refused(void **state)
{
	static const struct {
		const char *file, *name;
	} others[] = { { "client-1.4.txt", "15-get-secret" },
		       { "client-1.4.txt", "17-get-opaque" },
		       { "wrap.txt", "get-wrapped" } };
	const struct qs_kmip_version v = { 1, 4 };
	struct qs_kmip_answer a;
	char uid[QS_KMIP_UID_L];
	const unsigned char *key;

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(others); i++) {
		a = read_one(find(others[i].file, others[i].name), v, QS_KMIP_GET);
		assert_int_equal(a.verdict, QS_KMIP_DONE);
		assert_int_equal(qs_kmip_read_uid(&a, uid, NULL), 0);
		assert_true(qs_kmip_read_key(&a, uid, &key, NULL) < 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_items_of_the_standard),
		cmocka_unit_test(test_written_items),
		cmocka_unit_test(test_bad_items),
		cmocka_unit_test(test_every_exchange_decodes),
		cmocka_unit_test(test_life_in_every_version),
		cmocka_unit_test(test_encrypted_and_back),
		cmocka_unit_test(test_a_batch_of_decrypt),
		cmocka_unit_test(test_a_login),
		cmocka_unit_test(test_attributes_have_names),
		cmocka_unit_test(test_keys_that_fit),
		cmocka_unit_test(test_versions_and_servers),
		cmocka_unit_test(test_refusals_are_sentences),
		cmocka_unit_test(test_batches),
		cmocka_unit_test(test_damaged_answers),
		cmocka_unit_test(test_other_keys_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
