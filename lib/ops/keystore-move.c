/*
 * Which of the devices that keystore rewrap was asked for have a key file to move; the steps of
 * moving one stand in enroll-keystore.c.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "key/place.h"
#include "ops/journal.h"
#include "ops/keystore.h"

/* Has it a key file that is ours to move? What cannot be found out is left to the move itself. */
static bool has_key_file(const struct qs_env *env, struct qs_outcome *o)
{
	QS_AUTO(qs_open_request_done) struct qs_open_request request = {};
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;
	QS_AUTO(qs_journal_done) struct qs_journal journal = {};

	if (qs_open_find(env, NULL, o, &dev, &h, &request) < 0)
		return true;
	if (qs_journal_read(env, o->name, &journal, NULL) != 0)
		return true;
	for (size_t i = 0; i < QS_OPEN_KEYS && request.key_files[i]; i++) {
		QS_AUTO(qs_auto_free) char *real = qs_env_path(env, request.key_files[i]);

		if (qs_key_is_in_dir(env, request.key_files[i]) && access(real, F_OK) == 0)
			return true;
	}
	return false;
}

static bool is_told(const struct qs_outcomes *list, const struct qs_outcome *o)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->items[i].node && o->node && strcmp(list->items[i].node, o->node) == 0)
			return true;
	return false;
}

/* Those without a key file have a note, unless they were rewrapped just now. */
int qs_keystore_move(const struct qs_env *env, struct qs_outcomes *asked, struct qs_outcomes *ret,
		     struct qs_error *err)
{
	const struct qs_enroll_options options = { .method = "keystore-move" };
	QS_AUTO(qs_auto_free) const char **devices = calloc(asked->count + 1, sizeof(*devices));
	QS_AUTO(qs_outcomes_done) struct qs_outcomes moved = {};
	size_t count = 0;
	int r;

	if (!devices)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", asked->count);
	for (size_t i = 0; i < asked->count; i++) {
		struct qs_outcome *o = &asked->items[i];

		if (has_key_file(env, o)) {
			devices[count++] = o->device;
		} else if (!is_told(ret, o)) {
			qs_outcome_set(&o->note, "has no key file to move");
			qs_outcome_detail(o, "state", json_string("left"));
			*qs_outcomes_add(ret, NULL) = *o;
			*o = (struct qs_outcome){};
		}
	}
	r = count ? qs_enroll(env, devices, count, &options, &moved, err) : 0;
	for (size_t i = 0; i < moved.count; i++) {
		*qs_outcomes_add(ret, NULL) = moved.items[i];
		moved.items[i] = (struct qs_outcome){};
	}
	return r;
}
