#include "ask-bundle.h"

static int ask_passphrase(void *cookie, struct qs_secret *ret, struct qs_error *err)
{
	const struct qs_context *ctx = cookie;
	const bool by_key = qs_option_given(ctx, "key-file");
	const struct qs_ask ask = { .file_option = "passphrase-file",
				    .fd_option = "passphrase-fd",
				    .prompt = by_key ? "Passphrase of the private key"
						     : "Passphrase of the bundle" };

	return qs_ask_passphrase(ctx, &ask, ret, err);
}

struct qs_bundle_unlock qs_ask_bundle(struct qs_context *ctx, char **ret_path)
{
	const char *key = qs_option_value(ctx, "key-file");

	*ret_path = key ? qs_env_absolute(key) : NULL;
	return (struct qs_bundle_unlock){ *ret_path, ask_passphrase, ctx };
}
