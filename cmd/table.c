/*
 * Fields of JSON objects as aligned text: a table with a line per device, or a
 * block per device. A printer of our own and not libsmartcols: nothing else of
 * that library is needed, and every library costs each start-up its loading.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "command.h"

#define FIELDS_MAX 24U

/* The value at a path of keys joined by dots, or NULL. */
static const json_t *lookup(const json_t *object, const char *path)
{
	while (object && *path) {
		size_t length = strcspn(path, ".");
		QS_AUTO(qs_auto_free) char *key = qs_printf("%.*s", (int)length, path);

		object = json_object_get(object, key);
		path += length + (path[length] != '\0');
	}
	return object;
}

static char *plain(const json_t *value)
{
	if (json_is_string(value))
		return qs_strdup(json_string_value(value));
	if (json_is_integer(value))
		return qs_printf("%lld", (long long)json_integer_value(value));
	if (json_is_boolean(value))
		return qs_strdup(json_is_true(value) ? "yes" : "no");
	return NULL;
}

static char *raw_text(const struct qs_field *field, const json_t *device)
{
	return field->text ? field->text(device) : plain(lookup(device, field->key));
}

char *qs_field_text(const struct qs_field *field, const json_t *device)
{
	QS_AUTO(qs_auto_free) char *raw = raw_text(field, device);

	return raw ? qs_utf8_printable(raw) : NULL;
}

/* Columns that a text takes on a terminal: UTF-8 continuation bytes take none. */
static int width_of(const char *s)
{
	int width = 0;

	for (; s && *s; s++)
		width += ((unsigned char)*s >> 6) != 2;
	return width;
}

static void measure(const struct qs_field *fields, const json_t *devices, int *width)
{
	const json_t *device;
	size_t i;

	for (size_t f = 0; fields[f].title; f++) {
		width[f] = width_of(fields[f].title);
		json_array_foreach(devices, i, device)
		{
			QS_AUTO(qs_auto_free) char *text = qs_field_text(&fields[f], device);

			if (width_of(text) > width[f])
				width[f] = width_of(text);
		}
	}
}

/* The last column is not filled up. */
static void cell(FILE *out, const char *text, int width, bool last)
{
	fprintf(out, "%s%*s", text, last ? 0 : width - width_of(text) + 2, last ? "\n" : "");
}

void qs_table_print(FILE *out, const struct qs_field *fields, const json_t *devices)
{
	int width[FIELDS_MAX] = { 0 };
	const json_t *device;
	size_t i;

	measure(fields, devices, width);
	for (size_t f = 0; fields[f].title; f++)
		cell(out, fields[f].title, width[f], !fields[f + 1].title);
	json_array_foreach(devices, i, device)
	{
		for (size_t f = 0; fields[f].title; f++) {
			QS_AUTO(qs_auto_free) char *text = qs_field_text(&fields[f], device);

			cell(out, text && *text ? text : "-", width[f], !fields[f + 1].title);
		}
	}
}

void qs_block_print(FILE *out, const struct qs_field *fields, const json_t *device)
{
	int width = 0;

	for (const struct qs_field *f = fields; f->title; f++)
		width = width_of(f->title) > width ? width_of(f->title) : width;
	for (const struct qs_field *f = fields; f->title; f++) {
		QS_AUTO(qs_auto_free) char *text = raw_text(f, device);
		char *line, *rest = NULL;
		const char *title = f->title;

		/* A field with several values gives a line to each. */
		for (line = text ? strtok_r(text, "\n", &rest) : NULL; line;
		     line = strtok_r(NULL, "\n", &rest)) {
			QS_AUTO(qs_auto_free) char *safe = qs_utf8_printable(line);

			fprintf(out, "  %-*s  %s\n", width, title, safe);
			title = "";
		}
	}
}
