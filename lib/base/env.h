/*
 * What every operation needs to know about the system it works on: the root
 * prefix, the configuration, and the callbacks for progress.
 *
 * Paths are "logical" everywhere (what stands in crypttab); qs_env_path() puts
 * the prefix of --root in front when a file is really opened. Below the prefix
 * lie /etc, /run, /var and /dev/disk; other paths are taken as they are.
 */
#ifndef QS_BASE_ENV_H
#define QS_BASE_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "base/error.h"
#include "base/secret.h"

#define QS_CRYPTTAB "/etc/crypttab"
#define QS_FSTAB "/etc/fstab"
#define QS_CONF_DIR "/etc/cryptconf"
#define QS_RUN_DIR "/run/qs-util"

/* One step forward on one device, for a bar or for JSON lines. */
struct qs_progress {
	const char *device; /* what the user typed */
	const char *step;   /* "key", "format", "prove", "backup", "crypttab", "open", ... */
	uint64_t done;      /* devices finished so far */
	uint64_t total;
};

struct qs_keystore_session;
struct qs_links;

/* Files in memory that stand for a directory: what is not among them does not exist. */
struct qs_held_files {
	const char *dir; /* logical */
	char **paths;    /* logical, each in DIR */
	struct qs_secret *contents;
	size_t count;
};

struct qs_env {
	const char *root; /* "" or an absolute directory without a slash at its end */
	struct qs_config config;
	void (*progress)(const struct qs_progress *p, void *cookie); /* may be NULL */
	void *progress_cookie;
	/* keystore/session.h: filled as it is used. NULL: the TPM is asked for each key anew. */
	struct qs_keystore_session *keystore;
	/* device/links.h, for a walk over many devices. NULL: for each, all links are looked at. */
	struct qs_links *links;
	/* The keystore of a key bundle, which is read instead of this machine's. NULL: none. */
	const struct qs_held_files *held;
};

/* The real path of a logical one; malloc'ed, never NULL (aborts when memory is out). */
char *qs_env_path(const struct qs_env *env, const char *logical);

/* The reverse: the part of REAL behind the root prefix (a pointer into REAL). */
const char *qs_env_logical(const struct qs_env *env, const char *real);

/* PATH made absolute by the current directory, as tables need it; links are not followed. */
char *qs_env_absolute(const char *path);

/* printf into a malloc'ed string, never NULL (aborts when memory is out). */
char *qs_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* strdup() that never returns NULL for a string and passes NULL on. */
char *qs_strdup(const char *s);

/* Tell the progress callback, if there is one. */
void qs_env_progress(const struct qs_env *env, const char *device, const char *step, uint64_t done,
		     uint64_t total);

#endif
