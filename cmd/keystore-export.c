#include "ops/keystore-export.h"
#include "base/cleanup.h"
#include "keystore-actions.h"
#include "output-option.h"

int qs_keystore_action_export(struct qs_context *ctx, struct qs_error *err)
{
	const char *file = qs_option_value(ctx, "output");
	struct qs_export_options options = {
		.public_key = qs_option_value(ctx, "public-key"),
		.generation = qs_option_number(ctx, "generation"),
	};
	int r;

	if (!options.public_key)
		return qs_fail(err, QS_E_USAGE,
			       "keystore export needs --public-key: whose key is it encrypted to?");
	r = qs_output_option(ctx, file ? file : "-", &options.out, err);
	if (r < 0 && !file)
		qs_error_append(err, " (--output)");
	if (r == 0)
		r = qs_keystore_export(&ctx->env, &options, &ctx->result, err);
	if (r == 0 && options.out.file)
		ctx->text = qs_printf(
			"%s: generation %d, for the owner of the private key\n", file,
			(int)json_integer_value(json_object_get(ctx->result, "generation")));
	return r;
}
