/*
 * The manual as roff: a command's whole page, or the generated sections of
 * qs-util(8), which man/generate puts into man/qs-util.8.in.
 */
#include <ctype.h>
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
		size_t literal = strspn(args, "-abcdefghijklmnopqrstuvwxyz");

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

static void recipe(FILE *out, const struct qs_recipe *r)
{
	fputs(".SS ", out);
	string(out, r->title);
	fputc('\n', out);
	string(out, r->about);
	fputs("\n.PP\n.EX\n", out);
	for (const char *const *line = r->lines; *line; line++) {
		string(out, *line);
		fputc('\n', out);
	}
	fputs(".EE\n", out);
}

static void term(FILE *out, const char *left, const char *help)
{
	fputs(".TP\n\\fB", out);
	string(out, left);
	fputs("\\fR\n", out);
	string(out, help);
	fputc('\n', out);
}

/* FILES: those of the bits, or all. */
static void files(FILE *out, unsigned bits, bool all)
{
	if (bits || all)
		fputs(".SH FILES\n", out);
	for (const struct qs_file *f = qs_files; f->path; f++) {
		if (!all && !(f->bit & bits))
			continue;
		fputs(".TP\n\\fI", out);
		string(out, f->path);
		fputs("\\fR\n", out);
		string(out, f->help);
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

/* "crypttab(5) lsblk(8)" as a list, behind what stands there already. */
static void see_also(FILE *out, const char *pages)
{
	while (pages && *pages) {
		size_t name = strcspn(pages, "("), length = strcspn(pages, " ");

		fputs(", \\fB", out);
		text(out, pages, name);
		fputs("\\fR", out);
		text(out, pages + name, length - name);
		pages += length + strspn(pages + length, " ");
	}
	fputc('\n', out);
}

static void title(FILE *out, const char *command)
{
	fputs(".TH QS\\-UTIL", out);
	fputs(command ? "\\-" : "", out);
	for (const char *s = command; s && *s; s++)
		fputc(toupper((unsigned char)*s), out);
	fputs(" 8 \"\" \"qs\\-util " QS_VERSION "\" \"System Administration\"\n", out);
}

static void page(FILE *out, const struct qs_command *c)
{
	fputs(".\\\" Made by man/generate from the command table.\n", out);
	title(out, c->name);
	fprintf(out, ".SH NAME\nqs\\-util\\-%s \\- ", c->name);
	string(out, c->help);
	fputs("\n.SH SYNOPSIS\n\\fBqs\\-util\\fR ", out);
	head_line(out, c);
	fputs(".SH DESCRIPTION\n", out);
	about(out, c->about);
	for (const struct qs_recipe *r = c->recipe; r; r = r->next)
		recipe(out, r);
	fputs(".SH OPTIONS\n", out);
	options(out, c->options);
	fprintf(out, "%sThe options that every command takes are in \\fBqs\\-util\\fR(8).\n",
		c->options ? ".PP\n" : "");
	files(out, c->files, false);
	fputs(".SH \"EXIT STATUS\"\n", out);
	for (const struct qs_status *s = c->statuses; s && s->when; s++) {
		char number[8];

		(void)snprintf(number, sizeof(number), "%d", s->status);
		term(out, number, s->when);
	}
	fprintf(out, "%sAll statuses are in \\fBqs\\-util\\fR(8).\n", c->statuses ? ".PP\n" : "");
	fputs(c->examples ? ".SH EXAMPLES\n" : "", out);
	for (const struct qs_example *e = c->examples; e && e->line; e++) {
		QS_AUTO(qs_auto_free) char *line = qs_printf("qs-util %s", e->line);

		term(out, line, e->help);
	}
	fputs(".SH \"SEE ALSO\"\n\\fBqs\\-util\\fR(8), \\fBqs\\-util.conf\\fR(5)", out);
	see_also(out, c->see_also);
}

static void overview(FILE *out)
{
	/* For man(1): it has a table. */
	fputs("'\\\" t\n", out);
	fputs(".\\\" Made by man/generate from qs-util.8.in and the command table.\n", out);
	title(out, NULL);
	fputs(".SH SYNOPSIS\n", out);
	for (const struct qs_command *const *c = qs_commands; *c; c++) {
		fputs(c == qs_commands ? "" : ".br\n", out);
		fputs("\\fBqs\\-util\\fR ", out);
		head_line(out, *c);
	}
	fputs(".SH COMMANDS\nEach has a page of its own, such as "
	      "\\fBqs\\-util\\-cryptformat\\fR(8).\n",
	      out);
	for (const struct qs_command *const *c = qs_commands; *c; c++)
		term(out, (*c)->name, (*c)->help);
	fputs(".SH OPTIONS\nThese stand before or behind the command; \\fB\\-\\-\\fR ends "
	      "options.\n",
	      out);
	options(out, qs_global_options);
	fputs(".SH \"EXIT STATUS\"\nThe codes are those of \\fBerror.code\\fR in the JSON "
	      "output.\n",
	      out);
	statuses(out);
	files(out, 0, true);
}

void qs_help_man(FILE *out, const struct qs_command *command)
{
	if (command)
		page(out, command);
	else
		overview(out);
}
