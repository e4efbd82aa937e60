#include "base/cleanup.h"
#include "command.h"

static bool any_ok(const struct qs_outcomes *list)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->items[i].error.kind == QS_E_NONE)
			return true;
	return false;
}

/*
 * While the question stood there, a disk may have been pulled and another one
 * have got its node: what was confirmed and what is there now must agree.
 */
static int ask(const struct qs_context *ctx, const char *const *devices, size_t count,
	       const struct qs_destroy_options *options, struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes shown = {};
	QS_AUTO(qs_outcomes_done) struct qs_outcomes now = {};
	int r = qs_destroy_preview(&ctx->env, devices, count, options, &shown, err);

	/* Nothing that could be destroyed: the operation will say why. */
	if (r < 0 || !any_ok(&shown))
		return r;
	r = qs_confirm(ctx, "all data on these devices will be unreadable for ever", &shown, err);
	if (r < 0)
		return r;
	r = qs_destroy_preview(&ctx->env, devices, count, options, &now, err);
	if (r >= 0 && !qs_confirm_unchanged(&shown, &now))
		return qs_fail(err, QS_E_UNCONFIRMED,
			       "the devices have changed since they were shown, nothing was "
			       "destroyed; run the command again");
	return r;
}

int qs_cmd_cryptdestroy(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	const struct qs_destroy_options options = { .force = qs_option_given(ctx, "force") };
	const char *const *devices = (const char *const *)argv;
	int r;

	ctx->done = "destroyed";
	r = ctx->yes ? 0 : ask(ctx, devices, (size_t)argc, &options, err);
	if (r < 0)
		return r;
	return qs_destroy(&ctx->env, devices, (size_t)argc, &options, &ctx->outcomes, err);
}
