/*
 * cryptenroll --new-key: another key in the device's own key file. The steps are
 * those of enroll.c; what lies in the keys directory after each of them:
 *
 *   step                                NAME.key   NAME.key.new  NAME.key.old
 *   journal, with the old slot's salt   old        -             -
 *   generate, add, prove, back up       old        new           -
 *   second name for the old file        old        new           old
 *   rename                              new        -             old
 *   revoke the old slot, purge          new        -             old
 *   overwrite and remove, journal       new        -             -
 *
 * Where both keys exist both open the device. A file system without hard links
 * has no NAME.key.old.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "key/keydir.h"
#include "key/keyfile.h"
#include "key/place.h"
#include "luks/fingerprint.h"
#include "luks/kind.h"
#include "ops/enroll.h"

static char *new_path(const struct qs_enroll *e)
{
	return qs_printf("%s" QS_KEY_NEW, e->file);
}

static char *old_path(const struct qs_enroll *e)
{
	return qs_printf("%s" QS_KEY_OLD, e->file);
}

/* The key file that opens the device at boot, by its line or its name. */
static int usual_key(struct qs_enroll *e, struct qs_error *err)
{
	const char *const *files = (const char *const *)e->request.key_files;
	int r = 0;

	for (size_t i = 0; !e->options->unlock.key_file && i < QS_OPEN_KEYS && files[i]; i++) {
		r = qs_enroll_exists(e, files[i], err);
		if (r == 1)
			e->file = qs_strdup(files[i]);
		if (r != 0)
			return r;
	}
	e->file = qs_key_path(e->env, e->name);
	return qs_enroll_exists(e, e->file, err);
}

static int prepare_new_key(struct qs_enroll *e, struct qs_error *err)
{
	int there, r = qs_key_dir_answers(e->env, err);

	if (r < 0)
		return r;
	e->file = qs_strdup(e->pending.key_file);
	there = e->file ? qs_enroll_exists(e, e->file, err) : usual_key(e, err);
	if (there < 0)
		return there;
	if (!qs_key_is_in_dir(e->env, e->file))
		return qs_fail(
			err, QS_E_REFUSED,
			"the key file %s is not in %s, so it is not replaced; add another with "
			"--key-file and wipe this one's slot",
			e->file, e->env->config.keys_dir);
	r = there ? qs_key_check_dir(e->env, err) : qs_key_check_new(e->env, err);
	if (r == 0)
		r = qs_key_is_shared(e->env, e->name, e->file, err);
	if (r == 1)
		r = qs_fail(err, QS_E_REFUSED,
			    "another line of /etc/crypttab uses the key file %s, too", e->file);
	return r;
}

int qs_enroll_key_slot(struct qs_enroll *e, const char **ret_salt, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	int r = qs_enroll_exists(e, e->file, err);

	*ret_salt = NULL;
	if (r <= 0)
		return r;
	r = qs_key_load(e->env, e->file, &key, err);
	if (r == 0)
		r = qs_enroll_try(e, &key, 0, err);
	if (r < 0) {
		qs_error_append(err, " (key file %s; move it away if it is not this device's)",
				e->file);
		return r;
	}
	*ret_salt = qs_slots_salt(e->slots.header.json, r);
	return 0;
}

static int make_token(struct qs_enroll *e, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret digest = {};
	struct qs_fingerprint print = { .slot = 0 }; /* the real number comes when it is known */
	int r = qs_fingerprint_digest(&e->secret, &digest, err);

	if (r == 0)
		r = qs_fingerprint_make(&digest, e->slots.header.uuid, print.sum, err);
	if (r == 0)
		e->token = qs_fingerprint_token(&print);
	return r;
}

/* What an interrupted run left is taken: NAME.key.new, or NAME.key when it is the new one already.
 */
static int take_key(struct qs_enroll *e, const char *old_salt, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *new = new_path(e);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(e->env, new);
	bool begun = e->pending.op[0];
	int r = begun ? qs_enroll_exists(e, new, err) : 0;

	if (r < 0)
		return r;
	if (begun && r == 0 && old_salt && (!e->drop || strcmp(e->drop, old_salt) != 0))
		return qs_key_load(e->env, e->file, &e->secret, err);
	if (!begun)
		e->drop = qs_strdup(old_salt);
	if (r == 1) {
		r = qs_key_load(e->env, new, &e->secret, err);
		return r < 0 ? r : qs_file_sync(real, err);
	}
	return qs_key_generate(e->env, new, &e->secret, err);
}

static int make_new_key(struct qs_enroll *e, struct qs_error *err)
{
	const char *old_salt = NULL;
	int r = qs_enroll_key_slot(e, &old_salt, err);

	/* Written again at a second run: the first may not have synced it. */
	if (r == 0)
		r = qs_enroll_note(e, e->file, e->pending.op[0] ? e->drop : old_salt, err);
	if (r == 0)
		r = take_key(e, old_salt, err);
	if (r == 0)
		r = make_token(e, err);
	(void)json_object_set_new(e->result, "file", json_string(e->file));
	return r;
}

static int undo_new_key(struct qs_enroll *e)
{
	QS_AUTO(qs_auto_free) char *new = new_path(e);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(e->env, new);
	int r = qs_file_erase(real, NULL);

	return r < 0 ? r : qs_journal_remove(e->env, e->name, NULL);
}

/* A second name, so that the old key can be overwritten when nothing needs it any more. */
static int keep_old(const char *key, const char *old, struct qs_error *err)
{
	struct stat a, b;

	if (stat(key, &a) < 0)
		return errno == ENOENT ? 0 : qs_fail_errno(err, errno, "cannot look at %s", key);
	if (stat(old, &b) == 0 && (a.st_ino != b.st_ino || a.st_dev != b.st_dev)) {
		int r = qs_file_erase(old, err);

		if (r < 0)
			return r;
	}
	if (link(key, old) == 0)
		return qs_file_sync_parent(old, err);
	if (errno == EEXIST || errno == EPERM || errno == EOPNOTSUPP || errno == EMLINK)
		return 0;
	return qs_fail_errno(err, errno, "cannot link %s to %s", key, old);
}

static int rename_new(struct qs_enroll *e, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *new = new_path(e);
	QS_AUTO(qs_auto_free) char *old = old_path(e);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(e->env, e->file);
	QS_AUTO(qs_auto_free) char *real_new = qs_env_path(e->env, new);
	QS_AUTO(qs_auto_free) char *real_old = qs_env_path(e->env, old);
	int r = qs_enroll_exists(e, new, err);

	/* Renamed in a run that was killed before it was durable? */
	if (r <= 0)
		return r < 0 ? r : qs_file_sync_parent(real, err);
	r = keep_old(real, real_old, err);
	if (r < 0)
		return r;
	if (rename(real_new, real) < 0)
		return qs_fail_errno(err, errno, "cannot put the new key in the place of %s",
				     e->file);
	return qs_file_sync_parent(real, err);
}

static int close_new_key(struct qs_enroll *e, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *old = old_path(e);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(e->env, old);
	int r = qs_file_erase(real, err);

	return r < 0 ? r : qs_journal_remove(e->env, e->name, err);
}

const struct qs_enroll_method qs_enroll_new_key = {
	.name = "new-key",
	.kind = QS_KIND_KEY_FILE,
	.op = "new-key",
	.prepare = prepare_new_key,
	.make = make_new_key,
	.undo = undo_new_key,
	.settle = rename_new,
	.close = close_new_key,
};
