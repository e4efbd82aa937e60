#include "luks/header.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "luks/fields.h"
#include "luks/fingerprint.h"
#include "luks/kind.h"

#define SLOTS_MAX 32

/* Values out of range count as the largest: a cost that is not understood is not a small one. */
static uint64_t cost(const json_t *kdf, const char *name)
{
	uint64_t value;

	return qs_fields_number(kdf, name, &value) ? value : UINT64_MAX;
}

static uint64_t times_1024(uint64_t kib)
{
	return kib > UINT64_MAX / 1024 ? UINT64_MAX : kib * 1024;
}

/* The token with the lowest number that opens this keyslot. */
static void find_token(const json_t *json, const char *slot, struct qs_keyslot *ret)
{
	json_t *tokens = json_object_get(json, "tokens");
	const char *number, *type;
	json_t *token;

	json_object_foreach(tokens, number, token)
	{
		int n = qs_fields_slot(number);

		if (n < 0 || !qs_fields_lists(json_object_get(token, "keyslots"), slot))
			continue;
		type = qs_fields_text(token, "type");
		type = type ? type : "";
		if (strcmp(type, QS_FINGERPRINT_TYPE) == 0 || strcmp(type, QS_SLOT_TYPE) == 0 ||
		    (ret->token >= 0 && ret->token < n))
			continue;
		ret->token = n;
		qs_fields_printable(ret->token_type, sizeof(ret->token_type), type, strlen(type));
	}
}

static struct qs_keyslot describe(const json_t *json, const char *number, const json_t *slot)
{
	const json_t *kdf = json_object_get(slot, "kdf");
	const char *type = qs_fields_text(kdf, "type");
	struct qs_keyslot k = { .number = qs_fields_slot(number), .token = -1, .threads = 1 };

	type = type ? type : "";
	qs_fields_printable(k.kdf, sizeof(k.kdf), type, strlen(type));
	if (strcmp(type, "pbkdf2") == 0) {
		k.iterations = cost(kdf, "iterations");
	} else {
		uint64_t threads = cost(kdf, "cpus");

		k.iterations = cost(kdf, "time");
		k.memory = times_1024(cost(kdf, "memory"));
		k.threads = threads > UINT16_MAX ? UINT16_MAX : (unsigned)threads;
	}
	find_token(json, number, &k);
	return k;
}

static void mark_key_files(const json_t *json, struct qs_keyslot *slots, size_t count)
{
	struct qs_fingerprint prints[SLOTS_MAX];
	size_t n = qs_fingerprint_read(json, prints, SLOTS_MAX);

	for (size_t i = 0; i < count; i++)
		for (size_t p = 0; p < n; p++)
			slots[i].key_file |= slots[i].number == prints[p].slot;
}

static size_t collect_luks2(const json_t *json, struct qs_keyslot slots[SLOTS_MAX])
{
	json_t *object = json_object_get(json, "keyslots");
	const char *number;
	json_t *slot;
	size_t n = 0;

	json_object_foreach(object, number, slot)
	{
		if (qs_fields_slot(number) >= 0 && n < SLOTS_MAX)
			slots[n++] = describe(json, number, slot);
	}
	mark_key_files(json, slots, n);
	return n;
}

static size_t collect_luks1(const struct qs_luks_header *h, struct qs_keyslot slots[SLOTS_MAX])
{
	size_t n = 0;

	for (unsigned i = 0; i < QS_ARRAY_SIZE(h->luks1_iterations); i++) {
		if (h->luks1_iterations[i] == 0)
			continue;
		slots[n++] = (struct qs_keyslot){ .number = (int)i,
						  .kdf = "pbkdf2",
						  .iterations = h->luks1_iterations[i],
						  .threads = 1,
						  .token = -1 };
	}
	return n;
}

/* Memory first: it decides what may run at the same time. */
static int by_cost(const void *a, const void *b)
{
	const struct qs_keyslot *x = a, *y = b;

	if (x->memory != y->memory)
		return x->memory < y->memory ? -1 : 1;
	if (x->iterations != y->iterations)
		return x->iterations < y->iterations ? -1 : 1;
	return x->number - y->number;
}

size_t qs_luks_keyslots(const struct qs_luks_header *h, struct qs_keyslot *ret, size_t max)
{
	struct qs_keyslot slots[SLOTS_MAX];
	size_t n = h->version == 1 ? collect_luks1(h, slots) : collect_luks2(h->json, slots);

	qsort(slots, n, sizeof(slots[0]), by_cost);
	if (n > max)
		n = max;
	memcpy(ret, slots, n * sizeof(slots[0]));
	return n;
}
