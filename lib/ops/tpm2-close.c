/*
 * Closing the TPM's way for the rest of the boot: extending a PCR that a
 * keyslot's policy names, so that nobody who comes later (root, a shell, a
 * planted file system) can unseal again.
 *
 *	step                              a kill after it leaves
 *	read the PCRs                     nothing done; a second run closes
 *	record the values in /run         the record is right; a second run keeps it and closes
 *	extend the PCRs                   closed; a second run extends again, the record stays
 *
 * The record comes first because afterwards nobody could tell the value that
 * the next boot will have, to which a later enrolment must seal.
 */
#include "ops/tpm2.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define RECORD QS_RUN_DIR "/tpm2-closed.json"
#define RECORD_MAX (64U << 10)

/*
 * PC Client platform: 16 and 23 can be reset by software, 17 to 22 are extended
 * and reset by dynamic launches only.
 */
#define LASTING_PCRS 0xffffU

uint32_t qs_tpm2_closing_pcr(const struct qs_tpm2_token *token)
{
	uint32_t pcrs = (token->pcrs ? token->pcrs : token->pubkey_pcrs) & LASTING_PCRS;

	/* The highest: the lower ones are what other programs are bound to most. */
	return pcrs ? UINT32_C(1) << (31 - __builtin_clz(pcrs)) : 0;
}

uint32_t qs_tpm2_closing_pcrs(const json_t *tokens)
{
	const char *number;
	uint32_t pcrs = 0;
	json_t *json;

	json_object_foreach((json_t *)tokens, number, json)
	{
		QS_AUTO(qs_tpm2_token_done) struct qs_tpm2_token token = {};

		if (qs_tpm2_token_is(json) && qs_tpm2_token_parse(json, &token, NULL) == 0)
			pcrs |= qs_tpm2_closing_pcr(&token);
	}
	return pcrs;
}

json_t *qs_tpm2_closed(const struct qs_env *env)
{
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, RECORD);
	QS_AUTO(qs_auto_free) char *text = NULL;
	QS_AUTO(qs_auto_json) json_t *record = NULL;
	size_t size;

	if (qs_file_read_optional(path, RECORD_MAX, &text, &size, NULL) == 1)
		record = json_loadb(text, size, 0, NULL);
	return json_incref(json_object_get(record, "before"));
}

/* ---- in the worker ---- */

struct closing {
	const struct qs_env *env;
	uint32_t pcrs;
};

/* Values that were recorded before win: since then we have extended the PCR. */
static int record(const struct qs_env *env, json_t *values, struct qs_error *err)
{
	const struct qs_replace how = { .mode = 0600 };
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, RECORD);
	QS_AUTO(qs_auto_free) char *directory = qs_env_path(env, QS_RUN_DIR);
	QS_AUTO(qs_auto_json) json_t *before = qs_tpm2_closed(env);
	QS_AUTO(qs_auto_json) json_t *all = NULL;
	QS_AUTO(qs_auto_free) char *text = NULL;
	const char *bank;
	json_t *known;
	int r;

	json_object_foreach(before, bank, known)
	{
		if (json_is_object(known) && json_object_get(values, bank))
			(void)json_object_update(json_object_get(values, bank), known);
	}
	all = json_pack("{s:i,s:s,s:O}", "version", 1, "event", QS_TPM2_CLOSING_EVENT, "before",
			values);
	text = json_dumps(all, JSON_INDENT(1) | JSON_SORT_KEYS);
	if (!text)
		return qs_fail(err, QS_E_MEMORY, "no memory for the PCRs' values");
	r = qs_file_make_dirs(directory, 0700, err);
	return r < 0 ? r : qs_file_replace(path, text, strlen(text), &how, err);
}

static int close_job(struct qs_worker *worker, void *cookie, json_t **ret, struct qs_error *err)
{
	const struct closing *c = cookie;
	const struct qs_tpm2_functions *functions = NULL;
	QS_AUTO(qs_auto_json) json_t *values = NULL;
	struct qs_error own = {};
	struct qs_tpm2 *tpm = NULL;
	int r = qs_tpm2_connect(c->env, &functions, &tpm, err);

	(void)worker;
	(void)ret;
	if (r < 0)
		return r;
	/* Not closing would be the greater evil. */
	if (functions->values(tpm, c->pcrs, &values, &own) < 0 || record(c->env, values, &own) < 0)
		qs_log(QS_LOG_WARNING,
		       "the PCRs' values at boot are not recorded, so enrol the TPM only after the "
		       "next start: %s",
		       own.text);
	r = functions->extend(tpm, c->pcrs, QS_TPM2_CLOSING_EVENT, err);
	functions->close(tpm);
	return r;
}

/* ---- in the parent ---- */

int qs_tpm2_close_path(const struct qs_env *env, uint32_t pcrs, struct qs_error *err)
{
	struct closing c = { .env = env, .pcrs = pcrs };
	const struct qs_tpm2_work work = { .job = close_job, .cookie = &c };

	return qs_tpm2_run(env, &work, NULL, NULL, err);
}
