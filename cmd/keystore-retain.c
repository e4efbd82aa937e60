#include "base/cleanup.h"
#include "keystore-actions.h"

int qs_keystore_action_retention(struct qs_context *ctx, const char *time, struct qs_error *err)
{
	uint32_t seconds = 0;
	int r = qs_keystore_set_retention(&ctx->env, time, &seconds, err);

	if (r < 0)
		return r;
	ctx->result = json_pack("{s:i}", "retention", (int)seconds);
	ctx->text = qs_printf("What is destroyed can be brought back for %s.\n", time);
	return 0;
}

static char *tell_retired(const json_t *retired)
{
	char *text = qs_strdup("");
	const json_t *number;
	size_t i;

	json_array_foreach(retired, i, number)
	{
		QS_AUTO(qs_auto_free) char *before = text;

		text = qs_printf("%sGeneration %d is erased: nothing needs it any more.\n", before,
				 (int)json_integer_value(number));
	}
	return text;
}

int qs_keystore_action_purge(struct qs_context *ctx, struct qs_error *err)
{
	const struct qs_outcomes none = {};
	bool all = qs_option_given(ctx, "all");
	QS_AUTO(qs_auto_json) json_t *retired = NULL;
	int r = 0;

	if (all)
		r = qs_confirm(ctx,
			       "devices that were destroyed can then no longer be brought back, "
			       "whatever is left of their retention time",
			       &none, err);
	ctx->done = "erased what was kept of";
	if (r == 0)
		r = qs_keystore_purge(&ctx->env, all, &ctx->outcomes, &retired, err);
	if (json_array_size(retired) > 0) {
		ctx->text = tell_retired(retired);
		ctx->result = json_pack("{s:O}", "retired", retired);
	}
	return r;
}

void qs_keystore_print_retained(FILE *out, const json_t *result)
{
	const json_t *time = json_object_get(result, "retention");
	int hours = (int)json_integer_value(time) / 3600;
	const json_t *one;
	size_t i;

	if (time && hours % 24 == 0)
		fprintf(out, "  destroyed devices are kept for %d day%s\n", hours / 24,
			hours == 24 ? "" : "s");
	else if (time)
		fprintf(out, "  destroyed devices are kept for %d hours\n", hours);
	json_array_foreach(json_object_get(result, "kept"), i, one)
		fprintf(out, "  destroyed: %s, kept until %s\n",
			json_string_value(json_object_get(one, "name")),
			json_string_value(json_object_get(one, "until")));
}
