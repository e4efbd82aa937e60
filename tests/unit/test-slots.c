/* Keyslots changed in memory and written by us; judged by stock cryptsetup. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/env.h"
#include "image.h"
#include "luks/kind.h"
#include "luks/slots.h"
#include "luks/unlock.h"

#define BASE "luks2.img"
#define DEVICE_L (64ULL << 20)
#define SECTOR 512U

static struct qs_env env = { .root = "" };

static int setup(void **state)
{
	qs_config_init(&env.config);
	return image_setup(state);
}

static int teardown(void **state)
{
	qs_config_done(&env.config);
	return image_teardown(state);
}

static void take(struct qs_secret *ret, const char *text)
{
	assert_int_equal(qs_secret_init(ret, strlen(text), NULL), 0);
	memcpy(ret->data, text, ret->size);
}

static struct qs_secret file_key(void)
{
	QS_AUTO(qs_auto_free) char *bytes = NULL;
	struct qs_secret key = {};
	size_t size = 0;

	assert_int_equal(qs_file_read("key", 1 << 20, &bytes, &size, NULL), 0);
	assert_int_equal(qs_secret_init(&key, size, NULL), 0);
	memcpy(key.data, bytes, size);
	return key;
}

static int open_image(void)
{
	int fd = open(IMAGE, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void load(int fd, struct qs_slots *ret)
{
	struct qs_error err = {};

	if (qs_slots_load(&env, fd, DEVICE_L, IMAGE, NULL, ret, &err) < 0)
		fail_msg("%s", err.text);
}

/* A slot that TEXT opens, with a recovery token. Returns its number. */
static int add(struct qs_slots *s, const char *text)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = file_key();
	QS_AUTO(qs_secret_done) struct qs_secret secret = {};
	QS_AUTO(qs_auto_json) json_t *token = qs_slot_token(QS_RECOVERY_TYPE, NULL);
	const struct qs_slot_new new = { .key = &key, .secret = &secret, .token = token };
	struct qs_error err = {};
	int slot;

	take(&secret, text);
	slot = qs_slots_add(s, &new, &err);
	if (slot < 0)
		fail_msg("%s", err.text);
	return slot;
}

static void write_slots(struct qs_slots *s, int fd)
{
	struct qs_error err = {};

	if (qs_slots_write(s, fd, &err) < 0)
		fail_msg("%s", err.text);
}

static int opens(const char *image, const char *text)
{
	return headers_shell("printf %%s '%s' | cryptsetup open --test-passphrase --key-file - %s",
			     text, image) == 0;
}

static int key_opens(const char *image)
{
	return headers_shell("cryptsetup open --test-passphrase --key-file key %s", image) == 0;
}

static void test_slot_and_token_come_in_one_write(void **state)
{
	QS_AUTO(qs_slots_done) struct qs_slots s = {};
	QS_AUTO(qs_auto_close) int fd = -1;
	QS_AUTO(qs_auto_free) char *before = NULL;
	QS_AUTO(qs_auto_free) char *same = NULL;
	char since[QS_SLOT_TIME_L];

	(void)state;
	fresh(BASE);
	fd = open_image();
	before = first_bytes();
	load(fd, &s);
	assert_int_equal(add(&s, "new"), 1);
	same = first_bytes();
	assert_memory_equal(before, same, SHOWN_L);
	write_slots(&s, fd);
	assert_true(opens(IMAGE, "new"));
	assert_true(key_opens(IMAGE));
	assert_shell("cryptsetup luksDump " IMAGE
		     " | grep -A1 systemd-recovery | grep 'Keyslot: *1'");
	assert_header(2, QS_COPY_OK, QS_COPY_OK, NULL);
	assert_string_equal(qs_slot_kind(s.header.json, 1, since), "recovery");
	assert_int_equal(strlen(since), QS_SLOT_TIME_L - 1);
}

static void test_a_removed_slot_is_overwritten_with_its_token(void **state)
{
	QS_AUTO(qs_slots_done) struct qs_slots s = {};
	QS_AUTO(qs_auto_close) int fd = -1;
	struct qs_luks_area areas[QS_LUKS_AREAS_MAX];
	QS_AUTO(qs_auto_free) char *old = malloc(64000 * 4);
	QS_AUTO(qs_auto_free) char *now = malloc(64000 * 4);

	(void)state;
	fresh(BASE);
	fd = open_image();
	load(fd, &s);
	assert_int_equal(add(&s, "new"), 1);
	write_slots(&s, fd);
	assert_int_equal(qs_luks_areas(&s.header, areas, QS_LUKS_AREAS_MAX), 2);
	assert_int_equal(qs_file_pread(fd, old, 64000 * 4, (off_t)areas[1].offset), 0);
	assert_int_equal(qs_slots_remove(&s, 1, NULL), 0);
	write_slots(&s, fd);
	assert_int_equal(qs_file_pread(fd, now, 64000 * 4, (off_t)areas[1].offset), 0);
	for (size_t i = 0; i < 64000 * 4; i += SECTOR)
		assert_memory_not_equal(old + i, now + i, SECTOR);
	assert_false(opens(IMAGE, "new"));
	assert_true(key_opens(IMAGE));
	assert_int_equal(json_object_size(json_object_get(s.header.json, "tokens")), 0);
}

static void test_a_token_of_two_slots_stays_with_the_other(void **state)
{
	QS_AUTO(qs_slots_done) struct qs_slots s = {};
	QS_AUTO(qs_auto_close) int fd = -1;

	(void)state;
	fresh(BASE);
	fd = open_image();
	load(fd, &s);
	assert_int_equal(add(&s, "new"), 1);
	write_slots(&s, fd);
	assert_shell("echo '{\"type\":\"somebodys\",\"keyslots\":[\"0\",\"1\"]}' | "
		     "cryptsetup token import --token-id 5 " IMAGE);
	qs_slots_done(&s);
	load(fd, &s);
	assert_string_equal(qs_slot_kind(s.header.json, 0, NULL), "other");
	assert_int_equal(qs_slots_remove(&s, 1, NULL), 0);
	write_slots(&s, fd);
	assert_shell("cryptsetup token export --token-id 5 " IMAGE
		     " | jq -e '.keyslots == [\"0\"]'");
}

static void test_the_last_slot_is_never_removed(void **state)
{
	QS_AUTO(qs_slots_done) struct qs_slots s = {};
	QS_AUTO(qs_auto_close) int fd = -1;
	struct qs_error err = {};

	(void)state;
	fresh(BASE);
	fd = open_image();
	load(fd, &s);
	assert_true(qs_slots_remove(&s, 0, &err) < 0);
	assert_int_equal(err.kind, QS_E_FORBIDDEN);
	assert_int_equal(qs_slots_mask(s.header.json), 1);
}

static void test_a_header_changed_meanwhile_is_not_overwritten(void **state)
{
	QS_AUTO(qs_slots_done) struct qs_slots s = {};
	QS_AUTO(qs_auto_close) int fd = -1;
	QS_AUTO(qs_auto_free) char *before = NULL;
	QS_AUTO(qs_auto_free) char *after = NULL;
	struct qs_error err = {};

	(void)state;
	fresh(BASE);
	fd = open_image();
	load(fd, &s);
	assert_int_equal(add(&s, "new"), 1);
	assert_shell(
		"echo '{\"type\":\"somebodys\",\"keyslots\":[]}' | cryptsetup token import " IMAGE);
	before = first_bytes();
	assert_int_equal(qs_slots_write(&s, fd, &err), -EAGAIN);
	assert_int_equal(err.kind, QS_E_TEMPORARY);
	after = first_bytes();
	assert_memory_equal(before, after, SHOWN_L);
	qs_slots_done(&s);
	load(fd, &s);
	assert_int_equal(add(&s, "new"), 1);
	write_slots(&s, fd);
	assert_true(opens(IMAGE, "new"));
	assert_shell("cryptsetup luksDump " IMAGE " | grep somebodys");
}

/* The sectors that differ, in the order in which they are written. */
static size_t changed_sectors(const struct qs_header_image *old, const struct qs_header_image *new,
			      size_t copy, size_t *ret, size_t max)
{
	const size_t parts[][2] = { { 2 * copy, old->size }, { copy, 2 * copy }, { 0, copy } };
	size_t n = 0;

	for (size_t p = 0; p < QS_ARRAY_SIZE(parts); p++)
		for (size_t at = parts[p][0]; at < parts[p][1]; at += SECTOR)
			if (memcmp((char *)old->data + at, (char *)new->data + at, SECTOR) != 0) {
				assert_true(n < max);
				ret[n++] = at;
			}
	return n;
}

/* Cut after every sector of the headers, and now and then in the areas: stock opens it. */
static void assert_every_cut_opens(const struct qs_header_image *old,
				   const struct qs_header_image *new, size_t copy)
{
	size_t sectors[2048];
	size_t n = changed_sectors(old, new, copy, sectors, QS_ARRAY_SIZE(sectors));

	assert_true(n > 500);
	for (size_t i = 0; i < n; i++) {
		write_at((off_t)sectors[i], (char *)new->data + sectors[i], SECTOR);
		if (sectors[i] >= 2 * copy && i % 100 != 0)
			continue;
		assert_shell("cp --sparse=always " IMAGE " cut.img");
		if (!key_opens("cut.img"))
			fail_msg("cut after sector %zu of %zu: the key does not open it", i + 1, n);
	}
}

static void test_a_cut_at_any_sector_leaves_a_header_that_opens(void **state)
{
	QS_AUTO(qs_slots_done) struct qs_slots s = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image old = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image added = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image removed = {};
	QS_AUTO(qs_auto_close) int fd = -1;

	(void)state;
	fresh(BASE);
	fd = open_image();
	load(fd, &s);
	assert_int_equal(qs_slots_image(&s, &old, NULL), 0);
	assert_int_equal(add(&s, "new"), 1);
	assert_int_equal(qs_slots_image(&s, &added, NULL), 0);
	assert_every_cut_opens(&old, &added, COPY_L);
	assert_true(opens(IMAGE, "new"));
	assert_int_equal(qs_slots_remove(&s, 1, NULL), 0);
	assert_int_equal(qs_slots_image(&s, &removed, NULL), 0);
	assert_every_cut_opens(&added, &removed, COPY_L);
	assert_false(opens(IMAGE, "new"));
}

static void test_a_torn_copy_is_mended_by_the_next_write(void **state)
{
	static const char junk[SECTOR] = "torn";

	(void)state;
	for (unsigned which = 0; which < 2; which++) {
		QS_AUTO(qs_slots_done) struct qs_slots s = {};
		QS_AUTO(qs_auto_close) int fd = -1;

		fresh(BASE);
		write_at((off_t)(which * COPY_L) + 8192, junk, sizeof(junk));
		fd = open_image();
		load(fd, &s);
		assert_int_equal(add(&s, "new"), 1);
		write_slots(&s, fd);
		assert_header(2, QS_COPY_OK, QS_COPY_OK, NULL);
		assert_true(opens(IMAGE, "new"));
		assert_true(key_opens(IMAGE));
	}
}

static void test_salts_name_slots(void **state)
{
	QS_AUTO(qs_slots_done) struct qs_slots s = {};
	QS_AUTO(qs_auto_close) int fd = -1;

	(void)state;
	fresh(BASE);
	fd = open_image();
	load(fd, &s);
	assert_int_equal(add(&s, "new"), 1);
	assert_int_equal(qs_slots_mask(s.header.json), 3);
	for (int slot = 0; slot < 2; slot++)
		assert_int_equal(
			qs_slots_by_salt(s.header.json, qs_slots_salt(s.header.json, slot)), slot);
	assert_int_equal(qs_slots_by_salt(s.header.json, "another"), -1);
	assert_null(qs_slots_salt(s.header.json, 2));
}

/* ---- kinds ---- */

static void assert_kind(const char *tokens, const char *kind, const char *since)
{
	QS_AUTO(qs_auto_free) char *text = qs_printf("{\"tokens\":{%s}}", tokens);
	QS_AUTO(qs_auto_json) json_t *json = json_loads(text, 0, NULL);
	char found[QS_SLOT_TIME_L];

	assert_non_null(json);
	assert_string_equal(qs_slot_kind(json, 1, found), kind);
	assert_string_equal(found, since);
}

static void test_kinds_come_from_tokens(void **state)
{
	(void)state;
	assert_kind("", "unknown", "");
	assert_kind("\"0\":{\"type\":\"systemd-tpm2\",\"keyslots\":[\"2\"]}", "unknown", "");
	assert_kind("\"0\":{\"type\":\"systemd-tpm2\",\"keyslots\":[\"1\"]}", "tpm2", "");
	assert_kind("\"0\":{\"type\":\"qs-fingerprint\",\"keyslots\":[\"1\"]},"
		    "\"1\":{\"type\":\"systemd-tpm2\",\"keyslots\":[\"1\"]}",
		    "tpm2", "");
	assert_kind("\"0\":{\"type\":\"qs-slot\",\"kind\":\"passphrase\",\"keyslots\":[\"1\"],"
		    "\"qs-time\":\"2026-11-22T02:00:00Z\"}",
		    "passphrase", "2026-11-22T02:00:00Z");
	assert_kind("\"0\":{\"type\":\"qs-slot\",\"kind\":\"root\",\"keyslots\":[\"1\"]}", "other",
		    "");
	assert_kind(
		"\"0\":{\"type\":\"x\",\"keyslots\":[\"1\"],\"qs-time\":\"2026-11-22T02:00:0\"}",
		"other", "");
	assert_kind("\"0\":{\"type\":\"x\",\"keyslots\":[\"1\"],"
		    "\"qs-time\":\"2026-11-22T02:00:00Z\\u001b[0m\"}",
		    "other", "");
	assert_kind("\"0\":{\"type\":7,\"keyslots\":[\"1\"]},\"1\":[]", "unknown", "");
	assert_kind("\"0\":{\"type\":\"x\",\"keyslots\":\"1\"}", "unknown", "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slot_and_token_come_in_one_write),
		cmocka_unit_test(test_a_removed_slot_is_overwritten_with_its_token),
		cmocka_unit_test(test_a_token_of_two_slots_stays_with_the_other),
		cmocka_unit_test(test_the_last_slot_is_never_removed),
		cmocka_unit_test(test_a_header_changed_meanwhile_is_not_overwritten),
		cmocka_unit_test(test_a_cut_at_any_sector_leaves_a_header_that_opens),
		cmocka_unit_test(test_a_torn_copy_is_mended_by_the_next_write),
		cmocka_unit_test(test_salts_name_slots),
		cmocka_unit_test(test_kinds_come_from_tokens),
	};

	return cmocka_run_group_tests_name("slots", tests, setup, teardown);
}
