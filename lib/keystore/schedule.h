/*
 * When the keystore is to be rotated by itself: "6W", "2M", "1Y", or never. Weeks, days and
 * less are spans of seconds; months and years go by the calendar in UTC, and where a month has
 * no such day by its last one: January 31 and a month is February 28 or 29.
 */
#ifndef QS_KEYSTORE_SCHEDULE_H
#define QS_KEYSTORE_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct qs_keystore;

#define QS_SCHEDULE_L sizeof("315360000s")

struct qs_schedule {
	uint32_t count;
	char unit;    /* one of "YMWDhms"; 0: never */
	time_t since; /* when it was set: what would have been due before is due then */
};

/*
 * "6W", "2M", "Never" (in any case), into count and unit; since is left alone. Returns: -EINVAL
 * not of this form; -ERANGE less than 24 hours or more than 10 years.
 */
int qs_schedule_parse(const char *text, struct qs_schedule *ret);

/* The form that is read back, "Never" for never. Returns RET. */
const char *qs_schedule_print(const struct qs_schedule *s, char ret[QS_SCHEDULE_L]);

/*
 * When the next rotation of KS is due: its current generation is then as old as the schedule says.
 * One that is dated more than a day ahead was made by a clock that was wrong: due as soon as the
 * schedule was set. 0: never.
 */
time_t qs_schedule_next(const struct qs_keystore *ks, time_t now);

/* Due, and not finished a day later. */
bool qs_schedule_overdue(const struct qs_keystore *ks, time_t now);

#endif
