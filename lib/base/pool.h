/*
 * Worker processes.
 *
 * libcryptsetup and libdevmapper are not thread-safe, and a key derivation in
 * libcryptsetup ignores SIGTERM (faults F11), so work on many devices runs in
 * forked processes with a deadline and SIGKILL each. A few workers take job
 * after job; a job that needs a memory-hard key derivation asks for it with
 * qs_worker_reserve() and then waits until every cheap job has been done and
 * memory and cores are free, while another worker takes its place.
 */
#ifndef QS_BASE_POOL_H
#define QS_BASE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "base/error.h"

/* Time for a job to come to its own end after an interrupt, where nothing shorter is safe. */
#define QS_POOL_GRACE_MS 10000U

struct qs_worker; /* the job's side of its connection to the parent */

/*
 * One job, run in a worker process. *ret (may stay NULL) travels to the parent
 * as JSON text through a socket: never put a secret into it.
 */
typedef int qs_job(struct qs_worker *worker, size_t index, void *cookie, json_t **ret,
		   struct qs_error *err);

/* Called in the parent as each job ends, in the order of their ends. RESULT may be NULL. */
typedef void qs_job_done(size_t index, json_t *result, const struct qs_error *error, void *cookie);

/* Called in the parent when a job names its step (qs_worker_step). */
typedef void qs_job_step(size_t index, const char *step, void *cookie);

struct qs_pool {
	unsigned workers;      /* at most so many run at once; 0: number of usable cores */
	uint64_t memory_limit; /* bytes reserved at once; 0: half of what the machine or cgroup has
				*/
	unsigned deadline_ms;  /* for each job, waiting for a reservation not counted; 0: none */
	unsigned grace_ms;     /* so long a job may go on after an interrupt; 0: QS_POOL_GRACE_MS */
	qs_job *job;
	qs_job_done *done;
	qs_job_step *step; /* may be NULL */
	void *cookie;
	/*
	 * Another pool, whose only job runs beside these all the while, with that pool's callbacks
	 * and deadline. It shall be one that mostly waits (for a TPM): it takes no core from them.
	 * NULL: none.
	 */
	const struct qs_pool *beside;
	/*
	 * In the parent, as long as that one runs: may job INDEX begin? Asked again whenever
	 * anything happens; afterwards every job may. NULL: at once.
	 */
	bool (*ready)(size_t index, void *cookie);
	/*
	 * In the parent, when that one has its process and before any of these: what all of these
	 * shall find done. NULL: nothing.
	 */
	void (*prepare)(void);
};

/*
 * Run COUNT jobs. A job that dies or passes its deadline ends with an error of
 * its own (QS_E_FAILED, QS_E_DEADLINE) and no other job is touched. After
 * SIGINT or SIGTERM (qs_pool_interrupt) no further job starts, and one that runs is killed
 * when it has had its grace (QS_E_INTERRUPTED).
 * Returns 0 when every job has been reported through done(), or -errno when no
 * worker could be started at all.
 */
int qs_pool_run(const struct qs_pool *pool, size_t count, struct qs_error *err);

/*
 * Wait until MEMORY bytes and THREADS cores may be used. What a job holds it
 * gives back when it ends. A demand above the limit is granted when nothing
 * else holds memory: one at a time always works.
 */
int qs_worker_reserve(struct qs_worker *worker, uint64_t memory, unsigned threads,
		      struct qs_error *err);

/* Tell the parent about a step, for the pool's step callback. */
void qs_worker_step(struct qs_worker *worker, const char *step);

/* Async-signal-safe: ask a running pool to stop handing out jobs. */
void qs_pool_interrupt(void);

/* Has that been asked for? For long work outside of a pool. */
bool qs_pool_interrupted(void);

/* Cores that this process may use (affinity), at least 1. */
unsigned qs_pool_cores(void);

#endif
