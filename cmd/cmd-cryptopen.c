#include <string.h>
#include <unistd.h>

#include "ask-bundle.h"
#include "base/cleanup.h"
#include "command.h"
#include "ops/bundle.h"

static void common_options(struct qs_context *ctx, struct qs_open_options *options)
{
	options->read_only = qs_option_given(ctx, "read-only");
	options->test = qs_option_given(ctx, "test");
	ctx->done = options->test ? "key proven for" : "opened as";
}

/* DEVICE [KEYFILE] [updatecrypttab]: the word counts only in the last place. */
static int take_arguments(int argc, char **argv, struct qs_open_options *options,
			  struct qs_error *err)
{
	if (argc > 1 && strcmp(argv[argc - 1], "updatecrypttab") == 0) {
		options->update_crypttab = true;
		argc--;
	}
	if (argc > 2)
		return qs_fail(err, QS_E_USAGE,
			       "'%s': only the word updatecrypttab can stand behind the key file",
			       argv[2]);
	if (argc == 2 && options->key_file)
		return qs_fail(err, QS_E_USAGE, "two key files: '%s' and --key-file=%s", argv[1],
			       options->key_file);
	if (argc == 2)
		options->key_file = argv[1];
	if (options->test && options->update_crypttab)
		return qs_fail(err, QS_E_USAGE,
			       "--test changes nothing, so updatecrypttab cannot go with it");
	return 0;
}

/* What qs_open() calls when no key file of the device is there. */
struct question {
	struct qs_context *ctx;
	const char *device; /* NULL: of several */
	unsigned deadline_s;
};

static int ask(void *cookie, struct qs_secret *ret, struct qs_error *err)
{
	const struct question *q = cookie;
	QS_AUTO(qs_auto_free) char *prompt = qs_printf("Passphrase of %s", q->device);
	const struct qs_ask how = { "passphrase-file", "passphrase-fd", prompt, false,
				    q->deadline_s };

	return qs_ask_passphrase(q->ctx, &how, ret, err);
}

/* A passphrase that was asked for by an option; else it may be asked for on a terminal. */
static int take_passphrase(struct question *q, struct qs_open_options *options,
			   struct qs_secret *ret, struct qs_error *err)
{
	const struct qs_ask how = { .file_option = "passphrase-file",
				    .fd_option = "passphrase-fd" };
	int r;

	if (!qs_option_given(q->ctx, "passphrase") && !qs_ask_given(q->ctx, &how)) {
		options->ask_cookie = q;
		if (!q->ctx->json && isatty(STDIN_FILENO) && isatty(STDERR_FILENO))
			options->ask = ask;
		return 0;
	}
	if (options->key_file)
		return qs_fail(err, QS_E_USAGE, "a key file and a passphrase cannot both be given");
	if (options->update_crypttab)
		return qs_fail(err, QS_E_USAGE,
			       "updatecrypttab writes a key file into the table, so it cannot go "
			       "with a passphrase");
	r = ask(q, ret, err);
	options->passphrase = ret;
	return r;
}

static int ask_pin(void *cookie, const char *name, struct qs_secret *ret, struct qs_error *err)
{
	const struct question *q = cookie;
	QS_AUTO(qs_auto_free) char *prompt = qs_printf("PIN of %s", q->device ? q->device : name);
	const struct qs_ask how = { "pin-file", "pin-fd", prompt, false, q->deadline_s };

	return qs_ask_passphrase(q->ctx, &how, ret, err);
}

/* The same for a PIN, which only some TPM2 keyslots want. */
static int take_pin(struct question *q, struct qs_open_options *options, struct qs_secret *ret,
		    struct qs_error *err)
{
	const struct qs_ask how = { .file_option = "pin-file", .fd_option = "pin-fd" };
	int r;

	if (!qs_ask_given(q->ctx, &how)) {
		options->ask_pin = options->ask ? ask_pin : NULL;
		return 0;
	}
	if (options->key_file || options->passphrase)
		return qs_fail(
			err, QS_E_USAGE,
			"a PIN is for the TPM; it cannot go with a key file or a passphrase");
	r = ask_pin(q, "all devices", ret, err);
	options->pin = ret;
	q->ctx->keystore.pin = ret;
	return r;
}

/* Before the root file system is mounted the PIN is asked for if a device needs it, not before. */
static int take_pins(struct question *q, struct qs_open_options *options, struct qs_secret *ret,
		     struct qs_error *err)
{
	const struct qs_ask how = { .file_option = "pin-file", .fd_option = "pin-fd" };

	if (!options->early)
		return take_pin(q, options, ret, err);
	options->ask_pin = qs_ask_given(q->ctx, &how) ? ask_pin : NULL;
	return 0;
}

static int run_cryptopen(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	struct qs_open_options options = {
		.key_file = qs_option_value(ctx, "key-file"),
		.allow_discards = qs_option_given(ctx, "allow-discards"),
	};
	struct question question = { ctx, argv[0], qs_option_number(ctx, "ask-deadline") };
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	QS_AUTO(qs_secret_done) struct qs_secret pin = {};
	int r;

	common_options(ctx, &options);
	r = take_arguments(argc, argv, &options, err);
	if (r == 0)
		r = take_passphrase(&question, &options, &passphrase, err);
	if (r == 0)
		r = take_pin(&question, &options, &pin, err);
	if (r < 0)
		return r;
	return qs_open(&ctx->env, argv[0], &options, &ctx->outcomes, err);
}

/* Options that only mean something beside --bundle. */
static int check_bundle_options(const struct qs_context *ctx, struct qs_error *err)
{
	static const char *const names[] = { "key-file", "passphrase-file", "passphrase-fd" };

	if (qs_option_given(ctx, "boot") + qs_option_given(ctx, "early") +
		    qs_option_given(ctx, "bundle") >
	    1)
		return qs_fail(
			err, QS_E_USAGE,
			"--boot, --early and --bundle each choose devices; give one of them");
	if (qs_option_given(ctx, "all-ways") &&
	    (!qs_option_given(ctx, "test") || qs_option_given(ctx, "bundle") ||
	     qs_option_given(ctx, "early")))
		return qs_fail(err, QS_E_USAGE,
			       "--all-ways goes with --test, and not with --bundle or --early");
	for (size_t i = 0; i < QS_ARRAY_SIZE(names); i++)
		if (qs_option_given(ctx, names[i]) && !qs_option_given(ctx, "bundle"))
			return qs_fail(err, QS_E_USAGE,
				       "--%s opens a bundle, and --bundle is not given", names[i]);
	return 0;
}

static int run_cryptopenall(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	const char *bundle = qs_option_value(ctx, "bundle");
	QS_AUTO(qs_bundle_keys_done) struct qs_bundle_keys keys = {};
	QS_AUTO(qs_auto_free) char *path = NULL;
	const struct qs_bundle_unlock unlock = qs_ask_bundle(ctx, &path);
	struct question question = { ctx, NULL, qs_option_number(ctx, "ask-deadline") };
	QS_AUTO(qs_secret_done) struct qs_secret pin = {};
	struct qs_open_options options = { .bundle = bundle ? &keys : NULL };
	int r;

	(void)argc;
	(void)argv;
	common_options(ctx, &options);
	options.boot = qs_option_given(ctx, "boot");
	options.early = qs_option_given(ctx, "early");
	ctx->keystore.local = qs_option_given(ctx, "local");
	options.ask_cookie = &question;
	options.all_ways = qs_option_given(ctx, "all-ways");
	r = check_bundle_options(ctx, err);
	if (r == 0 && bundle)
		r = qs_bundle_keys_load(&ctx->env, bundle, &unlock, &keys, err);
	if (r == 0)
		r = take_pins(&question, &options, &pin, err);
	if (r == 0)
		r = qs_open_all(&ctx->env, &options, &ctx->outcomes, err);
	if (r >= 0 && ctx->outcomes.count == 0 && !ctx->json)
		qs_log(QS_LOG_NOTICE, "%s",
		       options.early ? "no line of crypttab has the option initramfs or "
				       "x-initrd.attach, so there is nothing to open early"
				     : "no encrypted device of ours is present");
	return r;
}

static const struct qs_option cryptopen_options[] = {
	{ .name = "key-file", .arg = "FILE", .help = "key file, the same as KEYFILE" },
	{ .name = "passphrase", .help = "open it by a passphrase or recovery key; asks for it" },
	QS_PASSPHRASE_OPTIONS,
	QS_PIN_OPTIONS,
	{ .name = "ask-deadline",
	  .arg = "SECONDS",
	  .max = 86400,
	  .help = "give up waiting for the passphrase or PIN after this time" },
	{ .name = "read-only", .help = "map it read-only" },
	{ .name = "allow-discards",
	  .help = "pass TRIM on; shows an attacker which blocks are free" },
	{ .name = "test", .help = "prove that the key opens it, open nothing" },
	{}
};

static const struct qs_example cryptopen_examples[] = {
	{ "cryptopen /dev/sdj", "open with the key that belongs to the device" },
	{ "cryptopen /dev/sdj /path/k.key updatecrypttab",
	  "open with this key and write it into /etc/crypttab" },
	{ "cryptopen --passphrase /dev/sdj", "ask for a passphrase or recovery key" },
	{}
};

static const struct qs_status statuses[] = {
	{ 2, "the key does not open the device, or is missing or unsafe; the TPM gives none" },
	{ 4, "the device is absent or carries no LUKS header, or a damaged one" },
	{ 5, "the name is taken by another mapping" },
	{ 6,
	  "the header asks for something unsafe or differs from its backup: a null cipher, a reencryption, absurd costs" },
	{}
};

const struct qs_command qs_row_cryptopen = {
	.name = "cryptopen",
	.args = "DEVICE [KEYFILE] [updatecrypttab]",
	.min_args = 1,
	.max_args = 3,
	.help = "open an encrypted device",
	.about = "Opens the device as /dev/mapper/NAME. Without KEYFILE the key of its line in "
		 "/etc/crypttab or of its name in /etc/cryptconf/keys is used; "
		 "if there is none, or it does not fit, the key that key_command of "
		 "qs-util.conf(5) prints. A device that is open already is a success.\n"
		 "If the device has a TPM2 keyslot (of qs-util cryptenroll or systemd-cryptenroll) "
		 "and the machine a TPM, that is tried before all of these, unless KEYFILE or a "
		 "passphrase is given. A keyslot with a PIN wants --pin-file or --pin-fd; on a "
		 "terminal, where no key file is there, the PIN is asked for, once. For a header "
		 "that is older than its backup the TPM is not asked, since its keyslots may have "
		 "been revoked; for one that is not that of the volume backed up, neither is "
		 "anybody else.\n"
		 "A passphrase or recovery key opens it too: read from a file or descriptor, or "
		 "asked for on a terminal, with --passphrase and where no key file is there. A "
		 "recovery key may be typed without its dashes and in capitals.\n"
		 "The word updatecrypttab, as the last argument, writes the line into "
		 "/etc/crypttab. A key file of that very name is given as ./updatecrypttab.\n",
	.examples = cryptopen_examples,
	.options = cryptopen_options,
	.statuses = statuses,
	.see_also = "qs-util-cryptopenall(8) qs-util-cryptclose(8) cryptsetup(8) crypttab(5)",
	.flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES,
	.files = QS_FILE_KEYS | QS_FILE_HEADERS | QS_FILE_CRYPTTAB,
	.run = run_cryptopen,
};

static const struct qs_option cryptopenall_options[] = {
	QS_PIN_OPTIONS,
	{ .name = "ask-deadline",
	  .arg = "SECONDS",
	  .max = 86400,
	  .help = "give up waiting for the PIN after this time" },
	{ .name = "read-only", .help = "map them read-only" },
	{ .name = "test", .help = "prove the keys, open nothing" },
	{ .name = "all-ways",
	  .help = "with --test: prove every way by itself, not only the first that opens" },
	{ .name = "boot", .help = "leave to systemd the lines of crypttab without noauto" },
	{ .name = "local", .help = "ask no key server; leave what only one of them opens" },
	{ .name = "early", .help = "open what the boot needs before its root file system" },
	{ .name = "bundle",
	  .arg = "FILE",
	  .help = "open the devices of this key bundle with what is in it, from memory" },
	QS_BUNDLE_OPTIONS,
	{}
};

static const struct qs_status all_statuses[] = {
	{ 0, "all that are present are open; also where none of ours is present" },
	{ 2,
	  "no key opens any of them, or keys are missing or unsafe; --bundle: neither a key nor the "
	  "keystore in it opens any" },
	{ 7, "some devices are open; the others are reported" },
	{ 75, "what opens them is at a key server, and none answers" },
	{ 78,
	  "a record of the keystore or a line of /etc/crypttab is not usable, or the key servers "
	  "are not set" },
	{}
};

static const struct qs_example all_examples[] = {
	{ "cryptopenall", "after a restart" },
	{ "cryptopenall --test", "before a restart: would every key open its device?" },
	{ "cryptopenall --bundle /mnt/usb/keys.cms --key-file /root/backup.pem",
	  "without the boot drive that held the keys" },
	{}
};

const struct qs_command qs_row_cryptopenall = {
	.name = "cryptopenall",
	.help = "open every encrypted device of ours that is present",
	.about =
		"Opens, in parallel, every device that /etc/crypttab names with one of our "
		"keys, and every device formatted by qs-util whose key is at hand. One that "
		"fails delays no other; each has a result of its own.\n"
		"Those with a TPM2 keyslot are opened by the TPM, if there is one, in a single "
		"session (with a PIN, if that is given and wanted); where that fails, by their "
		"keys. A wrong PIN is tried once, and not for every device.\n"
		"At boot, systemd opens the lines of /etc/crypttab that have no noauto. With "
		"--boot these are left to it, so that two do not open the same device at once; "
		"qs-util-openall.service runs cryptopenall so. To have all devices opened by "
		"qs-util, set crypttab_options to \"luks,noauto\".\n"
		"With --local no key server of the keystore is asked, and what only one of them opens is left, "
		"which is no failure. Where the keystore is at a key server, qs-util-openall.service runs "
		"so, and waits for no network; qs-util-openall-network.service then opens the rest once "
		"the network is up. If no server answers within the deadline it fails, and tries again every "
		"five minutes for an hour. Neither holds up the boot. Both come from qs-util-generator, which "
		"keystore has systemd run again when a provider comes or goes.\n"
		"With --early, which is for the initramfs (qs-util-boot(8)), it opens the lines "
		"that have the option initramfs or x-initrd.attach, by the TPM or a key file, and "
		"waits for their devices (early_wait). --pin-file or --pin-fd is read when a "
		"device without nofail wants its PIN, up to three times as long as it is wrong. A header that differs from its backup is "
		"refused before any key is tried, and without a backup the TPM is not asked. Then "
		"a PCR of every TPM2 keyslot is extended, so that none opens again before the next "
		"boot: on a running system use --early only with --test.\n"
		"--test --all-ways, which qs-util-check.timer runs weekly, tries every key file, the key "
		"command and every TPM2 keyslot of each device. A way that no longer opens it fails the "
		"device, though others work, and is a message in the journal. Of what needs a person (PIN, "
		"passphrase, recovery key) it is looked whether the keyslot is as the header backup has "
		"it and the TPM would play its part.\n"
		"With --bundle it opens the devices that a bundle of keybackup names instead, with "
		"the keys in it, and those whose key the keystore has with the keystore in it, whatever "
		"keystore this machine has. That takes the TPM where the TPM has its key, and where a key "
		"server has it the settings, certificates and credentials for that, which are no part of "
		"it. No key is written anywhere, and the keys directory may be empty "
		"or missing. A device whose link has changed is found by its LUKS UUID. One that is "
		"present and that nothing in the bundle opens is a failure.\n",
	.options = cryptopenall_options,
	.statuses = all_statuses,
	.see_also = "qs-util-cryptopen(8) qs-util-cryptcloseall(8) qs-util-keybackup(8) "
		    "qs-util-keystore(8)",
	.flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES,
	.files = QS_FILE_KEYS | QS_FILE_KEYSTORE | QS_FILE_HEADERS | QS_FILE_CRYPTTAB,
	.examples = all_examples,
	.run = run_cryptopenall,
};
