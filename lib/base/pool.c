#define _GNU_SOURCE
#include "base/pool.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/text.h"
#include "base/worker.h"

/*
 * A job that has run so long without asking for a reservation is not cheap
 * (a disk that does not answer): others no longer wait for it. A cheap keyslot
 * takes 10 to 25 ms, an emulated one half a second.
 */
#define SLOW_MS 3000

enum slot_state {
	SLOT_FREE,    /* no process */
	SLOT_IDLE,    /* a process without a job */
	SLOT_CHEAP,   /* runs a job */
	SLOT_WAITING, /* asked for a reservation */
	SLOT_HEAVY,   /* runs with a reservation */
	SLOT_BESIDE,  /* runs the job beside all others */
};

struct slot {
	enum slot_state state;
	const struct qs_pool *pool; /* whose jobs the process does */
	pid_t pid;
	int fd;
	size_t job;
	int64_t since; /* ms; start of the job, or of its reservation */
	uint64_t memory;
	unsigned threads;
};

struct run {
	const struct qs_pool *pool;
	struct slot *slots;
	size_t slot_count;
	size_t count;
	bool *begun; /* one per job: handed out, or given up */
	size_t left; /* those that are not */
	bool beside; /* the job beside them has not ended */
	unsigned cores;
	uint64_t memory_limit;
	int64_t interrupted_at; /* 0: not */
	char *buffer;           /* QS_WORKER_MESSAGE_MAX + 1 bytes */
	struct pollfd *fds;     /* one per slot */
};

static volatile sig_atomic_t interrupted;

void qs_pool_interrupt(void)
{
	interrupted = 1;
}

bool qs_pool_interrupted(void)
{
	return interrupted != 0;
}

unsigned qs_pool_cores(void)
{
	cpu_set_t set;
	int n = 0;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		n = CPU_COUNT(&set);
	return n > 0 ? (unsigned)n : 1;
}

static int64_t now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- the parent's side ---- */

static void close_other_ends(const struct run *run)
{
	for (size_t i = 0; i < run->slot_count; i++)
		if (run->slots[i].state != SLOT_FREE)
			close(run->slots[i].fd);
}

static int start_worker(const struct run *run, struct slot *slot, const struct qs_pool *pool)
{
	pid_t parent = getpid();
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	slot->pid = fork();
	if (slot->pid < 0) {
		int r = -errno;

		close(ends[0]);
		close(ends[1]);
		return r;
	}
	if (slot->pid == 0) {
		/* The terminal's Ctrl-C reaches the whole group; the parent decides for all. */
		(void)signal(SIGINT, SIG_IGN);
		(void)signal(SIGTERM, SIG_IGN);
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		close_other_ends(run);
		close(ends[0]);
		qs_worker_run(pool, ends[1]);
	}
	close(ends[1]);
	slot->fd = ends[0];
	slot->pool = pool;
	slot->state = SLOT_IDLE;
	return 0;
}

static void report(const struct qs_pool *pool, size_t job, json_t *result,
		   const struct qs_error *err)
{
	if (pool->done)
		pool->done(job, result, err, pool->cookie);
}

/* The job of SLOT has ended, and with it, if it was the one beside, what others waited for. */
static void report_slot(struct run *run, const struct slot *slot, json_t *result,
			const struct qs_error *err)
{
	run->beside &= slot->pool == run->pool;
	report(slot->pool, slot->job, result, err);
}

static void drop_worker(struct slot *slot, bool force)
{
	close(slot->fd);
	if (force)
		qs_worker_kill(slot->pid);
	else
		(void)waitpid(slot->pid, NULL, 0);
	slot->state = SLOT_FREE;
}

static void worker_died(struct run *run, struct slot *slot)
{
	bool busy = slot->state != SLOT_IDLE;
	struct qs_error err = {};
	int status = 0;

	close(slot->fd);
	(void)waitpid(slot->pid, &status, 0);
	slot->state = SLOT_FREE;
	if (!busy)
		return;
	if (WIFSIGNALED(status))
		(void)qs_fail(&err, QS_E_FAILED, "the worker process was ended by signal %d (%s)",
			      WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		(void)qs_fail(&err, QS_E_FAILED, "the worker process ended with status %d",
			      WEXITSTATUS(status));
	report_slot(run, slot, NULL, &err);
}

static void job_done(struct run *run, struct slot *slot, json_t *message)
{
	struct qs_error err = {};
	const char *text = json_string_value(json_object_get(message, "text"));

	err.kind = qs_kind_of_name(json_string_value(json_object_get(message, "done")));
	(void)snprintf(err.text, sizeof(err.text), "%s", text ? text : "");
	slot->state = SLOT_IDLE;
	slot->memory = 0;
	slot->threads = 0;
	report_slot(run, slot, json_object_get(message, "result"), &err);
	if (slot->pool != run->pool)
		drop_worker(slot, false);
}

static void handle_message(struct run *run, struct slot *slot)
{
	ssize_t n = recv(slot->fd, run->buffer, QS_WORKER_MESSAGE_MAX, MSG_DONTWAIT);
	QS_AUTO(qs_auto_json) json_t *message = NULL;
	json_t *value;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		worker_died(run, slot);
		return;
	}
	message = json_loadb(run->buffer, (size_t)n, 0, NULL);
	value = json_object_get(message, "reserve");
	if (value) {
		slot->memory = (uint64_t)json_integer_value(value);
		slot->threads = (unsigned)json_integer_value(json_object_get(message, "threads"));
		slot->state = SLOT_WAITING;
		return;
	}
	value = json_object_get(message, "log");
	if (value) {
		qs_log((enum qs_log_level)json_integer_value(value), "%s",
		       json_string_value(json_object_get(message, "text")));
		return;
	}
	value = json_object_get(message, "step");
	if (value) {
		if (slot->pool->step)
			slot->pool->step(slot->job, json_string_value(value), slot->pool->cookie);
		return;
	}
	job_done(run, slot, message);
}

/* Jobs that keep a core busy. One that takes long without a reservation waits for a disk. */
static unsigned busy_cheap(const struct run *run, int64_t now)
{
	unsigned n = 0;

	for (size_t i = 0; i < run->slot_count; i++)
		n += run->slots[i].state == SLOT_CHEAP && now - run->slots[i].since < SLOW_MS;
	return n;
}

static struct slot *free_slot(struct run *run)
{
	struct slot *found = NULL;

	for (size_t i = 0; i < run->slot_count; i++) {
		if (run->slots[i].state == SLOT_IDLE)
			return &run->slots[i];
		if (run->slots[i].state == SLOT_FREE && !found)
			found = &run->slots[i];
	}
	return found;
}

static void begin(struct slot *slot, size_t index, enum slot_state state, int64_t now)
{
	uint64_t job = index;

	slot->job = index;
	slot->since = now;
	slot->state = state;
	/* A worker that died meanwhile is seen by its closed socket. */
	(void)send(slot->fd, &job, sizeof(job), MSG_NOSIGNAL);
}

/* The first job that may begin, or the number of all. */
static size_t next_job(const struct run *run)
{
	const struct qs_pool *pool = run->pool;
	size_t i = 0;

	while (i < run->count &&
	       (run->begun[i] || (run->beside && pool->ready && !pool->ready(i, pool->cookie))))
		i++;
	return i;
}

static int hand_out(struct run *run, int64_t now)
{
	while (run->left > 0 && !run->interrupted_at && busy_cheap(run, now) < run->cores) {
		struct slot *slot = free_slot(run);
		size_t job = next_job(run);
		int r;

		if (!slot || job == run->count)
			return 0;
		r = slot->state == SLOT_FREE ? start_worker(run, slot, run->pool) : 0;
		if (r < 0)
			return busy_cheap(run, now) > 0 ? 0 : r;
		begin(slot, job, SLOT_CHEAP, now);
		run->begun[job] = true;
		run->left--;
	}
	return 0;
}

/* Before all others, so that there is a free slot for it. */
static int begin_beside(struct run *run)
{
	struct slot *slot = &run->slots[0];
	int r = run->pool->beside ? start_worker(run, slot, run->pool->beside) : 0;

	if (r < 0 || !run->pool->beside)
		return r;
	begin(slot, 0, SLOT_BESIDE, now_ms());
	run->beside = true;
	return 0;
}

static void grant(struct run *run, int64_t now)
{
	uint64_t memory = 0;
	unsigned threads = 0, heavy = 0;

	if (run->left > 0 || busy_cheap(run, now) > 0)
		return;
	for (size_t i = 0; i < run->slot_count; i++) {
		if (run->slots[i].state != SLOT_HEAVY)
			continue;
		heavy++;
		memory += run->slots[i].memory;
		threads += run->slots[i].threads;
	}
	for (size_t i = 0; i < run->slot_count; i++) {
		struct slot *slot = &run->slots[i];
		uint64_t go = 1;

		if (slot->state != SLOT_WAITING)
			continue;
		if (heavy > 0 && (memory + slot->memory > run->memory_limit ||
				  threads + slot->threads > run->cores))
			continue;
		heavy++;
		memory += slot->memory;
		threads += slot->threads;
		slot->state = SLOT_HEAVY;
		slot->since = now;
		(void)send(slot->fd, &go, sizeof(go), MSG_NOSIGNAL);
	}
}

/* When a running job must have ended, in ms of now_ms(); INT64_MAX: never. */
static int64_t deadline_of(const struct run *run, const struct slot *slot)
{
	int64_t deadline = INT64_MAX, grace = QS_POOL_GRACE_MS;

	if (slot->state <= SLOT_IDLE || slot->state == SLOT_WAITING)
		return deadline;
	if (slot->pool->deadline_ms > 0)
		deadline = slot->since + slot->pool->deadline_ms;
	if (slot->pool->grace_ms > 0)
		grace = slot->pool->grace_ms;
	if (run->interrupted_at && run->interrupted_at + grace < deadline)
		deadline = run->interrupted_at + grace;
	return deadline;
}

static void kill_overdue(struct run *run, int64_t now)
{
	for (size_t i = 0; i < run->slot_count; i++) {
		struct slot *slot = &run->slots[i];
		char seconds[QS_TEXT_SIZE_L];
		struct qs_error err = {};

		if (now < deadline_of(run, slot))
			continue;
		if (run->interrupted_at)
			(void)qs_fail(&err, QS_E_INTERRUPTED, "interrupted");
		else
			(void)qs_fail(&err, QS_E_DEADLINE,
				      "not finished after %s; its worker was killed",
				      qs_text_seconds(slot->pool->deadline_ms / 1000, seconds));
		drop_worker(slot, true);
		report_slot(run, slot, NULL, &err);
	}
}

static void cancel_rest(struct run *run)
{
	struct qs_error err = {};

	(void)qs_fail(&err, QS_E_INTERRUPTED, "interrupted before it was begun");
	for (size_t i = 0; i < run->count; i++)
		if (!run->begun[i])
			report(run->pool, i, NULL, &err);
	run->left = 0;
	for (size_t i = 0; i < run->slot_count; i++) {
		if (run->slots[i].state != SLOT_WAITING)
			continue;
		drop_worker(&run->slots[i], true);
		report_slot(run, &run->slots[i], NULL, &err);
	}
}

static size_t jobs_running(const struct run *run)
{
	size_t n = 0;

	for (size_t i = 0; i < run->slot_count; i++)
		n += run->slots[i].state > SLOT_IDLE;
	return n;
}

/* Sleep until a message, a deadline, or a cheap job turns slow. */
static void wait_for_event(struct run *run, int64_t now, const sigset_t *mask)
{
	struct pollfd *fds = run->fds;
	int64_t until = now + SLOW_MS;
	struct timespec timeout;

	for (size_t i = 0; i < run->slot_count; i++) {
		const struct slot *slot = &run->slots[i];

		fds[i] = (struct pollfd){ slot->state == SLOT_FREE ? -1 : slot->fd, POLLIN, 0 };
		if (deadline_of(run, slot) < until)
			until = deadline_of(run, slot);
	}
	if (until < now)
		until = now;
	timeout.tv_sec = (until - now) / 1000;
	timeout.tv_nsec = (until - now) % 1000 * 1000000;
	if (ppoll(fds, run->slot_count, &timeout, mask) <= 0)
		return;
	for (size_t i = 0; i < run->slot_count; i++)
		if (fds[i].revents)
			handle_message(run, &run->slots[i]);
}

static int run_jobs(struct run *run, const sigset_t *mask, struct qs_error *err)
{
	int r = begin_beside(run);

	if (r < 0)
		return qs_fail_errno(err, r, "cannot start a worker process");
	if (run->pool->prepare)
		run->pool->prepare();
	for (;;) {
		int64_t now = now_ms();

		if (interrupted && !run->interrupted_at) {
			run->interrupted_at = now;
			cancel_rest(run);
		}
		r = hand_out(run, now);
		if (r < 0)
			return qs_fail_errno(err, r, "cannot start a worker process");
		grant(run, now);
		if (run->left == 0 && jobs_running(run) == 0)
			return 0;
		wait_for_event(run, now, mask);
		kill_overdue(run, now_ms());
	}
}

int qs_pool_run(const struct qs_pool *pool, size_t count, struct qs_error *err)
{
	struct run run = { .pool = pool, .count = count, .left = count, .slot_count = count + 1 };
	QS_AUTO(qs_auto_free) struct slot *slots = calloc(count + 1, sizeof(*slots));
	QS_AUTO(qs_auto_free) struct pollfd *fds = calloc(count + 1, sizeof(*fds));
	QS_AUTO(qs_auto_free) bool *begun = calloc(count + 1, sizeof(*begun));
	QS_AUTO(qs_auto_free) char *buffer = malloc(QS_WORKER_MESSAGE_MAX + 1);
	sigset_t block, before;
	int r;

	if (!slots || !fds || !begun || !buffer)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu workers", count);
	run.slots = slots;
	run.begun = begun;
	run.buffer = buffer;
	run.fds = fds;
	run.cores = pool->workers ? pool->workers : qs_pool_cores();
	run.memory_limit = pool->memory_limit ? pool->memory_limit : qs_memory_default();
	/* Signals arrive only inside ppoll(), so that none is missed just before it. */
	(void)sigemptyset(&block);
	(void)sigaddset(&block, SIGINT);
	(void)sigaddset(&block, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &block, &before);
	r = run_jobs(&run, &before, err);
	for (size_t i = 0; i < run.slot_count; i++)
		if (slots[i].state != SLOT_FREE)
			drop_worker(&slots[i], slots[i].state != SLOT_IDLE);
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
	return r;
}
