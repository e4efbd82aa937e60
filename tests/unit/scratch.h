/*
 * A directory for one test's files, below $TMPDIR, removed with all in it.
 * Include after cmocka.h.
 */
#ifndef QS_TEST_SCRATCH_H
#define QS_TEST_SCRATCH_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/env.h"

/* malloc'ed; release with scratch_drop(), from a teardown so that a failed test does it too. */
static inline char *scratch_make(void)
{
	const char *base = getenv("TMPDIR");
	char *path = qs_printf("%s/qs-test-XXXXXX", base ? base : "/tmp");

	assert_non_null(mkdtemp(path));
	return path;
}

static inline int scratch_drop_one(const char *path, const struct stat *st, int type,
				   struct FTW *walk)
{
	(void)st;
	(void)type;
	(void)walk;
	return remove(path);
}

static inline void scratch_drop(char *path)
{
	if (nftw(path, scratch_drop_one, 8, FTW_DEPTH | FTW_PHYS) != 0)
		fprintf(stderr, "cannot remove %s\n", path);
	free(path);
}

#endif
