/*
 * Progress on stderr: a bar on a terminal, or JSON lines.
 */
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "command.h"

#define BAR_WIDTH 20
#define CLEAR_LINE "\r\033[K"

/* A bar stands on the terminal's last line: any other output takes it away first. */
static bool bar_shown;

void qs_progress_clear(void)
{
	if (bar_shown)
		fputs(CLEAR_LINE, stderr);
	bar_shown = false;
}

static size_t terminal_columns(void)
{
	struct winsize size = {};

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
		return 80;
	return size.ws_col;
}

/* "[########            ]  9/24 /dev/sdj: format" */
static void show_bar(const struct qs_progress *p, void *cookie)
{
	QS_AUTO(qs_auto_free) char *device = qs_utf8_printable(p->device);
	QS_AUTO(qs_auto_free) char *line = NULL;
	char bar[BAR_WIDTH + 1] = "";
	uint64_t total = p->total > 0 ? p->total : 1;
	uint64_t filled = p->done < total ? p->done * BAR_WIDTH / total : BAR_WIDTH;

	(void)cookie;
	memset(bar, '#', filled);
	line = qs_printf("[%-*s] %llu/%llu %s: %s", BAR_WIDTH, bar, (unsigned long long)p->done,
			 (unsigned long long)p->total, device, p->step ? p->step : "");
	fprintf(stderr, CLEAR_LINE "%.*s", (int)terminal_columns() - 1, line);
	bar_shown = true;
}

static void show_json(const struct qs_progress *p, void *cookie)
{
	QS_AUTO(qs_auto_free) char *line = NULL;
	QS_AUTO(qs_auto_json)
	json_t *event = json_pack("{s:s, s:I, s:I}", "event", "progress", "done",
				  (json_int_t)p->done, "total", (json_int_t)p->total);

	(void)cookie;
	if (p->device)
		json_object_set_new(event, "device", qs_utf8_json(p->device));
	if (p->step)
		json_object_set_new(event, "step", qs_utf8_json(p->step));
	line = json_dumps(event, JSON_COMPACT | JSON_ENSURE_ASCII);
	if (line)
		fprintf(stderr, "%s\n", line);
}

static bool wants_bar(const struct qs_context *ctx)
{
	const char *terminal = getenv("TERM");

	return ctx->progress == QS_PROGRESS_AUTO && !ctx->quiet && !ctx->json && !ctx->verbose &&
	       isatty(STDERR_FILENO) && terminal && strcmp(terminal, "dumb") != 0;
}

void qs_progress_start(struct qs_context *ctx)
{
	if (ctx->progress == QS_PROGRESS_JSON)
		ctx->env.progress = show_json;
	else if (wants_bar(ctx))
		ctx->env.progress = show_bar;
}
