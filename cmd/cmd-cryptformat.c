#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "command.h"
#include "key/keyfile.h"

/*
 * Below /dev (but for /dev/shm), a block device, or a file larger than any key file may be: an
 * image. So a disk that has just vanished is not taken for a key.
 */
static bool is_device(const struct qs_env *env, const char *word)
{
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, word);
	struct stat st;

	if (strncmp(word, "/dev/", 5) == 0 && strncmp(word, "/dev/shm/", 9) != 0)
		return true;
	/* An image may be named by its real path, also below /var or another prefixed directory. */
	if (stat(path, &st) < 0 && stat(word, &st) < 0)
		return false;
	return S_ISBLK(st.st_mode) || st.st_size > QS_KEY_MAX;
}

/*
 * A last argument that is no device, and not the only one, is the key
 * file. With --key-file every argument is a device. Returns the number of devices.
 */
static size_t take_key_file(const struct qs_context *ctx, int argc, char **argv,
			    struct qs_format_options *options)
{
	options->key_file = qs_option_value(ctx, "key-file");
	if (options->key_file || argc == 1 || is_device(&ctx->env, argv[argc - 1]))
		return (size_t)argc;
	options->key_file = argv[argc - 1];
	return (size_t)argc - 1;
}

/* --force on a device that holds something: asked for, and checked again afterwards. */
static int ask(const struct qs_context *ctx, const char *const *devices, size_t count,
	       struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes shown = {};
	QS_AUTO(qs_outcomes_done) struct qs_outcomes now = {};
	int r;

	qs_format_preview(&ctx->env, devices, count, &shown);
	if (shown.count == 0)
		return 0;
	r = qs_confirm(ctx, "--force will overwrite what is on these devices", &shown, err);
	if (r < 0)
		return r;
	qs_format_preview(&ctx->env, devices, count, &now);
	if (!qs_confirm_unchanged(&shown, &now))
		return qs_fail(err, QS_E_UNCONFIRMED,
			       "the devices have changed since they were shown, nothing was "
			       "formatted; run the command again");
	return 0;
}

int qs_cmd_cryptformat(struct qs_context *ctx, int argc, char **argv, struct qs_error *err)
{
	struct qs_format_options options = {
		.cipher = qs_option_value(ctx, "cipher"),
		.key_size = qs_option_number(ctx, "key-size"),
		.sector_size = qs_option_number(ctx, "sector-size"),
		.pbkdf = qs_option_value(ctx, "pbkdf"),
		.force = qs_option_given(ctx, "force"),
		.no_open = qs_option_given(ctx, "no-open"),
		.no_crypttab = qs_option_given(ctx, "no-crypttab"),
	};
	const char *const *devices = (const char *const *)argv;
	size_t count = take_key_file(ctx, argc, argv, &options);
	int r = 0;

	ctx->done = "formatted as";
	if (options.force && !ctx->yes)
		r = ask(ctx, devices, count, err);
	if (r < 0)
		return r;
	return qs_format(&ctx->env, devices, count, &options, &ctx->outcomes, err);
}
