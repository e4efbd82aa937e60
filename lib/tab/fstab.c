#include "tab/fstab.h"

#include <stdlib.h>
#include <string.h>

#include <blkid.h>
#include <libmount.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "tab/line.h"

#define MAX_FSTAB (16U << 20)

enum { SOURCE, TARGET, TYPE, OPTIONS, FIELDS };

static void free_fields(char *(*fields)[FIELDS])
{
	for (size_t i = 0; i < FIELDS; i++)
		qs_auto_free(&(*fields)[i]);
}

/* A field without its escapes; "" for one that is not there. */
static char *decode(const struct qs_tab_field *field, bool present)
{
	QS_AUTO(qs_auto_free) char *raw = NULL;
	char *text;

	if (!present)
		return qs_strdup("");
	raw = qs_printf("%.*s", (int)field->size, field->start);
	/* It has no answer for an empty string: a field that begins with a NUL. */
	text = *raw ? mnt_unmangle(raw) : qs_strdup("");
	if (!text)
		abort();
	return text;
}

/* LABEL="a" means LABEL=a; whatever is no tag stays as it is. */
static char *without_quotes(char *source)
{
	QS_AUTO(qs_auto_free) char *name = NULL;
	QS_AUTO(qs_auto_free) char *value = NULL;
	char *plain;

	if (!strchr(source, '=') || blkid_parse_tag_string(source, &name, &value) != 0)
		return source;
	plain = qs_printf("%s=%s", name, value ? value : "");
	free(source);
	return plain;
}

static int visit_line(const struct qs_tab_field *found, size_t count, unsigned line,
		      qs_fstab_visit *visit, void *cookie)
{
	QS_AUTO(free_fields) char *fields[FIELDS] = { NULL };
	struct qs_fstab_entry entry;

	for (size_t i = 0; i < FIELDS; i++)
		fields[i] = decode(&found[i], i < count);
	fields[SOURCE] = without_quotes(fields[SOURCE]);
	entry = (struct qs_fstab_entry){ .source = fields[SOURCE],
					 .target = fields[TARGET],
					 .type = fields[TYPE],
					 .options = fields[OPTIONS],
					 .line = line };
	return visit(&entry, cookie);
}

int qs_fstab_each_text(const char *text, size_t size, qs_fstab_visit *visit, void *cookie)
{
	struct qs_tab_field fields[FIELDS];
	unsigned number = 0;
	const char *line;
	size_t at = 0;
	size_t length;

	while ((length = qs_tab_next(text, size, &at, &line)) > 0) {
		size_t count = qs_tab_split(line, length, fields, FIELDS);
		int r;

		number++;
		if (count == 0)
			continue;
		r = visit_line(fields, count, number, visit, cookie);
		if (r != 0)
			return r;
	}
	return 0;
}

int qs_fstab_each(const struct qs_env *env, qs_fstab_visit *visit, void *cookie,
		  struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, QS_FSTAB);
	QS_AUTO(qs_auto_free) char *text = NULL;
	size_t size;
	int r;

	r = qs_file_read_optional(path, MAX_FSTAB, &text, &size, err);
	if (r <= 0)
		return r;
	return qs_fstab_each_text(text, size, visit, cookie);
}
