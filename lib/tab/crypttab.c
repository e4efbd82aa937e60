#define _GNU_SOURCE
#include "tab/crypttab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "tab/line.h"

#define BACKUP QS_CRYPTTAB ".qs-bak"
enum { NAME, DEVICE, KEY, OPTIONS, FIELDS };

/*
 * The text is never changed in place: an edit makes a new one, which is parsed
 * again. That is linear, as finding the line is, and leaves no index to keep right.
 */
struct qs_crypttab {
	char *text;
	size_t size;
	char *words; /* a copy of text with a NUL behind every field */
	struct qs_crypttab_entry *entries;
	const char **lines; /* where the line of each entry begins in text */
	size_t count, room;
};

static void *must_have(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

static const char *word(struct qs_crypttab *tab, const struct qs_tab_field *field)
{
	char *start = tab->words + (field->start - tab->text);

	start[field->size] = '\0';
	return start;
}

static void add_entry(struct qs_crypttab *tab, const char *line, unsigned number,
		      const struct qs_tab_field *fields, size_t count)
{
	struct qs_crypttab_entry *entry;

	if (tab->count == tab->room) {
		tab->room = tab->room ? 2 * tab->room : 64;
		tab->entries = must_have(realloc(tab->entries, tab->room * sizeof(*tab->entries)));
		tab->lines = must_have(realloc(tab->lines, tab->room * sizeof(*tab->lines)));
	}
	tab->lines[tab->count] = line;
	entry = &tab->entries[tab->count++];
	*entry = (struct qs_crypttab_entry){
		.name = word(tab, &fields[NAME]),
		.device = count > DEVICE ? word(tab, &fields[DEVICE]) : NULL,
		.key = count > KEY ? word(tab, &fields[KEY]) : NULL,
		.options = count > OPTIONS ? word(tab, &fields[OPTIONS]) : NULL,
		.line = number,
	};
}

/* Fill the entries of a table that has its text. */
static int index_lines(struct qs_crypttab *tab, struct qs_error *err)
{
	struct qs_tab_field fields[FIELDS];
	unsigned number = 0;
	const char *line;
	size_t at = 0;
	size_t length;

	if (tab->size > QS_CRYPTTAB_MAX)
		return qs_fail(err, QS_E_FAILED, "%zu bytes, more than the %u that it may have",
			       tab->size, QS_CRYPTTAB_MAX);
	while ((length = qs_tab_next(tab->text, tab->size, &at, &line)) > 0) {
		size_t count = qs_tab_split(line, length, fields, FIELDS);

		number++;
		if (count == 0)
			continue;
		if (memchr(line, '\0', length))
			return qs_fail(err, QS_E_FAILED,
				       "line %u holds a NUL byte; correct it by hand", number);
		add_entry(tab, line, number, fields, count);
	}
	return 0;
}

/* A table of TEXT (malloc'ed, with a NUL behind it), which it takes over, on failure too. */
static int take_text(char *text, size_t size, struct qs_crypttab **ret, struct qs_error *err)
{
	struct qs_crypttab *tab = must_have(calloc(1, sizeof(*tab)));
	int r;

	tab->text = text;
	tab->size = size;
	tab->words = must_have(malloc(size + 1));
	memcpy(tab->words, text, size + 1);
	r = index_lines(tab, err);
	if (r < 0) {
		qs_crypttab_free(tab);
		return r;
	}
	*ret = tab;
	return 0;
}

int qs_crypttab_parse(const char *text, size_t size, struct qs_crypttab **ret, struct qs_error *err)
{
	char *copy = must_have(malloc(size + 1));

	if (size > 0)
		memcpy(copy, text, size);
	copy[size] = '\0';
	return take_text(copy, size, ret, err);
}

int qs_crypttab_load(const struct qs_env *env, struct qs_crypttab **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, QS_CRYPTTAB);
	char *text = NULL;
	size_t size;
	int r;

	r = qs_file_read_optional(path, QS_CRYPTTAB_MAX, &text, &size, err);
	if (r == 0)
		return qs_crypttab_parse("", 0, ret, err);
	if (r < 0)
		return r;
	r = take_text(text, size, ret, err);
	if (r < 0)
		qs_error_prefix(err, "%s", path);
	return r;
}

void qs_crypttab_free(struct qs_crypttab *tab)
{
	if (!tab)
		return;
	free(tab->text);
	free(tab->words);
	free(tab->entries);
	free(tab->lines);
	free(tab);
}

void qs_auto_crypttab(struct qs_crypttab **tab)
{
	qs_crypttab_free(*tab);
	*tab = NULL;
}

size_t qs_crypttab_count(const struct qs_crypttab *tab)
{
	return tab->count;
}

const struct qs_crypttab_entry *qs_crypttab_get(const struct qs_crypttab *tab, size_t i)
{
	return i < tab->count ? &tab->entries[i] : NULL;
}

const struct qs_crypttab_entry *qs_crypttab_find(const struct qs_crypttab *tab, const char *name)
{
	for (size_t i = 0; i < tab->count; i++)
		if (strcmp(tab->entries[i].name, name) == 0)
			return &tab->entries[i];
	return NULL;
}

const char *qs_crypttab_text(const struct qs_crypttab *tab, size_t *ret_size)
{
	*ret_size = tab->size;
	return tab->text;
}

static size_t line_size(const struct qs_crypttab *tab, const char *line)
{
	size_t at = (size_t)(line - tab->text);

	return qs_tab_next(tab->text, tab->size, &at, &line);
}

/* Take TEXT (malloc'ed) for the table's new text. On failure the table stays as it was. */
static int replace_text(struct qs_crypttab *tab, char *text, size_t size, struct qs_error *err)
{
	struct qs_crypttab *changed = NULL;
	struct qs_crypttab old = *tab;
	int r;

	r = take_text(text, size, &changed, err);
	if (r < 0)
		return r;
	*tab = *changed;
	*changed = old;
	qs_crypttab_free(changed);
	return 1;
}

/* Put NEW in place of DROP bytes at AT. Returns 1, or 0 when that changes nothing. */
static int splice(struct qs_crypttab *tab, size_t at, size_t drop, const char *new,
		  struct qs_error *err)
{
	size_t size = strlen(new);
	size_t total = tab->size - drop + size;
	char *text;

	if (size == drop && memcmp(tab->text + at, new, size) == 0)
		return 0;
	text = must_have(malloc(total + 1));
	memcpy(text, tab->text, at);
	memcpy(text + at, new, size);
	memcpy(text + at + size, tab->text + at + drop, tab->size - at - drop);
	text[total] = '\0';
	return replace_text(tab, text, total, err);
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
	FILE *out = must_have(open_memstream(&text, &text_size));

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

/* A first newline ends a last line that has none: it would run into the new one. */
static int append(struct qs_crypttab *tab, const char *const fields[FIELDS], struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *line = render("", 0, fields);
	QS_AUTO(qs_auto_free) char *text = NULL;
	bool open_end = tab->size > 0 && tab->text[tab->size - 1] != '\n';

	text = qs_printf("%s%s", open_end ? "\n" : "", line);
	return splice(tab, tab->size, 0, text, err);
}

static int change(struct qs_crypttab *tab, size_t i, const char *const fields[FIELDS],
		  struct qs_error *err)
{
	const char *line = tab->lines[i];
	size_t size = line_size(tab, line);
	QS_AUTO(qs_auto_free) char *text = render(line, size, fields);

	return splice(tab, (size_t)(line - tab->text), size, text, err);
}

/* The index of the one entry of this name; tab->count when there is none. */
static int find_only(const struct qs_crypttab *tab, const char *name, size_t *ret,
		     struct qs_error *err)
{
	size_t found = tab->count;

	for (size_t i = 0; i < tab->count; i++) {
		if (strcmp(tab->entries[i].name, name) != 0)
			continue;
		if (found < tab->count)
			return qs_fail(
				err, QS_E_FAILED,
				"crypttab has two lines for %s, %u and %u; remove the wrong one",
				name, tab->entries[found].line, tab->entries[i].line);
		found = i;
	}
	*ret = found;
	return 0;
}

int qs_crypttab_set(struct qs_crypttab *tab, const char *name, const char *device, const char *key,
		    const char *options, struct qs_error *err)
{
	const char *fields[FIELDS] = { name, device, key, options };
	size_t i;
	int r;

	r = find_only(tab, name, &i, err);
	if (r < 0)
		return r;
	if (!options && i < tab->count)
		fields[OPTIONS] = tab->entries[i].options;
	if (!fields[OPTIONS] || (!options && qs_crypttab_no_options(fields[OPTIONS])))
		fields[OPTIONS] = "luks";
	r = qs_crypttab_check(name, device, key, fields[OPTIONS], err);
	if (r < 0)
		return r;
	return i < tab->count ? change(tab, i, fields, err) : append(tab, fields, err);
}

int qs_crypttab_set_ours(const struct qs_env *env, struct qs_crypttab *tab, const char *name,
			 const char *device, const char *key, struct qs_error *err)
{
	const char *options = qs_crypttab_find(tab, name) ? NULL : env->config.crypttab_options;

	return qs_crypttab_set(tab, name, device, key, options, err);
}

int qs_crypttab_remove(struct qs_crypttab *tab, const char *name)
{
	const char *rest = tab->text;
	char *text;
	size_t size = 0;

	if (!qs_crypttab_find(tab, name))
		return 0;
	text = must_have(malloc(tab->size + 1));
	for (size_t i = 0; i < tab->count; i++) {
		size_t kept = (size_t)(tab->lines[i] - rest);

		if (strcmp(tab->entries[i].name, name) != 0)
			continue;
		memcpy(text + size, rest, kept);
		size += kept;
		rest = tab->lines[i] + line_size(tab, tab->lines[i]);
	}
	memcpy(text + size, rest, (size_t)(tab->text + tab->size - rest));
	size += (size_t)(tab->text + tab->size - rest);
	text[size] = '\0';
	/* Cannot fail: fewer lines, and each of them was parsed before. */
	return replace_text(tab, text, size, NULL);
}

int qs_crypttab_save(const struct qs_env *env, const struct qs_crypttab *tab, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, QS_CRYPTTAB);
	QS_AUTO(qs_auto_free) char *backup = qs_env_path(env, BACKUP);
	const struct qs_replace how = { .mode = 0644, .keep_as = backup };

	return qs_file_replace(path, tab->text, tab->size, &how, err);
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
