/*
 * config: the settings in force, for people and for scripts.
 */
#include <string.h>

#include "base/cleanup.h"
#include "command.h"

static void print_scalar(FILE *out, const json_t *value, bool quoted)
{
	if (json_is_string(value))
		fprintf(out, quoted ? "\"%s\"" : "%s", json_string_value(value));
	else if (json_is_boolean(value))
		fputs(json_is_true(value) ? "true" : "false", out);
	else
		fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
}

/* libconfig wants a mark at numbers that do not fit 32 bits. */
static bool is_long(const json_t *value)
{
	return json_is_integer(value) && json_integer_value(value) > INT32_MAX;
}

/* As in the configuration file. */
static void print_setting(FILE *out, const char *name, const json_t *value)
{
	fprintf(out, "%s = ", name);
	if (json_is_array(value)) {
		for (size_t i = 0; i < json_array_size(value); i++) {
			fputs(i ? ", " : "[", out);
			print_scalar(out, json_array_get(value, i), true);
		}
		fputs(json_array_size(value) ? "]" : "[]", out);
	} else {
		print_scalar(out, value, true);
	}
	fputs(is_long(value) ? "L;\n" : ";\n", out);
}

/* For scripts: the bare value; of a list, a line for each. */
static void print_bare(FILE *out, const json_t *value)
{
	for (size_t i = 0; json_is_array(value) && i < json_array_size(value); i++) {
		print_scalar(out, json_array_get(value, i), false);
		fputc('\n', out);
	}
	if (json_is_array(value))
		return;
	print_scalar(out, value, false);
	fputc('\n', out);
}

static int run(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	json_t *all = qs_config_values(&ctx->env.config);
	const json_t *one = argc > 0 ? json_object_get(all, argv[0]) : NULL;
	const char *name;
	json_t *value;
	size_t size = 0;
	FILE *out;

	ctx->result = all;
	if (argc > 0 && !one)
		return qs_fail(err, QS_E_USAGE, "no setting is called '%s', or it is not set",
			       argv[0]);
	out = open_memstream(&ctx->text, &size);
	if (!out)
		return qs_fail_errno(err, errno, "cannot print the settings");
	if (one)
		print_bare(out, one);
	else
		json_object_foreach(all, name, value) print_setting(out, name, value);
	if (fclose(out) != 0)
		return qs_fail_errno(err, errno, "cannot print the settings");
	return 0;
}

static const struct qs_example examples[] = { { "config",
						"every setting with the value that is in force" },
					      { "config keys_dir", "one of them, for a script" },
					      {} };

static const struct qs_status statuses[] = { { 64, "there is no such setting" }, {} };

const struct qs_command qs_row_config = {
	.name = "config",
	.args = "[SETTING]",
	.max_args = 1,
	.help = "show the settings in force",
	.about =
		"Prints every setting as /etc/cryptconf/qs-util.conf and the defaults give it, in the "
		"notation of that file, sizes in bytes and times in seconds. With SETTING only its "
		"value is printed. With --json the result always holds all of them.\n",
	.examples = examples,
	.statuses = statuses,
	.see_also = "qs-util.conf(5)",
	.run = run,
};
