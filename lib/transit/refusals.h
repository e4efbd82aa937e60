/*
 * The refusals of Vault's that have a meaning of their own.
 */
#ifndef QS_TRANSIT_REFUSALS_H
#define QS_TRANSIT_REFUSALS_H

#include "base/error.h"

/* In the server's words for what its key does not authenticate, of every age. */
#define QS_TRANSIT_FORGED "message authentication failed"

struct qs_transit_refusal {
	const char *words; /* that occur in the server's text */
	enum qs_kind kind;
	const char *sentence;
};

/* The one that WORDS mean, static; NULL: none of these. */
const struct qs_transit_refusal *qs_transit_refusal(const char *words);

#endif
