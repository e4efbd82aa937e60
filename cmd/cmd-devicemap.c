#include "base/cleanup.h"
#include "command.h"

static int run(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
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
static void print(const struct qs_context *ctx, const json_t *devices)
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

static const struct qs_option options[] = {
	{ .name = "all", .help = "partitions and stacked devices (LVM, md, loop) too" }, {}
};

static const struct qs_example examples[] = { { "devicemap", "which disk is which" },
					      { "--json devicemap --all",
						"the whole inventory for a program" },
					      {} };

const struct qs_command qs_row_devicemap = {
	.name = "devicemap",
	.help = "list disks with their persistent names",
	.about = "Prints a line for each disk: its device node, a tab, then the persistent link, "
		 "vendor, model and serial number, separated by a comma and a blank. What is not "
		 "known is empty; a missing link is '-'.\n"
		 "With --json each device also has size, wwn, transport, whether it rotates, why "
		 "it may be in use, what kind of LUKS header it carries, and the mapper name if "
		 "it is open. Only then are the devices opened, for reading.\n",
	.examples = examples,
	.options = options,
	.see_also = "lsblk(8) udevadm(8)",
	.run = run,
	.print = print,
};
