#include "base/cleanup.h"
#include "command.h"

struct request {
	const char *device;
	struct qs_restore_options options;
};

static bool is_same(const struct qs_outcomes *list)
{
	return list->count && json_is_true(json_object_get(list->items[0].details, "same"));
}

/* Nothing is asked when the device has that header already: such a preview is empty. */
static int preview(const struct qs_context *ctx, const void *cookie, struct qs_outcomes *ret,
		   struct qs_error *err)
{
	const struct request *q = cookie;
	int r = qs_restore_preview(&ctx->env, q->device, &q->options, ret, err);

	if (r == 0 && is_same(ret))
		qs_outcomes_done(ret);
	return r;
}

static int run(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	const struct request q = {
		.device = argv[0],
		.options = {
			.file = argc > 1 ? argv[1] : NULL,
			.sequence = qs_option_number(ctx, "sequence"),
			.force = qs_option_given(ctx, "force"),
		},
	};
	bool look = qs_option_given(ctx, "dry-run");
	int r;

	if (q.options.file && q.options.sequence)
		return qs_fail(err, QS_E_USAGE, "give either FILE or --sequence, not both");
	r = look ? 0
		 : qs_confirm_preview(ctx, "the LUKS header of this device will be overwritten",
				      preview, &q, err);
	if (r < 0)
		return r;
	r = look ? qs_restore_preview(&ctx->env, q.device, &q.options, &ctx->outcomes, err)
		 : qs_restore(&ctx->env, q.device, &q.options, &ctx->outcomes, err);
	ctx->done = is_same(&ctx->outcomes) ? "nothing to restore for"
		    : look                  ? "would restore the header of"
					    : "restored the header of";
	return r;
}

static const struct qs_option options[] = {
	{ .name = "sequence",
	  .arg = "N",
	  .min = 1,
	  .max = UINT32_MAX,
	  .help = "the backup with this number (cryptbackup --list)" },
	{ .name = "dry-run", .help = "say what would change, and change nothing" },
	{ .name = "force",
	  .help = "restore an older header, or one of another volume; asks all the same" },
	{}
};

static const struct qs_example examples[] = {
	{ "cryptrestore --dry-run /dev/sdj", "what is wrong, and what would be done" },
	{ "cryptrestore /dev/sdj", "mend the header after a partitioner or mkfs wrote over it" },
	{}
};

static const struct qs_status statuses[] = {
	{ 4, "no header to restore: none survives and no backup can be used, or it is a bigger "
	     "device's" },
	{ 5, "the device is in use otherwise than by a mapping of this very header" },
	{ 6,
	  "another volume's header, an older one, one that no key at hand opens, or the question "
	  "was not answered with yes" },
	{}
};

const struct qs_command qs_row_cryptrestore = {
	.name = "cryptrestore",
	.args = "DEVICE [FILE]",
	.min_args = 1,
	.max_args = 2,
	.help = "mend a LUKS header, from what is intact or from its backup",
	.about =
		"Without FILE it takes what survives on the device, if that is newer than the "
		"newest good backup (a LUKS2 header has two copies; a copy that lacks nothing but "
		"its magic bytes counts too), and else that backup. Keyslots whose key material is "
		"damaged come from the backup in both cases. With FILE (also one made by "
		"'cryptsetup luksHeaderBackup') or --sequence it takes that one.\n"
		"It shows what would change and asks for the word 'yes'; without a terminal, and "
		"with --json, it needs --yes. A header of another volume, an older one (keys that "
		"were removed since would open the device again) and one that no key at hand opens "
		"are refused (exit status 6) unless --force is given. A damaged or cut off FILE, "
		"one of a bigger device, and a header that would not encrypt are always refused.\n"
		"What is overwritten is kept: a good header as a version, other bytes as "
		"damaged-SUM.raw beside the versions. Then the header becomes the current backup, "
		"is written so that every moment leaves a header that opens, read again from the "
		"disk, and proven with the key of the device if that is at hand. A header that "
		"takes the place of a newer one gets a sequence number above it. The device may be "
		"open, if it was opened from this header.\n"
		"If it is interrupted, the same command again finishes the work.\n",
	.examples = examples,
	.options = options,
	.statuses = statuses,
	.see_also = "qs-util-cryptbackup(8) qs-util-cryptstatus(8) "
		    "cryptsetup-luksHeaderRestore(8)",
	.flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES | QS_CMD_DESTROYS,
	.files = QS_FILE_HEADERS | QS_FILE_KEYS | QS_FILE_PENDING,
	.run = run,
};
