/*
 * keystore check: can the keys be had, with the credentials that booting uses, and until when?
 */
#ifndef QS_OPS_KEYSTORE_CHECK_H
#define QS_OPS_KEYSTORE_CHECK_H

#include <jansson.h>

#include "base/env.h"
#include "base/error.h"
#include "keystore/keystore.h"

/*
 * Put into RESULT: "server" (what the provider says of it, absent without one), "key_servers"
 * (likewise, of keys for some devices only that have credentials of their own; with "generation"),
 * "warnings" (array of sentences: what ends within 30 days, or has ended), "leases" (array of what
 * qs_lease_describe() says), both absent when empty, "lease_state" ("off", "missing", "made";
 * absent where there can be none), and "last_check" (time, "succeeded": of the last one that had
 * the keys; absent where none was). Fails only with QS_E_INTERRUPTED.
 */
int qs_keystore_add_server(const struct qs_env *env, const struct qs_keystore *ks, json_t *result,
			   struct qs_error *err);

/*
 * Wrap and unwrap with every generation; one that needs a PIN which nobody can type is passed
 * over. *ret: "state", "provider", "generation", "tried" (array of numbers), and the fields
 * above. When it was tried and had is kept for status. What fails is an event in the journal
 * and an error; so is what ends soon (QS_E_FAILED). QS_E_CONFIG: there is no keystore.
 */
int qs_keystore_check(const struct qs_env *env, json_t **ret, struct qs_error *err);

#endif
