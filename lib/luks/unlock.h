/*
 * Opening one device: load, check, try keys, activate.
 */
#ifndef QS_LUKS_UNLOCK_H
#define QS_LUKS_UNLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"
#include "base/error.h"
#include "base/pool.h"
#include "base/secret.h"
#include "device/device.h"
#include "luks/header.h"

struct qs_unlock {
	const char *name; /* of the mapping, and of the backup that the header must agree with;
			     NULL (with test only): there is no backup yet */
	bool test;        /* only prove that the key opens a keyslot */
	bool read_only;
	bool allow_discards;
	int slot;      /* try only this keyslot; -1: all, cheapest first */
	uint32_t skip; /* keyslots (bits) that are not tried */
	/* What KEY's keyslot gave just now, measured: spares its derivation. May be NULL, which it
	 * is wherever another keyslot might be tried. */
	const struct qs_secret *volume_key;
	struct qs_worker *worker; /* asked before a memory-hard keyslot is tried; may be NULL */
};

/*
 * A keyslot is cheap up to this; others are tried after all cheap ones and only
 * with a reservation. 1000 iterations take 1 ms, a million about a second
 * (measured, cryptsetup 2.6.1); systemd's and clevis' slots have 1000.
 */
#define QS_CHEAP_ITERATIONS 100000U
#define QS_CHEAP_MEMORY (1U << 20)

struct crypt_device;

/*
 * To be called before workers are forked: makes libcryptsetup load its
 * cryptography now (2 ms), once, and not once in each of them. If it fails, the
 * workers do it as they would have done.
 */
void qs_luks_warm_up(void);

/*
 * Load the header of NODE as an open would use it, without repairing anything,
 * and refuse it when it is hostile (qs_luks_json_check) or differs from the
 * backup of NAME (NULL: not compared). *ret_header gets the parsed header,
 * *ret_cd the context; both are the caller's.
 */
int qs_luks_load(const struct qs_env *env, const char *node, const char *name,
		 struct crypt_device **ret_cd, struct qs_luks_header *ret_header,
		 struct qs_error *err);

/* The same by PATH, another one to NODE or a copy of its header; NODE stands in sentences. */
int qs_luks_load_copy(const struct qs_env *env, const char *path, const char *node,
		      const char *name, struct crypt_device **ret_cd,
		      struct qs_luks_header *ret_header, struct qs_error *err);

/* The LUKS2 metadata that libcryptsetup holds: nothing can change between a check and its use. */
int qs_luks_header_of(struct crypt_device *cd, struct qs_luks_header *ret, struct qs_error *err);

/*
 * Only the refusals of qs_luks_load(), for the LUKS2 header H: before anything is given away for
 * it, by a TPM or a person.
 */
int qs_luks_check_identity(const struct qs_env *env, const struct qs_luks_header *h,
			   const char *name, struct qs_error *err);

/* Open (or prove) what was loaded with KEY. Returns as qs_luks_unlock(). */
int qs_luks_unlock_loaded(struct crypt_device *cd, const char *node, const struct qs_luks_header *h,
			  const struct qs_secret *key, const struct qs_unlock *how,
			  struct qs_error *err);

/*
 * Open (or prove) NODE with KEY. Returns the keyslot that fitted.
 * -EPERM (QS_E_NO_KEY): no keyslot fits; QS_E_NO_DM: the kernel lacks
 * device-mapper or dm-crypt; QS_E_HOSTILE, QS_E_DAMAGED, QS_E_NOT_LUKS.
 */
int qs_luks_unlock(const struct qs_env *env, const char *node, const struct qs_secret *key,
		   const struct qs_unlock *how, struct qs_error *err);

/*
 * Does KEY open keyslot SLOT of what qs_luks_load() returned? Nothing is opened.
 * One key derivation; WORKER (may be NULL) is asked before a costly one.
 * Returns 1 yes, 0 no.
 */
int qs_luks_try(struct crypt_device *cd, const char *node, const struct qs_keyslot *slot,
		const struct qs_secret *key, struct qs_worker *worker, struct qs_error *err);

/* The sentence for a device whose header cannot be used: damage named, or "not LUKS". */
int qs_luks_explain(const char *node, struct qs_error *err);

#endif
