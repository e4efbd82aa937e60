/*
 * keystore schedule: when rotations happen by themselves, and what is said of that and of them.
 */
#include <string.h>

#include "base/cleanup.h"
#include "ops/keystore.h"

static int parse(const char *text, struct qs_schedule *ret, struct qs_error *err)
{
	int r = qs_schedule_parse(text, ret);

	if (r == -ERANGE)
		return qs_fail(err, QS_E_USAGE,
			       "a rotation is due once in 24 hours to 10 years, or Never");
	return r < 0 ? qs_fail(err, QS_E_USAGE,
			       "'%s' is no time: a number and Y, M, W, D, h, m or s, as in 6W, or "
			       "Never",
			       text)
		     : 0;
}

void qs_keystore_add_schedule(const struct qs_keystore *ks, json_t *result)
{
	char text[QS_SCHEDULE_L];
	time_t now = time(NULL), next = qs_schedule_next(ks, now);

	(void)json_object_set_new(result, "schedule",
				  json_string(qs_schedule_print(&ks->schedule, text)));
	if (!next)
		return;
	(void)json_object_set_new(result, "next_rotation", qs_json_time(next));
	(void)json_object_set_new(result, "overdue", json_boolean(qs_schedule_overdue(ks, now)));
}

/* The same again is due when it was. */
int qs_keystore_set_schedule(const struct qs_env *env, const char *text, json_t **ret_result,
			     struct qs_error *err)
{
	struct qs_schedule wanted = { .since = time(NULL) };
	QS_AUTO(qs_auto_close) int lock = -1;
	struct qs_keystore ks;
	int r = parse(text, &wanted, err);

	if (r < 0)
		return r;
	lock = qs_keystore_lock(env, env->config.lock_wait_s * 1000, err);
	r = lock < 0 ? lock : qs_keystore_load_enabled(env, &ks, err);
	if (r < 0)
		return r;
	if (ks.schedule.unit != wanted.unit || ks.schedule.count != wanted.count)
		ks.schedule = wanted;
	/* Also when it is so already: a run that was killed may not have made it durable. */
	r = qs_keystore_save(env, &ks, err);
	if (r < 0)
		return r;
	*ret_result = json_object();
	qs_keystore_add_schedule(&ks, *ret_result);
	return 0;
}

json_t *qs_keystore_describe_rotation(const struct qs_keystore *ks, const json_t *retired)
{
	json_t *result = json_pack("{s:s,s:i,s:s*,s:O}", "state", qs_keystore_state_name(ks->state),
				   "generation", (int)ks->current, "provider",
				   *ks->provider ? ks->provider : NULL, "retired", retired);

	if (ks->rotation != QS_ROTATION_IDLE)
		(void)json_object_set_new(result, "rotation",
					  json_pack("{s:s,s:i,s:s}", "state",
						    qs_rotation_state_name(ks->rotation),
						    "generation", (int)ks->target, "provider",
						    qs_keystore_provider_name(ks, ks->target)));
	return result;
}
