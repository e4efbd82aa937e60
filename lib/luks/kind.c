#include "luks/kind.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "luks/fields.h"
#include "luks/fingerprint.h"

#define VERSION 1
#define TIME_FIELD "qs-time"

/* The types that we know; of several that name a slot the first in this list counts. */
static const struct {
	const char *type, *kind;
} types[] = {
	{ "systemd-tpm2", QS_KIND_TPM2 },
	{ "systemd-fido2", "fido2" },
	{ "systemd-pkcs11", "pkcs11" },
	{ QS_RECOVERY_TYPE, QS_KIND_RECOVERY },
	{ "qs-keystore", QS_KIND_KEYSTORE },
	{ "clevis", "clevis" },
	{ QS_FINGERPRINT_TYPE, QS_KIND_KEY_FILE },
};

/* Kinds that stand in a token of QS_SLOT_TYPE. */
static const char *const marked[] = { QS_KIND_PASSPHRASE, QS_KIND_KEY_FILE };

static const char *const others[] = { "other", QS_KIND_UNKNOWN };

static const char *marked_kind(const json_t *token)
{
	const char *kind = qs_fields_text(token, "kind");

	for (size_t i = 0; kind && i < QS_ARRAY_SIZE(marked); i++)
		if (strcmp(kind, marked[i]) == 0)
			return marked[i];
	return "other";
}

/* Exactly the form that we write; the text goes to people and programs. */
static bool is_time(const char *text)
{
	static const char form[] = "dddd-dd-ddTdd:dd:ddZ";
	size_t i;

	for (i = 0; form[i] && text[i]; i++)
		if (form[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != form[i])
			return false;
	return form[i] == text[i];
}

static void take_time(const json_t *token, char *ret_since)
{
	const char *text = qs_fields_text(token, TIME_FIELD);

	if (ret_since && text && is_time(text))
		(void)snprintf(ret_since, QS_SLOT_TIME_L, "%s", text);
}

/* The place of a token's type in the list above; behind it for our mark, then for all others. */
static size_t rank(const char *type)
{
	for (size_t i = 0; i < QS_ARRAY_SIZE(types); i++)
		if (strcmp(types[i].type, type) == 0)
			return i;
	return QS_ARRAY_SIZE(types) + (strcmp(type, QS_SLOT_TYPE) != 0);
}

const char *qs_slot_kind(const json_t *json, int slot, char ret_since[QS_SLOT_TIME_L])
{
	json_t *tokens = json_object_get(json, "tokens");
	const char *number, *kind = QS_KIND_UNKNOWN;
	size_t best = SIZE_MAX;
	json_t *token;
	char name[16];

	(void)snprintf(name, sizeof(name), "%d", slot);
	if (ret_since)
		ret_since[0] = '\0';
	json_object_foreach(tokens, number, token)
	{
		const char *type = qs_fields_text(token, "type");

		if (!type || !qs_fields_lists(json_object_get(token, "keyslots"), name))
			continue;
		take_time(token, ret_since);
		if (rank(type) >= best)
			continue;
		best = rank(type);
		kind = best < QS_ARRAY_SIZE(types) ? types[best].kind : marked_kind(token);
	}
	return kind;
}

int qs_slot_kind_is_known(const char *kind)
{
	for (size_t i = 0; i < QS_ARRAY_SIZE(types); i++)
		if (strcmp(types[i].kind, kind) == 0)
			return 1;
	for (size_t i = 0; i < QS_ARRAY_SIZE(marked); i++)
		if (strcmp(marked[i], kind) == 0 || strcmp(others[i], kind) == 0)
			return 1;
	return 0;
}

json_t *qs_slot_token(const char *type, const char *kind)
{
	char when[QS_SLOT_TIME_L] = "";
	time_t now = time(NULL);
	struct tm utc;

	if (gmtime_r(&now, &utc))
		(void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &utc);
	if (!kind)
		return json_pack("{s:s, s:s}", "type", type, TIME_FIELD, when);
	return json_pack("{s:s, s:i, s:s, s:s}", "type", type, "version", VERSION, "kind", kind,
			 TIME_FIELD, when);
}
