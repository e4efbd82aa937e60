/*
 * THE table: every command and option of qs-util. Parsing, usage, `help`, bash
 * completion, and the manual's synopsis, commands, options and exit statuses
 * are made from it.
 */
#include "command.h"

static const char *const progress_choices[] = { "auto", "none", "json", NULL };
static const char *const help_choices[] = { "text", "json", "bash", "man", "config", NULL };
static const char *const pbkdf_choices[] = { "pbkdf2", "argon2i", "argon2id", NULL };
static const char *const sector_choices[] = { "512", "1024", "2048", "4096", NULL };

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

static const struct qs_option devicemap_options[] = {
	{ .name = "all", .help = "partitions and stacked devices (LVM, md, loop) too" }, {}
};

static const struct qs_example devicemap_examples[] = { { "devicemap", "which disk is which" },
							{ "--json devicemap --all",
							  "the whole inventory for a program" },
							{} };

static const struct qs_option cryptformat_options[] = {
	{ .name = "key-file",
	  .arg = "FILE",
	  .help = "use this key instead of generating one; every argument is then a DEVICE" },
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

static const struct qs_example cryptformat_examples[] = {
	{ "cryptformat /dev/sdj", "encrypt an empty disk with a key of its own" },
	{ "cryptformat /dev/sdj /dev/sdk /dev/sdl", "several at once, in parallel" },
	{ "cryptformat --key-file /root/k.key /dev/sdj", "with a key that exists" },
	{}
};

static const struct qs_option cryptopen_options[] = {
	{ .name = "key-file", .arg = "FILE", .help = "key file, the same as KEYFILE" },
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
	{}
};

static const struct qs_option cryptopenall_options[] = {
	{ .name = "read-only", .help = "map them read-only" },
	{ .name = "test", .help = "prove the keys, open nothing" },
	{}
};

static const struct qs_option cryptdestroy_options[] = {
	{ .name = "force", .help = "override a safety refusal" }, {}
};

static const struct qs_example cryptdestroy_examples[] = {
	{ "cryptdestroy /dev/sdj", "at the end of a disk's life" },
	{ "--json --yes cryptdestroy /dev/sdj", "the same from a program" },
	{}
};

static const struct qs_option help_options[] = {
	{ .name = "format",
	  .arg = "FORMAT",
	  .choices = help_choices,
	  .help = "text, json, bash (completion), man (generated sections of the manual) or "
		  "config (the configuration with all defaults)" },
	{}
};

/* clang-format off */
const struct qs_command qs_commands[] = {
	{ .name = "devicemap",
	  .help = "list disks with their persistent names",
	  .about =
	  "Prints a line for each disk: its device node, a tab, then the persistent link, "
	  "vendor, model and serial number, separated by a comma and a blank. What is not "
	  "known is empty; a missing link is '-'.\n"
	  "With --json each device also has size, wwn, transport, whether it rotates, why "
	  "it may be in use, what kind of LUKS header it carries, and the mapper name if "
	  "it is open. Only then are the devices opened, for reading.\n",
	  .examples = devicemap_examples,
	  .options = devicemap_options,
	  .run = qs_cmd_devicemap, .print = qs_print_devicemap },
	{ .name = "cryptformat",
	  .args = "DEVICE... [KEYFILE]", .min_args = 1, .max_args = QS_CMD_ANY_NUMBER,
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
	  "If it is interrupted, the same command again finishes what was begun, with the "
	  "same key.\n",
	  .examples = cryptformat_examples,
	  .options = cryptformat_options,
	  .flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES | QS_CMD_DESTROYS,
	  .run = qs_cmd_cryptformat },
	{ .name = "cryptopen",
	  .args = "DEVICE [KEYFILE] [updatecrypttab]", .min_args = 1, .max_args = 3,
	  .help = "open an encrypted device",
	  .about =
	  "Opens the device as /dev/mapper/NAME. Without KEYFILE the key of its line in "
	  "/etc/crypttab or of its name in /etc/cryptconf/keys is used. A device that is "
	  "open already is a success.\n"
	  "The word updatecrypttab, as the last argument, writes the line into "
	  "/etc/crypttab. A key file of that very name is given as ./updatecrypttab.\n",
	  .examples = cryptopen_examples,
	  .options = cryptopen_options,
	  .flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES,
	  .run = qs_cmd_cryptopen },
	{ .name = "cryptopenall",
	  .help = "open every encrypted device of ours that is present",
	  .about =
	  "Opens, in parallel, every device that /etc/crypttab names with one of our "
	  "keys, and every device formatted by qs-util whose key is at hand. One that "
	  "fails delays no other; each has a result of its own.\n",
	  .options = cryptopenall_options,
	  .flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES,
	  .run = qs_cmd_cryptopenall },
	{ .name = "cryptclose",
	  .args = "DEVICE", .min_args = 1, .max_args = 1,
	  .help = "close an encrypted device",
	  .about =
	  "Removes the mapping. If it is busy (exit status 5), the message names what holds it.\n",
	  .flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES,
	  .run = qs_cmd_cryptclose },
	{ .name = "cryptcloseall",
	  .help = "close every encrypted device of ours",
	  .about =
	  "As cryptclose, for every open device of ours; busy ones stay open and are reported.\n",
	  .flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES,
	  .run = qs_cmd_cryptcloseall },
	{ .name = "cryptdestroy",
	  .args = "DEVICE...", .min_args = 1, .max_args = QS_CMD_ANY_NUMBER,
	  .help = "make devices unreadable for ever: keyslots, headers, key, backups",
	  .about =
	  "Closes the device, erases all its keyslots and both header copies, and deletes "
	  "its key, its header backups and its line in /etc/crypttab. Nobody can read the "
	  "data afterwards, unless a copy of the key or of the header was made elsewhere. "
	  "Flash may keep overwritten blocks out of reach: where that matters, erase the "
	  "whole device with its own command (nvme format, hdparm) afterwards.\n"
	  "It shows the devices and asks for the word 'yes'. Without a terminal, and with "
	  "--json, it needs --yes.\n"
	  "If it is interrupted, the device still opens or the same command again "
	  "finishes the work.\n",
	  .examples = cryptdestroy_examples,
	  .options = cryptdestroy_options,
	  .flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES | QS_CMD_DESTROYS,
	  .run = qs_cmd_cryptdestroy },
	{ .name = "cryptstatus",
	  .args = "[DEVICE...]", .max_args = QS_CMD_ANY_NUMBER,
	  .help = "show state, cipher, keyslots, header backup and crypttab agreement",
	  .about =
	  "Without DEVICE, a table of every LUKS device and every device of ours; with "
	  "devices, a block for each with all that is known: state, cipher and the kernel "
	  "driver that serves it, keyslots and what opens each, age of the header backup, "
	  "and whether /etc/crypttab agrees. It writes nothing: a damaged header is "
	  "named, not repaired.\n",
	  .flags = QS_CMD_NEEDS_ROOT,
	  .run = qs_cmd_cryptstatus, .print = qs_print_cryptstatus },
	{ .name = "help",
	  .args = "[COMMAND]", .max_args = 1,
	  .help = "show help on qs-util or one of its commands",
	  .about =
	  "The formats json, bash and man describe all commands; completion and the "
	  "manual are made from them. The format config is a configuration file with "
	  "every setting explained and commented out.\n",
	  .options = help_options,
	  .flags = QS_CMD_STANDALONE,
	  .run = qs_cmd_help },
	{}
};
/* clang-format on */
