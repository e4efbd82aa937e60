#include "keystore/schedule.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "keystore/keystore.h"

#define NEVER "Never"
#define YEARS_MAX UINT64_C(10)
#define SPAN_MAX (YEARS_MAX * 365 * QS_KEYSTORE_DAY)

int qs_schedule_parse(const char *text, struct qs_schedule *ret)
{
	uint64_t seconds, one;
	char unit[3] = "1";
	int r;

	if (strcasecmp(text, NEVER) == 0) {
		ret->count = 0;
		ret->unit = 0;
		return 0;
	}
	r = qs_text_parse_span(text, &seconds);
	if (r < 0)
		return r;
	unit[1] = text[strlen(text) - 1];
	if (qs_text_parse_span(unit, &one) < 0 || (unit[1] >= '0' && unit[1] <= '9'))
		return -EINVAL;
	if (seconds < QS_KEYSTORE_DAY || seconds > SPAN_MAX)
		return -ERANGE;
	/* Spans take a month for 30 days: 121 of them are not more than 3650 days. */
	if (unit[1] == 'M' && seconds / one > YEARS_MAX * 12)
		return -ERANGE;
	ret->count = (uint32_t)(seconds / one);
	ret->unit = unit[1];
	if (ret->unit == 'd')
		ret->unit = 'D';
	return 0;
}

const char *qs_schedule_print(const struct qs_schedule *s, char ret[QS_SCHEDULE_L])
{
	if (s->unit)
		(void)snprintf(ret, QS_SCHEDULE_L, "%u%c", (unsigned)s->count, s->unit);
	else
		(void)snprintf(ret, QS_SCHEDULE_L, NEVER);
	return ret;
}

static time_t add_months(time_t from, unsigned months)
{
	struct tm utc;
	int day;

	if (!gmtime_r(&from, &utc))
		return from;
	day = utc.tm_mday;
	utc.tm_mon += (int)months;
	from = timegm(&utc);
	/* A day that the month does not have became one of the next: back to the last one. */
	if (utc.tm_mday == day)
		return from;
	utc.tm_mday = 0;
	return timegm(&utc);
}

static time_t add(time_t from, const struct qs_schedule *s)
{
	char text[QS_SCHEDULE_L];
	uint64_t seconds = 0;

	if (s->unit == 'Y' || s->unit == 'M')
		return add_months(from, s->count * (s->unit == 'Y' ? 12 : 1));
	(void)qs_text_parse_span(qs_schedule_print(s, text), &seconds);
	return from + (time_t)seconds;
}

time_t qs_schedule_next(const struct qs_keystore *ks, time_t now)
{
	const struct qs_keystore_generation *g = qs_keystore_generation(ks, ks->current);
	time_t due;

	if (!ks->schedule.unit || !g)
		return 0;
	due = g->created > now + (time_t)QS_KEYSTORE_DAY ? 0 : add(g->created, &ks->schedule);
	return due > ks->schedule.since ? due : ks->schedule.since;
}

bool qs_schedule_overdue(const struct qs_keystore *ks, time_t now)
{
	time_t due = qs_schedule_next(ks, now);

	return due && now - due > (time_t)QS_KEYSTORE_DAY;
}
