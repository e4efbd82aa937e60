/*
 * cryptrestore: what would change, for the question before it and for --dry-run.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "luks/fields.h"
#include "ops/restore.h"

static const char *const kinds[] = {
	[QS_RESTORE_BACKUP] = "backup",
	[QS_RESTORE_FILE] = "file",
	[QS_RESTORE_COPY] = "copy",
};

static json_t *keyslots(const struct qs_luks_header *h)
{
	struct qs_luks_area areas[QS_LUKS_AREAS_MAX];
	size_t n = qs_luks_areas(h, areas, QS_LUKS_AREAS_MAX);
	json_t *list = json_array();

	for (int slot = 0; slot < QS_LUKS_AREAS_MAX; slot++)
		for (size_t i = 0; i < n; i++)
			if (areas[i].slot == slot)
				(void)json_array_append_new(list, json_integer(slot));
	return list;
}

/* "0 systemd-tpm2" */
static json_t *tokens(const struct qs_luks_header *h)
{
	json_t *object = json_object_get(h->json, "tokens"), *list = json_array();
	const char *number, *type;
	json_t *token;

	json_object_foreach(object, number, token)
	{
		QS_AUTO(qs_auto_free) char *text = NULL;
		char safe[32];

		type = qs_fields_text(token, "type");
		type = type ? type : "?";
		text = qs_printf("%d %s", qs_fields_slot(number),
				 qs_fields_printable(safe, sizeof(safe), type, strlen(type)));
		(void)json_array_append_new(list, qs_utf8_json(text));
	}
	return list;
}

static char *joined(const json_t *list)
{
	QS_AUTO(qs_auto_free) char *text = qs_strdup("");
	const json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		const char *separator = i ? "," : "";
		char *more = json_is_integer(item) ? qs_printf("%s%s%lld", text, separator,
							       (long long)json_integer_value(item))
						   : qs_printf("%s%s%s", text, separator,
							       json_string_value(item));

		free(text);
		text = more;
	}
	return *text ? QS_TAKE(text) : qs_strdup("none");
}

struct description {
	json_t *changes;
	char *text; /* clauses, each behind "; " */
};

static void add_clause(struct description *d, char *clause)
{
	char *more = qs_printf("%s; %s", d->text, clause);

	free(clause);
	free(d->text);
	d->text = more;
}

/* Takes FROM and TO. */
static void add_change(struct description *d, const char *key, json_t *from, json_t *to)
{
	QS_AUTO(qs_auto_free) char *a = json_is_array(from) ? joined(from) : NULL;
	QS_AUTO(qs_auto_free) char *b = json_is_array(to) ? joined(to) : NULL;

	if (json_equal(from, to) || (!from && json_is_array(to) && json_array_size(to) == 0)) {
		json_decref(from);
		json_decref(to);
		return;
	}
	if (!a)
		a = json_is_integer(from) ? qs_printf("%lld", (long long)json_integer_value(from))
					  : qs_strdup(from ? json_string_value(from) : "unknown");
	if (!b)
		b = json_is_integer(to) ? qs_printf("%lld", (long long)json_integer_value(to))
					: qs_strdup(json_string_value(to));
	add_clause(d, qs_printf("%s %s -> %s", key, a, b));
	(void)json_object_set_new(d->changes, key, json_pack("{s:o*,s:o}", "from", from, "to", to));
}

static void describe_repair(const struct qs_restore_target *t, struct description *d)
{
	json_t *list = json_array();

	for (int slot = 0; slot < QS_LUKS_AREAS_MAX; slot++)
		if (t->repaired & 1U << slot)
			(void)json_array_append_new(list, json_integer(slot));
	if (json_array_size(list) > 0) {
		QS_AUTO(qs_auto_free) char *slots = joined(list);

		add_clause(d, qs_printf("damaged key material of keyslot %s replaced", slots));
	}
	(void)json_object_set_new(d->changes, "repaired", list);
}

static void describe_changes(const struct qs_restore_target *t, struct description *d)
{
	const struct qs_luks_header *has = &t->has, *gets = &t->from.h;
	bool known = t->present.data;

	add_change(d, "uuid", has->uuid[0] ? json_string(has->uuid) : NULL,
		   json_string(gets->uuid));
	if (gets->version == 2)
		add_change(d, "sequence",
			   known && has->version == 2 ? json_integer((json_int_t)has->seqid) : NULL,
			   json_integer((json_int_t)gets->seqid));
	add_change(d, "keyslots", known ? keyslots(has) : NULL, keyslots(gets));
	add_change(d, "tokens", known ? tokens(has) : NULL, tokens(gets));
	describe_repair(t, d);
}

static json_t *describe_source(const struct qs_restore_target *t)
{
	json_t *source = json_pack("{s:s}", "kind", kinds[t->source]);

	if (t->from.path) {
		(void)json_object_set_new(source, "path", qs_utf8_json(t->from.path));
		(void)json_object_set_new(source, "time", qs_json_time(t->from.time));
	}
	if (t->from.h.version == 2)
		(void)json_object_set_new(source, "sequence",
					  json_integer((json_int_t)t->from.h.seqid));
	return source;
}

static char *summary(const struct qs_restore_target *t, const char *changes)
{
	QS_AUTO(qs_auto_json) json_t *time = qs_json_time(t->from.time);
	QS_AUTO(qs_auto_free)
	char *source = t->source == QS_RESTORE_COPY
			       ? qs_strdup("from what is intact on the device")
			       : qs_printf("from %s of %s", t->from.path, json_string_value(time));

	return qs_printf("%s%s%s", t->begun ? "finishing an interrupted restore " : "", source,
			 changes);
}

void qs_restore_describe(const struct qs_restore_target *t, struct qs_outcome *o)
{
	struct description d = { json_object(), qs_strdup("") };
	QS_AUTO(qs_auto_free) char *note = NULL;

	describe_changes(t, &d);
	if (t->same && !t->begun)
		note = t->source == QS_RESTORE_COPY
			       ? qs_strdup("the header is intact")
			       : qs_printf("the header is that of %s", t->from.path);
	else
		note = summary(t, d.text);
	free(d.text);
	qs_outcome_set(&o->note, note);
	qs_outcome_set(&o->uuid, t->from.h.uuid);
	qs_outcome_detail(o, "same", json_boolean(t->same && !t->begun));
	qs_outcome_detail(o, "source", describe_source(t));
	qs_outcome_detail(o, "changes", d.changes);
	if (t->damage)
		qs_outcome_detail(o, "damage", qs_utf8_json(t->damage));
}
