/*
 * One worker process of a pool: what runs in it, what it says to its parent, and
 * how it is ended. When it starts and which job it gets is the pool's affair
 * (base/pool.c); what a job may ask of it stands in base/pool.h.
 *
 * Both ends are a SOCK_SEQPACKET socket. The parent sends the number of a job as
 * a uint64_t, and one more as the answer to "reserve"; the worker sends JSON
 * objects, each in one packet:
 *
 *   {"reserve": BYTES, "threads": N}                    waits for the answer
 *   {"step": NAME}
 *   {"log": LEVEL, "text": MESSAGE}
 *   {"done": KIND, "text": SENTENCE, "result": ...}     and waits for the next job
 */
#ifndef QS_BASE_WORKER_H
#define QS_BASE_WORKER_H

#include <sys/types.h>

#include "base/pool.h"

/* The longest packet of a worker; Linux lets a local one have 200 KiB. */
#define QS_WORKER_MESSAGE_MAX (128U << 10)

/* Do the jobs of POOL whose numbers come through FD, until that is closed. For a process that was
 * just forked: it never returns. */
void qs_worker_run(const struct qs_pool *pool, int fd) __attribute__((noreturn));

/*
 * Kill a worker and wait until it is gone: only then has the kernel let go of its
 * locks, which takes a moment with a gigabyte of memory. One that hangs inside
 * the kernel is not waited for longer than two seconds.
 */
void qs_worker_kill(pid_t pid);

#endif
