/*
 * /etc/cryptconf/qs-util.conf: libconfig syntax, every value checked. An error
 * names file, line, key, what was found and what is allowed (QS_E_CONFIG).
 * An absent file means all defaults; an unknown key is an error, so that a
 * misspelt safety setting does not pass unseen.
 */
#ifndef QS_BASE_CONFIG_H
#define QS_BASE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

#include "base/error.h"

#define QS_CONFIG_FILE "/etc/cryptconf/qs-util.conf"

struct qs_config {
	char *keys_dir;    /* logical; default /etc/cryptconf/keys */
	char *headers_dir; /* logical; default /etc/cryptconf/headers */
	char *key_command; /* logical; a program that prints a device's key; default "": none */
	unsigned key_deadline_s; /* for it, and for a keys_dir that does not answer; default 30 */
	char *tpm2_device; /* "auto" (default): /dev/tpmrm0; "none"; else DRIVER:CONFIGURATION */
	unsigned tpm2_deadline_s; /* how long the TPM may take; default 30 */
	bool tpm2_self_heal;      /* seal anew what PCRs moved away from; default false */
	char *kmip_servers;       /* "HOST[:PORT],..."; default "": none */
	char *kmip_ca, *kmip_certificate, *kmip_key; /* logical; PEM files */
	char *kmip_user;                             /* default "": the certificate is enough */
	char *kmip_password_file;              /* logical; default below /etc/cryptconf/kmip */
	char *kmip_version;                    /* "auto" (default), or "1.4" */
	unsigned kmip_deadline_s;              /* for all key servers together; default 10 */
	char *vault_servers;                   /* "HOST[:PORT],..."; default "": none */
	char *vault_ca, *vault_secret_id_file; /* logical; default below /etc/cryptconf/vault */
	char *vault_role_id, *vault_namespace, *vault_key; /* default "" */
	char *vault_mount,
		*vault_auth_mount; /* where transit and AppRole are; "transit", "approle" */
	unsigned vault_deadline_s; /* for all servers together; default 10 */
	unsigned kms_lease_s; /* how long a KEK is kept for servers that are away; default 0: not */
	unsigned kms_lease_boots; /* for how many starts; default 0: any number */
	unsigned early_wait_s;    /* for devices of the initramfs that are absent; default 30 */
	unsigned early_prompt_s;  /* for somebody who types there; default 120 */
	bool early_keys;          /* key files are copied into the initramfs; default false */
	bool early_poweroff;      /* what ends a boot that cannot go on; default false: a restart */
	char *crypttab_options;   /* fourth field of new lines; default "luks" */
	char **name_order;        /* prefixes of by-id links, best first, NULL-terminated */
	char *cipher;             /* default "aes-xts-plain64" */
	unsigned key_size;        /* bits of the volume key; default 512 */
	unsigned sector_size;     /* bytes; 0 (default): 4096 where the device allows, else 512 */
	uint64_t metadata_size;   /* bytes of one LUKS2 metadata area; default 128 KiB (F1) */
	uint64_t keyslots_size;   /* bytes; default 4 MiB: 15 slots of a 512-bit key */
	unsigned header_versions; /* older header backups kept per device; default 3 */
	unsigned open_deadline_s; /* a worker that opens is killed after this; default 90 */
	unsigned lock_wait_s;     /* how long to wait for the lock of the tables; default 30 */
	unsigned workers;         /* parallel workers; 0 (default): number of usable cores */
	uint64_t memory_limit; /* bytes for all key derivations at once; 0 (default): half of RAM */
	uint64_t max_kdf_memory; /* bytes; a keyslot that wants more is refused; default 4 GiB */
	unsigned max_kdf_iterations; /* PBKDF2; default 100 000 000 */
	unsigned max_kdf_time;       /* Argon2 passes; default 1000 */
	bool workqueue_flags; /* no-read/no-write-workqueue on non-rotational disks; default true */
};

/* All defaults. Release with qs_config_done(). */
void qs_config_init(struct qs_config *ret);

/*
 * Read FILE (a real path) over the values in *config. MUST_EXIST: an absent file is an error
 * (the user named it with --config). After a failure *config may hold some of
 * the new values and still has to be released.
 */
int qs_config_load(struct qs_config *config, const char *file, bool must_exist,
		   struct qs_error *err);

/* The same for text in memory; FILE is only named in errors. The fuzzer's entry. */
int qs_config_parse(struct qs_config *config, const char *text, const char *file,
		    struct qs_error *err);

/*
 * Every key with the value in force: texts, numbers (bytes, seconds), booleans, an
 * array of texts; an optional text that is not set is left out. The caller's reference.
 */
json_t *qs_config_values(const struct qs_config *config);

/* Print every key, commented out with its default and meaning: etc/qs-util.conf is this text. */
void qs_config_describe(FILE *out);

/* Print the body of qs-util.conf(5), one roff paragraph for each key. */
void qs_config_man(FILE *out);

/* Release; also a QS_AUTO releaser. */
void qs_config_done(struct qs_config *config);

#endif
