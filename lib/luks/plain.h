/*
 * Plain dm-crypt with a key that nobody knows: for swap.
 */
#ifndef QS_LUKS_PLAIN_H
#define QS_LUKS_PLAIN_H

#include <stdbool.h>

#include "base/error.h"

#define QS_PLAIN_CIPHER "aes-xts-plain64"
#define QS_PLAIN_KEY_BITS 512

/*
 * Map NODE as /dev/mapper/NAME, as crypttab's `plain,cipher=aes-xts-plain64,size=512`
 * with the key file /dev/urandom does: the key comes from getrandom(2), is in locked
 * memory, and is forgotten. Nothing is written to the device.
 * SECTOR_SIZE is in bytes. Returns QS_E_NO_DM without device-mapper, QS_E_IN_USE when
 * somebody has the device.
 */
int qs_plain_open(const char *node, const char *name, unsigned sector_size, bool allow_discards,
		  struct qs_error *err);

/* Remove the mapping; one that is not there is fine. */
int qs_plain_close(const char *name, struct qs_error *err);

#endif
