/*
 * N.lease: whoever writes it must not get more out of it than was put in. What passes has limits
 * that can be told, and is read again as the same.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "keystore/lease-record.h"

#define NOW UINT64_C(1800000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
	if (!holds)
		abort();
}

static void demand_limits(const struct qs_lease_limits *l)
{
	const struct qs_tpm2_clock clocks[] = { l->clock, { UINT64_MAX, UINT32_MAX, UINT32_MAX } };
	struct qs_error err = {};

	for (size_t i = 0; i < QS_ARRAY_SIZE(clocks); i++) {
		struct qs_lease_left left;
		int r = qs_lease_look(l, NOW, &clocks[i], &left, &err);

		demand(r == 0 || (err.kind == QS_E_TEMPORARY && err.text[0]));
		demand(left.boots <= l->boots && (!l->until || left.seconds <= l->until - l->made));
		demand(r < 0 || !l->until || left.seconds > 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	QS_AUTO(qs_lease_done) struct qs_lease lease = {};
	QS_AUTO(qs_lease_done) struct qs_lease again = {};
	QS_AUTO(qs_auto_free) char *text = NULL;
	QS_AUTO(qs_auto_free) char *bound = NULL;
	QS_AUTO(qs_auto_free) char *bound_again = NULL;
	struct qs_keystore own = { .state = QS_KEYSTORE_ENABLED };
	struct qs_error err = {};
	const char *path = "1.lease";
	int r = qs_lease_parse((const char *)data, size, path, &lease, &err);

	demand(r == 0 || (err.kind == QS_E_CONFIG && err.text[0]));
	if (r < 0)
		return 0;
	demand_limits(&lease.limits);
	memcpy(own.store, lease.store, sizeof(own.store));
	text = qs_lease_print(&own, 1, &lease.limits, json_object_get(lease.token, "jwe"));
	demand(text && qs_lease_parse(text, strlen(text), path, &again, NULL) == 0);
	bound = qs_lease_bound(&own, 1, &lease.limits);
	bound_again = qs_lease_bound(&own, 1, &again.limits);
	demand(strcmp(bound, bound_again) == 0 && strcmp(again.store, lease.store) == 0);
	return 0;
}
