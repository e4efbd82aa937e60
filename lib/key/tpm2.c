#include "key/tpm2.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "base/cleanup.h"

#define DEVICE "/dev/tpmrm0"

bool qs_tpm2_is_there(const struct qs_env *env)
{
	if (strcmp(env->config.tpm2_device, "none") == 0)
		return false;
	return strcmp(env->config.tpm2_device, "auto") != 0 || access(DEVICE, F_OK) == 0;
}

int qs_tpm2_connect(const struct qs_env *env, const struct qs_tpm2_functions **ret_functions,
		    struct qs_tpm2 **ret, struct qs_error *err)
{
	const struct qs_module *module = NULL;
	int r;

	if (strcmp(env->config.tpm2_device, "none") == 0)
		return qs_fail(err, QS_E_TPM_ABSENT,
			       "the TPM is not used here (tpm2_device in qs-util.conf is none)");
	r = qs_module_load(QS_TPM2_MODULE_NAME, QS_TPM2_MODULE_SYMBOL, QS_TPM2_MODULE_VERSION,
			   &module, err);
	if (r < 0) {
		if (err)
			err->kind = QS_E_TPM_ABSENT;
		return r;
	}
	*ret_functions = (const struct qs_tpm2_functions *)module;
	return (*ret_functions)->open(env->config.tpm2_device, ret, err);
}

static int job(struct qs_worker *worker, void *cookie, json_t **ret, struct qs_error *err)
{
	const struct qs_tpm2_work *work = cookie;

	/*
	 * The TPM stack makes a new context of libcrypto for each hash and cipher, and each copies
	 * the table of all names that libcrypto 1.1 knew: more than half of what unsealing takes
	 * this process (measured, tpm2-tss 3.2.1). Nothing here asks for those by name
	 * (EVP_get_digestbyname).
	 */
	(void)OPENSSL_init_crypto(OPENSSL_INIT_NO_ADD_ALL_CIPHERS | OPENSSL_INIT_NO_ADD_ALL_DIGESTS,
				  NULL);
	return work->job(worker, work->cookie, ret, err);
}

static void step(const char *name, void *cookie)
{
	const struct qs_tpm2_work *work = cookie;

	if (work->step)
		work->step(name, work->cookie);
}

static void done(const struct qs_error *failed, void *cookie)
{
	const struct qs_tpm2_work *work = cookie;

	if (work->done)
		work->done(failed, work->cookie);
}

void qs_tpm2_run_prepare(const struct qs_env *env, const struct qs_tpm2_work *work,
			 struct qs_tpm2_run *ret)
{
	const struct qs_task task = {
		.deadline_ms = env->config.tpm2_deadline_s * 1000 + work->extra_ms,
		.late = ret->late,
		.job = job,
		.step = step,
		.done = done,
		.cookie = &ret->work,
	};
	char seconds[QS_TEXT_SIZE_L];

	*ret = (struct qs_tpm2_run){ .work = *work };
	(void)snprintf(ret->late, sizeof(ret->late),
		       "the TPM did not answer within %s (tpm2_deadline in qs-util.conf)",
		       qs_text_seconds(env->config.tpm2_deadline_s, seconds));
	qs_task_prepare(&task, &ret->run);
}

int qs_tpm2_run(const struct qs_env *env, const struct qs_tpm2_work *work, json_t **ret,
		struct qs_error *ret_failed, struct qs_error *err)
{
	struct qs_tpm2_run run = {};

	qs_tpm2_run_prepare(env, work, &run);
	return qs_task_run(&run.run.task, ret, ret_failed, err);
}

static int clock_job(struct qs_worker *worker, void *cookie, json_t **ret, struct qs_error *err)
{
	const struct qs_tpm2_functions *functions = NULL;
	struct qs_tpm2_clock now;
	struct qs_tpm2 *tpm = NULL;
	int r = qs_tpm2_connect(cookie, &functions, &tpm, err);

	(void)worker;
	if (r < 0)
		return r;
	r = functions->clock(tpm, &now, err);
	functions->close(tpm);
	if (r == 0)
		*ret = json_pack("[I,I,I]", (json_int_t)now.ms, (json_int_t)now.resets,
				 (json_int_t)now.restarts);
	return r;
}

int qs_tpm2_read_clock(const struct qs_env *env, struct qs_tpm2_clock *ret, struct qs_error *err)
{
	struct qs_env own = *env;
	const struct qs_tpm2_work work = { .job = clock_job, .cookie = &own };
	QS_AUTO(qs_auto_json) json_t *now = NULL;
	int r = qs_tpm2_run(env, &work, &now, NULL, err);

	if (r < 0)
		return r;
	*ret = (struct qs_tpm2_clock){
		.ms = (uint64_t)json_integer_value(json_array_get(now, 0)),
		.resets = (uint32_t)json_integer_value(json_array_get(now, 1)),
		.restarts = (uint32_t)json_integer_value(json_array_get(now, 2)),
	};
	return 0;
}
