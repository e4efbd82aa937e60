#define _GNU_SOURCE
#include "base/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{ "TiB", 1ULL << 40 },
	{ "GiB", 1ULL << 30 },
	{ "MiB", 1ULL << 20 },
	{ "KiB", 1ULL << 10 },
	{ "B", 1 },
};

static const struct unit time_units[] = { { "h", 3600 }, { "m", 60 }, { "s", 1 } };

static const struct unit span_units[] = {
	{ "Y", 365ULL * 86400 }, { "M", 30ULL * 86400 }, { "W", 7ULL * 86400 }, { "D", 86400 },
	{ "d", 86400 },          { "h", 3600 },          { "m", 60 },           { "s", 1 },
};

static int parse(const char *text, const struct unit *units, size_t count, uint64_t *ret)
{
	uint64_t factor = 0;
	uint64_t number;
	char *end;

	/* strtoull() would take a sign and leading blanks. */
	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	end += strspn(end, " ");
	if (!*end)
		factor = 1;
	for (size_t i = 0; i < count; i++)
		if (strcmp(end, units[i].name) == 0)
			factor = units[i].factor;
	if (factor == 0)
		return -EINVAL;
	return __builtin_mul_overflow(number, factor, ret) ? -ERANGE : 0;
}

int qs_text_parse_size(const char *text, uint64_t *ret)
{
	return parse(text, size_units, QS_ARRAY_SIZE(size_units), ret);
}

int qs_text_parse_seconds(const char *text, uint64_t *ret)
{
	return parse(text, time_units, QS_ARRAY_SIZE(time_units), ret);
}

int qs_text_parse_span(const char *text, uint64_t *ret)
{
	return parse(text, span_units, QS_ARRAY_SIZE(span_units), ret);
}

void qs_text_print_size(uint64_t bytes, char ret[QS_TEXT_SIZE_L])
{
	const struct unit *unit = size_units;

	while (unit->factor > 1 && (bytes == 0 || bytes % unit->factor))
		unit++;
	(void)snprintf(ret, QS_TEXT_SIZE_L, "%llu %s", (unsigned long long)(bytes / unit->factor),
		       unit->name);
}

const char *qs_text_seconds(uint64_t seconds, char ret[QS_TEXT_SIZE_L])
{
	(void)snprintf(ret, QS_TEXT_SIZE_L, "%llu second%s", (unsigned long long)seconds,
		       seconds == 1 ? "" : "s");
	return ret;
}

#define RFC3339 "%Y-%m-%dT%H:%M:%SZ"
#define COMPACT "%Y%m%dT%H%M%SZ"

const char *qs_text_print_time(time_t when, enum qs_text_form form, char ret[QS_TEXT_TIME_L])
{
	struct tm utc;

	if (!gmtime_r(&when, &utc) ||
	    strftime(ret, QS_TEXT_TIME_L, form == QS_TEXT_COMPACT ? COMPACT : RFC3339, &utc) == 0)
		*ret = '\0';
	return ret;
}

int qs_text_parse_time(const char *text, enum qs_text_form form, time_t *ret)
{
	char again[QS_TEXT_TIME_L];
	struct tm utc = {};
	const char *end = strptime(text, form == QS_TEXT_COMPACT ? COMPACT : RFC3339, &utc);

	if (!end || *end)
		return -EINVAL;
	*ret = timegm(&utc);
	/* strptime() also takes other spellings, and days that there are not. */
	return strcmp(qs_text_print_time(*ret, form, again), text) == 0 ? 0 : -EINVAL;
}

bool qs_text_is_plain(char c)
{
	return c > ' ' && c < 0x7f && !strchr("\\\"'`$", c);
}

bool qs_text_is_name(char c)
{
	bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

	return letter || (c >= '0' && c <= '9') || (c && strchr("#+-.:=@_", c));
}

bool qs_text_is_normal_path(const char *text)
{
	if (*text != '/')
		return false;
	while (*text == '/') {
		size_t length = strcspn(++text, "/");

		if (length == 0 || (length <= 2 && strncmp(text, "..", length) == 0))
			return false;
		text += length;
	}
	return true;
}
