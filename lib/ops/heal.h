/*
 * tpm2_self_heal: TPM2 keyslots that no longer fit this machine's state are sealed
 * anew after the device was opened by something else.
 */
#ifndef QS_OPS_HEAL_H
#define QS_OPS_HEAL_H

#include "ops/open.h"

/*
 * For those of LIST that were opened just now without their TPM; REQUESTS as they were opened,
 * OPTIONS as well. What was done stands in the details: "tpm2_healed" (the new keyslot). That it
 * fails is a warning: the device is open. Does nothing where the configuration does not want it.
 */
void qs_heal(const struct qs_env *env, const struct qs_open_options *options,
	     const struct qs_open_request *requests, struct qs_outcomes *list);

#endif
