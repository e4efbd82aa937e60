#include "base/cleanup.h"
#include "command.h"

/* --force on a device that holds something else: asked for, and checked again afterwards. */
static int ask(const struct qs_context *ctx, const char *device,
	       const struct qs_swap_options *options, struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes shown = {};
	QS_AUTO(qs_outcomes_done) struct qs_outcomes now = {};
	int r = qs_swap_preview(&ctx->env, device, options, &shown, err);

	if (r < 0 || shown.count == 0)
		return r;
	r = qs_confirm(ctx, "--force will overwrite what is on these devices", &shown, err);
	if (r == 0)
		r = qs_swap_preview(&ctx->env, device, options, &now, err);
	if (r == 0 && !qs_confirm_unchanged(&shown, &now))
		return qs_fail(err, QS_E_UNCONFIRMED,
			       "the devices have changed since they were shown, nothing was "
			       "overwritten; run the command again");
	return r;
}

static int run(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	const struct qs_swap_options options = { .now = qs_option_given(ctx, "now"),
						 .force = qs_option_given(ctx, "force") };
	const char *device = argc > 0 ? argv[0] : NULL;
	int r = 0;

	ctx->done = "swap encrypted as";
	if (options.force && !ctx->yes)
		r = ask(ctx, device, &options, err);
	return r < 0 ? r : qs_swap(&ctx->env, device, &options, &ctx->outcomes, err);
}

static const struct qs_option options[] = {
	{ .name = "now", .help = "use the encrypted swap at once, not from the next start" },
	{ .name = "force", .help = "override a safety refusal; asks first if data would be lost" },
	{}
};

static const struct qs_example examples[] = {
	{ "cryptswap", "every swap partition, from the next start" },
	{ "cryptswap --now /dev/sda2", "one of them, at once" },
	{}
};

static const struct qs_status statuses[] = {
	{ 3, "there is no room in memory for what the swap holds" },
	{ 4, "a swap file, or a device without a name that stays" },
	{ 5, "the device is in use for something else" },
	{ 6, "it holds something else than swap, or the system hibernates to it" },
	{ 7, "some swaps are encrypted; the others are reported" },
	{}
};

const struct qs_command qs_row_cryptswap = {
	.name = "cryptswap",
	.args = "[DEVICE]",
	.max_args = 1,
	.help = "encrypt swap with a new random key at each start",
	.about =
		"Without DEVICE every active swap partition and those in /etc/fstab. Switches the swap "
		"off, overwrites all that was ever swapped out in plaintext, reads it again, and lets "
		"/etc/crypttab and /etc/fstab name the encrypted one, by a persistent link; the line in "
		"/etc/fstab keeps its priority and other options. From the next start on the swap "
		"is encrypted with a key that nobody knows; until then it stays off, or is in use "
		"at once with --now. An empty device becomes a new swap.\n"
		"If a step fails, those before it are taken back and the old swap is switched on "
		"again. If it is interrupted, the same command again finishes the work.\n"
		"Swap files are refused: put them on an encrypted file system, or use a partition. "
		"zram is left alone. A swap that the system hibernates to is refused (resume= on the "
		"kernel's command line or in GRUB's settings, RESUME= set by a person, systemd's sleep "
		"or logind settings). The RESUME setting that Debian's installer makes for every swap "
		"is set to none: run update-initramfs -u afterwards.\n"
		"Flash may keep overwritten blocks out of reach.\n",
	.examples = examples,
	.options = options,
	.statuses = statuses,
	.see_also = "crypttab(5) fstab(5) swapon(8)",
	.flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES | QS_CMD_DESTROYS,
	.files = QS_FILE_PENDING | QS_FILE_CRYPTTAB | QS_FILE_FSTAB,
	.run = run,
};
