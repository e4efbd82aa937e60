#define _GNU_SOURCE
#include "keystore/keystore.h"

#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/sum.h"
#include "base/text.h"
#include "key/keyfile.h"
#include "keystore/provider.h"
#include "luks/fields.h"

#define VERSION 1
#define FILE_MAX (64U << 10)

static const char *const states[] = {
	[QS_KEYSTORE_DISABLED] = "disabled",
	[QS_KEYSTORE_ENABLING] = "enabling",
	[QS_KEYSTORE_ENABLED] = "enabled",
	[QS_KEYSTORE_DISABLING] = "disabling",
};

static const char *const rotations[] = {
	[QS_ROTATION_IDLE] = "idle",
	[QS_ROTATION_DISTRIBUTING] = "distributing-kek",
	[QS_ROTATION_REWRAPPING] = "rewrapping-keys",
};

const char *qs_rotation_state_name(enum qs_rotation_state state)
{
	return rotations[state];
}

uint32_t qs_keystore_wraps_with(const struct qs_keystore *ks)
{
	return ks->rotation == QS_ROTATION_REWRAPPING ? ks->target : ks->current;
}

const char *qs_keystore_state_name(enum qs_keystore_state state)
{
	return states[state];
}

bool qs_keystore_is_uuid(const char *text)
{
	static const char form[] = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";
	size_t i;

	for (i = 0; form[i] && text[i]; i++)
		if (form[i] == '-' ? text[i] != '-' : !strchr("0123456789abcdef", text[i]))
			return false;
	return form[i] == text[i];
}

int qs_keystore_new_uuid(char ret[QS_KEYSTORE_UUID_L], struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret random = {};
	int r = qs_secret_random(&random, 16, err);
	unsigned char *b = random.data;
	size_t used = 0;

	if (r < 0)
		return r;
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	for (size_t i = 0; i < 16; i++)
		used += (size_t)snprintf(ret + used, QS_KEYSTORE_UUID_L - used, "%s%02x",
					 i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", b[i]);
	return 0;
}

const struct qs_keystore_generation *qs_keystore_generation(const struct qs_keystore *ks,
							    uint32_t number)
{
	for (size_t i = 0; i < ks->count; i++)
		if (ks->generations[i].number == number)
			return &ks->generations[i];
	return NULL;
}

const struct qs_keystore_generation *qs_keystore_last_own(const struct qs_keystore *ks)
{
	for (size_t i = ks->count; i > 0; i--)
		if (!ks->generations[i - 1].line)
			return &ks->generations[i - 1];
	return NULL;
}

const struct qs_keystore_generation *qs_keystore_head(const struct qs_keystore *ks, uint32_t line)
{
	for (size_t i = ks->count; i > 0; i--)
		if (ks->generations[i - 1].line == line && !ks->generations[i - 1].begun)
			return &ks->generations[i - 1];
	return NULL;
}

uint32_t qs_keystore_successor(const struct qs_keystore *ks, uint32_t number)
{
	const struct qs_keystore_generation *g = qs_keystore_generation(ks, number);
	const struct qs_keystore_generation *head =
		g && g->line ? qs_keystore_head(ks, g->line) : NULL;

	return head ? head->number : qs_keystore_wraps_with(ks);
}

const char *qs_keystore_provider_name(const struct qs_keystore *ks, uint32_t number)
{
	const struct qs_keystore_generation *g = qs_keystore_generation(ks, number);

	if (g && g->provider[0])
		return g->provider;
	return number == ks->target && ks->target_provider[0] ? ks->target_provider : ks->provider;
}

uint32_t qs_keystore_retention(const struct qs_keystore *ks)
{
	return ks->retention ? ks->retention : QS_KEYSTORE_RETENTION;
}

/* ---- the text ---- */

static int bad(const char *field, struct qs_error *err)
{
	return qs_fail(err, QS_E_CONFIG,
		       "%s is not usable: %s is missing or malformed; take it from a key bundle "
		       "(keyrestore)",
		       QS_KEYSTORE_FILE, field);
}

int qs_keystore_parse_time(const char *text, time_t *ret)
{
	return text ? qs_text_parse_time(text, QS_TEXT_RFC3339, ret) : -EINVAL;
}

/* Absent: the keystore's. */
static int parse_provider(const json_t *json, const struct qs_keystore *ks,
			  char ret[QS_KEYSTORE_PROVIDER_L])
{
	const char *name =
		json_object_get(json, "provider") ? qs_fields_text(json, "provider") : ks->provider;

	if (!name || !qs_provider_find(name))
		return -EINVAL;
	(void)snprintf(ret, QS_KEYSTORE_PROVIDER_L, "%s", name);
	return 0;
}

/* Absent: of the keystore's own key. Returns how many members are its, or -EINVAL. */
static int parse_line(const json_t *json, uint64_t number, struct qs_keystore_generation *g)
{
	const json_t *begun = json_object_get(json, "begun");
	uint64_t line = 0;

	if (!json_object_get(json, "line"))
		return begun ? -EINVAL : 0;
	if (!qs_fields_number(json, "line", &line) || line < 1 || line > number ||
	    (begun && !json_is_true(begun)) || !qs_provider_find(g->provider)->is_key)
		return -EINVAL;
	g->line = (uint32_t)line;
	g->begun = begun != NULL;
	return 1 + (begun != NULL);
}

static int parse_generation(const json_t *json, struct qs_keystore *ks, struct qs_error *err)
{
	struct qs_keystore_generation *g = &ks->generations[ks->count];
	size_t members = 2U + (json_object_get(json, "provider") != NULL);
	uint64_t number;
	int r;

	if (ks->count >= QS_KEYSTORE_GENERATIONS || !qs_fields_number(json, "number", &number) ||
	    number < 1 || number > QS_KEYSTORE_GENERATION_MAX ||
	    qs_keystore_parse_time(qs_fields_text(json, "created"), &g->created) < 0 ||
	    parse_provider(json, ks, g->provider) < 0)
		return bad("a generation", err);
	r = parse_line(json, number, g);
	if (r < 0 || json_object_size(json) != members + (size_t)r)
		return bad("a generation", err);
	if (ks->count > 0 && g[-1].number >= number)
		return bad("the order of the generations", err);
	g->number = (uint32_t)number;
	ks->count++;
	return 0;
}

static bool is_own(const struct qs_keystore *ks, uint32_t number)
{
	const struct qs_keystore_generation *g = qs_keystore_generation(ks, number);

	return g && !g->line;
}

static int parse_generations(const json_t *json, struct qs_keystore *ks, struct qs_error *err)
{
	const json_t *list = json_object_get(json, "generations");
	uint64_t current;
	int r = json_is_array(list) ? 0 : bad("generations", err);

	for (size_t i = 0; r == 0 && i < json_array_size(list); i++)
		r = parse_generation(json_array_get(list, i), ks, err);
	if (r < 0)
		return r;
	if (!qs_fields_number(json, "current", &current) || current > QS_KEYSTORE_GENERATION_MAX)
		return bad("current", err);
	ks->current = (uint32_t)current;
	if (ks->state == QS_KEYSTORE_ENABLING ? current != 0 || ks->count > 0
					      : !is_own(ks, ks->current))
		return bad("current", err);
	if (strcmp(qs_keystore_provider_name(ks, ks->current), ks->provider) != 0)
		return bad("provider", err);
	return 0;
}

/* Absent but for a migration into the TPM; none is no PCR. */
static int parse_binding(const json_t *rotation, struct qs_keystore *ks, size_t *members)
{
	const json_t *pin = json_object_get(rotation, "pin");
	uint64_t pcrs = 0;

	if (json_object_get(rotation, "pcrs") &&
	    (!qs_fields_number(rotation, "pcrs", &pcrs) || pcrs == 0 || pcrs >= 1U << 24))
		return -EINVAL;
	if (pin && !json_is_true(pin))
		return -EINVAL;
	ks->target_pcrs = (uint32_t)pcrs;
	ks->target_pin = pin != NULL;
	*members += (pcrs > 0) + (pin != NULL);
	return 0;
}

/* Absent when idle, so that what no rotation has touched is as it always was. */
static int parse_rotation(const json_t *json, struct qs_keystore *ks, struct qs_error *err)
{
	const json_t *rotation = json_object_get(json, "rotation");
	const char *state = qs_fields_text(rotation, "state");
	size_t members = 2 + (json_object_get(rotation, "provider") != NULL);
	uint64_t target;

	if (!rotation)
		return 0;
	for (unsigned i = QS_ROTATION_DISTRIBUTING; state && i < QS_ARRAY_SIZE(rotations); i++)
		if (strcmp(rotations[i], state) == 0)
			ks->rotation = (enum qs_rotation_state)i;
	if (parse_binding(rotation, ks, &members) < 0 || json_object_size(rotation) != members ||
	    ks->rotation == QS_ROTATION_IDLE ||
	    parse_provider(rotation, ks, ks->target_provider) < 0 ||
	    ks->state == QS_KEYSTORE_ENABLING ||
	    !qs_fields_number(rotation, "generation", &target) || target <= ks->current ||
	    target > QS_KEYSTORE_GENERATION_MAX)
		return bad("rotation", err);
	ks->target = (uint32_t)target;
	/* It is in the list from when it is proven, and it is the last one of the own key. */
	if (qs_keystore_last_own(ks)->number !=
	    (ks->rotation == QS_ROTATION_REWRAPPING ? ks->target : ks->current))
		return bad("rotation", err);
	if (ks->rotation == QS_ROTATION_REWRAPPING
		    ? strcmp(qs_keystore_last_own(ks)->provider, ks->target_provider) != 0
		    : ks->generations[ks->count - 1].number >= ks->target)
		return bad("rotation", err);
	return 0;
}

static int parse_words(const json_t *json, struct qs_keystore *ks, struct qs_error *err)
{
	const char *state = qs_fields_text(json, "state");
	const char *store = qs_fields_text(json, "store");
	const char *provider = qs_fields_text(json, "provider");

	for (unsigned i = QS_KEYSTORE_ENABLING; state && i < QS_ARRAY_SIZE(states); i++)
		if (strcmp(states[i], state) == 0)
			ks->state = (enum qs_keystore_state)i;
	if (ks->state == QS_KEYSTORE_DISABLED)
		return bad("state", err);
	if (!store || !qs_keystore_is_uuid(store))
		return bad("store", err);
	if (!provider || !qs_provider_find(provider))
		return bad("provider", err);
	(void)snprintf(ks->store, sizeof(ks->store), "%s", store);
	(void)snprintf(ks->provider, sizeof(ks->provider), "%s", provider);
	return 0;
}

/* Absent: the usual one. */
static int parse_retention(const json_t *json, struct qs_keystore *ks, struct qs_error *err)
{
	uint64_t seconds;

	if (!json_object_get(json, "retention"))
		return 0;
	if (!qs_fields_number(json, "retention", &seconds) || seconds < QS_KEYSTORE_RETENTION_MIN ||
	    seconds > QS_KEYSTORE_RETENTION_MAX)
		return bad("retention", err);
	ks->retention = (uint32_t)seconds;
	return 0;
}

/* Absent: never. */
static int parse_schedule(const json_t *json, struct qs_keystore *ks, struct qs_error *err)
{
	const json_t *schedule = json_object_get(json, "schedule");
	const char *every = qs_fields_text(schedule, "every");
	char again[QS_SCHEDULE_L];

	if (!schedule)
		return 0;
	if (json_object_size(schedule) != 2 || !every ||
	    qs_schedule_parse(every, &ks->schedule) < 0 || !ks->schedule.unit ||
	    strcmp(qs_schedule_print(&ks->schedule, again), every) != 0 ||
	    qs_keystore_parse_time(qs_fields_text(schedule, "since"), &ks->schedule.since) < 0)
		return bad("schedule", err);
	return 0;
}

static int parse_rotated(const json_t *json, struct qs_keystore *ks, struct qs_error *err)
{
	if (json_object_get(json, "rotated") &&
	    qs_keystore_parse_time(qs_fields_text(json, "rotated"), &ks->rotated) < 0)
		return bad("rotated", err);
	return 0;
}

/* The members that may be absent; any other is one too many. */
static size_t optional_members(const json_t *json)
{
	static const char *const names[] = { "rotation", "retention", "schedule", "rotated" };
	size_t count = 0;

	for (size_t i = 0; i < QS_ARRAY_SIZE(names); i++)
		count += json_object_get(json, names[i]) != NULL;
	return count;
}

int qs_keystore_parse(const char *text, size_t size, struct qs_keystore *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_json)
	json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
	struct qs_keystore ks = {};
	uint64_t version;
	int r;

	if (!json_is_object(json))
		return bad("its text", err);
	r = qs_sum_check(json, QS_KEYSTORE_FILE, err);
	if (r < 0)
		return r;
	if (!qs_fields_number(json, "version", &version))
		return bad("version", err);
	if (version != VERSION)
		return qs_fail(err, QS_E_CONFIG, "%s was written by a newer qs-util",
			       QS_KEYSTORE_FILE);
	if (qs_sum_others(json) != 6 + optional_members(json))
		return bad("a field", err);
	r = parse_words(json, &ks, err);
	if (r == 0)
		r = parse_generations(json, &ks, err);
	if (r == 0)
		r = parse_rotation(json, &ks, err);
	if (r == 0)
		r = parse_retention(json, &ks, err);
	if (r == 0)
		r = parse_schedule(json, &ks, err);
	if (r == 0)
		r = parse_rotated(json, &ks, err);
	if (r == 0)
		*ret = ks;
	return r;
}

static json_t *print_time(time_t time)
{
	char when[QS_TEXT_TIME_L];

	return json_string(qs_text_print_time(time, QS_TEXT_RFC3339, when));
}

/* Only another one than the keystore's: so what no migration has touched is as it always was. */
static void print_provider(const struct qs_keystore *ks, const char *name, json_t *json)
{
	if (*name && strcmp(name, ks->provider) != 0)
		(void)json_object_set_new(json, "provider", json_string(name));
}

static json_t *print_generation(const struct qs_keystore *ks,
				const struct qs_keystore_generation *g)
{
	json_t *json =
		json_pack("{s:i,s:o}", "number", (int)g->number, "created", print_time(g->created));

	print_provider(ks, g->provider, json);
	if (g->line)
		(void)json_object_set_new(json, "line", json_integer(g->line));
	if (g->begun)
		(void)json_object_set_new(json, "begun", json_true());
	return json;
}

static void print_schedule(json_t *json, const struct qs_schedule *s)
{
	char every[QS_SCHEDULE_L];

	if (s->unit)
		(void)json_object_set_new(json, "schedule",
					  json_pack("{s:s,s:o}", "every",
						    qs_schedule_print(s, every), "since",
						    print_time(s->since)));
}

char *qs_keystore_print(const struct qs_keystore *ks)
{
	QS_AUTO(qs_auto_json) json_t *json = NULL;
	json_t *list = json_array();
	char *text;

	for (size_t i = 0; i < ks->count; i++)
		(void)json_array_append_new(list, print_generation(ks, &ks->generations[i]));
	json = json_pack("{s:i,s:s,s:s,s:s,s:i,s:o}", "version", VERSION, "state",
			 states[ks->state], "store", ks->store, "provider", ks->provider, "current",
			 (int)ks->current, "generations", list);
	if (ks->rotation != QS_ROTATION_IDLE) {
		json_t *rotation = json_pack("{s:s,s:i}", "state", rotations[ks->rotation],
					     "generation", (int)ks->target);

		print_provider(ks, ks->target_provider, rotation);
		if (ks->target_pcrs)
			(void)json_object_set_new(rotation, "pcrs", json_integer(ks->target_pcrs));
		if (ks->target_pin)
			(void)json_object_set_new(rotation, "pin", json_true());
		(void)json_object_set_new(json, "rotation", rotation);
	}
	if (ks->retention)
		(void)json_object_set_new(json, "retention", json_integer(ks->retention));
	print_schedule(json, &ks->schedule);
	if (ks->rotated)
		(void)json_object_set_new(json, "rotated", print_time(ks->rotated));
	text = qs_sum_print(json);
	if (!text)
		abort();
	return text;
}

/* ---- the file ---- */

int qs_keystore_load(const struct qs_env *env, struct qs_keystore *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, QS_KEYSTORE_FILE);
	QS_AUTO(qs_secret_done) struct qs_secret text = {};
	int r;

	*ret = (struct qs_keystore){};
	if (!env->held && access(real, F_OK) < 0)
		return errno == ENOENT || errno == ENOTDIR
			       ? qs_keystore_refuse_remains(env, false, err)
			       : qs_fail_errno(err, errno, "cannot look at %s", QS_KEYSTORE_FILE);
	/* As strict as for keys: who may write it decides which generation opens a device. */
	r = qs_key_load_record(env, QS_KEYSTORE_FILE, &text, err);
	if (r < 0)
		return r;
	if (text.size > FILE_MAX)
		return bad("its size", err);
	return qs_keystore_parse(text.data, text.size, ret, err);
}

int qs_keystore_load_enabled(const struct qs_env *env, struct qs_keystore *ret,
			     struct qs_error *err)
{
	int r = qs_keystore_load(env, ret, err);

	if (r < 0 || ret->state == QS_KEYSTORE_ENABLED)
		return r;
	if (ret->state == QS_KEYSTORE_DISABLING)
		return qs_fail(err, QS_E_FAILED,
			       "the keystore is being disabled: run `qs-util keystore disable` "
			       "again to finish that");
	return qs_fail(err, QS_E_FAILED,
		       "the keystore is %s: enable it first with `qs-util keystore enable`",
		       ret->state == QS_KEYSTORE_ENABLING ? "not completely enabled" : "disabled");
}

int qs_keystore_save(const struct qs_env *env, const struct qs_keystore *ks, struct qs_error *err)
{
	const struct qs_replace how = { .mode = 0600 };
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, QS_KEYSTORE_FILE);
	QS_AUTO(qs_auto_free) char *text = qs_keystore_print(ks);
	int r = qs_file_replace(real, text, strlen(text), &how, err);

	if (r == 0)
		r = qs_file_equals(real, text, strlen(text), err);
	if (r == 0)
		r = qs_fail(err, QS_E_IO, "%s reads back differently from what was written", real);
	return r < 0 ? r : 0;
}
