#include "base/cleanup.h"
#include "command.h"

static int run(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	const struct qs_backup_options options = { .force = qs_option_given(ctx, "force") };
	const char *const *devices = (const char *const *)argv;

	ctx->details = qs_option_given(ctx, "list");
	ctx->done = "backed up as";
	if (ctx->details)
		return qs_backup_show(&ctx->env, devices, (size_t)argc, &ctx->outcomes, err);
	return qs_backup(&ctx->env, devices, (size_t)argc, &options, &ctx->outcomes, err);
}

static char *remark(const json_t *backup)
{
	const char *kind = json_string_value(json_object_get(backup, "kind"));
	const json_t *agrees = json_object_get(backup, "agrees");

	if (json_is_false(json_object_get(backup, "usable")))
		return qs_strdup("cannot be used");
	if (kind && *kind == 'd')
		return qs_strdup("bytes of a damaged header");
	return qs_printf("%s%s", kind ? kind : "",
			 json_is_true(agrees)    ? ", agrees"
			 : json_is_false(agrees) ? ", differs"
						 : "");
}

static const struct qs_field columns[] = {
	{ .title = "NAME", .key = "name" }, { .title = "SEQUENCE", .key = "sequence" },
	{ .title = "TIME", .key = "time" }, { .title = "STATE", .text = remark },
	{ .title = "PATH", .key = "path" }, {}
};

/* One row for each backup, with the name of its device. */
static void print(const struct qs_context *ctx, const json_t *devices)
{
	QS_AUTO(qs_auto_json) json_t *rows = json_array();
	const json_t *device;
	json_t *backup;
	size_t i, k;

	if (!ctx->details) {
		qs_print_successes(ctx);
		return;
	}
	json_array_foreach(devices, i, device)
	{
		json_array_foreach(json_object_get(device, "backups"), k, backup)
		{
			(void)json_object_set(backup, "name", json_object_get(device, "name"));
			(void)json_array_append(rows, backup);
		}
	}
	qs_table_print(stdout, columns, rows);
}

static const struct qs_option options[] = {
	{ .name = "list", .help = "show what backups there are, and change nothing" },
	{ .name = "force",
	  .help = "although the last backup is another volume's or has other key material; it is "
		  "kept" },
	{}
};

static const struct qs_example examples[] = {
	{ "cryptbackup", "after other tools have changed keyslots" },
	{ "cryptbackup --list /dev/sdj", "its backups, with sequence numbers for cryptrestore" },
	{}
};

static const struct qs_status statuses[] = {
	{ 4, "a header is damaged: its backup stays as it is" },
	{ 6, "a header is not of the volume that was backed up, or no honest one" },
	{ 7, "some headers are backed up; the others are reported" },
	{}
};

const struct qs_command qs_row_cryptbackup = {
	.name = "cryptbackup",
	.args = "[DEVICE...]",
	.max_args = QS_CMD_ANY_NUMBER,
	.help = "back up LUKS headers; --list shows what backups there are",
	.about =
		"Reads the header and the keyslots of each device (without DEVICE: of every device "
		"of ours that is present), checks them and stores them as the current backup. The "
		"one before is kept as a version under its LUKS2 sequence number; header_versions "
		"in the configuration says how many of them stay. What changes keyslots with "
		"qs-util refreshes the backup by itself; cryptstatus tells when another tool has "
		"changed a header.\n"
		"A damaged header, one whose key material is no longer that of the last backup, "
		"and one of another volume do not replace a backup. The files are those of 'cryptsetup luksHeaderBackup'.\n",
	.examples = examples,
	.options = options,
	.statuses = statuses,
	.see_also = "qs-util-cryptrestore(8) qs-util-cryptstatus(8) cryptsetup-luksHeaderBackup(8)",
	.flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES,
	.files = QS_FILE_HEADERS,
	.run = run,
	.print = print,
};
