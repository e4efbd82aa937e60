/*
 * Which device is meant, and by which name and key files it is opened.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "device/links.h"
#include "key/command.h"
#include "key/keyfile.h"
#include "key/place.h"
#include "luks/make.h"
#include "luks/unlock.h"
#include "ops/internal.h"
#include "ops/keystore.h"
#include "ops/open.h"
#include "tab/crypttab.h"

void qs_open_request_done(struct qs_open_request *request)
{
	free(request->name);
	free(request->link);
	free(request->node);
	for (size_t i = 0; i < QS_OPEN_KEYS; i++)
		free(request->key_files[i]);
	*request = (struct qs_open_request){};
}

const struct qs_crypttab_entry *qs_open_line_of(const struct qs_env *env,
						const struct qs_crypttab *tab,
						const struct qs_device *dev, const char *uuid)
{
	for (size_t i = 0; i < qs_crypttab_count(tab); i++) {
		const struct qs_crypttab_entry *e = qs_crypttab_get(tab, i);

		if (!e->device)
			continue;
		if (strncmp(e->device, "UUID=", 5) == 0 && strcasecmp(e->device + 5, uuid) == 0)
			return e;
		if (qs_links_may_lead(env, i, e->device, dev) &&
		    qs_device_leads_to(env, e->device, dev) > 0)
			return e;
	}
	return NULL;
}

const char *qs_open_foreign_option(const char *options)
{
	static const char *const words[] = {
		"plain",      "swap",           "tmp",          "tcrypt",    "bitlk",
		"header",     "keyfile-offset", "keyfile-size", "keyscript", "fido2-device",
		"pkcs11-uri",
	};

	for (size_t i = 0; i < QS_ARRAY_SIZE(words); i++)
		if (qs_crypttab_has_option(options, words[i]))
			return words[i];
	return NULL;
}

void qs_open_add_key(struct qs_open_request *request, const char *key_file)
{
	for (size_t i = 0; i < QS_OPEN_KEYS; i++) {
		if (!request->key_files[i]) {
			request->key_files[i] = qs_strdup(key_file);
			return;
		}
		if (strcmp(request->key_files[i], key_file) == 0)
			return;
	}
}

void qs_open_apply_line(struct qs_open_request *request, const struct qs_crypttab_entry *e)
{
	if (e->key && e->key[0] == '/') {
		request->line_key = !request->key_files[0];
		qs_open_add_key(request, e->key);
	}
	if (qs_crypttab_has_option(e->options, "readonly") ||
	    qs_crypttab_has_option(e->options, "read-only"))
		request->read_only = true;
	request->optional = qs_crypttab_has_option(e->options, "nofail");
	if (qs_crypttab_has_option(e->options, "discard"))
		request->allow_discards = true;
}

int qs_open_make_request(const struct qs_env *env, const struct qs_device *dev,
			 const struct qs_luks_header *h, const struct qs_crypttab *tab,
			 const char *key_file, struct qs_open_request *ret, struct qs_error *err)
{
	const struct qs_crypttab_entry *e = qs_open_line_of(env, tab, dev, h->uuid);
	QS_AUTO(qs_auto_free) char *usual = NULL;
	QS_AUTO(qs_auto_free) char *labelled = NULL;
	int r = qs_device_name(env, dev, h->uuid, &ret->link, &ret->name, err);

	if (r < 0)
		return r;
	ret->node = qs_strdup(dev->node);
	usual = qs_key_path(env, ret->name);
	if (e)
		qs_outcome_set(&ret->name, e->name);
	if (key_file) {
		ret->key_files[0] = qs_env_absolute(key_file);
	} else {
		ret->command = qs_key_command_is_set(env);
		ret->keystore = qs_keystore_is_there(env);
		ret->no_keystore = !ret->keystore;
		if (e)
			qs_open_apply_line(ret, e);
		qs_open_add_key(ret, usual);
		if (strcmp(h->subsystem, QS_SUBSYSTEM) == 0 && !strchr(h->label, '/')) {
			labelled = qs_key_path(env, h->label);
			qs_open_add_key(ret, labelled);
		}
	}
	if (e && !key_file && qs_open_foreign_option(e->options))
		return qs_fail(
			err, QS_E_FAILED,
			"line %u of %s has the option %s, which qs-util does not handle; use "
			"systemctl start systemd-cryptsetup@%s",
			e->line, QS_CRYPTTAB, qs_open_foreign_option(e->options), e->name);
	return 0;
}

int qs_open_find(const struct qs_env *env, const char *key_file, struct qs_outcome *o,
		 struct qs_device **ret_dev, struct qs_luks_header *ret_header,
		 struct qs_open_request *request)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	struct qs_error *err = &o->error;
	int r = qs_device_find(env, o->device, ret_dev, err);

	if (r < 0)
		return r;
	qs_outcome_set_device(o, *ret_dev);
	r = qs_crypttab_load(env, &tab, err);
	if (r == 0)
		r = qs_device_peek_header(*ret_dev, ret_header, err);
	if (r < 0)
		return r;
	if (ret_header->version == 0)
		return qs_luks_explain((*ret_dev)->node, err);
	qs_outcome_set(&o->uuid, ret_header->uuid);
	r = qs_open_make_request(env, *ret_dev, ret_header, tab, key_file, request, err);
	if (r < 0)
		return r;
	qs_outcome_set(&o->by_id, request->link);
	qs_outcome_set(&o->name, request->name);
	return 0;
}

bool qs_open_has_key_file(const struct qs_env *env, const struct qs_open_request *request)
{
	if (request->key)
		return true;
	for (size_t i = 0; i < QS_OPEN_KEYS && request->key_files[i]; i++) {
		QS_AUTO(qs_auto_free) char *real = qs_env_path(env, request->key_files[i]);

		if (access(real, F_OK) == 0)
			return true;
	}
	return false;
}

bool qs_open_has_own_key(const struct qs_env *env, const struct qs_open_request *request)
{
	return request->command || qs_open_has_key_file(env, request) ||
	       qs_open_keystore_has(env, request);
}

bool qs_open_may_be_our_line(const struct qs_env *env, const struct qs_crypttab_entry *e)
{
	if (!e->device || !e->key || qs_open_foreign_option(e->options))
		return false;
	if (e->key[0] != '/')
		return strncmp(e->name, "enc-", 4) == 0 && qs_crypttab_no_key(e->key);
	return strncmp(e->name, "enc-", 4) == 0 || qs_key_is_in_dir(env, e->key);
}

bool qs_open_is_our_line(const struct qs_env *env, const struct qs_crypttab_entry *e)
{
	return qs_open_may_be_our_line(env, e) &&
	       (e->key[0] == '/' || qs_key_command_is_set(env) || qs_tpm2_is_there(env) ||
		qs_keystore_is_there(env));
}
