#include <string.h>

#include "command.h"

static void common_options(struct qs_context *ctx, struct qs_open_options *options)
{
	options->read_only = qs_option_given(ctx, "read-only");
	options->test = qs_option_given(ctx, "test");
	ctx->done = options->test ? "key proven for" : "opened as";
}

/* DEVICE [KEYFILE] [updatecrypttab]: the word counts only in the last place. */
static int take_arguments(int argc, char **argv, struct qs_open_options *options,
			  struct qs_error *err)
{
	if (argc > 1 && strcmp(argv[argc - 1], "updatecrypttab") == 0) {
		options->update_crypttab = true;
		argc--;
	}
	if (argc > 2)
		return qs_fail(err, QS_E_USAGE,
			       "'%s': only the word updatecrypttab can stand behind the key file",
			       argv[2]);
	if (argc == 2 && options->key_file)
		return qs_fail(err, QS_E_USAGE, "two key files: '%s' and --key-file=%s", argv[1],
			       options->key_file);
	if (argc == 2)
		options->key_file = argv[1];
	if (options->test && options->update_crypttab)
		return qs_fail(err, QS_E_USAGE,
			       "--test changes nothing, so updatecrypttab cannot go with it");
	return 0;
}

int qs_cmd_cryptopen(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	struct qs_open_options options = {
		.key_file = qs_option_value(ctx, "key-file"),
		.allow_discards = qs_option_given(ctx, "allow-discards"),
	};
	int r;

	common_options(ctx, &options);
	r = take_arguments(argc, argv, &options, err);
	if (r < 0)
		return r;
	return qs_open(&ctx->env, argv[0], &options, &ctx->outcomes, err);
}

int qs_cmd_cryptopenall(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	struct qs_open_options options = {};
	int r;

	(void)argc;
	(void)argv;
	common_options(ctx, &options);
	r = qs_open_all(&ctx->env, &options, &ctx->outcomes, err);
	if (r >= 0 && ctx->outcomes.count == 0 && !ctx->json)
		qs_log(QS_LOG_NOTICE, "no encrypted device of ours is present");
	return r;
}
