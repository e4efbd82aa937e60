/*
 * The error object: a kind, and one sentence written by whoever knows most.
 *
 * Fallible functions return 0 or a useful non-negative number, or -errno, and
 * take `struct qs_error *err` last (NULL: the caller does not want the text).
 * The sentence says what was being done to what, in lower case and without a
 * full stop: "cannot open /dev/sdb: Permission denied". Callers return the
 * number unchanged or put a prefix in front with qs_error_prefix().
 */
#ifndef QS_BASE_ERROR_H
#define QS_BASE_ERROR_H

#include <errno.h>
#include <stdbool.h>

/*
 * What went wrong, as scripts see it. Each kind has one name in JSON, one errno
 * and one exit status: the table in error.c is the only place that maps them.
 */
enum qs_kind {
	QS_E_NONE = 0,
	QS_E_FAILED, /* anything without a better name */
	QS_E_IO,     /* the disk or file system failed */
	QS_E_NO_SPACE,
	QS_E_READ_ONLY,   /* a file system that cannot be written */
	QS_E_INTERRUPTED, /* SIGINT or SIGTERM */
	QS_E_DEADLINE,    /* a worker did not end in time and was killed */
	QS_E_NO_DM,       /* the kernel has no device-mapper or no dm-crypt */
	QS_E_NO_KEY,      /* no key at hand opens the device */
	QS_E_KEY_FILE,    /* a key file is missing, empty, of a wrong kind, or not private */
	QS_E_TPM, /* the TPM cannot open this: other or cleared TPM, failing, managed by others */
	QS_E_TPM_ABSENT,    /* there is none, or its module is not installed */
	QS_E_TPM_LOCKOUT,   /* too many wrong PINs or power losses; never tried again by itself */
	QS_E_TPM_PCR,       /* the machine is not in the state in which it was enrolled */
	QS_E_PIN,           /* wrong, missing, or not usable */
	QS_E_NOT_PERMITTED, /* needs root or other rights */
	QS_E_MEMORY,
	QS_E_NO_DEVICE,    /* absent */
	QS_E_WRONG_DEVICE, /* not a disk, read-only, a member of something else */
	QS_E_NOT_LUKS,
	QS_E_DAMAGED, /* a LUKS header that cannot be used as it is */
	QS_E_TOO_SMALL,
	QS_E_IN_USE, /* mounted, swap, held by another device, in a table */
	QS_E_EXISTS,
	QS_E_LOCKED,      /* another qs-util works on the same thing */
	QS_E_REFUSED,     /* refused for safety; --force would do it */
	QS_E_FORBIDDEN,   /* refused for safety; nothing overrides it */
	QS_E_HOSTILE,     /* a header that no honest tool wrote, or not the one we recorded */
	QS_E_UNCONFIRMED, /* nobody said yes */
	QS_E_PARTIAL,     /* some devices done, some failed */
	QS_E_USAGE,
	QS_E_TEMPORARY, /* try again later */
	QS_E_CONFIG,
	QS_E_KINDS
};

struct qs_error {
	enum qs_kind kind;
	char text[1024];
};

/* Keeps the sign visible to the compiler and the analyser; 0 can never pass for success. */
static inline int qs_negative(int r)
{
	return r < 0 ? r : -EIO;
}

/*
 * Fail with a kind and a sentence. Returns the kind's -errno.
 */
#define qs_fail(err, kind, ...) qs_negative(qs_error_set((err), (kind), __VA_ARGS__))

/*
 * Fail because a call failed: CODE is an errno value (its sign does not
 * matter), the sentence gets ": " and strerror(CODE) behind it, and the kind
 * follows from CODE. Returns -CODE.
 */
#define qs_fail_errno(err, code, ...) qs_negative(qs_error_set_errno((err), (code), __VA_ARGS__))

int qs_error_set(struct qs_error *err, enum qs_kind kind, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
int qs_error_set_errno(struct qs_error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Put "PREFIX: " in front of the sentence. A full text is cut at its end. */
void qs_error_prefix(struct qs_error *err, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Put "SEPARATOR TEXT" behind the sentence, for a way out or a second finding. */
void qs_error_append(struct qs_error *err, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* The kind that an errno value stands for (its sign does not matter). */
enum qs_kind qs_kind_of_errno(int code);

/* The name in JSON ("in-use"); static. */
const char *qs_kind_name(enum qs_kind kind);

/* The kind with this name, or QS_E_FAILED. */
enum qs_kind qs_kind_of_name(const char *name);

/* The exit status (cryptsetup's 0 to 5, extended). */
int qs_kind_exit(enum qs_kind kind);

/* What an exit status means, for usage and manual; static. NULL for one that is never used. */
const char *qs_exit_meaning(int status);

/* The -errno that functions return for this kind. */
int qs_kind_errno(enum qs_kind kind);

/* True where the same command may succeed later without anybody's help. */
bool qs_kind_retryable(enum qs_kind kind);

#endif
