#include "command.h"

struct request {
	const char *const *devices;
	size_t count;
	struct qs_destroy_options options;
};

static int preview(const struct qs_context *ctx, const void *cookie, struct qs_outcomes *ret,
		   struct qs_error *err)
{
	const struct request *q = cookie;

	return qs_destroy_preview(&ctx->env, q->devices, q->count, &q->options, ret, err);
}

static int run(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	const struct request q = {
		.devices = (const char *const *)argv,
		.count = (size_t)argc,
		.options.force = qs_option_given(ctx, "force"),
		.options.purge = qs_option_given(ctx, "purge"),
	};
	int r = qs_confirm_preview(ctx, "all data on these devices will be unreadable for ever",
				   preview, &q, err);

	ctx->done = "destroyed";
	if (r < 0)
		return r;
	return qs_destroy(&ctx->env, q.devices, q.count, &q.options, &ctx->outcomes, err);
}

static const struct qs_option options[] = {
	{ .name = "force", .help = "override a safety refusal" },
	{ .name = "purge",
	  .help = "also of a device that the keystore opens: keep nothing for the retention time" },
	{}
};

static const struct qs_example examples[] = {
	{ "cryptdestroy /dev/sdj", "at the end of a disk's life" },
	{ "--json --yes cryptdestroy /dev/sdj", "the same from a program" },
	{}
};

static const struct qs_status statuses[] = {
	{ 4, "there is nothing to destroy: no LUKS header, key or backup" },
	{ 5, "a device is in use" },
	{ 6, "the question was not answered with yes" },
	{ 7, "some devices are destroyed; the others are reported" },
	{}
};

const struct qs_command qs_row_cryptdestroy = {
	.name = "cryptdestroy",
	.args = "DEVICE...",
	.min_args = 1,
	.max_args = QS_CMD_ANY_NUMBER,
	.help = "make devices unreadable for ever: keyslots, headers, key, backups",
	.about =
		"Closes the device, erases all its keyslots and both header copies, and deletes "
		"its key, its header backups and its line in /etc/crypttab. Nobody can read the "
		"data afterwards, unless a copy of the key or of the header was made elsewhere. "
		"Flash may keep overwritten blocks out of reach: where that matters, erase the "
		"whole device with its own command (nvme format, hdparm) afterwards.\n"
		"Of a device that has a key in the keystore the header backup, with the wrapped key "
		"in it, is kept for the retention time (keystore retention), and cryptrestore brings "
		"the device back as long as nothing has been written over its data. With --purge, "
		"or after keystore purge --all, nothing brings it back.\n"
		"It shows the devices and asks for the word 'yes'. Without a terminal, and with "
		"--json, it needs --yes.\n"
		"If it is interrupted, the device still opens or the same command again "
		"finishes the work.\n",
	.examples = examples,
	.options = options,
	.statuses = statuses,
	.see_also = "qs-util-cryptformat(8) qs-util-keystore(8) cryptsetup(8)",
	.flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES | QS_CMD_DESTROYS,
	.files = QS_FILE_KEYS | QS_FILE_HEADERS | QS_FILE_PENDING | QS_FILE_CRYPTTAB |
		 QS_FILE_KEYSTORE,
	.run = run,
};
