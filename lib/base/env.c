#define _GNU_SOURCE
#include "base/env.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const below_root[] = { "/etc/", "/run/", "/var/", "/dev/disk/" };

static bool is_below_root(const char *logical)
{
	for (size_t i = 0; i < sizeof(below_root) / sizeof(below_root[0]); i++)
		if (strncmp(logical, below_root[i], strlen(below_root[i])) == 0)
			return true;
	return false;
}

char *qs_env_path(const struct qs_env *env, const char *logical)
{
	return qs_printf("%s%s", is_below_root(logical) ? env->root : "", logical);
}

const char *qs_env_logical(const struct qs_env *env, const char *real)
{
	size_t length = strlen(env->root);

	if (length > 0 && strncmp(real, env->root, length) == 0 && is_below_root(real + length))
		return real + length;
	return real;
}

char *qs_env_absolute(const char *path)
{
	char *cwd = NULL, *result;

	if (path[0] == '/')
		return qs_strdup(path);
	cwd = getcwd(NULL, 0);
	result = qs_printf("%s/%s", cwd && strcmp(cwd, "/") != 0 ? cwd : "", path);
	free(cwd);
	return result;
}

char *qs_printf(const char *format, ...)
{
	char *text = NULL;
	va_list ap;
	int n;

	va_start(ap, format);
	n = vasprintf(&text, format, ap);
	va_end(ap);
	if (n < 0)
		abort();
	return text;
}

char *qs_strdup(const char *s)
{
	return s ? qs_printf("%s", s) : NULL;
}

void qs_env_progress(const struct qs_env *env, const char *device, const char *step, uint64_t done,
		     uint64_t total)
{
	const struct qs_progress p = { device, step, done, total };

	if (env->progress)
		env->progress(&p, env->progress_cookie);
}
