#include "command.h"

int qs_cmd_cryptclose(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	(void)argc;
	ctx->done = "closed";
	return qs_close(&ctx->env, argv[0], &ctx->outcomes, err);
}

int qs_cmd_cryptcloseall(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	(void)argc;
	(void)argv;
	ctx->done = "closed";
	return qs_close_all(&ctx->env, &ctx->outcomes, err);
}
