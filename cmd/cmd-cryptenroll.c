#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ask.h"
#include "base/cleanup.h"
#include "command.h"
#include "show-key.h"

/* What the command line asks for. */
struct wish {
	struct qs_context *ctx;
	const char *device; /* in questions */
	const char *const *devices;
	size_t count;
	struct qs_enroll_options enroll;
	struct qs_secret fresh;  /* the new passphrase */
	struct qs_secret unlock; /* the one that unlocks */
	struct qs_enroll_tpm2 tpm2;
	struct qs_secret pin;
	char *public_key;
};

static const struct {
	const char *option, *method, *done;
} ways[] = {
	{ "key-file", "key-file", "key file added to" },
	{ "passphrase", "passphrase", "passphrase added to" },
	{ "passphrase-file", "passphrase", "passphrase added to" },
	{ "passphrase-fd", "passphrase", "passphrase added to" },
	{ "recovery-key", "recovery", "recovery key added to" },
	{ "new-key", "new-key", "new key made for" },
	{ "tpm2", "tpm2", "TPM added to" },
	{ "keystore", "keystore", "keystore added to" },
};

static const struct qs_ask pin_options = { .file_option = "pin-file", .fd_option = "pin-fd" };

static const struct qs_ask fresh_options = { .file_option = "passphrase-file",
					     .fd_option = "passphrase-fd" };
static const struct qs_ask unlock_options = { .file_option = "unlock-passphrase-file",
					      .fd_option = "unlock-passphrase-fd" };

static bool has_terminal(const struct qs_context *ctx)
{
	return !ctx->json && isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
}

/* With --test a recovery key may come from where a passphrase would. */
static bool go_together(const struct wish *w, const char *a, const char *b)
{
	if (strcmp(a, b) == 0)
		return true;
	return qs_option_given(w->ctx, "test") && strcmp(a, "passphrase") == 0 &&
	       strcmp(b, "recovery") == 0;
}

/* Which one of the ways is named; more than one is an error, none is fine here. */
static int take_way(struct wish *w, struct qs_error *err)
{
	const char *first = NULL;

	for (size_t i = 0; i < QS_ARRAY_SIZE(ways); i++) {
		if (!qs_option_given(w->ctx, ways[i].option))
			continue;
		if (w->enroll.method && !go_together(w, w->enroll.method, ways[i].method))
			return qs_fail(err, QS_E_USAGE,
				       "--%s and --%s cannot both be given: one way at a time",
				       first, ways[i].option);
		first = ways[i].option;
		w->enroll.method = ways[i].method;
		w->ctx->done = ways[i].done;
	}
	return 0;
}

static bool is_way(const struct wish *w, const char *method)
{
	return w->enroll.method && strcmp(w->enroll.method, method) == 0;
}

static int ask_unlock(void *cookie, struct qs_secret *ret, struct qs_error *err)
{
	const struct wish *w = cookie;
	QS_AUTO(qs_auto_free)
	char *prompt = qs_printf("Passphrase or recovery key that opens %s now", w->device);
	struct qs_ask how = unlock_options;

	how.prompt = prompt;
	return qs_ask_passphrase(w->ctx, &how, ret, err);
}

static int ask_fresh(struct wish *w, bool twice, struct qs_error *err)
{
	QS_AUTO(qs_auto_free)
	char *prompt = qs_printf(twice ? "New passphrase for %s" : "Passphrase of %s", w->device);
	struct qs_ask how = fresh_options;

	how.prompt = prompt;
	how.twice = twice;
	return qs_ask_passphrase(w->ctx, &how, &w->fresh, err);
}

static int show(void *cookie, const struct qs_secret *key, struct qs_error *err)
{
	const struct wish *w = cookie;

	return qs_show_key(w->device, key, err);
}

static int ask_pin(struct wish *w, bool twice, struct qs_error *err)
{
	QS_AUTO(qs_auto_free)
	char *prompt = qs_printf(twice ? "New PIN for %s" : "PIN of %s", w->device);
	struct qs_ask how = pin_options;

	how.prompt = prompt;
	how.twice = twice;
	return qs_ask_passphrase(w->ctx, &how, &w->pin, err);
}

/* What the new TPM2 keyslot is bound to; and the options that mean nothing without it. */
static int take_tpm2(struct wish *w, struct qs_error *err)
{
	static const char *const only[] = { "pcrs", "bank", "public-key", "public-key-pcrs" };
	const char *bank = qs_option_value(w->ctx, "bank");
	const char *key = qs_option_value(w->ctx, "public-key");
	int r;

	for (size_t i = 0; !is_way(w, "tpm2") && i < QS_ARRAY_SIZE(only); i++)
		if (qs_option_given(w->ctx, only[i]))
			return qs_fail(err, QS_E_USAGE, "--%s is for --tpm2", only[i]);
	if (!is_way(w, "tpm2")) {
		if (qs_option_given(w->ctx, "pin") ||
		    (qs_ask_given(w->ctx, &pin_options) && !is_way(w, "keystore")))
			return qs_fail(err, QS_E_USAGE, "a PIN is for --tpm2");
		return qs_ask_keystore_pin(w->ctx, &w->pin, err);
	}
	if (qs_option_given(w->ctx, "public-key-pcrs") && !key)
		return qs_fail(err, QS_E_USAGE, "--public-key-pcrs is for --public-key");
	w->tpm2.bank = bank ? qs_tpm2_bank_of_name(bank) : QS_TPM2_NONE;
	w->public_key = key ? qs_env_absolute(key) : NULL;
	w->tpm2.public_key = w->public_key;
	/* With a signed policy nothing else, as the signer decides what may run. */
	r = qs_option_pcrs(w->ctx, "pcrs", key ? 0 : 1U << 7, &w->tpm2.pcrs, err);
	if (r == 0)
		r = qs_option_pcrs(w->ctx, "public-key-pcrs", 1U << 11, &w->tpm2.public_key_pcrs,
				   err);
	w->enroll.tpm2 = &w->tpm2;
	return r;
}

static int take_new_pin(struct wish *w, struct qs_error *err)
{
	if (!qs_option_given(w->ctx, "pin") && !qs_ask_given(w->ctx, &pin_options))
		return 0;
	w->tpm2.pin = &w->pin;
	return ask_pin(w, true, err);
}

static int take_unlock(struct wish *w, struct qs_error *err)
{
	struct qs_open_options *unlock = &w->enroll.unlock;
	bool typed = qs_option_given(w->ctx, "unlock-passphrase") ||
		     qs_ask_given(w->ctx, &unlock_options);
	int r;

	unlock->key_file = qs_option_value(w->ctx, "unlock-key-file");
	unlock->ask_cookie = w;
	if (unlock->key_file && typed)
		return qs_fail(err, QS_E_USAGE,
			       "--unlock-key-file and a passphrase cannot both be given");
	if (!typed) {
		unlock->ask = has_terminal(w->ctx) ? ask_unlock : NULL;
		return 0;
	}
	r = ask_unlock(w, &w->unlock, err);
	unlock->passphrase = &w->unlock;
	return r;
}

/* Which devices, and behind --recovery-key the file that the key goes to. */
static int take_arguments(struct wish *w, int argc, char **argv, struct qs_error *err)
{
	bool many = is_way(w, "tpm2") || is_way(w, "keystore") || !w->enroll.method;

	w->devices = (const char *const *)argv;
	w->count = many ? (size_t)argc : 1;
	if (w->count > 1)
		w->device = "these devices";
	if (argc > (is_way(w, "recovery") ? 2 : 1) && !many)
		return qs_fail(
			err, QS_E_USAGE,
			"'%s': several devices only with --tpm2, --keystore or --wipe, and a file behind "
			"the device only with --recovery-key",
			argv[argc - 1]);
	w->enroll.file =
		argc == 2 && is_way(w, "recovery") ? argv[1] : qs_option_value(w->ctx, "key-file");
	if (!is_way(w, "recovery") || w->enroll.file)
		return 0;
	if (w->ctx->json || !isatty(STDOUT_FILENO))
		return qs_fail(err, QS_E_USAGE,
			       "the recovery key is shown on a terminal only: name a FILE for it "
			       "(cryptenroll DEVICE --recovery-key FILE)");
	w->enroll.show = show;
	w->enroll.show_cookie = w;
	return 0;
}

static int confirm(struct wish *w, struct qs_error *err)
{
	QS_AUTO(qs_auto_free)
	char *what = qs_printf("the keys of these keyslots will never open the device again (%s)",
			       w->enroll.wipe);
	QS_AUTO(qs_outcomes_done) struct qs_outcomes shown = {};
	int r;

	if (!w->enroll.wipe)
		return 0;
	r = qs_enroll_preview_wipe(&w->ctx->env, w->devices, w->count, w->enroll.wipe, &shown, err);
	return r < 0 ? r : qs_confirm(w->ctx, what, &shown, err);
}

static int change(struct wish *w, int argc, char **argv, struct qs_error *err)
{
	int r = take_arguments(w, argc, argv, err);

	if (r == 0)
		r = confirm(w, err);
	if (r == 0)
		r = take_unlock(w, err);
	if (r == 0 && is_way(w, "passphrase"))
		r = ask_fresh(w, true, err);
	if (r == 0 && is_way(w, "tpm2"))
		r = take_new_pin(w, err);
	w->enroll.passphrase = &w->fresh;
	if (!w->enroll.method)
		w->ctx->done = "keyslots wiped of";
	return r < 0 ? r
		     : qs_enroll(&w->ctx->env, w->devices, w->count, &w->enroll, &w->ctx->outcomes,
				 err);
}

/* --test with a way tries that one, else the device's own key. */
static int test(struct wish *w, int argc, char **argv, struct qs_error *err)
{
	struct qs_open_options options = { .key_file = qs_option_value(w->ctx, "key-file") };
	int r = 0;

	w->ctx->done = "key proven for";
	if (argc == 2 && is_way(w, "recovery"))
		return qs_fail(err, QS_E_USAGE, "to test a recovery key, give --passphrase-file=%s",
			       argv[1]);
	if (argc > 1 || is_way(w, "new-key") || is_way(w, "keystore") || w->enroll.wipe)
		return qs_fail(err, QS_E_USAGE,
			       "--test changes nothing: it takes one DEVICE and one of "
			       "--key-file, --passphrase, --recovery-key and --tpm2");
	if (is_way(w, "passphrase") || is_way(w, "recovery")) {
		r = ask_fresh(w, false, err);
		options.passphrase = &w->fresh;
	}
	if (r == 0 && is_way(w, "tpm2")) {
		options.tpm2_only = true;
		options.pin = &w->pin;
		if (qs_option_given(w->ctx, "pin") || qs_ask_given(w->ctx, &pin_options))
			r = ask_pin(w, false, err);
	}
	if (r < 0)
		return r;
	return qs_enroll_test(&w->ctx->env, w->device, &options, &w->ctx->outcomes, err);
}

static int dispatch(struct wish *w, int argc, char **argv, struct qs_error *err)
{
	int r = take_way(w, err);

	if (r == 0)
		r = take_tpm2(w, err);
	if (r < 0)
		return r;
	w->enroll.wipe = qs_option_value(w->ctx, "wipe");
	if (qs_option_given(w->ctx, "list")) {
		if (w->enroll.method || w->enroll.wipe || qs_option_given(w->ctx, "test") ||
		    argc > 1)
			return qs_fail(err, QS_E_USAGE, "--list takes only one DEVICE");
		return qs_enroll_list(&w->ctx->env, w->device, &w->ctx->outcomes, err);
	}
	w->ctx->lines = true;
	if (qs_option_given(w->ctx, "test"))
		return test(w, argc, argv, err);
	if (!w->enroll.method && !w->enroll.wipe)
		return qs_fail(err, QS_E_USAGE,
			       "nothing to do: give --passphrase, --key-file, --recovery-key, "
			       "--tpm2, --keystore, --new-key, --wipe, --list or --test");
	return change(w, argc, argv, err);
}

static int run(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	struct wish w = {
		.ctx = ctx,
		.device = argv[0],
		.enroll.force = qs_option_given(ctx, "force"),
	};
	int r = dispatch(&w, argc, argv, err);

	qs_secret_done(&w.fresh);
	qs_secret_done(&w.unlock);
	qs_secret_done(&w.pin);
	free(w.public_key);
	return r;
}

static char *keystore_opener(const json_t *keystore)
{
	const char *problem = json_string_value(json_object_get(keystore, "problem"));
	const char *key =
		json_string_value(json_object_get(json_object_get(keystore, "key"), "name"));

	if (problem)
		return qs_printf("not by the keystore: %s", problem);
	return qs_printf("the keystore, generation %d%s%s",
			 (int)json_integer_value(json_object_get(keystore, "generation")),
			 key ? ", key " : "", key ? key : "");
}

/* A key file at hand, the TPM, or why the TPM does not. */
static char *opener(const json_t *slot)
{
	const json_t *tpm2 = json_object_get(slot, "tpm2");
	const char *problem = json_string_value(json_object_get(tpm2, "problem"));
	const char *file = json_string_value(json_object_get(slot, "opened_by"));
	const json_t *keystore = json_object_get(slot, "keystore");

	if (keystore)
		return keystore_opener(keystore);
	if (file || !tpm2)
		return qs_strdup(file);
	if (problem)
		return qs_printf("not by the TPM: %s", problem);
	return qs_strdup(json_is_true(json_object_get(tpm2, "pin")) ? "the TPM and a PIN"
								    : "the TPM");
}

static const struct qs_field columns[] = {
	{ .title = "KEYSLOT", .key = "number" },       { .title = "KIND", .key = "kind" },
	{ .title = "SINCE", .key = "since" },          { .title = "KDF", .key = "kdf" },
	{ .title = "OPENS NOW WITH", .text = opener }, {}
};

static void print(const struct qs_context *ctx, const json_t *devices)
{
	const json_t *slots = json_object_get(json_array_get(devices, 0), "keyslots");

	(void)ctx;
	if (slots)
		qs_table_print(stdout, columns, slots);
}

static const char *const banks[] = { "sha1", "sha256", "sha384", "sha512", NULL };

static const struct qs_option options[] = {
	{ .name = "passphrase", .help = "add a passphrase; asks for it twice" },
	QS_PASSPHRASE_OPTIONS,
	{ .name = "key-file", .arg = "FILE", .help = "add this key file" },
	{ .name = "recovery-key",
	  .help = "add a new recovery key: shown once, or written to FILE" },
	{ .name = "tpm2", .help = "add a keyslot that this machine's TPM 2.0 opens" },
	{ .name = "pcrs",
	  .arg = "PCRS",
	  .help = "bind it to these PCRs, 0+7; 7 if not given, or none" },
	{ .name = "bank", .arg = "HASH", .choices = banks, .help = "bank of the PCRs: sha256" },
	{ .name = "pin", .help = "want a PIN beside the TPM; asks for it" },
	QS_PIN_OPTIONS,
	{ .name = "public-key",
	  .arg = "PEM",
	  .help = "bind it to PCR values that this RSA key has signed" },
	{ .name = "public-key-pcrs", .arg = "PCRS", .help = "the PCRs that are signed: 11" },
	{ .name = "keystore", .help = "add a keyslot whose key the keystore wraps" },
	{ .name = "new-key", .help = "replace the device's own key file by a new one" },
	{ .name = "wipe",
	  .arg = "WHICH",
	  .help = "revoke keyslots: numbers and kinds, separated by commas" },
	{ .name = "list", .help = "show what opens the device" },
	{ .name = "test", .help = "prove that a way opens the device; changes nothing" },
	{ .name = "unlock-key-file",
	  .arg = "FILE",
	  .help = "unlock the device by this key file, instead of its own" },
	{ .name = "unlock-passphrase",
	  .help = "unlock it by a passphrase or recovery key; asks for it" },
	{ .name = "unlock-passphrase-file",
	  .arg = "FILE",
	  .help = "the same, read from FILE; - is standard input" },
	{ .name = "unlock-passphrase-fd",
	  .arg = "N",
	  .max = 1023,
	  .help = "the same, read from the open descriptor N" },
	{ .name = "force",
	  .help = "wipe also what the device's own key file opens, leave only the TPM, bind to "
		  "PCRs that nothing is measured into" },
	{}
};

static const struct qs_example examples[] = {
	{ "cryptenroll /dev/sdj --recovery-key /root/sdj.recovery",
	  "a key on paper, for the day when the others are lost" },
	{ "cryptenroll /dev/sdj --list", "what opens it" },
	{ "cryptenroll /dev/sdj --new-key", "another key in its key file; the old one is revoked" },
	{ "cryptenroll /dev/sdj /dev/sdk --tpm2", "let this machine's TPM open them" },
	{ "cryptenroll /dev/sdj /dev/sdk --keystore", "let the keystore open them" },
	{ "--yes cryptenroll /dev/sdj --recovery-key /root/j.new --wipe recovery",
	  "a new recovery key in the place of all others" },
	{ "--yes cryptenroll /dev/sdj --wipe recovery", "revoke them" },
	{}
};

static const struct qs_status statuses[] = {
	{ 2, "no key at hand unlocks the device, or none that opens a keyslot which stays" },
	{ 4, "the device is absent, carries no LUKS2 header, or a damaged one" },
	{ 5, "FILE exists, or another program is changing the header" },
	{ 6, "nothing, or no longer its own key file, would open the device" },
	{ 7, "some of the devices were done; the others are reported" },
	{}
};

const struct qs_command qs_row_cryptenroll = {
	.name = "cryptenroll",
	.args = "DEVICE... [FILE]",
	.min_args = 1,
	.max_args = QS_CMD_ANY_NUMBER,
	.help = "add, test, list and revoke what opens a device",
	.about =
		"Adds a way to open a LUKS2 device: a passphrase, a key file, a TPM 2.0, or a recovery "
		"key (256 random bits in the form that systemd-cryptenroll uses). The device may be open. The "
		"header is backed up first; the new keyslot is written, proven and backed up before "
		"anything old goes. It is unlocked for this by its own key, as cryptopen finds it, or "
		"by what --unlock-... names.\n"
		"--recovery-key shows the key once on a terminal, also as a QR code if that speaks UTF-8, or writes it to FILE, which must "
		"not exist. --new-key makes a new key file, puts it in the place of the device's own "
		"and revokes the old key.\n"
		"--tpm2 seals a new secret in this machine's TPM, in the format of systemd-cryptenroll "
		"(252 and later open it), and unseals it again before anything is written. It is bound "
		"to the present values of --pcrs and, if wanted, to a PIN or to PCR values signed with "
		"a key (the signatures are looked for where systemd does, tpm2-pcr-signature.json). "
		"PCRs into which nothing was measured are refused. The same command again, after an "
		"update that changed a PCR, puts a new keyslot in the place of the old one of the same "
		"kind of policy. Removing a keyslot does not revoke what the TPM sealed: a copy of the "
		"old header still opens on this machine, in that state, until the TPM is cleared or the "
		"volume key changed (cryptsetup reencrypt). Without a PIN, whoever has the whole machine "
		"has the data.\n"
		"--keystore makes a random key of 64 bytes for a new keyslot and wraps it, with the "
		"identity of the volume, by the keystore's current key (qs-util-keystore(8)); it lies in "
		"the header as a token of type qs-keystore and in no file. It takes any number of "
		"devices. cryptopen and cryptopenall try it after the TPM and before key files. The same "
		"command again puts a new keyslot in the place of the old one.\n"
		"--tpm2 takes any number of devices, and one session of the TPM seals for all of them; "
		"a PIN or passphrase is asked for once. Each has a result of its own. So does --wipe.\n"
		"--wipe revokes keyslots, named by number or kind (passphrase, recovery, key-file, "
		"tpm2, keystore, fido2, pkcs11, other; empty: those that an empty passphrase opens), and erases "
		"the header backups that still hold their keys; copies elsewhere (bundles, copied "
		"backups) it cannot reach. Together with a new way, the new one is kept. Slots that "
		"carry no mark of their kind, shown as unknown, go only by number. The last keyslot "
		"never goes, and none without a key that opens another one. It asks for 'yes'.\n"
		"--list shows kind and age of each keyslot, as far as they are known, and which key "
		"file at hand opens it now. --test tries a key file, a passphrase, a recovery key, the "
		"TPM, or else the device's own key.\n"
		"If it is interrupted, the device still opens as before, and the same command again "
		"finishes the work.\n",
	.examples = examples,
	.options = options,
	.statuses = statuses,
	.see_also = "qs-util-cryptopen(8) qs-util-cryptstatus(8) systemd-cryptenroll(1) "
		    "cryptsetup(8)",
	.flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES | QS_CMD_DESTROYS,
	.files = QS_FILE_KEYS | QS_FILE_HEADERS | QS_FILE_CRYPTTAB | QS_FILE_PENDING,
	.run = run,
	.print = print,
};
