#include "base/task.h"

#include "base/cleanup.h"

static int job(struct qs_worker *worker, size_t index, void *cookie, json_t **ret,
	       struct qs_error *err)
{
	const struct qs_task_run *run = cookie;

	(void)index;
	return run->task.job(worker, run->task.cookie, ret, err);
}

static void step(size_t index, const char *name, void *cookie)
{
	const struct qs_task_run *run = cookie;

	(void)index;
	if (run->task.step)
		run->task.step(name, run->task.cookie);
}

static void done(size_t index, json_t *result, const struct qs_error *error, void *cookie)
{
	struct qs_task_run *run = cookie;

	(void)index;
	run->result = json_is_null(result) ? NULL : json_incref(result);
	run->failed = *error;
	if (error->kind == QS_E_DEADLINE)
		(void)qs_fail(&run->failed, QS_E_DEADLINE, "%s", run->task.late);
	if (run->task.done)
		run->task.done(&run->failed, run->task.cookie);
}

void qs_task_prepare(const struct qs_task *task, struct qs_task_run *ret)
{
	*ret = (struct qs_task_run){ .task = *task };
	ret->pool = (struct qs_pool){
		.workers = 1,
		.deadline_ms = task->deadline_ms,
		.grace_ms = task->grace_ms,
		.job = job,
		.step = step,
		.done = done,
		.cookie = ret,
	};
}

int qs_task_run(const struct qs_task *task, json_t **ret, struct qs_error *ret_failed,
		struct qs_error *err)
{
	struct qs_task_run run;
	int r;

	qs_task_prepare(task, &run);
	r = qs_pool_run(&run.pool, 1, err);
	if (ret)
		*ret = json_incref(run.result);
	json_decref(run.result);
	if (ret_failed)
		*ret_failed = run.failed;
	if (r < 0 || ret_failed || run.failed.kind == QS_E_NONE)
		return r;
	if (err)
		*err = run.failed;
	return qs_negative(qs_kind_errno(run.failed.kind));
}
