/*
 * A file that a command makes for somebody to take away: a key bundle, an exported
 * key. It goes where the user says, and replaces nothing unasked.
 */
#ifndef QS_OPS_OUTPUT_FILE_H
#define QS_OPS_OUTPUT_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/env.h"
#include "base/error.h"

struct qs_output_file {
	const char *file; /* as the user typed it; NULL: write to FD */
	int fd;           /* a pipe or file that is open for writing */
	bool force;       /* replace a FILE that exists */
};

/* The check that needs nothing yet: QS_E_EXISTS when FILE is there and may not be replaced;
 * QS_E_FAILED when it can never be, as a directory. */
int qs_output_file_check(const struct qs_env *env, const struct qs_output_file *to,
			 struct qs_error *err);

/* Write SIZE bytes of DATA: to a file 0600, durably, and read it back. */
int qs_output_file_write(const struct qs_env *env, const struct qs_output_file *to,
			 const void *data, size_t size, struct qs_error *err);

#endif
