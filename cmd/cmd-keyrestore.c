#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ask-bundle.h"
#include "base/cleanup.h"
#include "base/utf8.h"
#include "command.h"
#include "ops/bundle.h"

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* What is asked about: the files and lines that are there and differ. */
static void list_replaced(const json_t *plan, struct qs_outcomes *ret)
{
	const json_t *item;
	size_t i;

	json_array_foreach(json_object_get(plan, "items"), i, item)
	{
		struct qs_outcome *o;

		if (strcmp(text_of(item, "action"), "replace") != 0)
			continue;
		ret->items = realloc(ret->items, (ret->count + 1) * sizeof(*ret->items));
		if (!ret->items)
			abort();
		o = &ret->items[ret->count++];
		*o = (struct qs_outcome){ .device = qs_strdup(text_of(item, "path")) };
		if (json_object_get(item, "name"))
			o->note = qs_printf("the line of %s", text_of(item, "name"));
	}
}

static int confirm(void *cookie, const json_t *plan, struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes replaced = {};

	list_replaced(plan, &replaced);
	return qs_confirm(cookie, "these differ from the bundle and will be replaced", &replaced,
			  err);
}

static const struct {
	const char *action, *planned, *done;
} words[] = {
	{ "create", "would be created", "created" },
	{ "same", "is the same", "was the same" },
	{ "replace", "would be replaced", "replaced" },
	{ "keep", "differs and would stay", "differs and stays" },
	{ "conflict", "differs", "differs" },
};

static const char *word_of(const json_t *item, bool dry_run)
{
	for (size_t i = 0; i < QS_ARRAY_SIZE(words); i++)
		if (strcmp(text_of(item, "action"), words[i].action) == 0)
			return dry_run ? words[i].planned : words[i].done;
	return "";
}

static char *say(const json_t *result, bool planned)
{
	char *text = NULL;
	size_t size = 0, i;
	FILE *out = open_memstream(&text, &size);
	const json_t *item;

	if (!out)
		abort();
	json_array_foreach(json_object_get(result, "items"), i, item)
	{
		QS_AUTO(qs_auto_free) char *path = qs_utf8_printable(text_of(item, "path"));
		QS_AUTO(qs_auto_free) char *name = qs_utf8_printable(text_of(item, "name"));

		fprintf(out, "%s%s%s: %s\n", path, *name ? ": the line of " : "", name,
			word_of(item, planned));
	}
	if (fclose(out) != 0)
		abort();
	return text;
}

static int run(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	const char *only[QS_OPTIONS_MAX];
	QS_AUTO(qs_auto_free) char *key = NULL;
	const struct qs_keyrestore_options options = {
		.file = argv[0],
		.unlock = qs_ask_bundle(ctx, &key),
		.only = only,
		.only_count = qs_option_values(ctx, "only", only, QS_OPTIONS_MAX),
		.force = qs_option_given(ctx, "force"),
		.dry_run = qs_option_given(ctx, "dry-run"),
		.confirm = confirm,
		.confirm_cookie = ctx,
	};
	int r;

	(void)argc;
	r = qs_keyrestore(&ctx->env, &options, &ctx->result, err);
	/* After a failure the plan says what is in the way. */
	if (ctx->result && !ctx->json && !ctx->quiet && (r == 0 || err->kind == QS_E_REFUSED))
		ctx->text = say(ctx->result, options.dry_run || r < 0);
	return r;
}

static const struct qs_option options[] = {
	{ .name = "dry-run", .help = "only show what would be created and replaced" },
	{ .name = "only",
	  .arg = "NAME",
	  .repeats = true,
	  .help = "only the key, header backup and line of this device; may be repeated" },
	{ .name = "force",
	  .help = "replace keys, configuration and lines that differ; asks first, and keeps the "
		  "old keys as FILE.1, FILE.2" },
	QS_BUNDLE_OPTIONS,
	{}
};

static const struct qs_example examples[] = {
	{ "keyrestore --dry-run --key-file /root/backup.pem /mnt/usb/keys.cms",
	  "look at a bundle without changing anything" },
	{ "keyrestore --key-file /root/backup.pem /mnt/usb/keys.cms",
	  "bring back what is missing" },
	{}
};

static const struct qs_status statuses[] = {
	{ 1, "the bundle is damaged or was changed; nothing was written" },
	{ 2, "the passphrase or private key does not open it" },
	{ 6, "a key differs from the one that is there; nothing was written" },
	{}
};

const struct qs_command qs_row_keyrestore = {
	.name = "keyrestore",
	.args = "FILE",
	.min_args = 1,
	.max_args = 1,
	.help = "bring back what a key bundle holds",
	.about =
		"Reads a bundle of keybackup, authenticates all of it, and then creates what is "
		"missing: keys, header backups, the configuration, and the lines of our devices in "
		"/etc/crypttab. Other lines of that file, and /etc/fstab, are left alone; the bundle "
		"has both for reading.\n"
		"What is the same is left as it is. A key that differs from the one in the bundle is "
		"never overwritten without --force: the command refuses and restores nothing. Header "
		"backups that differ stay, as they are newer. A configuration that differs stays "
		"too, unless nothing has been set in it.\n"
		"If it is interrupted, the same command again finishes it.\n"
		"A passphrase proves that whoever made the bundle knew it. A certificate proves "
		"nothing: anybody can seal a bundle to it, so restore only what you know the origin "
		"of.\n",
	.options = options,
	.statuses = statuses,
	.examples = examples,
	.see_also = "qs-util-keybackup(8) qs-util-cryptopenall(8)",
	.flags = QS_CMD_NEEDS_ROOT | QS_CMD_CHANGES | QS_CMD_DESTROYS,
	.files = QS_FILE_KEYS | QS_FILE_HEADERS | QS_FILE_CRYPTTAB,
	.run = run,
};
