/*
 * Destroyed devices inside their retention time: the header backup of a device that the
 * keystore opened stays as /etc/cryptconf/retired/NAME.UUID.DATE.header, with the wrapped key in
 * it, until the time is over; cryptrestore brings the device back by it. DATE is that of the
 * destruction (20261122T140500Z); one without it has its file's time of modification.
 */
#ifndef QS_OPS_RETIRED_H
#define QS_OPS_RETIRED_H

#include <time.h>

#include <jansson.h>

#include "keystore/keystore.h"
#include "ops/internal.h"

#define QS_RETIRED_DIR QS_CONF_DIR "/retired"

struct qs_retired {
	char *path; /* logical */
	char *name;
	char uuid[QS_KEYSTORE_UUID_L];
	time_t when; /* it was destroyed */
};

struct qs_retired_list {
	struct qs_retired *items; /* newest first */
	size_t count;
};

int qs_retired_list(const struct qs_env *env, struct qs_retired_list *ret, struct qs_error *err);
void qs_retired_list_done(struct qs_retired_list *list); /* also a QS_AUTO releaser */

/*
 * Copy the header backup of NAME there, durably, if the keystore has wrapped a key in it.
 * *result gets "kept" (path, until). Returns 1 kept, 0 there is nothing to keep.
 */
int qs_retired_keep(const struct qs_env *env, const char *name, json_t *result,
		    struct qs_error *err);

/* The device is back: erase what was kept of NAME with this UUID. Returns 1 erased, 0 was absent.
 */
int qs_retired_forget(const struct qs_env *env, const char *name, const char *uuid,
		      struct qs_error *err);

#endif
