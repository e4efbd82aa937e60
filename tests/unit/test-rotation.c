/*
 * Rotation and migration on a fleet in memory: every order of crashes, of devices that go and come,
 * of a provider that is away, and of commands, by the code that decides for real disks, too.
 * Visited are all states that can be reached; in each of them every device and backup must open.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "keystore/rotation.h"

#define DEVICES 3
#define STATES_MAX 2000000U

/* All that outlives a crash. No padding: states are compared as bytes. */
struct world {
	uint32_t keks[2]; /* of each provider, bits: generations whose KEK is there */
	uint8_t current, target, rotation, count;
	uint8_t provider; /* of the target; else 0 */
	uint8_t orphan;   /* the provider that was away may have a KEK that nobody needs */
	uint8_t unused[2];
	uint8_t generations[QS_KEYSTORE_GENERATIONS]; /* each as KEY() */
	uint8_t device[DEVICES];                      /* what each names, likewise */
	uint8_t backup[DEVICES][2]; /* that the copies of its header backup name */
	uint8_t present[DEVICES];
};

_Static_assert(sizeof(struct world) == 8 + 8 + QS_KEYSTORE_GENERATIONS + 4 * DEVICES, "no padding");

struct run {
	struct world world;
	unsigned budget; /* changes until the crash */
	bool torn;       /* the last change is made, though its caller is not told */
	bool away;       /* the second provider does not answer */
};

/* A generation and its provider in one byte. */
#define KEY(number, provider) ((uint8_t)((number) | (provider) << 4))
#define NUMBER(key) ((key)&15)
#define PROVIDER(key) ((key) >> 4)

static const char *const names[] = { "near", "far" };

static uint8_t index_of(const char *name)
{
	return strcmp(name, names[1]) == 0;
}

static uint8_t key_of(const struct qs_keystore *ks, uint32_t number)
{
	return KEY(number, index_of(qs_keystore_provider_name(ks, number)));
}

/* ---- the world as the product's structs ---- */

static struct qs_keystore load(const struct world *w)
{
	struct qs_keystore ks = { .state = QS_KEYSTORE_ENABLED,
				  .current = w->current,
				  .target = w->target,
				  .rotation = (enum qs_rotation_state)w->rotation,
				  .count = w->count };

	for (size_t i = 0; i < ks.count; i++) {
		const char *name = names[PROVIDER(w->generations[i])];

		ks.generations[i].number = NUMBER(w->generations[i]);
		(void)snprintf(ks.generations[i].provider, QS_KEYSTORE_PROVIDER_L, "%s", name);
		if (ks.generations[i].number == ks.current)
			(void)snprintf(ks.provider, sizeof(ks.provider), "%s", name);
	}
	if (ks.target)
		(void)snprintf(ks.target_provider, sizeof(ks.target_provider), "%s",
			       names[w->provider]);
	return ks;
}

static void store(struct world *w, const struct qs_keystore *ks)
{
	memset(w->generations, 0, sizeof(w->generations));
	for (size_t i = 0; i < ks->count; i++)
		w->generations[i] = key_of(ks, ks->generations[i].number);
	w->provider = ks->target ? index_of(ks->target_provider) : 0;
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

static int set_kek(struct run *run, uint8_t key, bool there)
{
	uint32_t *keks = &run->world.keks[PROVIDER(key)];
	bool done, goes_on = change(run, &done);

	if (done && there)
		*keks |= 1U << NUMBER(key);
	else if (done)
		*keks &= ~(1U << NUMBER(key));
	return goes_on ? 0 : -EIO;
}

static int make(void *cookie, const struct qs_keystore *ks, uint32_t number, struct qs_error *err)
{
	const struct run *run = cookie;
	uint8_t key = key_of(ks, number);

	(void)err;
	if (run->away && PROVIDER(key) == 1)
		return -EIO;
	return run->world.keks[PROVIDER(key)] >> number & 1 ? 0 : set_kek(cookie, key, true);
}

static int retire(void *cookie, const struct qs_keystore *ks, uint32_t number, struct qs_error *err)
{
	struct run *run = cookie;
	uint8_t key = key_of(ks, number);

	(void)err;
	if (run->away && PROVIDER(key) == 1) {
		run->world.orphan |= run->world.keks[1] >> number & 1;
		return -EIO;
	}
	return set_kek(cookie, key, false);
}

static bool behind(const struct world *w, size_t i, const struct qs_keystore *ks)
{
	uint8_t target = key_of(ks, qs_keystore_wraps_with(ks));

	return w->present[i] &&
	       (w->device[i] != target || w->backup[i][0] != target || w->backup[i][1] != target);
}

static int look(void *cookie, const struct qs_keystore *ks, struct qs_rotation_view *ret,
		struct qs_error *err)
{
	const struct world *w = &((struct run *)cookie)->world;

	(void)err;
	for (size_t i = 0; i < DEVICES; i++) {
		qs_rotation_view_add(ret, NUMBER(w->backup[i][0]));
		ret->unknown |= w->backup[i][0] != w->backup[i][1];
		if (w->present[i])
			qs_rotation_view_add(ret, NUMBER(w->device[i]));
		if (behind(w, i, ks))
			qs_rotation_view_wait(ret, qs_keystore_wraps_with(ks));
	}
	return 0;
}

static int rewrap_one(struct run *run, uint8_t *named, uint8_t target)
{
	bool done, goes_on;

	if (*named == target)
		return 0;
	goes_on = change(run, &done);
	if (done)
		*named = target;
	return goes_on ? 0 : -EIO;
}

/* The second half of ops/keystore-rewrap.c. */
static int finish_one(struct run *run, size_t i, uint8_t target)
{
	int r = rewrap_one(run, &run->world.device[i], target);

	return r < 0 ? r : rewrap_one(run, &run->world.backup[i][0], target);
}

static int rewrap(void *cookie, const struct qs_keystore *ks, struct qs_error *err)
{
	struct run *run = cookie;
	uint8_t target = key_of(ks, qs_keystore_wraps_with(ks));
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

static bool is_listed(const struct world *w, uint8_t key)
{
	for (size_t i = 0; i < w->count; i++)
		if (w->generations[i] == key)
			return true;
	return false;
}

/* A device opens by a KEK that is there and that keystore.json knows. */
static bool opens(const struct world *w, uint8_t key)
{
	return w->keks[PROVIDER(key)] >> NUMBER(key) & 1 && is_listed(w, key);
}

static uint8_t current_key(const struct world *w)
{
	for (size_t i = 0; i < w->count; i++)
		if (NUMBER(w->generations[i]) == w->current)
			return w->generations[i];
	return 0;
}

static bool is_sound(const struct world *w)
{
	for (size_t i = 0; i < DEVICES; i++)
		if (!opens(w, w->device[i]) || !opens(w, w->backup[i][0]) ||
		    !opens(w, w->backup[i][1]))
			return false;
	return opens(w, current_key(w));
}

/* What a rotation that says 0 has promised. */
static bool is_finished(const struct world *w)
{
	bool ok = w->rotation == QS_ROTATION_IDLE && w->target == 0;

	for (size_t i = 0; i < DEVICES; i++)
		ok &= !w->present[i] ||
		      (w->device[i] == current_key(w) && w->backup[i][0] == current_key(w) &&
		       w->backup[i][1] == current_key(w));
	/* No KEK without its entry: it would never be erased. */
	for (uint8_t key = 0; key < 32; key++)
		ok &= !(w->keks[PROVIDER(key)] >> NUMBER(key) & 1) || is_listed(w, key) ||
		      (PROVIDER(key) == 1 && w->orphan);
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
 * `keystore rotate`, `keystore migrate`, or with ASKED NULL what an open does for devices that were
 * away: cut off after each of its changes; the last time it comes to its end.
 */
static void rotate(const struct world *from, const struct qs_rotation_wish *asked, bool away)
{
	for (unsigned budget = 0;; budget++) {
		for (int torn = 0; torn < 2; torn++) {
			struct run run = {
				.world = *from, .budget = budget, .torn = torn, .away = away
			};
			struct qs_keystore ks = load(from);
			int r = qs_rotation_run(&ks, &functions, &run, asked, NULL);

			visit(&run.world);
			if (r == 0 && !is_finished(&run.world))
				fail_msg("reported done, and is not");
			if (r == 0 || run.budget > 0)
				return;
		}
	}
}

/* No rotation begins behind generation LAST: the states must come to an end. */
static void step(const struct world *w, uint8_t last, size_t providers)
{
	bool may_begin = NUMBER(w->generations[w->count - 1]) < last;

	rotate(w, NULL, false);
	if (providers > 1)
		rotate(w, NULL, true);
	for (size_t i = 0; may_begin && i < providers; i++) {
		const struct qs_rotation_wish wish = { .provider = names[i] };

		rotate(w, &wish, false);
		if (i == 1)
			rotate(w, &wish, true);
	}
	for (size_t i = 0; i < DEVICES; i++) {
		struct world moved = *w;

		moved.present[i] = !moved.present[i];
		visit(&moved);
	}
}

/* Returns in how many states generation 1 is gone, and in *ret_moved the far provider has the
 * current. */
static size_t visit_all(uint8_t last, size_t providers, size_t *ret_moved)
{
	const struct world first = { .keks = { 1U << 1, 0 },
				     .current = 1,
				     .count = 1,
				     .generations = { 1 },
				     .device = { 1, 1, 1 },
				     .backup = { { 1, 1 }, { 1, 1 }, { 1, 1 } },
				     .present = { 1, 1, 0 } };
	size_t retired = 0;

	count = 0;
	*ret_moved = 0;
	states = calloc(STATES_MAX, sizeof(*states));
	table = calloc(TABLE, sizeof(*table));
	assert_non_null(states);
	assert_non_null(table);
	visit(&first);
	for (size_t i = 0; i < count; i++) {
		const struct world w = states[i];

		if (!is_sound(&w))
			fail_msg("state %zu: something no longer opens", i);
		retired += !(w.keks[0] & 1U << 1);
		*ret_moved += PROVIDER(current_key(&w));
		step(&w, last, providers);
	}
	print_message("%zu states, generation 1 is gone in %zu\n", count, retired);
	free(states);
	free(table);
	return retired;
}

/* Generations do go, or none of this would prove anything. */
static void test_every_order_of_crashes(void **state)
{
	size_t moved = 0;

	(void)state;
	assert_true(visit_all(4, 1, &moved) > 0);
	assert_int_equal(moved, 0);
}

static void test_every_order_of_migrations(void **state)
{
	size_t moved = 0;

	(void)state;
	assert_true(visit_all(3, 2, &moved) > 0);
	assert_true(moved > 0);
}

/* From every state, one rotation with all devices there and no crash leaves two generations. */
static void test_it_comes_to_an_end(void **state)
{
	struct run run = {
		.world = { .keks = { 1U << 2, 5U << 1 },
			   .current = 2,
			   .target = 3,
			   .rotation = QS_ROTATION_REWRAPPING,
			   .count = 3,
			   .generations = { KEY(1, 1), 2, KEY(3, 1) },
			   .provider = 1,
			   .device = { KEY(1, 1), 2, KEY(3, 1) },
			   .backup = { { KEY(1, 1), KEY(1, 1) }, { 2, 2 }, { 2, KEY(3, 1) } },
			   .present = { 1, 1, 1 } },
		.budget = 100
	};
	struct qs_keystore ks = load(&run.world);

	(void)state;
	assert_int_equal(qs_rotation_run(&ks, &functions, &run, NULL, NULL), 0);
	assert_true(is_finished(&run.world));
	assert_int_equal(run.world.keks[0], 1U << 2);
	assert_int_equal(run.world.keks[1], 1U << 3);
	assert_string_equal(ks.provider, "far");
	assert_int_equal(ks.current, 3);
	assert_int_equal(ks.count, 2);
}

/* What cannot be looked at may name any generation. */
static void test_nothing_goes_while_something_is_unknown(void **state)
{
	const struct qs_keystore ks = {
		.state = QS_KEYSTORE_ENABLED,
		.current = 3,
		.generations = { { .number = 1 }, { .number = 2 }, { .number = 3 } },
		.count = 3
	};
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

/* keystore.json may be an older one that was put back: what was begun is given up if nobody needs
 * it. */
static void test_what_was_begun_is_given_up_unless_it_is_named(void **state)
{
	const struct world begun = { .keks = { 1U << 2, 1U << 3 },
				     .current = 2,
				     .target = 3,
				     .rotation = QS_ROTATION_DISTRIBUTING,
				     .count = 1,
				     .generations = { 2 },
				     .provider = 1,
				     .device = { 2, 2, 2 },
				     .backup = { { 2, 2 }, { 2, 2 }, { 2, 2 } },
				     .present = { 1, 1, 1 } };
	const struct qs_rotation_wish near = { .provider = "near" };
	struct run runs[] = { { .world = begun }, { .world = begun }, { .world = begun } };

	(void)state;
	runs[1].world.device[0] = KEY(3, 1);
	runs[2].world.backup[1][1] = KEY(3, 1); /* its copies differ: it cannot be known */
	for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
		struct qs_keystore ks = load(&runs[i].world);
		struct qs_error err = {};

		runs[i].budget = 100;
		assert_int_equal(qs_rotation_run(&ks, &functions, &runs[i], &near, &err) == 0,
				 i == 0);
		assert_int_equal(err.kind, i == 0 ? QS_E_NONE : QS_E_FORBIDDEN);
		assert_int_equal(runs[i].world.keks[1], i == 0 ? 0 : 1U << 3);
		assert_int_equal(ks.target, i == 0 ? 0 : 3);
	}
}

/* A key for some devices only goes when nothing names it; none of it goes by the others' count. */
static void test_lines_go_when_nothing_names_them(void **state)
{
	static const struct qs_keystore ks = {
		.state = QS_KEYSTORE_ENABLED,
		.current = 3,
		.generations = { { .number = 1 },
				 { .number = 2, .line = 2 },
				 { .number = 3 },
				 { .number = 4, .line = 2 },
				 { .number = 5, .line = 5, .begun = true } },
		.count = 5
	};
	struct qs_rotation_view view = {};

	(void)state;
	/* A device that is away and names the older one will be brought to the newer one. */
	qs_rotation_view_add(&view, 2);
	assert_int_equal(qs_rotation_retirable(&ks, &view), 5);
	qs_rotation_view_add(&view, 5);
	assert_int_equal(qs_rotation_retirable(&ks, &view), 0);
	view = (struct qs_rotation_view){};
	qs_rotation_view_add(&view, 4);
	assert_int_equal(qs_rotation_retirable(&ks, &view), 2);
	view = (struct qs_rotation_view){};
	assert_int_equal(qs_rotation_retirable(&ks, &view), 2);
	view.unknown = true;
	assert_int_equal(qs_rotation_retirable(&ks, &view), 0);
}

/* Two devices that nobody can bring anywhere; COOKIE: where each belongs, 0: that is not known. */
static int look_at_two(void *cookie, const struct qs_keystore *ks, struct qs_rotation_view *ret,
		       struct qs_error *err)
{
	const uint32_t *targets = cookie;

	(void)ks;
	(void)err;
	for (size_t i = 0; targets[i] != UINT32_MAX; i++)
		qs_rotation_view_wait(ret, targets[i]);
	return 0;
}

static int bring_nothing(void *cookie, const struct qs_keystore *ks, struct qs_error *err)
{
	(void)cookie;
	(void)ks;
	(void)err;
	return 0;
}

/* Of a key for some devices only it is that key's generation, and not the keystore's. */
static void test_what_waits_is_told_by_where_it_belongs(void **state)
{
	static const struct qs_rotation_functions stuck = { .look = look_at_two,
							    .rewrap = bring_nothing };
	static const struct {
		uint32_t targets[3];
		const char *words;
	} cases[] = {
		{ { 7, UINT32_MAX }, "1 device could not be brought to generation 7: " },
		{ { 7, 7, UINT32_MAX }, "2 devices could not be brought to generation 7: " },
		{ { 7, 6, UINT32_MAX }, "2 devices could not be brought to the generations of " },
		{ { 0, 7, UINT32_MAX }, "2 devices could not be brought to the generations of " },
		{ { 0, UINT32_MAX }, "1 device could not be brought to the generation of its key" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct qs_keystore ks = { .state = QS_KEYSTORE_ENABLED,
					  .current = 6,
					  .generations = { { .number = 6 },
							   { .number = 7, .line = 7 } },
					  .count = 2 };
		uint32_t targets[3];
		struct qs_error err = {};

		memcpy(targets, cases[i].targets, sizeof(targets));
		assert_true(qs_rotation_run(&ks, &stuck, targets, NULL, &err) < 0);
		assert_int_equal(err.kind, QS_E_PARTIAL);
		if (strncmp(err.text, cases[i].words, strlen(cases[i].words)) != 0)
			fail_msg("%zu: %s", i, err.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_order_of_crashes),
		cmocka_unit_test(test_every_order_of_migrations),
		cmocka_unit_test(test_it_comes_to_an_end),
		cmocka_unit_test(test_nothing_goes_while_something_is_unknown),
		cmocka_unit_test(test_what_was_begun_is_given_up_unless_it_is_named),
		cmocka_unit_test(test_lines_go_when_nothing_names_them),
		cmocka_unit_test(test_what_waits_is_told_by_where_it_belongs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
