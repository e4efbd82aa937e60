/* What is inside a key bundle: tar headers, names, the manifest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "bundle/manifest.h"
#include "bundle/member.h"

/* An archive in memory. */
struct archive {
	char *data;
	size_t size, at;
	struct qs_member_writer writer;
};

static int append(void *cookie, const void *data, size_t size, struct qs_error *err)
{
	struct archive *a = cookie;

	(void)err;
	a->data = realloc(a->data, a->size + size);
	assert_non_null(a->data);
	memcpy(a->data + a->size, data, size);
	a->size += size;
	return 0;
}

static int fetch(void *cookie, void *data, size_t size, struct qs_error *err)
{
	struct archive *a = cookie;

	(void)err;
	assert_true(size <= a->size - a->at);
	memcpy(data, a->data + a->at, size);
	a->at += size;
	return 0;
}

static void archive_begin(struct archive *a)
{
	*a = (struct archive){};
	a->writer = (struct qs_member_writer){ .sink = append, .cookie = a };
}

static void archive_done(struct archive *a)
{
	free(a->data);
	a->data = NULL;
}

static void add(struct archive *a, const char *name, const char *content)
{
	struct qs_tar_header h = { .size = strlen(content), .mode = 0400, .mtime = 1000 };

	(void)snprintf(h.name, sizeof(h.name), "%s", name);
	assert_int_equal(qs_member_begin(&a->writer, &h, NULL), 0);
	assert_int_equal(qs_member_write(&a->writer, content, h.size, NULL), 0);
}

struct seen {
	char names[8][QS_TAR_NAME_L];
	size_t count, bytes;
};

static int note(struct qs_member *m, void *cookie, struct qs_error *err)
{
	struct seen *s = cookie;

	(void)err;
	assert_true(s->count < QS_ARRAY_SIZE(s->names));
	(void)snprintf(s->names[s->count++], QS_TAR_NAME_L, "%s", m->name);
	s->bytes += m->content.size;
	return 0;
}

static int read_archive(struct archive *a, struct seen *seen, struct qs_error *err)
{
	*seen = (struct seen){};
	a->at = 0;
	return qs_members_read(fetch, a, a->size, note, seen, err);
}

static void test_what_was_written_is_read(void **state)
{
	QS_AUTO(archive_done) struct archive a;
	char longest[QS_TAR_NAME_L];
	struct seen seen;
	const struct qs_tar_header directory = { "cryptconf/keys", true, 0, 0700, 0 };

	(void)state;
	/* 155 bytes of prefix and 100 of name fit. */
	(void)snprintf(longest, sizeof(longest), "cryptconf/keystore/%0135d/%0100d", 1, 2);
	archive_begin(&a);
	add(&a, "manifest.json", "{}");
	assert_int_equal(qs_member_begin(&a.writer, &directory, NULL), 0);
	add(&a, "cryptconf/keys/enc-a.key", "0123456789");
	add(&a, "cryptconf/headers/enc-a.header", "");
	add(&a, longest, "x");
	assert_int_equal(qs_member_end(&a.writer, NULL), 0);
	assert_int_equal(a.size % QS_TAR_BLOCK, 0);
	assert_int_equal(read_archive(&a, &seen, NULL), 0);
	assert_int_equal(seen.count, 4);
	assert_int_equal(seen.bytes, 13);
	assert_string_equal(seen.names[1], "cryptconf/keys/enc-a.key");
	assert_string_equal(seen.names[3], longest);
}

static void test_a_name_that_tar_cannot_hold_is_said(void **state)
{
	QS_AUTO(archive_done) struct archive a;
	struct qs_tar_header h = { .size = 1 };
	struct qs_error err = {};

	(void)state;
	archive_begin(&a);
	(void)snprintf(h.name, sizeof(h.name), "cryptconf/keys/%0101d", 1);
	assert_true(qs_member_begin(&a.writer, &h, &err) < 0);
	assert_non_null(strstr(err.text, "too long"));
	assert_int_equal(a.size, 0);
}

static void test_names_with_no_place_are_refused(void **state)
{
	static const char *const bad[] = {
		"../etc/passwd",
		"/etc/shadow",
		"cryptconf/keys/../../passwd",
		"cryptconf/keys/",
		"cryptconf//keys/a.key",
		"cryptconf/keys/.",
		"cryptconf/keys/.hidden",
		"cryptconf/keys/a/b.key",
		"cryptconf/keys/a\nb.key",
		"cryptconf/keys/a\\b.key",
		"cryptconf/keys/.a.key.qs-tmp",
		"cryptconf/keys/a.qs-tmp",
		"cryptconf/pending/enc-a.json",
		"cryptconf/other",
		"cryptconf/qs-util.conf/x",
		"passwd",
		"crypttab/x",
		"manifest.json/",
	};
	static const char *const good[] = {
		"cryptconf/keys/enc-a.key",
		"cryptconf/keys/two words",
		"cryptconf/keys/enc-a.key.1",
		"cryptconf/headers/enc-a.header",
		"cryptconf/keystore/a/b/c",
		"crypttab",
		"fstab",
	};

	(void)state;
	for (size_t i = 0; i < QS_ARRAY_SIZE(bad); i++) {
		QS_AUTO(archive_done) struct archive a;
		struct qs_error err = {};
		struct seen seen;

		archive_begin(&a);
		add(&a, "manifest.json", "{}");
		add(&a, bad[i], "x");
		assert_int_equal(qs_member_end(&a.writer, NULL), 0);
		if (read_archive(&a, &seen, &err) >= 0)
			fail_msg("%s was taken", bad[i]);
		assert_int_equal(err.kind, QS_E_FAILED);
		assert_int_equal(seen.count, 1);
	}
	for (size_t i = 0; i < QS_ARRAY_SIZE(good); i++)
		assert_int_equal(qs_member_check(good[i], NULL, NULL), 0);
}

static void check_refused(struct archive *a, const char *word)
{
	struct qs_error err = {};
	struct seen seen;

	assert_true(read_archive(a, &seen, &err) < 0);
	assert_int_equal(err.kind, QS_E_FAILED);
	if (!strstr(err.text, word))
		fail_msg("'%s' does not say %s", err.text, word);
}

static void test_archives_that_we_do_not_make_are_refused(void **state)
{
	QS_AUTO(archive_done) struct archive a;

	(void)state;
	archive_begin(&a);
	assert_int_equal(qs_member_end(&a.writer, NULL), 0);
	check_refused(&a, "empty");
	archive_done(&a);

	archive_begin(&a);
	add(&a, "cryptconf/keys/enc-a.key", "x");
	assert_int_equal(qs_member_end(&a.writer, NULL), 0);
	check_refused(&a, "manifest");
	archive_done(&a);

	archive_begin(&a);
	add(&a, "manifest.json", "{}");
	add(&a, "crypttab", "x");
	add(&a, "crypttab", "y");
	assert_int_equal(qs_member_end(&a.writer, NULL), 0);
	check_refused(&a, "twice");
	archive_done(&a);

	archive_begin(&a);
	add(&a, "manifest.json", "{}");
	check_refused(&a, "cut off");
	add(&a, "crypttab", "x");
	a.size -= QS_TAR_BLOCK;
	check_refused(&a, "cut off");
}

/* A second header, changed at OFFSET and with its sum put right. */
static void check_field(size_t offset, const char *bytes, size_t size, const char *word)
{
	QS_AUTO(archive_done) struct archive a;
	char *header;
	unsigned sum = 0;

	archive_begin(&a);
	add(&a, "manifest.json", "{}");
	add(&a, "crypttab", "");
	assert_int_equal(qs_member_end(&a.writer, NULL), 0);
	header = a.data + (size_t)2 * QS_TAR_BLOCK;
	memcpy(header + offset, bytes, size);
	memset(header + 148, ' ', 8);
	for (size_t i = 0; i < QS_TAR_BLOCK; i++)
		sum += (unsigned char)header[i];
	(void)snprintf(header + 148, 8, "%06o", sum);
	check_refused(&a, word);
}

static void test_headers_that_we_do_not_make_are_refused(void **state)
{
	static const char types[] = "12346xgLKS7";

	(void)state;
	for (size_t i = 0; types[i]; i++)
		check_field(156, &types[i], 1, "neither");
	check_field(257, "GNUta", 5, "tar header");
	check_field(124, "77777777777", 12, "claims");
	check_field(124, "00000010000", 12, "cut off");
	check_field(124, "\x80\0\0\0\0\0\0\0\0\0\0\1", 12, "number");
	check_field(124, "-1\0", 3, "number");
	check_field(136, "12x4", 4, "number");
	check_field(100, "        ", 8, "number");
}

static int parse(const char *text, struct qs_error *err)
{
	QS_AUTO(qs_manifest_done) struct qs_manifest m = {};

	return qs_manifest_parse(text, strlen(text), &m, err);
}

static void test_a_manifest_comes_back(void **state)
{
	struct qs_manifest_device d = { "enc-a", "/dev/disk/by-id/a", "cryptconf/keys/enc-a.key",
					"12-ab", "luks,discard",      true };
	QS_AUTO(qs_auto_json) json_t *json = qs_manifest_new("nas\xff", "2026-11-22T00:00:00Z");
	QS_AUTO(qs_manifest_done) struct qs_manifest m = {};
	QS_AUTO(qs_auto_free) char *text = NULL;

	(void)state;
	qs_manifest_add_device(json, &d);
	qs_manifest_add_file(json, "crypttab", 3, "abc");
	qs_manifest_add_file(json, "cryptconf/keys/enc-a.key", 64, "");
	text = json_dumps(json, 0);
	assert_non_null(strstr(text, "\"sha256\": \"abc\""));
	assert_int_equal(qs_manifest_parse(text, strlen(text), &m, NULL), 0);
	assert_string_equal(m.host, "nas\\xff");
	assert_int_equal(m.count, 1);
	assert_string_equal(m.devices[0].device, d.device);
	assert_string_equal(m.devices[0].key, d.key);
	assert_string_equal(m.devices[0].options, d.options);
	assert_true(m.devices[0].in_crypttab);
}

#define FORMAT "\"format\": \"qs-util key bundle\", \"version\": 1"

/* A manifest with one device that has FIELDS. */
static void check_device(const char *fields, bool good)
{
	QS_AUTO(qs_auto_free) char *text = qs_printf("{" FORMAT ", \"devices\": [{%s}]}", fields);
	struct qs_error err = {};
	int r = parse(text, &err);

	if (r != 0 && good)
		fail_msg("%s: %s", fields, err.text);
	if (r == 0 && !good)
		fail_msg("%s was taken", fields);
	if (!good)
		assert_int_equal(err.kind, QS_E_FAILED);
}

static void test_manifests_that_are_refused(void **state)
{
	struct qs_error err = {};

	(void)state;
	assert_true(parse("", NULL) < 0);
	assert_true(parse("[]", NULL) < 0);
	assert_true(parse("{\"format\": \"x\", \"version\": 1}", NULL) < 0);
	assert_true(parse("{\"format\": \"qs-util key bundle\"}", NULL) < 0);
	assert_true(parse("{" FORMAT ", \"version\": 1}", NULL) < 0);
	assert_true(parse("{\"format\": \"qs-util key bundle\", \"version\": 2}", &err) < 0);
	assert_non_null(strstr(err.text, "newer"));
	assert_int_equal(parse("{" FORMAT "}", NULL), 0);

#define NAME "\"name\": \"enc-a\", "
#define DEVICE "\"device\": \"/dev/a\", "
#define KEY "\"key\": \"cryptconf/keys/a.key\""
	check_device(NAME DEVICE KEY, true);
	check_device(NAME DEVICE "\"key\": \"\"", true);
	check_device(DEVICE KEY, false);
	check_device(NAME KEY, false);
	check_device("\"name\": \"../a\", " DEVICE KEY, false);
	check_device("\"name\": \"a b\", " DEVICE KEY, false);
	check_device(NAME "\"device\": \"/dev/../a\", " KEY, false);
	check_device(NAME DEVICE "\"key\": \"crypttab\"", false);
	check_device(NAME DEVICE "\"key\": \"cryptconf/keys/../a\"", false);
	check_device(NAME DEVICE KEY ", \"options\": \"luks\\nx /dev/x none luks\"", false);
	check_device(NAME DEVICE KEY ", \"uuid\": \"../../x\"", false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_was_written_is_read),
		cmocka_unit_test(test_a_name_that_tar_cannot_hold_is_said),
		cmocka_unit_test(test_names_with_no_place_are_refused),
		cmocka_unit_test(test_archives_that_we_do_not_make_are_refused),
		cmocka_unit_test(test_headers_that_we_do_not_make_are_refused),
		cmocka_unit_test(test_a_manifest_comes_back),
		cmocka_unit_test(test_manifests_that_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
