/*
 * The key command: a program of the administrator's that prints a device's key
 * (key_command in the configuration), for keys that are kept in another place.
 *
 * It is run as `PROGRAM NAME UUID DEVICE`, without a shell: NAME of the mapping,
 * UUID of the LUKS header, DEVICE node (/dev/sdj). What it prints on standard
 * output is the key, every byte of it, a newline at the end too. Standard input
 * is /dev/null, the environment holds PATH and LANG=C and nothing else, no
 * descriptor but 0 to 2 is open, the working directory is /. It has a process
 * group of its own, which is killed when the program ends or runs too long
 * (key_deadline).
 *
 * It runs as root with a key on its standard output, so whoever can change it
 * has every disk: PROGRAM and each directory above it must belong to root and
 * nobody else may write to them; symbolic links are refused.
 */
#ifndef QS_KEY_COMMAND_H
#define QS_KEY_COMMAND_H

#include <stdbool.h>

#include "base/env.h"
#include "base/error.h"
#include "base/secret.h"

/* Does the configuration name one? */
bool qs_key_command_is_set(const struct qs_env *env);

/* Check the program and the directories above it, without running it. QS_E_CONFIG names the part
 * that is wrong. */
int qs_key_command_check(const struct qs_env *env, struct qs_error *err);

/*
 * Check and run it, and take its output for the key: 1 to QS_KEY_MAX bytes. To
 * be called in a worker, as it takes as long as key_deadline allows. What it
 * says on standard error is logged, or stands in the error.
 * Returns: QS_E_CONFIG the program must not be run; QS_E_KEY_FILE it failed, or
 * printed nothing or too much; QS_E_TEMPORARY it ended with status 75; QS_E_DEADLINE.
 */
int qs_key_command_run(const struct qs_env *env, const char *name, const char *uuid,
		       const char *node, struct qs_secret *ret, struct qs_error *err);

#endif
