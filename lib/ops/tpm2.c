#define _GNU_SOURCE
#include "ops/tpm2.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/pool.h"
#include "luks/backup.h"
#include "luks/fields.h"
#include "luks/header.h"
#include "luks/unlock.h"

#define SIGNATURES_MAX (1U << 20)
#define MS_PER_DEVICE 250U
#define TOKENS_MAX 32

struct qs_tpm2_fetch {
	const struct qs_env *env;
	const struct qs_tpm2_device *devices; /* while headers are read only */
	const struct qs_secret *pin;
	bool closable;
	struct qs_tpm2_keys *keys;
	json_t **tokens; /* of each device, by number; NULL: not looked at */
	bool *wanted;    /* in the parent: the TPM is to be asked for it, and has not been */
	bool found;      /* there are any */
	struct qs_tpm2_run run;

	/* In the worker only: */
	const struct qs_tpm2_functions *functions;
	struct qs_tpm2 *tpm;
	json_t *signatures;
	struct qs_error stop; /* nothing more of the TPM: absent, in lockout */
	bool pin_is_wrong;
};

json_t *qs_tpm2_signatures(const struct qs_env *env)
{
	static const char *const places[] = {
		"/etc/systemd/tpm2-pcr-signature.json",
		"/run/systemd/tpm2-pcr-signature.json",
		"/usr/local/lib/systemd/tpm2-pcr-signature.json",
		"/usr/lib/systemd/tpm2-pcr-signature.json",
	};

	for (size_t i = 0; i < QS_ARRAY_SIZE(places); i++) {
		QS_AUTO(qs_auto_free) char *path = qs_env_path(env, places[i]);
		QS_AUTO(qs_auto_free) char *text = NULL;
		size_t size;

		if (qs_file_read_optional(path, SIGNATURES_MAX, &text, &size, NULL) == 1)
			return json_loadb(text, size, 0, NULL);
	}
	return NULL;
}

/* ---- in the worker ---- */

static void put(struct qs_tpm2_key *key, const struct qs_tpm2_token *token, int number,
		const struct qs_secret *passphrase)
{
	if (!passphrase->data || passphrase->size > sizeof(key->passphrase)) {
		(void)qs_fail(&key->error, QS_E_TPM, "the TPM gave an unusable passphrase");
		return;
	}
	memcpy(key->passphrase, passphrase->data, passphrase->size);
	key->size = passphrase->size;
	key->keyslots = token->keyslots;
	key->token = number;
	key->error = (struct qs_error){};
	key->there = true;
}

/* The first error is the one to tell: later tokens are other people's, or older. */
static void remember(struct qs_tpm2_key *key, const struct qs_error *error)
{
	if (key->error.kind == QS_E_NONE)
		key->error = *error;
}

/* After these the TPM would only count on, or say the same again. */
static bool is_final(enum qs_kind kind)
{
	return kind == QS_E_TPM_LOCKOUT || kind == QS_E_TPM_ABSENT;
}

static int unseal(struct qs_tpm2_fetch *f, const struct qs_tpm2_token *token, struct qs_secret *ret,
		  struct qs_error *err)
{
	struct qs_tpm2_unseal with = {
		.pin = f->pin,
		.max_memory = f->env->config.max_kdf_memory,
		.max_passes = f->env->config.max_kdf_time,
	};
	int r;

	if (f->stop.kind != QS_E_NONE) {
		*err = f->stop;
		return qs_kind_errno(err->kind);
	}
	if (token->pin && f->pin && f->pin_is_wrong)
		return qs_fail(err, QS_E_PIN,
			       "the PIN was wrong for another device, and is not tried again");
	if (!f->tpm) {
		r = qs_tpm2_connect(f->env, &f->functions, &f->tpm, err);
		if (r < 0) {
			f->stop = *err;
			return r;
		}
	}
	if (token->pubkey_pcrs && !f->signatures)
		f->signatures = qs_tpm2_signatures(f->env);
	with.signatures = f->signatures;
	r = f->functions->unseal(f->tpm, token, &with, ret, err);
	if (r < 0 && is_final(err->kind))
		f->stop = *err;
	f->pin_is_wrong |= r < 0 && err->kind == QS_E_PIN && f->pin;
	return r;
}

static int check_closable(const struct qs_tpm2_token *token, struct qs_error *err)
{
	if (qs_tpm2_closing_pcr(token))
		return 0;
	return qs_fail(
		err, QS_E_TPM,
		"the TPM2 keyslot is bound to none of the PCRs 0 to 15, so that it would stay "
		"open after the boot; enrol it again with --pcrs");
}

static void try_token(struct qs_tpm2_fetch *f, const json_t *json, int number,
		      struct qs_tpm2_key *key)
{
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	struct qs_error err = {};
	int r = qs_tpm2_token_parse(json, &token, &err);

	if (r == 0 && f->closable)
		r = check_closable(&token, &err);
	if (r == 0)
		r = unseal(f, &token, &passphrase, &err);
	if (r == 0)
		put(key, &token, number, &passphrase);
	else
		remember(key, &err);
}

static void try_tokens(struct qs_tpm2_fetch *f, const json_t *tokens, struct qs_tpm2_key *key)
{
	for (int number = key->token; number < TOKENS_MAX && !key->there; number++) {
		char name[12];
		const json_t *json;

		(void)snprintf(name, sizeof(name), "%d", number);
		json = json_object_get(tokens, name);
		if (json)
			try_token(f, json, number, key);
	}
}

/* Each key is named as soon as it is settled: see fetch_step(). */
static int fetch_job(struct qs_worker *worker, void *cookie, json_t **ret, struct qs_error *err)
{
	struct qs_tpm2_fetch *f = cookie;

	(void)ret;
	(void)err;
	for (size_t i = 0; i < f->keys->count; i++) {
		QS_AUTO(qs_auto_free) char *number = NULL;

		if (!f->wanted[i])
			continue;
		try_tokens(f, f->tokens[i], &f->keys->items[i]);
		number = qs_printf("%zu", i);
		qs_worker_step(worker, number);
	}
	if (f->tpm)
		f->functions->close(f->tpm);
	json_decref(f->signatures);
	return 0;
}

/* ---- in other workers: who has tokens ---- */

int qs_tpm2_check_age(const struct qs_env *env, const struct qs_tpm2_device *device, int fd,
		      const struct qs_luks_header *peeked, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header recorded = {};
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	const char *node = device->node;

	if (qs_backup_peek(env, device->name, &recorded, NULL) != 1 || recorded.version != 2 ||
	    strcmp(recorded.uuid, peeked->uuid) != 0 || peeked->seqid > recorded.seqid)
		return 0;
	/* As nearly always. A second copy that is newer would not be refused either. */
	if (peeked->seqid == recorded.seqid && json_equal(peeked->json, recorded.json))
		return 0;
	/* The second copy may be newer. */
	if (qs_luks_header_read(fd, &h, NULL) < 0 || h.version != 2 || h.seqid > recorded.seqid)
		return 0;
	if (h.seqid == recorded.seqid && json_equal(h.json, recorded.json))
		return 0;
	return qs_fail(
		err, QS_E_HOSTILE,
		"the header is older than its backup%s (sequence %" PRIu64 ", backup %" PRIu64
		") and may hold keyslots that were revoked, so the TPM is not asked: "
		"'qs-util cryptrestore %s' puts the newer one back, 'qs-util cryptbackup %s' "
		"keeps this one",
		h.seqid == recorded.seqid ? ", or another one of its age" : "", h.seqid,
		recorded.seqid, node, node);
}

/*
 * A header that cannot be read is no matter of the TPM: whoever opens the device
 * says so. Returns its TPM2 tokens by number: they are no secret; and why the TPM
 * is not to be asked.
 */
static int look_job(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		    struct qs_error *err)
{
	const struct qs_tpm2_fetch *f = cookie;
	QS_AUTO(qs_auto_close) int fd = -1;
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	struct qs_error why = {};
	const char *number;
	json_t *tokens = json_object(), *token;

	(void)worker;
	(void)err;
	*ret = json_pack("{s:o}", "tokens", tokens);
	if (f->devices[i].node)
		fd = open(f->devices[i].node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || qs_luks_header_peek(fd, &h, NULL) < 0 || h.version != 2)
		return 0;
	json_object_foreach(json_object_get(h.json, "tokens"), number, token)
	{
		if (qs_fields_slot(number) >= 0 && qs_tpm2_token_is(token))
			(void)json_object_set(tokens, number, token);
	}
	if (json_object_size(tokens) == 0)
		return 0;
	if (qs_luks_check_identity(f->env, &h, f->devices[i].name, &why) < 0)
		(void)json_object_set_new(*ret, "refused", json_string(why.text));
	else if (qs_tpm2_check_age(f->env, &f->devices[i], fd, &h, &why) < 0)
		(void)json_object_set_new(*ret, "problem", json_string(why.text));
	return 0;
}

/* ---- in the parent ---- */

static void look_done(size_t i, json_t *result, const struct qs_error *error, void *cookie)
{
	struct qs_tpm2_fetch *f = cookie;
	struct qs_tpm2_key *key = &f->keys->items[i];
	const char *problem = json_string_value(json_object_get(result, "problem"));
	const char *refused = json_string_value(json_object_get(result, "refused"));
	const char *number;
	json_t *tokens = json_object_get(result, "tokens"), *token;

	key->silent = error->kind == QS_E_DEADLINE;
	json_object_foreach(tokens, number, token)
	{
		int n = qs_fields_slot(number);

		if (key->token < 0 || n < key->token)
			key->token = n;
	}
	key->refused = refused;
	if (refused)
		(void)qs_fail(&key->error, QS_E_HOSTILE, "%s", refused);
	else if (problem)
		(void)qs_fail(&key->error, QS_E_TPM, "%s", problem);
	f->wanted[i] = key->token >= 0 && key->error.kind == QS_E_NONE;
	f->found |= f->wanted[i];
	f->keys->closing |= qs_tpm2_closing_pcrs(tokens);
	f->tokens[i] = json_incref(tokens);
}

/* In parallel, so that a disk that does not answer holds up nobody for long. */
static int look(struct qs_tpm2_fetch *f, struct qs_error *err)
{
	const struct qs_pool pool = {
		.workers = f->env->config.workers,
		.deadline_ms = QS_LOOK_MS,
		.job = look_job,
		.done = look_done,
		.cookie = f,
	};

	return qs_pool_run(&pool, f->keys->count, err);
}

static void fetch_step(const char *name, void *cookie)
{
	const struct qs_tpm2_fetch *f = cookie;
	size_t i = strtoul(name, NULL, 10);

	if (i < f->keys->count)
		f->wanted[i] = false;
}

/* When the worker ended early, what it did not come to failed as it did. */
static void fetch_ended(const struct qs_error *failed, void *cookie)
{
	const struct qs_tpm2_fetch *f = cookie;

	for (size_t i = 0; failed->kind != QS_E_NONE && i < f->keys->count; i++) {
		struct qs_tpm2_key *key = &f->keys->items[i];

		if (key->token >= 0 && !key->there && key->error.kind == QS_E_NONE)
			key->error = *failed;
	}
}

int qs_tpm2_keys_make(size_t count, struct qs_tpm2_keys *ret, struct qs_error *err)
{
	size_t size = (count ? count : 1) * sizeof(*ret->items);
	void *memory;
	int r = qs_secret_share(&memory, size, err);

	if (r < 0)
		return r;
	*ret = (struct qs_tpm2_keys){ .items = memory, .count = count, .size = size };
	for (size_t i = 0; i < count; i++)
		ret->items[i].token = -1;
	return 0;
}

void qs_tpm2_keys_done(struct qs_tpm2_keys *keys)
{
	qs_secret_unshare(keys->items, keys->size);
	*keys = (struct qs_tpm2_keys){};
}

int qs_tpm2_fetch_begin(const struct qs_env *env, const struct qs_tpm2_device *devices,
			size_t count, const struct qs_secret *pin, bool closable,
			struct qs_tpm2_keys *ret_keys, struct qs_tpm2_fetch **ret,
			struct qs_error *err)
{
	struct qs_tpm2_fetch *f = *ret = calloc(1, sizeof(*f));
	int r;

	if (f) {
		f->keys = ret_keys;
		f->tokens = calloc(count + 1, sizeof(json_t *));
		f->wanted = calloc(count + 1, sizeof(*f->wanted));
	}
	if (!f || !f->tokens || !f->wanted)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", count);
	f->env = env;
	f->devices = devices;
	f->pin = pin;
	f->closable = closable;
	qs_tpm2_run_prepare(env,
			    &(struct qs_tpm2_work){
				    .extra_ms = (unsigned)count * MS_PER_DEVICE,
				    .job = fetch_job,
				    .step = fetch_step,
				    .done = fetch_ended,
				    .cookie = f,
			    },
			    &f->run);
	r = qs_tpm2_keys_make(count, ret_keys, err);
	return r < 0 ? r : look(f, err);
}

const struct qs_pool *qs_tpm2_fetch_pool(const struct qs_tpm2_fetch *f)
{
	return f->found ? &f->run.run.pool : NULL;
}

bool qs_tpm2_fetch_is_settled(const struct qs_tpm2_fetch *f, size_t i)
{
	return !f->wanted[i];
}

void qs_tpm2_fetch_done(struct qs_tpm2_fetch **fetch)
{
	struct qs_tpm2_fetch *f = *fetch;

	if (!f)
		return;
	for (size_t i = 0; f->tokens && i < f->keys->count; i++)
		json_decref(f->tokens[i]);
	free(f->tokens);
	free(f->wanted);
	json_decref(f->run.run.result);
	free(f);
	*fetch = NULL;
}

int qs_tpm2_keys_fetch(const struct qs_env *env, const struct qs_tpm2_device *devices, size_t count,
		       const struct qs_secret *pin, bool closable, struct qs_tpm2_keys *ret,
		       struct qs_error *err)
{
	QS_AUTO(qs_tpm2_fetch_done) struct qs_tpm2_fetch *f = NULL;
	int r = qs_tpm2_fetch_begin(env, devices, count, pin, closable, ret, &f, err);

	if (r == 0 && qs_tpm2_fetch_pool(f))
		r = qs_pool_run(qs_tpm2_fetch_pool(f), 1, err);
	return r;
}
