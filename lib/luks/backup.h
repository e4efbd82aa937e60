/*
 * Header backups: headers_dir/NAME.header and older versions in NAME.d/.
 *
 * crypt_header_backup() neither syncs nor checks what it wrote, and a full disk
 * leaves half a file (faults F5). So the header is read by us, checked in
 * memory, and put in place with qs_file_replace(). The file is what
 * `cryptsetup luksHeaderBackup` would have written, byte for byte.
 */
#ifndef QS_LUKS_BACKUP_H
#define QS_LUKS_BACKUP_H

#include <time.h>

#include "base/env.h"
#include "base/error.h"
#include "luks/header.h"
#include "luks/image.h"

/* The logical path headers_dir/NAME.header; malloc'ed. */
char *qs_backup_path(const struct qs_env *env, const char *name);

/*
 * Make IMAGE the current backup of NAME, durably. A different last version moves
 * to NAME.d/SEQUENCE.header, of which the newest config.header_versions stay.
 * Returns 1 written, 0 the backup already was the same.
 */
int qs_backup_store(const struct qs_env *env, const char *name, const struct qs_header_image *image,
		    struct qs_error *err);

/*
 * Read the header and keyslot areas from NODE (a real path) and make them the
 * current backup of NAME: after every change of a slot or token, durably, before
 * the change counts as done. A damaged header is QS_E_DAMAGED and the old backup
 * stays. Returns as qs_backup_store().
 */
int qs_backup_refresh(const struct qs_env *env, const char *name, const char *node,
		      struct qs_error *err);

/*
 * Read the current backup's header (not its keyslots). *ret_time is its
 * modification time. Returns 1 found, 0 there is none.
 */
int qs_backup_load(const struct qs_env *env, const char *name, struct qs_luks_header *ret,
		   time_t *ret_time, struct qs_error *err);

/* The same by qs_luks_header_peek(): before every open the backup is asked what never changes. */
int qs_backup_peek(const struct qs_env *env, const char *name, struct qs_luks_header *ret,
		   struct qs_error *err);

/* Overwrite and remove the backup of NAME and all its versions. Returns how many there were. */
int qs_backup_erase(const struct qs_env *env, const char *name, struct qs_error *err);

#endif
