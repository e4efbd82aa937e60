/*
 * Running a stock tool such as mkswap: by its absolute path, without a shell, with
 * an environment of our own, no input, and its words in our error.
 */
#ifndef QS_BASE_TOOL_H
#define QS_BASE_TOOL_H

#include "base/error.h"

/*
 * Run ARGV (NULL-terminated, ARGV[0] an absolute path) to its end. It is in a
 * process group of its own: what is typed on the terminal does not interrupt it
 * half-way. No secret may be in ARGV.
 * Returns 0, or QS_E_FAILED with the last line that it said when it ended otherwise
 * than with status 0.
 */
int qs_tool_run(const char *const *argv, struct qs_error *err);

#endif
