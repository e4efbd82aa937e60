/*
 * Asking before something is lost.
 */
#include <signal.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "command.h"

#define GIGA 1000000000 /* disks are sold in powers of ten */

static bool may_ask(const struct qs_context *ctx)
{
	return !ctx->json && isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
}

static void list_device(const struct qs_outcome *o)
{
	const struct {
		const char *separator, *value;
	} parts[] = {
		{ "", o->device },
		{ " = ", o->node && strcmp(o->node, o->device) != 0 ? o->node : NULL },
		{ ", ", o->by_id && o->node && strcmp(o->by_id, o->node) != 0 ? o->by_id : NULL },
		{ ", ", json_string_value(json_object_get(o->details, "model")) },
		{ ", serial ", json_string_value(json_object_get(o->details, "serial")) },
		{ ", ", o->name },
		{ ": ", o->note },
	};
	json_int_t size = json_integer_value(json_object_get(o->details, "size"));

	fputs("  ", stderr);
	for (size_t i = 0; i < QS_ARRAY_SIZE(parts); i++) {
		QS_AUTO(qs_auto_free) char *safe = qs_utf8_printable(parts[i].value);

		if (*safe)
			fprintf(stderr, "%s%s", parts[i].separator, safe);
		if (i == 2 && size > 0)
			fprintf(stderr, ", %.1f %s", (double)size / (size < GIGA ? 1e6 : 1e9),
				size < GIGA ? "MB" : "GB");
	}
	fputc('\n', stderr);
}

static bool answer_is_yes(const char *command, const char *what, const struct qs_outcomes *devices)
{
	char line[16];

	/* What was typed before the question is not an answer to it. */
	(void)tcflush(STDIN_FILENO, TCIFLUSH);
	fprintf(stderr, "qs-util %s: %s:\n", command, what);
	for (size_t i = 0; i < devices->count; i++)
		if (devices->items[i].error.kind == QS_E_NONE)
			list_device(&devices->items[i]);
	fputs("Type 'yes' to go on: ", stderr);
	return fgets(line, sizeof(line), stdin) && strcmp(line, "yes\n") == 0;
}

int qs_confirm(const struct qs_context *ctx, const char *what, const struct qs_outcomes *devices,
	       struct qs_error *err)
{
	const struct sigaction by_default = { .sa_handler = SIG_DFL };
	struct sigaction interrupt, terminate;
	bool yes;

	if (ctx->yes)
		return 0;
	if (!may_ask(ctx))
		return qs_fail(err, QS_E_UNCONFIRMED,
			       "%s; not asked %s: give --yes to confirm, nothing was changed", what,
			       ctx->json ? "with --json" : "without a terminal");
	/* Nothing has been done yet, so an interrupt just ends the program here. */
	(void)sigaction(SIGINT, &by_default, &interrupt);
	(void)sigaction(SIGTERM, &by_default, &terminate);
	yes = answer_is_yes(ctx->command->name, what, devices);
	(void)sigaction(SIGINT, &interrupt, NULL);
	(void)sigaction(SIGTERM, &terminate, NULL);
	if (yes)
		return 0;
	return qs_fail(err, QS_E_UNCONFIRMED, "not confirmed with 'yes', nothing was changed");
}

static bool same(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

bool qs_confirm_unchanged(const struct qs_outcomes *before, const struct qs_outcomes *now)
{
	if (before->count != now->count)
		return false;
	for (size_t i = 0; i < now->count; i++) {
		const struct qs_outcome *a = &before->items[i], *b = &now->items[i];

		if (a->error.kind != b->error.kind || !same(a->node, b->node) ||
		    !same(a->by_id, b->by_id) || !same(a->uuid, b->uuid))
			return false;
	}
	return true;
}

static bool any_ok(const struct qs_outcomes *list)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->items[i].error.kind == QS_E_NONE)
			return true;
	return false;
}

int qs_confirm_preview(const struct qs_context *ctx, const char *what, qs_preview *preview,
		       const void *cookie, struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes shown = {};
	QS_AUTO(qs_outcomes_done) struct qs_outcomes now = {};
	int r = ctx->yes ? 0 : preview(ctx, cookie, &shown, err);

	if (r < 0 || ctx->yes || !any_ok(&shown))
		return r;
	r = qs_confirm(ctx, what, &shown, err);
	if (r < 0)
		return r;
	r = preview(ctx, cookie, &now, err);
	if (r >= 0 && !qs_confirm_unchanged(&shown, &now))
		return qs_fail(err, QS_E_UNCONFIRMED,
			       "the devices have changed since they were shown, nothing was "
			       "changed; run the command again");
	return r;
}
