#include "keystore/lease-record.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/sum.h"
#include "keystore/token.h"
#include "luks/fields.h"

#define VERSION 2
#define MEMBERS 8
#define DAY 86400 /* seconds by which a clock may have been ahead when the lease was made */

void qs_lease_done(struct qs_lease *l)
{
	json_decref(l->json);
	*l = (struct qs_lease){};
}

static bool parse_limits(const json_t *json, struct qs_lease_limits *l)
{
	uint64_t resets, restarts;

	if (!qs_fields_number(json, "made", &l->made) ||
	    !qs_fields_number(json, "until", &l->until) ||
	    !qs_fields_number(json, "boots", &l->boots) ||
	    !qs_fields_number(json, "clock", &l->clock.ms) ||
	    !qs_fields_number(json, "resets", &resets) || resets > UINT32_MAX ||
	    !qs_fields_number(json, "restarts", &restarts) || restarts > UINT32_MAX)
		return false;
	l->clock.resets = (uint32_t)resets;
	l->clock.restarts = (uint32_t)restarts;
	return (l->until > 0 || l->boots > 0) && (l->until == 0 || l->until > l->made);
}

int qs_lease_parse(const char *text, size_t size, const char *path, struct qs_lease *ret,
		   struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
	const json_t *token = json_object_get(json, "token");
	const char *store = qs_fields_text(token, "store");
	struct qs_lease l = { .token = token };
	uint64_t version;

	if (qs_sum_check(json, path, NULL) < 0 || qs_sum_others(json) != MEMBERS ||
	    !qs_fields_number(json, "version", &version) || version != VERSION ||
	    !parse_limits(json, &l.limits) || !store || !qs_keystore_is_uuid(store))
		return qs_fail(err, QS_E_CONFIG, "%s is malformed: `keystore check` renews it",
			       path);
	memcpy(l.store, store, sizeof(l.store));
	l.json = QS_TAKE(json);
	*ret = l;
	return 0;
}

char *qs_lease_print(const struct qs_keystore *own, uint32_t number,
		     const struct qs_lease_limits *limits, json_t *jwe)
{
	json_t *token = qs_keystore_token_make(own, number, json_incref(jwe));
	QS_AUTO(qs_auto_json) json_t *json = NULL;

	(void)json_object_set_new(token, "keyslots", json_pack("[s]", "0"));
	json = json_pack("{s:i,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "version", VERSION, "made",
			 (json_int_t)limits->made, "until", (json_int_t)limits->until, "clock",
			 (json_int_t)limits->clock.ms, "resets", (json_int_t)limits->clock.resets,
			 "restarts", (json_int_t)limits->clock.restarts, "boots",
			 (json_int_t)limits->boots, "token", token);
	return qs_sum_print(json);
}

char *qs_lease_bound(const struct qs_keystore *ks, uint32_t number,
		     const struct qs_lease_limits *limits)
{
	return qs_printf("%s/%u %llu %llu %llu %u %u %llu", ks->store, (unsigned)number,
			 (unsigned long long)limits->made, (unsigned long long)limits->until,
			 (unsigned long long)limits->clock.ms, (unsigned)limits->clock.resets,
			 (unsigned)limits->clock.restarts, (unsigned long long)limits->boots);
}

/* ---- what is left ---- */

static bool is_earlier(const struct qs_tpm2_clock *now, const struct qs_tpm2_clock *then)
{
	if (now->resets != then->resets)
		return now->resets < then->resets;
	if (now->restarts != then->restarts)
		return now->restarts < then->restarts;
	return now->ms < then->ms;
}

/* A reset begins the count of restarts anew. */
static uint64_t starts(const struct qs_tpm2_clock *then, const struct qs_tpm2_clock *now)
{
	return now->resets == then->resets ? now->restarts - then->restarts
					   : (uint64_t)now->resets - then->resets + now->restarts;
}

/* By the clock that says more. After a power cut the TPM's may be up to 70 minutes behind. */
static uint64_t passed(const struct qs_lease_limits *l, uint64_t now,
		       const struct qs_tpm2_clock *clock)
{
	uint64_t ours = now > l->made ? now - l->made : 0;
	uint64_t its = clock->ms > l->clock.ms ? (clock->ms - l->clock.ms) / 1000 : 0;

	return ours > its ? ours : its;
}

const char *qs_lease_time(uint64_t seconds, char ret[QS_LEASE_TIME_L])
{
	time_t when = (time_t)seconds;
	struct tm utc;

	if (!gmtime_r(&when, &utc) ||
	    strftime(ret, QS_LEASE_TIME_L, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
		(void)snprintf(ret, QS_LEASE_TIME_L, "an unknown day");
	return ret;
}

static int fail_time(const struct qs_lease_limits *l, uint64_t now, struct qs_error *err)
{
	char end[QS_LEASE_TIME_L];

	if (now < l->until)
		return qs_fail(err, QS_E_TEMPORARY,
			       "the lease ended by the TPM's clock; this machine's was set back");
	return qs_fail(err, QS_E_TEMPORARY, "the lease ended on %s", qs_lease_time(l->until, end));
}

int qs_lease_look(const struct qs_lease_limits *l, uint64_t now, const struct qs_tpm2_clock *clock,
		  struct qs_lease_left *ret, struct qs_error *err)
{
	uint64_t time_passed = passed(l, now, clock), started = starts(&l->clock, clock);

	*ret = (struct qs_lease_left){};
	if (is_earlier(clock, &l->clock))
		return qs_fail(err, QS_E_TEMPORARY,
			       "the lease was made under another TPM, or it has been cleared");
	if (now + DAY < l->made)
		return qs_fail(err, QS_E_TEMPORARY,
			       "the lease was made in the future by this machine's clock");
	if (l->until && time_passed >= l->until - l->made)
		return fail_time(l, now, err);
	if (l->boots && started > l->boots)
		return qs_fail(err, QS_E_TEMPORARY,
			       "the lease ended: it was for %llu start%s of this machine",
			       (unsigned long long)l->boots, l->boots == 1 ? "" : "s");
	if (l->until)
		ret->seconds = l->until - l->made - time_passed;
	if (l->boots)
		ret->boots = l->boots - started;
	return 0;
}
