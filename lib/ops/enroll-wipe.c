/*
 * Revoking: which keyslots are meant, why one may not go, and what else holds
 * its key.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "key/keyfile.h"
#include "luks/kind.h"
#include "luks/purge.h"
#include "ops/enroll.h"

#define EMPTY "empty" /* opened by an empty passphrase */
#define WORD_L 32

/* The next word of "1,recovery" into RET; NULL at the end. */
static const char *next_word(const char *at, char ret[static WORD_L])
{
	size_t n = strcspn(at, ",");

	if (*at == '\0')
		return NULL;
	(void)snprintf(ret, WORD_L, "%.*s", n < WORD_L ? (int)n : WORD_L - 1, at);
	return at + n + (at[n] == ',');
}

static int slot_of(const char *word)
{
	char *end = NULL;
	unsigned long n = strtoul(word, &end, 10);

	return *word >= '0' && *word <= '9' && *end == '\0' && n < QS_LUKS_AREAS_MAX ? (int)n : -1;
}

int qs_enroll_check_words(const char *words, struct qs_error *err)
{
	char word[WORD_L];

	for (const char *at = next_word(words, word); at; at = next_word(at, word))
		if (slot_of(word) < 0 && strcmp(word, EMPTY) != 0 &&
		    (!qs_slot_kind_is_known(word) || strcmp(word, QS_KIND_UNKNOWN) == 0))
			return qs_fail(err, QS_E_USAGE,
				       "--wipe=%s: '%s' is neither a keyslot (0 to %d) nor a kind "
				       "(passphrase, recovery, key-file, tpm2, empty, ...); --list "
				       "shows them",
				       words, word, QS_LUKS_AREAS_MAX - 1);
	return 0;
}

/* ---- which ---- */

/* Only slots without a token: others have secrets of their own. */
static int find_empty(struct qs_enroll *e, uint32_t *ret, struct qs_error *err)
{
	const json_t *json = e->slots.header.json;
	char nothing[1] = "";
	const struct qs_secret empty = { nothing, 0 };
	uint32_t skip = 0;
	int r;

	for (int slot = 0; slot < QS_LUKS_AREAS_MAX; slot++)
		if (strcmp(qs_slot_kind(json, slot, NULL), QS_KIND_UNKNOWN) != 0)
			skip |= 1U << slot;
	for (;;) {
		struct qs_error own = {};

		r = qs_enroll_try(e, &empty, skip, &own);
		if (r == -EPERM)
			return 0;
		if (r < 0) {
			if (err)
				*err = own;
			return r;
		}
		*ret |= 1U << r;
		skip |= 1U << r;
	}
}

/* By the metadata; what an empty passphrase opens is not among them. */
static uint32_t slots_of_word(const json_t *json, const char *word)
{
	uint32_t active = qs_slots_mask(json), found = 0;
	int number = slot_of(word);

	if (number >= 0)
		return active & 1U << number;
	for (int slot = 0; slot < QS_LUKS_AREAS_MAX; slot++)
		if (active >> slot & 1 && strcmp(qs_slot_kind(json, slot, NULL), word) == 0)
			found |= 1U << slot;
	return found;
}

static int find_word(struct qs_enroll *e, const char *word, uint32_t *ret, struct qs_error *err)
{
	if (strcmp(word, EMPTY) == 0)
		return find_empty(e, ret, err);
	*ret |= slots_of_word(e->slots.header.json, word);
	return 0;
}

static int find_slots(struct qs_enroll *e, uint32_t *ret, struct qs_error *err)
{
	char word[WORD_L];
	int r = 0;

	*ret = 0;
	for (const char *at = next_word(e->options->wipe, word); at && r == 0;
	     at = next_word(at, word))
		r = find_word(e, word, ret, err);
	/* What was just added stays, also when it is of a kind that shall go. */
	if (e->slot >= 0)
		*ret &= ~(1U << e->slot);
	return r;
}

/* Names of the words' slots; what cannot be read, or only be tried, has no note. */
static void describe(const struct qs_env *env, const char *words, struct qs_outcome *o)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;
	QS_AUTO(qs_auto_free) char *note = NULL;
	char word[WORD_L];
	uint32_t found = 0;

	if (qs_device_find(env, o->device, &dev, NULL) < 0 ||
	    qs_device_peek_header(dev, &h, NULL) < 0 || h.version != 2)
		return;
	for (const char *at = next_word(words, word); at; at = next_word(at, word)) {
		if (strcmp(word, EMPTY) == 0)
			return;
		found |= slots_of_word(h.json, word);
	}
	for (int slot = 0; slot < QS_LUKS_AREAS_MAX; slot++) {
		char *longer;

		if (!(found >> slot & 1))
			continue;
		longer = qs_printf("%s%d", note ? note : "keyslot ", slot);
		free(note);
		note = qs_printf("%s%s", longer, found >> slot >> 1 ? ", " : "");
		free(longer);
	}
	qs_outcome_set(&o->note, note ? note : "it has no such keyslot");
}

int qs_enroll_preview_wipe(const struct qs_env *env, const char *const *devices, size_t count,
			   const char *words, struct qs_outcomes *ret, struct qs_error *err)
{
	int r = qs_enroll_check_words(words, err);

	if (r == 0)
		r = qs_outcomes_init(ret, devices, count, err);
	for (size_t i = 0; r == 0 && i < count; i++)
		describe(env, words, &ret->items[i]);
	return r;
}

/* ---- whether ---- */

int qs_enroll_check_others(const struct qs_enroll *e, uint32_t slots, struct qs_error *err)
{
	if (e->options->force)
		return 0;
	for (int slot = 0; slot < QS_LUKS_AREAS_MAX; slot++)
		if (slots >> slot & 1 &&
		    strcmp(qs_slot_kind(e->slots.header.json, slot, NULL), QS_KIND_TPM2) != 0)
			return 0;
	return qs_fail(err, QS_E_REFUSED,
		       "the TPM would be the only way to open %s: add a recovery key first",
		       e->dev->node);
}

static int check_rest(const struct qs_enroll *e, uint32_t wiped, struct qs_error *err)
{
	uint32_t rest = qs_slots_mask(e->slots.header.json) & ~wiped;

	if (rest == 0)
		return qs_fail(err, QS_E_FORBIDDEN,
			       "nothing would open %s any more: at least one keyslot has to stay "
			       "(cryptdestroy is the command for the end of a device)",
			       e->dev->node);
	return qs_enroll_check_others(e, rest, err);
}

/* Somebody has a key that opens a slot which stays: shown, and not assumed. */
static int prove_rest(struct qs_enroll *e, uint32_t wiped, struct qs_error *err)
{
	int r = e->slot >= 0 ? 0 : qs_enroll_unlock(e, wiped, err);

	if (r == -EPERM)
		qs_error_append(err, "; a keyslot goes only when a key that opens another one was "
				     "given (--unlock-key-file, --unlock-passphrase-file)");
	return r;
}

/* The file by which the device is opened at boot has to go on opening it. */
static int check_key_file(struct qs_enroll *e, const char *file, uint32_t wiped,
			  struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	const json_t *json = e->slots.header.json;
	uint32_t suspects = 0;

	for (int slot = 0; slot < QS_LUKS_AREAS_MAX; slot++) {
		const char *kind = qs_slot_kind(json, slot, NULL);

		if (wiped >> slot & 1 &&
		    (strcmp(kind, QS_KIND_UNKNOWN) == 0 || strcmp(kind, QS_KIND_KEY_FILE) == 0))
			suspects |= 1U << slot;
	}
	if (!suspects || qs_key_load(e->env, file, &key, NULL) < 0 ||
	    qs_enroll_try(e, &key, ~suspects, NULL) < 0 || qs_enroll_try(e, &key, wiped, NULL) >= 0)
		return 0;
	return qs_fail(err, QS_E_REFUSED,
		       "the device's own key file %s opens a keyslot that would go, and no other; "
		       "--new-key replaces it",
		       file);
}

static int check_key_files(struct qs_enroll *e, uint32_t wiped, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *usual = qs_key_path(e->env, e->name);
	int r = e->options->force ? 0 : check_key_file(e, usual, wiped, err);

	for (size_t i = 0; !e->options->force && r == 0 && i < QS_OPEN_KEYS; i++)
		if (e->request.key_files[i] && !e->options->unlock.key_file &&
		    strcmp(e->request.key_files[i], usual) != 0)
			r = check_key_file(e, e->request.key_files[i], wiped, err);
	return r;
}

/* ---- the changes ---- */

static int remove_slots(struct qs_enroll *e, uint32_t wiped, struct qs_error *err)
{
	int r = 0;

	for (int slot = 0; r == 0 && slot < QS_LUKS_AREAS_MAX; slot++)
		if (wiped >> slot & 1)
			r = qs_slots_remove(&e->slots, slot, err);
	if (r == 0)
		e->wiped |= wiped;
	return r;
}

static int drop(struct qs_enroll *e, void *cookie, struct qs_error *err)
{
	int slot = qs_slots_by_salt(e->slots.header.json, e->drop);
	int r;

	(void)cookie;
	if (slot < 0)
		return 0;
	r = prove_rest(e, 1U << slot, err);
	return r < 0 ? r : remove_slots(e, 1U << slot, err);
}

int qs_enroll_drop(struct qs_enroll *e, struct qs_error *err)
{
	int r;

	qs_worker_step(e->worker, "wipe");
	r = qs_enroll_apply(e, drop, NULL, err);
	return r < 0 ? r : qs_enroll_back_up(e, err);
}

static int wipe(struct qs_enroll *e, void *cookie, struct qs_error *err)
{
	uint32_t wiped = 0;
	int r = find_slots(e, &wiped, err);

	(void)cookie;
	if (r < 0 || wiped == 0)
		return r;
	r = check_rest(e, wiped, err);
	if (r == 0)
		r = prove_rest(e, wiped, err);
	if (r == 0)
		r = check_key_files(e, wiped, err);
	return r < 0 ? r : remove_slots(e, wiped, err);
}

/* Where backups cannot be written, they would keep a key that the device has lost. */
static int need_writable_backups(const struct qs_enroll *e, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(e->env, e->env->config.headers_dir);

	if (access(real, W_OK) < 0 && errno != ENOENT)
		return qs_fail_errno(err, errno,
				     "nothing is revoked: header backups in %s cannot be changed",
				     e->env->config.headers_dir);
	return 0;
}

int qs_enroll_wipe(struct qs_enroll *e, struct qs_error *err)
{
	int r = need_writable_backups(e, err);

	if (r < 0)
		return r;
	qs_worker_step(e->worker, "wipe");
	r = qs_enroll_apply(e, wipe, NULL, err);
	return r < 0 ? r : qs_enroll_back_up(e, err);
}

static json_t *numbers(uint32_t mask)
{
	json_t *list = json_array();

	for (int slot = 0; slot < QS_LUKS_AREAS_MAX; slot++)
		if (mask >> slot & 1)
			(void)json_array_append_new(list, json_integer(slot));
	return list;
}

/* Nothing was wiped, neither now nor by a run that was cut off before its end. */
static int explain_nothing(const struct qs_enroll *e, int purged, struct qs_error *err)
{
	if (e->wiped || e->method || !e->options->wipe)
		return 0;
	if (purged == 0)
		return qs_fail(err, QS_E_FAILED,
			       "no keyslot of %s is meant by --wipe=%s; --list shows them",
			       e->dev->node, e->options->wipe);
	(void)json_object_set_new(e->result, "note",
				  json_string("the keyslot was gone already; old backups that "
					      "held its key are erased"));
	return 0;
}

int qs_enroll_purge(struct qs_enroll *e, struct qs_error *err)
{
	json_t *left = json_array();
	int n;

	qs_worker_step(e->worker, "purge");
	(void)json_object_set_new(e->result, "wiped", numbers(e->wiped));
	(void)json_object_set_new(e->result, "backups_left", left);
	n = qs_backup_purge(e->env, e->name, &e->slots.header, left, err);
	if (n < 0) {
		qs_error_append(err,
				" (the keyslot is wiped, but an old header backup may still hold "
				"its key; run the same command again)");
		return n;
	}
	(void)json_object_set_new(e->result, "backups_erased", json_integer(n));
	return explain_nothing(e, n, err);
}
