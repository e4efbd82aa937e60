#include "base/cleanup.h"
#include "command.h"

static bool any_ok(const struct qs_outcomes *list)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->items[i].error.kind == QS_E_NONE)
			return true;
	return false;
}

/*
 * While the question stood there, a disk may have been pulled and another one
 * have got its node: what was confirmed and what is there now must agree.
 */
static int ask(const struct qs_context *ctx, const char *const *devices, size_t count,
	       const struct qs_destroy_options *options, struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes shown = {};
	QS_AUTO(qs_outcomes_done) struct qs_outcomes now = {};
	int r = qs_destroy_preview(&ctx->env, devices, count, options, &shown, err);

	/* Nothing that could be destroyed: the operation will say why. */
	if (r < 0 || !any_ok(&shown))
		return r;
	r = qs_confirm(ctx, "all data on these devices will be unreadable for ever", &shown, err);
	if (r < 0)
		return r;
	r = qs_destroy_preview(&ctx->env, devices, count, options, &now, err);
	if (r >= 0 && !qs_confirm_unchanged(&shown, &now))
		return qs_fail(err, QS_E_UNCONFIRMED,
			       "the devices have changed since they were shown, nothing was "
			       "destroyed; run the command again");
	return r;
}

static int run(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	const struct qs_destroy_options options = { .force = qs_option_given(ctx, "force") };
	const char *const *devices = (const char *const *)argv;
	int r;

	ctx->done = "destroyed";
	r = ctx->yes ? 0 : ask(ctx, devices, (size_t)argc, &options, err);
	if (r < 0)
		return r;
	return qs_destroy(&ctx->env, devices, (size_t)argc, &options, &ctx->outcomes, err);
}

static const struct qs_option options[] = {
	{ .name = "force", .help = "override a safety refusal" }, {}
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
	.about = "Closes the device, erases all its keyslots and both header copies, and deletes "
		 "its key, its header backups and its line in /etc/crypttab. Nobody can read the "
		 "data afterwards, unless a copy of the key or of the header was made elsewhere. "
		 "Flash may keep overwritten blocks out of reach: where that matters, erase the "
		 "whole device with its own command (nvme format, hdparm) afterwards.\n"
		 "It shows the devices and asks for the word 'yes'. Without a terminal, and with "
		 "--json, it needs --yes.\n"
		 "If it is interrupted, the device still opens or the same command again "
		 "finishes the work.\n",
	.examples = examples,
	.options = options,
	.statuses = statuses,
	.see_also = "qs-util-cryptformat(8) cryptsetup(8)",
	.flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES | QS_CMD_DESTROYS,
	.files = QS_FILE_KEYS | QS_FILE_HEADERS | QS_FILE_PENDING | QS_FILE_CRYPTTAB,
	.run = run,
};
