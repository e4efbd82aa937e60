#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ask.h"
#include "base/cleanup.h"
#include "command.h"
#include "key/keyfile.h"
#include "kms-key.h"

/*
 * Below /dev (but for /dev/shm), a block device, or a file larger than any key file may be: an
 * image. So a disk that has just vanished is not taken for a key.
 */
static bool is_device(const struct qs_env *env, const char *word)
{
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, word);
	struct stat st;

	if (strncmp(word, "/dev/", 5) == 0 && strncmp(word, "/dev/shm/", 9) != 0)
		return true;
	/* An image may be named by its real path, also below /var or another prefixed directory. */
	if (stat(path, &st) < 0 && stat(word, &st) < 0)
		return false;
	return S_ISBLK(st.st_mode) || st.st_size > QS_KEY_MAX;
}

/*
 * A last argument that is no device, and not the only one, is the key
 * file. With --key-file every argument is a device. Returns the number of devices.
 */
static size_t take_key_file(const struct qs_context *ctx, int argc, char **argv,
			    struct qs_format_options *options)
{
	options->key_file = qs_option_value(ctx, "key-file");
	if (options->key_file || argc == 1 || is_device(&ctx->env, argv[argc - 1]))
		return (size_t)argc;
	options->key_file = argv[argc - 1];
	return (size_t)argc - 1;
}

/* --force on a device that holds something: asked for, and checked again afterwards. */
static int ask(const struct qs_context *ctx, const char *const *devices, size_t count,
	       struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes shown = {};
	QS_AUTO(qs_outcomes_done) struct qs_outcomes now = {};
	int r;

	qs_format_preview(&ctx->env, devices, count, &shown);
	if (shown.count == 0)
		return 0;
	r = qs_confirm(ctx, "--force will overwrite what is on these devices", &shown, err);
	if (r < 0)
		return r;
	qs_format_preview(&ctx->env, devices, count, &now);
	if (!qs_confirm_unchanged(&shown, &now))
		return qs_fail(err, QS_E_UNCONFIRMED,
			       "the devices have changed since they were shown, nothing was "
			       "formatted; run the command again");
	return 0;
}

static int take_kms_key(const struct qs_context *ctx, struct qs_keystore_key *key,
			struct qs_format_options *options, struct qs_error *err)
{
	int r = qs_kms_key_option(ctx, key, err);

	if (r <= 0)
		return r;
	options->key = key;
	return options->key_file || options->key_file_only
		       ? qs_fail(err, QS_E_USAGE, "--kms-key and a key file exclude each other")
		       : 0;
}

static int run(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	struct qs_format_options options = {
		.cipher = qs_option_value(ctx, "cipher"),
		.key_size = qs_option_number(ctx, "key-size"),
		.sector_size = qs_option_number(ctx, "sector-size"),
		.pbkdf = qs_option_value(ctx, "pbkdf"),
		.force = qs_option_given(ctx, "force"),
		.key_file_only = qs_option_given(ctx, "key-file-only"),
		.no_open = qs_option_given(ctx, "no-open"),
		.no_crypttab = qs_option_given(ctx, "no-crypttab"),
	};
	const char *const *devices = (const char *const *)argv;
	size_t count = take_key_file(ctx, argc, argv, &options);
	QS_AUTO(qs_secret_done) struct qs_secret pin = {};
	struct qs_keystore_key key;
	bool server;
	int r = take_kms_key(ctx, &key, &options, err);

	if (r == 0)
		r = qs_ask_keystore_pin(ctx, &pin, err);
	ctx->done = "formatted as";
	if (r == 0 && options.force && !ctx->yes)
		r = ask(ctx, devices, count, err);
	if (r < 0)
		return r;
	server = qs_keystore_has_server(&ctx->env);
	r = qs_format(&ctx->env, devices, count, &options, &ctx->outcomes, err);
	qs_keystore_follow_units(&ctx->env, server);
	return r;
}

static const char *const pbkdf_choices[] = { "pbkdf2", "argon2i", "argon2id", NULL };
static const char *const sector_choices[] = { "512", "1024", "2048", "4096", NULL };

static const struct qs_option options[] = {
	{ .name = "key-file",
	  .arg = "FILE",
	  .help = "use this key instead of generating one; every argument is then a DEVICE" },
	{ .name = "key-file-only",
	  .help = "generate a key file, though the keystore or key_command would give a key" },
	{ .name = "kms-key",
	  .arg = "KEY",
	  .help = "let the keystore wrap their keys with this key of the Vault server's" },
	QS_KMS_KEY_OPTIONS,
	QS_PIN_OPTIONS,
	{ .name = "force", .help = "overwrite what is on the device; asks first" },
	{ .name = "no-open", .help = "do not open the device afterwards" },
	{ .name = "no-crypttab", .help = "write no line into /etc/crypttab" },
	{ .name = "cipher", .arg = "SPEC", .help = "cipher, such as aes-xts-plain64" },
	{ .name = "key-size",
	  .arg = "BITS",
	  .min = 128,
	  .max = 512,
	  .help = "size of the volume key in bits" },
	{ .name = "sector-size",
	  .arg = "BYTES",
	  .choices = sector_choices,
	  .help = "encryption sector: 512, 1024, 2048 or 4096 bytes" },
	{ .name = "pbkdf",
	  .arg = "TYPE",
	  .choices = pbkdf_choices,
	  .help = "key derivation: pbkdf2, argon2i or argon2id" },
	{}
};

static const struct qs_example examples[] = {
	{ "cryptformat /dev/sdj", "encrypt an empty disk with a key of its own" },
	{ "cryptformat /dev/sdj /dev/sdk /dev/sdl", "several at once, in parallel" },
	{ "cryptformat --key-file /root/k.key /dev/sdj", "with a key that exists" },
	{ "cryptformat --kms-key finance /dev/sdj",
	  "with a key that somebody made at the Vault server for some devices" },
	{}
};

static const struct qs_status statuses[] = {
	{ 2, "the keystore's key cannot be got, so nothing was touched" },
	{ 4, "a device is absent or too small, and was not touched" },
	{ 5, "a device is in use, or another command works on it" },
	{ 6,
	  "a device holds something, belongs to the running system or has a key already; or the question was not answered with yes" },
	{ 7, "some devices are formatted; the others are reported" },
	{}
};

const struct qs_command qs_row_cryptformat = {
	.name = "cryptformat",
	.args = "DEVICE... [KEYFILE]",
	.min_args = 1,
	.max_args = QS_CMD_ANY_NUMBER,
	.help = "encrypt devices: key, LUKS2 format, header backup, crypttab, open",
	.about =
		"Makes a key in /etc/cryptconf/keys, formats the device as LUKS2 with it, "
		"proves that the key opens it, backs the header up, adds a line to "
		"/etc/crypttab and opens the device. Several devices are done in parallel.\n"
		"A device that holds anything is refused (exit status 6) and the reason is "
		"given; --force formats it after asking for 'yes' (without a terminal, and with "
		"--json, --yes must be given too). A device in use, and a disk of the running "
		"system, is refused whatever is given.\n"
		"A last argument that is no device, and is not the only argument, is the key "
		"file. Block devices, everything below /dev, and files larger than any key file "
		"(8 MiB) are devices. With --key-file every argument is a device.\n"
		"With key_command in qs-util.conf(5), and no key file given, the key is what that "
		"program prints; no key file is made, the line gets 'none' for its key and the "
		"option noauto, and Argon2id is used as for a person's key unless --pbkdf says "
		"otherwise. The program is run twice, and must print the same both times.\n"
		"While the keystore is enabled (qs-util-keystore(8)), it is the keystore that opens the "
		"devices: the key is random, in no file, and lies in the header, wrapped; the line gets "
		"'none' and noauto. If the keystore cannot wrap a key now, nothing is touched. A key file "
		"that is given, --key-file-only and key_command go before it. With --kms-key the keystore wraps "
		"with that key of the transit engine of the Vault server in qs-util.conf(5), for these "
		"devices only, whatever provider the keystore itself has: see qs-util-keystore(8).\n"
		"If it is interrupted, the same command again finishes what was begun, with the "
		"same key.\n",
	.examples = examples,
	.options = options,
	.statuses = statuses,
	.see_also = "qs-util-cryptopen(8) qs-util-cryptdestroy(8) cryptsetup(8) crypttab(5)",
	.flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES | QS_CMD_DESTROYS,
	.files = QS_FILE_KEYS | QS_FILE_KEYSTORE | QS_FILE_HEADERS | QS_FILE_PENDING |
		 QS_FILE_CRYPTTAB,
	.run = run,
};
