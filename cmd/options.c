/*
 * The rows of commands.c given to getopt_long(). One pass: global options are
 * known from the start, those of a command once its name has been read.
 */
#include <assert.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "command.h"

#define OPTION_VAL 256 /* above every letter: val of the n-th long option is OPTION_VAL + n */

/* What getopt_long() knows at the moment. */
struct parser {
	const struct qs_option *known[QS_OPTIONS_MAX];
	struct option longs[QS_OPTIONS_MAX + 1];
	char letters[2 * QS_OPTIONS_MAX + 3];
	size_t count;
};

const struct qs_command *qs_command_find(const char *name)
{
	for (const struct qs_command *const *c = qs_commands; *c; c++)
		if (strcmp((*c)->name, name) == 0)
			return *c;
	return NULL;
}

static void learn(struct parser *p, const struct qs_option *options)
{
	for (const struct qs_option *o = options; o && o->name; o++) {
		size_t end = strlen(p->letters);

		assert(p->count < QS_OPTIONS_MAX);
		p->longs[p->count] = (struct option){
			.name = o->name,
			.has_arg = o->arg ? required_argument : no_argument,
			.val = OPTION_VAL + (int)p->count,
		};
		p->known[p->count++] = o;
		if (o->letter)
			p->letters[end++] = o->letter;
		if (o->letter && o->arg)
			p->letters[end++] = ':';
		p->letters[end] = '\0';
	}
}

static const struct qs_option *option_of(const struct parser *p, int val)
{
	if (val >= OPTION_VAL)
		return p->known[val - OPTION_VAL];
	for (size_t i = 0; i < p->count; i++)
		if (p->known[i]->letter && p->known[i]->letter == val)
			return p->known[i];
	return NULL;
}

static int unknown_command(const char *typed, struct qs_error *err)
{
	const char *words[64];
	const char *near;
	size_t count = 0;

	for (const struct qs_command *const *c = qs_commands; *c; c++)
		words[count++] = (*c)->name;
	near = qs_suggest(typed, words, count);
	if (near)
		return qs_fail(err, QS_E_USAGE, "unknown command '%s'; did you mean '%s'?", typed,
			       near);
	return qs_fail(err, QS_E_USAGE, "unknown command '%s'; 'qs-util help' lists them", typed);
}

static bool has_option(const struct qs_command *c, const char *name)
{
	for (const struct qs_option *o = c->options; o && o->name; o++)
		if (strcmp(o->name, name) == 0)
			return true;
	return false;
}

/* TYPED as in argv: "--forc", "--cypher=x", "-x". */
static int unknown_option(const struct parser *p, const struct qs_command *command,
			  const char *typed, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *name = qs_printf("%.*s", (int)strcspn(typed, "="), typed);
	const char *bare = name + strspn(name, "-"), *near, *words[QS_OPTIONS_MAX];

	for (size_t i = 0; i < p->count; i++)
		words[i] = p->known[i]->name;
	near = qs_suggest(bare, words, p->count);
	if (near)
		return qs_fail(err, QS_E_USAGE, "unknown option '%s'; did you mean '--%s'?", name,
			       near);
	for (const struct qs_command *const *c = qs_commands; *c && !command; c++)
		if (has_option(*c, bare))
			return qs_fail(err, QS_E_USAGE,
				       "unknown option '%s'; options of a command such as '%s' "
				       "stand behind its name",
				       name, (*c)->name);
	return qs_fail(err, QS_E_USAGE, "unknown option '%s'; 'qs-util help%s%s' lists them", name,
		       command ? " " : "", command ? command->name : "");
}

static int check_choice(const struct qs_option *o, const char *value, struct qs_error *err)
{
	char allowed[256] = "";

	for (const char *const *c = o->choices; *c; c++) {
		size_t used = strlen(allowed);

		if (strcmp(*c, value) == 0)
			return 0;
		(void)snprintf(allowed + used, sizeof(allowed) - used, "%s%s", used ? ", " : "",
			       *c);
	}
	return qs_fail(err, QS_E_USAGE, "--%s=%s: must be one of %s", o->name, value, allowed);
}

static int check_number(const struct qs_option *o, const char *value, struct qs_error *err)
{
	unsigned long n = strtoul(value, NULL, 10); /* ULONG_MAX on overflow: above every max */

	if (*value && strspn(value, "0123456789") == strlen(value) && n >= o->min && n <= o->max)
		return 0;
	return qs_fail(err, QS_E_USAGE, "--%s=%s: must be a number from %lu to %lu", o->name, value,
		       o->min, o->max);
}

static int check_value(const struct qs_option *o, const char *value, struct qs_error *err)
{
	if (!*value)
		return qs_fail(err, QS_E_USAGE, "--%s: its value %s is empty", o->name, o->arg);
	if (o->choices)
		return check_choice(o, value, err);
	return o->max > 0 ? check_number(o, value, err) : 0;
}

/* The last one wins, as everywhere, unless each counts. */
static int remember(struct qs_context *ctx, const struct qs_option *o, const char *value,
		    struct qs_error *err)
{
	size_t i = 0;

	while (i < ctx->given_count && (o->repeats || ctx->given[i].option != o))
		i++;
	if (i == QS_OPTIONS_MAX)
		return qs_fail(err, QS_E_USAGE, "--%s is given too often", o->name);
	if (i == ctx->given_count)
		ctx->given_count++;
	ctx->given[i].option = o;
	ctx->given[i].value = value;
	return 0;
}

/*
 * getopt_long() takes any unique beginning of a name. A script that relies on
 * one breaks when an option is added, so only whole names count.
 */
static bool is_abbreviated(const struct qs_option *o, const char *typed)
{
	size_t length;

	if (strncmp(typed, "--", 2) != 0)
		return false;
	length = strcspn(typed + 2, "=");
	return length != strlen(o->name);
}

/* One option that getopt_long() found in the word TYPED. */
static int take_option(struct qs_context *ctx, const struct parser *p, int val, const char *typed,
		       struct qs_error *err)
{
	const struct qs_option *o = option_of(p, val);
	int r;

	if (is_abbreviated(o, typed))
		return unknown_option(p, ctx->command, typed, err);
	if (!o->arg || !optarg)
		return remember(ctx, o, "", err);
	/* Taken from the next word: "--key-file --json" is a forgotten value. */
	if (strncmp(optarg, "--", 2) == 0 && !strchr(typed, '='))
		return qs_fail(err, QS_E_USAGE,
			       "--%s needs a value %s; write --%s=%s if '%s' is meant as its value",
			       o->name, o->arg, o->name, optarg, optarg);
	r = check_value(o, optarg, err);
	return r < 0 ? r : remember(ctx, o, optarg, err);
}

/* What getopt_long() refused: val is '?' or ':', optopt says which. */
static int refuse_option(const struct qs_context *ctx, const struct parser *p, int val,
			 const char *typed, struct qs_error *err)
{
	const struct qs_option *o = optopt ? option_of(p, optopt) : NULL;
	char letter[] = { '-', (char)optopt, '\0' };

	if (!o)
		return unknown_option(p, ctx->command,
				      strncmp(typed, "--", 2) == 0 || !optopt ? typed : letter,
				      err);
	if (val == ':')
		return qs_fail(err, QS_E_USAGE, "--%s needs a value: --%s=%s", o->name, o->name,
			       o->arg);
	return qs_fail(err, QS_E_USAGE, "--%s takes no value", o->name);
}

/* A word that is no option: the command's name, then its arguments. */
static int take_word(struct qs_context *ctx, struct parser *p, char *word, char **argv, int *count,
		     struct qs_error *err)
{
	if (ctx->command) {
		argv[(*count)++] = word;
		return 0;
	}
	ctx->command = qs_command_find(word);
	if (!ctx->command)
		return unknown_command(word, err);
	learn(p, ctx->command->options);
	return 0;
}

static void set_flags(struct qs_context *ctx)
{
	const char *progress = qs_option_value(ctx, "progress");

	ctx->json = qs_option_given(ctx, "json");
	ctx->yes = qs_option_given(ctx, "yes");
	ctx->quiet = qs_option_given(ctx, "quiet");
	ctx->verbose = qs_option_given(ctx, "verbose");
	if (progress && strcmp(progress, "json") == 0)
		ctx->progress = QS_PROGRESS_JSON;
	else if (progress && strcmp(progress, "none") == 0)
		ctx->progress = QS_PROGRESS_NONE;
}

int qs_options_parse(struct qs_context *ctx, int argc, char **argv, int *ret_argc,
		     struct qs_error *err)
{
	/* '-': words come in order, whatever POSIXLY_CORRECT says; ':': missing values are told
	 * apart. */
	struct parser p = { .letters = "-:" };
	int count = 0, r = 0;

	opterr = 0;
	optind = 1;
	learn(&p, qs_global_options);
	while (r >= 0) {
		const char *typed = optind < argc ? argv[optind] : "";
		int val = getopt_long(argc, argv, p.letters, p.longs, NULL);

		if (val < 0)
			break;
		if (val == 1)
			r = take_word(ctx, &p, optarg, argv, &count, err);
		else if (val == '?' || val == ':')
			r = refuse_option(ctx, &p, val, typed, err);
		else
			r = take_option(ctx, &p, val, typed, err);
	}
	while (r >= 0 && optind < argc) /* behind "--" */
		r = take_word(ctx, &p, argv[optind++], argv, &count, err);
	if (r < 0)
		return r;
	set_flags(ctx);
	*ret_argc = count;
	return 0;
}

int qs_arguments_check(const struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	const struct qs_command *c = ctx->command;

	for (int i = 0; i < argc; i++)
		if (!argv[i][0])
			return qs_fail(err, QS_E_USAGE,
				       "argument %d is empty (an unset variable in a script?)",
				       i + 1);
	if (argc >= c->min_args && argc <= c->max_args)
		return 0;
	if (c->max_args == 0)
		return qs_fail(err, QS_E_USAGE, "takes no arguments, but got '%s'", argv[0]);
	return qs_fail(err, QS_E_USAGE, "too %s arguments; usage: qs-util %s %s",
		       argc < c->min_args ? "few" : "many", c->name, c->args);
}

/* Asking for an option that neither the command nor everybody has is a bug of ours. */
static bool is_known(const struct qs_context *ctx, const char *name)
{
	for (const struct qs_option *o = qs_global_options; o->name; o++)
		if (strcmp(o->name, name) == 0)
			return true;
	return ctx->command && has_option(ctx->command, name);
}

const char *qs_option_value(const struct qs_context *ctx, const char *name)
{
	assert(is_known(ctx, name));
	for (size_t i = 0; i < ctx->given_count; i++)
		if (strcmp(ctx->given[i].option->name, name) == 0)
			return ctx->given[i].value;
	return NULL;
}

size_t qs_option_values(const struct qs_context *ctx, const char *name, const char **ret,
			size_t max)
{
	size_t n = 0;

	assert(is_known(ctx, name));
	for (size_t i = 0; i < ctx->given_count && n < max; i++)
		if (strcmp(ctx->given[i].option->name, name) == 0)
			ret[n++] = ctx->given[i].value;
	return n;
}

bool qs_option_given(const struct qs_context *ctx, const char *name)
{
	return qs_option_value(ctx, name) != NULL;
}

unsigned qs_option_number(const struct qs_context *ctx, const char *name)
{
	const char *value = qs_option_value(ctx, name);

	return value ? (unsigned)strtoul(value, NULL, 10) : 0;
}

int qs_option_pcrs(const struct qs_context *ctx, const char *name, uint32_t usual, uint32_t *ret,
		   struct qs_error *err)
{
	const char *text = qs_option_value(ctx, name);

	*ret = usual;
	if (text && strcmp(text, "none") == 0)
		*ret = 0;
	else if (text && qs_tpm2_pcrs_parse(text, ret) < 0)
		return qs_fail(
			err, QS_E_USAGE,
			"--%s=%s: PCRs are numbers from 0 to 23 with '+' between them, or none",
			name, text);
	return 0;
}
