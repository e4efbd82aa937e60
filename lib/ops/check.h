/*
 * Does every way to open a device still open it? For cryptopenall --test --all-ways
 * and the weekly timer.
 */
#ifndef QS_OPS_CHECK_H
#define QS_OPS_CHECK_H

#include "ops/open.h"

/*
 * Check each of LIST with TODO[i], as REQUESTS say it is opened. Key files, the key command
 * and the TPM are proven, each for itself; of what needs a person it is looked whether
 * its keyslot is what the header backup has. Nothing is opened or written. The details get "ways":
 * array of way ("key-file", "key-command", "tpm2", or the kind of a keyslot), file, token,
 * keyslot, proven, problem. A way with a problem fails the device and is an event in the journal;
 * so is a TPM near its lockout.
 */
int qs_check_ways(const struct qs_env *env, const struct qs_open_request *requests,
		  struct qs_outcomes *list, const bool *todo, struct qs_error *err);

#endif
