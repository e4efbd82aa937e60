/*
 * The generated sections of qs-util(8) as roff: head, SYNOPSIS, COMMANDS,
 * OPTIONS, EXIT STATUS. man/generate puts them into man/qs-util.8.in.
 */
#include <string.h>

#include "base/cleanup.h"
#include "command.h"

/* Text with what roff would interpret taken literally. */
static void text(FILE *out, const char *s, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (s[i] == '-')
			fputs("\\-", out);
		else if (s[i] == '\\')
			fputs("\\e", out);
		else if (s[i] == '\'')
			fputs("\\(aq", out);
		else
			fputc(s[i], out);
	}
}

static void string(FILE *out, const char *s)
{
	text(out, s, strlen(s));
}

/* Placeholders in italics, everything that is typed as it stands in bold. */
static void arguments(FILE *out, const char *args)
{
	while (args && *args) {
		size_t word = strspn(args, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
		size_t literal = strspn(args, "abcdefghijklmnopqrstuvwxyz");

		if (word + literal > 0)
			fputs(word ? "\\fI" : "\\fB", out);
		text(out, args, word + literal > 0 ? word + literal : 1);
		if (word + literal > 0)
			fputs("\\fR", out);
		args += word + literal > 0 ? word + literal : 1;
	}
}

static void head_line(FILE *out, const struct qs_command *c)
{
	fputs("\\fB", out);
	string(out, c->name);
	fputs("\\fR", out);
	if (c->options)
		fputs(" [\\fIOPTION\\fR]...", out);
	if (c->args)
		fputc(' ', out);
	arguments(out, c->args);
	fputc('\n', out);
}

static void options(FILE *out, const struct qs_option *list)
{
	for (const struct qs_option *o = list; o && o->name; o++) {
		fputs(".TP\n", out);
		if (o->letter)
			fprintf(out, "\\fB\\-%c\\fR, ", o->letter);
		fputs("\\fB\\-\\-", out);
		string(out, o->name);
		fputs("\\fR", out);
		if (o->arg)
			fprintf(out, "=\\fI%s\\fR", o->arg);
		fputc('\n', out);
		string(out, o->help);
		if (o->max > 0)
			fprintf(out, " (%lu to %lu)", o->min, o->max);
		fputc('\n', out);
	}
}

static void about(FILE *out, const char *s)
{
	const char *start = s;

	while (*s) {
		size_t length = strcspn(s, "\n");

		fputs(s == start ? "" : ".PP\n", out);
		fputs(*s == '.' ? "\\&" : "", out);
		text(out, s, length);
		fputc('\n', out);
		s += length + (s[length] != '\0');
	}
}

static void command(FILE *out, const struct qs_command *c)
{
	fputs(".SS ", out);
	head_line(out, c);
	about(out, c->about);
	options(out, c->options);
	for (const struct qs_example *e = c->examples; e && e->line; e++) {
		fputs(e == c->examples ? ".PP\nExamples:\n.TP\n" : ".TP\n", out);
		fputs("\\fBqs\\-util ", out);
		string(out, e->line);
		fputs("\\fR\n", out);
		string(out, e->help);
		fputc('\n', out);
	}
}

static void statuses(FILE *out)
{
	for (int status = 0; status < 256; status++) {
		bool first = true;

		if (!qs_exit_meaning(status))
			continue;
		fprintf(out, ".TP\n\\fB%d\\fR\n", status);
		string(out, qs_exit_meaning(status));
		for (unsigned kind = QS_E_NONE + 1; kind < QS_E_KINDS; kind++) {
			if (qs_kind_exit((enum qs_kind)kind) != status)
				continue;
			fputs(first ? " (codes: " : ", ", out);
			string(out, qs_kind_name((enum qs_kind)kind));
			first = false;
		}
		fputs(first ? "\n" : ")\n", out);
	}
}

void qs_help_man(FILE *out)
{
	fputs(".\\\" Made by man/generate from qs-util.8.in and the command table.\n"
	      ".TH QS\\-UTIL 8 \"\" \"qs\\-util " QS_VERSION "\" \"System Administration\"\n"
	      ".SH SYNOPSIS\n",
	      out);
	for (const struct qs_command *c = qs_commands; c->name; c++) {
		fputs(c == qs_commands ? "" : ".br\n", out);
		fputs("\\fBqs\\-util\\fR ", out);
		head_line(out, c);
	}
	fputs(".SH COMMANDS\n", out);
	for (const struct qs_command *c = qs_commands; c->name; c++)
		command(out, c);
	fputs(".SH OPTIONS\nThese stand before or behind the command; \\fB\\-\\-\\fR ends "
	      "options.\n",
	      out);
	options(out, qs_global_options);
	fputs(".SH \"EXIT STATUS\"\nThe codes are those of \\fBerror.code\\fR in the JSON "
	      "output.\n",
	      out);
	statuses(out);
}
