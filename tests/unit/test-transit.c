/* What is said to Vault, and what its answers mean, by exchanges recorded with a real one. */
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
#include "base/file.h"
#include "transit/message.h"

#define VECTORS QS_SOURCE "/tests/vectors/vault"
#define FILE_MAX (1U << 20)

struct answer {
	struct qs_transit_answer a;
	char *file; /* it points into that */
};

static void answer_done(struct answer *answer)
{
	free(answer->file);
}

/* The recorded answer NAME in FILE, as the judge gets it. */
static void recorded(const char *file, const char *name, struct answer *ret)
{
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/%s.txt", VECTORS, file);
	QS_AUTO(qs_auto_free) char *head = qs_printf("### %s:", name);
	size_t size = 0;
	char *at, *end;

	*ret = (struct answer){ .a.about = "asking" };
	assert_int_equal(qs_file_read(path, FILE_MAX, &ret->file, &size, NULL), 0);
	at = strstr(ret->file, head);
	assert_non_null(at);
	at = strstr(at, "\n< ");
	assert_non_null(at);
	ret->a.status = strtol(at + 3, NULL, 10);
	end = strstr(at, "\n\n");
	if (end)
		*end = '\0';
	at = strstr(at, "\n< {");
	ret->a.text = at ? at + 3 : "";
	ret->a.size = strlen(ret->a.text);
}

static enum qs_transit_verdict judge(const char *file, const char *name, json_t **ret,
				     struct qs_error *err)
{
	QS_AUTO(answer_done) struct answer answer;

	recorded(file, name, &answer);
	answer.a.login = strstr(name, "login") != NULL;
	*err = (struct qs_error){};
	return qs_transit_judge(&answer.a, ret, err);
}

static void test_verdicts(void **state)
{
	static const struct {
		const char *file, *name, *sentence;
		enum qs_transit_verdict verdict;
		enum qs_kind kind;
	} all[] = {
		{ "auth", "login-bad-secret", "used up", QS_TRANSIT_REFUSED, QS_E_NOT_PERMITTED },
		{ "auth", "login-bad-role", "not a pair", QS_TRANSIT_REFUSED, QS_E_NOT_PERMITTED },
		{ "auth", "login-wrong-mount", "vault_auth_mount", QS_TRANSIT_REFUSED,
		  QS_E_CONFIG },
		{ "auth", "expired", "denies", QS_TRANSIT_DENIED, QS_E_NOT_PERMITTED },
		{ "auth", "forbidden", "(permission denied)", QS_TRANSIT_DENIED,
		  QS_E_NOT_PERMITTED },
		{ "keys", "read-missing", "no such key", QS_TRANSIT_REFUSED, QS_E_NO_KEY },
		{ "crypto", "decrypt-missing-key", "no such key", QS_TRANSIT_REFUSED, QS_E_NO_KEY },
		{ "crypto", "decrypt-tampered", "changed", QS_TRANSIT_ONE_BAD, QS_E_NO_KEY },
		{ "crypto", "decrypt-bad-version", "restored", QS_TRANSIT_REFUSED, QS_E_NO_KEY },
		{ "crypto", "derived-no-context", "derived", QS_TRANSIT_REFUSED, QS_E_CONFIG },
		{ "rotation", "decrypt-too-old", "min_decryption_version", QS_TRANSIT_REFUSED,
		  QS_E_NO_KEY },
		{ "http", "unknown-mount", "vault_mount", QS_TRANSIT_REFUSED, QS_E_CONFIG },
		{ "http", "quota-second", "busy", QS_TRANSIT_BUSY, QS_E_TEMPORARY },
		{ "sys", "read-while-sealed", "sealed", QS_TRANSIT_ELSEWHERE, QS_E_TEMPORARY },
		{ "standby", "read", "standby", QS_TRANSIT_ELSEWHERE, QS_E_TEMPORARY },
		{ "wrapping", "unwrap-again", "stolen", QS_TRANSIT_REFUSED, QS_E_NOT_PERMITTED },
	};
	struct qs_error err;

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(all); i++) {
		QS_AUTO(qs_auto_json) json_t *json = NULL;

		assert_int_equal(judge(all[i].file, all[i].name, &json, &err), all[i].verdict);
		assert_int_equal(err.kind, all[i].kind);
		assert_non_null(strstr(err.text, all[i].sentence));
		assert_null(json);
	}
}

static void test_values(void **state)
{
	QS_AUTO(qs_auto_json) json_t *login = NULL;
	QS_AUTO(qs_auto_json) json_t *key = NULL;
	QS_AUTO(qs_auto_json) json_t *rsa = NULL;
	QS_AUTO(qs_auto_json) json_t *unwrap = NULL;
	QS_AUTO(qs_secret_done) struct qs_secret secret = {};
	struct qs_transit_login l;
	struct qs_transit_key k;
	struct qs_error err;

	(void)state;
	assert_int_equal(judge("auth", "login", &login, &err), QS_TRANSIT_DONE);
	assert_int_equal(qs_transit_read_login(login, &l, NULL), 0);
	assert_string_equal(l.token, "s.000000000000000000000002");
	assert_int_equal(l.seconds, 1200);
	(void)json_object_set_new(json_object_get(login, "auth"), "lease_duration",
				  json_integer(INT64_MAX));
	assert_int_equal(qs_transit_read_login(login, &l, NULL), 0);
	assert_int_equal(l.seconds, INT32_MAX);
	assert_int_equal(judge("rotation", "read-after-config", &key, &err), QS_TRANSIT_DONE);
	assert_int_equal(qs_transit_read_key(key, &k, NULL), 0);
	assert_int_equal(k.latest, 2);
	assert_int_equal(k.least, 2);
	assert_int_equal(judge("http", "namespace", &rsa, &err), QS_TRANSIT_DONE);
	assert_true(qs_transit_read_key(rsa, &k, &err) < 0); /* a derived one */
	assert_int_equal(judge("wrapping", "unwrap", &unwrap, &err), QS_TRANSIT_DONE);
	assert_int_equal(qs_transit_read_secret_id(unwrap, &secret, NULL), 0);
	assert_int_equal(secret.size, 36);
}

static void test_batches(void **state)
{
	struct qs_transit_item items[2] = {};
	QS_AUTO(qs_auto_json) json_t *encrypted = NULL;
	QS_AUTO(qs_auto_json) json_t *decrypted = NULL;
	struct qs_error err;

	(void)state;
	assert_int_equal(judge("crypto", "encrypt-batch", &encrypted, &err), QS_TRANSIT_DONE);
	assert_int_equal(qs_transit_read_encrypted(encrypted, 1, items, 2, NULL), 0);
	assert_true(items[0].done && items[1].done);
	assert_memory_equal(items[0].text, "vault:v1:", 9);
	/* Another version than was asked for, and another number of results. */
	assert_int_equal(qs_transit_read_encrypted(encrypted, 2, items, 2, NULL), 0);
	assert_false(items[0].done);
	assert_true(qs_transit_read_encrypted(encrypted, 1, items, 1, &err) < 0);
	memset(items, 0, sizeof(items));
	assert_int_equal(judge("crypto", "decrypt-batch-one-bad", &decrypted, &err),
			 QS_TRANSIT_DONE);
	assert_int_equal(qs_transit_read_decrypted(decrypted, items, 2, NULL), 0);
	assert_true(items[0].done && !items[1].done);
	assert_int_equal(items[0].key[31], 31);
	assert_int_equal(items[1].error.kind, QS_E_NO_KEY);
}

static void test_rewrapping(void **state)
{
	struct qs_transit_item items[2] = {};
	QS_AUTO(qs_auto_json) json_t *batch = NULL;
	QS_AUTO(qs_auto_json) json_t *one_bad = NULL;
	struct qs_error err;

	(void)state;
	assert_int_equal(judge("rotation", "rewrap-batch", &batch, &err), QS_TRANSIT_DONE);
	assert_int_equal(qs_transit_read_encrypted(batch, 2, items, 2, NULL), 0);
	assert_true(items[0].done && items[1].done);
	memset(items, 0, sizeof(items));
	assert_int_equal(judge("rotation", "rewrap-batch-one-bad", &one_bad, &err),
			 QS_TRANSIT_DONE);
	assert_int_equal(qs_transit_read_encrypted(one_bad, 2, items, 2, NULL), 0);
	assert_true(items[0].done && !items[1].done);
	assert_int_equal(items[1].error.kind, QS_E_NO_KEY);
	assert_true(qs_transit_is_of_version("vault:v12:eA==", 12));
	assert_false(qs_transit_is_of_version("vault:v12:eA==", 1));
	/* A server may take these for version 1. */
	assert_false(qs_transit_is_of_version("vault:v0:eA==", 1));
	assert_false(qs_transit_is_of_version("vault:v01:eA==", 1));
	assert_false(qs_transit_is_of_version("vault:v+1:eA==", 1));
	assert_false(qs_transit_is_of_version("vault:v0:eA==", 2));
	assert_false(qs_transit_is_of_version("vault:v:eA==", 1));
	assert_true(qs_transit_is_of_version("ours-1-eA==", 1));
	assert_false(qs_transit_says_version("ours-1-eA=="));
}

static void test_datakey(void **state)
{
	struct qs_transit_item item = {};
	QS_AUTO(qs_auto_json) json_t *recorded = NULL;
	QS_AUTO(qs_auto_json) json_t *wrapped = NULL;
	struct qs_error err;
	json_t *data;

	(void)state;
	/* The recorded one has 512 bits, and is none that was asked for. */
	assert_int_equal(judge("crypto", "datakey-plaintext", &recorded, &err), QS_TRANSIT_DONE);
	assert_true(qs_transit_read_datakey(recorded, 1, &item, &err) < 0);
	assert_false(item.done);
	data = json_object_get(recorded, "data");
	(void)json_object_set_new(data, "plaintext",
				  json_string("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="));
	assert_int_equal(qs_transit_read_datakey(recorded, 1, &item, NULL), 0);
	assert_true(item.done);
	assert_int_equal(item.key[31], 31);
	assert_memory_equal(item.text, "vault:v1:", 9);
	assert_true(qs_transit_read_datakey(recorded, 2, &item, &err) < 0);
	assert_false(item.done);
	assert_non_null(strstr(err.text, "version 2"));
	assert_int_equal(judge("crypto", "datakey-wrapped", &wrapped, &err), QS_TRANSIT_DONE);
	assert_true(qs_transit_read_datakey(wrapped, 1, &item, &err) < 0);
}

static int rewrap_version(const json_t *body, size_t i)
{
	const json_t *item = json_array_get(json_object_get(body, "batch_input"), i);

	assert_non_null(json_object_get(item, "ciphertext"));
	return (int)json_integer_value(json_object_get(item, "key_version"));
}

static void test_requests(void **state)
{
	static const char login[] = "{\"role_id\":\"r\",\"secret_id\":\"s\"}";
	const struct qs_secret secret_id = { (void *)"s", 1 };
	QS_AUTO(qs_secret_done) struct qs_secret body = {};
	QS_AUTO(qs_secret_done) struct qs_secret batch = {};
	QS_AUTO(qs_auto_json) json_t *json = NULL;
	struct qs_transit_item items[2] = { { .text = "vault:v1:eA==" },
					    { .text = "vault:v2:eQ==" } };

	(void)state;
	assert_int_equal(qs_transit_write_login("r", &secret_id, &body, NULL), 0);
	assert_int_equal(body.size, strlen(login));
	assert_memory_equal(body.data, login, body.size);
	assert_int_equal(qs_transit_write_decrypt(items, 2, &batch, NULL), 0);
	json = json_loadb(batch.data, batch.size, 0, NULL);
	assert_int_equal(json_array_size(json_object_get(json, "batch_input")), 2);
	json_decref(json);
	qs_secret_done(&batch);
	assert_int_equal(qs_transit_write_encrypt(items, 2, 4294967295U, &batch, NULL), 0);
	json = json_loadb(batch.data, batch.size, 0, NULL);
	assert_int_equal(json_array_size(json_object_get(json, "batch_input")), 2);
	json_decref(json);
	qs_secret_done(&batch);
	assert_int_equal(qs_transit_write_rewrap(items, 2, 7, &batch, NULL), 0);
	json = json_loadb(batch.data, batch.size, 0, NULL);
	assert_int_equal(rewrap_version(json, 0) + rewrap_version(json, 1), 14);
	json_decref(json);
	qs_secret_done(&batch);
	assert_int_equal(qs_transit_write_datakey(&batch, NULL), 0);
	json = json_loadb(batch.data, batch.size, 0, NULL);
	assert_int_equal(json_integer_value(json_object_get(json, "bits")), 256);
	assert_false(qs_transit_is_text("a\"b"));
	assert_false(qs_transit_is_text(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verdicts), cmocka_unit_test(test_values),
		cmocka_unit_test(test_batches),  cmocka_unit_test(test_rewrapping),
		cmocka_unit_test(test_datakey),  cmocka_unit_test(test_requests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
