/*
 * The provider "tpm2": the KEK of each generation is 32 random bytes, sealed in this machine's
 * TPM under the persistent storage root key; N.sealed is all there is outside of it.
 *
 * One connection unseals any number of generations, each once, in a worker with a deadline; what
 * it gets reaches the process that asked, and the workers that it starts later, through memory
 * that they share (keystore/session.h). A PIN is asked for once and tried once. The PCRs are those
 * of the running system, also where unlocking has closed one (ops/tpm2-close.c): that happens in
 * every boot alike, and the keystore is for what comes after it.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "key/tpm2.h"
#include "keystore/provider.h"
#include "keystore/sealed.h"
#include "keystore/session.h"

/* Besides tpm2_deadline: a TPM takes about a second to unseal. */
#define MS_PER_GENERATION 2000U

/* ---- unsealing ---- */

struct wanted {
	struct qs_kek *kek;
	struct qs_tpm2_token sealed;
};

struct fetch {
	const struct qs_env *env;
	const struct qs_secret *pin;
	struct wanted *items; /* those that the TPM is to be asked for */
	size_t count;
};

static void put(struct qs_kek *kek, const struct qs_secret *secret)
{
	if (!secret->data || secret->size != sizeof(kek->bytes)) {
		(void)qs_fail(&kek->error, QS_E_DAMAGED, "the sealed object is no key");
		return;
	}
	memcpy(kek->bytes, secret->data, sizeof(kek->bytes));
	kek->there = true;
}

/* In the worker. After a wrong PIN, or in lockout, the TPM is left alone: the rest fails alike. */
static int fetch_job(struct qs_worker *worker, void *cookie, json_t **ret, struct qs_error *err)
{
	const struct fetch *f = cookie;
	const struct qs_tpm2_unseal with = { .pin = f->pin, .kek = true };
	const struct qs_tpm2_functions *functions = NULL;
	struct qs_tpm2 *tpm = NULL;
	int r = qs_tpm2_connect(f->env, &functions, &tpm, err);

	(void)worker;
	(void)ret;
	if (r < 0)
		return r;
	for (size_t i = 0; i < f->count; i++) {
		QS_AUTO(qs_secret_done) struct qs_secret secret = {};
		struct qs_kek *kek = f->items[i].kek;

		r = functions->unseal(tpm, &f->items[i].sealed, &with, &secret, &kek->error);
		if (r == 0)
			put(kek, &secret);
		if (kek->error.kind == QS_E_PIN || kek->error.kind == QS_E_TPM_LOCKOUT) {
			*err = kek->error;
			break;
		}
		r = 0;
	}
	functions->close(tpm);
	return r;
}

static const struct qs_secret *known_pin(const struct qs_keystore_session *s)
{
	if (s->pin)
		return s->pin;
	return s->asked.data ? &s->asked : NULL;
}

static int need_pin(struct qs_keystore_session *s, bool ask, bool new_one, struct qs_error *err)
{
	if (known_pin(s))
		return 0;
	if (ask && s->ask_pin)
		return s->ask_pin(s->ask_cookie, new_one, &s->asked, err);
	return qs_fail(err, QS_E_PIN, "the keystore needs its PIN, and nobody can be asked for it");
}

/* What cannot be asked of the TPM has its error in the KEK by then. Returns 1: it can. */
static int plan(const struct qs_env *env, struct qs_keystore_session *s,
		const struct qs_keystore *ks, uint32_t number, bool ask, struct wanted *w,
		struct qs_error *err)
{
	int r = qs_keystore_session_add(s, ks->store, number, &w->kek, err);

	if (r < 0)
		return r;
	r = qs_sealed_kek_load(env, ks->store, number, &w->sealed, &w->kek->error);
	if (r == 0 && w->sealed.pin)
		r = need_pin(s, ask, false, &w->kek->error);
	/* W is the next generation's then. */
	if (r < 0)
		qs_tpm2_token_done(&w->sealed);
	return r == 0;
}

static int ask_tpm(const struct qs_env *env, const struct qs_secret *pin, struct wanted *items,
		   size_t count, struct qs_error *err)
{
	struct fetch f = { .env = env, .pin = pin, .items = items, .count = count };
	const struct qs_tpm2_work work = {
		.extra_ms = (unsigned)count * MS_PER_GENERATION,
		.job = fetch_job,
		.cookie = &f,
	};
	struct qs_error failed = {};
	int r = qs_tpm2_run(env, &work, NULL, &failed, err);

	for (size_t i = 0; i < count; i++) {
		struct qs_kek *kek = items[i].kek;

		if (kek->there)
			continue;
		if (kek->error.kind == QS_E_NONE)
			kek->error = failed;
		if (kek->error.kind == QS_E_NONE)
			(void)qs_fail(&kek->error, QS_E_TPM, "the TPM was not asked");
		qs_error_prefix(&kek->error, "generation %u of the keystore",
				(unsigned)kek->generation);
	}
	return r;
}

/* Into S, what is not there of the generations NUMBERS. */
static int fetch(const struct qs_env *env, struct qs_keystore_session *s,
		 const struct qs_keystore *ks, const uint32_t *numbers, size_t count, bool ask,
		 struct qs_error *err)
{
	QS_AUTO(qs_auto_free) struct wanted *items = calloc(count, sizeof(*items));
	size_t planned = 0;
	int r = items ? 0 : qs_fail(err, QS_E_MEMORY, "no memory for %zu generations", count);

	for (size_t i = 0; r >= 0 && i < count; i++) {
		if (qs_keystore_session_find(s, ks->store, numbers[i]))
			continue;
		r = plan(env, s, ks, numbers[i], ask, &items[planned], err);
		planned += r > 0;
	}
	if (r >= 0 && planned > 0)
		r = ask_tpm(env, known_pin(s), items, planned, err);
	for (size_t i = 0; items && i < count; i++)
		qs_tpm2_token_done(&items[i].sealed);
	return r < 0 ? r : 0;
}

/* ---- a new generation ---- */

struct sealing {
	const struct qs_env *env;
	struct qs_tpm2_seal how;
};

static int seal_job(struct qs_worker *worker, void *cookie, json_t **ret, struct qs_error *err)
{
	const struct sealing *s = cookie;
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
	QS_AUTO(qs_secret_done) struct qs_secret unused = {};
	const struct qs_tpm2_functions *functions = NULL;
	struct qs_tpm2 *tpm = NULL;
	int r = qs_tpm2_connect(s->env, &functions, &tpm, err);

	(void)worker;
	if (r < 0)
		return r;
	r = functions->seal(tpm, &s->how, &token, &unused, err);
	functions->close(tpm);
	token.keyslots = 1; /* the form wants one */
	if (r == 0)
		*ret = qs_tpm2_token_write(&token);
	return r;
}

/*
 * As the current generation, whose PIN is proven first. Where that one is not in the TPM, as it
 * was asked for.
 */
static int choose(const struct qs_env *env, struct qs_keystore_session *s,
		  const struct qs_keystore *ks, struct qs_tpm2_seal *how, struct qs_error *err)
{
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token last = {};
	QS_AUTO(qs_secret_done) struct qs_secret proven = {};
	bool first = qs_keystore_provider(ks, ks->current) != &qs_provider_tpm2 || ks->current == 0;
	/* A migration that is gone on with has it written down. */
	bool asked = ks->rotation == QS_ROTATION_IDLE;
	bool pin = asked ? s->want_pin : ks->target_pin;
	int r = 0;

	how->kek = true;
	how->pcrs = asked ? s->pcrs : ks->target_pcrs;
	if (!first) {
		r = qs_sealed_kek_load(env, ks->store, ks->current, &last, err);
		how->pcrs = last.pcrs;
		how->bank = last.bank;
		pin = last.pin;
	}
	if (r == 0 && !first)
		r = fetch(env, s, ks, &ks->current, 1, true, err);
	if (r == 0 && !first)
		r = qs_keystore_session_copy(qs_keystore_session_find(s, ks->store, ks->current),
					     &proven, err);
	if (r == 0 && pin)
		r = need_pin(s, true, first, err);
	how->pin = pin ? known_pin(s) : NULL;
	return r;
}

static int create(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		  struct qs_error *err)
{
	QS_AUTO(qs_keystore_session_done)
	struct qs_keystore_session own = { .pcrs = QS_KEYSTORE_PCRS };
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};
	QS_AUTO(qs_auto_json) json_t *sealed = NULL;
	struct sealing s = { .env = env };
	const struct qs_tpm2_work work = {
		.job = seal_job,
		.extra_ms = MS_PER_GENERATION,
		.cookie = &s,
	};
	int r = choose(env, qs_keystore_session_writable(env, &own), ks, &s.how, err);

	if (r == 0)
		r = qs_tpm2_run(env, &work, &sealed, NULL, err);
	if (r == 0)
		r = qs_tpm2_token_parse(sealed, &token, err);
	return r < 0 ? r : qs_sealed_kek_store(env, ks->store, number, &token, err);
}

/* ---- the rest ---- */

static int health_job(struct qs_worker *worker, void *cookie, json_t **ret, struct qs_error *err)
{
	const struct qs_tpm2_functions *functions = NULL;
	struct qs_tpm2_health found;
	struct qs_tpm2 *tpm = NULL;
	int r = qs_tpm2_connect(cookie, &functions, &tpm, err);

	(void)worker;
	(void)ret;
	if (r < 0)
		return r;
	r = functions->health(tpm, &found, err);
	functions->close(tpm);
	return r;
}

static int health(const struct qs_env *env, struct qs_error *err)
{
	const struct qs_tpm2_work work = { .job = health_job, .cookie = (void *)env };
	int r = qs_kek_health(err);

	return r < 0 ? r : qs_tpm2_run(env, &work, NULL, NULL, err);
}

static json_t *binding(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number)
{
	QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token sealed = {};
	char pcrs[QS_TPM2_PCRS_TEXT_L];
	struct qs_error err = {};

	if (qs_sealed_kek_load(env, ks->store, number, &sealed, &err) < 0)
		return json_pack("{s:s}", "problem", err.text);
	return json_pack("{s:s,s:s*,s:b}", "pcrs", qs_tpm2_pcrs_text(sealed.pcrs, pcrs), "bank",
			 sealed.pcrs ? qs_tpm2_bank_name(sealed.bank) : NULL, "pin", sealed.pin);
}

static int retire(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		  struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_sealed_kek_path(number);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);

	(void)ks;
	return qs_file_erase(real, err);
}

const struct qs_provider qs_provider_tpm2 = {
	.name = "tpm2",
	.suffix = "sealed",
	.health = health,
	.create = create,
	.fetch = fetch,
	.binding = binding,
	.retire = retire,
};
