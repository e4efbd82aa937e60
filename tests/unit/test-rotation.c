/*
 * Rotation on a fleet in memory: every order of crashes, of devices that go and come, and of
 * commands, by the code that decides for real disks, too. Visited are all states that can be
 * reached; in each of them every device and backup must open.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "keystore/rotation.h"

#define DEVICES 3
#define LAST_GENERATION 4 /* no rotation begins behind this one: the states must come to an end */
#define STATES_MAX 2000000U

/* All that outlives a crash. No padding: states are compared as bytes. */
struct world {
	uint32_t keks; /* bits: generations whose KEK is there */
	uint8_t current, target, rotation, count;
	uint8_t generations[QS_KEYSTORE_GENERATIONS];
	uint8_t device[DEVICES];    /* the generation that each names */
	uint8_t backup[DEVICES][2]; /* that the copies of its header backup name */
	uint8_t present[DEVICES];
};

_Static_assert(sizeof(struct world) == 4 + 4 + QS_KEYSTORE_GENERATIONS + 4 * DEVICES, "no padding");

struct run {
	struct world world;
	unsigned budget; /* changes until the crash */
	bool torn;       /* the last change is made, though its caller is not told */
};

/* ---- the world as the product's structs ---- */

static struct qs_keystore load(const struct world *w)
{
	struct qs_keystore ks = { .state = QS_KEYSTORE_ENABLED,
				  .current = w->current,
				  .target = w->target,
				  .rotation = (enum qs_rotation_state)w->rotation,
				  .count = w->count };

	for (size_t i = 0; i < ks.count; i++)
		ks.generations[i].number = w->generations[i];
	return ks;
}

static void store(struct world *w, const struct qs_keystore *ks)
{
	memset(w->generations, 0, sizeof(w->generations));
	for (size_t i = 0; i < ks->count; i++)
		w->generations[i] = (uint8_t)ks->generations[i].number;
	w->count = (uint8_t)ks->count;
	w->current = (uint8_t)ks->current;
	w->target = (uint8_t)ks->target;
	w->rotation = (uint8_t)ks->rotation;
}

/* One durable change. False: the machine crashed; with torn it crashed just behind it. */
static bool change(struct run *run, bool *ret_done)
{
	*ret_done = run->budget > 0 || run->torn;
	if (run->budget == 0) {
		run->torn = false;
		return false;
	}
	run->budget--;
	return true;
}

static int save(void *cookie, const struct qs_keystore *ks, struct qs_error *err)
{
	struct run *run = cookie;
	bool done, goes_on = change(run, &done);

	(void)err;
	if (done)
		store(&run->world, ks);
	return goes_on ? 0 : -EIO;
}

static int set_kek(struct run *run, uint32_t number, bool there)
{
	bool done, goes_on = change(run, &done);

	if (done && there)
		run->world.keks |= 1U << number;
	else if (done)
		run->world.keks &= ~(1U << number);
	return goes_on ? 0 : -EIO;
}

static int make(void *cookie, const struct qs_keystore *ks, uint32_t number, struct qs_error *err)
{
	const struct run *run = cookie;

	(void)ks;
	(void)err;
	return run->world.keks >> number & 1 ? 0 : set_kek(cookie, number, true);
}

static int retire(void *cookie, const struct qs_keystore *ks, uint32_t number, struct qs_error *err)
{
	(void)ks;
	(void)err;
	return set_kek(cookie, number, false);
}

static bool behind(const struct world *w, size_t i, const struct qs_keystore *ks)
{
	uint32_t target = qs_keystore_wraps_with(ks);

	return w->present[i] &&
	       (w->device[i] != target || w->backup[i][0] != target || w->backup[i][1] != target);
}

static int look(void *cookie, const struct qs_keystore *ks, struct qs_rotation_view *ret,
		struct qs_error *err)
{
	const struct world *w = &((struct run *)cookie)->world;

	(void)err;
	for (size_t i = 0; i < DEVICES; i++) {
		qs_rotation_view_add(ret, w->backup[i][0]);
		ret->unknown |= w->backup[i][0] != w->backup[i][1];
		if (w->present[i])
			qs_rotation_view_add(ret, w->device[i]);
		ret->waiting += behind(w, i, ks);
	}
	return 0;
}

static int rewrap_one(struct run *run, uint8_t *named, uint32_t target)
{
	bool done, goes_on;

	if (*named == target)
		return 0;
	goes_on = change(run, &done);
	if (done)
		*named = (uint8_t)target;
	return goes_on ? 0 : -EIO;
}

/* The second half of ops/keystore-rewrap.c. */
static int finish_one(struct run *run, size_t i, uint32_t target)
{
	int r = rewrap_one(run, &run->world.device[i], target);

	return r < 0 ? r : rewrap_one(run, &run->world.backup[i][0], target);
}

static int rewrap(void *cookie, const struct qs_keystore *ks, struct qs_error *err)
{
	struct run *run = cookie;
	uint32_t target = qs_keystore_wraps_with(ks);
	int r = 0;

	(void)err;
	for (size_t i = 0; r == 0 && i < DEVICES; i++)
		if (run->world.present[i])
			r = rewrap_one(run, &run->world.backup[i][1], target);
	for (size_t i = 0; r == 0 && i < DEVICES; i++)
		r = run->world.present[i] ? finish_one(run, i, target) : 0;
	return r;
}

static const struct qs_rotation_functions functions = {
	.save = save, .make = make, .look = look, .rewrap = rewrap, .retire = retire
};

/* ---- what must hold ---- */

static bool is_listed(const struct world *w, uint8_t number)
{
	for (size_t i = 0; i < w->count; i++)
		if (w->generations[i] == number)
			return true;
	return false;
}

/* A device opens by a KEK that is there and that keystore.json knows. */
static bool opens(const struct world *w, uint8_t generation)
{
	return w->keks >> generation & 1 && is_listed(w, generation);
}

static bool is_sound(const struct world *w)
{
	for (size_t i = 0; i < DEVICES; i++)
		if (!opens(w, w->device[i]) || !opens(w, w->backup[i][0]) ||
		    !opens(w, w->backup[i][1]))
			return false;
	return opens(w, w->current);
}

/* What a rotation that says 0 has promised. */
static bool is_finished(const struct world *w)
{
	bool ok = w->rotation == QS_ROTATION_IDLE && w->target == 0;

	for (size_t i = 0; i < DEVICES; i++)
		ok &= !w->present[i] ||
		      (w->device[i] == w->current && w->backup[i][0] == w->current &&
		       w->backup[i][1] == w->current);
	/* No KEK without its entry: it would never be erased. */
	for (uint8_t number = 0; number < 32; number++)
		ok &= !(w->keks >> number & 1) || is_listed(w, number);
	return ok;
}

/* ---- all states ---- */

static struct world *states;
static size_t count;
static uint32_t *table; /* open addressing: index + 1 */
#define TABLE (1U << 22)

static uint32_t hash(const struct world *w)
{
	unsigned char p[sizeof(*w)];
	uint32_t h = 2166136261U;

	memcpy(p, w, sizeof(p));
	for (size_t i = 0; i < sizeof(p); i++)
		h = (h ^ p[i]) * 16777619U;
	return h;
}

static void visit(const struct world *w)
{
	uint32_t at = hash(w) % TABLE;

	for (; table[at]; at = (at + 1) % TABLE)
		if (memcmp(&states[table[at] - 1], w, sizeof(*w)) == 0)
			return;
	assert_true(count < STATES_MAX);
	states[count++] = *w;
	table[at] = (uint32_t)count;
}

/*
 * `keystore rotate`, or with ASKED false what an open does for devices that were away: cut off
 * after each of its changes; the last time it comes to its end.
 */
static void rotate(const struct world *from, bool asked)
{
	for (unsigned budget = 0;; budget++) {
		for (int torn = 0; torn < 2; torn++) {
			struct run run = { .world = *from, .budget = budget, .torn = torn };
			struct qs_keystore ks = load(from);
			int r = qs_rotation_run(&ks, &functions, &run, asked, NULL);

			visit(&run.world);
			if (r == 0 && !is_finished(&run.world))
				fail_msg("reported done, and is not");
			if (r == 0)
				return;
		}
	}
}

static void step(const struct world *w)
{
	bool may_begin = w->generations[w->count - 1] < LAST_GENERATION;

	rotate(w, w->rotation == QS_ROTATION_IDLE && may_begin);
	rotate(w, false);
	for (size_t i = 0; i < DEVICES; i++) {
		struct world moved = *w;

		moved.present[i] = !moved.present[i];
		visit(&moved);
	}
}

static void test_every_order_of_crashes(void **state)
{
	const struct world first = { .keks = 1U << 1,
				     .current = 1,
				     .count = 1,
				     .generations = { 1 },
				     .device = { 1, 1, 1 },
				     .backup = { { 1, 1 }, { 1, 1 }, { 1, 1 } },
				     .present = { 1, 1, 0 } };
	size_t retired = 0;

	(void)state;
	states = calloc(STATES_MAX, sizeof(*states));
	table = calloc(TABLE, sizeof(*table));
	assert_non_null(states);
	assert_non_null(table);
	visit(&first);
	for (size_t i = 0; i < count; i++) {
		const struct world w = states[i];

		if (!is_sound(&w))
			fail_msg("state %zu: something no longer opens", i);
		retired += !(w.keks & 1U << 1);
		step(&w);
	}
	/* Generations do go, or none of this would prove anything. */
	assert_true(retired > 0);
	print_message("%zu states, generation 1 is gone in %zu\n", count, retired);
	free(states);
	free(table);
}

/* From every state, one rotation with all devices there and no crash leaves two generations. */
static void test_it_comes_to_an_end(void **state)
{
	struct run run = { .world = { .keks = 7U << 1,
				      .current = 2,
				      .target = 3,
				      .rotation = QS_ROTATION_REWRAPPING,
				      .count = 3,
				      .generations = { 1, 2, 3 },
				      .device = { 1, 2, 3 },
				      .backup = { { 1, 1 }, { 2, 2 }, { 2, 3 } },
				      .present = { 1, 1, 1 } },
			   .budget = 100 };
	struct qs_keystore ks = load(&run.world);

	(void)state;
	assert_int_equal(qs_rotation_run(&ks, &functions, &run, false, NULL), 0);
	assert_true(is_finished(&run.world));
	assert_int_equal(run.world.keks, 3U << 2);
	assert_int_equal(ks.current, 3);
	assert_int_equal(ks.count, 2);
}

/* What cannot be looked at may name any generation. */
static void test_nothing_goes_while_something_is_unknown(void **state)
{
	const struct qs_keystore ks = { .state = QS_KEYSTORE_ENABLED,
					.current = 3,
					.generations = { { 1, 0 }, { 2, 0 }, { 3, 0 } },
					.count = 3 };
	struct qs_rotation_view view = {};
	uint32_t number = 0;

	(void)state;
	assert_int_equal(qs_rotation_next(&ks, &view, false, &number), QS_ROTATION_RETIRE);
	assert_int_equal(number, 1);
	view.unknown = true;
	assert_int_equal(qs_rotation_next(&ks, &view, false, &number), QS_ROTATION_DONE);
	view.unknown = false;
	qs_rotation_view_add(&view, 1);
	assert_int_equal(qs_rotation_next(&ks, &view, false, &number), QS_ROTATION_DONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_order_of_crashes),
		cmocka_unit_test(test_it_comes_to_an_end),
		cmocka_unit_test(test_nothing_goes_while_something_is_unknown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
