/* A flipped bit in what the keystore remembers: never believed, whatever it makes of the text. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/sum.h"
#include "keystore/keystore.h"
#include "keystore/kmip-internal.h"
#include "keystore/sealed.h"
#include "keystore/transit-internal.h"
#include "scratch.h"

#define STORE                                                                                      \
	"7a63ef61-6a7f-4a6c-9e5c-2a1c6c3f3d10" /* as in the corpus of fuzz-keystore-sealed         \
						*/
#define GENERATION 3

static const struct qs_keystore three = {
	.state = QS_KEYSTORE_ENABLED,
	.store = STORE,
	.provider = "local",
	.current = 2,
	.rotation = QS_ROTATION_REWRAPPING,
	.target = GENERATION,
	.target_provider = "tpm2",
	.generations = { { 2, 1700000000, "local" }, { GENERATION, 1763769600, "tpm2" } },
	.count = 2,
	.retention = QS_KEYSTORE_RETENTION_MIN,
	.schedule = { 6, 'W', 1763769600 },
	.rotated = 1763769660,
};

static int setup(void **state)
{
	struct qs_env env = { .root = scratch_make() };
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(&env, QS_KEYSTORE_DIR);

	*state = (void *)env.root;
	return qs_file_make_dirs(dir, 0700, NULL) < 0;
}

static int teardown(void **state)
{
	scratch_drop(*state);
	return 0;
}

/* One of the forms: what its reader says of a text. */
typedef int reader(void **state, const char *text, size_t size, struct qs_error *err);

static int read_keystore(void **state, const char *text, size_t size, struct qs_error *err)
{
	struct qs_keystore ks;

	(void)state;
	return qs_keystore_parse(text, size, &ks, err);
}

static int read_sealed(void **state, const char *text, size_t size, struct qs_error *err)
{
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};

	(void)state;
	return qs_sealed_kek_parse(text, size, STORE, GENERATION, &token, err);
}

static struct qs_env put(void **state, const char *name, const char *text, size_t size)
{
	struct qs_env env = { .root = *state };
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(&env, QS_KEYSTORE_DIR);
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/%s", dir, name);
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, size, f), size);
	assert_int_equal(fchmod(fileno(f), 0400), 0);
	assert_int_equal(fclose(f), 0);
	return env;
}

static int read_kmip(void **state, const char *text, size_t size, struct qs_error *err)
{
	struct qs_env env = put(state, "3.kmip", text, size);
	struct qs_kmip_record record;

	return qs_kmip_record_load(&env, &three, GENERATION, &record, err);
}

static int read_vault(void **state, const char *text, size_t size, struct qs_error *err)
{
	struct qs_env env = put(state, "3.vault", text, size);
	struct qs_transit_record record;

	return qs_transit_record_load(&env, GENERATION, &record, err);
}

/* What we wrote is taken, and also without its sum, as older ones are; no other text is. */
static void judge(void **state, reader *read, char *text)
{
	const size_t size = strlen(text);
	QS_AUTO(qs_auto_json) json_t *json = json_loadb(text, size, 0, NULL);
	QS_AUTO(qs_auto_free) char *older = NULL;
	struct qs_error err = {};

	assert_true(read(state, text, size, &err) >= 0);
	assert_int_equal(err.kind, QS_E_NONE);
	assert_int_equal(json_object_del(json, "sum"), 0);
	older = json_dumps(json, 0);
	assert_true(read(state, older, strlen(older), &err) >= 0);
	(void)json_object_set_new(json, "sum", json_null());
	free(older);
	older = json_dumps(json, 0);
	assert_true(read(state, older, strlen(older), &err) < 0);
	assert_non_null(strstr(err.text, "remove its member \"sum\""));
	for (size_t bit = 0; bit < 8 * size; bit++) {
		err = (struct qs_error){};
		text[bit / 8] = (char)(text[bit / 8] ^ (1 << bit % 8));
		if (read(state, text, size, &err) >= 0)
			fail_msg("believed: %s", text);
		assert_int_equal(err.kind, QS_E_CONFIG);
		text[bit / 8] = (char)(text[bit / 8] ^ (1 << bit % 8));
	}
}

static void test_keystore(void **state)
{
	QS_AUTO(qs_auto_free) char *text = qs_keystore_print(&three);

	judge(state, read_keystore, text);
}

static void test_sealed(void **state)
{
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
	QS_AUTO(qs_auto_free) char *recorded = NULL;
	QS_AUTO(qs_auto_free) char *text = NULL;
	size_t size;

	assert_int_equal(qs_file_read(QS_SOURCE "/tests/fuzz/corpus/keystore-sealed/pcr7", 1 << 16,
				      &recorded, &size, NULL),
			 0);
	assert_int_equal(qs_sealed_kek_parse(recorded, size, STORE, GENERATION, &token, NULL), 0);
	text = qs_sealed_kek_print(STORE, GENERATION, &token);
	judge(state, read_sealed, text);
}

static char *written(void **state, const char *name)
{
	struct qs_env env = { .root = *state };
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(&env, QS_KEYSTORE_DIR);
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/%s", dir, name);
	char *text = NULL;
	size_t size;

	assert_int_equal(qs_file_read(path, 1 << 16, &text, &size, NULL), 0);
	return text;
}

static void test_kmip(void **state)
{
	const struct qs_env env = { .root = *state };
	const struct qs_kmip_record record = {
		.name = "qs-util/" STORE "/3",
		.uid = "123",
		.adopted = true,
	};
	QS_AUTO(qs_auto_free) char *text = NULL;

	assert_int_equal(qs_kmip_record_save(&env, &three, GENERATION, &record, NULL), 0);
	text = written(state, "3.kmip");
	judge(state, read_kmip, text);
}

static void test_vault(void **state)
{
	const struct qs_env env = { .root = *state };
	const struct qs_transit_record record = { .key = "shared", .version = 5, .adopted = true };
	QS_AUTO(qs_auto_free) char *text = NULL;

	assert_int_equal(qs_transit_record_save(&env, GENERATION, &record, NULL), 0);
	text = written(state, "3.vault");
	judge(state, read_vault, text);
}

/* Edited on purpose, and without its sum then: taken as it is. */
static void test_edited(void **state)
{
	QS_AUTO(qs_auto_free) char *text = qs_keystore_print(&three);
	QS_AUTO(qs_auto_json) json_t *json = json_loads(text, 0, NULL);
	QS_AUTO(qs_auto_free) char *edited = NULL;
	struct qs_keystore ks;
	struct qs_error err = {};

	(void)state;
	(void)json_object_set_new(json, "retention", json_integer(2 * QS_KEYSTORE_DAY));
	edited = json_dumps(json, 0);
	assert_true(qs_keystore_parse(edited, strlen(edited), &ks, &err) < 0);
	assert_non_null(strstr(err.text, QS_KEYSTORE_FILE));
	assert_non_null(strstr(err.text, "keyrestore"));
	(void)json_object_del(json, "sum");
	free(edited);
	edited = json_dumps(json, 0);
	assert_int_equal(qs_keystore_parse(edited, strlen(edited), &ks, NULL), 0);
	assert_int_equal(ks.retention, 2 * QS_KEYSTORE_DAY);
}

/* The sum is what other tools make of it: sha256sum of `jq -cSj 'del(.sum)'`. */
static void test_form(void **state)
{
	QS_AUTO(qs_auto_json)
	json_t *json = json_pack("{s:i,s:{s:s,s:i}}", "b", 2, "a", "d", "x", "c", 1);
	QS_AUTO(qs_auto_free) char *text = qs_sum_print(json);
	char sum[QS_SUM_L];

	(void)state;
	qs_sum("{\"a\":{\"c\":1,\"d\":\"x\"},\"b\":2}", 27, sum);
	assert_non_null(strstr(text, sum));
	qs_sum("abc", 3, sum); /* FIPS 180-4's example */
	assert_string_equal(sum,
			    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_null(qs_sum_print(NULL));
	assert_int_equal(qs_sum_others(json), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_form),
		cmocka_unit_test(test_keystore),
		cmocka_unit_test(test_sealed),
		cmocka_unit_test(test_edited),
		cmocka_unit_test_setup_teardown(test_kmip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vault, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
