/*
 * Start, refuse early, run one command, report.
 */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ask.h"
#include "base/cleanup.h"
#include "base/pool.h"
#include "command.h"

/*
 * A closed descriptor 0-2 would be given to the next file that is opened, a
 * disk for example, and messages would be written into it. Each gets /dev/null
 * for reading: input is at its end, and output that nobody can get fails.
 */
static void fill_standard_descriptors(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd)
			_exit(qs_kind_exit(QS_E_FAILED));
}

/* Keys are in memory: no core dump, no debugger, no file that others can read. */
static void protect_memory(void)
{
	const struct rlimit none = { 0, 0 };

	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	(void)setrlimit(RLIMIT_CORE, &none);
	(void)umask(077);
}

/* Before the options are parsed: their errors have to come as JSON too. */
static bool asks_for_json(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--json") == 0)
			return true;
	return false;
}

static void log_to_stderr(enum qs_log_level level, const char *message, void *cookie)
{
	qs_message(cookie, level, message);
}

static void on_signal(int number)
{
	(void)number;
	qs_pool_interrupt();
}

/* Running jobs end, the others are reported as interrupted. */
static void catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

	sigemptyset(&action.sa_mask);
	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
}

/* --root: "" for the running system, else an absolute path without a slash at its end. */
static int set_root(struct qs_context *ctx, char **ret_root, struct qs_error *err)
{
	const char *typed = qs_option_value(ctx, "root");
	char *root;
	struct stat st;

	if (!typed)
		return 0;
	root = realpath(typed, NULL);
	if (!root)
		return qs_fail(err, QS_E_USAGE, "cannot use --root=%s: %s", typed, strerror(errno));
	*ret_root = root;
	if (stat(root, &st) < 0 || !S_ISDIR(st.st_mode))
		return qs_fail(err, QS_E_USAGE, "--root=%s is not a directory", typed);
	ctx->env.root = strcmp(root, "/") == 0 ? "" : root;
	return 0;
}

static int check_rights(const struct qs_context *ctx, struct qs_error *err)
{
	if (!(ctx->command->flags & QS_CMD_NEEDS_ROOT) || geteuid() == 0 || *ctx->env.root)
		return 0;
	return qs_fail(err, QS_E_NOT_PERMITTED, "must be run as root; use sudo");
}

static int load_config(struct qs_context *ctx, struct qs_error *err)
{
	const char *typed = qs_option_value(ctx, "config");
	QS_AUTO(qs_auto_free)
	char *file = typed ? qs_strdup(typed) : qs_env_path(&ctx->env, QS_CONFIG_FILE);

	qs_config_init(&ctx->env.config);
	return qs_config_load(&ctx->env.config, file, typed != NULL, err);
}

static int run_command(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	const struct qs_command *command = ctx->command;
	int r = qs_arguments_check(ctx, argc, argv, err);

	if (r < 0)
		return r;
	if (command->flags & QS_CMD_STANDALONE)
		return command->run(ctx, argc, argv, err);
	r = check_rights(ctx, err);
	if (r < 0)
		return r;
	r = load_config(ctx, err);
	if (r < 0)
		return r;
	qs_log_catch_crypt();
	qs_progress_start(ctx);
	if (command->flags & QS_CMD_CHANGES)
		catch_signals();
	r = command->run(ctx, argc, argv, err);
	return r < 0 ? r : qs_outcomes_verdict(&ctx->outcomes, err);
}

static int version(struct qs_context *ctx)
{
	ctx->command = NULL;
	ctx->text = qs_strdup("qs-util " QS_VERSION "\n");
	if (ctx->json) /* jansson opens files for its seed */
		ctx->result = json_pack("{s:s}", "version", QS_VERSION);
	return 0;
}

/* --help anywhere is `help COMMAND`. */
static int show_help(struct qs_context *ctx, struct qs_error *err)
{
	char *name = ctx->command ? qs_strdup(ctx->command->name) : NULL;
	int r;

	ctx->command = qs_command_find("help");
	r = qs_row_help.run(ctx, name ? 1 : 0, &name, err);
	free(name);
	return r;
}

static int dispatch(struct qs_context *ctx, int argc, char **argv, char **ret_root,
		    struct qs_error *err)
{
	int r = qs_options_parse(ctx, argc, argv, &argc, err);

	if (r < 0)
		return r;
	qs_log_install(log_to_stderr,
		       ctx->verbose ? QS_LOG_DEBUG
		       : ctx->quiet ? QS_LOG_ERROR
				    : QS_LOG_NOTICE,
		       ctx);
	if (qs_option_given(ctx, "help"))
		return show_help(ctx, err);
	if (qs_option_given(ctx, "version"))
		return version(ctx);
	if (!ctx->command)
		return qs_fail(err, QS_E_USAGE, "no command given; 'qs-util help' lists them");
	r = set_root(ctx, ret_root, err);
	return r < 0 ? r : run_command(ctx, argc, argv, err);
}

int main(int argc, char **argv)
{
	QS_AUTO(qs_auto_free) char *root = NULL;
	struct qs_context ctx = {
		.env.root = "",
		.keystore = { .owner = getpid(), .pcrs = QS_KEYSTORE_PCRS },
	};
	struct qs_error err = {};
	int r, status;

	fill_standard_descriptors();
	protect_memory();
	(void)signal(SIGPIPE, SIG_IGN);
	ctx.json = asks_for_json(argc, argv);
	ctx.env.keystore = &ctx.keystore;
	qs_ask_offer_keystore(&ctx);
	r = dispatch(&ctx, argc, argv, &root, &err);
	status = qs_output_finish(&ctx, r, &err);

	qs_keystore_session_done(&ctx.keystore);
	qs_outcomes_done(&ctx.outcomes);
	qs_config_done(&ctx.env.config);
	json_decref(ctx.result);
	free(ctx.text);
	return status;
}
