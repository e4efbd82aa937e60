/*
 * N.lease, the file of a lease (keystore/lease.h), and how much of the lease is left.
 *
 *   {"version":2,"made":SECONDS,"until":SECONDS,"clock":MS,"resets":N,"restarts":N,"boots":N,
 *    "token":{...},"sum":...}
 *
 * (base/sum.h) with the token in the form of keystore/token.h (volume: the real store, keyslot 0).
 * Its plaintext is the KEK, and behind it what it is and all these numbers, so that nobody without
 * the TPM makes it last longer.
 *
 * Limits are a time ("until"; 0: none) and a number of starts ("boots"; 0: none). Of the time both
 * this machine's clock and the TPM's have a say: the TPM's cannot be set back, but stands still
 * without power. Starts are counted by the TPM; a suspend to memory counts as one, as it can
 * hide one (TPM 2.0 library, part 1, 36: TPM Restart).
 */
#ifndef QS_KEYSTORE_LEASE_RECORD_H
#define QS_KEYSTORE_LEASE_RECORD_H

#include <jansson.h>

#include "base/env.h"
#include "keystore/keystore.h"
#include "tpm2/tpm2.h"

struct qs_lease_limits {
	uint64_t made, until;       /* seconds since 1970; until 0: no limit */
	uint64_t boots;             /* starts after the one in which it was made; 0: no limit */
	struct qs_tpm2_clock clock; /* when it was made */
};

struct qs_lease {
	json_t *json; /* all of it */
	const json_t *token;
	struct qs_lease_limits limits;
	char store[QS_KEYSTORE_UUID_L]; /* of the key in the TPM */
};

/* What is left; of a limit that it has not: 0. */
struct qs_lease_left {
	uint64_t seconds, boots;
};

void qs_lease_done(struct qs_lease *l);

/* QS_E_CONFIG: not of the form above. PATH is for that sentence. */
int qs_lease_parse(const char *text, size_t size, const char *path, struct qs_lease *ret,
		   struct qs_error *err);

/* What qs_lease_parse() reads, with JWE wrapped by the key of the keystore OWN; malloc'ed. */
char *qs_lease_print(const struct qs_keystore *own, uint32_t number,
		     const struct qs_lease_limits *limits, json_t *jwe);

/* What stands behind the KEK; malloc'ed. */
char *qs_lease_bound(const struct qs_keystore *ks, uint32_t number,
		     const struct qs_lease_limits *limits);

/* A time as in JSON output. Returns RET. */
#define QS_LEASE_TIME_L 32
const char *qs_lease_time(uint64_t seconds, char ret[QS_LEASE_TIME_L]);

/* At the time NOW (seconds since 1970) and by the TPM's CLOCK. QS_E_TEMPORARY: it has ended. */
int qs_lease_look(const struct qs_lease_limits *l, uint64_t now, const struct qs_tpm2_clock *clock,
		  struct qs_lease_left *ret, struct qs_error *err);

#endif
