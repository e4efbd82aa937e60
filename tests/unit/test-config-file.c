#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/config-keys.h"
#include "base/config.h"
#include "base/env.h"

#include "scratch.h"

static void assert_taken(struct qs_config *config, const char *text)
{
	struct qs_error err = {};

	if (qs_config_parse(config, text, "x.conf", &err) < 0)
		fail_msg("%s: %s", text, err.text);
}

static void assert_same(const struct qs_config *a, const struct qs_config *b)
{
	assert_string_equal(a->keys_dir, b->keys_dir);
	assert_string_equal(a->headers_dir, b->headers_dir);
	assert_string_equal(a->crypttab_options, b->crypttab_options);
	assert_string_equal(a->cipher, b->cipher);
	for (size_t i = 0; a->name_order[i] || b->name_order[i]; i++)
		assert_string_equal(a->name_order[i], b->name_order[i]);
	for (size_t i = 0; i < qs_config_row_count; i++) {
		const struct qs_config_row *row = &qs_config_rows[i];
		size_t size = row->type == QS_CONFIG_SIZE ? sizeof(uint64_t) : sizeof(unsigned);

		if (row->type == QS_CONFIG_BOOL)
			size = sizeof(bool);
		if (row->type >= QS_CONFIG_NUMBER)
			assert_memory_equal((const char *)a + row->offset,
					    (const char *)b + row->offset, size);
	}
}

static char *described(void)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	qs_config_describe(out);
	assert_int_equal(fclose(out), 0);
	return text;
}

static void test_described_text_is_the_file_in_etc(void **state)
{
	QS_AUTO(qs_auto_free) char *here = qs_strdup(__FILE__);
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/../../etc/qs-util.conf", dirname(here));
	QS_AUTO(qs_auto_free) char *text = described();
	QS_AUTO(qs_auto_fclose) FILE *file = fopen(path, "re");
	char found[65536];

	(void)state;
	assert_non_null(file);
	found[fread(found, 1, sizeof(found) - 1, file)] = '\0';
	assert_string_equal(found, text);
}

static void test_described_text_changes_nothing_and_uncommented_neither(void **state)
{
	QS_AUTO(qs_config_done) struct qs_config defaults;
	QS_AUTO(qs_config_done) struct qs_config config;
	QS_AUTO(qs_auto_free) char *text = described();
	size_t keys = 0;

	(void)state;
	qs_config_init(&defaults);
	qs_config_init(&config);
	assert_taken(&config, text);
	assert_same(&config, &defaults);
	for (char *p = text; (p = strstr(p, "\n#")); p++)
		if (p[2] >= 'a' && p[2] <= 'z') {
			p[1] = ' ';
			keys++;
		}
	assert_int_equal(keys, qs_config_row_count);
	assert_taken(&config, text);
	assert_same(&config, &defaults);
}

static void test_manual_has_every_key_and_no_line_that_roff_would_eat(void **state)
{
	QS_AUTO(qs_auto_free) char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	char *rest;

	(void)state;
	qs_config_man(out);
	assert_int_equal(fclose(out), 0);
	for (size_t i = 0; i < qs_config_row_count; i++) {
		QS_AUTO(qs_auto_free)
		char *head = qs_printf(".TP\n.B %s\n", qs_config_rows[i].name);

		assert_non_null(strstr(text, head));
	}
	assert_non_null(strstr(text, "Default: \"aes\\-xts\\-plain64\"."));
	rest = text;
	for (char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n"))
		if (*line == '.' || *line == '\'')
			assert_true(strcmp(line, ".TP") == 0 || strncmp(line, ".B ", 3) == 0);
}

struct scratch {
	char *dir;
	char *file;
};

static int make_scratch(void **state)
{
	struct scratch *s = calloc(1, sizeof(*s));

	s->dir = scratch_make();
	s->file = qs_printf("%s/conf", s->dir);
	*state = s;
	return 0;
}

static int drop_scratch(void **state)
{
	struct scratch *s = *state;

	scratch_drop(s->dir);
	free(s->file);
	free(s);
	return 0;
}

static void write_file(const char *path, const void *data, size_t size)
{
	QS_AUTO(qs_auto_fclose) FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, size, f), size);
}

static void test_absent_file_is_all_defaults_unless_it_was_named(void **state)
{
	const struct scratch *s = *state;
	QS_AUTO(qs_config_done) struct qs_config defaults;
	QS_AUTO(qs_config_done) struct qs_config config;
	struct qs_error err = {};

	qs_config_init(&defaults);
	qs_config_init(&config);
	assert_int_equal(qs_config_load(&config, s->file, false, &err), 0);
	assert_same(&config, &defaults);
	assert_true(qs_config_load(&config, s->file, true, &err) < 0);
	assert_int_equal(err.kind, QS_E_CONFIG);
	assert_non_null(strstr(err.text, s->file));
}

static void test_file_is_read_and_named_in_errors(void **state)
{
	const struct scratch *s = *state;
	QS_AUTO(qs_config_done) struct qs_config config;
	struct qs_error err = {};

	qs_config_init(&config);
	write_file(s->file, "workers = 3;\r\n", 14);
	assert_int_equal(qs_config_load(&config, s->file, true, &err), 0);
	assert_int_equal(config.workers, 3);
	write_file(s->file, "\nworkers = x;\n", 14);
	assert_true(qs_config_load(&config, s->file, false, &err) < 0);
	assert_memory_equal(err.text, s->file, strlen(s->file));
	assert_memory_equal(err.text + strlen(s->file), ":2:", 3);
}

static void test_nul_in_file_is_an_error_and_not_its_end(void **state)
{
	const struct scratch *s = *state;
	QS_AUTO(qs_config_done) struct qs_config config;
	struct qs_error err = {};

	qs_config_init(&config);
	write_file(s->file, "workers = 3;\n\0keys_dir = 1;\n", 28);
	assert_true(qs_config_load(&config, s->file, false, &err) < 0);
	assert_int_equal(err.kind, QS_E_CONFIG);
	assert_non_null(strstr(err.text, ":2: a NUL byte"));
}

static void test_directory_in_place_of_the_file_is_an_error(void **state)
{
	const struct scratch *s = *state;
	QS_AUTO(qs_config_done) struct qs_config config;
	struct qs_error err = {};

	qs_config_init(&config);
	assert_int_equal(mkdir(s->file, 0700), 0);
	assert_true(qs_config_load(&config, s->file, false, &err) < 0);
	assert_int_equal(err.kind, QS_E_CONFIG);
	assert_non_null(strstr(err.text, s->file));
}

#define WITH_FILE(test) cmocka_unit_test_setup_teardown(test, make_scratch, drop_scratch)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_described_text_is_the_file_in_etc),
		cmocka_unit_test(test_described_text_changes_nothing_and_uncommented_neither),
		cmocka_unit_test(test_manual_has_every_key_and_no_line_that_roff_would_eat),
		WITH_FILE(test_absent_file_is_all_defaults_unless_it_was_named),
		WITH_FILE(test_file_is_read_and_named_in_errors),
		WITH_FILE(test_nul_in_file_is_an_error_and_not_its_end),
		WITH_FILE(test_directory_in_place_of_the_file_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
