
#include "ask.h"
#include "base/cleanup.h"
#include "command.h"
#include "ops/bundle.h"
#include "output-option.h"

/* Certificates alone need no passphrase; it is asked for when there are none. */
static int take_passphrase(const struct qs_context *ctx, struct qs_keybackup_options *options,
			   struct qs_secret *ret, struct qs_error *err)
{
	const struct qs_ask ask = { .file_option = "passphrase-file",
				    .fd_option = "passphrase-fd",
				    .prompt = "New passphrase of the bundle",
				    .twice = true };
	int r;

	if (options->to.certificate_count > 0 && !qs_ask_given(ctx, &ask))
		return 0;
	r = qs_ask_passphrase(ctx, &ask, ret, err);
	if (r < 0 && !qs_ask_given(ctx, &ask))
		qs_error_append(err, "; or name a certificate with --to");
	options->to.passphrase = ret;
	return r;
}

static char *say(const struct qs_context *ctx)
{
	QS_AUTO(qs_auto_free) char *by_keystore = NULL;

	if (json_is_true(json_object_get(ctx->result, "keystore")))
		by_keystore =
			qs_printf(", by the keystore in it: %zu",
				  json_array_size(json_object_get(ctx->result, "by_keystore")));
	return qs_printf("%s: sealed (keys: %d, header backups: %d, devices: %zu%s)\n",
			 json_string_value(json_object_get(ctx->result, "file")),
			 (int)json_integer_value(json_object_get(ctx->result, "keys")),
			 (int)json_integer_value(json_object_get(ctx->result, "headers")),
			 json_array_size(json_object_get(ctx->result, "devices")),
			 by_keystore ? by_keystore : "");
}

static int run(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	const char *certificates[QS_OPTIONS_MAX];
	struct qs_keybackup_options options = {
		.to.certificates = certificates,
		.to.certificate_count = qs_option_values(ctx, "to", certificates, QS_OPTIONS_MAX),
		.no_headers = qs_option_given(ctx, "no-headers"),
	};
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	int r = qs_output_option(ctx, argv[0], &options.out, err);

	(void)argc;
	if (r == 0)
		r = qs_output_file_check(&ctx->env, &options.out, err);
	if (r == 0)
		r = take_passphrase(ctx, &options, &passphrase, err);
	if (r == 0)
		r = qs_keybackup(&ctx->env, &options, &ctx->result, err);
	if (r == 0 && options.out.file && !ctx->quiet)
		ctx->text = say(ctx);
	return r;
}

static const struct qs_option options[] = {
	{ .name = "to",
	  .arg = "CERT",
	  .repeats = true,
	  .help = "seal it to this X.509 certificate (PEM); several open it one without the other" },
	QS_PASSPHRASE_OPTIONS,
	{ .name = "no-headers",
	  .help = "leave the header backups out; 4 MiB less for each device" },
	{ .name = "force", .help = "replace FILE if it exists" },
	{}
};

static const struct qs_example examples[] = {
	{ "keybackup --passphrase-file /root/pass /mnt/usb/keys.cms", "with a passphrase" },
	{ "keybackup --to /root/backup.crt /mnt/usb/keys.cms",
	  "for the owner of a certificate's private key" },
	{}
};

static const struct qs_status statuses[] = {
	{ 2, "a key cannot be read, its directory is not mounted, or there is neither a key nor a "
	     "keystore" },
	{ 5, "FILE exists" },
	{ 75, "a file was changed while it was being read" },
	{ 78, "keystore.json is damaged, or lost beside keys of the keystore" },
	{}
};

const struct qs_command qs_row_keybackup = {
	.name = "keybackup",
	.args = "FILE",
	.min_args = 1,
	.max_args = 1,
	.help = "put all keys into one encrypted file",
	.about =
		"Writes a key bundle: keys, the keystore, header backups, the configuration, /etc/crypttab and "
		"/etc/fstab, sealed together, so that a lost boot drive can be rebuilt. Keep it "
		"elsewhere, and make a new one when devices come or go. A key file outside of the "
		"keys directory is taken along when a line of ours in /etc/crypttab names it. "
		"Where the keystore's key is in the TPM or at a key server, so is what opens the devices that "
		"depend on it: the bundle alone does not, and certificates, passwords and secret-ids for "
		"a key server are not in it. It tells how many have their key in the keystore only. "
		"Older header backups and notes of unfinished work are not in it.\n"
		"It opens with the passphrase, or with the private key of any of the certificates "
		"(RSA of 3072 bits or more, or EC). Without either it asks for a passphrase on the "
		"terminal. With '-' as FILE it goes to standard output.\n"
		"The format is CMS (RFC 5083) around a tar archive; without qs-util it is opened by "
		"'openssl cms -decrypt -inform DER -in FILE -inkey KEY | tar x', or with "
		"-pwri_password PASSPHRASE instead of -inkey KEY.\n",
	.options = options,
	.statuses = statuses,
	.examples = examples,
	.see_also = "qs-util-keyrestore(8) qs-util-cryptopenall(8) openssl-cms(1)",
	.flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES,
	.files = QS_FILE_KEYS | QS_FILE_KEYSTORE | QS_FILE_HEADERS | QS_FILE_CRYPTTAB,
	.run = run,
};
