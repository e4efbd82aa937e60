/*
 * Usage and help as text.
 */
#include <string.h>

#include "base/cleanup.h"
#include "command.h"

#define COLUMNS 80

/* Print the words of TEXT (up to END) between INDENT and the right margin; the first line has begun
 * at COLUMN. */
static void wrap(FILE *out, const char *text, const char *end, int indent, int column)
{
	bool first = true;

	while (text < end) {
		int length = (int)strcspn(text, " \n");

		if (!first && column + 1 + length > COLUMNS) {
			fprintf(out, "\n%*s", indent, "");
			column = indent;
		} else if (!first) {
			fputc(' ', out);
			column++;
		}
		fprintf(out, "%.*s", length, text);
		column += length;
		text += length + 1;
		first = false;
	}
	fputc('\n', out);
}

static void paragraphs(FILE *out, const char *text)
{
	while (text && *text) {
		const char *end = text + strcspn(text, "\n");

		fputc('\n', out);
		wrap(out, text, end, 0, 0);
		text = *end ? end + 1 : end;
	}
}

/* "  LEFT   HELP", the help wrapped at its column. */
static void definition(FILE *out, const char *left, const char *help)
{
	const int at = 24;
	int length = fprintf(out, "  %-*s", at - 2, left);

	if (length > at)
		fprintf(out, "\n%*s", at, "");
	wrap(out, help, help + strlen(help), at, at);
}

static void options(FILE *out, const char *title, const struct qs_option *list)
{
	if (list)
		fprintf(out, "\n%s:\n", title);
	for (const struct qs_option *o = list; o && o->name; o++) {
		QS_AUTO(qs_auto_free)
		char *left = qs_printf("%s%.1s%s--%s%s%s", o->letter ? "-" : "", &o->letter,
				       o->letter ? ", " : "", o->name, o->arg ? "=" : "",
				       o->arg ? o->arg : "");

		definition(out, left, o->help);
	}
}

static void command_usage(FILE *out, const struct qs_command *command)
{
	QS_AUTO(qs_auto_free)
	char *line = qs_printf("usage: qs-util %s%s%s%s", command->name,
			       command->options ? " [OPTION]..." : "", command->args ? " " : "",
			       command->args ? command->args : "");

	wrap(out, line, line + strlen(line), 8, 0);
}

void qs_help_usage(FILE *out, const struct qs_command *command)
{
	if (!command)
		fputs("usage: qs-util [OPTION]... COMMAND [ARGUMENT]...\n", out);
	else
		command_usage(out, command);
}

static void overview(FILE *out)
{
	fputs("\nEncrypts the disks of a storage appliance with LUKS2 and keeps their keys,\n"
	      "header backups and /etc/crypttab.\n\nCommands:\n",
	      out);
	for (const struct qs_command *const *c = qs_commands; *c; c++)
		definition(out, (*c)->name, (*c)->help);
	options(out, "Options, before or behind the command", qs_global_options);
	fputs("\nExit status:\n", out);
	for (int status = 0; status < 256; status++) {
		char number[8];

		(void)snprintf(number, sizeof(number), "%d", status);
		if (qs_exit_meaning(status))
			definition(out, number, qs_exit_meaning(status));
	}
	fputs("\n'qs-util help COMMAND' shows a command, qs-util(8) everything.\n", out);
}

void qs_help_text(FILE *out, const struct qs_command *command)
{
	qs_help_usage(out, command);
	if (!command) {
		overview(out);
		return;
	}
	paragraphs(out, command->about);
	options(out, "Options", command->options);
	if (command->examples)
		fputs("\nExamples:\n", out);
	for (const struct qs_example *e = command->examples; e && e->line; e++)
		fprintf(out, "  qs-util %s\n      %s\n", e->line, e->help);
	fprintf(out,
		"\n'qs-util help' lists the options that every command takes; "
		"the manual is\nqs-util-%s(8).\n",
		command->name);
}
