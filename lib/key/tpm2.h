/*
 * Asking the TPM: the connection, and the worker process with a deadline that holds it.
 */
#ifndef QS_KEY_TPM2_H
#define QS_KEY_TPM2_H

#include <stdbool.h>

#include "base/env.h"
#include "base/task.h"
#include "base/text.h"
#include "tpm2/tpm2.h"

/* Is there a TPM that may be asked? "auto" looks for its device node, without opening it. */
bool qs_tpm2_is_there(const struct qs_env *env);

/* Run in a worker: load the module and connect to the configured TPM. Close with ret_functions. */
int qs_tpm2_connect(const struct qs_env *env, const struct qs_tpm2_functions **ret_functions,
		    struct qs_tpm2 **ret, struct qs_error *err);

/* What one worker process does with the TPM; but for the deadline as struct qs_task. */
struct qs_tpm2_work {
	unsigned extra_ms; /* beside tpm2_deadline, for many devices */
	int (*job)(struct qs_worker *worker, void *cookie, json_t **ret, struct qs_error *err);
	void (*step)(const char *name, void *cookie);
	void (*done)(const struct qs_error *failed, void *cookie);
	void *cookie;
};

/* The same as a pool of one job, to run alone or beside another pool (base/pool.h). */
struct qs_tpm2_run {
	struct qs_task_run run;
	struct qs_tpm2_work work;
	char late[QS_TEXT_SIZE_L + 80];
};
void qs_tpm2_run_prepare(const struct qs_env *env, const struct qs_tpm2_work *work,
			 struct qs_tpm2_run *ret);

/* Run WORK's job in a worker process: as qs_task_run(). A TPM that did not answer is named. */
int qs_tpm2_run(const struct qs_env *env, const struct qs_tpm2_work *work, json_t **ret,
		struct qs_error *ret_failed, struct qs_error *err);

/* The TPM's clock, in a worker of its own. */
int qs_tpm2_read_clock(const struct qs_env *env, struct qs_tpm2_clock *ret, struct qs_error *err);

#endif
