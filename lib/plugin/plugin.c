/*
 * libcryptsetup-token-qs-keystore.so: opens the token "qs-keystore" inside of other programs,
 * so that plain `cryptsetup open` and systemd-cryptsetup open what the keystore wrapped.
 * libcryptsetup finds it by its name and calls the functions below
 * (libcryptsetup.h, "LUKS2 token wrapper"). qs-util itself never loads it.
 *
 * The header is checked as our own opening does (one crypt segment, no null cipher, no
 * reencryption, bounded costs), and then the volume's identity: what libcryptsetup holds
 * here is what it activates afterwards. A refusal is -EPERM, which makes
 * it go on to other tokens; the sentence says that no passphrase should be typed.
 *
 * Nothing is printed but through the program's own log function, and what is loaded once
 * stays: JSON's allocation functions point into it (linked with -z nodelete).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>

#include <libcryptsetup.h>

#include "base/cleanup.h"
#include "base/module.h"
#include "keystore/device.h"
#include "luks/unlock.h"

#define EXPORT __attribute__((visibility("default")))

/* The prototypes stand in libcryptsetup.h as types only. */
EXPORT int cryptsetup_token_open(struct crypt_device *cd, int token, char **buffer,
				 size_t *buffer_len, void *usrptr);
EXPORT void cryptsetup_token_buffer_free(void *buffer, size_t buffer_len);
EXPORT int cryptsetup_token_validate(struct crypt_device *cd, const char *json);
EXPORT void cryptsetup_token_dump(struct crypt_device *cd, const char *json);
EXPORT const char *cryptsetup_token_version(void);

/* Never -EAGAIN or -ENOANO, which mean other things to libcryptsetup. */
static int refuse(struct crypt_device *cd, const struct qs_error *err)
{
	QS_AUTO(qs_auto_free)
	char *text =
		qs_printf("The keystore of qs-util does not open this: %s%s\n", err->text,
			  err->kind == QS_E_HOSTILE ? ". Type no passphrase for this volume." : "");

	crypt_log(cd, CRYPT_LOG_ERROR, text);
	return -EPERM;
}

/* Where `make install-token-plugin` sees to it that our modules are found, from its own place. */
#define MODULES "../qs-util"

static void find_modules(void)
{
	Dl_info self;

	if (dladdr((void *)find_modules, &self) != 0)
		qs_module_look_beside(self.dli_fname, MODULES);
}

static int parse(const char *text, json_t **ret, struct qs_error *err)
{
	*ret = json_loads(text ? text : "", JSON_REJECT_DUPLICATES, NULL);
	return *ret ? 0 : qs_fail(err, QS_E_DAMAGED, "its token is not usable JSON");
}

static int unwrap(const struct qs_env *env, struct crypt_device *cd, const json_t *token,
		  struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	struct qs_keystore_token t;
	struct qs_keystore ks = {};
	int r = qs_luks_header_of(cd, &h, err);

	if (r == 0)
		r = qs_luks_check_identity(env, &h, NULL, err);
	if (r == 0)
		r = qs_keystore_load(env, &ks, err);
	return r < 0 ? r : qs_keystore_unwrap(env, &ks, cd, token, ret, NULL, &t, err);
}

static int open_token(struct crypt_device *cd, int number, struct qs_secret *ret,
		      struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *token = NULL;
	struct qs_env env = { .root = "" };
	const char *text = NULL;
	int r = crypt_token_json_get(cd, number, &text);

	if (r < 0)
		return qs_fail_errno(err, r, "cannot read token %d", number);
	r = parse(text, &token, err);
	if (r < 0)
		return r;
	qs_config_init(&env.config);
	r = qs_config_load(&env.config, QS_CONFIG_FILE, false, err);
	if (r == 0)
		r = unwrap(&env, cd, token, ret, err);
	qs_config_done(&env.config);
	return r;
}

int cryptsetup_token_open(struct crypt_device *cd, int token, char **buffer, size_t *buffer_len,
			  void *usrptr)
{
	struct qs_secret key = {};
	struct qs_error err = {};

	(void)usrptr;
	find_modules();
	if (open_token(cd, token, &key, &err) < 0)
		return refuse(cd, &err);
	*buffer = key.data;
	*buffer_len = key.size;
	return 0;
}

/* A secret knows by itself how long it is. */
void cryptsetup_token_buffer_free(void *buffer, size_t buffer_len)
{
	struct qs_secret key = { buffer, buffer_len };

	qs_secret_done(&key);
}

static int read_token(struct crypt_device *cd, const char *text, json_t **ret,
		      struct qs_keystore_token *ret_token, struct qs_error *err)
{
	const char *uuid = crypt_get_uuid(cd);
	int r = parse(text, ret, err);

	return r < 0 ? r : qs_keystore_token_parse(*ret, uuid ? uuid : "", ret_token, err);
}

int cryptsetup_token_validate(struct crypt_device *cd, const char *json)
{
	QS_AUTO(qs_auto_json) json_t *token = NULL;
	struct qs_keystore_token t;
	struct qs_error err = {};

	if (read_token(cd, json, &token, &t, &err) == 0)
		return 0;
	(void)refuse(cd, &err);
	return -EINVAL;
}

void cryptsetup_token_dump(struct crypt_device *cd, const char *json)
{
	QS_AUTO(qs_auto_json) json_t *token = NULL;
	QS_AUTO(qs_auto_free) char *text = NULL;
	struct qs_keystore_token t;

	if (read_token(cd, json, &token, &t, NULL) < 0)
		return;
	text = qs_printf("\tkeystore:   %s\n\tprovider:   %s\n\tgeneration: %u\n", t.store,
			 t.provider, (unsigned)t.generation);
	crypt_log(cd, CRYPT_LOG_NORMAL, text);
}

const char *cryptsetup_token_version(void)
{
	return QS_VERSION;
}
