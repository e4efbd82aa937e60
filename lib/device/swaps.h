/*
 * Swap of the running system, and what a swap area says of itself.
 */
#ifndef QS_DEVICE_SWAPS_H
#define QS_DEVICE_SWAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct qs_swap_area {
	char *path;          /* as the kernel shows it */
	dev_t devno;         /* 0 for a file */
	bool memory;         /* zram: nothing of it is ever on a disk */
	uint64_t size, used; /* bytes */
	int priority;        /* negative: the kernel chose it */
};

struct qs_swap_list {
	struct qs_swap_area *items;
	size_t count;
};

/* What is active, from /proc/swaps; a kernel without swap has none. */
int qs_swaps_read(struct qs_swap_list *ret, struct qs_error *err);
void qs_swap_list_done(struct qs_swap_list *list); /* also a QS_AUTO releaser */

/* The active swap on DEVNO, or NULL. */
const struct qs_swap_area *qs_swaps_find(const struct qs_swap_list *list, dev_t devno);

/*
 * UUID and label of the swap area behind FD, which libblkid knows to be one. Each
 * is malloc'ed, "" when it has none.
 */
int qs_swap_identity(int fd, const char *node, char **ret_uuid, char **ret_label,
		     struct qs_error *err);

/*
 * Does everything that is written to DEVNO pass a dm-crypt mapping: is it one, or
 * are all the devices that it stands on? Returns 1 yes (the name of a mapping is
 * malloc'ed in *ret_name), 0 no.
 */
int qs_device_is_encrypted(dev_t devno, char **ret_name, struct qs_error *err);

#endif
