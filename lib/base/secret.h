/*
 * Secrets: bytes in locked memory that are wiped when released. A secret is
 * moved and not copied, compared in constant time and never printed.
 */
#ifndef QS_BASE_SECRET_H
#define QS_BASE_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct qs_secret {
	void *data;  /* NULL when empty; locked as far as RLIMIT_MEMLOCK lets */
	size_t size; /* bytes */
};

/* SIZE zeroed bytes in *ret, which must be empty. */
int qs_secret_init(struct qs_secret *ret, size_t size, struct qs_error *err);

/* SIZE bytes from getrandom(2). */
int qs_secret_random(struct qs_secret *ret, size_t size, struct qs_error *err);

/* Wipe and release; an empty secret is fine. Also the QS_AUTO releaser. */
void qs_secret_done(struct qs_secret *s);

/*
 * Keep all memory of this process, present and future, out of the swap: for
 * commands in which libraries hold secrets in memory of their own. Does nothing
 * without CAP_IPC_LOCK, where a limit would make later allocations fail.
 */
void qs_secret_lock_all(void);

/*
 * Lock the pages of S in this process too: locks are not inherited over fork().
 * (Until then they are shared with the parent, which holds them locked.)
 */
void qs_secret_lock(const struct qs_secret *s);

/*
 * SIZE zeroed bytes that this process shares with those which it forks later: locked as far
 * as RLIMIT_MEMLOCK lets, not dumped. *ret ends with qs_secret_unshare(), which wipes them for all.
 */
int qs_secret_share(void **ret, size_t size, struct qs_error *err);
void qs_secret_unshare(void *shared, size_t size); /* NULL is fine */

/*
 * From now on every piece of JSON is wiped when it is released, in this process: for
 * libraries that keep keys in JSON. May be called at any time, and again.
 */
void qs_secret_wipe_json(void);

/* The bytes of FROM once more, in *ret, which must be empty. */
int qs_secret_copy(const struct qs_secret *from, struct qs_secret *ret, struct qs_error *err);

/* Hand over to the caller; *from becomes empty. */
struct qs_secret qs_secret_move(struct qs_secret *from);

/* Same size and same bytes; the time does not depend on where they differ. */
bool qs_secret_equal(const struct qs_secret *a, const struct qs_secret *b);

#endif
