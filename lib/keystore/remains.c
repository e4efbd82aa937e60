/*
 * What is left of a keystore whose keystore.json is lost. It may be all that still opens
 * devices, so it is never taken for no keystore.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "keystore/provider.h"

/* N.kek and what else keeps a generation. */
static bool is_generation(const char *name)
{
	size_t digits = strspn(name, "0123456789");
	const struct qs_provider *p;

	if (digits == 0 || name[digits] != '.')
		return false;
	for (size_t i = 0; (p = qs_provider_at(i)); i++)
		if (strcmp(name + digits + 1, p->suffix) == 0)
			return true;
	return strcmp(name + digits, ".lease") == 0;
}

/* Returns 1 found, 0 nothing. A directory that cannot be read to its end may hold anything. */
static int find(DIR *d, bool any, char ret[NAME_MAX + 1], struct qs_error *err)
{
	const struct dirent *e;

	while (errno = 0, (e = readdir(d))) {
		if (e->d_name[0] == '.' || !(any || is_generation(e->d_name)))
			continue;
		(void)snprintf(ret, NAME_MAX + 1, "%s", e->d_name);
		return 1;
	}
	return errno == 0
		       ? 0
		       : qs_fail_errno(err, errno, "cannot read the directory %s", QS_KEYSTORE_DIR);
}

int qs_keystore_refuse_remains(const struct qs_env *env, bool any, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, QS_KEYSTORE_DIR);
	QS_AUTO(qs_auto_closedir) DIR *d = opendir(real);
	char name[NAME_MAX + 1];
	int r;

	if (!d && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (!d)
		return qs_fail_errno(err, errno, "cannot read the directory %s", QS_KEYSTORE_DIR);
	r = find(d, any, name, err);
	return r == 1 ? qs_fail(err, QS_E_CONFIG,
				"%s holds %s but no keystore.json: put that back from a key bundle "
				"(keyrestore)%s",
				QS_KEYSTORE_DIR, name,
				/* Who wants to open a disk shall not be told to lose its key. */
				any ? ", or move the directory away if nothing needs it" : "")
		      : r;
}

bool qs_keystore_is_there(const struct qs_env *env)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, QS_KEYSTORE_FILE);

	/* What a bad disk hides is not absent: loading it says what is wrong. */
	if (env->held || access(real, F_OK) == 0 || errno == EIO)
		return true;
	return qs_keystore_refuse_remains(env, false, NULL) < 0;
}
