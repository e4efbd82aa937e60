/*
 * cryptopen, and what cryptopenall shares with it.
 */
#define _GNU_SOURCE
#include "ops/open.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <linux/fs.h>

#include "base/cleanup.h"
#include "key/command.h"
#include "key/keyfile.h"
#include "key/place.h"
#include "key/recovery.h"
#include "luks/unlock.h"
#include "ops/early.h"
#include "ops/event.h"
#include "ops/heal.h"
#include "ops/internal.h"
#include "ops/keystore.h"
#include "tab/crypttab.h"

/* As long as udev may take under load; see also qs_device_wait_link(). */
#define NODE_WAIT_MS 30000

/* ---- in the worker ---- */

struct qs_unlock qs_open_how(const struct qs_open_request *request, int slot,
			     struct qs_worker *worker)
{
	return (struct qs_unlock){
		.name = request->name,
		.test = request->test,
		.read_only = request->read_only,
		.allow_discards = request->allow_discards,
		.slot = slot,
		.worker = worker,
	};
}

/* SLOT -1: all that are cheap, then the others. */
static int try_slot(const struct qs_env *env, struct qs_worker *worker,
		    const struct qs_open_request *request, const struct qs_secret *key, int slot,
		    struct qs_error *err)
{
	const struct qs_unlock how = qs_open_how(request, slot, worker);

	if (request->attempt)
		return request->attempt(request->attempt_cookie, key, err);
	return qs_luks_unlock(env, request->node, key, &how, err);
}

static int try_secret(const struct qs_env *env, struct qs_worker *worker,
		      const struct qs_open_request *request, const struct qs_secret *key,
		      struct qs_error *err)
{
	return try_slot(env, worker, request, key, -1, err);
}

static int try_key(const struct qs_env *env, struct qs_worker *worker,
		   const struct qs_open_request *request, const char *key_file,
		   struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	int r = qs_key_load(env, key_file, &key, err);

	if (r < 0)
		return r;
	r = try_secret(env, worker, request, &key, err);
	if (r == -EPERM)
		qs_error_append(err, " (key file %s)", key_file);
	return r;
}

static int try_command(const struct qs_env *env, struct qs_worker *worker,
		       const struct qs_open_request *request, json_t **ret, struct qs_error *err)
{
	const struct qs_device dev = { .node = request->node };
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	const char *program = env->config.key_command;
	int r = qs_device_peek_header(&dev, &h, err);

	if (r == 0 && h.version == 0)
		return qs_luks_explain(request->node, err);
	if (r == 0)
		r = qs_key_command_run(env, request->name, h.uuid, request->node, &key, err);
	if (r < 0)
		return r;
	r = try_secret(env, worker, request, &key, err);
	if (r == -EPERM)
		qs_error_append(err, " (key printed by %s)", program);
	if (r >= 0)
		*ret = json_pack("{s:s,s:i}", "key_command", program, "keyslot", r);
	return r < 0 ? r : 0;
}

/* A recovery key may have been typed in another spelling than the one that was enrolled. */
static int try_passphrase(const struct qs_env *env, struct qs_worker *worker,
			  const struct qs_open_request *request, json_t **ret, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret spelt = {};
	int r;

	qs_secret_lock(request->passphrase);
	r = qs_recovery_spell(request->passphrase, &spelt, err);
	if (r < 0)
		return r;
	r = try_secret(env, worker, request, r == 1 ? &spelt : request->passphrase, err);
	if (r >= 0)
		*ret = json_pack("{s:i}", "keyslot", r);
	return r < 0 ? r : 0;
}

/* Read in the parent, which holds it locked; so does this worker, as locks are not inherited. */
static int try_bytes(const struct qs_env *env, struct qs_worker *worker,
		     const struct qs_open_request *request, json_t **ret, struct qs_error *err)
{
	int r;

	qs_secret_lock(request->key);
	r = try_secret(env, worker, request, request->key, err);
	if (r >= 0)
		*ret = json_pack("{s:i}", "keyslot", r);
	return r < 0 ? r : 0;
}

int qs_open_stat_device(const char *node, struct qs_device *ret)
{
	struct stat st;

	if (stat(node, &st) < 0)
		return -errno;
	ret->kind = S_ISBLK(st.st_mode) ? QS_DEVICE_DISK : QS_DEVICE_IMAGE;
	ret->devno = S_ISBLK(st.st_mode) ? st.st_rdev : 0;
	return 0;
}

/*
 * Under the device's lock, so that two opens at once do not meet half-way: is it
 * open by now? What an interrupted open left is removed. Returns as
 * qs_open_check_mapping().
 */
static int look_again(const struct qs_open_request *request, const struct qs_device *dev,
		      struct qs_error *err)
{
	QS_AUTO(qs_mapping_list_done) struct qs_mapping_list mappings = {};
	int r = qs_mapping_find(request->name, dev, &mappings, err);

	if (r == 0)
		r = qs_open_check_mapping(&mappings, request->name, dev, "", err);
	if (r != 0)
		return r;
	r = qs_mapping_remove_leftover(request->name, err);
	return r < 0 ? r : 0;
}

/* libcryptsetup would map a read-only disk read-only without a word. */
static int refuse_read_only(const struct qs_open_request *request, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int fd = open(request->node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int read_only = 0;

	if (request->read_only || fd < 0 || ioctl(fd, BLKROGET, &read_only) < 0 || !read_only)
		return 0;
	return qs_fail(err, QS_E_WRONG_DEVICE, "%s is read-only; open it with --read-only",
		       request->node);
}

/* What the TPM gave, on its token's own keyslots only. */
static int try_tpm2(const struct qs_env *env, struct qs_worker *worker,
		    const struct qs_open_request *request, json_t **ret, struct qs_error *err)
{
	const struct qs_tpm2_key *key = request->tpm2;
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	int r;

	if (!key->there) {
		if (err)
			*err = key->error;
		return qs_negative(qs_kind_errno(key->error.kind));
	}
	r = qs_secret_init(&passphrase, key->size, err);
	if (r < 0)
		return r;
	memcpy(passphrase.data, key->passphrase, key->size);
	r = -EPERM;
	for (int slot = 0; slot < 32 && r == -EPERM; slot++)
		if (key->keyslots & UINT32_C(1) << slot)
			r = try_slot(env, worker, request, &passphrase, slot, err);
	if (r >= 0)
		*ret = json_pack("{s:i,s:i}", "token", key->token, "keyslot", r);
	return r < 0 ? r : 0;
}

/* Only a key that is missing or wrong lets the next one have its turn. */
static int try_own_keys(const struct qs_env *env, struct qs_worker *worker,
			const struct qs_open_request *request, json_t **ret, struct qs_error *err)
{
	struct qs_error own = {};
	int r = -EPERM;

	for (size_t i = 0; i < QS_OPEN_KEYS && request->key_files[i]; i++) {
		r = try_key(env, worker, request, request->key_files[i], &own);
		if (r >= 0) {
			*ret = json_pack("{s:s,s:i}", "key_file", request->key_files[i], "keyslot",
					 r);
			return 0;
		}
		if (own.kind != QS_E_NO_KEY && own.kind != QS_E_KEY_FILE)
			break;
	}
	if (request->command &&
	    (!request->key_files[0] || own.kind == QS_E_NO_KEY || own.kind == QS_E_KEY_FILE)) {
		own = (struct qs_error){};
		r = try_command(env, worker, request, ret, &own);
	}
	if (r < 0 && err)
		*err = own;
	return r;
}

static bool has_other_way(const struct qs_env *env, const struct qs_open_request *request)
{
	return request->passphrase || qs_open_has_own_key(env, request);
}

static int no_key_known(const struct qs_env *env, const struct qs_open_request *request,
			struct qs_error *err)
{
	if (request->bundle)
		return qs_fail(
			err, QS_E_NO_KEY,
			"the bundle has no key for %s: another way may open it once what it "
			"has is restored (`qs-util keyrestore`, then `qs-util cryptopenall`)",
			request->link);
	return qs_fail(err, QS_E_NO_KEY,
		       "no key file is known for %s: name one, or put it at %s/%s.key",
		       request->node, env->config.keys_dir, request->name);
}

/* What lies at hand or what a person gave. */
static int try_given(const struct qs_env *env, struct qs_worker *worker,
		     const struct qs_open_request *request, json_t **ret, struct qs_error *err)
{
	if (request->key)
		return try_bytes(env, worker, request, ret, err);
	if (request->passphrase)
		return try_passphrase(env, worker, request, ret, err);
	if (!request->key_files[0] && !request->command)
		return no_key_known(env, request, err);
	return try_own_keys(env, worker, request, ret, err);
}

/* The keystore goes first; where it fails for anything but the volume's identity, the next. */
static int try_keystore(const struct qs_env *env, struct qs_worker *worker,
			const struct qs_open_request *request, json_t **ret, struct qs_error *err)
{
	struct qs_error why = {};
	bool final = false;
	int r = request->keystore ? qs_open_by_keystore(env, worker, request, ret, &final, &why)
				  : 1;

	if (r == 1)
		return try_given(env, worker, request, ret, err);
	if (r == 0 || final ||
	    !(request->passphrase || request->command || qs_open_has_key_file(env, request))) {
		if (r < 0 && err)
			*err = why;
		return r;
	}
	r = try_given(env, worker, request, ret, err);
	if (r < 0)
		qs_error_append(err, "; and by the keystore: %s", why.text);
	else
		(void)json_object_set_new(*ret, "keystore_problem", json_string(why.text));
	return r;
}

/* The TPM, then the keystore, then the others. */
static int try_keys(const struct qs_env *env, struct qs_worker *worker,
		    const struct qs_open_request *request, json_t **ret, struct qs_error *err)
{
	bool tpm2 = request->tpm2 && request->tpm2->token >= 0;
	struct qs_error why = {};
	bool final;
	int r;

	if (tpm2) {
		r = try_tpm2(env, worker, request, ret, &why);
		/* A header that is refused is refused for every key; a mapping cannot be made by
		 * another.
		 */
		final = request->tpm2->refused || (request->tpm2->there && why.kind != QS_E_NO_KEY);
		if (r == 0 || final || !has_other_way(env, request)) {
			if (r < 0 && err)
				*err = why;
			return r;
		}
	}
	r = try_keystore(env, worker, request, ret, err);
	if (tpm2 && r < 0)
		qs_error_append(err, "; and by the TPM: %s", why.text);
	else if (tpm2)
		(void)json_object_set_new(*ret, "tpm2_problem", json_string(why.text));
	return r;
}

static int run_request(const struct qs_env *env, struct qs_worker *worker,
		       const struct qs_open_request *request, json_t **ret, struct qs_error *err)
{
	struct qs_device dev = { .node = request->node };
	QS_AUTO(qs_auto_close) int lock = -1;
	int r = request->early ? qs_early_check(env, request, err) : 0;

	if (r < 0)
		return r;
	if (!request->key_files[0] && !request->command && !request->passphrase && !request->key &&
	    !request->keystore && (!request->tpm2 || request->tpm2->token < 0))
		return no_key_known(env, request, err);
	if (request->test)
		return try_keys(env, worker, request, ret, err);
	r = qs_open_stat_device(request->node, &dev);
	if (r < 0)
		return qs_fail_errno(err, r, "cannot look at %s", request->node);
	if (!request->locked) {
		lock = qs_device_lock(env, &dev, env->config.lock_wait_s * 1000, err);
		if (lock < 0)
			return lock;
	}
	r = look_again(request, &dev, err);
	if (r == 0)
		r = refuse_read_only(request, err);
	if (r == 1)
		*ret = json_pack("{s:s,s:s}", "note", "already open", "state", "open");
	return r == 0 ? try_keys(env, worker, request, ret, err) : r;
}

int qs_open_request_run(const struct qs_env *env, struct qs_worker *worker,
			const struct qs_open_request *request, json_t **ret, struct qs_error *err)
{
	int r = run_request(env, worker, request, ret, err);

	if (r < 0) {
		qs_open_mention_keystore(env, request, err);
		qs_open_mention_tpm2(request, err);
	}
	return r;
}

/* ---- in the parent ---- */

/* An open that was interrupted just before its end may be ahead of udev. */
static int wait_for_node(const char *name, struct qs_error *err)
{
	const struct timespec pause = { .tv_nsec = 20L * 1000 * 1000 };
	QS_AUTO(qs_auto_free) char *node = qs_printf("/dev/mapper/%s", name);

	for (unsigned waited = 0; access(node, F_OK) < 0; waited += 20) {
		if (waited >= NODE_WAIT_MS)
			return qs_fail(err, QS_E_FAILED,
				       "the mapping %s is active, but udev has made no %s; run "
				       "`dmsetup mknodes`",
				       name, node);
		(void)nanosleep(&pause, NULL);
	}
	return 1;
}

int qs_open_check_mapping(const struct qs_mapping_list *mappings, const char *name,
			  const struct qs_device *dev, const char *uuid, struct qs_error *err)
{
	const struct qs_mapping *m = qs_mapping_by_name(mappings, name);
	const struct qs_mapping *other = qs_mapping_of_device(mappings, dev);

	if (!m && other)
		return qs_fail(err, QS_E_EXISTS, "%s is open already under another name, %s",
			       dev->node, other->name);
	if (!m)
		return 0;
	if (m->backing == 0)
		return qs_fail(
			err, QS_E_EXISTS,
			"/dev/mapper/%s is left over from a disk that is gone; unmount it and "
			"run `qs-util cryptclose %s` first",
			name, name);
	if (!qs_mapping_is_on(m, dev))
		return qs_fail(err, QS_E_EXISTS, "/dev/mapper/%s belongs to another device, %s",
			       name, m->image ? m->image : m->backing_node);
	if (uuid[0] && strcmp(uuid, m->uuid) != 0)
		return qs_fail(
			err, QS_E_EXISTS,
			"/dev/mapper/%s was opened from the LUKS header %s, but %s now has %s",
			name, m->uuid, dev->node, uuid);
	return wait_for_node(name, err);
}

/* The line for a device that was opened with updatecrypttab. */
static int update_line(const struct qs_env *env, const struct qs_open_request *request,
		       const char *key_file, struct qs_error *err)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	QS_AUTO(qs_auto_close) int lock = qs_tab_lock(env, err);
	int r;

	if (lock < 0)
		return lock;
	r = qs_crypttab_load(env, &tab, err);
	if (r < 0)
		return r;
	r = qs_key_set_line(env, tab, request->name, request->link, key_file, err);
	return r <= 0 ? r : qs_crypttab_save(env, tab, err);
}

int qs_open_job(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		struct qs_error *err)
{
	const struct qs_open_jobs *jobs = cookie;

	qs_worker_step(worker, jobs->requests[i].test ? "test" : "open");
	return qs_open_request_run(jobs->env, worker, &jobs->requests[i], ret, err);
}

void qs_open_apply_options(struct qs_open_request *request, const struct qs_open_options *options)
{
	request->read_only |= options->read_only;
	request->allow_discards |= options->allow_discards;
	request->test = options->test;
}

void qs_open_note_open(struct qs_outcome *o)
{
	qs_outcome_set(&o->note, "already open");
	qs_outcome_detail(o, "state", json_string("open"));
}

/* Nothing else is tried, and a device that the TPM cannot open is an error at once. */
static int allow_only_tpm2(struct qs_open_request *request, struct qs_error *err)
{
	if (!request->tpm2)
		return qs_fail(err, QS_E_TPM_ABSENT, "there is no TPM 2.0 to ask");
	if (request->tpm2->token < 0)
		return qs_fail(err, QS_E_NO_KEY, "%s has no TPM2 keyslot", request->node);
	for (size_t i = 0; i < QS_OPEN_KEYS; i++)
		qs_auto_free(&request->key_files[i]);
	request->command = false;
	request->keystore = false;
	request->no_keystore = false;
	return 0;
}

/* Returns 1 when a worker must open it, 0 when it is open already. */
static int plan_one(const struct qs_env *env, const struct qs_open_options *options,
		    struct qs_outcome *o, struct qs_open_request *request,
		    struct qs_tpm2_keys *tpm2, struct qs_secret *asked)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_mapping_list_done) struct qs_mapping_list mappings = {};
	QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;
	struct qs_error *err = &o->error;
	int r = qs_open_find(env, options->key_file, o, &dev, &h, request);

	if (r < 0)
		return r;
	qs_open_apply_options(request, options);
	if (!options->test) {
		r = qs_mapping_scan(&mappings, err);
		if (r == 0)
			r = qs_open_check_mapping(&mappings, request->name, dev, h.uuid, err);
		if (r < 0)
			return r;
	}
	if (r == 1) {
		qs_open_note_open(o);
		/* A key that goes into crypttab is proven, also when the device is open already. */
		request->test = true;
		return options->update_crypttab;
	}
	r = qs_open_ask_tpm2_and_pin(env, options, request, tpm2, err);
	if (r == 0 && !options->tpm2_only)
		r = qs_open_prepare_keystore(env, request, 1, NULL, err);
	if (r == 0 && options->tpm2_only)
		return allow_only_tpm2(request, err) < 0 ? -EPERM : 1;
	if (r == 0)
		r = qs_open_ask(env, options, request, asked, err);
	return r < 0 ? r : 1;
}

void qs_open_finish(const struct qs_env *env, const struct qs_open_options *options,
		    const struct qs_open_request *requests, struct qs_outcomes *list)
{
	if (!options->test)
		qs_event_report_open(env, list);
	qs_heal(env, options, requests, list);
	/* This machine's keystore, if it has one, may be another than the bundle's. */
	if (!options->test && !options->bundle)
		qs_keystore_follow_up(env, list);
}

int qs_open(const struct qs_env *env, const char *device, const struct qs_open_options *options,
	    struct qs_outcomes *ret, struct qs_error *err)
{
	QS_AUTO(qs_open_request_done) struct qs_open_request request = {};
	QS_AUTO(qs_secret_done) struct qs_secret asked = {};
	QS_AUTO(qs_tpm2_keys_done) struct qs_tpm2_keys tpm2 = {};
	struct qs_open_jobs jobs = { env, &request };
	struct qs_outcome *o;
	const char *key_file;
	int r = qs_outcomes_init(ret, &device, 1, err);

	if (r < 0)
		return r;
	o = &ret->items[0];
	r = plan_one(env, options, o, &request, &tpm2, &asked);
	if (r < 0)
		return 0;
	if (r > 0) {
		r = qs_outcomes_run(env, ret, NULL, qs_open_job, &jobs, err);
		if (r < 0)
			return r;
		qs_open_finish(env, options, &request, ret);
	}
	if (o->error.kind != QS_E_NONE || !options->update_crypttab)
		return 0;
	key_file = json_string_value(json_object_get(o->details, "key_file"));
	if (update_line(env, &request, key_file ? key_file : QS_CRYPTTAB_NO_KEY, &o->error) < 0)
		qs_error_append(&o->error, " (the device is open; its line in %s was not written)",
				QS_CRYPTTAB);
	return 0;
}
