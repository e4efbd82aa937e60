#include "luks/header.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "luks/fields.h"

#define TEXT_L 64 /* of a foreign text in a sentence */

struct field {
	const char *name;
	const char *words;
};

static const char *show(char ret[TEXT_L], const json_t *value)
{
	const char *text = json_string_value(value);

	if (text)
		return qs_fields_printable(ret, TEXT_L, text, strlen(text));
	if (json_is_integer(value))
		(void)snprintf(ret, TEXT_L, "%lld", (long long)json_integer_value(value));
	else
		(void)snprintf(ret, TEXT_L, "%s", value ? "malformed" : "missing");
	return ret;
}

static int compare_fields(const json_t *now, const json_t *recorded, const struct field *fields,
			  size_t count, struct qs_error *err)
{
	char is[TEXT_L], was[TEXT_L];

	for (size_t i = 0; i < count; i++) {
		const json_t *a = json_object_get(now, fields[i].name);
		const json_t *b = json_object_get(recorded, fields[i].name);

		if ((a || b) && !json_equal(a, b))
			return qs_fail(err, QS_E_HOSTILE,
				       "the %s is %s, recorded is %s: the header was changed or "
				       "belongs to another volume; restore it from its backup",
				       fields[i].words, show(is, a), show(was, b));
	}
	return 0;
}

int qs_luks_json_compare(const json_t *now, const char *uuid_now, const json_t *recorded,
			 const char *uuid_recorded, struct qs_error *err)
{
	static const struct field in_segment[] = {
		{ "type", "data segment's type" },
		{ "encryption", "data segment's cipher" },
		{ "sector_size", "data segment's sector size" },
		{ "offset", "data segment's offset" },
		{ "size", "data segment's size" },
		{ "iv_tweak", "data segment's first IV" },
	};
	static const struct field in_digest[] = {
		{ "type", "type of the volume key's digest" },
		{ "hash", "hash of the volume key's digest" },
		{ "iterations", "iteration count of the volume key's digest" },
		{ "salt", "salt of the volume key's digest" },
		{ "digest", "volume key's digest" },
	};
	const json_t *segment = qs_fields_segment(now), *was_segment = qs_fields_segment(recorded);
	const json_t *digest = qs_fields_digest(now), *was_digest = qs_fields_digest(recorded);
	int r;

	if (strcasecmp(uuid_now, uuid_recorded) != 0)
		return qs_fail(err, QS_E_HOSTILE, "the header's UUID is %s, the recorded one is %s",
			       uuid_now, uuid_recorded);
	if (!now && !recorded)
		return 0;
	if (!segment || !was_segment || !digest || !was_digest)
		return qs_fail(err, QS_E_HOSTILE, "the %s header has no data segment with a digest",
			       segment && digest ? "recorded" : "present");
	r = compare_fields(segment, was_segment, in_segment, QS_ARRAY_SIZE(in_segment), err);
	if (r < 0)
		return r;
	return compare_fields(digest, was_digest, in_digest, QS_ARRAY_SIZE(in_digest), err);
}
