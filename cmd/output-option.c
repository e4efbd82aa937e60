#include "output-option.h"

#include <string.h>
#include <unistd.h>

int qs_output_option(const struct qs_context *ctx, const char *typed, struct qs_output_file *ret,
		     struct qs_error *err)
{
	*ret = (struct qs_output_file){ .file = typed, .force = qs_option_given(ctx, "force") };
	if (strcmp(typed, "-") != 0)
		return 0;
	if (ctx->json)
		return qs_fail(
			err, QS_E_USAGE,
			"with --json standard output carries the result, so the file cannot be -");
	if (isatty(STDOUT_FILENO))
		return qs_fail(
			err, QS_E_USAGE,
			"this is not written to a terminal; redirect standard output, or name a "
			"file");
	ret->file = NULL;
	ret->fd = STDOUT_FILENO;
	return 0;
}
