#include "tab/table.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "tab/line.h"

static void *must_have(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

static const char *word(struct qs_table *table, const struct qs_tab_field *field)
{
	char *start = table->words + (field->start - table->text);

	start[field->size] = '\0';
	return start;
}

static void add_line(struct qs_table *table, const char *start, size_t size, unsigned number,
		     const struct qs_tab_field *fields, size_t count)
{
	struct qs_table_line *line;

	if (table->count == table->room) {
		table->room = table->room ? 2 * table->room : 64;
		table->lines =
			must_have(reallocarray(table->lines, table->room, sizeof(*table->lines)));
	}
	line = &table->lines[table->count++];
	*line = (struct qs_table_line){ .start = start, .size = size, .number = number };
	for (size_t i = 0; i < count; i++)
		line->fields[i] = word(table, &fields[i]);
}

/* Find the entries of a table that has its text. */
static int index_lines(struct qs_table *table, struct qs_error *err)
{
	struct qs_tab_field fields[QS_TABLE_FIELDS];
	unsigned number = 0;
	const char *line;
	size_t at = 0;
	size_t length;

	if (table->size > QS_TABLE_MAX)
		return qs_fail(err, QS_E_FAILED, "%zu bytes, more than the %u that it may have",
			       table->size, QS_TABLE_MAX);
	while ((length = qs_tab_next(table->text, table->size, &at, &line)) > 0) {
		size_t count = qs_tab_split(line, length, fields, table->fields);

		number++;
		if (count == 0)
			continue;
		if (memchr(line, '\0', length))
			return qs_fail(err, QS_E_FAILED,
				       "line %u holds a NUL byte; correct it by hand", number);
		add_line(table, line, length, number, fields, count);
	}
	return 0;
}

int qs_table_take(struct qs_table *table, char *text, size_t size, size_t fields,
		  struct qs_error *err)
{
	int r;

	*table = (struct qs_table){ .text = text, .size = size, .fields = fields };
	table->words = must_have(malloc(size + 1));
	memcpy(table->words, text, size + 1);
	r = index_lines(table, err);
	if (r < 0)
		qs_table_done(table);
	return r;
}

int qs_table_parse(struct qs_table *table, const char *text, size_t size, size_t fields,
		   struct qs_error *err)
{
	char *copy = must_have(malloc(size + 1));

	if (size > 0)
		memcpy(copy, text, size);
	copy[size] = '\0';
	return qs_table_take(table, copy, size, fields, err);
}

int qs_table_splice(struct qs_table *table, size_t at, size_t drop, const char *new,
		    struct qs_error *err)
{
	size_t size = strlen(new);
	size_t total = table->size - drop + size;
	struct qs_table changed;
	char *text;
	int r;

	if (size == drop && memcmp(table->text + at, new, size) == 0)
		return 0;
	text = must_have(malloc(total + 1));
	memcpy(text, table->text, at);
	memcpy(text + at, new, size);
	memcpy(text + at + size, table->text + at + drop, table->size - at - drop);
	text[total] = '\0';
	r = qs_table_take(&changed, text, total, table->fields, err);
	if (r < 0)
		return r;
	qs_table_done(table);
	*table = changed;
	return 1;
}

int qs_table_append(struct qs_table *table, const char *line, struct qs_error *err)
{
	bool open_end = table->size > 0 && table->text[table->size - 1] != '\n';
	QS_AUTO(qs_auto_free) char *text = qs_printf("%s%s", open_end ? "\n" : "", line);

	return qs_table_splice(table, table->size, 0, text, err);
}

void qs_table_done(struct qs_table *table)
{
	free(table->text);
	free(table->words);
	free(table->lines);
	*table = (struct qs_table){};
}

int qs_table_load(const struct qs_env *env, const char *logical, struct qs_table *table,
		  size_t fields, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, logical);
	char *text = NULL;
	size_t size;
	int r;

	r = qs_file_read_optional(path, QS_TABLE_MAX, &text, &size, err);
	if (r == 0)
		return qs_table_parse(table, "", 0, fields, err);
	if (r < 0)
		return r;
	r = qs_table_take(table, text, size, fields, err);
	if (r < 0)
		qs_error_prefix(err, "%s", path);
	return r;
}

int qs_table_save(const struct qs_env *env, const char *logical, const struct qs_table *table,
		  struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, logical);
	QS_AUTO(qs_auto_free) char *backup = qs_printf("%s" QS_TABLE_LAST, path);
	const struct qs_replace how = { .mode = 0644, .keep_as = backup };

	return qs_file_replace(path, table->text, table->size, &how, err);
}
