/*
 * crypttab: no text may crash the parser, and an edit changes our line only.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tab/crypttab.h"

#define NAME "enc-a"
#define DEVICE "/dev/disk/by-id/a"
#define KEY "/k/enc-a.key"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
	if (!holds)
		abort();
}

static size_t count_lines(const char *text, size_t size)
{
	size_t lines = size > 0 && text[size - 1] != '\n';

	for (size_t i = 0; i < size; i++)
		lines += text[i] == '\n';
	return lines;
}

/* Our line says what it should, exactly once, and a second time changes nothing. */
static void check_set(struct qs_crypttab *tab)
{
	const struct qs_crypttab_entry *e = qs_crypttab_find(tab, NAME);

	demand(e && strcmp(e->device, DEVICE) == 0 && strcmp(e->key, KEY) == 0 && e->options);
	demand(qs_crypttab_check(e->name, e->device, e->key, e->options, NULL) == 0);
	demand(qs_crypttab_set(tab, NAME, DEVICE, KEY, NULL, NULL) == 0);
}

/* What was there before is still there, apart from our line at the end. */
static void check_appended(const struct qs_crypttab *tab, const char *before, size_t size)
{
	size_t after_size;
	const char *after = qs_crypttab_text(tab, &after_size);

	demand(after_size > size && memcmp(after, before, size) == 0);
	demand(count_lines(after, after_size) == count_lines(before, size) + 1);
}

static void edit(struct qs_crypttab *tab, const char *before, size_t size)
{
	bool had = qs_crypttab_find(tab, NAME) != NULL;
	size_t others = qs_crypttab_count(tab);
	size_t after_size;
	int r = qs_crypttab_set(tab, NAME, DEVICE, KEY, NULL, NULL);

	if (r < 0)
		return;
	check_set(tab);
	if (!had)
		check_appended(tab, before, size);
	demand(qs_crypttab_count(tab) == others + !had);
	demand(qs_crypttab_remove(tab, NAME) == 1);
	demand(!qs_crypttab_find(tab, NAME));
	(void)qs_crypttab_text(tab, &after_size);
	if (!had)
		demand(after_size == size + (size > 0 && before[size - 1] != '\n'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	const char *text = (const char *)data;
	struct qs_error err = {};
	size_t after_size;
	const char *after;

	if (qs_crypttab_parse(text, size, &tab, &err) < 0) {
		demand(err.text[0]);
		return 0;
	}
	after = qs_crypttab_text(tab, &after_size);
	demand(after_size == size && memcmp(after, text, size) == 0);
	edit(tab, text, size);
	return 0;
}
