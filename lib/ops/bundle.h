/*
 * keybackup, keyrestore, and opening devices straight from a key bundle.
 */
#ifndef QS_OPS_BUNDLE_H
#define QS_OPS_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "base/env.h"
#include "base/error.h"
#include "bundle/bundle.h"
#include "bundle/seal.h"
#include "ops/output-file.h"

struct qs_keybackup_options {
	struct qs_output_file out;
	struct qs_seal_recipients to; /* at least one */
	bool no_headers;              /* without header backups */
};

/*
 * Seal keys, header backups, configuration and tables into one file, durably.
 * *ret: "file" (null for FD), "size", "keys", "headers", "devices" (names),
 * "missing" (names whose crypttab line has a key file that is not there, or whose key is in a
 * keystore that is not), "keystore" (one is in it), "by_keystore" (names whose key is in that
 * keystore and nowhere else in the bundle). Fails with QS_E_KEY_FILE when a key cannot be read or
 * there is none at all, QS_E_TEMPORARY when a file changes meanwhile, and as qs_keystore_load().
 */
int qs_keybackup(const struct qs_env *env, const struct qs_keybackup_options *options, json_t **ret,
		 struct qs_error *err);

struct qs_keyrestore_options {
	const char *file; /* as the user typed it */
	struct qs_bundle_unlock unlock;
	const char *const *only; /* names of devices, or NULL: everything */
	size_t only_count;
	bool force;   /* replace differing keys, configuration and lines */
	bool dry_run; /* only say what would be done */
	/* Asked once, before the first file is replaced; PLAN as *ret below. May be NULL. */
	int (*confirm)(void *cookie, const json_t *plan, struct qs_error *err);
	void *confirm_cookie;
};

/*
 * Bring back what a bundle holds. *ret: "file", "host", "created", "dry_run",
 * "items": {"path", "kind" ("key", "header", "configuration", "keystore",
 * "crypttab"), "name" (of the device, for lines), "action"}, where action is
 *   create    it is not there
 *   same      it is there as it is in the bundle
 *   replace   it differs, and --force was given; the old key is kept beside it
 *   keep      it differs and stays as it is
 *   conflict  a key that differs: nothing is restored at all (QS_E_REFUSED)
 * *ret is also set when it fails after the plan was made.
 */
int qs_keyrestore(const struct qs_env *env, const struct qs_keyrestore_options *options,
		  json_t **ret, struct qs_error *err);

/*
 * Keys in locked memory and the devices that they open; and the keystore, which has the keys of the
 * others.
 */
struct qs_bundle_keys {
	struct qs_manifest_device *devices;
	struct qs_secret *keys; /* one for each device; empty: the bundle has none for it */
	size_t count;
	struct qs_held_files keystore; /* its files */
};

/* Read them from FILE; the bundle is released again. */
int qs_bundle_keys_load(const struct qs_env *env, const char *file,
			const struct qs_bundle_unlock *unlock, struct qs_bundle_keys *ret,
			struct qs_error *err);

/* The keystore for struct qs_env, or NULL: there is none in the bundle. */
const struct qs_held_files *qs_bundle_keystore(const struct qs_bundle_keys *keys);

void qs_bundle_keys_done(struct qs_bundle_keys *keys); /* also a QS_AUTO releaser */

#endif
