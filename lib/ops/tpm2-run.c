#include "ops/tpm2.h"

#include <openssl/crypto.h>

#include "base/text.h"

static int job(struct qs_worker *worker, size_t index, void *cookie, json_t **ret,
	       struct qs_error *err)
{
	const struct qs_tpm2_run *run = cookie;

	(void)index;
	/*
	 * The TPM stack makes a new context of libcrypto for each hash and cipher, and each copies
	 * the table of all names that libcrypto 1.1 knew: more than half of what unsealing takes
	 * this process (measured, tpm2-tss 3.2.1). Nothing here asks for those by name
	 * (EVP_get_digestbyname).
	 */
	(void)OPENSSL_init_crypto(OPENSSL_INIT_NO_ADD_ALL_CIPHERS | OPENSSL_INIT_NO_ADD_ALL_DIGESTS,
				  NULL);
	return run->work.job(worker, run->work.cookie, ret, err);
}

static void step(size_t index, const char *name, void *cookie)
{
	const struct qs_tpm2_run *run = cookie;

	(void)index;
	if (run->work.step)
		run->work.step(name, run->work.cookie);
}

static void done(size_t index, json_t *result, const struct qs_error *error, void *cookie)
{
	struct qs_tpm2_run *run = cookie;
	char seconds[QS_TEXT_SIZE_L];

	(void)index;
	run->result = json_incref(result);
	run->failed = *error;
	if (error->kind == QS_E_DEADLINE)
		(void)qs_fail(&run->failed, QS_E_DEADLINE,
			      "the TPM did not answer within %s (tpm2_deadline in "
			      "qs-util.conf)",
			      qs_text_seconds(run->env->config.tpm2_deadline_s, seconds));
	if (run->work.done)
		run->work.done(&run->failed, run->work.cookie);
}

void qs_tpm2_run_prepare(const struct qs_env *env, const struct qs_tpm2_work *work,
			 struct qs_tpm2_run *ret)
{
	*ret = (struct qs_tpm2_run){ .env = env, .work = *work };
	ret->pool = (struct qs_pool){
		.workers = 1,
		.deadline_ms = env->config.tpm2_deadline_s * 1000 + work->extra_ms,
		.job = job,
		.step = step,
		.done = done,
		.cookie = ret,
	};
}

int qs_tpm2_run(const struct qs_env *env, const struct qs_tpm2_work *work, json_t **ret,
		struct qs_error *ret_failed, struct qs_error *err)
{
	struct qs_tpm2_run run;
	int r;

	qs_tpm2_run_prepare(env, work, &run);
	r = qs_pool_run(&run.pool, 1, err);
	if (ret_failed)
		*ret_failed = run.failed;
	if (r == 0 && ret)
		*ret = json_incref(run.result);
	json_decref(run.result);
	return r;
}
