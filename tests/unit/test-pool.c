/*
 * Worker processes: every job is reported once, whatever happens to its worker,
 * and memory-hard jobs wait for cheap ones and for memory.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/pool.h"

#define JOBS 12
#define BIG (600U << 20)

/* What the parent was told, and what the workers leave for each other. */
struct record {
	size_t order[JOBS]; /* job numbers in the order of their ends */
	size_t ended;
	unsigned times[JOBS];
	enum qs_kind kind[JOBS];
	int value[JOBS];
	size_t steps;
	struct shared {
		atomic_int heavy, most_heavy;
	} * shared;
};

static void note_end(size_t i, json_t *result, const struct qs_error *error, void *cookie)
{
	struct record *r = cookie;

	r->order[r->ended++] = i;
	r->times[i]++;
	r->kind[i] = error->kind;
	r->value[i] = (int)json_integer_value(json_object_get(result, "value"));
}

static void note_step(size_t i, const char *step, void *cookie)
{
	struct record *r = cookie;

	(void)i;
	if (strcmp(step, "half") == 0)
		r->steps++;
}

static void run(qs_job *job, struct qs_pool pool, struct record *r)
{
	struct qs_error err = {};

	r->shared = mmap(NULL, sizeof(*r->shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(r->shared, MAP_FAILED);
	pool.job = job;
	pool.done = note_end;
	pool.step = note_step;
	pool.cookie = r;
	assert_int_equal(qs_pool_run(&pool, JOBS, &err), 0);
	assert_int_equal(r->ended, JOBS);
	for (size_t i = 0; i < JOBS; i++)
		assert_int_equal(r->times[i], 1);
	munmap(r->shared, sizeof(*r->shared));
}

static int square(struct qs_worker *w, size_t i, void *cookie, json_t **ret, struct qs_error *err)
{
	(void)cookie;
	qs_worker_step(w, "half");
	if (i == 3)
		return qs_fail(err, QS_E_NO_KEY, "not this one");
	*ret = json_pack("{s:i}", "value", (int)(i * i));
	return 0;
}

static void test_results_errors_and_steps_arrive(void **state)
{
	struct record r = {};

	(void)state;
	run(square, (struct qs_pool){ .workers = 3 }, &r);
	assert_int_equal(r.steps, JOBS);
	for (size_t i = 0; i < JOBS; i++) {
		assert_int_equal(r.kind[i], i == 3 ? QS_E_NO_KEY : QS_E_NONE);
		assert_int_equal(r.value[i], i == 3 ? 0 : (int)(i * i));
	}
}

static int forget_error(struct qs_worker *w, size_t i, void *cookie, json_t **ret,
			struct qs_error *err)
{
	(void)w;
	(void)cookie;
	(void)ret;
	(void)qs_fail(err, QS_E_IO, "tried something that did not matter");
	return i == 0 ? -ENOSPC : 0;
}

static void test_success_is_success_whatever_the_error_object_says(void **state)
{
	struct record r = {};

	(void)state;
	run(forget_error, (struct qs_pool){ .workers = 2 }, &r);
	assert_int_equal(r.kind[0], QS_E_IO);
	for (size_t i = 1; i < JOBS; i++)
		assert_int_equal(r.kind[i], QS_E_NONE);
}

static int die(struct qs_worker *w, size_t i, void *cookie, json_t **ret, struct qs_error *err)
{
	if (i == 2)
		(void)raise(SIGKILL);
	if (i == 5)
		_exit(3);
	return square(w, i, cookie, ret, err);
}

static void test_a_dead_worker_fails_its_own_job_only(void **state)
{
	struct record r = {};

	(void)state;
	run(die, (struct qs_pool){ .workers = 2 }, &r);
	for (size_t i = 0; i < JOBS; i++)
		assert_int_equal(r.kind[i], i == 2 || i == 5 ? QS_E_FAILED
					    : i == 3         ? QS_E_NO_KEY
							     : QS_E_NONE);
}

static int hang(struct qs_worker *w, size_t i, void *cookie, json_t **ret, struct qs_error *err)
{
	/* Like a key derivation in libcryptsetup: deaf to SIGTERM. */
	(void)signal(SIGTERM, SIG_IGN);
	while (i == 0 || i == 7)
		pause();
	return square(w, i, cookie, ret, err);
}

static void test_a_job_past_its_deadline_is_killed_and_the_others_are_done(void **state)
{
	struct record r = {};

	(void)state;
	run(hang, (struct qs_pool){ .workers = 1, .deadline_ms = 2000 }, &r);
	assert_int_equal(r.kind[0], QS_E_DEADLINE);
	assert_int_equal(r.kind[7], QS_E_DEADLINE);
	assert_int_equal(r.kind[1], QS_E_NONE);
	assert_int_equal(r.kind[JOBS - 1], QS_E_NONE);
}

/* The first six jobs are memory-hard. */
static int heavy(struct qs_worker *w, size_t i, void *cookie, json_t **ret, struct qs_error *err)
{
	const struct record *r = cookie;
	struct shared *s = r->shared;
	int now, most, e;

	(void)ret;
	if (i >= 6)
		return 0;
	e = qs_worker_reserve(w, BIG, 2, err);
	if (e < 0)
		return e;
	now = atomic_fetch_add(&s->heavy, 1) + 1;
	most = atomic_load(&s->most_heavy);
	while (now > most && !atomic_compare_exchange_weak(&s->most_heavy, &most, now))
		;
	(void)usleep(20000);
	atomic_fetch_sub(&s->heavy, 1);
	*ret = json_pack("{s:i}", "value", atomic_load(&s->most_heavy));
	return 0;
}

static int most_heavy_at_once(const struct record *r)
{
	int most = 0;

	for (size_t i = 0; i < JOBS; i++)
		if (r->value[i] > most)
			most = r->value[i];
	return most;
}

static void test_memory_hard_jobs_wait_for_the_cheap_ones(void **state)
{
	struct record r = {};

	(void)state;
	run(heavy, (struct qs_pool){ .workers = 4, .memory_limit = 2ULL * BIG }, &r);
	for (size_t i = 0; i < JOBS; i++)
		assert_true(i < JOBS - 6 ? r.order[i] >= 6 : r.order[i] < 6);
}

static void test_reservations_stay_within_memory(void **state)
{
	struct record r = {};

	(void)state;
	run(heavy, (struct qs_pool){ .workers = 16, .memory_limit = 2ULL * BIG }, &r);
	assert_in_range(most_heavy_at_once(&r), 1, 2);
}

static void test_a_demand_above_the_limit_runs_alone(void **state)
{
	struct record r = {};

	(void)state;
	run(heavy, (struct qs_pool){ .workers = 16, .memory_limit = BIG / 2 }, &r);
	assert_int_equal(most_heavy_at_once(&r), 1);
}

static void test_reservations_stay_within_cores(void **state)
{
	struct record r = {};

	(void)state;
	/* Two threads each: of three cores one job may use two. */
	run(heavy, (struct qs_pool){ .workers = 3, .memory_limit = 100ULL * BIG }, &r);
	assert_int_equal(most_heavy_at_once(&r), 1);
}

/* ---- a job beside the others ---- */

#define BESIDE_MS 20000

struct line {
	struct record others; /* first: what note_end() gets */
	size_t named;         /* steps of the job beside them, in the parent */
	size_t ended_before;  /* of the others, when it ended */
	enum qs_kind kind;
	bool dies;
	struct {
		atomic_size_t done; /* of the others */
	} * shared;
};

/* Names each job, and goes on to the next only when that one was done. */
static int lead(struct qs_worker *w, size_t i, void *cookie, json_t **ret, struct qs_error *err)
{
	struct line *line = cookie;

	(void)i;
	(void)ret;
	(void)err;
	for (size_t n = 0; n < JOBS; n++) {
		qs_worker_step(w, "next");
		while (n + 1 < JOBS && atomic_load(&line->shared->done) <= n)
			(void)usleep(1000);
	}
	return 0;
}

static int lead_and_stop(struct qs_worker *w, size_t i, void *cookie, json_t **ret,
			 struct qs_error *err)
{
	const struct line *line = cookie;

	(void)i;
	(void)ret;
	(void)err;
	qs_worker_step(w, "next");
	if (line->dies)
		_exit(3);
	(void)pause();
	return 0;
}

static void note_next(size_t i, const char *step, void *cookie)
{
	struct line *line = cookie;

	(void)i;
	line->named += strcmp(step, "next") == 0;
}

static void note_beside(size_t i, json_t *result, const struct qs_error *error, void *cookie)
{
	struct line *line = cookie;

	(void)result;
	assert_int_equal(i, 0);
	line->kind = error->kind;
	line->ended_before = line->others.ended;
}

static bool is_named(size_t i, void *cookie)
{
	const struct line *line = cookie;

	return i < line->named;
}

static int follow(struct qs_worker *w, size_t i, void *cookie, json_t **ret, struct qs_error *err)
{
	const struct line *line = cookie;

	(void)w;
	(void)i;
	(void)ret;
	(void)err;
	atomic_fetch_add(&line->shared->done, 1);
	return 0;
}

static void run_beside(qs_job *leader, unsigned deadline_ms, struct line *line)
{
	const struct qs_pool beside = {
		.deadline_ms = deadline_ms,
		.job = leader,
		.step = note_next,
		.done = note_beside,
		.cookie = line,
	};
	const struct qs_pool pool = {
		.workers = 1,
		.job = follow,
		.done = note_end,
		.cookie = line,
		.beside = &beside,
		.ready = is_named,
	};
	struct qs_error err = {};

	line->shared = mmap(NULL, sizeof(*line->shared), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(line->shared, MAP_FAILED);
	assert_int_equal(qs_pool_run(&pool, JOBS, &err), 0);
	assert_int_equal(line->others.ended, JOBS);
	assert_int_equal(atomic_load(&line->shared->done), JOBS);
	munmap(line->shared, sizeof(*line->shared));
}

/* It takes no core from them: there is one only. */
static void test_a_job_beside_lets_the_others_begin_one_by_one(void **state)
{
	struct line line = {};

	(void)state;
	run_beside(lead, BESIDE_MS, &line);
	assert_int_equal(line.kind, QS_E_NONE);
	assert_int_equal(line.named, JOBS);
	assert_true(line.ended_before >= JOBS - 2);
	for (size_t i = 0; i < JOBS; i++)
		assert_int_equal(line.others.order[i], i);
}

static void test_the_others_go_on_without_the_job_beside(void **state)
{
	struct line dies = { .dies = true }, hangs = {};

	(void)state;
	run_beside(lead_and_stop, BESIDE_MS, &dies);
	assert_int_equal(dies.kind, QS_E_FAILED);
	run_beside(lead_and_stop, 200, &hangs);
	assert_int_equal(hangs.kind, QS_E_DEADLINE);
	assert_true(hangs.ended_before <= 1);
}

static int interrupt(struct qs_worker *w, size_t i, void *cookie, json_t **ret,
		     struct qs_error *err)
{
	(void)w;
	(void)cookie;
	(void)ret;
	(void)err;
	if (i == 0)
		(void)kill(getppid(), SIGTERM);
	return 0;
}

static void on_signal(int number)
{
	(void)number;
	qs_pool_interrupt();
}

/* The last test: the interrupt stays in force for the rest of the process. */
static void test_an_interrupt_reports_what_was_not_begun(void **state)
{
	struct record r = {};

	(void)state;
	(void)signal(SIGTERM, on_signal);
	run(interrupt, (struct qs_pool){ .workers = 1 }, &r);
	assert_int_equal(r.kind[0], QS_E_NONE);
	assert_int_equal(r.kind[JOBS - 1], QS_E_INTERRUPTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_results_errors_and_steps_arrive),
		cmocka_unit_test(test_success_is_success_whatever_the_error_object_says),
		cmocka_unit_test(test_a_dead_worker_fails_its_own_job_only),
		cmocka_unit_test(test_a_job_past_its_deadline_is_killed_and_the_others_are_done),
		cmocka_unit_test(test_memory_hard_jobs_wait_for_the_cheap_ones),
		cmocka_unit_test(test_reservations_stay_within_memory),
		cmocka_unit_test(test_a_demand_above_the_limit_runs_alone),
		cmocka_unit_test(test_reservations_stay_within_cores),
		cmocka_unit_test(test_a_job_beside_lets_the_others_begin_one_by_one),
		cmocka_unit_test(test_the_others_go_on_without_the_job_beside),
		cmocka_unit_test(test_an_interrupt_reports_what_was_not_begun),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
