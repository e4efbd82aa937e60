/*
 * What goes into a key bundle: files with the names that they get in it, and the
 * devices of the manifest.
 */
#ifndef QS_OPS_BUNDLE_COLLECT_H
#define QS_OPS_BUNDLE_COLLECT_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "base/env.h"
#include "base/error.h"
#include "base/sum.h"
#include "bundle/manifest.h"
#include "bundle/member.h"

struct qs_collected_file {
	char *member; /* "cryptconf/keys/enc-1.key" */
	char *real;   /* where it is read */
	enum qs_member_kind kind;
	size_t size; /* bytes */
	time_t mtime;
	char sum[QS_SUM_L]; /* "" for now, and always for keys */
};

struct qs_collected {
	struct qs_collected_file *files;
	size_t count;
	struct qs_manifest_device *devices;
	size_t device_count;
	char **missing; /* names whose key file is not there */
	size_t missing_count;
	char **by_keystore; /* names of devices whose key only the keystore has */
	size_t by_keystore_count;
};

/* Look at everything, read no key. Release *ret also after a failure. */
int qs_collect(const struct qs_env *env, bool headers, struct qs_collected *ret,
	       struct qs_error *err);

/* Read one file; a key must be as qs_key_load() demands. */
int qs_collected_read(const struct qs_collected_file *f, struct qs_secret *ret,
		      struct qs_error *err);

void qs_collected_done(struct qs_collected *c); /* also a QS_AUTO releaser */

#endif
