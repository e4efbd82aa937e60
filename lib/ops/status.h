/*
 * The parts of cryptstatus.
 */
#ifndef QS_OPS_STATUS_H
#define QS_OPS_STATUS_H

#include "ops/internal.h"

/* What is being put together for one device. */
struct qs_status_subject {
	struct qs_outcome *outcome;
	const struct qs_device *dev; /* NULL: absent */
	int fd;                      /* of the device, for reading; -1 */
	const char *command_word;    /* by which commands name it in advice */
	struct qs_luks_header header;
	json_t *warnings;
};

/* "backup" (time, age_seconds, sequence, versions, agrees, damaged_keyslots) and its warnings. */
void qs_status_add_backup(const struct qs_env *env, struct qs_status_subject *s);

#endif
