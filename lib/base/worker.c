#define _GNU_SOURCE
#include "base/worker.h"

#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/utf8.h"

/* How long a killed worker may take to be gone. */
#define DEATH_MS 2000

/*
 * Bytes that a worker keeps for its next job. Headers come in quarters of a MiB, several for each
 * device, and what is given back to the kernel comes back page by page, and zeroed.
 */
#define KEPT_MEMORY (4 << 20)

struct qs_worker {
	int fd;
};

static int worker_send(int fd, json_t *message)
{
	QS_AUTO(qs_auto_json) json_t *owned = message;
	QS_AUTO(qs_auto_free) char *text = json_dumps(owned, JSON_COMPACT);

	if (!text)
		return -ENOMEM;
	return send(fd, text, strlen(text), MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int qs_worker_reserve(struct qs_worker *worker, uint64_t memory, unsigned threads,
		      struct qs_error *err)
{
	uint64_t answer;
	int r = worker_send(worker->fd, json_pack("{s:I,s:i}", "reserve", (json_int_t)memory,
						  "threads", (int)threads));

	if (r < 0)
		return qs_fail_errno(err, r, "cannot ask for memory");
	if (recv(worker->fd, &answer, sizeof(answer), 0) != sizeof(answer))
		return qs_fail(err, QS_E_INTERRUPTED, "interrupted while waiting for memory");
	return 0;
}

void qs_worker_step(struct qs_worker *worker, const char *step)
{
	(void)worker_send(worker->fd, json_pack("{s:s}", "step", step));
}

static void log_to_parent(enum qs_log_level level, const char *message, void *cookie)
{
	const struct qs_worker *worker = cookie;

	(void)worker_send(worker->fd,
			  json_pack("{s:i,s:o}", "log", (int)level, "text", qs_utf8_json(message)));
}

/*
 * A worker that hangs in the kernel stays after it was killed. Whoever reads our
 * output to its end must not wait for it, so it keeps none of that open.
 */
static void let_go_of_output(void)
{
	QS_AUTO(qs_auto_close) int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return;
	(void)dup2(null, STDOUT_FILENO);
#ifndef __SANITIZE_ADDRESS__ /* whose findings come on standard error */
	(void)dup2(null, STDERR_FILENO);
#endif
}

static void worker_finish(int fd, json_t *result, const struct qs_error *err)
{
	json_t *message = json_pack("{s:s,s:s,s:o?}", "done", qs_kind_name(err->kind), "text",
				    err->text, "result", result);
	int r = worker_send(fd, message);

	/* Too long for one packet, or not UTF-8: the verdict alone still fits. */
	if (r < 0)
		(void)worker_send(fd, json_pack("{s:s,s:s}", "done", qs_kind_name(err->kind),
						"text", "(the details could not be passed on)"));
}

void qs_worker_run(const struct qs_pool *pool, int fd)
{
	struct qs_worker worker = { fd };
	uint64_t job;

	let_go_of_output();
	(void)mallopt(M_MMAP_THRESHOLD, KEPT_MEMORY);
	(void)mallopt(M_TRIM_THRESHOLD, KEPT_MEMORY);
	qs_log_redirect(log_to_parent, &worker);
	while (recv(fd, &job, sizeof(job), 0) == sizeof(job)) {
		struct qs_error err = {};
		json_t *result = NULL;
		int r = pool->job(&worker, (size_t)job, pool->cookie, &result, &err);

		if (r >= 0)
			err = (struct qs_error){};
		else if (err.kind == QS_E_NONE)
			(void)qs_fail_errno(&err, r, "failed");
		worker_finish(fd, result, &err);
	}
	_exit(0);
}

void qs_worker_kill(pid_t pid)
{
	const struct timespec pause = { .tv_nsec = 10L * 1000 * 1000 };

	(void)kill(pid, SIGKILL);
	for (unsigned waited = 0; waited < DEATH_MS; waited += 10) {
		if (waitpid(pid, NULL, WNOHANG) != 0)
			return;
		(void)nanosleep(&pause, NULL);
	}
}
