#include "base/config-keys.h"

#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/text.h"

#define AT(field) offsetof(struct qs_config, field)
#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)
#define TIB(n) ((uint64_t)(n) << 40)

/* NAA names first: they stay with the disk whatever port or driver it is on. */
const char *const qs_config_names[] = { "scsi-3", "scsi-",   "nvme-eui.", "nvme-",
					"ata-",   "virtio-", "wwn-",      NULL };

const struct qs_config_row qs_config_rows[] = {
	{ .name = "keys_dir",
	  .type = QS_CONFIG_DIR,
	  .offset = AT(keys_dir),
	  .text = "/etc/cryptconf/keys",
	  .help = "Directory of the key files, NAME.key each. It may be another file system (USB\n"
		  "stick, NFS): while that is not mounted, commands that need a key fail and say so,\n"
		  "if /etc/fstab or a systemd unit names its mount point. FAT wants the mount options\n"
		  "uid=0,umask=0077, CIFS uid=0,file_mode=0600,dir_mode=0700, NFS an export with\n"
		  "no_root_squash. In fstab the options nofail,x-systemd.device-timeout=10s keep an\n"
		  "absent stick from holding up the boot." },
	{ .name = "key_command",
	  .type = QS_CONFIG_PROGRAM,
	  .offset = AT(key_command),
	  .text = "",
	  .help = "A program that prints a device's key on its standard output, for keys that are\n"
		  "kept elsewhere. It is run as PROGRAM NAME UUID DEVICE, without a shell, with PATH\n"
		  "and LANG as its only environment. All that it prints is the key, a newline at the\n"
		  "end too. A key file of the device, if there is one, is tried first. The program\n"
		  "and every directory above it must belong to root and be writable by root alone." },
	{ .name = "key_deadline",
	  .type = QS_CONFIG_SECONDS,
	  .offset = AT(key_deadline_s),
	  .min = 1,
	  .max = 86400,
	  .number = 30,
	  .help = "How long the place of the keys may take to answer: keys_dir, when it is on another\n"
		  "file system that hangs or has to be mounted first, and key_command, which is\n"
		  "killed then with all that it has started." },
	{ .name = "tpm2_device",
	  .type = QS_CONFIG_TPM,
	  .offset = AT(tpm2_device),
	  .text = "auto",
	  .help = "The TPM 2.0 that opens devices enrolled with it: auto is /dev/tpmrm0 where that\n"
		  "exists, none leaves the TPM alone, else as the TPM software stack (tss2) names it,\n"
		  "\"swtpm:path=/run/swtpm/socket\"." },
	{ .name = "tpm2_deadline",
	  .type = QS_CONFIG_SECONDS,
	  .offset = AT(tpm2_deadline_s),
	  .min = 1,
	  .max = 3600,
	  .number = 30,
	  .help = "How long the TPM may take, with a quarter of a second more for each device; then\n"
		  "the next way to open them is tried." },
	{ .name = "tpm2_self_heal",
	  .type = QS_CONFIG_BOOL,
	  .offset = AT(tpm2_self_heal),
	  .help = "When a device was opened by a key file, the key command, a passphrase or a recovery\n"
		  "key, and a PCR of its TPM2 keyslot has changed since that was sealed (an update),\n"
		  "seal it anew to the present values. Only keyslots that this TPM sealed, without a\n"
		  "PIN and without a signed policy. Off by default: whoever can change what this\n"
		  "machine boots, and gets somebody to type a key, would have the TPM on his side." },
	{ .name = "kmip_servers",
	  .type = QS_CONFIG_SERVERS,
	  .offset = AT(kmip_servers),
	  .text = "",
	  .help = "Key servers that speak KMIP, for `keystore enable --provider kmip` (or kmip-wrap), all\n"
		  "with the same keys: they are asked in this order until one answers, and the port is\n"
		  "5696 where none stands. IPv6 addresses stand in brackets. A server's certificate must\n"
		  "be for the name or address that stands here, as a subjectAltName." },
	{ .name = "kmip_ca",
	  .type = QS_CONFIG_PROGRAM,
	  .offset = AT(kmip_ca),
	  .text = "/etc/cryptconf/kmip/ca.pem",
	  .help = "The certificates of the authorities that vouch for the key servers, in PEM form; the\n"
		  "system's are not used. This file and the next two must be readable by root alone." },
	{ .name = "kmip_certificate",
	  .type = QS_CONFIG_PROGRAM,
	  .offset = AT(kmip_certificate),
	  .text = "/etc/cryptconf/kmip/client.pem",
	  .help = "This machine's certificate for the key servers, and behind it what lies between it\n"
		  "and their authority. Servers know by it whose keys are whose." },
	{ .name = "kmip_key",
	  .type = QS_CONFIG_PROGRAM,
	  .offset = AT(kmip_key),
	  .text = "/etc/cryptconf/kmip/client.key",
	  .help = "The private key of kmip_certificate in PEM form, without a passphrase." },
	{ .name = "kmip_user",
	  .type = QS_CONFIG_USER,
	  .offset = AT(kmip_user),
	  .text = "",
	  .help = "For servers that want a user name and a password beside the certificate." },
	{ .name = "kmip_password_file",
	  .type = QS_CONFIG_PROGRAM,
	  .offset = AT(kmip_password_file),
	  .text = "/etc/cryptconf/kmip/password",
	  .help = "The file with the password of kmip_user, one line, readable by root alone." },
	{ .name = "kmip_version",
	  .type = QS_CONFIG_KMIP,
	  .offset = AT(kmip_version),
	  .text = "auto",
	  .help = "The version of KMIP. auto asks the server at every connection, one more question." },
	{ .name = "kmip_deadline",
	  .type = QS_CONFIG_SECONDS,
	  .offset = AT(kmip_deadline_s),
	  .min = 1,
	  .max = 3600,
	  .number = 10,
	  .help = "How long all key servers together may take, for any number of devices; then the\n"
		  "next way to open them is tried." },
	{ .name = "vault_servers",
	  .type = QS_CONFIG_SERVERS,
	  .offset = AT(vault_servers),
	  .text = "",
	  .help = "Servers of HashiCorp Vault or OpenBao for `keystore enable --provider vault`, all of\n"
		  "one cluster: they are asked in this order until one answers that is not a standby,\n"
		  "and the port is 8200 where none stands. Always https, and redirects are not\n"
		  "followed. A server's certificate must be for the name or address that stands here." },
	{ .name = "vault_ca",
	  .type = QS_CONFIG_PROGRAM,
	  .offset = AT(vault_ca),
	  .text = "/etc/cryptconf/vault/ca.pem",
	  .help = "The certificates of the authorities that vouch for these servers, in PEM form; the\n"
		  "system's are not used. This file and the secret-id must be readable by root alone." },
	{ .name = "vault_role_id",
	  .type = QS_CONFIG_NAME,
	  .offset = AT(vault_role_id),
	  .text = "",
	  .help = "The role-id of the AppRole by which this machine logs in." },
	{ .name = "vault_secret_id_file",
	  .type = QS_CONFIG_PROGRAM,
	  .offset = AT(vault_secret_id_file),
	  .text = "/etc/cryptconf/vault/secret-id",
	  .help = "The file with the secret-id, one line. Where a file of the same name and \".wrapped\"\n"
		  "behind it holds a wrapping token instead, the secret-id is unwrapped once, kept\n"
		  "here, and the wrapping token erased." },
	{ .name = "vault_namespace",
	  .type = QS_CONFIG_NAME,
	  .offset = AT(vault_namespace),
	  .text = "",
	  .help = "The namespace of AppRole and key, a/b, where the server has namespaces." },
	{ .name = "vault_auth_mount",
	  .type = QS_CONFIG_NAME,
	  .offset = AT(vault_auth_mount),
	  .text = "approle",
	  .help = "Where AppRole is mounted, without the auth/ before it." },
	{ .name = "vault_mount",
	  .type = QS_CONFIG_NAME,
	  .offset = AT(vault_mount),
	  .text = "transit",
	  .help = "Where the transit engine is mounted." },
	{ .name = "vault_key",
	  .type = QS_CONFIG_NAME,
	  .offset = AT(vault_key),
	  .text = "",
	  .help = "The key of the transit engine that somebody has made for this machine, perhaps for\n"
		  "others, too: it is rotated, but never deleted, and no version of it put out of use.\n"
		  "Without it the keystore makes a key of its own, called qs-util-STORE." },
	{ .name = "vault_deadline",
	  .type = QS_CONFIG_SECONDS,
	  .offset = AT(vault_deadline_s),
	  .min = 1,
	  .max = 3600,
	  .number = 10,
	  .help = "How long all these servers together may take, for any number of devices; then the\n"
		  "next way to open them is tried." },
	{ .name = "kms_lease",
	  .type = QS_CONFIG_SECONDS,
	  .offset = AT(kms_lease_s),
	  .max = UINT64_C(366) * 86400,
	  .help = "How long devices open without the key server: \"168h\" is a week. `keystore check`,\n"
		  "which qs-util-keycheck.timer runs daily, then keeps its key here, under a key in\n"
		  "this machine's TPM (PCR 7), and each check that has reached the server begins that\n"
		  "time anew. 0, the default, keeps nothing, or without limit by time where\n"
		  "kms_lease_boots is set. Until its end this machine needs no server's consent:\n"
		  "whoever has it, in the state that the TPM wants, has the key. The end is told by\n"
		  "this machine's clock or the TPM's, by the first of them: the TPM's cannot be set\n"
		  "back, but stands still while the machine is off. Only for the provider kmip: keys\n"
		  "of kmip-wrap and vault stay at the server.\n"
		  "While a server answers, the lease is not used, and one that refuses ends it at\n"
		  "the next check." },
	{ .name = "kms_lease_boots",
	  .type = QS_CONFIG_NUMBER,
	  .offset = AT(kms_lease_boots),
	  .max = 10000,
	  .help = "For how many starts of the machine such a lease is, beside or instead of kms_lease.\n"
		  "The TPM counts them, and suspends to memory, too. 0, the default: any number." },
	{ .name = "early_wait",
	  .type = QS_CONFIG_SECONDS,
	  .offset = AT(early_wait_s),
	  .max = 3600,
	  .number = 30,
	  .help = "How long the initramfs waits for devices that it is to open and that are not there\n"
		  "yet. This and the other settings early_* take effect with update-initramfs." },
	{ .name = "early_prompt",
	  .type = QS_CONFIG_SECONDS,
	  .offset = AT(early_prompt_s),
	  .min = 1,
	  .max = 86400,
	  .number = 120,
	  .help = "How long a question for a passphrase in the initramfs waits for an answer." },
	{ .name = "early_keys",
	  .type = QS_CONFIG_BOOL,
	  .offset = AT(early_keys),
	  .number = false,
	  .help = "Copy the key files of devices that the initramfs opens into it. Only for an\n"
		  "initramfs that lies on an encrypted file system: whoever reads it has the keys." },
	{ .name = "early_poweroff",
	  .type = QS_CONFIG_BOOL,
	  .offset = AT(early_poweroff),
	  .number = false,
	  .help = "When a device that the boot needs cannot be opened, the machine starts again; with\n"
		  "true it is switched off. It never offers a shell." },
	{ .name = "headers_dir",
	  .type = QS_CONFIG_DIR,
	  .offset = AT(headers_dir),
	  .text = "/etc/cryptconf/headers",
	  .help = "Directory of the header backups: NAME.header, and older ones in NAME.d." },
	{ .name = "header_versions",
	  .type = QS_CONFIG_NUMBER,
	  .offset = AT(header_versions),
	  .max = 1000,
	  .number = 3,
	  .help = "How many older header backups are kept for each device." },
	{ .name = "crypttab_options",
	  .type = QS_CONFIG_OPTIONS,
	  .offset = AT(crypttab_options),
	  .text = "luks",
	  .help = "Fourth field of new lines in /etc/crypttab. Existing lines keep theirs. Where the key\n"
		  "is on another file system than /etc (a stick, NFS), nofail is added, unless nofail\n"
		  "or noauto stands there: systemd asks for a passphrase where it finds no key file,\n"
		  "and a line without nofail makes every boot wait for it, without an end. Against a\n"
		  "key that is lost from the system's own disk, \"luks,nofail\" helps in the same way.\n"
		  "A disk that is absent only delays the boot (90 s, x-systemd.device-timeout=).\n"
		  "Lines with nofail are opened beside the rest of the boot. If something that crypttab\n"
		  "does not know of needs the disks, such as a ZFS pool, use \"luks,noauto\" and enable\n"
		  "qs-util-openall.service, which opens them before pools are imported." },
	{ .name = "name_order",
	  .type = QS_CONFIG_NAMES,
	  .offset = AT(name_order),
	  .help = "Beginnings of the links in /dev/disk/by-id, best first: of a disk's links the one\n"
		  "that matches first gives the disk its name. Links that match none come last.\n"
		  "Disks that were formatted before keep their names." },
	{ .name = "cipher",
	  .type = QS_CONFIG_CIPHER,
	  .offset = AT(cipher),
	  .text = "aes-xts-plain64",
	  .help = "Cipher of newly formatted devices, as dm-crypt spells it." },
	{ .name = "key_size",
	  .type = QS_CONFIG_NUMBER,
	  .offset = AT(key_size),
	  .min = 128,
	  .max = 512,
	  .multiple_of = 64,
	  .number = 512,
	  .help = "Bits of the volume key. XTS mode halves it: 512 is AES-256." },
	{ .name = "sector_size",
	  .type = QS_CONFIG_NUMBER,
	  .offset = AT(sector_size),
	  .min = 512,
	  .max = 4096,
	  .power_of_two = true,
	  .zero = true,
	  .help = "Bytes that are encrypted together. 0 is 4096 where the device allows it, else 512." },
	{ .name = "metadata_size",
	  .type = QS_CONFIG_SIZE,
	  .offset = AT(metadata_size),
	  .min = KIB(16),
	  .max = MIB(4),
	  .power_of_two = true,
	  .number = KIB(128),
	  .help = "Size of each of the two LUKS2 metadata areas. The second copy survives what is\n"
		  "written over the first (a partition table, a new file system) only if it lies\n"
		  "behind it; cryptsetup's own default of 16 KiB is too small for that." },
	{ .name = "keyslots_size",
	  .type = QS_CONFIG_SIZE,
	  .offset = AT(keyslots_size),
	  .min = KIB(512),
	  .max = MIB(128),
	  .multiple_of = KIB(4),
	  .number = MIB(4),
	  .help = "Size of the LUKS2 keyslots area. One slot of a 512-bit key takes 252 KiB, and\n"
		  "changing a key needs a free one." },
	{ .name = "workqueue_flags",
	  .type = QS_CONFIG_BOOL,
	  .offset = AT(workqueue_flags),
	  .number = true,
	  .help = "Store the flags no-read-workqueue and no-write-workqueue in the header of devices\n"
		  "that do not rotate: faster on flash, slower on disks." },
	{ .name = "open_deadline",
	  .type = QS_CONFIG_SECONDS,
	  .offset = AT(open_deadline_s),
	  .min = 1,
	  .max = 86400,
	  .number = 90,
	  .help = "A device that is not open after this time is given up; the others go on." },
	{ .name = "lock_wait",
	  .type = QS_CONFIG_SECONDS,
	  .offset = AT(lock_wait_s),
	  .max = 3600,
	  .number = 30,
	  .help = "How long to wait for another qs-util that is changing crypttab or fstab." },
	{ .name = "workers",
	  .type = QS_CONFIG_NUMBER,
	  .offset = AT(workers),
	  .min = 1,
	  .max = 1024,
	  .zero = true,
	  .help = "Devices worked on at once. 0 is the number of usable cores." },
	{ .name = "memory_limit",
	  .type = QS_CONFIG_SIZE,
	  .offset = AT(memory_limit),
	  .min = MIB(1),
	  .max = TIB(64),
	  .zero = true,
	  .help = "Memory that all key derivations may take together. 0 is half of the RAM." },
	{ .name = "max_kdf_memory",
	  .type = QS_CONFIG_SIZE,
	  .offset = AT(max_kdf_memory),
	  .min = MIB(1),
	  .max = GIB(4),
	  .number = GIB(4),
	  .help = "A keyslot that wants more memory than this is refused: headers are foreign input." },
	{ .name = "max_kdf_iterations",
	  .type = QS_CONFIG_NUMBER,
	  .offset = AT(max_kdf_iterations),
	  .min = 1000,
	  .max = UINT32_MAX,
	  .number = 100000000,
	  .help = "A PBKDF2 keyslot with more iterations than this is refused." },
	{ .name = "max_kdf_time",
	  .type = QS_CONFIG_NUMBER,
	  .offset = AT(max_kdf_time),
	  .min = 4,
	  .max = UINT32_MAX,
	  .number = 1000,
	  .help = "An Argon2 keyslot with more passes than this is refused." },
};
const size_t qs_config_row_count = QS_ARRAY_SIZE(qs_config_rows);

static void print_amount(const struct qs_config_row *row, uint64_t n, char ret[QS_TEXT_SIZE_L])
{
	if (row->type == QS_CONFIG_SIZE && n > 0)
		qs_text_print_size(n, ret);
	else
		(void)snprintf(ret, QS_TEXT_SIZE_L, "%" PRIu64 "%s", n,
			       row->type == QS_CONFIG_SECONDS ? "s" : "");
}

static void allowed_numbers(const struct qs_config_row *row, char ret[QS_CONFIG_ALLOWED_L])
{
	char min[QS_TEXT_SIZE_L], max[QS_TEXT_SIZE_L], step[QS_TEXT_SIZE_L];
	char form[64] = "";

	print_amount(row, row->min, min);
	print_amount(row, row->max, max);
	print_amount(row, row->multiple_of, step);
	if (row->power_of_two)
		(void)snprintf(form, sizeof(form), ", a power of two");
	else if (row->multiple_of)
		(void)snprintf(form, sizeof(form), ", a multiple of %s", step);
	(void)snprintf(ret, QS_CONFIG_ALLOWED_L, "%s to %s%s%s", min, max, form,
		       row->zero ? ", or 0" : "");
}

void qs_config_allowed(const struct qs_config_row *row, char ret[QS_CONFIG_ALLOWED_L])
{
	static const char *const texts[] = {
		[QS_CONFIG_DIR] = "an absolute path in plain ASCII without blanks, quotes, ':', "
				  "'$', '.' or '..' as a part, '//' or a '/' at its end",
		[QS_CONFIG_PROGRAM] = "\"\", or an absolute path in plain ASCII without blanks, "
				      "quotes, '$', '.' or '..' as a part, or '//'",
		[QS_CONFIG_TPM] = "auto, none, or DRIVER:CONFIGURATION in plain ASCII without "
				  "blanks or quotes",
		[QS_CONFIG_SERVERS] = "\"\", or HOST or HOST:PORT, and more of them behind commas",
		[QS_CONFIG_NAME] = "\"\", or letters, digits, '_', '-', '.' and single '/' inside",
		[QS_CONFIG_USER] = "\"\", or visible ASCII without quotes and '\\'",
		[QS_CONFIG_KMIP] = "auto, 1.0, 1.1, 1.2, 1.3, 1.4 or 2.0",
		[QS_CONFIG_OPTIONS] = "a list with commas and without blanks or quotes; nothing "
				      "that makes the device other than LUKS or overwrites it",
		[QS_CONFIG_CIPHER] = "a cipher in dm-crypt's notation, not a null cipher",
		[QS_CONFIG_NAMES] =
			"an array of 1 to 64 beginnings of link names, [\"scsi-\", ...]",
		[QS_CONFIG_BOOL] = "true or false",
	};

	if (row->type < QS_ARRAY_SIZE(texts) && texts[row->type])
		(void)snprintf(ret, QS_CONFIG_ALLOWED_L, "%s", texts[row->type]);
	else
		allowed_numbers(row, ret);
}

static void print_default(const struct qs_config_row *row, FILE *out)
{
	char amount[QS_TEXT_SIZE_L];

	switch (row->type) {
	case QS_CONFIG_DIR:
	case QS_CONFIG_PROGRAM:
	case QS_CONFIG_TPM:
	case QS_CONFIG_SERVERS:
	case QS_CONFIG_NAME:
	case QS_CONFIG_USER:
	case QS_CONFIG_KMIP:
	case QS_CONFIG_OPTIONS:
	case QS_CONFIG_CIPHER:
		fprintf(out, "\"%s\"", row->text);
		return;
	case QS_CONFIG_NAMES:
		for (size_t i = 0; qs_config_names[i]; i++)
			fprintf(out, "%s\"%s\"", i ? ", " : "[", qs_config_names[i]);
		fputs("]", out);
		return;
	case QS_CONFIG_BOOL:
		fputs(row->number ? "true" : "false", out);
		return;
	default:
		print_amount(row, row->number, amount);
		fprintf(out, strpbrk(amount, " s") ? "\"%s\"" : "%s", amount);
	}
}

void qs_config_describe(FILE *out)
{
	char allowed[QS_CONFIG_ALLOWED_L];

	fputs("# Configuration of qs-util, see qs-util.conf(5). Every key stands here with its\n"
	      "# default, commented out: take away the '#' before a key to change it.\n",
	      out);
	for (size_t i = 0; i < qs_config_row_count; i++) {
		const struct qs_config_row *row = &qs_config_rows[i];

		fputs("\n# ", out);
		for (const char *p = row->help; *p; p++)
			fputs(*p == '\n' ? "\n# " : (char[]){ *p, '\0' }, out);
		qs_config_allowed(row, allowed);
		fprintf(out, "\n# Allowed: %s.\n#%s = ", allowed, row->name);
		print_default(row, out);
		fputs(";\n", out);
	}
}

/* A backslash would be an escape, a '-' a hyphen that nobody can copy; no line begins with '.'. */
static void print_roff(const char *text, FILE *out)
{
	for (const char *p = text; *p; p++)
		if (*p == '\\')
			fputs("\\e", out);
		else
			fprintf(out, *p == '-' ? "\\%c" : "%c", *p);
}

void qs_config_man(FILE *out)
{
	char allowed[QS_CONFIG_ALLOWED_L];
	size_t size;

	for (size_t i = 0; i < qs_config_row_count; i++) {
		const struct qs_config_row *row = &qs_config_rows[i];
		QS_AUTO(qs_auto_free) char *value = NULL;
		QS_AUTO(qs_auto_fclose) FILE *memory = open_memstream(&value, &size);

		if (!memory)
			return;
		print_default(row, memory);
		(void)fflush(memory);
		fprintf(out, ".TP\n.B %s\n", row->name);
		print_roff(row->help, out);
		qs_config_allowed(row, allowed);
		fputs("\nAllowed: ", out);
		print_roff(allowed, out);
		fputs(".\nDefault: ", out);
		print_roff(value, out);
		fputs(".\n", out);
	}
}
