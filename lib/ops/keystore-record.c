#define _GNU_SOURCE
#include "ops/keystore-record.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/utf8.h"
#include "luks/fields.h"
#include "ops/event.h"
#include "ops/internal.h"

#define DIR "/var/lib/qs-util"
#define FILE_NAME DIR "/rotation.json"
#define VERSION 1
#define SIZE_MAX_BYTES (16U << 10)
#define TIME_MAX UINT64_C(253402300799) /* the end of the year 9999 */

/* ---- the text ---- */

static bool get_time(const json_t *json, const char *name, time_t *ret)
{
	uint64_t number = 0;

	if (json_object_get(json, name) &&
	    (!qs_fields_number(json, name, &number) || number < 1 || number > TIME_MAX))
		return false;
	*ret = (time_t)number;
	return true;
}

static bool get_flag(const json_t *json, const char *name, bool *ret)
{
	const json_t *flag = json_object_get(json, name);

	*ret = json_is_true(flag);
	return !flag || json_is_boolean(flag);
}

int qs_rotation_record_parse(const char *text, size_t size, struct qs_rotation_record *ret)
{
	QS_AUTO(qs_auto_json)
	json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
	const char *store = qs_fields_text(json, "store");
	const char *message = qs_fields_text(json, "message");
	struct qs_rotation_record record = {};
	uint64_t version;

	if (!qs_fields_number(json, "version", &version) || version != VERSION || !store ||
	    !qs_keystore_is_uuid(store) || !get_time(json, "failed", &record.failed) ||
	    !get_time(json, "overdue", &record.overdue) || !get_time(json, "told", &record.told) ||
	    !get_flag(json, "waiting", &record.waiting) ||
	    (message != NULL) != (record.failed > 0) ||
	    ((record.told || record.waiting) && !record.failed))
		return -EINVAL;
	if (message && strlen(message) >= sizeof(record.message))
		return -EINVAL;
	(void)snprintf(record.store, sizeof(record.store), "%s", store);
	(void)snprintf(record.message, sizeof(record.message), "%s", message ? message : "");
	*ret = record;
	return 0;
}

char *qs_rotation_record_print(const struct qs_rotation_record *record)
{
	QS_AUTO(qs_auto_json)
	json_t *json = json_pack("{s:i,s:s}", "version", VERSION, "store", record->store);
	char *text;

	if (record->failed) {
		(void)json_object_set_new(json, "failed", json_integer(record->failed));
		(void)json_object_set_new(json, "message", qs_utf8_json(record->message));
	}
	if (record->waiting)
		(void)json_object_set_new(json, "waiting", json_true());
	if (record->told)
		(void)json_object_set_new(json, "told", json_integer(record->told));
	if (record->overdue)
		(void)json_object_set_new(json, "overdue", json_integer(record->overdue));
	text = json_dumps(json, JSON_INDENT(2));
	if (!text)
		abort();
	return text;
}

/* ---- the file ---- */

/* The record of a keystore whose file cannot be read: it has a UUID that no keystore gets. */
#define NO_STORE "00000000-0000-0000-0000-000000000000"

static void load(const struct qs_env *env, const struct qs_keystore *ks,
		 struct qs_rotation_record *ret)
{
	const char *of = ks->store[0] ? ks->store : NO_STORE;
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, FILE_NAME);
	QS_AUTO(qs_auto_free) char *text = NULL;
	struct qs_rotation_record record = {};
	size_t size;

	*ret = (struct qs_rotation_record){};
	(void)snprintf(ret->store, sizeof(ret->store), "%s", of);
	if (qs_file_read_optional(real, SIZE_MAX_BYTES, &text, &size, NULL) == 1 &&
	    qs_rotation_record_parse(text, size, &record) == 0 && strcmp(record.store, of) == 0)
		*ret = record;
}

/* Without anything to remember there is no file, nor what a run that was killed left of one. */
static void store(const struct qs_env *env, const struct qs_rotation_record *record)
{
	const struct qs_replace how = { .mode = 0600 };
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(env, DIR);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, FILE_NAME);
	QS_AUTO(qs_auto_free) char *text = qs_rotation_record_print(record);
	struct qs_error err = {};
	int r;

	if (!record->failed && !record->overdue) {
		r = qs_file_remove(real, &err);
	} else {
		r = qs_file_make_dirs(dir, 0700, &err);
		if (r >= 0)
			r = qs_file_replace(real, text, strlen(text), &how, &err);
	}
	if (r < 0 && r != -ENOENT)
		qs_log(QS_LOG_WARNING, "%s", err.text);
}

void qs_rotation_add_error(const struct qs_env *env, const struct qs_keystore *ks, json_t *result)
{
	struct qs_rotation_record record;

	load(env, ks, &record);
	if (record.failed)
		(void)json_object_set_new(result, "last_error",
					  json_pack("{s:o,s:s}", "time",
						    qs_json_time(record.failed), "message",
						    record.message));
}

/* ---- telling ---- */

/* One of the future was told by a clock that was wrong. */
static bool is_recent(time_t told, time_t now)
{
	return told <= now && now - told < (time_t)QS_KEYSTORE_DAY;
}

void qs_rotation_tell_begin(const struct qs_env *env, const struct qs_keystore *ks,
			    uint32_t generation)
{
	struct qs_rotation_record record;

	load(env, ks, &record);
	if (!is_recent(record.told, time(NULL)))
		qs_event_send_rotation(env, QS_EVENT_ROTATION_STARTED, generation, NULL);
}

/* The error, and of several devices the first one that explains it. */
static char *reason_of(const struct qs_error *error, const struct qs_outcomes *report)
{
	for (size_t i = 0; error->kind == QS_E_PARTIAL && i < report->count; i++)
		if (report->items[i].error.kind != QS_E_NONE)
			return qs_printf("%s (%s)", error->text, report->items[i].error.text);
	return qs_strdup(error->text);
}

/* What is remembered of a failure. Returns whether the journal has it already. */
static bool note_failure(struct qs_rotation_record *record, const char *reason)
{
	QS_AUTO(qs_auto_free) char *safe = qs_utf8_printable(reason);
	struct qs_rotation_record old = *record;
	size_t length = strnlen(safe, sizeof(record->message) - 1);

	/* Not within a character: what is read back has to be the same. */
	while (length > 0 && ((unsigned char)safe[length] & 0xc0) == 0x80)
		length--;
	record->failed = time(NULL);
	(void)snprintf(record->message, sizeof(record->message), "%.*s", (int)length, safe);
	if (is_recent(old.told, record->failed) && strcmp(old.message, record->message) == 0)
		return true;
	record->told = record->failed;
	return false;
}

void qs_rotation_tell_end(const struct qs_env *env, const struct qs_keystore *ks,
			  uint32_t generation, const struct qs_error *error,
			  const struct qs_outcomes *report)
{
	QS_AUTO(qs_auto_free) char *reason = reason_of(error, report);
	bool failed = error->kind != QS_E_NONE;
	struct qs_rotation_record record;

	load(env, ks, &record);
	record.waiting = error->kind == QS_E_PARTIAL;
	if (failed && !note_failure(&record, reason))
		qs_event_send_rotation(env, QS_EVENT_ROTATION_FAILED, generation, reason);
	if (!failed && generation)
		qs_event_send_rotation(env, QS_EVENT_ROTATION_SUCCEEDED, generation, NULL);
	if (!failed)
		record.failed = record.told = 0;
	if (!failed && generation)
		record.overdue = 0;
	store(env, &record);
}

void qs_rotation_tell_settled(const struct qs_env *env, const struct qs_keystore *ks)
{
	struct qs_rotation_record record;

	load(env, ks, &record);
	if (!record.waiting)
		return;
	record.failed = record.told = 0;
	record.waiting = false;
	store(env, &record);
}

void qs_rotation_tell_overdue(const struct qs_env *env, const struct qs_keystore *ks)
{
	QS_AUTO(qs_auto_free) char *reason = NULL;
	struct qs_rotation_record record;
	time_t now = time(NULL);

	if (ks->state != QS_KEYSTORE_ENABLED || !qs_schedule_overdue(ks, now))
		return;
	load(env, ks, &record);
	if (is_recent(record.overdue, now))
		return;
	reason = qs_printf("it has been due for %ld hours%s%s",
			   (long)(now - qs_schedule_next(ks, now)) / 3600,
			   record.failed ? "; the last error: " : "", record.message);
	qs_event_send_rotation(env, QS_EVENT_ROTATION_OVERDUE, ks->target, reason);
	record.overdue = now;
	store(env, &record);
}
