#include "base/cleanup.h"
#include "command.h"

int qs_cmd_devicemap(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	const struct qs_devicemap_options options = {
		.all = qs_option_given(ctx, "all"),
		.probe = ctx->json, /* the lines show nothing that needs it: let disks sleep */
	};

	(void)argc;
	(void)argv;
	return qs_devicemap(&ctx->env, &options, &ctx->outcomes, err);
}

static const struct qs_field fields[] = {
	{ .title = "NODE", .key = "device" },   { .title = "LINK", .key = "by_id" },
	{ .title = "VENDOR", .key = "vendor" }, { .title = "MODEL", .key = "model" },
	{ .title = "SERIAL", .key = "serial" }, {}
};

/* The documented line: NODE<TAB>LINK, VENDOR, MODEL, SERIAL. */
void qs_print_devicemap(const struct qs_context *ctx, const json_t *devices)
{
	const json_t *device;
	size_t i;

	(void)ctx;
	json_array_foreach(devices, i, device)
	{
		for (const struct qs_field *f = fields; f->title; f++) {
			QS_AUTO(qs_auto_free) char *text = qs_field_text(f, device);
			const char *missing = f == &fields[1] ? "-" : "";

			printf("%s%s",
			       f == fields       ? ""
			       : f == &fields[1] ? "\t"
						 : ", ",
			       text ? text : missing);
		}
		putchar('\n');
	}
}
