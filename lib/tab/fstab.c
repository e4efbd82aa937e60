#include "tab/fstab.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <blkid.h>
#include <libmount.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "tab/line.h"
#include "tab/table.h"

enum { SOURCE, TARGET, TYPE, OPTIONS, FIELDS };

/* As it stands in the file, and decoded; the strings of entry. */
struct decoded {
	char *fields[FIELDS];
	struct qs_fstab_entry entry;
};

static void decoded_done(struct decoded *d)
{
	for (size_t i = 0; i < FIELDS; i++)
		qs_auto_free(&d->fields[i]);
}

/* RAW without its escapes. mnt_unmangle() has no answer for an empty string. */
static char *decode(const char *raw)
{
	char *text = raw && *raw ? mnt_unmangle(raw) : qs_strdup("");

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

/* RAW: FIELDS fields, NULL behind the last that is there. */
static void decode_entry(const char *const *raw, unsigned line, struct decoded *ret)
{
	for (size_t i = 0; i < FIELDS; i++)
		ret->fields[i] = decode(raw[i]);
	ret->fields[SOURCE] = without_quotes(ret->fields[SOURCE]);
	ret->entry = (struct qs_fstab_entry){ .source = ret->fields[SOURCE],
					      .target = ret->fields[TARGET],
					      .type = ret->fields[TYPE],
					      .options = ret->fields[OPTIONS],
					      .line = line };
}

static void free_words(char *(*words)[FIELDS])
{
	for (size_t i = 0; i < FIELDS; i++)
		qs_auto_free(&(*words)[i]);
}

static int visit_line(const struct qs_tab_field *found, size_t count, unsigned line,
		      qs_fstab_visit *visit, void *cookie)
{
	QS_AUTO(free_words) char *raw[FIELDS] = { NULL };
	QS_AUTO(decoded_done) struct decoded d = {};

	for (size_t i = 0; i < count; i++)
		raw[i] = qs_printf("%.*s", (int)found[i].size, found[i].start);
	decode_entry((const char *const *)raw, line, &d);
	return visit(&d.entry, cookie);
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

	r = qs_file_read_optional(path, QS_TABLE_MAX, &text, &size, err);
	if (r <= 0)
		return r;
	return qs_fstab_each_text(text, size, visit, cookie);
}

/* ---- the editor ---- */

/* All six fields are told apart, so that a line that is too long is still one. */
#define COLUMNS 6

struct qs_fstab {
	struct qs_table table;
	struct decoded *entries; /* one for each of its lines */
	size_t count;
};

static void free_entries(struct qs_fstab *tab)
{
	for (size_t i = 0; i < tab->count; i++)
		decoded_done(&tab->entries[i]);
	free(tab->entries);
}

/* The entries of the table's present text. */
static void make_entries(struct qs_fstab *tab)
{
	free_entries(tab);
	tab->count = tab->table.count;
	tab->entries = calloc(tab->count + 1, sizeof(*tab->entries));
	if (!tab->entries)
		abort();
	for (size_t i = 0; i < tab->count; i++)
		decode_entry(tab->table.lines[i].fields, tab->table.lines[i].number,
			     &tab->entries[i]);
}

static struct qs_fstab *new_tab(const struct qs_table *table)
{
	struct qs_fstab *tab = calloc(1, sizeof(*tab));

	if (!tab)
		abort();
	tab->table = *table;
	make_entries(tab);
	return tab;
}

int qs_fstab_parse(const char *text, size_t size, struct qs_fstab **ret, struct qs_error *err)
{
	struct qs_table table;
	int r = qs_table_parse(&table, text, size, COLUMNS, err);

	if (r == 0)
		*ret = new_tab(&table);
	return r;
}

int qs_fstab_load(const struct qs_env *env, struct qs_fstab **ret, struct qs_error *err)
{
	struct qs_table table;
	int r = qs_table_load(env, QS_FSTAB, &table, COLUMNS, err);

	if (r == 0)
		*ret = new_tab(&table);
	return r;
}

void qs_fstab_free(struct qs_fstab *tab)
{
	if (!tab)
		return;
	free_entries(tab);
	qs_table_done(&tab->table);
	free(tab);
}

void qs_auto_fstab(struct qs_fstab **tab)
{
	qs_fstab_free(*tab);
	*tab = NULL;
}

size_t qs_fstab_count(const struct qs_fstab *tab)
{
	return tab->count;
}

const struct qs_fstab_entry *qs_fstab_get(const struct qs_fstab *tab, size_t i)
{
	return i < tab->count ? &tab->entries[i].entry : NULL;
}

const char *qs_fstab_text(const struct qs_fstab *tab, size_t *ret_size)
{
	*ret_size = tab->table.size;
	return tab->table.text;
}

/* mount(8), swapon(8) and systemd take only these two for space inside a line. */
static bool is_gap(char c)
{
	return c == ' ' || c == '\t';
}

static int check_source(const char *source, struct qs_error *err)
{
	bool plain = qs_text_is_normal_path(source);

	for (const char *p = source; *p; p++)
		plain = plain && qs_text_is_plain(*p);
	return plain ? 0
		     : qs_fail(err, QS_E_FAILED, "%s cannot stand in " QS_FSTAB " as it is",
			       source);
}

static int edited(struct qs_fstab *tab, int r)
{
	if (r > 0)
		make_entries(tab);
	return r;
}

int qs_fstab_set_source(struct qs_fstab *tab, size_t i, const char *source, struct qs_error *err)
{
	const struct qs_table_line *line = &tab->table.lines[i];
	struct qs_tab_field first;
	const char *end;
	bool clear;
	int r = check_source(source, err);

	if (r < 0)
		return r;
	(void)qs_tab_split(line->start, line->size, &first, 1);
	end = first.start + first.size;
	clear = end < line->start + line->size && is_gap(*end);
	for (const char *p = line->start; p < first.start; p++)
		clear = clear && is_gap(*p);
	if (!clear)
		return qs_fail(err, QS_E_FAILED,
			       "line %u of " QS_FSTAB
			       " ends early, or has an odd control character beside its first "
			       "field; correct it by hand",
			       line->number);
	r = qs_table_splice(&tab->table, (size_t)(first.start - tab->table.text), first.size,
			    source, err);
	return edited(tab, r);
}

int qs_fstab_add_swap(struct qs_fstab *tab, const char *source, const char *options,
		      struct qs_error *err)
{
	QS_AUTO(qs_auto_free)
	char *line = qs_printf("%s  none  swap  %s  0  0\n", source, options);
	int r = check_source(source, err);

	return r < 0 ? r : edited(tab, qs_table_append(&tab->table, line, err));
}

int qs_fstab_save(const struct qs_env *env, const struct qs_fstab *tab, struct qs_error *err)
{
	return qs_table_save(env, QS_FSTAB, &tab->table, err);
}
