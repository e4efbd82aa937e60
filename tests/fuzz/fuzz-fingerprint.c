/*
 * Fingerprint tokens: LUKS2 metadata as JSON. What is taken is exactly what we
 * would have written, for a keyslot that is there, and never more than asked for.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "luks/fingerprint.h"
#include "luks/header.h"

#define ROOM 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
	if (!holds)
		abort();
}

static bool is_in(const json_t *json, const json_t *wanted)
{
	json_t *tokens = json_object_get(json, "tokens");
	const char *number, *key;
	json_t *token, *value;

	json_object_foreach(tokens, number, token)
	{
		bool same = true;

		json_object_foreach((json_t *)wanted, key, value) same =
			same && json_equal(value, json_object_get(token, key));
		if (same)
			return true;
	}
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	QS_AUTO(qs_auto_json)
	json_t *json = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
	struct qs_fingerprint found[ROOM];
	struct qs_luks_header header = { .version = 2, .json = json };
	struct qs_keyslot slots[32];
	size_t n = qs_fingerprint_read(json, found, ROOM);

	demand(n <= ROOM);
	for (size_t i = 0; i < n; i++) {
		QS_AUTO(qs_auto_json) json_t *token = qs_fingerprint_token(&found[i]);

		demand(found[i].slot >= 0 && found[i].slot < 32);
		demand(is_in(json, token));
	}
	if (json_is_object(json))
		(void)qs_luks_keyslots(&header, slots, QS_ARRAY_SIZE(slots));
	return 0;
}
