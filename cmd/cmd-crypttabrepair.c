#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "command.h"

static const char *text_at(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static void tell_keys(const json_t *result)
{
	const json_t *item;
	size_t i;

	json_array_foreach(json_object_get(result, "unusable_keys"), i, item)
		qs_log(QS_LOG_WARNING, "%s", text_at(item, "problem"));
	json_array_foreach(json_object_get(result, "unused_keys"), i, item)
		qs_log(QS_LOG_NOTICE, "unused key: %s opens none of the devices that are present",
		       json_string_value(item));
}

static void tell_lines(const json_t *result)
{
	const json_t *item;
	size_t i;

	json_array_foreach(json_object_get(result, "stale_lines"), i, item)
	{
		bool removed = json_is_true(json_object_get(item, "removed"));

		qs_log(QS_LOG_NOTICE, "%s line %lld: %s %s", removed ? "removed" : "stale",
		       json_integer_value(json_object_get(item, "line")), text_at(item, "name"),
		       text_at(item, "problem"));
	}
}

/* What belongs to no device; the devices' own lines come from print(). */
static void tell(const struct qs_context *ctx, bool dry_run)
{
	tell_keys(ctx->result);
	tell_lines(ctx->result);
	if (dry_run && !text_at(ctx->result, "diff")[0])
		qs_log(QS_LOG_NOTICE, "nothing to change in %s", QS_CRYPTTAB);
}

static int run(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	const char *dirs[QS_OPTIONS_MAX];
	const struct qs_repair_options options = {
		.keys_dirs = dirs,
		.keys_dir_count = qs_option_values(ctx, "keys", dirs, QS_OPTIONS_MAX),
		.dry_run = qs_option_given(ctx, "dry-run"),
		.prune = qs_option_given(ctx, "prune"),
	};
	int r;

	(void)argc;
	(void)argv;
	r = qs_repair(&ctx->env, &options, &ctx->outcomes, &ctx->result, err);
	if (ctx->json || !ctx->result)
		return r;
	if (options.dry_run)
		ctx->text = qs_strdup(text_at(ctx->result, "diff"));
	tell(ctx, options.dry_run);
	return r;
}

static void print_device(const json_t *device)
{
	const json_t *line = json_object_get(device, "crypttab");
	QS_AUTO(qs_auto_free) char *node = qs_utf8_printable(text_at(device, "device"));

	if (!line) {
		printf("%s: no line; %s\n", node, text_at(device, "note"));
		return;
	}
	printf("%s: %s, line %lld %s", node, text_at(device, "name"),
	       json_integer_value(json_object_get(line, "line")), text_at(line, "action"));
	if (text_at(device, "key_file")[0])
		printf(", key %s", text_at(device, "key_file"));
	putchar('\n');
}

/* With --dry-run the difference is all of standard output, as patch(1) wants it. */
static void print(const struct qs_context *ctx, const json_t *devices)
{
	const json_t *device, *warning;
	size_t i, k;

	json_array_foreach(devices, i, device)
	{
		if (!qs_option_given(ctx, "dry-run") && !ctx->quiet &&
		    json_is_true(json_object_get(device, "ok")))
			print_device(device);
		json_array_foreach(json_object_get(device, "warnings"), k, warning)
			qs_log(QS_LOG_WARNING, "%s: %s", text_at(device, "device"),
			       json_string_value(warning));
	}
}

static const struct qs_option options[] = {
	{ .name = "dry-run", .help = "write nothing, print what would change as a unified diff" },
	{ .name = "keys",
	  .arg = "DIR",
	  .repeats = true,
	  .help = "look for keys in this directory too; may be given several times" },
	{ .name = "prune",
	  .help = "remove our lines whose devices are absent or no LUKS any more" },
	{}
};

static const struct qs_example examples[] = {
	{ "crypttabrepair --dry-run", "show what would change" },
	{ "crypttabrepair", "rebuild our lines of /etc/crypttab" },
	{ "crypttabrepair --keys /mnt/stick/keys", "with keys that were moved or saved elsewhere" },
	{}
};

static const struct qs_status statuses[] = {
	{ 1, "/etc/crypttab cannot be read, understood or written; it is as it was" },
	{ 2, "a device of ours was found that no key opens, or no keys directory" },
	{ 7, "some devices could not be read or opened; the lines of the others are written" },
	{}
};

const struct qs_command qs_row_crypttabrepair = {
	.name = "crypttabrepair",
	.help = "rebuild /etc/crypttab from the keys and devices that are there",
	.about =
		"Finds every LUKS device that is present and the key file in "
		"/etc/cryptconf/keys (and each --keys DIR) that opens it, and writes their lines "
		"into /etc/crypttab. The table, its lines and the names of the keys may all be "
		"lost.\n"
		"Keys are matched by their names, then by the fingerprints that cryptformat "
		"leaves in the header, then by trial, unused keys first. Every match is proven "
		"by opening the device for a test.\n"
		"A device has one line. One that has a line of ours keeps its name and options; "
		"a disk that moved to another link is known by its header backup, its label or "
		"its key, and keeps its name, so that /etc/fstab stays right. Of two copies of a "
		"disk (one UUID) each is named by its own link in /dev/disk/by-id, never by UUID. "
		"Of two key files with the same content the one with the device's name is taken.\n"
		"Lines of others stay byte for byte, and a device that such a line names gets no "
		"line of ours. A line of ours for a device that has another line is removed. Other "
		"lines of ours that lead nowhere are reported, and removed only with --prune. "
		"LUKS devices that no key opens, unused keys, and keys that others can read (which "
		"are not tried) are listed.\n"
		"Image files are found by the lines of /etc/crypttab and crypttab.qs-bak that name "
		"them; with --root, disks are those with links below DIR/dev/disk.\n",
	.examples = examples,
	.options = options,
	.statuses = statuses,
	.see_also = "qs-util-cryptstatus(8) crypttab(5) patch(1)",
	.flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES,
	.files = QS_FILE_KEYS | QS_FILE_HEADERS | QS_FILE_CRYPTTAB,
	.run = run,
	.print = print,
};
