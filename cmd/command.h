/*
 * The command line: rows that describe commands and options, and the context
 * that a command runs in. The rows stand in commands.c; parsing, usage,
 * completion and the manual's generated sections all come from them.
 *
 * A command parses nothing and prints nothing: run() calls the library and
 * leaves outcomes or a result in the context; what becomes of them (one JSON
 * object, or text) is decided in output.c.
 */
#ifndef QS_CMD_COMMAND_H
#define QS_CMD_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include <jansson.h>

#include "base/env.h"
#include "base/error.h"
#include "base/log.h"
#include "keystore/session.h"
#include "ops/ops.h"

struct qs_context;

/* One option, global or of a command. A list ends with an empty row. */
struct qs_option {
	const char *name;           /* without its dashes */
	char letter;                /* short form, or 0 */
	bool repeats;               /* may be given several times; else the last one wins */
	const char *arg;            /* name of its value in usage; NULL: a switch */
	const char *help;           /* one line, lower case, no full stop */
	const char *const *choices; /* NULL-terminated, or NULL: any value */
	unsigned long min, max;     /* max > 0: the value is a number in this range */
};

struct qs_example {
	const char *line; /* without "qs-util " in front */
	const char *help;
};

struct qs_status {
	int status;
	const char *when; /* as help of an option */
};

/* Commands of other programs that belong together, in the order in which they are typed. */
struct qs_recipe {
	const char *title;
	const char *about;            /* a paragraph */
	const char *const *lines;     /* NULL-terminated */
	const struct qs_recipe *next; /* or NULL */
};

/* A file that commands share, described once. A list ends with an empty row. */
struct qs_file {
	unsigned bit; /* QS_FILE_..., or 0: in the overview only */
	const char *path;
	const char *help; /* sentences */
};

#define QS_FILE_KEYS 1U
#define QS_FILE_HEADERS 2U
#define QS_FILE_PENDING 4U
#define QS_FILE_CRYPTTAB 8U
#define QS_FILE_FSTAB 16U
#define QS_FILE_KEYSTORE 32U

#define QS_CMD_NEEDS_ROOT 1U   /* refused early for others, unless --root names another tree */
#define QS_CMD_CHANGES 2U      /* SIGINT and SIGTERM let running jobs finish */
#define QS_CMD_DESTROYS 4U     /* may ask for `yes` */
#define QS_CMD_STANDALONE 8U   /* reads no configuration */
#define QS_CMD_ANY_NUMBER 1000 /* max_args without a limit */

struct qs_command {
	const char *name;
	const char *args;  /* "DEVICE [KEYFILE] [updatecrypttab]"; lower case is meant literally */
	const char *help;  /* one line */
	const char *about; /* paragraphs, each ended by a newline */
	const struct qs_option *options;   /* this and the next two end with an empty row */
	const struct qs_status *statuses;  /* exit statuses that mean something particular here */
	const struct qs_example *examples; /* tests/guest/examples.bats runs each of them */
	const struct qs_recipe *recipe;    /* or NULL; in the manual only, its lines are long */
	const char *see_also; /* manual pages besides those of our files: "crypttab(5)" */
	int min_args, max_args;
	unsigned flags; /* QS_CMD_... */
	unsigned files; /* QS_FILE_...: what it reads or writes, besides the configuration */
	/* argv: the arguments without options. Fails before or outside of the devices' outcomes. */
	int (*run)(struct qs_context *ctx, int argc, char **argv, struct qs_error *err);
	/* Text for the devices (elements as in the JSON output); NULL: a line for each success. */
	void (*print)(const struct qs_context *ctx, const json_t *devices);
};

/* The rows: one for each command, in its cmd-NAME.c. */
extern const struct qs_command qs_row_devicemap;
extern const struct qs_command qs_row_cryptformat;
extern const struct qs_command qs_row_cryptopen;
extern const struct qs_command qs_row_cryptopenall;
extern const struct qs_command qs_row_cryptclose;
extern const struct qs_command qs_row_cryptcloseall;
extern const struct qs_command qs_row_cryptdestroy;
extern const struct qs_command qs_row_cryptenroll;
extern const struct qs_command qs_row_cryptswap;
extern const struct qs_command qs_row_cryptstatus;
extern const struct qs_command qs_row_cryptbackup;
extern const struct qs_command qs_row_cryptrestore;
extern const struct qs_command qs_row_crypttabrepair;
extern const struct qs_command qs_row_keybackup;
extern const struct qs_command qs_row_keyrestore;
extern const struct qs_command qs_row_keystore;
extern const struct qs_command qs_row_config;
extern const struct qs_command qs_row_help;

/* commands.c: all rows, ending with NULL; lists that end with an empty row. */
extern const struct qs_command *const qs_commands[];
extern const struct qs_option qs_global_options[];
extern const struct qs_file qs_files[];

enum qs_progress_mode { QS_PROGRESS_AUTO, QS_PROGRESS_NONE, QS_PROGRESS_JSON };

#define QS_OPTIONS_MAX 40U

struct qs_context {
	const struct qs_command *command; /* NULL while unknown */
	struct qs_env env;
	struct qs_keystore_session keystore; /* env.keystore */
	bool json, yes, quiet, verbose;
	enum qs_progress_mode progress;
	struct {
		const struct qs_option *option;
		const char *value; /* "" for a switch */
	} given[QS_OPTIONS_MAX];
	size_t given_count;

	/* What the command leaves behind: */
	bool details;                /* for print(): the long form was asked for */
	bool lines;                  /* a line per success, although the command has a print() */
	const char *done;            /* what was done to a device: "opened as"; its name follows */
	struct qs_outcomes outcomes; /* for commands on devices */
	json_t *result;              /* for the others: "result" in JSON */
	char *text;                  /* for the others: what to print without --json */
};

/* options.c */

/* The row of this name, or NULL. */
const struct qs_command *qs_command_find(const char *name);

/*
 * Parse the whole command line into *ctx (command, given, the flags).
 * Arguments that are no options are moved to argv[0..*ret_argc-1]. The number
 * of arguments is not checked here. Fails with QS_E_USAGE.
 */
int qs_options_parse(struct qs_context *ctx, int argc, char **argv, int *ret_argc,
		     struct qs_error *err);

/* Check the number of arguments, and that none is empty. */
int qs_arguments_check(const struct qs_context *ctx, int argc, char **argv, struct qs_error *err);

/* The value of an option ("" for a switch), or NULL when it was not given. */
const char *qs_option_value(const struct qs_context *ctx, const char *name);
/* All values of an option that repeats, in their order; at most MAX. Returns their number. */
size_t qs_option_values(const struct qs_context *ctx, const char *name, const char **ret,
			size_t max);
bool qs_option_given(const struct qs_context *ctx, const char *name);
/* The value of an option with a range, or 0. */
unsigned qs_option_number(const struct qs_context *ctx, const char *name);

/* PCRs, a bit for each; USUAL without the option. QS_E_USAGE: not "0+7" or "none". */
int qs_option_pcrs(const struct qs_context *ctx, const char *name, uint32_t usual, uint32_t *ret,
		   struct qs_error *err);

/* suggest.c: the word of WORDS (COUNT) that is nearest to TYPED, or NULL when none is near. */
const char *qs_suggest(const char *typed, const char *const *words, size_t count);

/* help.c and its formats: everything that is printed from the rows. */
void qs_help_usage(FILE *out, const struct qs_command *command); /* one line; NULL: of qs-util */
void qs_help_text(FILE *out, const struct qs_command *command);
void qs_help_bash(FILE *out);
void qs_help_man(FILE *out,
		 const struct qs_command *command);  /* NULL: what man/generate fills in */
json_t *qs_help_json(const struct qs_command *only); /* NULL: all */

/* output.c */

/* A line on stderr: "qs-util COMMAND: TEXT", or a JSON line with --progress=json. */
void qs_message(const struct qs_context *ctx, enum qs_log_level level, const char *text);

/* A line for each device that went well: for a print() that has nothing to add this time. */
void qs_print_successes(const struct qs_context *ctx);

/* Print everything that is left in *ctx and the error of R < 0. Returns the exit status. */
int qs_output_finish(struct qs_context *ctx, int r, const struct qs_error *error);

/* table.c: fields of devices as text. */
struct qs_field {
	const char *title;
	const char *key;                     /* path in the device's object: "backup.time" */
	char *(*text)(const json_t *device); /* malloc'ed or NULL; used instead of key */
};
/* Rows with a heading, columns aligned. FIELDS ends with an empty row. */
void qs_table_print(FILE *out, const struct qs_field *fields, const json_t *devices);
/* A block: "  TITLE  TEXT" for every field that has one. */
void qs_block_print(FILE *out, const struct qs_field *fields, const json_t *device);
/* The text of one field, made safe for a terminal; malloc'ed, or NULL when it has none. */
char *qs_field_text(const struct qs_field *field, const json_t *device);

/* confirm.c */

/*
 * Nothing but `yes` on a terminal, or --yes, lets a command go on: WHAT is the
 * sentence before the question, without a full stop ("all data on 2 devices
 * will be lost"). DEVICES are listed (their notes too). Returns 0, or
 * QS_E_UNCONFIRMED; never waits without a terminal.
 */
int qs_confirm(const struct qs_context *ctx, const char *what, const struct qs_outcomes *devices,
	       struct qs_error *err);

/* True when both previews show the same devices under the same names. */
bool qs_confirm_unchanged(const struct qs_outcomes *before, const struct qs_outcomes *now);

/* What a command would do, as its outcomes; COOKIE is the command's. */
typedef int qs_preview(const struct qs_context *ctx, const void *cookie, struct qs_outcomes *ret,
		       struct qs_error *err);

/*
 * Show what PREVIEW finds, ask (WHAT as in qs_confirm), and look again: while the
 * question stood there, a disk may have been pulled and another one have got its
 * node. Nothing is asked when PREVIEW finds nothing to do; the operation will say why.
 */
int qs_confirm_preview(const struct qs_context *ctx, const char *what, qs_preview *preview,
		       const void *cookie, struct qs_error *err);

/* progress.c: installs itself as env.progress if there is something to show. */
void qs_progress_start(struct qs_context *ctx);
/* Take the bar away, so that a line can be printed. */
void qs_progress_clear(void);

#endif
