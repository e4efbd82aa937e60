/*
 * Keys for some devices only, beside the keystore's own. What a crash after each step leaves, and
 * what a second run does:
 *
 *   making one, or its next version           left behind                  second run
 *   keystore.json lists it as begun           nothing is wrapped by it     erases that, all
 *   a later version at the server (rotate)      as before                    takes the later
 * version N.vault, durable                            as before                    as before
 *   proven; keystore.json lists it            nothing is wrapped by it     finds it by its key,
 *                                                                          syncs that again
 *
 *   bringing devices to it, or back           left behind                  second run
 *   each as keystore-rewrap.c has it          old or new, both open        goes on, and makes no
 *                                                                          next version before
 *   erase generations that nothing names      they are still listed        erases them
 *
 * A failure that is no crash takes back what was begun. Of a device that was cut off between header
 * and backup, whoever rotates or rewraps next brings the backup to where the header is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "keystore/provider.h"
#include "keystore/rotation.h"
#include "keystore/session.h"
#include "ops/keystore-record.h"
#include "ops/keystore.h"

/* ---- the key ---- */

static int save(const struct qs_env *env, struct qs_keystore *ks, const struct qs_keystore *changed,
		struct qs_error *err)
{
	int r = qs_keystore_save(env, changed, err);

	if (r == 0)
		*ks = *changed;
	return r;
}

/* What a run that was cut off has begun: nothing is wrapped by it. */
static int forget_begun(const struct qs_env *env, struct qs_keystore *ks, struct qs_error *err)
{
	struct qs_keystore changed = *ks;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ks->count; i++) {
		uint32_t number = ks->generations[i].number;

		if (!ks->generations[i].begun)
			continue;
		r = qs_keystore_provider(ks, number)->retire(env, ks, number, err);
		qs_rotation_drop(&changed, number);
	}
	if (r < 0 || changed.count == ks->count)
		return r < 0 ? r : 0;
	return save(env, ks, &changed, err);
}

/* *ret: the line of KEY, 0: there is none. */
static int find_line(const struct qs_env *env, const struct qs_keystore *ks,
		     const struct qs_keystore_key *key, bool loose, uint32_t *ret,
		     struct qs_error *err)
{
	*ret = 0;
	for (size_t i = 0; i < ks->count; i++) {
		const struct qs_keystore_generation *g = &ks->generations[i];
		struct qs_error own = {};
		int r;

		if (!g->line || qs_keystore_head(ks, g->line) != g)
			continue;
		r = qs_keystore_provider(ks, g->number)->is_key(env, g->number, key, loose, &own);
		if (r < 0 && own.kind == QS_E_USAGE) {
			*err = own;
			return r;
		}
		/* A record that cannot be read is a failure of its devices, and of no other. */
		if (r <= 0)
			continue;
		if (*ret)
			return qs_fail(
				err, QS_E_USAGE,
				"the key %s is used with several credentials: name them with "
				"--role-id and --secret-id-file",
				key->name);
		*ret = g->line;
	}
	return 0;
}

/* An older keystore.json was put back: devices may depend on what it does not know of. */
static int refuse_remains(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
			  struct qs_error *err)
{
	const struct qs_provider *p;

	for (size_t i = 0; (p = qs_provider_at(i)); i++) {
		QS_AUTO(qs_auto_free)
		char *path = qs_printf("%s/%u.%s", QS_KEYSTORE_DIR, (unsigned)number, p->suffix);
		QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
		/* Plain rotation takes what lies here as it is; a server is asked what it has. */
		bool taken = !p->network && strcmp(p->name, ks->provider) == 0;
		struct stat st;

		if (lstat(real, &st) == 0)
			return qs_fail(
				err, QS_E_REFUSED,
				"%s is in the way, of which keystore.json does not know: take "
				"keystore.json from the same key bundle (keyrestore), or %s",
				path,
				taken ? "`qs-util keystore rotate --force` takes it up, first"
				      : "move it away if nothing needs it");
		if (errno != ENOENT)
			return qs_fail_errno(err, errno, "cannot look at %s", path);
	}
	return 0;
}

/* Room for one more, beside a rotation of the keystore's own key. */
static int next_number(const struct qs_env *env, const struct qs_keystore *ks, uint32_t *ret,
		       struct qs_error *err)
{
	uint32_t number = ks->generations[ks->count - 1].number + 1;
	int r = qs_rotation_check_room(ks, number, err);

	if (r < 0)
		return r;
	if (ks->rotation == QS_ROTATION_DISTRIBUTING)
		return qs_fail(
			err, QS_E_FORBIDDEN,
			"generation %u was begun and is not made yet: finish that first with "
			"`qs-util keystore rotate`",
			(unsigned)ks->target);
	r = refuse_remains(env, ks, number, err);
	if (r == 0)
		*ret = number;
	return r;
}

static int prove(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		 const struct qs_keystore_key *key, struct qs_error *err)
{
	int r;

	if (!env->keystore)
		return qs_fail(err, QS_E_FAILED, "there is no session to make a key in");
	env->keystore->key = key;
	r = qs_provider_vault.create(env, ks, number, err);
	env->keystore->key = NULL;
	return r < 0 ? r : qs_keystore_probe(env, ks, number, err);
}

/* LINE 0: the first one of its line. */
static int make(const struct qs_env *env, struct qs_keystore *ks, const struct qs_keystore_key *key,
		uint32_t number, uint32_t line, struct qs_error *err)
{
	struct qs_keystore changed = *ks;
	struct qs_keystore_generation *g = &changed.generations[changed.count];
	int r;

	*g = (struct qs_keystore_generation){
		.number = number, .created = time(NULL), .line = line ? line : number, .begun = true
	};
	(void)snprintf(g->provider, sizeof(g->provider), "%s", qs_provider_vault.name);
	changed.count++;
	r = save(env, ks, &changed, err);
	if (r < 0)
		return r;
	r = prove(env, ks, number, key, err);
	if (r < 0) {
		(void)forget_begun(env, ks, NULL);
		return r;
	}
	g->begun = false;
	return save(env, ks, &changed, err);
}

int qs_keystore_take_key(const struct qs_env *env, struct qs_keystore *ks,
			 const struct qs_keystore_key *key, uint32_t *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *file = NULL;
	uint32_t line = 0;
	int r = forget_begun(env, ks, err);

	if (r == 0)
		r = find_line(env, ks, key, false, &line, err);
	if (r < 0)
		return r;
	if (!line) {
		r = next_number(env, ks, ret, err);
		return r < 0 ? r : make(env, ks, key, *ret, 0, err);
	}
	*ret = qs_keystore_head(ks, line)->number;
	/* A run that was killed may have listed it, and not have got as far as this. */
	file = qs_env_path(env, QS_KEYSTORE_FILE);
	return qs_file_sync_parent(file, err);
}

/* ---- its next version ---- */

static bool is_ours(const struct qs_outcome *o)
{
	return o->error.kind == QS_E_NONE && json_object_get(o->details, "token");
}

static uint32_t generation_of(const struct qs_outcome *o)
{
	const json_t *number = json_object_get(o->details, "generation");

	return o->error.kind == QS_E_NONE ? (uint32_t)json_integer_value(number) : 0;
}

/* Devices and backups, as they are now. Looking is no progress. */
static int look(const struct qs_env *env, const struct qs_keystore *ks, struct qs_outcomes *ret,
		struct qs_error *err)
{
	struct qs_env quiet = *env;

	quiet.progress = NULL;
	return qs_keystore_scan(&quiet, ks, QS_SCAN_REWRAP, ret, err);
}

/*
 * Is O a device of HEAD's line that did not come to it yet, or its backup did not? Whatever else
 * differs between the two is no rotation's to finish.
 */
static bool is_left(const struct qs_keystore *ks, const struct qs_outcomes *found,
		    const struct qs_outcome *o, const struct qs_keystore_generation *head)
{
	const struct qs_keystore_generation *g = qs_keystore_generation(ks, generation_of(o));
	bool left;

	if (!is_ours(o) || !g || g->line != head->line)
		return false;
	left = g != head;
	for (size_t i = 0; !left && i < found->count; i++) {
		const struct qs_outcome *backup = &found->items[i];

		left = json_object_get(backup->details, "current") &&
		       strcmp(backup->name, o->name) == 0 && generation_of(backup) != head->number;
	}
	return left;
}

/* Did an earlier run leave devices behind that are present? Those that are away hold up nobody. */
static int find_left(const struct qs_env *env, const struct qs_keystore *ks,
		     const struct qs_keystore_generation *head, bool *ret, struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes found = {};
	int r = look(env, ks, &found, err);

	*ret = false;
	for (size_t i = 0; r == 0 && i < found.count && !*ret; i++)
		*ret = is_left(ks, &found, &found.items[i], head);
	return r;
}

static int find_head(const struct qs_env *env, const struct qs_keystore *ks,
		     const struct qs_keystore_key *key, const struct qs_keystore_generation **ret,
		     struct qs_error *err)
{
	uint32_t line;
	int r = find_line(env, ks, key, true, &line, err);

	if (r < 0)
		return r;
	*ret = line ? qs_keystore_head(ks, line) : NULL;
	return *ret ? 0
		    : qs_fail(err, QS_E_NO_KEY,
			      "no device has the key %s (of that namespace and those "
			      "credentials): `qs-util keystore status` lists them",
			      key->name);
}

/* *ret: the generation that it has come to, or would have; 0: nothing was begun. */
static int rotate(const struct qs_env *env, const struct qs_rotate_options *options,
		  struct qs_keystore *ks, struct qs_key_rotation *ret, struct qs_error *err)
{
	const struct qs_keystore_generation *head = NULL;
	uint32_t number = 0;
	bool left = false;
	int r = forget_begun(env, ks, err);

	if (r == 0)
		r = find_head(env, ks, options->key, &head, err);
	if (!head)
		return r;
	r = find_left(env, ks, head, &left, err);
	if (r == 0 && !left && !options->force)
		r = qs_keystore_refuse_interval(head, err);
	if (r == 0 && !left)
		r = next_number(env, ks, &number, err);
	if (r < 0)
		return r;
	ret->generation = left ? head->number : number;
	qs_rotation_tell_begin(env, ks, ret->generation);
	if (left)
		return 0;
	r = make(env, ks, options->key, number, head->line, err);
	ret->made = r == 0;
	return r;
}

int qs_keystore_rotate_key(const struct qs_env *env, const struct qs_rotate_options *options,
			   struct qs_keystore *ks, struct qs_outcomes *report, json_t *retired,
			   struct qs_key_rotation *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int lock = qs_keystore_lock(env, 0, err);
	const struct qs_error well = {};
	int r = lock < 0 ? lock : qs_keystore_load_enabled(env, ks, err);

	if (r == 0)
		r = rotate(env, options, ks, ret, err);
	if (r < 0 && !ret->generation)
		return r;
	if (r == 0)
		r = qs_keystore_prepare_all(env, ks, true, err);
	if (r == 0)
		r = qs_keystore_settle(env, ks, report, retired, err);
	qs_rotation_tell_end(env, ks, ret->generation, r < 0 ? err : &well, report);
	return r;
}

/* ---- devices from one key to another ---- */

static void tell_there(const struct qs_outcome *from, uint32_t target, struct qs_outcomes *report)
{
	struct qs_outcome *o = qs_outcomes_add(report, from->device);

	qs_outcome_set(&o->node, from->node);
	qs_outcome_set(&o->name, from->name);
	qs_outcome_set(&o->uuid, from->uuid);
	qs_outcome_set(&o->note, "has that key already");
	qs_outcome_detail(o, "state", json_string("left"));
	qs_outcome_detail(o, "generation", json_integer(target));
}

static void aim(struct qs_outcome *o, uint32_t target, struct qs_outcomes *report)
{
	bool moves = generation_of(o) != target;

	qs_outcome_detail(o, "target", json_integer(target));
	if (moves)
		qs_outcome_detail(o, "behind", json_true());
	else if (!json_is_true(json_object_get(o->details, "behind")))
		tell_there(o, target, report);
}

static struct qs_outcome *find_device(const struct qs_env *env, const struct qs_outcomes *found,
				      const char *word, struct qs_error *err)
{
	QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;

	if (qs_device_find(env, word, &dev, err) < 0)
		return NULL;
	for (size_t i = 0; i < found->count; i++) {
		struct qs_outcome *o = &found->items[i];

		if (!o->node || strcmp(o->node, dev->node) != 0)
			continue;
		if (is_ours(o))
			return o;
		if (o->error.kind != QS_E_NONE)
			*err = o->error;
	}
	if (err->kind == QS_E_NONE)
		(void)qs_fail(
			err, QS_E_REFUSED,
			"%s has no key in the keystore: `qs-util keystore rewrap %s` moves it "
			"there first",
			word, word);
	return NULL;
}

/* Only those that are asked for are brought now; the others where they belong by settling. */
static int aim_all(const struct qs_env *env, struct qs_outcomes *found, const char *const *devices,
		   size_t count, uint32_t target, struct qs_outcomes *report,
		   struct qs_error *err_all)
{
	QS_AUTO(qs_auto_free) bool *asked = calloc(found->count + 1, sizeof(*asked));

	if (!asked)
		return qs_fail(err_all, QS_E_MEMORY, "no memory for %zu devices", found->count);
	for (size_t i = 0; i < count; i++) {
		struct qs_error err = {};
		struct qs_outcome *o = find_device(env, found, devices[i], &err);

		if (o)
			asked[o - found->items] = true;
		else
			qs_outcomes_add(report, devices[i])->error = err;
	}
	for (size_t i = 0; i < found->count; i++) {
		struct qs_outcome *o = &found->items[i];

		if (is_ours(o) && (asked[i] || count == 0))
			aim(o, target, report);
		else
			qs_outcome_detail(o, "behind", json_false());
	}
	return 0;
}

static int bring(const struct qs_env *env, struct qs_keystore *ks, const char *const *devices,
		 size_t count, uint32_t target, struct qs_outcomes *ret, struct qs_error *err)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes found = {};
	struct qs_error own = {};
	int r = qs_keystore_prepare_all(env, ks, true, err);

	if (r == 0)
		r = look(env, ks, &found, err);
	if (r < 0)
		return r;
	r = aim_all(env, &found, devices, count, target, ret, err);
	/* What a run that was killed brought there may not be durable. */
	if (r == 0 && ret->count > 0)
		r = qs_keystore_flush(env, err);
	if (r == 0)
		r = qs_keystore_bring(env, ks, &found, ret, err);
	/* Settling would only tell of every device that it was not looked at. */
	if (r == 0 && qs_pool_interrupted())
		r = qs_fail(err, QS_E_INTERRUPTED, "interrupted: the same command again goes on");
	if (r < 0)
		return r;
	r = qs_keystore_settle(env, ks, ret, NULL, &own);
	if (r < 0 && own.kind != QS_E_PARTIAL) {
		*err = own;
		return r;
	}
	return 0;
}

int qs_keystore_change_key(const struct qs_env *env, const char *const *devices, size_t count,
			   const struct qs_keystore_key *key, struct qs_outcomes *ret,
			   struct qs_error *err)
{
	QS_AUTO(qs_auto_close)
	int lock = qs_keystore_lock(env, env->config.lock_wait_s * 1000, err);
	struct qs_keystore ks;
	uint32_t target = 0;
	int r = lock < 0 ? lock : qs_keystore_load_enabled(env, &ks, err);

	if (r < 0)
		return r;
	target = qs_keystore_wraps_with(&ks);
	if (key)
		r = qs_keystore_take_key(env, &ks, key, &target, err);
	return r < 0 ? r : bring(env, &ks, devices, count, target, ret, err);
}
