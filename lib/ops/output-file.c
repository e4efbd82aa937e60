#define _GNU_SOURCE
#include "ops/output-file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"

/* The real path of the file that the user typed. */
static char *real_of(const struct qs_env *env, const char *typed)
{
	QS_AUTO(qs_auto_free) char *absolute = qs_env_absolute(typed);

	return qs_env_path(env, absolute);
}

int qs_output_file_check(const struct qs_env *env, const struct qs_output_file *to,
			 struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = to->file ? real_of(env, to->file) : NULL;
	struct stat st;

	if (real && stat(real, &st) == 0 && !S_ISREG(st.st_mode))
		return qs_fail(err, QS_E_FAILED,
			       "%s is not a regular file; name a file that can be kept, or - for "
			       "standard output",
			       to->file);
	if (real && !to->force && faccessat(AT_FDCWD, real, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return qs_fail(err, QS_E_EXISTS, "%s exists already; --force replaces it",
			       to->file);
	return 0;
}

static int write_file(const struct qs_env *env, const struct qs_output_file *to, const void *data,
		      size_t size, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = real_of(env, to->file);
	const struct qs_replace how = { .mode = 0600, .exclusive = !to->force };
	int r = qs_file_replace(real, data, size, &how, err);

	if (r == 0)
		r = qs_file_equals(real, data, size, err);
	if (r == 0)
		r = qs_fail(err, QS_E_IO, "%s reads back differently from what was written",
			    to->file);
	return r < 0 ? r : 0;
}

int qs_output_file_write(const struct qs_env *env, const struct qs_output_file *to,
			 const void *data, size_t size, struct qs_error *err)
{
	int r;

	if (to->file)
		return write_file(env, to, data, size, err);
	r = qs_file_write(to->fd, data, size);
	return r < 0 ? qs_fail_errno(err, r, "cannot write to standard output") : 0;
}
