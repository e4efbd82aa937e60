#include "command.h"

static int run_cryptclose(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	(void)argc;
	ctx->done = "closed";
	return qs_close(&ctx->env, argv[0], &ctx->outcomes, err);
}

static int run_cryptcloseall(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	(void)argc;
	(void)argv;
	ctx->done = "closed";
	return qs_close_all(&ctx->env, &ctx->outcomes, err);
}

static const struct qs_status statuses[] = { { 4, "there is no such device, or it is not open" },
					     { 5, "the mapping is in use" },
					     {} };

static const struct qs_example examples[] = {
	{ "cryptclose /dev/sdj", "before the disk is pulled" }, {}
};

const struct qs_command qs_row_cryptclose = {
	.name = "cryptclose",
	.args = "DEVICE",
	.min_args = 1,
	.max_args = 1,
	.help = "close an encrypted device",
	.about =
		"Removes the mapping. If it is busy (exit status 5), the message names what holds it.\n",
	.statuses = statuses,
	.see_also = "qs-util-cryptopen(8) cryptsetup(8)",
	.flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES,
	.examples = examples,
	.run = run_cryptclose,
};

static const struct qs_status all_statuses[] = {
	{ 5, "the only open device is in use" },
	{ 7, "some devices are closed; the others are reported" },
	{}
};

static const struct qs_example all_examples[] = { { "cryptcloseall", "before maintenance" }, {} };

const struct qs_command qs_row_cryptcloseall = {
	.name = "cryptcloseall",
	.help = "close every encrypted device of ours",
	.about =
		"As cryptclose, for every open device of ours; busy ones stay open and are reported.\n",
	.statuses = all_statuses,
	.see_also = "qs-util-cryptclose(8) qs-util-cryptopenall(8)",
	.flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES,
	.examples = all_examples,
	.run = run_cryptcloseall,
};
