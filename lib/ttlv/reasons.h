/*
 * What the result reasons of KMIP mean (1.4, 9.1.3.2.29; 2.1, 11.46), for
 * ttlv/response.c. Private to lib/ttlv.
 */
#ifndef QS_TTLV_REASONS_H
#define QS_TTLV_REASONS_H

#include "ttlv/message.h"

struct qs_kmip_reason {
	uint32_t code;
	enum qs_kmip_verdict verdict;
	const char *text; /* a piece of a sentence */
};

/* Why OPERATION failed. Never NULL: unknown ones have a text that says so. */
const struct qs_kmip_reason *qs_kmip_reason_find(uint32_t code, enum qs_kmip_operation operation);

#endif
