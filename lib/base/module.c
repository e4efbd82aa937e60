#define _GNU_SOURCE
#include "base/module.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/env.h"

/* Beside what we look, and where from there the installed ones are. */
static const char *own_file = "/proc/self/exe";
static const char *installed_dir = QS_MODULE_DIR;

void qs_module_look_beside(const char *file, const char *installed)
{
	own_file = file;
	installed_dir = installed;
}

/* The directory beside the running program, or the installed one; malloc'ed, NULL: neither. */
static char *module_dir(void)
{
	QS_AUTO(qs_auto_free) char *program = realpath(own_file, NULL);
	QS_AUTO(qs_auto_free) char *beside = NULL;
	QS_AUTO(qs_auto_free) char *installed = NULL;
	char *slash = program ? strrchr(program, '/') : NULL;

	if (!slash)
		return NULL;
	*slash = '\0';
	beside = qs_printf("%s/modules", program);
	installed = qs_printf("%s/%s", program, installed_dir);
	return realpath(access(beside, F_OK) == 0 ? beside : installed, NULL);
}

static int check_trusted(const char *path, mode_t type, struct qs_error *err)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return qs_fail_errno(err, errno, "cannot load %s", path);
	if ((st.st_mode & S_IFMT) != type)
		return qs_fail(err, QS_E_NOT_PERMITTED, "%s is no %s", path,
			       type == S_IFDIR ? "directory" : "regular file");
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return qs_fail(err, QS_E_NOT_PERMITTED,
			       "%s belongs to user %u and is not loaded; it has to be root's", path,
			       (unsigned)st.st_uid);
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return qs_fail(err, QS_E_NOT_PERMITTED,
			       "others than its owner may write to %s, so it is not loaded; use "
			       "chmod go-w",
			       path);
	return 0;
}

static int find(const char *name, char **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *dir = module_dir();
	QS_AUTO(qs_auto_free) char *path = NULL;
	int r;

	if (dir)
		path = qs_printf("%s/%s.so", dir, name);
	if (!path || access(path, F_OK) < 0)
		return qs_fail(err, QS_E_FAILED,
			       "this needs the module %s, which is not installed beside qs-util",
			       name);
	r = check_trusted(dir, S_IFDIR, err);
	if (r == 0)
		r = check_trusted(path, S_IFREG, err);
	if (r == 0)
		*ret = QS_TAKE(path);
	return r;
}

int qs_module_load(const char *name, const char *symbol, unsigned version,
		   const struct qs_module **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = NULL;
	const struct qs_module *module;
	void *handle;
	int r = find(name, &path, err);

	if (r < 0)
		return r;
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!handle)
		return qs_fail(err, QS_E_FAILED,
			       "cannot load the module %s; are the libraries that it needs "
			       "installed? %s",
			       name, dlerror());
	module = dlsym(handle, symbol);
	if (!module || module->version != version) {
		(void)dlclose(handle);
		return qs_fail(err, QS_E_FAILED,
			       "the module %s is of another version; install it anew", path);
	}
	*ret = module;
	return 0;
}
