/*
 * What can be added by cryptenroll, but for a new key file of the device's own
 * (enroll-rekey.c).
 */
#include <stdlib.h>
#include <string.h>

#include <libcryptsetup.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "key/keyfile.h"
#include "key/recovery.h"
#include "luks/kind.h"
#include "ops/enroll.h"

/* ---- a key file that somebody has ---- */

static int prepare_key_file(struct qs_enroll *e, struct qs_error *err)
{
	(void)err;
	e->file = qs_env_absolute(e->options->file);
	return 0;
}

static int make_key_file(struct qs_enroll *e, struct qs_error *err)
{
	e->token = qs_slot_token(QS_SLOT_TYPE, QS_KIND_KEY_FILE);
	(void)json_object_set_new(e->result, "file", json_string(e->file));
	return qs_key_load(e->env, e->file, &e->secret, err);
}

const struct qs_enroll_method qs_enroll_key_file = {
	.name = "key-file",
	.kind = QS_KIND_KEY_FILE,
	.pbkdf = CRYPT_KDF_ARGON2ID,
	.prepare = prepare_key_file,
	.make = make_key_file,
};

/* ---- a passphrase ---- */

static int make_passphrase(struct qs_enroll *e, struct qs_error *err)
{
	int r = qs_secret_init(&e->secret, e->options->passphrase->size, err);

	if (r < 0)
		return r;
	memcpy(e->secret.data, e->options->passphrase->data, e->secret.size);
	e->token = qs_slot_token(QS_SLOT_TYPE, QS_KIND_PASSPHRASE);
	return 0;
}

const struct qs_enroll_method qs_enroll_passphrase = {
	.name = "passphrase",
	.kind = QS_KIND_PASSPHRASE,
	.pbkdf = CRYPT_KDF_ARGON2ID,
	.make = make_passphrase,
};

/* ---- a recovery key, shown to a person or written to a file ---- */

/* The file of a run that was cut off. */
static int take_recovery_file(struct qs_enroll *e, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret text = {};
	QS_AUTO(qs_auto_free) char *real = qs_env_path(e->env, e->file);
	int r = qs_key_load(e->env, e->file, &text, err);

	if (r == 0)
		r = qs_file_sync(real, err);
	if (r == 0)
		r = qs_recovery_spell(&text, &e->secret, err);
	if (r == 0)
		return qs_fail(err, QS_E_KEY_FILE, "%s does not hold a recovery key", e->file);
	return r < 0 ? r : 0;
}

/* The file is durable before the header depends on it. */
static int make_recovery_file(struct qs_enroll *e, struct qs_error *err)
{
	const struct qs_replace how = { .mode = 0400, .exclusive = true };
	QS_AUTO(qs_auto_free) char *real = qs_env_path(e->env, e->file);
	int r = e->pending.op[0] ? qs_enroll_exists(e, e->file, err) : 0;

	(void)json_object_set_new(e->result, "file", json_string(e->file));
	if (r != 0)
		return r < 0 ? r : take_recovery_file(e, err);
	r = qs_enroll_note(e, e->file, NULL, err);
	if (r == 0)
		r = qs_recovery_generate(&e->secret, err);
	return r < 0 ? r : qs_file_replace(real, e->secret.data, e->secret.size, &how, err);
}

/*
 * No keyslot has this key, so nothing needs to be overwritten; if the file cannot be
 * removed either, the second run finds it whole.
 */
static int undo_recovery(struct qs_enroll *e)
{
	QS_AUTO(qs_auto_free) char *real = e->file ? qs_env_path(e->env, e->file) : NULL;
	int r = real ? qs_file_remove(real, NULL) : 0;

	return r < 0 ? r : qs_journal_remove(e->env, e->name, NULL);
}

static int prepare_recovery(struct qs_enroll *e, struct qs_error *err)
{
	const char *begun = e->pending.key_file;
	int r;

	e->file = e->options->file ? qs_env_absolute(e->options->file) : NULL;
	if (begun && (!e->file || strcmp(begun, e->file) != 0))
		return qs_fail(
			err, QS_E_REFUSED,
			"a recovery key in %s was begun and not finished: run cryptenroll with "
			"that file again",
			begun);
	r = e->file && !begun ? qs_enroll_exists(e, e->file, err) : 0;
	if (r == 1)
		r = qs_fail(err, QS_E_EXISTS,
			    "%s exists already; a recovery key is written to a new file", e->file);
	if (r < 0)
		return r;
	/* What is shown in the end has to be known here: nothing secret comes from a worker. */
	return e->file ? 0 : qs_recovery_generate(&e->secret, err);
}

static int make_recovery(struct qs_enroll *e, struct qs_error *err)
{
	e->token = qs_slot_token(QS_RECOVERY_TYPE, NULL);
	return e->file ? make_recovery_file(e, err) : 0;
}

static int note_recovery(struct qs_enroll *e, const char *salt, struct qs_error *err)
{
	return e->file ? 0 : qs_enroll_note(e, NULL, salt, err);
}

static int finish_recovery(struct qs_enroll *e, struct qs_error *err)
{
	int r = e->file ? 0 : e->options->show(e->options->show_cookie, &e->secret, err);

	return r < 0 ? r : qs_journal_remove(e->env, e->name, err);
}

const struct qs_enroll_method qs_enroll_recovery = {
	.name = "recovery",
	.kind = QS_KIND_RECOVERY,
	.op = "recovery-key",
	.prepare = prepare_recovery,
	.make = make_recovery,
	.before = note_recovery,
	.undo = undo_recovery,
	.finish = finish_recovery,
};
