/*
 * keystore enable and migrate: where the key lives.
 */
#include <string.h>

#include "ask.h"
#include "base/cleanup.h"
#include "keystore-actions.h"

/* What the TPM binds it to. A PIN that is given may also be for where it comes from (MOVED). */
static int take_tpm2(struct qs_context *ctx, const char *provider, bool moved, struct qs_error *err)
{
	struct qs_keystore_session *s = &ctx->keystore;
	bool pin = qs_option_given(ctx, "pin");

	if (strcmp(provider, "tpm2") != 0 &&
	    (pin || (s->pin && !moved) || qs_option_given(ctx, "pcrs")))
		return qs_fail(err, QS_E_USAGE, "--pcrs and a PIN are for --provider tpm2");
	s->want_pin = pin || s->pin;
	return qs_option_pcrs(ctx, "pcrs", QS_KEYSTORE_PCRS, &s->pcrs, err);
}

static int confirm(struct qs_context *ctx, const char *provider, struct qs_error *err)
{
	const struct qs_outcomes none = {};

	return qs_confirm(ctx,
			  strcmp(provider, "tpm2") == 0
				  ? "devices enrolled in the keystore will need this TPM, in "
				    "this state, to open: export the key, or give each another "
				    "keyslot"
				  : "devices enrolled in the keystore will need it to open: "
				    "without a key bundle (keybackup) or another keyslot, its "
				    "loss is theirs",
			  &none, err);
}

int qs_keystore_action_enable(struct qs_context *ctx, struct qs_error *err)
{
	const char *provider = qs_option_value(ctx, "provider") ?: "local";
	int r = take_tpm2(ctx, provider, false, err);

	ctx->keystore.key_id = qs_option_value(ctx, "key-id");
	if (r == 0)
		r = qs_keystore_may_enable(&ctx->env, err);
	if (r == 0)
		r = confirm(ctx, provider, err);
	if (r == 0)
		r = qs_keystore_enable(&ctx->env, provider, err);
	if (r < 0)
		return r;
	ctx->result = json_pack("{s:s}", "state", "enabled");
	ctx->text = qs_strdup(
		strcmp(provider, "tpm2") == 0
			? "The keystore is enabled. Nothing of it opens without this TPM: "
			  "export the key (qs-util keystore export), or give each device "
			  "another keyslot.\n"
			: "The keystore is enabled. Make a key bundle (qs-util keybackup) before "
			  "devices depend on it.\n");
	return 0;
}

int qs_keystore_action_migrate(struct qs_context *ctx, struct qs_error *err)
{
	const struct qs_rotate_options options = { .provider = qs_option_value(ctx, "provider") };
	int r;

	if (!options.provider)
		return qs_fail(err, QS_E_USAGE, "keystore migrate: give --provider NAME");
	r = take_tpm2(ctx, options.provider, true, err);
	ctx->keystore.key_id = qs_option_value(ctx, "key-id");
	if (r == 0)
		r = qs_keystore_may_migrate(&ctx->env, options.provider, err);
	if (r == 0)
		r = confirm(ctx, options.provider, err);
	if (r == 0)
		r = qs_keystore_rotate(&ctx->env, &options, &ctx->outcomes, &ctx->result, err);
	ctx->done = "rewrapped";
	if (r == 0)
		ctx->text = qs_printf(
			"Generation %d is current; its provider is %s.\n",
			(int)json_integer_value(json_object_get(ctx->result, "generation")),
			options.provider);
	return r;
}
