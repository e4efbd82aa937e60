/*
 * The file that a command makes for somebody to take away, from what was typed.
 */
#ifndef QS_CMD_OUTPUT_OPTION_H
#define QS_CMD_OUTPUT_OPTION_H

#include "command.h"
#include "ops/output-file.h"

/*
 * TYPED (and --force) as *ret. `-` is standard output: a pipe or a redirection, never a
 * terminal, and not beside our own output (QS_E_USAGE).
 */
int qs_output_option(const struct qs_context *ctx, const char *typed, struct qs_output_file *ret,
		     struct qs_error *err);

#endif
