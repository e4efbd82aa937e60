/*
 * The manifest of a key bundle, its first member: which devices the keys are for.
 * JSON, for people and for cryptopenall --bundle:
 *
 *   {"format": "qs-util key bundle", "version": 1,
 *    "host": "nas1", "created": "2026-11-22T02:10:00Z",
 *    "devices": [{"name": "enc-scsi-35001517bb282023a", "uuid": "...",
 *                 "device": "/dev/disk/by-id/scsi-35001517bb282023a",
 *                 "key": "cryptconf/keys/enc-scsi-35001517bb282023a.key",
 *                 "in_crypttab": true, "options": "luks"}],
 *    "files": [{"name": "crypttab", "size": 312, "sha256": "..."}]}
 *
 * Key files are listed without a hash: it would tell whoever sees the manifest
 * whether he guessed a weak key of a person.
 */
#ifndef QS_BUNDLE_MANIFEST_H
#define QS_BUNDLE_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "base/error.h"

/* Bytes; a thousand devices have a quarter of a megabyte. */
#define QS_MANIFEST_MAX (8U << 20)

struct qs_manifest_device {
	char *name;       /* of the mapping; good in a table */
	char *device;     /* logical link, UUID=... or path, as a line of crypttab names it */
	char *key;        /* the member that holds its key; "" none: a key command gives it */
	char *uuid;       /* of the LUKS header when the bundle was made; "" not known */
	char *options;    /* of its line; "" none */
	bool in_crypttab; /* it had a line */
};

struct qs_manifest {
	char *host;    /* who made it; for people */
	char *created; /* RFC 3339 */
	struct qs_manifest_device *devices;
	size_t count;
};

/* For the writer: a manifest with empty lists of devices and files. */
json_t *qs_manifest_new(const char *host, const char *created);
void qs_manifest_add_device(json_t *manifest, const struct qs_manifest_device *d);
/* SUM "": none. */
void qs_manifest_add_file(json_t *manifest, const char *name, size_t size, const char *sum);

/*
 * Parse SIZE bytes. Refused (QS_E_FAILED): no JSON, another format, a newer
 * version, a device whose name, path or options cannot stand in a crypttab line
 * (qs_crypttab_check) or whose key is not in cryptconf/keys.
 */
int qs_manifest_parse(const char *text, size_t size, struct qs_manifest *ret, struct qs_error *err);

/* A copy that is the caller's. */
void qs_manifest_device_copy(const struct qs_manifest_device *d, struct qs_manifest_device *ret);

void qs_manifest_device_done(struct qs_manifest_device *d);
void qs_manifest_done(struct qs_manifest *m); /* also a QS_AUTO releaser */

#endif
