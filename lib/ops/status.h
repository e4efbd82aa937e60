/*
 * The parts of cryptstatus: which devices (status-list.c), and what is said of
 * each (status.c, status-backup.c, status-swap.c).
 */
#ifndef QS_OPS_STATUS_H
#define QS_OPS_STATUS_H

#include "luks/mapping.h"
#include "ops/internal.h"
#include "tab/crypttab.h"

struct qs_status {
	const struct qs_env *env;
	struct qs_mapping_list mappings;
	struct qs_crypttab *tab;
	struct qs_error keys_hang; /* why keys_dir must not be touched, if so */
	struct qs_outcomes *list;
	struct qs_device **devices; /* one for each of the list, or NULL */
};

/* What is being put together for one device. */
struct qs_status_subject {
	struct qs_outcome *outcome;
	const struct qs_device *dev; /* NULL: absent */
	int fd;                      /* of the device, for reading; -1 */
	const char *command_word;    /* by which commands name it in advice */
	struct qs_luks_header header;
};

/* "backup" (time, age_seconds, sequence, versions, agrees, damaged_keyslots) and its warnings. */
void qs_status_add_backup(const struct qs_env *env, struct qs_status_subject *s);

/* All that is known of DEV goes into OUTCOME. To be called in a worker, as it reads the device. */
void qs_status_describe(const struct qs_status *st, const struct qs_device *dev,
			struct qs_outcome *outcome);

/*
 * The same for a swap with a new key at each start, LINE of crypttab (qs_crypttab_is_swap);
 * DEV may be NULL: absent. It has no header: nothing is read from the device.
 */
void qs_status_swap(const struct qs_status *st, const struct qs_crypttab_entry *line,
		    const struct qs_device *dev, struct qs_outcome *outcome);

/* A new outcome at the end of LIST for a line whose device is not there. */
void qs_status_describe_absent(const struct qs_status *st, const struct qs_crypttab_entry *e,
			       struct qs_outcomes *list);

#endif
