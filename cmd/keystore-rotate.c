#include "base/cleanup.h"
#include "keystore-actions.h"
#include "kms-key.h"

static char *say_key(const struct qs_context *ctx, const struct qs_keystore_key *key)
{
	const json_t *made = json_object_get(json_object_get(ctx->result, "key"), "made");

	return qs_printf(
		json_is_true(made)
			? "The key %s has a new version.\n"
			: "An earlier run has left devices of the key %s behind: these are done, and "
			  "no new version is made.\n",
		key->name);
}

int qs_keystore_action_rotate(struct qs_context *ctx, struct qs_error *err)
{
	struct qs_keystore_key key;
	struct qs_rotate_options options = {
		.force = qs_option_given(ctx, "force"),
		.if_due = qs_option_given(ctx, "if-due"),
	};
	int r = qs_kms_key_option(ctx, &key, err);

	if (r < 0)
		return r;
	options.key = r == 1 ? &key : NULL;
	if (options.key && (options.if_due || qs_option_given(ctx, "key-id")))
		return qs_fail(err, QS_E_USAGE, "keystore rotate: --kms-key, --key-id or --if-due");
	if (options.force && options.if_due)
		return qs_fail(err, QS_E_USAGE, "keystore rotate: --force or --if-due");
	ctx->keystore.key_id = qs_option_value(ctx, "key-id");
	/* Whoever waits for a date waits for no person. */
	if (options.if_due)
		ctx->keystore.ask_pin = NULL;
	r = qs_keystore_rotate(&ctx->env, &options, &ctx->outcomes, &ctx->result, err);
	ctx->done = "rewrapped";
	if (r == 0 && options.key)
		ctx->text = say_key(ctx, &key);
	else if (r == 0 && !options.if_due)
		ctx->text = qs_printf(
			"Generation %d is current.\n",
			(int)json_integer_value(json_object_get(ctx->result, "generation")));
	return r;
}
