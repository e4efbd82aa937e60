/*
 * Leases: a KEK of a key server, kept for when no server answers (kms_lease in qs-util.conf).
 * It is wrapped by a key that this machine's TPM gives out while its PCRs are as they were:
 *
 *   N.sealed   that key, as the provider tpm2 seals its KEKs, of a store of its own
 *   N.lease    the KEK, wrapped by it, with the limits (keystore/lease-record.h)
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

/* Does the configuration want any? */
bool qs_lease_is_wanted(const struct qs_env *env);

/* Of generation NUMBER: it is at a key server that gives keys away, and KS wraps there now. */
bool qs_lease_may_be(const struct qs_keystore *ks, uint32_t number);

/* Make or renew that of generation NUMBER, whose KEK must be at hand. */
int qs_lease_renew(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		   struct qs_error *err);

/* Returns 1 erased, 0 there was none. */
int qs_lease_drop(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		  struct qs_error *err);

/* Drop all that KS, which went to another provider, may have no more. What fails is a warning. */
void qs_lease_drop_left(const struct qs_env *env, const struct qs_keystore *ks);

/*
 * Fill those of S that failed since no server answered (one that refuses, or has an error of
 * its own, is believed), where there is a lease that has not ended; the others say why not. With a
 * warning that tells until when.
 */
void qs_lease_use(const struct qs_env *env, struct qs_keystore_session *s,
		  const struct qs_keystore *ks, const uint32_t *numbers, size_t count);

/*
 * That of NUMBER; NULL: there is none. "generation", its limits "until" and "boots", what is left
 * of each "seconds_left" and "boots_left", or why it opens nothing "problem".
 */
json_t *qs_lease_describe(const struct qs_env *env, uint32_t number);

#endif
