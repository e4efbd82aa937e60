/*
 * Opening: what is asked of the TPM and of people before the workers begin.
 */
#include "ops/open.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "luks/unlock.h"
#include "ops/internal.h"

int qs_open_begin_tpm2(const struct qs_env *env, const struct qs_open_options *options,
		       struct qs_open_request *requests, size_t count, const bool *only,
		       struct qs_tpm2_keys *keys, struct qs_tpm2_fetch **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) struct qs_tpm2_device *devices = NULL;
	bool there = qs_tpm2_is_there(env);
	int r;

	if (options->key_file || options->passphrase || options->bundle)
		return 0;
	for (size_t i = 0; i < count; i++)
		requests[i].no_tpm2 = !there;
	if (!there)
		return 0;
	devices = calloc(count + 1, sizeof(*devices));
	if (!devices)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", count);
	for (size_t i = 0; i < count; i++)
		if (!only || only[i])
			devices[i] = (struct qs_tpm2_device){ requests[i].node, requests[i].name };
	r = qs_tpm2_fetch_begin(env, devices, count, options->pin, false, keys, ret, err);
	for (size_t i = 0; r == 0 && i < count; i++)
		requests[i].tpm2 = &keys->items[i];
	return r;
}

int qs_open_ask_tpm2(const struct qs_env *env, const struct qs_open_options *options,
		     struct qs_open_request *requests, size_t count, const bool *only,
		     struct qs_tpm2_keys *keys, struct qs_error *err)
{
	QS_AUTO(qs_tpm2_fetch_done) struct qs_tpm2_fetch *f = NULL;
	int r = qs_open_begin_tpm2(env, options, requests, count, only, keys, &f, err);

	if (r == 0 && f && qs_tpm2_fetch_pool(f))
		r = qs_pool_run(qs_tpm2_fetch_pool(f), 1, err);
	return r;
}

int qs_open_ask_tpm2_and_pin(const struct qs_env *env, const struct qs_open_options *options,
			     struct qs_open_request *request, struct qs_tpm2_keys *keys,
			     struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret pin = {};
	struct qs_open_options with_pin = *options;
	int r = qs_open_ask_tpm2(env, options, request, 1, NULL, keys, err);

	if (r < 0 || !request->tpm2 || request->tpm2->error.kind != QS_E_PIN || options->pin ||
	    !options->ask_pin || qs_open_has_own_key(env, request))
		return r;
	r = options->ask_pin(options->ask_cookie, request->name, &pin, err);
	if (r < 0)
		return r;
	with_pin.pin = &pin;
	request->tpm2 = NULL;
	qs_tpm2_keys_done(keys);
	return qs_open_ask_tpm2(env, &with_pin, request, 1, NULL, keys, err);
}

/* A planted volume shall not teach anybody the passphrase of the one that it stands for. */
static int check_before_asking(const struct qs_env *env, const struct qs_open_request *request,
			       struct qs_error *err)
{
	const struct qs_device dev = { .node = request->node };
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	int r = qs_device_peek_header(&dev, &h, err);

	return r < 0 || h.version != 2 ? r : qs_luks_check_identity(env, &h, request->name, err);
}

int qs_open_ask(const struct qs_env *env, const struct qs_open_options *options,
		struct qs_open_request *request, struct qs_secret *asked, struct qs_error *err)
{
	int r;

	request->passphrase = options->passphrase;
	request->keystore &= !options->passphrase;
	request->no_keystore &= !options->passphrase;
	if (options->passphrase || options->key_file || options->update_crypttab || !options->ask ||
	    (request->tpm2 && request->tpm2->there) || qs_open_has_own_key(env, request))
		return 0;
	r = check_before_asking(env, request, err);
	if (r < 0)
		return r;
	request->passphrase = asked;
	return options->ask(options->ask_cookie, asked, err);
}

static bool has_token(const char *node)
{
	const struct qs_device dev = { .node = (char *)node };
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	const char *number;
	json_t *token;

	if (qs_device_peek_header(&dev, &h, NULL) < 0)
		return false;
	json_object_foreach(json_object_get(h.json, "tokens"), number,
			    token) if (qs_tpm2_token_is(token)) return true;
	return false;
}

void qs_open_mention_tpm2(const struct qs_open_request *request, struct qs_error *err)
{
	if (!err || !request->no_tpm2 || (err->kind != QS_E_NO_KEY && err->kind != QS_E_KEY_FILE))
		return;
	if (has_token(request->node))
		qs_error_append(err, "; for its TPM2 keyslot there is no TPM 2.0 to ask");
}
