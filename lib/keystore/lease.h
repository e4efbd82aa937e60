/*
 * Leases: a KEK of a key server, kept for when no server answers (kms_lease in qs-util.conf).
 * It is wrapped by a key that this machine's TPM gives out while its PCRs are as they were:
 *
 *   N.sealed   that key, as the provider tpm2 seals its KEKs, of a store of its own
 *   N.lease    {"version":1,"made":SECONDS,"until":SECONDS,"token":{...}}
 *
 * with the token in the form of keystore/token.h (volume: the real store, keyslot 0). Its
 * plaintext is the KEK, and behind it what it is and when it ends, so that nobody without the TPM
 * makes it last longer. That it has ended is told by this machine's clock.
 *
 *   renewing                    left behind               second run
 *   N.lease with that key       the old or the new one    renews it
 *   or, where it cannot be had, both anew:
 *   N.sealed                    a key that wraps nothing  makes another
 *   N.lease, durable            finished                  -
 *   dropping: N.lease, then N.sealed; a second run erases the rest
 */
#ifndef QS_KEYSTORE_LEASE_H
#define QS_KEYSTORE_LEASE_H

#include <jansson.h>

#include "base/env.h"
#include "keystore/keystore.h"
#include "keystore/session.h"

/* Make or renew that of generation NUMBER, whose KEK must be at hand. */
int qs_lease_renew(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		   struct qs_error *err);

/* Returns 1 erased, 0 there was none. */
int qs_lease_drop(const struct qs_env *env, uint32_t number, struct qs_error *err);

/*
 * Fill those of S that failed since no server answered (one that refuses, or has an error of its
 * own, is believed), where there is a lease that has not ended;
 * the others say why not. With a warning that tells until when.
 */
void qs_lease_use(const struct qs_env *env, struct qs_keystore_session *s,
		  const struct qs_keystore *ks, const uint32_t *numbers, size_t count);

/* "generation" and "until" of that of NUMBER, as its file says; NULL: there is none. */
json_t *qs_lease_describe(const struct qs_env *env, uint32_t number);

#endif
