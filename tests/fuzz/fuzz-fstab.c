/*
 * fstab: no text may crash the reader or the editor, and an edit changes the
 * first field of its line and nothing else.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tab/fstab.h"

#define SOURCE "/dev/mapper/enc-a"
#define LINE SOURCE "  none  swap  sw  0  0\n"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
	if (!holds)
		abort();
}

static int visit(const struct qs_fstab_entry *e, void *cookie)
{
	unsigned *last = cookie;

	demand(e->line > *last && e->source && e->target && e->type && e->options);
	*last = e->line;
	return 0;
}

/* BEFORE and AFTER are alike up to a place and from a place on; between them is SOURCE. */
static void check_changed(const char *before, size_t before_size, const char *after,
			  size_t after_size)
{
	size_t head = 0, tail = 0;
	size_t source = strlen(SOURCE);

	while (head < before_size && head < after_size && before[head] == after[head])
		head++;
	while (tail < before_size - head && tail < after_size - head &&
	       before[before_size - 1 - tail] == after[after_size - 1 - tail])
		tail++;
	/* What happens to be the same at both ends of the field counts as unchanged. */
	demand(after_size - head - tail <= source);
}

static void check_set(struct qs_fstab *tab, size_t i, const char *before, size_t before_size)
{
	size_t count = qs_fstab_count(tab), size;
	unsigned line = qs_fstab_get(tab, i)->line;
	const char *text;
	int r = qs_fstab_set_source(tab, i, SOURCE, NULL);

	if (r < 0)
		return;
	demand(qs_fstab_count(tab) == count);
	demand(strcmp(qs_fstab_get(tab, i)->source, SOURCE) == 0);
	demand(qs_fstab_get(tab, i)->line == line);
	text = qs_fstab_text(tab, &size);
	check_changed(before, before_size, text, size);
	demand(qs_fstab_set_source(tab, i, SOURCE, NULL) == 0);
}

static void check_add(struct qs_fstab *tab)
{
	size_t count = qs_fstab_count(tab), before, after;
	const char *text;

	(void)qs_fstab_text(tab, &before);
	demand(qs_fstab_add_swap(tab, SOURCE, "sw", NULL) == 1);
	text = qs_fstab_text(tab, &after);
	demand(qs_fstab_count(tab) == count + 1);
	demand(after >= before + strlen(LINE) && after <= before + strlen(LINE) + 1);
	demand(memcmp(text + after - strlen(LINE), LINE, strlen(LINE)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	QS_AUTO(qs_auto_fstab) struct qs_fstab *tab = NULL;
	const char *text = (const char *)data;
	struct qs_error err = {};
	unsigned last = 0;
	const char *kept;
	size_t kept_size;

	demand(qs_fstab_each_text(text, size, visit, &last) == 0);
	if (qs_fstab_parse(text, size, &tab, &err) < 0) {
		demand(err.text[0]);
		return 0;
	}
	kept = qs_fstab_text(tab, &kept_size);
	demand(kept_size == size && memcmp(kept, text, size) == 0);
	if (qs_fstab_count(tab) > 0)
		check_set(tab, size % qs_fstab_count(tab), text, size);
	check_add(tab);
	return 0;
}
