#include "keystore/rotation.h"

#include <stdio.h>
#include <string.h>

void qs_rotation_view_add(struct qs_rotation_view *view, uint32_t generation)
{
	for (size_t i = 0; i < view->named_count; i++)
		if (view->named[i] == generation)
			return;
	if (view->named_count == sizeof(view->named) / sizeof(*view->named))
		view->unknown = true;
	else
		view->named[view->named_count++] = generation;
}

void qs_rotation_view_wait(struct qs_rotation_view *view, uint32_t target)
{
	view->target = view->waiting == 0 || view->target == target ? target : 0;
	view->waiting++;
}

/* ---- deciding ---- */

static uint32_t last_number(const struct qs_keystore *ks)
{
	return ks->generations[ks->count - 1].number;
}

static bool is_named(const struct qs_rotation_view *view, uint32_t number)
{
	for (size_t i = 0; i < view->named_count; i++)
		if (view->named[i] == number)
			return true;
	return false;
}

/* How many of its line come after it. */
static size_t later(const struct qs_keystore *ks, const struct qs_keystore_generation *g)
{
	size_t count = 0;

	for (size_t i = 0; i < ks->count; i++)
		count +=
			ks->generations[i].line == g->line && ks->generations[i].number > g->number;
	return count;
}

/* Devices that are away and name an older one of its line shall find it. */
static bool line_is_named(const struct qs_keystore *ks, const struct qs_rotation_view *view,
			  uint32_t line)
{
	bool named = false;

	for (size_t i = 0; i < ks->count; i++)
		named |= ks->generations[i].line == line &&
			 is_named(view, ks->generations[i].number);
	return named;
}

static bool may_go(const struct qs_keystore *ks, const struct qs_rotation_view *view,
		   const struct qs_keystore_generation *g)
{
	if (is_named(view, g->number))
		return false;
	if (!g->line)
		return later(ks, g) >= 2;
	return g->begun || later(ks, g) > 0 || !line_is_named(ks, view, g->line);
}

uint32_t qs_rotation_retirable(const struct qs_keystore *ks, const struct qs_rotation_view *view)
{
	for (size_t i = 0; !view->unknown && i < ks->count; i++)
		if (may_go(ks, view, &ks->generations[i]))
			return ks->generations[i].number;
	return 0;
}

enum qs_rotation_step qs_rotation_next(const struct qs_keystore *ks,
				       const struct qs_rotation_view *view, bool asked,
				       uint32_t *ret)
{
	if (ks->rotation == QS_ROTATION_IDLE && asked) {
		*ret = last_number(ks) + 1;
		return QS_ROTATION_BEGIN;
	}
	if (ks->rotation == QS_ROTATION_DISTRIBUTING) {
		*ret = ks->target;
		return QS_ROTATION_MAKE;
	}
	/* When idle, these were away during the last rotation. */
	if (view->waiting > 0)
		return QS_ROTATION_REWRAP;
	*ret = qs_rotation_retirable(ks, view);
	if (*ret)
		return QS_ROTATION_RETIRE;
	return ks->rotation == QS_ROTATION_REWRAPPING ? QS_ROTATION_FINISH : QS_ROTATION_DONE;
}

/* ---- what it does to the keystore ---- */

void qs_rotation_drop(struct qs_keystore *ks, uint32_t number)
{
	size_t kept = 0;

	for (size_t i = 0; i < ks->count; i++)
		if (ks->generations[i].number != number)
			ks->generations[kept++] = ks->generations[i];
	ks->count = kept;
}

struct run {
	struct qs_keystore *ks;
	const struct qs_rotation_functions *functions;
	void *cookie;
	struct qs_rotation_view view;
	bool unsaved; /* generations were erased that keystore.json still lists */
};

static int save(struct run *run, const struct qs_keystore *changed, struct qs_error *err)
{
	int r = run->functions->save(run->cookie, changed, err);

	if (r < 0)
		return r;
	*run->ks = *changed;
	run->unsaved = false;
	return 0;
}

int qs_rotation_check_room(const struct qs_keystore *ks, uint32_t number, struct qs_error *err)
{
	if (ks->count < QS_KEYSTORE_GENERATIONS && number <= QS_KEYSTORE_GENERATION_MAX)
		return 0;
	return qs_fail(err, QS_E_FORBIDDEN,
		       "the keystore has %zu generations, all of which a device or header "
		       "backup needs: rewrap or remove what `qs-util keystore status` shows "
		       "for the old ones",
		       ks->count);
}

static int begin(struct run *run, uint32_t number, const struct qs_rotation_wish *wish,
		 struct qs_error *err)
{
	struct qs_keystore changed = *run->ks;
	int r = qs_rotation_check_room(run->ks, number, err);

	if (r < 0)
		return r;
	changed.rotation = QS_ROTATION_DISTRIBUTING;
	changed.target = number;
	(void)snprintf(changed.target_provider, sizeof(changed.target_provider), "%s",
		       wish->provider);
	changed.target_pcrs = wish->pcrs;
	changed.target_pin = wish->pin;
	return save(run, &changed, err);
}

static int look(struct run *run, struct qs_error *err)
{
	run->view = (struct qs_rotation_view){};
	return run->functions->look(run->cookie, run->ks, &run->view, err);
}

static void be_idle(struct qs_keystore *ks)
{
	ks->rotation = QS_ROTATION_IDLE;
	ks->target = 0;
	ks->target_provider[0] = '\0';
	ks->target_pcrs = 0;
	ks->target_pin = false;
}

/*
 * What was to be made for another provider is given up. If it cannot be erased, nobody needs it;
 * but keystore.json may be an older one that was put back, and then somebody does.
 */
static int abandon(struct run *run, struct qs_error *err)
{
	struct qs_keystore changed = *run->ks;
	int r = look(run, err);

	if (r < 0)
		return r;
	if (run->view.unknown || is_named(&run->view, changed.target))
		return qs_fail(err, QS_E_FORBIDDEN,
			       "generation %u (provider %s) was begun, and a device or header "
			       "backup names it or cannot be read: `qs-util keystore rotate` goes "
			       "on with it",
			       (unsigned)changed.target, changed.target_provider);
	(void)run->functions->retire(run->cookie, run->ks, changed.target, NULL);
	be_idle(&changed);
	return save(run, &changed, err);
}

static bool is_migration(const struct qs_keystore *ks)
{
	return strcmp(ks->target_provider, ks->provider) != 0;
}

static int make(struct run *run, uint32_t number, struct qs_error *err)
{
	struct qs_keystore changed = *run->ks;
	int r = run->functions->make(run->cookie, run->ks, number, err);

	if (r < 0 && is_migration(run->ks))
		(void)abandon(run, NULL);
	if (r < 0)
		return r;
	changed.target_pcrs = 0;
	changed.target_pin = false;
	changed.generations[changed.count] =
		(struct qs_keystore_generation){ .number = number, .created = time(NULL) };
	memcpy(changed.generations[changed.count++].provider, changed.target_provider,
	       sizeof(changed.target_provider));
	changed.rotation = QS_ROTATION_REWRAPPING;
	r = save(run, &changed, err);
	return r < 0 ? r : look(run, err);
}

/* Keys for some devices only have generations of their own, to which their devices belong. */
static int tell_waiting(const struct qs_rotation_view *view, struct qs_error *err)
{
	bool one = view->waiting == 1;
	char where[64] = "the generations of their keys";

	if (view->target)
		(void)snprintf(where, sizeof(where), "generation %u", (unsigned)view->target);
	else if (one)
		(void)snprintf(where, sizeof(where), "the generation of its key");
	return qs_fail(err, QS_E_PARTIAL,
		       "%zu device%s could not be brought to %s: the same command again goes on "
		       "with %s",
		       view->waiting, one ? "" : "s", where, one ? "it" : "them");
}

/* What is reported done was looked at again afterwards. */
static int rewrap(struct run *run, struct qs_error *err)
{
	int r = run->functions->rewrap(run->cookie, run->ks, err);

	if (r == 0)
		r = look(run, err);
	return r < 0 || run->view.waiting == 0 ? r : tell_waiting(&run->view, err);
}

static int retire(struct run *run, uint32_t number, struct qs_error *err)
{
	int r = run->functions->retire(run->cookie, run->ks, number, err);

	if (r < 0)
		return r;
	qs_rotation_drop(run->ks, number);
	run->unsaved = true;
	return 0;
}

static int finish(struct run *run, struct qs_error *err)
{
	struct qs_keystore changed = *run->ks;

	if (changed.rotation == QS_ROTATION_REWRAPPING) {
		changed.current = changed.target;
		memcpy(changed.provider, changed.target_provider, sizeof(changed.provider));
		changed.rotated = time(NULL);
	}
	be_idle(&changed);
	return save(run, &changed, err);
}

/* One that is under way goes on, if it is what is asked for; if it has made nothing, it need not.
 */
static int meet(struct run *run, const struct qs_rotation_wish *asked, struct qs_error *err)
{
	const struct qs_keystore *ks = run->ks;

	if (!asked || ks->rotation == QS_ROTATION_IDLE ||
	    strcmp(asked->provider, ks->target_provider) == 0)
		return 0;
	if (ks->rotation == QS_ROTATION_DISTRIBUTING)
		return abandon(run, err);
	return qs_fail(
		err, QS_E_FORBIDDEN,
		"a rotation to generation %u (provider %s) is under way: finish it first with "
		"`qs-util keystore rotate`",
		(unsigned)ks->target, ks->target_provider);
}

int qs_rotation_run(struct qs_keystore *ks, const struct qs_rotation_functions *functions,
		    void *cookie, const struct qs_rotation_wish *asked, struct qs_error *err)
{
	struct run run = { .ks = ks, .functions = functions, .cookie = cookie };
	int r = meet(&run, asked, err);
	bool fresh = asked && ks->rotation == QS_ROTATION_IDLE;

	if (r == 0 && ks->rotation != QS_ROTATION_DISTRIBUTING && !fresh)
		r = look(&run, err);

	while (r == 0) {
		uint32_t number = 0;

		switch (qs_rotation_next(ks, &run.view, fresh, &number)) {
		case QS_ROTATION_BEGIN:
			r = begin(&run, number, asked, err);
			break;
		case QS_ROTATION_MAKE:
			r = make(&run, number, err);
			break;
		case QS_ROTATION_REWRAP:
			r = rewrap(&run, err);
			break;
		case QS_ROTATION_RETIRE:
			r = retire(&run, number, err);
			break;
		case QS_ROTATION_FINISH:
			return finish(&run, err);
		case QS_ROTATION_DONE:
			return run.unsaved ? finish(&run, err) : 0;
		}
		fresh = false;
	}
	return r;
}
