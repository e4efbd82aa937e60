/*
 * N.sealed: the KEK of generation N as this machine's TPM gives it out.
 *
 *   {"version":1,"store":UUID,"generation":N,"sealed":{...}}
 *
 * with "sealed" in the form of the token systemd-tpm2 (luks/tpm2-token.h; its keyslot is
 * always 0 and means nothing): the sealed object, its PCRs and their bank, the digest of its
 * policy, whether it wants a PIN, and the name of the storage root key. No secret, but private
 * all the same: whoever writes it decides what the TPM is asked. It may come out of a bundle
 * or from another hand: anything that we would not have written is refused.
 */
#ifndef QS_KEYSTORE_SEALED_H
#define QS_KEYSTORE_SEALED_H

#include "base/env.h"
#include "keystore/keystore.h"
#include "luks/tpm2-token.h"

/* QS_KEYSTORE_DIR/N.sealed; malloc'ed. */
char *qs_sealed_kek_path(uint32_t number);

/* QS_E_CONFIG: not of the form above, another store's or another generation's. */
int qs_sealed_kek_parse(const char *text, size_t size, const char *store, uint32_t number,
			struct qs_tpm2_token *ret, struct qs_error *err);

/* What qs_sealed_kek_parse() reads; malloc'ed. */
char *qs_sealed_kek_print(const char *store, uint32_t number, const struct qs_tpm2_token *token);

/* QS_E_KEY_FILE: missing or not private to root; QS_E_CONFIG as qs_sealed_kek_parse(). */
int qs_sealed_kek_load(const struct qs_env *env, const char *store, uint32_t number,
		       struct qs_tpm2_token *ret, struct qs_error *err);

/* Write it durably, 0600, replacing nothing, and read it back. QS_E_EXISTS: it is there. */
int qs_sealed_kek_store(const struct qs_env *env, const char *store, uint32_t number,
			const struct qs_tpm2_token *token, struct qs_error *err);

#endif
