/*
 * help: everything that the command table can print.
 */
#include <string.h>

#include "base/cleanup.h"
#include "command.h"

static int run(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	const struct qs_command *about = argc > 0 ? qs_command_find(argv[0]) : NULL;
	const char *format = qs_option_given(ctx, "help") ? NULL : qs_option_value(ctx, "format");
	size_t size = 0;
	FILE *out;

	if (argc > 0 && !about)
		return qs_fail(err, QS_E_USAGE, "no help on '%s': there is no such command",
			       argv[0]);
	if (!format)
		format = ctx->json ? "json" : "text";
	out = open_memstream(&ctx->text, &size);
	if (!out)
		return qs_fail_errno(err, errno, "cannot print help");
	if (strcmp(format, "json") == 0)
		ctx->result = qs_help_json(about);
	else if (strcmp(format, "bash") == 0)
		qs_help_bash(out);
	else if (strcmp(format, "man") == 0)
		qs_help_man(out, about);
	else if (strcmp(format, "config") == 0)
		qs_config_describe(out);
	else
		qs_help_text(out, about);
	if (ctx->result && !ctx->json) {
		(void)json_dumpf(ctx->result, out, JSON_INDENT(2));
		fputc('\n', out);
	}
	if (fclose(out) != 0)
		return qs_fail_errno(err, errno, "cannot print help");
	if (!ctx->result)
		ctx->result = json_pack("{s:s}", "text", ctx->text);
	return 0;
}

static const char *const help_choices[] = { "text", "json", "bash", "man", "config", NULL };

static const struct qs_option options[] = {
	{ .name = "format",
	  .arg = "FORMAT",
	  .choices = help_choices,
	  .help = "text, json, bash (completion), man (generated sections of the manual) or "
		  "config (the configuration with all defaults)" },
	{}
};

static const struct qs_status statuses[] = { { 64, "there is no such command" }, {} };

static const struct qs_example examples[] = { { "help cryptformat", "one command" },
					      { "help --format=json",
						"all commands, for a program" },
					      {} };

const struct qs_command qs_row_help = {
	.name = "help",
	.args = "[COMMAND]",
	.max_args = 1,
	.help = "show help on qs-util or one of its commands",
	.about =
		"The formats json, bash and man describe all commands, or the one that is named; "
		"completion and the manual are made from them. The format config is a configuration file with "
		"every setting explained and commented out.\n",
	.options = options,
	.statuses = statuses,
	.flags = QS_CMD_STANDALONE,
	.examples = examples,
	.run = run,
};
