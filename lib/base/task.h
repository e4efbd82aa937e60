/*
 * One task in a worker process of its own (base/pool.h), which is killed when it takes too long:
 * for whoever talks to a TPM or to a server, which may never answer.
 */
#ifndef QS_BASE_TASK_H
#define QS_BASE_TASK_H

#include <jansson.h>

#include "base/pool.h"

struct qs_task {
	unsigned deadline_ms;
	unsigned grace_ms; /* after an interrupt; 0: the pool's */
	const char *late;  /* what a task is told of that was killed: a sentence */
	/* In the worker; *ret (may stay NULL) travels to the parent as text: nothing secret. */
	int (*job)(struct qs_worker *worker, void *cookie, json_t **ret, struct qs_error *err);
	void (*step)(const char *name, void *cookie); /* in the parent; may be NULL */
	/* In the parent, at its end; may be NULL. FAILED as *ret_failed of qs_task_run(). */
	void (*done)(const struct qs_error *failed, void *cookie);
	void *cookie;
};

/* The same as a pool of one job, to run alone or beside another pool. */
struct qs_task_run {
	struct qs_task task;
	struct qs_pool pool;
	json_t *result; /* a reference of whoever runs the pool */
	struct qs_error failed;
};
void qs_task_prepare(const struct qs_task *task, struct qs_task_run *ret);

/*
 * Run TASK. *ret (may be NULL) is what its job returned, a new reference or NULL; *ret_failed how
 * it ended (QS_E_NONE: well). Fails only when there was no worker; with RET_FAILED NULL also as
 * the job did.
 */
int qs_task_run(const struct qs_task *task, json_t **ret, struct qs_error *ret_failed,
		struct qs_error *err);

#endif
