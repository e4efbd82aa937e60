/*
 * THE table: every command of qs-util in the order in which help shows them, the
 * options that all take, and the files that they use. A command's row, with its
 * options and examples, stands at the end of its cmd-NAME.c. Parsing, usage,
 * `help`, bash completion and the manual pages are made from it.
 */
#include "command.h"

static const char *const progress_choices[] = { "auto", "none", "json", NULL };

const struct qs_option qs_global_options[] = {
	{ .name = "json", .help = "print exactly one JSON object, and never ask" },
	{ .name = "progress",
	  .arg = "MODE",
	  .choices = progress_choices,
	  .help = "auto (a bar on a terminal), none, or json (lines on standard error)" },
	{ .name = "yes", .help = "answer questions with yes; overrides no safety refusal" },
	{ .name = "quiet", .letter = 'q', .help = "only errors and what was asked for" },
	{ .name = "verbose", .letter = 'v', .help = "say what is being done" },
	{ .name = "root", .arg = "DIR", .help = "use /etc, /run, /var and /dev/disk below DIR" },
	{ .name = "config",
	  .arg = "FILE",
	  .help = "configuration instead of /etc/cryptconf/qs-util.conf" },
	{ .name = "help", .letter = 'h', .help = "show help, for the command if one is named" },
	{ .name = "version", .letter = 'V', .help = "show the version" },
	{}
};

const struct qs_file qs_files[] = {
	{ 0, "/etc/cryptconf/qs-util.conf", "Configuration; every setting is explained in it." },
	{ QS_FILE_KEYS, "/etc/cryptconf/keys/NAME.key",
	  "The key of a device, readable by root only. Keep a copy elsewhere: without it the "
	  "data are lost." },
	{ QS_FILE_HEADERS, "/etc/cryptconf/headers/NAME.header",
	  "The newest backup of a device's header; older ones are in NAME.d, beside what "
	  "cryptrestore overwrote (damaged-SUM.raw)." },
	{ QS_FILE_KEYSTORE, "/etc/cryptconf/keystore/",
	  "The keystore, readable by root only: keystore.json (its state) and N.kek (the key of "
	  "generation N), or N.sealed where the TPM keeps it, or N.kmip or N.vault, "
	  "which tells what a key server calls it; with a lease N.lease and, for it, N.sealed, "
	  "too. Each JSON file has its SHA-256 in the member sum, without which it is taken as it "
	  "is: whoever edits one removes it. A key bundle (keybackup) has a copy; "
	  "without N.kek, or N.sealed and its TPM, no key that generation N wrapped opens "
	  "anything." },
	{ QS_FILE_KEYSTORE, "/var/lib/qs-util/keystore-check.json",
	  "When keystore check last tried the key, and had it. Nothing depends on it." },
	{ QS_FILE_KEYSTORE, "/etc/cryptconf/retired/NAME.UUID.DATE.header",
	  "The header backup of a destroyed device, with the key that the keystore wrapped, until "
	  "its retention time is over. DATE is when it was destroyed." },
	{ QS_FILE_CRYPTTAB, "/etc/crypttab",
	  "Only the lines of our own devices are changed. The version before the last change "
	  "is kept as /etc/crypttab.qs-bak." },
	{ QS_FILE_FSTAB, "/etc/fstab",
	  "Of the line of a swap the first field is changed. The version before the last "
	  "change is kept as /etc/fstab.qs-bak." },
	{ QS_FILE_PENDING, "/etc/cryptconf/pending/NAME.json",
	  "Notes that work on a device was begun and is not finished; the same command again "
	  "finishes it and removes the file. It holds no secret." },
	{ QS_FILE_KEYSTORE, "/var/lib/qs-util/rotation.json",
	  "Why the last rotation of the keystore failed, for keystore status. Nothing depends on it." },
	{ 0, "/run/qs-util/lock", "Taken by whoever writes a table." },
	{}
};

/* A line each, so that branches which add commands merge. */
/* clang-format off */
const struct qs_command *const qs_commands[] = {
	&qs_row_devicemap,
	&qs_row_cryptformat,
	&qs_row_cryptopen,
	&qs_row_cryptopenall,
	&qs_row_cryptclose,
	&qs_row_cryptcloseall,
	&qs_row_cryptdestroy,
	&qs_row_cryptenroll,
	&qs_row_cryptswap,
	&qs_row_cryptstatus,
	&qs_row_cryptbackup,
	&qs_row_cryptrestore,
	&qs_row_crypttabrepair,
	&qs_row_keybackup,
	&qs_row_keyrestore,
	&qs_row_keystore,
	&qs_row_config,
	&qs_row_help,
	NULL,
};
/* clang-format on */
