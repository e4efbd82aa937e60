/*
 * cryptstatus of a swap with a new key at each start: it has no header, so all that
 * can be said is what the tables and the kernel say of it. Reads only.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "device/swaps.h"
#include "ops/journal.h"
#include "ops/status.h"
#include "tab/fstab.h"

struct subject {
	const struct qs_env *env;
	const struct qs_crypttab_entry *line;
	const struct qs_device *dev; /* NULL: absent */
	struct qs_outcome *outcome;
};

#define warn(s, ...) qs_outcome_warn((s)->outcome, __VA_ARGS__)

static void add_number(const struct subject *s, const char *word, const char *field)
{
	QS_AUTO(qs_auto_free) char *value = qs_crypttab_option(s->line->options, word);

	if (value)
		qs_outcome_detail(s->outcome, field, json_integer(strtol(value, NULL, 10)));
}

static void add_options(const struct subject *s)
{
	QS_AUTO(qs_auto_free) char *cipher = qs_crypttab_option(s->line->options, "cipher");

	if (cipher)
		qs_outcome_detail(s->outcome, "cipher", qs_utf8_json(cipher));
	add_number(s, "size", "key_size");
	add_number(s, "sector-size", "sector_size");
}

static int is_swap_of(const struct qs_fstab_entry *e, void *mapper)
{
	return strcmp(e->type, "swap") == 0 && strcmp(e->source, mapper) == 0;
}

static void look_at_tables(const struct subject *s)
{
	QS_AUTO(qs_auto_free) char *mapper = qs_printf("/dev/mapper/%s", s->line->name);
	QS_AUTO(qs_journal_done) struct qs_journal journal = {};
	struct qs_error err = {};
	int r = qs_fstab_each(s->env, is_swap_of, mapper, &err);

	if (r < 0)
		warn(s, "%s", err.text);
	if (r == 0)
		warn(s, QS_FSTAB " has no line for %s: nothing switches it on", mapper);
	r = qs_journal_read(s->env, s->line->name, &journal, &err);
	if (r < 0)
		warn(s, "%s", err.text);
	if (r > 0)
		warn(s, "a %s was begun and not finished: run `qs-util crypt%s %s` again",
		     journal.op, journal.op, journal.link);
}

/* What is swap now: the mapping, as it should be, or the device below it. */
static const char *find_state(const struct subject *s, const struct qs_mapping *m)
{
	QS_AUTO(qs_swap_list_done) struct qs_swap_list swaps = {};
	QS_AUTO(qs_auto_free) char *node = m ? qs_printf("/dev/%s", m->dm) : NULL;
	struct qs_error err = {};
	struct stat st;

	if (!s->dev)
		return "absent";
	/* What is active here says nothing about another tree. */
	if (*s->env->root == '\0' && qs_swaps_read(&swaps, &err) < 0)
		warn(s, "%s", err.text);
	if (qs_swaps_find(&swaps, s->dev->devno))
		warn(s,
		     "%s is swap without encryption now: run `qs-util cryptswap --now %s` to "
		     "overwrite what is on it",
		     s->dev->node, s->line->device);
	return node && stat(node, &st) == 0 && qs_swaps_find(&swaps, st.st_rdev) ? "swap"
										 : "swap-off";
}

void qs_status_swap(const struct qs_status *st, const struct qs_crypttab_entry *line,
		    const struct qs_device *dev, struct qs_outcome *o)
{
	const struct subject s = { st->env, line, dev, o };
	const struct qs_mapping *m = qs_mapping_by_name(&st->mappings, line->name);

	if (dev)
		qs_outcome_set_device(o, dev);
	if (strncmp(line->device, "/dev/disk/", strlen("/dev/disk/")) == 0)
		qs_outcome_set(&o->by_id, line->device);
	qs_outcome_set(&o->name, line->name);
	qs_outcome_detail(o, "state", json_string(find_state(&s, m)));
	if (m)
		qs_outcome_detail(o, "mapper", qs_utf8_json(m->name));
	add_options(&s);
	look_at_tables(&s);
	qs_outcome_detail(o, "crypttab",
			  json_pack("{s:i,s:b}", "line", (int)line->line, "agrees", 1));
}
