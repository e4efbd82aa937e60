/*
 * Completion for bash, made from the table. It needs nothing but bash itself:
 * appliances often lack the bash-completion package's functions.
 */
#include <string.h>

#include "command.h"

static void option_words(FILE *out, const struct qs_option *list)
{
	for (const struct qs_option *o = list; o && o->name; o++)
		fprintf(out, "%s--%s%s", o == list ? "" : " ", o->name, o->arg ? "=" : "");
}

/* "--pbkdf") words="pbkdf2 argon2i argon2id" ;; */
static void option_values(FILE *out, const char *command, const struct qs_option *list)
{
	for (const struct qs_option *o = list; o && o->name; o++) {
		if (!o->arg)
			continue;
		fprintf(out, "\t%s:--%s)", command, o->name);
		if (o->choices)
			fputs(" _qs_util_words \"", out);
		for (const char *const *c = o->choices; c && *c; c++)
			fprintf(out, "%s%s", c == o->choices ? "" : " ", *c);
		if (o->choices)
			fputs("\" ;;\n", out);
		else if (strcmp(o->arg, "FILE") == 0)
			fputs(" _qs_util_files ;;\n", out);
		else if (strcmp(o->arg, "DIR") == 0)
			fputs(" _qs_util_directories ;;\n", out);
		else
			fputs(" ;;\n", out);
	}
}

/* Lower-case words in the arguments are typed as they stand: "[updatecrypttab]". Not so options. */
static void literal_words(FILE *out, const char *args)
{
	const char *word = args + strcspn(args, "-abcdefghijklmnopqrstuvwxyz");
	int length = (int)strspn(word, "-abcdefghijklmnopqrstuvwxyz");

	if (length == 0)
		return;
	if (*word != '-')
		fprintf(out, " _qs_util_words \"%.*s\";", length, word);
	literal_words(out, word + length);
}

static void arguments(FILE *out, const struct qs_command *c)
{
	fprintf(out, "\t%s)", c->name);
	if (strstr(c->args, "COMMAND"))
		fputs(" _qs_util_words \"$commands\";", out);
	if (strstr(c->args, "DEVICE"))
		fputs(" _qs_util_devices; _qs_util_files;", out);
	literal_words(out, c->args);
	fputs(" ;;\n", out);
}

static const char helpers[] =
	"# bash completion for qs-util, made by `qs-util help --format=bash`.\n\n"
	"_qs_util_words() {\n"
	"\tlocal word\n"
	"\tfor word in $1; do\n"
	"\t\t[[ $word == \"$cur\"* ]] && COMPREPLY+=(\"$word\")\n"
	"\tdone\n"
	"}\n\n"
	"_qs_util_files() {\n"
	"\tcompopt -o filenames 2>/dev/null\n"
	"\tmapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- \"$cur\")\n"
	"}\n\n"
	"_qs_util_directories() {\n"
	"\tcompopt -o filenames 2>/dev/null\n"
	"\tmapfile -t COMPREPLY < <(compgen -d -- \"$cur\")\n"
	"}\n\n"
	"_qs_util_devices() {\n"
	"\tlocal node\n"
	"\tfor node in /dev/* /dev/disk/by-id/*; do\n"
	"\t\t[[ $node == \"$cur\"* && -b $node ]] && COMPREPLY+=(\"$node\")\n"
	"\tdone\n"
	"\tfor node in /dev/mapper/enc-*; do\n"
	"\t\t[[ -e $node && ${node##*/} == \"$cur\"* ]] && COMPREPLY+=(\"${node##*/}\")\n"
	"\tdone\n"
	"}\n\n"
	"# bash splits words at '=': put \"--option = value\" together again.\n"
	"_qs_util_value() {\n"
	"\tif [[ $cur == = ]]; then\n"
	"\t\tcur=\n"
	"\t\toption=$prev\n"
	"\telif [[ $prev == = ]]; then\n"
	"\t\toption=${COMP_WORDS[COMP_CWORD - 2]}\n"
	"\telif [[ $prev == --* ]]; then\n"
	"\t\toption=$prev\n"
	"\tfi\n"
	"}\n\n"
	"_qs_util() {\n"
	"\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
	"\tlocal command='' option='' options='' word\n";

/* The command is the first word that is neither an option nor an option's value. */
static const char find_command[] =
	"\tfor word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
	"\t\t[[ \" $commands \" == *\" $word \"* ]] && command=$word && break\n"
	"\tdone\n"
	"\tCOMPREPLY=()\n"
	"\t_qs_util_value\n"
	"\tcase \"$command:$option\" in\n";

void qs_help_bash(FILE *out)
{
	fputs(helpers, out);
	fputs("\tlocal commands=\"", out);
	for (const struct qs_command *const *c = qs_commands; *c; c++)
		fprintf(out, "%s%s", c == qs_commands ? "" : " ", (*c)->name);
	fprintf(out, "\"\n%s", find_command);
	for (const struct qs_command *const *c = qs_commands; *c; c++)
		option_values(out, (*c)->name, (*c)->options);
	option_values(out, "*", qs_global_options);
	fputs("\t*) option= ;;\n\tesac\n"
	      "\t[[ $option ]] && return\n\n"
	      "\tcase $command in\n",
	      out);
	for (const struct qs_command *const *c = qs_commands; *c; c++) {
		if (!(*c)->options)
			continue;
		fprintf(out, "\t%s) options=\"", (*c)->name);
		option_words(out, (*c)->options);
		fputs("\" ;;\n", out);
	}
	fputs("\tesac\n\tif [[ $cur == -* ]]; then\n\t\t_qs_util_words \"$options ", out);
	option_words(out, qs_global_options);
	fputs("\"\n\t\t[[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null\n"
	      "\t\treturn\n\tfi\n\n\tcase $command in\n"
	      "\t'') _qs_util_words \"$commands\" ;;\n",
	      out);
	for (const struct qs_command *const *c = qs_commands; *c; c++)
		if ((*c)->args)
			arguments(out, *c);
	fputs("\tesac\n}\n\ncomplete -F _qs_util qs-util\n", out);
}
