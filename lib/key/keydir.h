/*
 * The directory of the key files (keys_dir), which may be another file system:
 * a USB stick, NFS, CIFS. One that is not mounted must not look like an empty
 * directory that gets new keys, and one that hangs must not hang us.
 */
#ifndef QS_KEY_KEYDIR_H
#define QS_KEY_KEYDIR_H

#include <stdbool.h>

#include "base/env.h"
#include "base/error.h"

/*
 * Run LOOK in a process of its own, which is killed after key_deadline: for
 * whatever touches a directory that may hang. WHAT is the subject of the
 * sentence: "WHAT has not answered for 30 seconds".
 * Returns what LOOK returned, with its error; QS_E_DEADLINE.
 */
typedef int qs_key_look(const struct qs_env *env, const void *cookie, struct qs_error *err);
int qs_key_in_time(const struct qs_env *env, const char *what, qs_key_look *look,
		   const void *cookie, struct qs_error *err);

/*
 * May keys be looked for in keys_dir, or would that hang? To be asked before the
 * directory is touched outside of a worker. The default directory, which is on
 * the system's own disk, is not asked.
 * Returns 0, also when the directory is not there; QS_E_DEADLINE.
 */
int qs_key_dir_answers(const struct qs_env *env, struct qs_error *err);

/*
 * Check that keys_dir can take new keys (QS_E_KEY_FILE): it exists (the default
 * one is made, 0700), it belongs to root or to us, nobody else may write to it,
 * and on a file system that keeps no modes nobody else may read what is in it. A
 * mount point on its path has to be mounted. What may hang is done by
 * qs_key_in_time().
 */
int qs_key_check_dir(const struct qs_env *env, struct qs_error *err);

/*
 * The same for keys that did not exist before. Another directory than the default
 * one must not be empty while crypttab names keys in it: so looks a mount that is
 * away and that nobody has written down.
 */
int qs_key_check_new(const struct qs_env *env, struct qs_error *err);

/* The same for any directory DIR (logical) that keys are read from: it may be empty, and not be
 * writable; nothing is made. */
int qs_key_look_dir(const struct qs_env *env, const char *dir, struct qs_error *err);

#endif
