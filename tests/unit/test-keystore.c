/* keystore.json, tokens and identities: what is written is read again, all else is refused. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "keystore/identity.h"
#include "keystore/jwe.h"
#include "keystore/keystore.h"
#include "keystore/provider.h"
#include "keystore/token.h"
#include "scratch.h"

#define UUID "0b2f8f4e-8ac5-4f3c-9e66-3a4d3d4a3b1c"
#define VOLUME "2bae304e-0274-4a7b-8797-d39c2fc92cac"

static const struct qs_keystore two = {
	.state = QS_KEYSTORE_ENABLED,
	.store = UUID,
	.provider = "local",
	.current = 7,
	.generations = { { 5, 1700000000, "local" }, { 7, 1763769600, "local" } },
	.count = 2,
	.retention = QS_KEYSTORE_RETENTION_MIN,
	.schedule = { 6, 'W', 1763769600 },
	.rotated = 1763769660,
};

static void test_written_is_read(void **state)
{
	QS_AUTO(qs_auto_free) char *text = qs_keystore_print(&two);
	struct qs_keystore again = {};

	(void)state;
	assert_int_equal(qs_keystore_parse(text, strlen(text), &again, NULL), 0);
	assert_memory_equal(&again, &two, sizeof(two));
	assert_non_null(qs_keystore_generation(&again, 5));
	assert_null(qs_keystore_generation(&again, 6));
}

#define HEAD "{\"version\":1,\"state\":\"enabled\",\"store\":\"" UUID "\",\"provider\":\"local\","
#define ONE "{\"number\":1,\"created\":\"2026-11-22T02:00:00Z\"}"

#define AT(provider)                                                                               \
	"{\"number\":1,\"created\":\"2026-11-22T02:00:00Z\",\"provider\":\"" provider "\"}"

#define LINE(line)                                                                                 \
	"{\"number\":2,\"created\":\"2026-11-22T02:00:00Z\",\"provider\":\"vault\",\"line\":" line \
	"}"

/* A generation may live elsewhere than the current one; what lives there is not written out. */
static void test_providers(void **state)
{
	static const char text[] =
		"{\"version\":1,\"state\":\"enabled\",\"store\":\"" UUID
		"\",\"provider\":\"local\",\"current\":2,\"generations\":[" AT(
			"kmip") ",{\"number\":2,\"created\":\"2026-11-22T03:00:00Z\"}],"
				"\"rotation\":{\"state\":\"distributing-kek\",\"generation\":3,"
				"\"provider\":\"tpm2\"}}";
	QS_AUTO(qs_auto_free) char *again = NULL;
	struct qs_keystore ks, read;

	(void)state;
	assert_int_equal(qs_keystore_parse(text, strlen(text), &ks, NULL), 0);
	assert_ptr_equal(qs_keystore_provider(&ks, 1), &qs_provider_kmip);
	assert_ptr_equal(qs_keystore_provider(&ks, 2), &qs_provider_local);
	assert_ptr_equal(qs_keystore_provider(&ks, 3), &qs_provider_tpm2);
	again = qs_keystore_print(&ks);
	assert_int_equal(qs_keystore_parse(again, strlen(again), &read, NULL), 0);
	assert_memory_equal(&ks, &read, sizeof(ks));
	assert_null(strstr(again, "\"provider\": \"local\"}"));
}

/* Keys for some devices only have lines of their own among the numbers of all. */
static void test_lines(void **state)
{
	static const struct qs_keystore ks = {
		.state = QS_KEYSTORE_ENABLED,
		.store = UUID,
		.provider = "local",
		.current = 1,
		.rotation = QS_ROTATION_REWRAPPING,
		.target = 4,
		.target_provider = "local",
		.generations = { { 1, 1700000000, "local" },
				 { 2, 1700000001, "vault", .line = 2 },
				 { 3, 1700000002, "vault", .line = 2 },
				 { 4, 1700000003, "local" },
				 { 5, 1700000004, "vault", .line = 2, .begun = true },
				 { 6, 1700000005, "vault", .line = 6 } },
		.count = 6,
	};
	QS_AUTO(qs_auto_free) char *text = qs_keystore_print(&ks);
	struct qs_keystore again = {};

	(void)state;
	assert_int_equal(qs_keystore_parse(text, strlen(text), &again, NULL), 0);
	assert_memory_equal(&again, &ks, sizeof(ks));
	assert_int_equal(qs_keystore_successor(&ks, 1), 4);
	assert_int_equal(qs_keystore_successor(&ks, 2), 3);
	assert_int_equal(qs_keystore_successor(&ks, 3), 3);
	assert_int_equal(qs_keystore_successor(&ks, 6), 6);
	assert_int_equal(qs_keystore_successor(&ks, 99), 4);
	assert_int_equal(qs_keystore_last_own(&ks)->number, 4);
	assert_int_equal(qs_keystore_head(&ks, 2)->number, 3);
	assert_null(qs_keystore_head(&ks, 7));
}

static void test_refused(void **state)
{
	static const char *const texts[] = {
		"",
		"[]",
		"{}",
		"{\"version\":2}",
		HEAD "\"current\":1,\"generations\":[" ONE "]",
		HEAD "\"current\":1,\"generations\":[" ONE "],\"more\":1}",
		HEAD "\"current\":1,\"current\":1,\"generations\":[" ONE "]}",
		HEAD "\"current\":1,\"generations\":[" ONE "],\"retention\":86399}",
		HEAD "\"current\":1,\"generations\":[" ONE "],\"retention\":\"7D\"}",
		HEAD "\"current\":1,\"generations\":[" ONE "],\"schedule\":\"6W\"}",
		HEAD "\"current\":1,\"generations\":[" ONE "],\"schedule\":{\"every\":\"6W\"}}",
		HEAD "\"current\":1,\"generations\":[" ONE
		     "],\"schedule\":{\"every\":\"Never\",\"since\":\"2026-11-22T02:00:00Z\"}}",
		HEAD "\"current\":1,\"generations\":[" ONE
		     "],\"schedule\":{\"every\":\"23h\",\"since\":\"2026-11-22T02:00:00Z\"}}",
		HEAD "\"current\":1,\"generations\":[" ONE
		     "],\"schedule\":{\"every\":\"06W\",\"since\":\"2026-11-22T02:00:00Z\"}}",
		HEAD "\"current\":1,\"generations\":[" ONE
		     "],\"schedule\":{\"every\":\"6W\",\"since\":\"today\"}}",
		HEAD
		"\"current\":1,\"generations\":[" ONE
		"],\"schedule\":{\"every\":\"6W\",\"since\":\"2026-11-22T02:00:00Z\",\"x\":1}}",
		HEAD "\"current\":1,\"generations\":[" ONE "],\"rotated\":1763769600}",
		HEAD "\"current\":2,\"generations\":[" ONE "]}",
		HEAD "\"current\":0,\"generations\":[]}",
		HEAD "\"current\":1,\"generations\":[" ONE "," ONE "]}",
		HEAD "\"current\":-1,\"generations\":[" ONE "]}",
		HEAD "\"current\":4294967297,\"generations\":[" ONE "]}",
		HEAD "\"current\":1,\"generations\":{\"number\":1}}",
		HEAD "\"current\":1,\"generations\":[{\"number\":1,\"created\":\"yesterday\"}]}",
		HEAD
		"\"current\":1,\"generations\":[{\"number\":1,\"created\":\"2026-02-30T00:00:00Z\"}]}",
		"{\"version\":1,\"state\":\"disabled\",\"store\":\"" UUID
		"\",\"provider\":\"local\",\"current\":1,\"generations\":[" ONE "]}",
		"{\"version\":1,\"state\":\"enabling\",\"store\":\"" UUID
		"\",\"provider\":\"local\",\"current\":1,\"generations\":[" ONE "]}",
		"{\"version\":1,\"state\":\"enabled\",\"store\":\"../../../../../../../../../../../../etc\","
		"\"provider\":\"local\",\"current\":1,\"generations\":[" ONE "]}",
		"{\"version\":1,\"state\":\"enabled\",\"store\":\"" UUID
		"\",\"provider\":\"other\",\"current\":1,\"generations\":[" ONE "]}",
		HEAD "\"current\":1,\"generations\":[" AT("other") "]}",
		HEAD "\"current\":1,\"generations\":[" ONE "," LINE("0") "]}",
		HEAD "\"current\":1,\"generations\":[" ONE "," LINE("3") "]}",
		HEAD "\"current\":1,\"generations\":[" ONE "," LINE("\"2\"") "]}",
		HEAD "\"current\":2,\"generations\":[" ONE "," LINE("2") "]}",
		HEAD "\"current\":1,\"generations\":[" ONE "," LINE("2,\"begun\":false") "]}",
		HEAD "\"current\":1,\"generations\":[" ONE "," LINE("2,\"more\":1") "]}",
		HEAD "\"current\":1,\"generations\":[" ONE ",{\"number\":2,\"created\":"
		     "\"2026-11-22T02:00:00Z\",\"line\":2}]}",
		HEAD "\"current\":1,\"generations\":[{\"number\":1,\"created\":"
		     "\"2026-11-22T02:00:00Z\",\"begun\":true}]}",
		HEAD
		"\"current\":1,\"generations\":[" ONE
		"," LINE("2") "],\"rotation\":{\"state\":\"distributing-kek\",\"generation\":2}}",
		HEAD "\"current\":1,\"generations\":[" AT("tpm2") "]}",
		HEAD "\"current\":1,\"generations\":[{\"number\":1,\"provider\":\"local\"}]}",
		HEAD "\"current\":1,\"generations\":[" ONE
		     "],\"rotation\":{\"state\":\"distributing-kek\",\"generation\":2,"
		     "\"provider\":\"other\"}}",
		HEAD "\"current\":1,\"generations\":[" ONE
		     ",{\"number\":2,\"created\":\"2026-11-22T02:00:00Z\"}],\"rotation\":{"
		     "\"state\":\"rewrapping-keys\",\"generation\":2,\"provider\":\"tpm2\"}}",
	};
	struct qs_keystore ks;

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(texts); i++) {
		struct qs_error err = {};

		if (qs_keystore_parse(texts[i], strlen(texts[i]), &ks, &err) >= 0)
			fail_msg("accepted: %s", texts[i]);
		assert_int_equal(err.kind, QS_E_CONFIG);
	}
}

static void test_base64url(void **state)
{
	static const char *const bad[] = {
		"A", "AA==", "AB", "+A", "A/", "AAA=", " AAAA", "AAAAA"
	};
	QS_AUTO(qs_bytes_done) struct qs_bytes bytes = {}, none = {};

	(void)state;
	assert_int_equal(qs_base64url_decode("-_-_AA", 8, &bytes), 0);
	assert_int_equal(bytes.size, 4);
	assert_memory_equal(bytes.data, "\xfb\xff\xbf\x00", 4);
	assert_int_equal(qs_base64url_decode("-_-_AA", 3, &none), -EFBIG);
	for (size_t i = 0; i < QS_ARRAY_SIZE(bad); i++)
		assert_int_equal(qs_base64url_decode(bad[i], 64, &none), -EINVAL);
}

static void test_identity_beside_the_key(void **state)
{
	struct qs_identity in = { .uuid = VOLUME,
				  .cipher = "aes-xts-plain64",
				  .key_size = 64,
				  .sector_size = 4096,
				  .data_offset = 16777216,
				  .mac = { 1, 0xfe, 3 } };
	QS_AUTO(qs_secret_done) struct qs_secret key = {}, packed = {}, again = {}, none = {};
	struct qs_identity out = {};

	(void)state;
	assert_int_equal(qs_secret_random(&key, QS_DEVICE_KEY_L, NULL), 0);
	assert_int_equal(qs_identity_pack(&in, &key, &packed, NULL), 0);
	assert_int_equal(qs_identity_unpack(&packed, &out, &again, NULL), 0);
	assert_memory_equal(&in, &out, sizeof(in));
	assert_true(qs_secret_equal(&key, &again));
	for (size_t cut = 0; cut < packed.size; cut++) {
		const struct qs_secret less = { packed.data, cut };

		assert_int_equal(qs_identity_unpack(&less, &out, &none, NULL), -EBADMSG);
	}
}

/* ---- with the module ---- */

static json_t *make_token(const struct qs_env *env, const struct qs_keystore *ks)
{
	QS_AUTO(qs_wrapping_done)
	struct qs_wrapping w = { .volume = qs_keystore_volume(VOLUME, 3), .generation = 1 };
	json_t *token;

	assert_int_equal(qs_secret_random(&w.plain, 200, NULL), 0);
	assert_int_equal(qs_keystore_wrap_keys(env, ks, &w, 1, NULL), 0);
	assert_int_equal(w.error.kind, QS_E_NONE);
	token = qs_keystore_token_make(ks, 1, json_incref(w.jwe));
	(void)json_object_set_new(token, "keyslots", json_pack("[s]", "3"));
	return token;
}

static const struct qs_keystore one = {
	.state = QS_KEYSTORE_ENABLED,
	.store = UUID,
	.provider = "local",
	.current = 1,
	.generations = { { 1, 1700000000 } },
	.count = 1,
};

static int setup(void **state)
{
	*state = scratch_make();
	return 0;
}

static int teardown(void **state)
{
	scratch_drop(*state);
	return 0;
}

static struct qs_env make_env(void **state)
{
	struct qs_env env = { .root = *state };
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(&env, QS_KEYSTORE_DIR);

	assert_int_equal(qs_file_make_dirs(dir, 0700, NULL), 0);
	assert_int_equal(qs_provider_local.create(&env, &one, 1, NULL), 0);
	return env;
}

static void test_provider(void **state)
{
	struct qs_env env = make_env(state);

	json_free_t release;

	assert_int_equal(qs_keystore_probe(&env, &one, 1, NULL), 0);
	/* libjose has kept the KEK as JSON: what it released went through our wiping. */
	json_get_alloc_funcs(NULL, &release);
	assert_true(release != free);
	assert_true(qs_provider_local.create(&env, &one, 1, NULL) < 0);
	assert_true(qs_keystore_probe(&env, &one, 2, NULL) < 0);
	assert_int_equal(qs_provider_local.retire(&env, &one, 1, NULL), 1);
	assert_int_equal(qs_provider_local.retire(&env, &one, 1, NULL), 0);
	assert_true(qs_keystore_probe(&env, &one, 1, NULL) < 0);
}

static void test_batch(void **state)
{
	struct qs_env env = make_env(state);
	struct qs_wrapping in[3] = {}, out[3] = {};

	for (unsigned i = 0; i < 3; i++) {
		in[i].volume = qs_keystore_volume(VOLUME, (int)i);
		in[i].generation = i == 1 ? 9 : 1;
		assert_int_equal(qs_secret_random(&in[i].plain, 64, NULL), 0);
	}
	assert_int_equal(qs_keystore_wrap_keys(&env, &one, in, 3, NULL), 0);
	assert_int_equal(in[1].error.kind, QS_E_KEY_FILE);
	for (unsigned i = 0; i < 3; i += 2) {
		out[i].jwe = json_incref(in[i].jwe);
		out[i].generation = 1;
	}
	out[1].jwe = json_deep_copy(in[0].jwe);
	out[1].generation = 1;
	(void)json_object_set(out[1].jwe, "tag", json_object_get(in[2].jwe, "tag"));
	assert_int_equal(qs_keystore_unwrap_keys(&env, &one, out, 3, NULL), 0);
	assert_int_equal(out[1].error.kind, QS_E_NO_KEY);
	assert_true(qs_secret_equal(&in[0].plain, &out[0].plain));
	assert_true(qs_secret_equal(&in[2].plain, &out[2].plain));
	for (unsigned i = 0; i < 3; i++) {
		qs_wrapping_done(&in[i]);
		qs_wrapping_done(&out[i]);
	}
}

/* Everything that stands in a token is either needed as it is, or its absence is seen. */
static void test_token(void **state)
{
	static const char *const needed[] = { "type",     "keyslots", "version",   "store",
					      "provider", "jwe",      "generation" };
	static const char *const members[] = { "protected", "header", "encrypted_key",
					       "iv",        "tag",    "ciphertext" };
	struct qs_env env = make_env(state);
	QS_AUTO(qs_auto_json) json_t *token = make_token(&env, &one);
	struct qs_keystore_token t;
	struct qs_error err = {};

	assert_int_equal(qs_keystore_token_parse(token, VOLUME, &t, &err), 0);
	assert_int_equal(t.slot, 3);
	assert_int_equal(t.generation, 1);
	assert_string_equal(t.store, UUID);
	assert_true(qs_keystore_token_parse(token, UUID, &t, &err) < 0);
	assert_int_equal(err.kind, QS_E_HOSTILE);
	for (size_t i = 0; i < QS_ARRAY_SIZE(needed) + QS_ARRAY_SIZE(members); i++) {
		QS_AUTO(qs_auto_json) json_t *less = json_deep_copy(token);
		bool outer = i < QS_ARRAY_SIZE(needed);
		const char *name = outer ? needed[i] : members[i - QS_ARRAY_SIZE(needed)];

		(void)json_object_del(outer ? less : json_object_get(less, "jwe"), name);
		assert_true(qs_keystore_token_parse(less, VOLUME, &t, &err) < 0);
		assert_int_equal(err.kind, QS_E_DAMAGED);
	}
	(void)json_object_set_new(token, "keyslots", json_pack("[s,s]", "3", "4"));
	assert_true(qs_keystore_token_parse(token, VOLUME, &t, &err) < 0);
	(void)json_object_set_new(token, "keyslots", json_pack("[s]", "4"));
	assert_true(qs_keystore_token_parse(token, VOLUME, &t, &err) < 0);
	assert_int_equal(err.kind, QS_E_HOSTILE);
}

/* ---- a provider that keeps its KEK: it turns bytes around, which is as good as a server here ----
 */

static size_t calls;

static int turn_wrap(const struct qs_env *env, const struct qs_keystore *ks,
		     struct qs_content_key *items, size_t count, struct qs_error *err)
{
	(void)env, (void)ks, (void)err;
	calls++;
	for (size_t i = 0; i < count; i++) {
		const unsigned char *c = items[i].key.data;

		assert_int_equal(items[i].key.size, QS_KEK_L);
		items[i].wrapped = calloc(1, 2 * QS_KEK_L + 1);
		assert_non_null(items[i].wrapped);
		for (size_t k = 0; k < QS_KEK_L; k++)
			(void)snprintf(items[i].wrapped + 2 * k, 3, "%02x", c[k] ^ 0xff);
	}
	return 0;
}

static int turn_unwrap(const struct qs_env *env, const struct qs_keystore *ks,
		       struct qs_content_key *items, size_t count, struct qs_error *err)
{
	(void)env, (void)ks, (void)err;
	calls++;
	for (size_t i = 0; i < count; i++) {
		unsigned byte;

		assert_int_equal(qs_secret_init(&items[i].key, QS_KEK_L, NULL), 0);
		for (size_t k = 0; k < QS_KEK_L; k++) {
			assert_int_equal(sscanf(items[i].wrapped + 2 * k, "%02x", &byte), 1);
			((unsigned char *)items[i].key.data)[k] = (unsigned char)(byte ^ 0xff);
		}
	}
	return 0;
}

static const struct qs_provider turning = { .name = "turning",
					    .wrap = turn_wrap,
					    .unwrap = turn_unwrap };

static struct qs_wrapping *wrap_three(const struct qs_env *env, struct qs_wrapping *w,
				      struct qs_wrapping **list)
{
	for (int i = 0; i < 3; i++) {
		w[i] = (struct qs_wrapping){ .volume = qs_keystore_volume(VOLUME, i),
					     .generation = 1 };
		assert_int_equal(qs_secret_random(&w[i].plain, 200, NULL), 0);
		list[i] = &w[i];
	}
	calls = 0;
	assert_int_equal(qs_provider_wrap(&turning, env, &one, list, 3, NULL), 0);
	assert_int_equal(calls, 1);
	return w;
}

static void test_content_keys(void **state)
{
	struct qs_env env = make_env(state);
	struct qs_wrapping in[3], out[3] = {}, *list[3];
	struct qs_keystore_token t;
	json_t *token;

	(void)wrap_three(&env, in, list);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(in[i].error.kind, QS_E_NONE);
		out[i] = (struct qs_wrapping){ .generation = 1, .jwe = json_deep_copy(in[i].jwe) };
		list[i] = &out[i];
	}
	/* The form that a header may hold; and nothing may be beside it. */
	token = qs_keystore_token_make(&one, 1, json_deep_copy(in[2].jwe));
	(void)json_object_set_new(token, "keyslots", json_pack("[s]", "2"));
	assert_int_equal(qs_keystore_token_parse(token, VOLUME, &t, NULL), 0);
	(void)json_object_set_new(json_object_get(json_object_get(token, "jwe"), "header"),
				  QS_JWE_WRAPPED, json_string("with blanks"));
	assert_true(qs_keystore_token_parse(token, VOLUME, &t, NULL) < 0);
	json_decref(token);

	/* The content key of another wrapping: an error of this one alone. */
	(void)json_object_set(out[1].jwe, "header", json_object_get(in[0].jwe, "header"));
	calls = 0;
	assert_int_equal(qs_provider_unwrap(&turning, &env, &one, list, 3, NULL), 0);
	assert_int_equal(calls, 1);
	assert_true(qs_secret_equal(&in[0].plain, &out[0].plain));
	assert_int_equal(out[1].error.kind, QS_E_NO_KEY);
	assert_true(qs_secret_equal(&in[2].plain, &out[2].plain));

	/* Not for a provider that hands out its KEK. */
	assert_int_equal(qs_keystore_unwrap_keys(&env, &one, out, 1, NULL), 0);
	assert_int_equal(out[0].error.kind, QS_E_DAMAGED);
	for (size_t i = 0; i < 3; i++) {
		qs_wrapping_done(&in[i]);
		qs_wrapping_done(&out[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_written_is_read),
		cmocka_unit_test(test_providers),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_base64url),
		cmocka_unit_test(test_identity_beside_the_key),
		cmocka_unit_test_setup_teardown(test_provider, setup, teardown),
		cmocka_unit_test_setup_teardown(test_content_keys, setup, teardown),
		cmocka_unit_test_setup_teardown(test_batch, setup, teardown),
		cmocka_unit_test_setup_teardown(test_token, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
