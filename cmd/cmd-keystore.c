/*
 * keystore: a key-encryption key that wraps the keys of devices.
 */
#include <string.h>

#include "ask.h"
#include "base/cleanup.h"
#include "command.h"
#include "keystore-actions.h"
#include "keystore/keystore.h"
#include "kms-key.h"

/* ---- subcommands ---- */

static int say(struct qs_context *ctx, const char *state, const char *text)
{
	ctx->result = json_pack("{s:s}", "state", state);
	ctx->text = qs_strdup(text);
	return 0;
}

static int disable(struct qs_context *ctx, struct qs_error *err)
{
	const struct qs_outcomes none = {};
	int r = qs_keystore_may_disable(&ctx->env, err);

	if (r == 0)
		r = qs_confirm(
			ctx,
			"the keystore's keys will be erased: a disk that is away now and has no "
			"other key will never open again",
			&none, err);
	if (r == 0)
		r = qs_keystore_disable(&ctx->env, err);
	return r < 0 ? r : say(ctx, "disabled", "The keystore is disabled and erased.\n");
}

/* An action has its own arguments, behind its name. */
static int rewrap(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	bool own = qs_option_given(ctx, "cluster-key"), server;
	struct qs_keystore_key key;
	int r = qs_kms_key_option(ctx, &key, err);

	if (r < 0)
		return r;
	if ((argc == 1) != qs_option_given(ctx, "all"))
		return qs_fail(err, QS_E_USAGE, "keystore rewrap: name devices, or give --all");
	if (own && r == 1)
		return qs_fail(err, QS_E_USAGE, "keystore rewrap: --kms-key or --cluster-key");
	if (own || r == 1) {
		ctx->done = "has another key of the keystore:";
		server = qs_keystore_has_server(&ctx->env);
		r = qs_keystore_change_key(&ctx->env, (const char *const *)argv + 1,
					   (size_t)argc - 1, own ? NULL : &key, &ctx->outcomes,
					   err);
		qs_keystore_follow_units(&ctx->env, server);
		return r;
	}
	ctx->done = "keeps in the keystore the key of";
	return qs_keystore_rewrap_devices(&ctx->env, (const char *const *)argv + 1,
					  (size_t)argc - 1, &ctx->outcomes, err);
}

static int verify(struct qs_context *ctx, struct qs_error *err)
{
	ctx->done = "checked";
	return qs_keystore_verify(&ctx->env, &ctx->outcomes, err);
}

static const struct {
	const char *name;
	int (*run)(struct qs_context *ctx, struct qs_error *err);
	int (*run_with)(struct qs_context *ctx, const char *argument, struct qs_error *err);
} actions[] = {
	{ .name = "enable", .run = qs_keystore_action_enable },
	{ .name = "migrate", .run = qs_keystore_action_migrate },
	{ .name = "status", .run = qs_keystore_action_status },
	{ .name = "rotate", .run = qs_keystore_action_rotate },
	{ .name = "verify", .run = verify },
	{ .name = "check", .run = qs_keystore_action_check },
	{ .name = "disable", .run = disable },
	{ .name = "export", .run = qs_keystore_action_export },
	{ .name = "schedule", .run_with = qs_keystore_action_schedule },
	{ .name = "retention", .run_with = qs_keystore_action_retention },
	{ .name = "purge", .run = qs_keystore_action_purge },
};

/* Which actions an option is for. */
static const struct {
	const char *option, *actions[4], *words;
} only[] = {
	{ "kms-namespace", { "rewrap", "rotate" }, "rewrap and rotate" },
	{ "role-id", { "rewrap", "rotate" }, "rewrap and rotate" },
	{ "secret-id-file", { "rewrap", "rotate" }, "rewrap and rotate" },
	{ "provider", { "enable", "migrate" }, "enable and migrate" },
	{ "pcrs", { "enable", "migrate" }, "enable and migrate" },
	{ "pin", { "enable", "migrate" }, "enable and migrate" },
	{ "key-id", { "enable", "rotate", "migrate" }, "enable, rotate and migrate" },
	{ "kms-key", { "rewrap", "rotate" }, "rewrap and rotate" },
	{ "cluster-key", { "rewrap" }, "rewrap" },
	{ "public-key", { "export" }, "export" },
	{ "generation", { "export" }, "export" },
	{ "output", { "export" }, "export" },
	{ "if-due", { "rotate" }, "rotate" },
	{ "force", { "rotate", "export" }, "rotate and export" },
	{ "all", { "rewrap", "purge" }, "rewrap and purge" },
};

static int refuse_options(const struct qs_context *ctx, const char *action, struct qs_error *err)
{
	for (size_t i = 0; i < QS_ARRAY_SIZE(only); i++) {
		bool ours = !qs_option_given(ctx, only[i].option);

		for (size_t k = 0; !ours && only[i].actions[k]; k++)
			ours = strcmp(only[i].actions[k], action) == 0;
		if (!ours)
			return qs_fail(err, QS_E_USAGE, "--%s is for keystore %s", only[i].option,
				       only[i].words);
	}
	return 0;
}

static int run_one(struct qs_context *ctx, size_t i, const char *argument, struct qs_error *err)
{
	if (argument && actions[i].run_with)
		return actions[i].run_with(ctx, argument, err);
	if (!argument && actions[i].run)
		return actions[i].run(ctx, err);
	return argument
		       ? qs_fail(err, QS_E_USAGE, "keystore %s takes no argument '%s'",
				 actions[i].name, argument)
		       : qs_fail(err, QS_E_USAGE, "keystore %s needs an argument", actions[i].name);
}

/* What fails half-way may have brought or ended a generation at a key server, too. */
static int run_action(struct qs_context *ctx, size_t i, const char *argument, struct qs_error *err)
{
	bool had_server = qs_keystore_has_server(&ctx->env);
	int r = run_one(ctx, i, argument, err);

	qs_keystore_follow_units(&ctx->env, had_server);
	return r;
}

static int run(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret pin = {};
	int r = refuse_options(ctx, argv[0], err);

	if (r == 0)
		r = qs_ask_keystore_pin(ctx, &pin, err);
	if (r < 0)
		return r;
	if (strcmp(argv[0], "rewrap") == 0)
		return rewrap(ctx, argc, argv, err);
	if (argc > 2)
		return qs_fail(err, QS_E_USAGE, "keystore %s takes no '%s'", argv[0], argv[2]);
	for (size_t i = 0; i < QS_ARRAY_SIZE(actions); i++)
		if (strcmp(actions[i].name, argv[0]) == 0)
			return run_action(ctx, i, argc > 1 ? argv[1] : NULL, err);
	return qs_fail(
		err, QS_E_USAGE,
		"'%s': it is enable, status, rotate, migrate, rewrap, verify, check, export, schedule, retention, purge or disable",
		argv[0]);
}

static const char *const providers[] = { "local", "tpm2", "kmip", "kmip-wrap", "vault", NULL };

static const struct qs_option options[] = {
	{ .name = "provider",
	  .arg = "NAME",
	  .choices = providers,
	  .help = "where the key lives; local (a file of root's) if not given, tpm2, kmip (a key server), kmip-wrap (it never leaves the key server), or vault (HashiCorp Vault, OpenBao)" },
	{ .name = "pcrs",
	  .arg = "PCRS",
	  .help = "bind it to these PCRs of the TPM, 0+7; 7 if not given, or none" },
	{ .name = "pin", .help = "want a PIN beside the TPM; asks for it" },
	QS_PIN_OPTIONS,
	{ .name = "key-id",
	  .arg = "ID",
	  .help = "enable, rotate, migrate: take this key of the key server's (its identifier or name) instead of making one" },
	{ .name = "kms-key",
	  .arg = "KEY",
	  .help = "rewrap, rotate: this key of the Vault server's, which is for some devices only" },
	QS_KMS_KEY_OPTIONS,
	{ .name = "cluster-key", .help = "rewrap: back to the keystore's own key" },
	{ .name = "public-key",
	  .arg = "PEM",
	  .help = "export: of who may open it; RSA of at least 3072 bits" },
	{ .name = "generation",
	  .arg = "N",
	  .min = 1,
	  .max = QS_KEYSTORE_GENERATION_MAX,
	  .help = "export: another one than the present one" },
	{ .name = "output",
	  .arg = "FILE",
	  .help = "export: where it goes; - (as without it) is standard output" },
	{ .name = "force",
	  .help = "rotate: also less than a day after the last time; export: replace FILE" },
	{ .name = "if-due",
	  .help = "rotate: only what schedule says, and what is left to do; silent otherwise" },
	{ .name = "all",
	  .help = "rewrap: every device of ours that is present; purge: also what is not over its time" },
	{}
};

static const struct qs_example examples[] = {
	{ "--yes keystore enable", "make the first generation" },
	{ "--yes keystore enable --provider tpm2", "keep it in this machine's TPM" },
	{ "--yes keystore enable --provider vault", "have it made at the Vault server" },
	{ "keystore status", "what it is, and how many devices depend on it" },
	{ "keystore rotate --force", "make a new generation now and rewrap all keys" },
	{ "keystore schedule 6W", "do that every six weeks (qs-util-rekey.timer)" },
	{ "--yes keystore migrate --provider tpm2", "move the key into this machine's TPM" },
	{ "--yes keystore migrate --provider kmip", "move it to the KMIP server" },
	{ "keystore rewrap --all", "move devices from their key files into the keystore" },
	{ "keystore rewrap --kms-key finance /dev/sdj", "give a device a key of its own" },
	{ "keystore rotate --kms-key finance --force", "make a new version of that" },
	{ "keystore rewrap --cluster-key /dev/sdj", "take the device back" },
	{ "keystore verify", "prove that it opens what it should" },
	{ "keystore check", "can its key be had, and until when? For monitoring, too" },
	{ "keystore export --public-key /root/escrow.pub --output /root/kek.rsa",
	  "for somebody who keeps it elsewhere" },
	{ "keystore retention 10D", "how long a destroyed device can be brought back" },
	{ "--yes keystore purge --all", "end that now" },
	{ "--yes keystore disable", "erase it, when nothing depends on it" },
	{}
};

/* tests/unit/keystore-export.bats runs them as they are printed. */
static const char *const recovery_lines[] = {
	"cd \"$(mktemp -d -p /dev/shm)\"",
	"openssl pkeyutl -decrypt -inkey /root/escrow.key -pkeyopt rsa_padding_mode:oaep "
	"-pkeyopt rsa_oaep_md:sha256 -in /root/kek.rsa -out kek.jwk",
	"number=$(cryptsetup luksDump /dev/sdj | sed -n 's/^ *\\([0-9]*\\): qs-keystore$/\\1/p')",
	"cryptsetup token export --token-id \"$number\" --json-file token.json /dev/sdj",
	"jose fmt -j token.json -g jwe -o jwe.json",
	"jose jwe dec -i jwe.json -k kek.jwk | cryptsetup open --key-file - --keyfile-size 64 "
	"/dev/sdj enc-sdj",
	NULL
};

/* tests/unit/kmip-wrap.bats runs them. */
static const char *const kmip_lines[] = {
	"cd \"$(mktemp -d -p /dev/shm)\"",
	"number=$(cryptsetup luksDump /dev/sdj | sed -n 's/^ *\\([0-9]*\\): qs-keystore$/\\1/p')",
	"cryptsetup token export --token-id \"$number\" --json-file token.json /dev/sdj",
	"jose fmt -j token.json -g jwe -o jwe.json",
	"cat >decrypt.py <<'END'",
	"import base64, json",
	"from kmip.core import enums, objects",
	"from kmip.core.messages.payloads import DecryptRequestPayload",
	"from kmip.pie.client import ProxyKmipClient",
	"wrapped = json.load(open(\"jwe.json\"))[\"header\"][\"qs-wrapped\"].split(\":\")",
	"uid, iv, data, *tag = map(base64.b64decode, wrapped[3:])",
	"how = objects.CryptographicParameters(",
	"    block_cipher_mode=enums.BlockCipherMode.GCM if tag else enums.BlockCipherMode.CBC,",
	"    padding_method=None if tag else enums.PaddingMethod.PKCS5,",
	"    cryptographic_algorithm=enums.CryptographicAlgorithm.AES)",
	"request = DecryptRequestPayload(uid.decode(), how, data, iv, auth_tag=tag[0] if tag else None)",
	"version = enums.KMIPVersion.KMIP_1_4 if tag else enums.KMIPVersion.KMIP_1_2",
	"with ProxyKmipClient(config_file=\"/root/pykmip.conf\", kmip_version=version) as client:",
	"    key = client.proxy.send_request_payload(enums.Operation.DECRYPT, request).data",
	"key = base64.urlsafe_b64encode(key).decode().rstrip(\"=\")",
	"print(json.dumps({\"kty\": \"oct\", \"k\": key}))",
	"END",
	"python3 decrypt.py >content.jwk",
	"jose jwe dec -i jwe.json -k content.jwk | cryptsetup open --key-file - --keyfile-size 64 /dev/sdj enc-sdj",
	NULL
};

static const struct qs_recipe kmip_recovery = {
	.title = "Recovery with the KMIP server alone",
	.about =
		"Where the provider is kmip-wrap there is nothing to export. The disk, the server and a "
		"certificate that it takes for this machine's are enough on any Linux machine that has "
		"PyKMIP, jose and cryptsetup; /root/pykmip.conf is PyKMIP's (its section [client] has "
		"host, port, certfile, keyfile and ca_certs). With the provider kmip the server gives out "
		"the key itself, whose identifier is in N.kmip.",
	.lines = kmip_lines,
};

static const struct qs_recipe recovery = {
	.title = "Recovery without qs-util",
	.about = "With the disk, an exported key and the private key that it was encrypted to, any "
		 "Linux machine that has openssl, jose and cryptsetup opens the device:",
	.lines = recovery_lines,
	.next = &kmip_recovery,
};

static const struct qs_status statuses[] = {
	{ 1, "there is no keystore, or its module is not installed; export: the public key is not "
	     "fit; check: only that something ends within 30 days, and the keys can be had" },
	{ 2, "a key cannot be unwrapped, or TPM or key server do not give the key that wraps it" },
	{ 5, "it is enabled already, or another command changes it; export: FILE exists" },
	{ 6,
	  "a device or header backup depends on it, or not confirmed; enable: one has a key in a keystore "
	  "that is not on this machine; rotate: it was done less "
	  "than a day ago; verify: a volume is not the one that was enrolled; kmip, vault: no certificate "
	  "that kmip_ca (vault_ca) vouches for" },
	{ 7, "rotate: some devices could not be rewrapped; the same command again goes on" },
	{ 75, "kmip, kmip-wrap, vault: no key server answers, or they are sealed" },
	{ 78,
	  "keystore.json is lost, or it, N.sealed, N.kmip or N.vault is not usable, or kmip_servers "
	  "(vault_servers) is not set; check: there is no keystore. keyrestore puts keystore.json back; who gives "
	  "a lost keystore up for good moves /etc/cryptconf/keystore away" },
	{}
};

const struct qs_command qs_row_keystore = {
	.name = "keystore",
	.args = "enable | status | rotate | migrate | rewrap DEVICE...|--all | verify | check | export | schedule TIME | retention TIME | purge | disable",
	.min_args = 1,
	.max_args = QS_CMD_ANY_NUMBER,
	.help = "keep a key that wraps the keys of devices",
	.about =
		"The keystore has a key-encryption key. cryptenroll --keystore gives a device a keyslot "
		"whose key is wrapped by it and lies in the device's own header: no file for each "
		"device, and a header that was copied away is of no use without the keystore.\n"
		"enable makes the first generation of the key, proves it, and asks for 'yes'. status "
		"tells how many devices and header backups each generation wraps keys of. verify changes "
		"nothing: it unwraps the key of every device that is present and of every header backup, "
		"compares the volume with the identity that was wrapped with the key (UUID, cipher, key "
		"size, sector size, data offset, and a measure of the volume key), and tries the keyslot. "
		"rotate makes a new generation of the key and brings every device that is present, and "
		"its header backup, to it: no data is encrypted anew, and no keyslot changes. Until it is "
		"finished both generations open, and if it is interrupted or a device fails, the same "
		"command again goes on. A device that is away keeps its generation and is brought to the "
		"present one when it is opened next. The generation before the present one is kept; older "
		"ones are erased when no device that is present and no header backup needs them.\n"
		"schedule TIME says when rotations are due: 6W, 2M, 1Y, once in 24 hours to 10 years, or "
		"Never; months and years go by the calendar (UTC). What the age of the present generation "
		"made due before is due at once. Every 15 minutes qs-util-rekey.timer rotates with "
		"--if-due, which begins a rotation that is due, goes on with an interrupted one, and brings "
		"along devices that were away and have returned; otherwise it is silent and reads no device. "
		"While another command works on the keystore it does nothing. "
		"What fails is tried again the next time. It never asks: with a PIN it fails, and rotating "
		"is for a person. status tells when the next rotation is due, that it is overdue (not "
		"finished 24 hours later), and the last error. The journal gets an entry with a message id when a "
		"rotation begins or goes on, is finished, fails (the same failure once a day), and (once a day) is overdue: `journalctl "
		"QS_EVENT=KeyRotationFailed`, KeyRotationStarted, KeyRotationSucceeded, KeyRotationOverdue.\n"
		"migrate makes the new generation with another provider, with that one's options, and is a "
		"rotation otherwise: it may be interrupted at any point, and the same command or rotate "
		"goes on. If the new provider does not answer, or cannot make or prove the key, all is as it "
		"was. The generation before stays with its provider, until the next rotation but one.\n"
		"rewrap brings devices that were away to the present generation, as rotate --if-due does, and "
		"moves those named (with --all, all of ours) from their key files into the keystore: a device gets "
		"a keyslot of the keystore's, which is proven on what was read from the disk again, its line in "
		"crypttab names no key file any more (and gets noauto: cryptopenall opens it), and only "
		"then the key file's keyslot is revoked, in header backups too, and the file erased. Key "
		"files outside of the keys directory are not touched.\n"
		"check gets the key of every generation with what is configured for the next start (the "
		"certificates of a key server, the TPM), tries it, and says what will end within 30 days. It "
		"looks at no device. Exit status 0 means that all is well; 1 that something ends soon, or "
		"has ended; any other that a key cannot be had now. Both are messages in the journal. "
		"qs-util-keycheck.timer, which is on once it is installed (`systemctl mask` ends that), runs it "
		"daily where there is a keystore (qs-util-check.timer is another: it tries the ways to open "
		"devices, and no date). status tells of the last check.\n"
		"disable erases the keystore and is refused while a device that is present or a header "
		"backup depends on it, or cannot be read; of a disk that is away and has no header backup "
		"it does not know.\n"
		"With the provider tpm2 the key is sealed in this machine's TPM 2.0, under its storage root "
		"key, and comes out only while the PCRs are as they were. It is unsealed once for all "
		"devices of a command. With a PIN nothing opens unattended: it is asked for once, or read "
		"from --pin-file, and tried once. An update of the firmware that moves a PCR, and a TPM "
		"that is cleared or replaced, end what it opens: export the key, or give each device "
		"another keyslot.\n"
		"export encrypts the key of one generation to somebody's RSA key (OAEP with SHA-256) and "
		"changes nothing. What comes out is a JWK, a JSON Web Key, for whoever has the private "
		"key: keep it away from the disks. Export again after each rotation.\n"
		"When cryptdestroy has destroyed a device that has a key in the keystore, its header "
		"backup with the wrapped key stays for the retention time (7 days; retention TIME sets "
		"it, 1D to 365D, and W, M of 30 days and Y are known), and cryptrestore brings the "
		"device back. purge erases for good what is over its time and says what it erased; "
		"with --all everything. Until then it counts as a header backup; generations that nothing else "
		"named are erased with it. qs-util-rekey.timer purges, too.\n"
		"A volume whose identity is another one is refused with exit status 6 and no other key "
		"is tried. Where the keystore fails otherwise (its file lost, another keystore's key, a "
		"damaged token), key files and passphrases are tried.\n"
		"The wrapped key is a JSON Web Encryption of 64 bytes, the key, with the identity behind "
		"them. Where N.kek is at hand no export is needed: its bytes in base64url are the member "
		"k of the JWK {\"kty\":\"oct\",\"alg\":\"A256GCMKW\",\"k\":...}.\n"
		"With --provider kmip each generation is a key of a KMIP key server, made there under the "
		"name qs-util/STORE/GENERATION and fetched when devices open: one login and one request for "
		"all of them, by the first of the servers in kmip_servers that answers within kmip_deadline. "
		"This machine needs a certificate that the server knows, and the authority's (kmip_ca, "
		"kmip_certificate, kmip_key in qs-util.conf(5)), and where it wants them a user and his password "
		"(kmip_user, kmip_password_file); they are not in key bundles. status tells "
		"when certificates end, and whether a server answers. disable destroys the key at the server, "
		"and needs it for that. Where the server creates no keys for this machine, it is given one "
		"(Register). --key-id takes a key that was made there, if it is active, AES with 256 bits, for "
		"Encrypt and Decrypt or Wrap Key and Unwrap Key, and handed out; such a key is never "
		"destroyed. What only a key server opens at boot "
		"is opened by qs-util-openall-network.service, once the network is up (qs-util-cryptopenall(8)). With kms_lease "
		"or kms_lease_boots (qs-util.conf(5), off by default) check keeps a KMIP server's key here for a "
		"time or a number of starts, under this machine's TPM, and devices open by that lease where no server answers; status says whether there is one, none yet, or leases are off.\n"
		"With --provider kmip-wrap the key never leaves the KMIP server, which needs Encrypt and Decrypt "
		"(KMIP 1.2) and makes the key (sensitive, where it knows that): what is wrapped there are the keys "
		"of the JSON Web Encryptions. Opening any number of devices is one login and one request for "
		"each 128 of them, or single ones where the server takes no more at once. Where it has AES-GCM (from "
		"1.4 on) it refuses a wrapped key that was changed; with AES-CBC it gives another key, and it "
		"is the JSON Web Encryption that does not open; status says which it has. --key-id takes a key for "
		"Encrypt and Decrypt. export has nothing to export, and there are no leases. Otherwise it is as "
		"with kmip, and migrate goes from one to the other.\n"
		"With --provider vault the key is one of the transit engine of HashiCorp Vault (1.8 and later) "
		"or OpenBao, and never leaves it: what is wrapped there are the keys of the JSON Web "
		"Encryptions, and a generation is a version of it. This machine logs in by AppRole (see "
		"vault_servers and what follows it in qs-util.conf(5)): once for all devices of a command, and "
		"opening any number of them is one more request. It makes a key qs-util-STORE of its own; the "
		"role's policy has to allow create, read, update and delete of transit/keys/qs-util-*, and update of "
		"transit/keys/qs-util-*/rotate and /config, transit/encrypt/qs-util-* and transit/decrypt/qs-util-*. "
		"Or it uses a key that was made for it (vault_key, or --key-id NAME), for which read, rotate, "
		"encrypt and decrypt are enough. With update of transit/rewrap/KEY a rotation has the server "
		"rewrap: no device's key is sent, and a hundred devices are one request to rewrap and one to "
		"prove. In place of encrypt the policy may have transit/datakey/plaintext/KEY, so that this "
		"machine can have nothing encrypted that it has chosen; that is a request for each key. Of a key "
		"that was made for it, a later version that its administrator has made is taken as the "
		"next generation. Of the keystore's own key, versions that no generation is any more are put out of use "
		"(min_decryption_version), and disable deletes it; somebody else's is left as it is. export has "
		"nothing to export. Where the role may look at its secret-id (update of auth/approle/role/ROLE/"
		"secret-id/lookup), status and check tell when that ends, as of the certificates. Without qs-util, whoever may decrypt gets the content key: `vault write "
		"-field=plaintext transit/decrypt/KEY ciphertext=TEXT`, where TEXT is the member qs-wrapped of the "
		"JWE's header; in base64url it is the k of the JWK, {\"kty\":\"oct\",\"k\":...}, with which jose "
		"goes on as below.\n"
		"--kms-key gives some devices a key of their own, a key of the transit engine that somebody has "
		"made: cryptformat and rewrap take it, whatever provider the keystore has, and rewrap "
		"--cluster-key takes devices back. It may have a namespace (--kms-namespace) and credentials "
		"(--role-id, --secret-id-file: the file is not copied, but read whenever one of its devices "
		"opens); without, those of qs-util.conf(5) are used, the role's in its namespace. The same "
		"key, namespace and credentials named again are the same key. Such a device is left there by "
		"rotate, migrate and (unless --cluster-key or --kms-key is given) rewrap --all; rotate "
		"--kms-key makes a new version of its key at the server (the role needs update of transit/keys/KEY/rotate; without it, the administrator "
		"rotates first) and brings its devices to that; where an earlier run could not bring one along "
		"that is present, it goes on with that and makes no new version. status tells which devices have it. All "
		"devices of one key open with one request. When nothing needs it any more it is forgotten "
		"here; at the server it is never changed otherwise.\n"
		"No token of a Vault server's is kept: a command logs in once for all that it does, renews the "
		"token when two thirds of its time are over, and logs in again where that is refused. A token in a file would be one more secret outside the "
		"administrator's credentials; a secret-id with a limited number of uses should have enough of "
		"them for every command and every boot.\n"
		"Where libcryptsetup-token-qs-keystore.so is installed (make install-token-plugin), plain "
		"`cryptsetup open DEVICE NAME` and a line in /etc/crypttab with none as its key file open "
		"the device, too, with the same checks of header and identity. They ask for a passphrase "
		"when they are refused: type none for a volume that is not the one that was enrolled.\n"
		"If enable or disable is interrupted, the same command again finishes it; until then "
		"nothing can be enrolled.\n",
	.examples = examples,
	.recipe = &recovery,
	.options = options,
	.statuses = statuses,
	.see_also =
		"qs-util-cryptenroll(8) qs-util-keybackup(8) qs-util-cryptopen(8) jose(1) openssl-pkeyutl(1)",
	.flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES | QS_CMD_DESTROYS,
	.files = QS_FILE_KEYSTORE | QS_FILE_HEADERS | QS_FILE_CRYPTTAB,
	.run = run,
};
