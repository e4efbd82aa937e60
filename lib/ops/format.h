/*
 * The parts of cryptformat: what is planned in the parent (format-plan.c), what
 * a worker does to one device (format-device.c), and what binds them (format.c).
 */
#ifndef QS_OPS_FORMAT_H
#define QS_OPS_FORMAT_H

#include "keystore/keystore.h"
#include "luks/make.h"
#include "ops/internal.h"

/* One device on its way; filled by the parent, used by its worker. */
struct qs_format_target {
	struct qs_device *dev;
	int lock;
	char uuid[40];
	char *link, *name, *key_file;
	bool command;  /* the key comes from the key command; key_file is then QS_CRYPTTAB_NO_KEY */
	bool keystore; /* the keystore wraps the key; likewise */
	bool resume;   /* the journal says that a format was begun */
	bool ours; /* no journal, but a header of ours: all that may be missing are later steps */
};

struct qs_format_run {
	const struct qs_env *env;
	const struct qs_format_options *options;
	struct qs_outcomes *outcomes;
	struct qs_format_target *targets;
	bool keystore; /* keys that no option names are the keystore's */
	struct qs_keystore ks;
	uint32_t generation; /* that wraps them */
	int lock;            /* the keystore's, so that it is not disabled meanwhile; or -1 */
};

/* Does a key file belong to T? */
static inline bool qs_format_has_file(const struct qs_format_target *t)
{
	return !t->command && !t->keystore;
}

/*
 * What the journal has as its key file when there is none: QS_CRYPTTAB_NO_KEY, or this for the
 * keystore.
 */
#define QS_FORMAT_KEYSTORE "keystore"
const char *qs_format_source(const struct qs_format_target *t);

/* What the header of T will be, by command line and configuration; points into both and into T. */
struct qs_luks_spec qs_format_spec(const struct qs_format_run *f, const struct qs_format_target *t);

/*
 * In the parent: find the device of O, lock it, name it, look for an unfinished
 * format, and refuse what must not be formatted as far as that can be told
 * without opening it for writing. The error goes to the outcome.
 */
int qs_format_prepare(const struct qs_format_run *f, struct qs_format_target *t,
		      struct qs_outcome *o);

/* qs_job: steps 1 to 5 for target I, from the probe to the header backup. COOKIE: struct
 * qs_format_run. */
int qs_format_device(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		     struct qs_error *err);

#endif
