/*
 * What keyrestore would do: each file of the bundle beside the one that is there.
 */
#ifndef QS_OPS_BUNDLE_PLAN_H
#define QS_OPS_BUNDLE_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "base/config.h"
#include "base/env.h"
#include "base/error.h"
#include "ops/bundle.h"
#include "tab/crypttab.h"

/* Their meaning: qs_keyrestore() in ops/bundle.h. */
enum qs_restore_action {
	QS_RESTORE_CREATE,
	QS_RESTORE_SAME,
	QS_RESTORE_REPLACE,
	QS_RESTORE_KEEP,
	QS_RESTORE_CONFLICT,
};

/* One file. */
struct qs_restore_item {
	char *member; /* its name in the bundle */
	char *path;   /* logical: where it goes */
	enum qs_member_kind kind;
	enum qs_restore_action action;
};

/* One line of crypttab. */
struct qs_restore_line {
	const struct qs_manifest_device *device; /* of the bundle's manifest */
	char *key;                               /* logical path */
	enum qs_restore_action action;           /* when the plan was made */
};

struct qs_restore_plan {
	struct qs_env env; /* as the caller's, but with the bundle's configuration if that */
	bool own_config;   /* comes back too: then env.config is the plan's */
	struct qs_restore_item *items; /* in the order of the bundle */
	size_t count;
	struct qs_restore_line *lines;
	size_t line_count;
};

/* Release *ret also after a failure. */
int qs_restore_plan_make(const struct qs_env *env, const struct qs_keyrestore_options *options,
			 struct qs_bundle *b, struct qs_restore_plan *ret, struct qs_error *err);

/* What is to be done with a line, given the table as it is. */
enum qs_restore_action qs_restore_line_action(const struct qs_crypttab *tab,
					      const struct qs_restore_line *l, bool force);

/* How many files and lines have this action. */
size_t qs_restore_count(const struct qs_restore_plan *plan, enum qs_restore_action action);

/* "items" of qs_keyrestore(). */
json_t *qs_restore_plan_json(const struct qs_restore_plan *plan);

void qs_restore_plan_done(struct qs_restore_plan *plan);

#endif
