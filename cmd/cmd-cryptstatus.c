#include <string.h>

#include "base/cleanup.h"
#include "command.h"

static int run(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	ctx->details = argc > 0;
	return qs_status(&ctx->env, (const char *const *)argv, (size_t)argc, &ctx->outcomes, err);
}

static const char *text_at(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static char *state(const json_t *device)
{
	const char *known = text_at(device, "state");

	return qs_strdup(known ? known : json_object_get(device, "error") ? "error" : "unknown");
}

/* "3 s", "5 min", "2 h", "14 days": each unit up to twice the next one. */
static char *age(json_int_t seconds)
{
	const json_int_t minute = 60, hour = 60 * minute, day = 24 * hour;

	if (seconds < 2 * minute)
		return qs_printf("%lld s", (long long)seconds);
	if (seconds < 2 * hour)
		return qs_printf("%lld min", (long long)(seconds / minute));
	if (seconds < 2 * day)
		return qs_printf("%lld h", (long long)(seconds / hour));
	return qs_printf("%lld days", (long long)(seconds / day));
}

static char *slot_count(const json_t *device)
{
	const json_t *slots = json_object_get(device, "keyslots");

	return slots ? qs_printf("%zu", json_array_size(slots)) : NULL;
}

static char *backup_short(const json_t *device)
{
	const json_t *backup = json_object_get(device, "backup");

	if (!backup)
		return NULL;
	if (json_is_false(json_object_get(backup, "agrees")) ||
	    json_array_size(json_object_get(backup, "damaged_keyslots")) > 0)
		return qs_strdup("differs");
	return age(json_integer_value(json_object_get(backup, "age_seconds")));
}

static char *crypttab_short(const json_t *device)
{
	const json_t *tab = json_object_get(device, "crypttab");

	if (!tab)
		return NULL;
	return qs_strdup(json_is_false(json_object_get(tab, "agrees")) ? "differs" : "agrees");
}

static char *cipher(const json_t *device)
{
	const char *name = text_at(device, "cipher");
	json_int_t bits = json_integer_value(json_object_get(device, "key_size"));
	json_int_t sector = json_integer_value(json_object_get(device, "sector_size"));

	if (!name)
		return NULL;
	return qs_printf("%s, %lld-bit key, %lld-byte sectors", name, (long long)bits,
			 (long long)sector);
}

/* ", PCR 7, not now: PCR 7 changed since ..."; "" for keyslots that no TPM opens. */
static char *tpm2_state(const json_t *slot)
{
	const json_t *tpm2 = json_object_get(slot, "tpm2");
	const char *pcrs = text_at(tpm2, "pcrs"), *problem = text_at(tpm2, "problem");

	if (!tpm2)
		return qs_strdup("");
	return qs_printf("%s%s%s%s%s", pcrs && *pcrs ? ", PCR " : "", pcrs ? pcrs : "",
			 json_is_true(json_object_get(tpm2, "pin")) ? ", PIN" : "",
			 problem ? ", not now: " : ", opens now", problem ? problem : "");
}

/* ", generation 2, key finance in team". */
static char *keystore_state(const json_t *slot)
{
	const json_t *keystore = json_object_get(slot, "keystore");
	const json_t *key = json_object_get(keystore, "key");
	const char *name = text_at(key, "name"), *space = text_at(key, "namespace");

	if (!keystore)
		return qs_strdup("");
	return qs_printf(", generation %lld%s%s%s%s",
			 (long long)json_integer_value(json_object_get(keystore, "generation")),
			 name ? ", key " : "", name ? name : "", space ? " in " : "",
			 space ? space : "");
}

static char *slots(const json_t *device)
{
	const json_t *list = json_object_get(device, "keyslots"), *slot;
	QS_AUTO(qs_auto_free) char *text = list ? qs_strdup("") : NULL;
	size_t i;

	json_array_foreach(list, i, slot)
	{
		const char *opener = text_at(slot, "opened_by"), *kdf = text_at(slot, "kdf");
		QS_AUTO(qs_auto_free) char *tpm2 = tpm2_state(slot);
		QS_AUTO(qs_auto_free) char *keystore = keystore_state(slot);
		char *more =
			qs_printf("%s%lld: %s, %s%s%s\n", text,
				  (long long)json_integer_value(json_object_get(slot, "number")),
				  kdf ? kdf : "unknown",
				  opener ? opener : "opened by an unknown key", tpm2, keystore);

		free(text);
		text = more;
	}
	return QS_TAKE(text);
}

/* The counter that locks the TPM. */
static char *tpm(const json_t *device)
{
	const json_t *health = json_object_get(device, "tpm");

	if (!health)
		return NULL;
	return qs_printf("%lld of %lld failures counted%s",
			 (long long)json_integer_value(json_object_get(health, "failures")),
			 (long long)json_integer_value(json_object_get(health, "limit")),
			 json_is_true(json_object_get(health, "locked")) ? ", locked" : "");
}

/* Where there is no header left to compare with, "agrees" is absent. */
static const char *agreement(const json_t *backup)
{
	const json_t *agrees = json_object_get(backup, "agrees");

	if (!agrees)
		return "";
	return json_is_true(agrees) ? ", agrees with the header" : ", differs from the header";
}

/* A swap with a new key at each start has no header that could be backed up. */
static bool is_swap(const json_t *device)
{
	const char *known = text_at(device, "state");

	return known && strncmp(known, "swap", 4) == 0;
}

static char *backup(const json_t *device)
{
	const json_t *object = json_object_get(device, "backup");
	const char *time = text_at(object, "time");
	QS_AUTO(qs_auto_free) char *old = NULL;

	if (!object)
		return is_swap(device) ? NULL : qs_strdup("none");
	old = age(json_integer_value(json_object_get(object, "age_seconds")));
	return qs_printf("%s, %s old%s; older versions: %lld", time ? time : "of unknown time", old,
			 agreement(object),
			 (long long)json_integer_value(json_object_get(object, "versions")));
}

static char *crypttab(const json_t *device)
{
	const json_t *object = json_object_get(device, "crypttab");
	const char *problem = text_at(object, "problem");
	json_int_t line = json_integer_value(json_object_get(object, "line"));

	if (!object)
		return qs_strdup("no line");
	if (line == 0)
		return qs_strdup(problem ? problem : "no line");
	return qs_printf("line %lld%s%s", (long long)line, problem ? ": " : " agrees",
			 problem ? problem : "");
}

/* The elements of an array of strings, one a line. */
static char *lines(const json_t *list)
{
	QS_AUTO(qs_auto_free) char *text = NULL;
	const json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		char *more = qs_printf("%s%s\n", text ? text : "", json_string_value(item));

		free(text);
		text = more;
	}
	return QS_TAKE(text);
}

static char *flags(const json_t *device)
{
	return lines(json_object_get(device, "flags"));
}

static char *warnings(const json_t *device)
{
	return lines(json_object_get(device, "warnings"));
}

static const struct qs_field columns[] = { { .title = "DEVICE", .key = "device" },
					   { .title = "NAME", .key = "name" },
					   { .title = "STATE", .text = state },
					   { .title = "CIPHER", .key = "cipher" },
					   { .title = "SLOTS", .text = slot_count },
					   { .title = "BACKUP", .text = backup_short },
					   { .title = "CRYPTTAB", .text = crypttab_short },
					   {} };

static const struct qs_field block[] = { { .title = "node", .key = "node" },
					 { .title = "link", .key = "by_id" },
					 { .title = "name", .key = "name" },
					 { .title = "UUID", .key = "uuid" },
					 { .title = "state", .text = state },
					 { .title = "LUKS version", .key = "version" },
					 { .title = "cipher", .text = cipher },
					 { .title = "driver", .key = "driver" },
					 { .title = "flags", .text = flags },
					 { .title = "keyslot", .text = slots },
					 { .title = "TPM", .text = tpm },
					 { .title = "backup", .text = backup },
					 { .title = "crypttab", .text = crypttab },
					 { .title = "warning", .text = warnings },
					 {} };

static void print(const struct qs_context *ctx, const json_t *devices)
{
	const json_t *device;
	size_t i;

	if (!ctx->details) {
		qs_table_print(stdout, columns, devices);
		return;
	}
	json_array_foreach(devices, i, device)
	{
		QS_AUTO(qs_auto_free) char *title = qs_field_text(&columns[0], device);

		printf("%s%s\n", i > 0 ? "\n" : "", title);
		qs_block_print(stdout, block, device);
	}
}

static const struct qs_status statuses[] = { { 4, "a device that was named is absent" }, {} };

static const struct qs_example examples[] = { { "cryptstatus", "every device in a line" },
					      { "cryptstatus /dev/sdj",
						"all that is known about one" },
					      {} };

const struct qs_command qs_row_cryptstatus = {
	.name = "cryptstatus",
	.args = "[DEVICE...]",
	.max_args = QS_CMD_ANY_NUMBER,
	.help = "show state, cipher, keyslots, header backup and crypttab agreement",
	.about =
		"Without DEVICE, a table of every LUKS device and every device of ours; with "
		"devices, a block for each with all that is known: state, cipher and the kernel "
		"driver that serves it, keyslots and what opens each, age of the header backup, "
		"and whether /etc/crypttab agrees. Of a TPM2 keyslot it says whether the TPM would "
		"open it now and which PCR changed since it was sealed, and how many failures the "
		"TPM has counted towards its lockout; to find out counts none. It writes nothing: a "
		"damaged header is named, not repaired.\n",
	.statuses = statuses,
	.see_also = "qs-util-devicemap(8) cryptsetup(8)",
	.flags = QS_CMD_NEEDS_ROOT,
	.files = QS_FILE_KEYS | QS_FILE_HEADERS | QS_FILE_PENDING | QS_FILE_CRYPTTAB,
	.examples = examples,
	.run = run,
	.print = print,
};
