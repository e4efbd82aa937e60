/*
 * What leaves the program: one JSON object on stdout, or text with results on
 * stdout and messages on stderr. Text is a projection of the same objects.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "command.h"

#define JSON_SCHEMA 1

static const char *level_name(enum qs_log_level level)
{
	if (level <= QS_LOG_ERROR)
		return "error";
	if (level == QS_LOG_WARNING)
		return "warning";
	return level == QS_LOG_NOTICE ? "notice" : level == QS_LOG_INFO ? "info" : "debug";
}

/* One write each, so that lines of several processes do not mix. */
void qs_message(const struct qs_context *ctx, enum qs_log_level level, const char *text)
{
	QS_AUTO(qs_auto_free) char *line = NULL;

	qs_progress_clear();
	if (ctx->progress == QS_PROGRESS_JSON) {
		QS_AUTO(qs_auto_json)
		json_t *event = json_pack("{s:s, s:s, s:o}", "event", "message", "level",
					  level_name(level), "message", qs_utf8_json(text));

		line = json_dumps(event, JSON_COMPACT | JSON_ENSURE_ASCII);
	} else {
		QS_AUTO(qs_auto_free) char *safe = qs_utf8_printable(text);

		line = qs_printf("qs-util%s%s: %s%s", ctx->command ? " " : "",
				 ctx->command ? ctx->command->name : "",
				 level == QS_LOG_WARNING ? "warning: " : "", safe);
	}
	if (line)
		fprintf(stderr, "%s\n", line);
}

static json_t *error_json(const struct qs_error *error)
{
	return json_pack("{s:s, s:i, s:o, s:b}", "code", qs_kind_name(error->kind), "exit",
			 qs_kind_exit(error->kind), "message", qs_utf8_json(error->text),
			 "retryable", qs_kind_retryable(error->kind));
}

static void set_text(json_t *object, const char *key, const char *value)
{
	if (value)
		json_object_set_new(object, key, qs_utf8_json(value));
}

/* Fields of the frame win over details of the same name; null details are left out. */
static json_t *device_json(const struct qs_outcome *o)
{
	json_t *object = json_object(), *value;
	const char *key;

	set_text(object, "device", o->device);
	set_text(object, "node", o->node);
	set_text(object, "by_id", o->by_id);
	set_text(object, "name", o->name);
	set_text(object, "uuid", o->uuid);
	json_object_set_new(object, "ok", json_boolean(o->error.kind == QS_E_NONE));
	set_text(object, "note", o->note);
	if (o->error.kind != QS_E_NONE)
		json_object_set_new(object, "error", error_json(&o->error));
	json_object_foreach(o->details, key,
			    value) if (!json_is_null(value) && !json_object_get(object, key))
		json_object_set(object, key, value);
	return object;
}

static json_t *devices_json(const struct qs_outcomes *list)
{
	json_t *devices = json_array();

	for (size_t i = 0; i < list->count; i++)
		json_array_append_new(devices, device_json(&list->items[i]));
	return devices;
}

/* A command that works on devices has "devices" even if there are none. */
static bool has_devices(const struct qs_context *ctx, const struct qs_error *error)
{
	if (ctx->outcomes.count > 0 || (ctx->outcomes.items && !error))
		return true;
	return !error && ctx->command && !(ctx->command->flags & QS_CMD_STANDALONE) && !ctx->result;
}

static void print_json(const struct qs_context *ctx, const struct qs_error *error)
{
	QS_AUTO(qs_auto_json)
	json_t *object = json_pack("{s:i}", "schema", JSON_SCHEMA);

	if (ctx->command)
		json_object_set_new(object, "command", json_string(ctx->command->name));
	json_object_set_new(object, "ok", json_boolean(!error));
	if (has_devices(ctx, error))
		json_object_set_new(object, "devices", devices_json(&ctx->outcomes));
	if (ctx->result)
		json_object_set(object, "result", ctx->result);
	if (error)
		json_object_set_new(object, "error", error_json(error));
	if (json_dumpf(object, stdout, JSON_COMPACT | JSON_ENSURE_ASCII) == 0)
		putchar('\n');
}

/*
 * Nothing failed, but nothing was done either: cryptopenall of absent disks and of systemd's lines,
 * rewrap without a key file.
 */
static bool is_passed_over(const struct qs_outcome *o)
{
	const char *state = json_string_value(json_object_get(o->details, "state"));

	return state && (strcmp(state, "absent") == 0 || strcmp(state, "left") == 0);
}

/* "/dev/sdj: opened as enc-scsi-35001 (already open)" */
static void print_success(const struct qs_context *ctx, const struct qs_outcome *o)
{
	const char *done = is_passed_over(o) ? "nothing done for" : ctx->done;
	QS_AUTO(qs_auto_free) char *device = qs_utf8_printable(o->device);
	QS_AUTO(qs_auto_free) char *name = qs_utf8_printable(o->name);
	QS_AUTO(qs_auto_free) char *note = qs_utf8_printable(o->note);

	printf("%s: %s%s%s%s%s%s\n", device, done ? done : "done", *name ? " " : "", name,
	       *note ? " (" : "", note, *note ? ")" : "");
}

void qs_print_successes(const struct qs_context *ctx)
{
	for (size_t i = 0; i < ctx->outcomes.count && !ctx->quiet; i++)
		if (ctx->outcomes.items[i].error.kind == QS_E_NONE)
			print_success(ctx, &ctx->outcomes.items[i]);
}

/* Returns true when a device's own message is the error of the whole. */
static bool print_failures(const struct qs_context *ctx, const struct qs_error *error)
{
	bool same = false;

	for (size_t i = 0; i < ctx->outcomes.count; i++) {
		const struct qs_outcome *o = &ctx->outcomes.items[i];
		QS_AUTO(qs_auto_free) char *line = NULL;

		if (o->error.kind == QS_E_NONE)
			continue;
		line = qs_printf("%s: %s", o->device, o->error.text);
		qs_message(ctx, QS_LOG_ERROR, line);
		same = same || (error && strcmp(error->text, o->error.text) == 0);
	}
	return same;
}

static void print_text(const struct qs_context *ctx, const struct qs_error *error)
{
	QS_AUTO(qs_auto_json) json_t *devices = NULL;

	if (ctx->text)
		fputs(ctx->text, stdout);
	if (ctx->command && ctx->command->print && !ctx->lines && ctx->outcomes.count > 0) {
		devices = devices_json(&ctx->outcomes);
		ctx->command->print(ctx, devices);
	}
	if (!devices)
		qs_print_successes(ctx);
	/* Results first, in case both go to the same place. */
	(void)fflush(stdout);
	if (!print_failures(ctx, error) && error)
		qs_message(ctx, QS_LOG_ERROR, error->text);
	if (error && error->kind == QS_E_USAGE && ctx->progress != QS_PROGRESS_JSON)
		fprintf(stderr, "Try 'qs-util help%s%s'.\n", ctx->command ? " " : "",
			ctx->command ? ctx->command->name : "");
}

int qs_output_finish(struct qs_context *ctx, int r, const struct qs_error *error)
{
	struct qs_error shown = *error;

	if (r < 0 && shown.kind == QS_E_NONE)
		(void)qs_error_set_errno(&shown, r, "failed");
	qs_progress_clear();
	errno = 0;
	if (ctx->json)
		print_json(ctx, r < 0 ? &shown : NULL);
	else
		print_text(ctx, r < 0 ? &shown : NULL);
	/* The answer that nobody got is no success: a full disk, a closed descriptor. */
	if (fflush(stdout) != 0 || ferror(stdout)) {
		struct qs_error lost = {};

		(void)qs_error_set_errno(&lost, errno ? errno : EIO,
					 "cannot write to standard output");
		qs_message(ctx, QS_LOG_ERROR, lost.text);
		return r < 0 ? qs_kind_exit(shown.kind) : qs_kind_exit(QS_E_FAILED);
	}
	return r < 0 ? qs_kind_exit(shown.kind) : 0;
}
