#define _GNU_SOURCE
#include "key/place.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <libmount.h>

#include "base/cleanup.h"
#include "tab/fstab.h"

/* ---- what should be mounted ---- */

static bool is_mounted(const struct qs_env *env, const char *target)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, target);
	struct libmnt_table *all = mnt_new_table_from_file("/proc/self/mountinfo");
	bool found = all && mnt_table_find_target(all, real, MNT_ITER_BACKWARD);

	mnt_unref_table(all);
	return found;
}

/* PATH is TARGET or below it; TARGET may end with slashes, "/" itself does not count. */
static bool is_below(const char *path, const char *target)
{
	size_t n = strlen(target);

	while (n > 0 && target[n - 1] == '/')
		n--;
	return n > 0 && strncmp(path, target, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

bool qs_key_is_in_dir(const struct qs_env *env, const char *path)
{
	return is_below(path, env->config.keys_dir);
}

struct mount_search {
	const struct qs_env *env;
	const char *path;
	char *missing;
};

static int look_at_line(const struct qs_fstab_entry *e, void *cookie)
{
	struct mount_search *s = cookie;
	QS_AUTO(qs_auto_free) char *target = qs_strdup(e->target);

	if (!is_below(s->path, target))
		return 0;
	for (size_t n = strlen(target); target[n - 1] == '/'; n--)
		target[n - 1] = '\0';
	if (is_mounted(s->env, target))
		return 0;
	s->missing = qs_printf("%s, which " QS_FSTAB " mounts, is not mounted", target);
	return 1;
}

/* The name of the unit that mounts PATH (systemd.unit(5), "string escaping"). */
static char *unit_of(const char *path)
{
	char *name = NULL;
	size_t size;
	FILE *out = open_memstream(&name, &size);

	if (!out)
		abort();
	for (const char *p = path + 1; *p; p++) {
		bool plain = isalnum((unsigned char)*p) || strchr(":_", *p) ||
			     (*p == '.' && p > path + 1);

		if (plain || *p == '/')
			fputc(plain ? *p : '-', out);
		else
			fprintf(out, "\\x%02x", (unsigned char)*p);
	}
	fputs(".mount", out);
	if (fclose(out) != 0)
		abort();
	return name;
}

/* A masked unit is a link to /dev/null. */
static bool has_unit(const struct qs_env *env, const char *path)
{
	static const char *const places[] = { "/etc/systemd/system", "/run/systemd/system",
					      "/usr/local/lib/systemd/system",
					      "/usr/lib/systemd/system" };
	QS_AUTO(qs_auto_free) char *unit = unit_of(path);

	for (size_t i = 0; i < QS_ARRAY_SIZE(places); i++) {
		QS_AUTO(qs_auto_free) char *logical = qs_printf("%s/%s", places[i], unit);
		QS_AUTO(qs_auto_free) char *real = qs_env_path(env, logical);
		struct stat st;

		/* What is not below --root says nothing about it. */
		if (*env->root && strcmp(real, logical) == 0)
			continue;
		if (stat(real, &st) == 0)
			return S_ISREG(st.st_mode);
	}
	return false;
}

static char *missing_by_unit(const struct qs_env *env, const char *path)
{
	QS_AUTO(qs_auto_free) char *target = qs_strdup(path);
	char *end;

	for (; *target; *end = '\0') {
		if (has_unit(env, target) && !is_mounted(env, target)) {
			QS_AUTO(qs_auto_free) char *unit = unit_of(target);

			return qs_printf("%s, which the unit %s mounts, is not mounted", target,
					 unit);
		}
		end = strrchr(target, '/');
	}
	return NULL;
}

char *qs_key_missing_mount(const struct qs_env *env, const char *path)
{
	struct mount_search s = { .env = env, .path = path };

	if (path[0] != '/')
		return NULL;
	(void)qs_fstab_each(env, look_at_line, &s, NULL);
	return s.missing ? s.missing : missing_by_unit(env, path);
}

/* ---- is it on a file system of its own? ---- */

static int look_at_target(const struct qs_fstab_entry *e, void *cookie)
{
	return is_below(cookie, e->target) && !is_below(QS_CRYPTTAB, e->target);
}

static bool will_be_apart(const struct qs_env *env, const char *path)
{
	QS_AUTO(qs_auto_free) char *target = qs_strdup(path);

	if (qs_fstab_each(env, look_at_target, target, NULL) > 0)
		return true;
	for (; *target; *strrchr(target, '/') = '\0')
		if (!is_below(QS_CRYPTTAB, target) && has_unit(env, target))
			return true;
	return false;
}

/*
 * The mount point that a real path is below, as the kernel has it now: the longest
 * one. By its letters alone; libmount's own search would touch the path.
 */
static const char *mount_of(struct libmnt_table *all, const char *real)
{
	struct libmnt_iter *iter = mnt_new_iter(MNT_ITER_FORWARD);
	const char *found = "/", *target;
	struct libmnt_fs *fs;

	while (iter && mnt_table_next_fs(all, iter, &fs) == 0) {
		target = mnt_fs_get_target(fs);
		if (target && is_below(real, target) && strlen(target) > strlen(found))
			found = target;
	}
	mnt_free_iter(iter);
	return found;
}

static bool is_apart_now(const struct qs_env *env, const char *path)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
	QS_AUTO(qs_auto_free) char *home = qs_env_path(env, QS_CRYPTTAB);
	struct libmnt_table *all = mnt_new_table_from_file("/proc/self/mountinfo");
	bool apart = all && strcmp(mount_of(all, real), mount_of(all, home)) != 0;

	mnt_unref_table(all);
	return apart;
}

bool qs_key_is_apart(const struct qs_env *env, const char *path)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
	QS_AUTO(qs_auto_free) char *target = NULL;
	const char *logical;

	if (is_apart_now(env, path) || will_be_apart(env, path))
		return true;
	target = realpath(real, NULL);
	if (!target)
		return false;
	logical = qs_env_logical(env, target);
	return is_apart_now(env, logical) || will_be_apart(env, logical);
}

/* ---- its line in crypttab ---- */

bool qs_key_holds_boot(const struct qs_env *env, const struct qs_crypttab_entry *e)
{
	return e->key && e->key[0] == '/' && !qs_crypttab_has_option(e->options, "nofail") &&
	       !qs_crypttab_has_option(e->options, "noauto") && qs_key_is_apart(env, e->key);
}

char *qs_key_line_options(const struct qs_env *env, const char *key, const char *options)
{
	const struct qs_crypttab_entry e = { .key = key, .options = options };

	if (strcmp(key, QS_CRYPTTAB_NO_KEY) == 0 && !qs_crypttab_has_option(options, "noauto"))
		return qs_printf("%s,noauto", options);
	return qs_key_holds_boot(env, &e) ? qs_printf("%s,nofail", options) : qs_strdup(options);
}

int qs_key_set_line(const struct qs_env *env, struct qs_crypttab *tab, const char *name,
		    const char *device, const char *key, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *options = NULL;

	if (!qs_crypttab_find(tab, name))
		options = qs_key_line_options(env, key, env->config.crypttab_options);
	return qs_crypttab_set(tab, name, device, key, options, err);
}
