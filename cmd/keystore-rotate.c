#include "base/cleanup.h"
#include "keystore-actions.h"

int qs_keystore_action_rotate(struct qs_context *ctx, struct qs_error *err)
{
	const struct qs_rotate_options options = {
		.force = qs_option_given(ctx, "force"),
		.if_due = qs_option_given(ctx, "if-due"),
	};
	int r;

	if (options.force && options.if_due)
		return qs_fail(err, QS_E_USAGE, "keystore rotate: --force or --if-due");
	ctx->keystore.key_id = qs_option_value(ctx, "key-id");
	/* Whoever waits for a date waits for no person. */
	if (options.if_due)
		ctx->keystore.ask_pin = NULL;
	r = qs_keystore_rotate(&ctx->env, &options, &ctx->outcomes, &ctx->result, err);
	ctx->done = "rewrapped";
	if (r == 0 && !options.if_due)
		ctx->text = qs_printf(
			"Generation %d is current.\n",
			(int)json_integer_value(json_object_get(ctx->result, "generation")));
	return r;
}
