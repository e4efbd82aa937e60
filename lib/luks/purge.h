/*
 * Revoked keys in old header backups. A backup opens the device with every key
 * that it holds, whatever has become of the header since, so a key is revoked
 * only when no backup holds it any more.
 */
#ifndef QS_LUKS_PURGE_H
#define QS_LUKS_PURGE_H

#include <jansson.h>

#include "base/env.h"
#include "base/error.h"
#include "luks/header.h"

/*
 * Overwrite and remove every older version of NAME's backup that holds a keyslot
 * which the header NOW (just backed up as the current one) does not have, told by
 * its salt; and those of which nobody can tell: damaged ones, what a restore
 * overwrote, LUKS1. Backups of another UUID stay. It needs no memory of what was
 * revoked, so a second run finishes what a crash left, and what other tools
 * revoked is purged as well.
 *
 * The logical paths of backups under other names (of the same volume, before it
 * moved to another link, or of its clone) that hold such a key are appended to the
 * array RET_LEFT: those are for a person to decide. Returns the number removed.
 */
int qs_backup_purge(const struct qs_env *env, const char *name, const struct qs_luks_header *now,
		    json_t *ret_left, struct qs_error *err);

#endif
