/*
 * The table as JSON, for programs that drive qs-util.
 */
#include "command.h"

static json_t *options(const struct qs_option *list)
{
	json_t *all = json_array();

	for (const struct qs_option *o = list; o && o->name; o++) {
		json_t *one = json_pack("{s:s, s:s*, s:s}", "name", o->name, "arg", o->arg, "help",
					o->help);

		if (o->letter)
			json_object_set_new(one, "letter", json_stringn(&o->letter, 1));
		if (o->choices)
			json_object_set_new(one, "choices", json_array());
		for (const char *const *c = o->choices; c && *c; c++)
			json_array_append_new(json_object_get(one, "choices"), json_string(*c));
		if (o->max > 0) {
			json_object_set_new(one, "min", json_integer((json_int_t)o->min));
			json_object_set_new(one, "max", json_integer((json_int_t)o->max));
		}
		json_array_append_new(all, one);
	}
	return all;
}

static json_t *examples(const struct qs_example *list)
{
	json_t *all = json_array();

	for (const struct qs_example *e = list; e && e->line; e++)
		json_array_append_new(all,
				      json_pack("{s:s, s:s}", "line", e->line, "help", e->help));
	return all;
}

static json_t *command(const struct qs_command *c)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:b, s:b, s:o, s:o}", "name", c->name, "args",
			 c->args ? c->args : "", "help", c->help, "about", c->about, "needs_root",
			 (c->flags & QS_CMD_NEEDS_ROOT) != 0, "asks",
			 (c->flags & QS_CMD_DESTROYS) != 0, "options", options(c->options),
			 "examples", examples(c->examples));
}

/* Each status with the error codes that lead to it. */
static json_t *statuses(void)
{
	json_t *all = json_array();

	for (int status = 0; status < 256; status++) {
		json_t *codes;

		if (!qs_exit_meaning(status))
			continue;
		codes = json_array();
		for (unsigned kind = QS_E_NONE + 1; kind < QS_E_KINDS; kind++)
			if (qs_kind_exit((enum qs_kind)kind) == status)
				json_array_append_new(
					codes, json_string(qs_kind_name((enum qs_kind)kind)));
		json_array_append_new(all, json_pack("{s:i, s:s, s:o}", "status", status, "meaning",
						     qs_exit_meaning(status), "codes", codes));
	}
	return all;
}

json_t *qs_help_json(const struct qs_command *only)
{
	json_t *commands = json_array();

	for (const struct qs_command *const *c = qs_commands; *c; c++)
		if (!only || *c == only)
			json_array_append_new(commands, command(*c));
	return json_pack("{s:s, s:o, s:o, s:o}", "version", QS_VERSION, "options",
			 options(qs_global_options), "commands", commands, "exit_statuses",
			 statuses());
}
