#define _GNU_SOURCE
#include "ops/early.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libcryptsetup.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "luks/backup.h"
#include "luks/unlock.h"
#include "ops/internal.h"

#define REPORT QS_RUN_DIR "/early"
#define WAIT_STEP_MS 100

/* What cryptenroll seals to by itself: the best guess where no header tells. */
#define USUAL_PCRS (UINT32_C(1) << 7)

#define PIN_TRIES 3

bool qs_early_is_line(const struct qs_crypttab_entry *e)
{
	return e->device && !qs_open_foreign_option(e->options) &&
	       (qs_crypttab_has_option(e->options, "initramfs") ||
		qs_crypttab_has_option(e->options, "x-initrd.attach"));
}

static bool all_there(const struct qs_open_request *requests, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!requests[i].optional && access(requests[i].node, F_OK) < 0)
			return false;
	return true;
}

void qs_early_wait(const struct qs_env *env, const struct qs_open_request *requests, size_t count)
{
	const struct timespec step = { .tv_nsec = WAIT_STEP_MS * 1000000L };
	const unsigned steps = env->config.early_wait_s * 1000 / WAIT_STEP_MS;

	for (unsigned i = 0; i < steps && !all_there(requests, count); i++)
		(void)nanosleep(&step, NULL);
}

/* ---- the TPM ---- */

/*
 * The PCRs that close what NAME's header backup tells. Without one a planted disk looks as good as
 * the real one; *ret_known says whether there is one.
 */
static uint32_t recorded_pcrs(const struct qs_env *env, const char *name, bool *ret_known)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header recorded = {};
	int r = qs_backup_peek(env, name, &recorded, NULL);

	*ret_known = r == 1 && recorded.version == 2;
	return *ret_known ? qs_tpm2_closing_pcrs(json_object_get(recorded.json, "tokens"))
			  : USUAL_PCRS;
}

static void drop_key(struct qs_tpm2_key *key, const struct qs_error *why)
{
	key->there = false;
	explicit_bzero(key->passphrase, sizeof(key->passphrase));
	(void)qs_fail(
		&key->error, QS_E_TPM,
		"what the TPM gave is not used, as its way could not be closed for this boot: %s",
		why->text);
}

/* What the TPM gave is used only if nobody else can have it afterwards. */
static void close_path(const struct qs_env *env, uint32_t pcrs, struct qs_tpm2_keys *keys)
{
	struct qs_error err = {};

	if (!pcrs || qs_tpm2_close_path(env, pcrs, &err) == 0)
		return;
	qs_log(QS_LOG_WARNING, "the TPM's way could not be closed for this boot: %s", err.text);
	for (size_t i = 0; i < keys->count; i++)
		if (keys->items[i].there)
			drop_key(&keys->items[i], &err);
}

struct pin_question {
	const struct qs_env *env;
	const struct qs_open_options *options;
	const struct qs_tpm2_device *device;
	struct qs_tpm2_key *key;
	uint32_t *closing;
	struct qs_secret wrong; /* the PIN before, which shall not count a second time */
};

static int try_pin(struct pin_question *q, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret pin = {};
	QS_AUTO(qs_tpm2_keys_done) struct qs_tpm2_keys again = {};
	int r = q->options->ask_pin(q->options->ask_cookie, q->device->name, &pin, err);

	if (r < 0)
		return r;
	if (q->wrong.data && qs_secret_equal(&pin, &q->wrong)) {
		qs_log(QS_LOG_WARNING, "%s: the same PIN again: the TPM is not asked",
		       q->device->name);
		return 0;
	}
	r = qs_tpm2_keys_fetch(q->env, q->device, 1, &pin, true, &again, err);
	if (r < 0)
		return r;
	*q->closing |= again.closing;
	*q->key = again.items[0];
	if (q->key->error.kind != QS_E_NONE)
		qs_log(QS_LOG_WARNING, "%s: %s", q->device->name, q->key->error.text);
	qs_secret_done(&q->wrong);
	q->wrong = qs_secret_move(&pin);
	return 0;
}

/* Who gives no PIN, or a wrong one three times, is left with the next way. */
static void ask_pin(struct pin_question *q)
{
	struct qs_error err = {};

	for (int i = 0; i < PIN_TRIES && q->key->error.kind == QS_E_PIN; i++)
		if (try_pin(q, &err) < 0) {
			qs_log(QS_LOG_WARNING, "%s: no PIN: %s", q->device->name, err.text);
			break;
		}
	qs_secret_done(&q->wrong);
}

/* For what the boot cannot do without, and no key file opens. */
static void ask_pins(const struct qs_env *env, const struct qs_open_options *options,
		     const struct qs_open_request *requests, const struct qs_tpm2_device *devices,
		     struct qs_tpm2_keys *keys)
{
	for (size_t i = 0; options->ask_pin && i < keys->count; i++) {
		struct pin_question q = {
			.env = env,
			.options = options,
			.device = &devices[i],
			.key = &keys->items[i],
			.closing = &keys->closing,
		};

		if (devices[i].node && !requests[i].optional &&
		    !qs_open_has_key_file(env, &requests[i]))
			ask_pin(&q);
	}
}

int qs_early_ask_tpm2(const struct qs_env *env, const struct qs_open_options *options,
		      struct qs_open_request *requests, size_t count, const bool *only,
		      struct qs_tpm2_keys *keys, struct qs_error *err)
{
	QS_AUTO(qs_auto_free)
	struct qs_tpm2_device *devices = calloc(count + 1, sizeof(*devices));
	uint32_t closing = 0;
	int r;

	if (!qs_tpm2_is_there(env))
		return 0;
	if (!devices)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", count);
	for (size_t i = 0; i < count; i++) {
		bool known;

		closing |= recorded_pcrs(env, requests[i].name, &known);
		if (only[i] && known)
			devices[i] = (struct qs_tpm2_device){ requests[i].node, requests[i].name };
		else if (only[i])
			qs_log(QS_LOG_WARNING,
			       "%s: the TPM is not asked, as without a header backup a disk in its "
			       "place could not be told from it; run qs-util cryptbackup and "
			       "update-initramfs",
			       requests[i].name);
	}
	r = qs_tpm2_keys_fetch(env, devices, count, options->pin, true, keys, err);
	if (r == 0)
		ask_pins(env, options, requests, devices, keys);
	for (size_t i = 0; r == 0 && i < count; i++)
		requests[i].tpm2 = &keys->items[i];
	if (!options->test)
		close_path(env, closing | keys->closing, keys);
	return r;
}

/* ---- the devices ---- */

int qs_early_check(const struct qs_env *env, const struct qs_open_request *request,
		   struct qs_error *err)
{
	QS_AUTO(qs_auto_cd) struct crypt_device *cd = NULL;
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};

	return qs_luks_load(env, request->node, request->name, &cd, &h, err);
}

static const char *state_of(const struct qs_outcome *o)
{
	if (o->error.kind == QS_E_NONE)
		return o->note && strcmp(o->note, QS_OPEN_ABSENT) == 0 ? "absent" : "open";
	if (o->error.kind == QS_E_HOSTILE)
		return "refused";
	/* Keys and TPMs that do not open it, or not in time; other failures would meet the next
	 * key, too. */
	return qs_kind_exit(o->error.kind) == 2 || o->error.kind == QS_E_DEADLINE ? "ask"
										  : "failed";
}

int qs_early_report(const struct qs_env *env, const struct qs_outcomes *outcomes,
		    const struct qs_open_request *requests, struct qs_error *err)
{
	const struct qs_replace how = { .mode = 0600 };
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, REPORT);
	QS_AUTO(qs_auto_free) char *directory = qs_env_path(env, QS_RUN_DIR);
	QS_AUTO(qs_auto_free) char *text = qs_strdup("");
	int r;

	for (size_t i = 0; i < outcomes->count; i++) {
		char *longer = qs_printf("%s%s %s %s %s\n", text, state_of(&outcomes->items[i]),
					 requests[i].optional ? "optional" : "needed",
					 requests[i].name, requests[i].link);

		free(text);
		text = longer;
	}
	r = qs_file_make_dirs(directory, 0700, err);
	return r < 0 ? r : qs_file_replace(path, text, strlen(text), &how, err);
}
