#include "ops/keystore-check.h"
#include "base/cleanup.h"
#include "keystore-actions.h"

int qs_keystore_action_check(struct qs_context *ctx, struct qs_error *err)
{
	int r = qs_keystore_check(&ctx->env, &ctx->result, err);
	int count = (int)json_array_size(json_object_get(ctx->result, "tried"));

	if (r == 0)
		ctx->text = qs_printf("%d generation%s of the keystore's key can be had.\n", count,
				      count == 1 ? "" : "s");
	return r;
}
