/* KMIP's messages against exchanges recorded with a real server, and against damaged ones. */
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
