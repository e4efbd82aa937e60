#include "base/cleanup.h"
#include "keystore-actions.h"

static const char *text_of(const json_t *object, const char *field)
{
	return json_string_value(json_object_get(object, field));
}

int qs_keystore_action_schedule(struct qs_context *ctx, const char *time, struct qs_error *err)
{
	int r = qs_keystore_set_schedule(&ctx->env, time, &ctx->result, err);
	const char *next;

	if (r < 0)
		return r;
	next = text_of(ctx->result, "next_rotation");
	ctx->text = next ? qs_printf("The keystore is rotated every %s, next on %s.\n",
				     text_of(ctx->result, "schedule"), next)
			 : qs_strdup("The keystore is rotated only by hand.\n");
	return 0;
}

void qs_keystore_print_schedule(FILE *out, const json_t *result)
{
	const char *next = text_of(result, "next_rotation");
	const char *last = text_of(result, "rotated");
	const json_t *error = json_object_get(result, "last_error");

	if (last)
		fprintf(out, "  last rotation finished on %s\n", last);
	if (next)
		fprintf(out, "  rotated every %s, next on %s%s\n", text_of(result, "schedule"),
			next, json_is_true(json_object_get(result, "overdue")) ? ": overdue" : "");
	else if (text_of(result, "schedule"))
		fputs("  rotated only by hand\n", out);
	if (error)
		fprintf(out, "  the last rotation failed on %s: %s\n", text_of(error, "time"),
			text_of(error, "message"));
}
