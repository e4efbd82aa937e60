#define _GNU_SOURCE
#include "ops/bundle-plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/utf8.h"

/* Bytes; one with every setting and its meaning has four thousand. */
#define CONFIG_MAX (1U << 20)

struct planning {
	const struct qs_keyrestore_options *options;
	struct qs_restore_plan *plan;
	bool *found; /* for each of options->only: something of that name is in the bundle */
};

/* ---- which files are meant ---- */

/* "enc-1.key", an old version "enc-1.key.1", "enc-1.header": files of the device enc-1. */
static bool is_named(const char *member, const char *name)
{
	const char *file = qs_member_file(member);
	size_t length = strlen(name);

	if (strncmp(file, name, length) != 0)
		return false;
	file += length;
	return strcmp(file, ".key") == 0 || strncmp(file, ".key.", 5) == 0 ||
	       strcmp(file, ".header") == 0;
}

static bool is_key_of(const struct qs_manifest *m, const char *member, const char *name)
{
	for (size_t i = 0; i < m->count; i++)
		if (strcmp(m->devices[i].name, name) == 0 && strcmp(m->devices[i].key, member) == 0)
			return true;
	return false;
}

static bool is_wanted(const struct planning *p, const struct qs_manifest *m, const char *member)
{
	bool wanted = p->options->only_count == 0;

	for (size_t i = 0; i < p->options->only_count; i++) {
		const char *name = p->options->only[i];

		if (!is_named(member, name) && !is_key_of(m, member, name))
			continue;
		p->found[i] = true;
		wanted = true;
	}
	return wanted;
}

static bool has_device(const struct qs_manifest *m, const char *name)
{
	for (size_t i = 0; i < m->count; i++)
		if (strcmp(m->devices[i].name, name) == 0)
			return true;
	return false;
}

static int check_found(const struct planning *p, const struct qs_manifest *m, struct qs_error *err)
{
	for (size_t i = 0; i < p->options->only_count; i++)
		if (!p->found[i] && !has_device(m, p->options->only[i]))
			return qs_fail(err, QS_E_FAILED, "%s: there is nothing of %s in it",
				       p->options->file, p->options->only[i]);
	return 0;
}

/* ---- the configuration, which says where keys and headers go ---- */

/* As it was installed: every setting commented out. */
static bool is_pristine(const char *real)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);
	bool same;

	if (!f)
		return false;
	qs_config_describe(f);
	same = fclose(f) == 0 && qs_file_equals(real, text, size, NULL) == 1;
	free(text);
	return same;
}

static enum qs_restore_action config_action(const struct qs_keyrestore_options *o, const char *real)
{
	if (o->force || is_pristine(real))
		return QS_RESTORE_REPLACE;
	return QS_RESTORE_KEEP;
}

/* Returns the action, or -errno. */
static int compare(const struct qs_keyrestore_options *o, const char *real,
		   const struct qs_member *m, struct qs_error *err)
{
	struct qs_error own = {};
	int r = qs_file_equals(real, m->content.data, m->content.size, &own);

	if (r == -ENOENT || r == -ENOTDIR)
		return QS_RESTORE_CREATE;
	if (r < 0) {
		*err = own;
		return r;
	}
	if (r == 1)
		return QS_RESTORE_SAME;
	if (m->kind == QS_MEMBER_CONFIG)
		return config_action(o, real);
	if (m->kind == QS_MEMBER_KEY)
		return o->force ? QS_RESTORE_REPLACE : QS_RESTORE_CONFLICT;
	return QS_RESTORE_KEEP;
}

static int use_config(struct qs_restore_plan *plan, const struct qs_member *m, struct qs_error *err)
{
	const char *content = m->content.data ? m->content.data : "";
	QS_AUTO(qs_auto_free) char *text = NULL;

	if (m->content.size > CONFIG_MAX)
		return qs_fail(err, QS_E_CONFIG, "the configuration in the bundle is too large");
	text = qs_printf("%.*s", (int)m->content.size, content);
	qs_config_init(&plan->env.config);
	plan->own_config = true;
	return qs_config_parse(&plan->env.config, text, "the configuration in the bundle", err);
}

/* It comes before keys and headers in the archive, but a forged one may have it elsewhere. */
static int look_at_config(struct qs_member *m, void *cookie, struct qs_error *err)
{
	struct planning *p = cookie;
	QS_AUTO(qs_auto_free) char *real = NULL;
	int r;

	if (m->kind != QS_MEMBER_CONFIG)
		return 0;
	real = qs_env_path(&p->plan->env, QS_CONFIG_FILE);
	r = compare(p->options, real, m, err);
	if (r == QS_RESTORE_CREATE || r == QS_RESTORE_REPLACE)
		r = use_config(p->plan, m, err);
	return r < 0 ? r : 1;
}

/* ---- files ---- */

static char *path_of(const struct qs_config *config, const struct qs_member *m)
{
	switch (m->kind) {
	case QS_MEMBER_CONFIG:
		return qs_strdup(QS_CONFIG_FILE);
	case QS_MEMBER_KEY:
		return qs_printf("%s/%s", config->keys_dir, qs_member_file(m->name));
	case QS_MEMBER_HEADER:
		return qs_printf("%s/%s", config->headers_dir, qs_member_file(m->name));
	case QS_MEMBER_STORE:
		return qs_printf("%s/%s", QS_CONF_DIR, m->name + strlen(QS_MEMBER_CONF));
	default:
		return NULL;
	}
}

struct file_walk {
	struct planning *p;
	const struct qs_manifest *manifest;
};

static int plan_member(struct qs_member *m, void *cookie, struct qs_error *err)
{
	const struct file_walk *w = cookie;
	struct qs_restore_plan *plan = w->p->plan;
	QS_AUTO(qs_auto_free) char *path = path_of(&plan->env.config, m);
	QS_AUTO(qs_auto_free) char *real = path ? qs_env_path(&plan->env, path) : NULL;
	struct qs_restore_item *grown;
	int action;

	if (!path || !is_wanted(w->p, w->manifest, m->name))
		return 0;
	if (m->kind == QS_MEMBER_KEY && !m->content.data)
		return qs_fail(err, QS_E_FAILED, "the key '%s' in it is empty", m->name);
	action = compare(w->p->options, real, m, err);
	if (action < 0)
		return action;
	grown = reallocarray(plan->items, plan->count + 1, sizeof(*grown));
	if (!grown)
		return qs_fail(err, QS_E_MEMORY, "no memory for the files in the bundle");
	plan->items = grown;
	grown[plan->count++] = (struct qs_restore_item){
		.member = qs_strdup(m->name),
		.path = QS_TAKE(path),
		.kind = m->kind,
		.action = (enum qs_restore_action)action,
	};
	return 0;
}

/* ---- lines ---- */

static bool same_text(const char *a, const char *b)
{
	return a && b && strcmp(a, b) == 0;
}

enum qs_restore_action qs_restore_line_action(const struct qs_crypttab *tab,
					      const struct qs_restore_line *l, bool force)
{
	const struct qs_crypttab_entry *e = qs_crypttab_find(tab, l->device->name);

	if (e && same_text(e->device, l->device->device) && same_text(e->key, l->key))
		return QS_RESTORE_SAME;
	if (e)
		return force ? QS_RESTORE_REPLACE : QS_RESTORE_KEEP;
	/* One device under two names opens under one of them only. */
	for (size_t i = 0; i < qs_crypttab_count(tab); i++)
		if (same_text(qs_crypttab_get(tab, i)->device, l->device->device))
			return QS_RESTORE_KEEP;
	return QS_RESTORE_CREATE;
}

static const struct qs_restore_item *item_of(const struct qs_restore_plan *plan, const char *member)
{
	for (size_t i = 0; i < plan->count; i++)
		if (strcmp(plan->items[i].member, member) == 0)
			return &plan->items[i];
	return NULL;
}

/* A line without a key file: only its own name tells whether it was asked for. */
static bool is_wanted_line(const struct planning *p, const char *name)
{
	for (size_t i = 0; i < p->options->only_count; i++)
		if (strcmp(p->options->only[i], name) == 0)
			return true;
	return p->options->only_count == 0;
}

static int plan_lines(struct planning *p, const struct qs_manifest *m, struct qs_error *err)
{
	struct qs_restore_plan *plan = p->plan;
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	int r = qs_crypttab_load(&plan->env, &tab, err);

	if (r < 0)
		return r;
	plan->lines = calloc(m->count + 1, sizeof(*plan->lines));
	if (!plan->lines)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu lines", m->count);
	for (size_t i = 0; i < m->count; i++) {
		const struct qs_manifest_device *d = &m->devices[i];
		const struct qs_restore_item *key = item_of(plan, d->key);
		struct qs_restore_line *l = &plan->lines[plan->line_count];

		/* Not asked for, or a line whose key the bundle does not have. */
		if (!d->in_crypttab || (*d->key ? !key : !is_wanted_line(p, d->name)))
			continue;
		plan->line_count++;
		l->device = d;
		l->key = qs_strdup(key ? key->path : QS_CRYPTTAB_NO_KEY);
		l->action = qs_restore_line_action(tab, l, p->options->force);
		r = qs_crypttab_check(d->name, d->device, l->key, "luks", err);
		if (r < 0)
			return r;
	}
	return 0;
}

int qs_restore_plan_make(const struct qs_env *env, const struct qs_keyrestore_options *options,
			 struct qs_bundle *b, struct qs_restore_plan *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) bool *found = calloc(options->only_count + 1, sizeof(*found));
	struct planning p = { options, ret, found };
	struct file_walk files = { &p, qs_bundle_manifest(b) };
	int r = 0;

	if (!found)
		return qs_fail(err, QS_E_MEMORY, "no memory for the names");
	ret->env = *env;
	if (options->only_count == 0)
		r = qs_bundle_each(b, look_at_config, &p, err);
	if (r >= 0)
		r = qs_bundle_each(b, plan_member, &files, err);
	if (r == 0)
		r = check_found(&p, files.manifest, err);
	return r < 0 ? r : plan_lines(&p, files.manifest, err);
}

size_t qs_restore_count(const struct qs_restore_plan *plan, enum qs_restore_action action)
{
	size_t n = 0;

	for (size_t i = 0; i < plan->count; i++)
		n += plan->items[i].action == action;
	for (size_t i = 0; i < plan->line_count; i++)
		n += plan->lines[i].action == action;
	return n;
}

static const char *const action_names[] = {
	[QS_RESTORE_CREATE] = "create",     [QS_RESTORE_SAME] = "same",
	[QS_RESTORE_REPLACE] = "replace",   [QS_RESTORE_KEEP] = "keep",
	[QS_RESTORE_CONFLICT] = "conflict",
};

static const char *const kind_names[QS_MEMBER_KINDS] = {
	[QS_MEMBER_MANIFEST] = "manifest", [QS_MEMBER_CRYPTTAB] = "crypttab",
	[QS_MEMBER_FSTAB] = "fstab",       [QS_MEMBER_CONFIG] = "configuration",
	[QS_MEMBER_KEY] = "key",           [QS_MEMBER_HEADER] = "header",
	[QS_MEMBER_STORE] = "keystore",
};

json_t *qs_restore_plan_json(const struct qs_restore_plan *plan)
{
	json_t *items = json_array();

	for (size_t i = 0; i < plan->count; i++)
		(void)json_array_append_new(
			items, json_pack("{s:o,s:s,s:s}", "path", qs_utf8_json(plan->items[i].path),
					 "kind", kind_names[plan->items[i].kind], "action",
					 action_names[plan->items[i].action]));
	for (size_t i = 0; i < plan->line_count; i++)
		(void)json_array_append_new(
			items, json_pack("{s:s,s:s,s:o,s:s}", "path", QS_CRYPTTAB, "kind",
					 kind_names[QS_MEMBER_CRYPTTAB], "name",
					 qs_utf8_json(plan->lines[i].device->name), "action",
					 action_names[plan->lines[i].action]));
	return items;
}

void qs_restore_plan_done(struct qs_restore_plan *plan)
{
	for (size_t i = 0; i < plan->count; i++) {
		free(plan->items[i].member);
		free(plan->items[i].path);
	}
	for (size_t i = 0; i < plan->line_count; i++)
		free(plan->lines[i].key);
	free(plan->items);
	free(plan->lines);
	if (plan->own_config)
		qs_config_done(&plan->env.config);
	*plan = (struct qs_restore_plan){};
}
