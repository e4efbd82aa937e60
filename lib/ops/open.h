/*
 * Opening and closing, as pieces that several operations use.
 */
#ifndef QS_OPS_OPEN_H
#define QS_OPS_OPEN_H

#include <stdbool.h>

#include <jansson.h>

#include "base/env.h"
#include "base/error.h"
#include "base/pool.h"
#include "base/secret.h"
#include "device/device.h"
#include "luks/header.h"
#include "luks/mapping.h"
#include "luks/unlock.h"
#include "ops/ops.h"
#include "ops/tpm2.h"
#include "tab/crypttab.h"

/* The note of a device that is not there, which is no error for cryptopenall. */
#define QS_OPEN_ABSENT "absent"

/* Key files that may open one device, in the order in which they are tried. */
#define QS_OPEN_KEYS 4

/* One device to open. Strings belong to the request. */
struct qs_open_request {
	char *name;                         /* of the mapping */
	char *link;                         /* logical */
	char *node;                         /* what is really opened */
	char *key_files[QS_OPEN_KEYS];      /* logical; NULL behind the last */
	bool keystore;                      /* ask the keystore before the key files */
	bool no_keystore;                   /* it would be asked, if there were one */
	bool command;                       /* ask the key command behind them, if there is one */
	const struct qs_secret *key;        /* as passphrase, but a key file's bytes */
	bool bundle;                        /* its keys are those of a key bundle, and no others */
	const struct qs_tpm2_key *tpm2;     /* what the TPM gave, tried first; not owned; or NULL */
	const struct qs_secret *passphrase; /* tried instead of all files; not owned; or NULL */
	/* Called with each secret instead of opening; returns as qs_luks_unlock(). NULL: open. */
	int (*attempt)(void *cookie, const struct qs_secret *key, struct qs_error *err);
	void *attempt_cookie;
	bool line_key; /* the first key file is the one that crypttab names */
	bool read_only;
	bool allow_discards;
	bool test;     /* prove a key, open nothing */
	bool systemd;  /* its line lets systemd's generator open it at boot */
	bool no_tpm2;  /* the TPM would be asked, if there were one */
	bool locked;   /* the caller holds the device's lock */
	bool early;    /* its header is compared with the backup before any key is looked for */
	bool optional; /* its line says nofail */
};

/*
 * Ask the TPM for COUNT requests (ONLY not NULL: for those with ONLY[i]), unless OPTIONS name
 * another key or there is no TPM. *keys must outlive the requests, whose tpm2 points into it.
 */
int qs_open_ask_tpm2(const struct qs_env *env, const struct qs_open_options *options,
		     struct qs_open_request *requests, size_t count, const bool *only,
		     struct qs_tpm2_keys *keys, struct qs_error *err);

/*
 * As that, but only the headers are read: *ret's pool asks the TPM, before or beside the opening
 * (qs_tpm2_fetch_begin()). NULL when it is not to be asked.
 */
int qs_open_begin_tpm2(const struct qs_env *env, const struct qs_open_options *options,
		       struct qs_open_request *requests, size_t count, const bool *only,
		       struct qs_tpm2_keys *keys, struct qs_tpm2_fetch **ret, struct qs_error *err);

/* For one device: asked again with the PIN, if it lacked that and no other key is at hand. */
int qs_open_ask_tpm2_and_pin(const struct qs_env *env, const struct qs_open_options *options,
			     struct qs_open_request *request, struct qs_tpm2_keys *keys,
			     struct qs_error *err);

/*
 * Say behind ERR that a device whose keys are missing or wrong has a TPM2 keyslot, for which this
 * machine has no TPM. Reads its header.
 */
void qs_open_mention_tpm2(const struct qs_open_request *request, struct qs_error *err);

/* Many of them; the cookie of qs_open_job(). */
struct qs_open_jobs {
	const struct qs_env *env;
	struct qs_open_request *requests; /* one per outcome */
};

/*
 * Find the device that O names, and by which name, link and key files it is
 * opened: those of its crypttab line, of its name, of its label; with KEY_FILE
 * only that one. Fills O, and its error when it fails; DEV, HEADER and REQUEST
 * are the caller's to release. A device without a usable header is an error.
 */
int qs_open_find(const struct qs_env *env, const char *key_file, struct qs_outcome *o,
		 struct qs_device **ret_dev, struct qs_luks_header *ret_header,
		 struct qs_open_request *request);

/*
 * Name and keys of one device with the header H: from its crypttab line, then by
 * the naming rule, then by the label that a format of ours gave (the disk may have moved
 * to a controller under which it has another link).
 */
int qs_open_make_request(const struct qs_env *env, const struct qs_device *dev,
			 const struct qs_luks_header *h, const struct qs_crypttab *tab,
			 const char *key_file, struct qs_open_request *ret, struct qs_error *err);

/*
 * The passphrase for REQUEST: the one in OPTIONS, else, when no key of the device
 * is there, the one that OPTIONS->ask gets (it goes to *asked, which is the caller's). Nobody is
 * asked for a volume that will be refused.
 */
int qs_open_ask(const struct qs_env *env, const struct qs_open_options *options,
		struct qs_open_request *request, struct qs_secret *asked, struct qs_error *err);

/* Is one of the request's key files there, or the bytes of one? */
bool qs_open_has_key_file(const struct qs_env *env, const struct qs_open_request *request);

/* The same, or is there a key command, or has the keystore a key for its header? */
bool qs_open_has_own_key(const struct qs_env *env, const struct qs_open_request *request);

/* Another key file to try; one that is there already, or that finds no room, is left out. */
void qs_open_add_key(struct qs_open_request *request, const char *key_file);

/* Key file, readonly and discard of a crypttab line. */
void qs_open_apply_line(struct qs_open_request *request, const struct qs_crypttab_entry *e);

/* An option that makes a line another tool's (what the key or the header is), or NULL; static. */
const char *qs_open_foreign_option(const char *options);

/* What the command line asks for. */
void qs_open_apply_options(struct qs_open_request *request, const struct qs_open_options *options);

/* When LIST was opened as REQUESTS said: tell the journal, and heal TPM2 keyslots (ops/heal.h). */
void qs_open_finish(const struct qs_env *env, const struct qs_open_options *options,
		    const struct qs_open_request *requests, struct qs_outcomes *list);

/* How REQUEST opens by keyslot SLOT; -1: all that are cheap, then the others. */
struct qs_unlock qs_open_how(const struct qs_open_request *request, int slot,
			     struct qs_worker *worker);

/* Say that there was nothing to do. */
void qs_open_note_open(struct qs_outcome *outcome);

/* qs_job: request INDEX. */
int qs_open_job(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		struct qs_error *err);

void qs_open_request_done(struct qs_open_request *request); /* also a QS_AUTO releaser */

/*
 * Run in a worker: try the key files, then the key command, until one opens the
 * device. *ret gets "key_file" or "key_command", and "keyslot". A key file that is absent is passed
 * over as long as another one is left.
 */
int qs_open_request_run(const struct qs_env *env, struct qs_worker *worker,
			const struct qs_open_request *request, json_t **ret, struct qs_error *err);

/* What qs_open_check_mapping() needs of a device, from one stat(): no udev, no header read (G6). */
int qs_open_stat_device(const char *node, struct qs_device *ret);

/*
 * Is NAME mapped already, and onto DEV with UUID (may be "")? Returns 1 yes, 0
 * not mapped; another device or UUID, or a device that is gone, is QS_E_EXISTS.
 */
int qs_open_check_mapping(const struct qs_mapping_list *mappings, const char *name,
			  const struct qs_device *dev, const char *uuid, struct qs_error *err);

/* The crypttab line for a device, by what its second field leads to; NULL: none. */
const struct qs_crypttab_entry *qs_open_line_of(const struct qs_env *env,
						const struct qs_crypttab *tab,
						const struct qs_device *dev, const char *uuid);

/*
 * A line that cryptopenall takes: LUKS with a key file, ours by its name or by the key's place;
 * with a key command, a TPM or a keystore, ours by its name and without a key file, too.
 */
bool qs_open_is_our_line(const struct qs_env *env, const struct qs_crypttab_entry *e);

/* Would it be one with a keystore, whatever this machine has? */
bool qs_open_may_be_our_line(const struct qs_env *env, const struct qs_crypttab_entry *e);

/* Close the mapping NAME; busy: QS_E_IN_USE with its holders. */
int qs_close_mapping(const struct qs_env *env, const struct qs_mapping *mapping,
		     struct qs_error *err);

#endif
