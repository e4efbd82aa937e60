#define _GNU_SOURCE
#include "tab/crypttab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "tab/line.h"
#include "tab/table.h"

enum { NAME, DEVICE, KEY, OPTIONS, FIELDS };

struct qs_crypttab {
	struct qs_table table;
	struct qs_crypttab_entry *entries; /* one for each of its lines */
};

/* The entries of the table's present text. */
static void make_entries(struct qs_crypttab *tab)
{
	struct qs_crypttab_entry *entries = calloc(tab->table.count + 1, sizeof(*entries));

	if (!entries)
		abort();
	for (size_t i = 0; i < tab->table.count; i++) {
		const struct qs_table_line *line = &tab->table.lines[i];

		entries[i] = (struct qs_crypttab_entry){
			.name = line->fields[NAME],
			.device = line->fields[DEVICE],
			.key = line->fields[KEY],
			.options = line->fields[OPTIONS],
			.line = line->number,
		};
	}
	free(tab->entries);
	tab->entries = entries;
}

static struct qs_crypttab *new_tab(const struct qs_table *table)
{
	struct qs_crypttab *tab = calloc(1, sizeof(*tab));

	if (!tab)
		abort();
	tab->table = *table;
	make_entries(tab);
	return tab;
}

int qs_crypttab_parse(const char *text, size_t size, struct qs_crypttab **ret, struct qs_error *err)
{
	struct qs_table table;
	int r = qs_table_parse(&table, text, size, FIELDS, err);

	if (r == 0)
		*ret = new_tab(&table);
	return r;
}

static int load(const struct qs_env *env, const char *logical, struct qs_crypttab **ret,
		struct qs_error *err)
{
	struct qs_table table;
	int r = qs_table_load(env, logical, &table, FIELDS, err);

	if (r == 0)
		*ret = new_tab(&table);
	return r;
}

int qs_crypttab_load(const struct qs_env *env, struct qs_crypttab **ret, struct qs_error *err)
{
	return load(env, QS_CRYPTTAB, ret, err);
}

int qs_crypttab_load_last(const struct qs_env *env, struct qs_crypttab **ret, struct qs_error *err)
{
	return load(env, QS_CRYPTTAB QS_TABLE_LAST, ret, err);
}

void qs_crypttab_free(struct qs_crypttab *tab)
{
	if (!tab)
		return;
	qs_table_done(&tab->table);
	free(tab->entries);
	free(tab);
}

void qs_auto_crypttab(struct qs_crypttab **tab)
{
	qs_crypttab_free(*tab);
	*tab = NULL;
}

size_t qs_crypttab_count(const struct qs_crypttab *tab)
{
	return tab->table.count;
}

const struct qs_crypttab_entry *qs_crypttab_get(const struct qs_crypttab *tab, size_t i)
{
	return i < tab->table.count ? &tab->entries[i] : NULL;
}

const struct qs_crypttab_entry *qs_crypttab_find(const struct qs_crypttab *tab, const char *name)
{
	for (size_t i = 0; i < tab->table.count; i++)
		if (strcmp(tab->entries[i].name, name) == 0)
			return &tab->entries[i];
	return NULL;
}

const char *qs_crypttab_text(const struct qs_crypttab *tab, size_t *ret_size)
{
	*ret_size = tab->table.size;
	return tab->table.text;
}

/* What stands between START and END where both judges take it for space, else FALLBACK. */
static void put_gap(FILE *out, const char *start, const char *end, const char *fallback)
{
	for (const char *p = start; p < end; p++)
		if (*p != ' ' && *p != '\t') {
			fputs(fallback, out);
			return;
		}
	fwrite(start, 1, (size_t)(end - start), out);
}

/* A comment line of what stood behind the fields; a CR inside would begin a line for systemd. */
static void put_comment(FILE *out, const char *text, const char *end)
{
	size_t size = (size_t)(end - text);

	while (size > 0 && qs_tab_is_space(text[size - 1]))
		size--;
	if (*text != '#')
		fputs("# ", out);
	for (size_t i = 0; i < size; i++)
		fputc(text[i] == '\r' ? ' ' : text[i], out);
	fputc('\n', out);
}

/*
 * The line (SIZE 0: a new one) with other fields and its own spacing, malloc'ed.
 * What stands behind the fourth field moves to a comment above: systemd drops
 * it, Debian adds it to the options. The end is a newline and nothing else:
 * Debian takes a CR for a part of the options, and passes over a last line that
 * has no newline.
 */
static char *render(const char *line, size_t size, const char *const fields[FIELDS])
{
	struct qs_tab_field old[FIELDS + 1];
	size_t count = qs_tab_split(line, size, old, FIELDS + 1);
	const char *end = line + size - (size > 0 && line[size - 1] == '\n');
	const char *behind = line;
	char *text = NULL;
	size_t text_size;
	FILE *out = open_memstream(&text, &text_size);

	if (!out)
		abort();
	if (count > FIELDS)
		put_comment(out, old[FIELDS].start, end);
	for (size_t i = 0; i < FIELDS; i++) {
		if (i < count)
			put_gap(out, behind, old[i].start, i ? "  " : "");
		else if (i > 0)
			fputs("  ", out);
		fputs(fields[i], out);
		if (i < count)
			behind = old[i].start + old[i].size;
	}
	if (count == FIELDS)
		put_gap(out, behind, end, "");
	fputc('\n', out);
	if (fclose(out) != 0)
		abort();
	return text;
}

/* What an edit returned; the entries follow the text. */
static int edited(struct qs_crypttab *tab, int r)
{
	if (r > 0)
		make_entries(tab);
	return r;
}

static int append(struct qs_crypttab *tab, const char *const fields[FIELDS], struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *line = render("", 0, fields);

	return edited(tab, qs_table_append(&tab->table, line, err));
}

static int change(struct qs_crypttab *tab, size_t i, const char *const fields[FIELDS],
		  struct qs_error *err)
{
	const struct qs_table_line *line = &tab->table.lines[i];
	QS_AUTO(qs_auto_free) char *text = render(line->start, line->size, fields);

	return edited(tab, qs_table_splice(&tab->table, (size_t)(line->start - tab->table.text),
					   line->size, text, err));
}

/* The index of the one entry of this name; tab->table.count when there is none. */
static int find_only(const struct qs_crypttab *tab, const char *name, size_t *ret,
		     struct qs_error *err)
{
	size_t found = tab->table.count;

	for (size_t i = 0; i < tab->table.count; i++) {
		if (strcmp(tab->entries[i].name, name) != 0)
			continue;
		if (found < tab->table.count)
			return qs_fail(
				err, QS_E_FAILED,
				"crypttab has two lines for %s, %u and %u; remove the wrong one",
				name, tab->entries[found].line, tab->entries[i].line);
		found = i;
	}
	*ret = found;
	return 0;
}

/* Where WORD or "WORD=value" begins in OPTIONS, or NULL. */
static const char *find_option(const char *options, const char *word)
{
	size_t length = strlen(word);

	for (const char *p = options; p && *p; p += strcspn(p, ","), p += *p == ',')
		if (strncmp(p, word, length) == 0 &&
		    (p[length] == ',' || p[length] == '\0' || p[length] == '='))
			return p;
	return NULL;
}

bool qs_crypttab_has_option(const char *options, const char *word)
{
	return find_option(options, word) != NULL;
}

char *qs_crypttab_option(const char *options, const char *word)
{
	const char *found = find_option(options, word);
	size_t skip = strlen(word) + 1;

	if (!found || found[skip - 1] != '=')
		return NULL;
	return qs_printf("%.*s", (int)strcspn(found + skip, ","), found + skip);
}

bool qs_crypttab_is_swap(const struct qs_crypttab_entry *e)
{
	static const char *const keys[] = { "/dev/urandom", "/dev/random", "/dev/hwrng" };

	if (!e->device || !e->key || !qs_crypttab_has_option(e->options, "swap"))
		return false;
	for (size_t i = 0; i < QS_ARRAY_SIZE(keys); i++)
		if (strcmp(e->key, keys[i]) == 0)
			return true;
	return false;
}

/* Entry I, or a new one behind the last. OPTIONS NULL: those that it has, else "luks". */
static int set_fields(struct qs_crypttab *tab, size_t i, const char *name, const char *device,
		      const char *key, const char *options, struct qs_error *err)
{
	const char *fields[FIELDS] = { name, device, key, options };
	int r;

	if (!options && i < tab->table.count)
		fields[OPTIONS] = tab->entries[i].options;
	if (!fields[OPTIONS] || (!options && qs_crypttab_no_options(fields[OPTIONS])))
		fields[OPTIONS] = "luks";
	r = qs_crypttab_check(name, device, key, fields[OPTIONS], err);
	if (r < 0)
		return r;
	return i < tab->table.count ? change(tab, i, fields, err) : append(tab, fields, err);
}

int qs_crypttab_set(struct qs_crypttab *tab, const char *name, const char *device, const char *key,
		    const char *options, struct qs_error *err)
{
	size_t i;
	int r = find_only(tab, name, &i, err);

	return r < 0 ? r : set_fields(tab, i, name, device, key, options, err);
}

int qs_crypttab_change(struct qs_crypttab *tab, size_t i, const char *name, const char *device,
		       const char *key, struct qs_error *err)
{
	return set_fields(tab, i, name, device, key, NULL, err);
}

void qs_crypttab_remove_at(struct qs_crypttab *tab, size_t i)
{
	const struct qs_table_line *line = &tab->table.lines[i];

	/* Cannot fail, as below. */
	(void)edited(tab, qs_table_splice(&tab->table, (size_t)(line->start - tab->table.text),
					  line->size, "", NULL));
}

int qs_crypttab_remove(struct qs_crypttab *tab, const char *name)
{
	const char *text = tab->table.text;
	const char *rest = text;
	QS_AUTO(qs_auto_free) char *kept = NULL;
	size_t size = 0;

	if (!qs_crypttab_find(tab, name))
		return 0;
	kept = calloc(1, tab->table.size + 1);
	if (!kept)
		abort();
	for (size_t i = 0; i < tab->table.count; i++) {
		const struct qs_table_line *line = &tab->table.lines[i];

		if (strcmp(line->fields[NAME], name) != 0)
			continue;
		memcpy(kept + size, rest, (size_t)(line->start - rest));
		size += (size_t)(line->start - rest);
		rest = line->start + line->size;
	}
	memcpy(kept + size, rest, (size_t)(text + tab->table.size - rest));
	size += (size_t)(text + tab->table.size - rest);
	qs_table_done(&tab->table);
	/* Cannot fail: fewer lines, and each of them was parsed before. */
	(void)qs_table_take(&tab->table, QS_TAKE(kept), size, FIELDS, NULL);
	return edited(tab, 1);
}

int qs_crypttab_save(const struct qs_env *env, const struct qs_crypttab *tab, struct qs_error *err)
{
	return qs_table_save(env, QS_CRYPTTAB, &tab->table, err);
}

int qs_tab_lock(const struct qs_env *env, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *directory = qs_env_path(env, QS_RUN_DIR);
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, QS_RUN_DIR "/lock");
	int r;

	r = qs_file_make_dirs(directory, 0755, err);
	if (r < 0)
		return r;
	return qs_file_lock(path, env->config.lock_wait_s * 1000, "crypttab and fstab", err);
}
