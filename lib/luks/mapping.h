/*
 * Active dm-crypt mappings, read from sysfs: no ioctl, no device opened, so that
 * asking about a hundred of them costs next to nothing (goal G6).
 */
#ifndef QS_LUKS_MAPPING_H
#define QS_LUKS_MAPPING_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"
#include "device/device.h"

struct qs_mapping {
	char name[128];        /* below /dev/mapper */
	char dm[32];           /* "dm-3" */
	char uuid[40];         /* LUKS UUID with dashes; "" for plain dm-crypt */
	int luks;              /* 1, 2; 0 for plain */
	dev_t backing;         /* 0 when its disk is gone: a dead mapping */
	char backing_node[64]; /* "/dev/sdj"; "" when dead */
	char *image;           /* the image file behind its loop device, or NULL */
};

struct qs_mapping_list {
	struct qs_mapping *items;
	size_t count;
};

/* All dm-crypt mappings with a live table; an empty list on a kernel without device-mapper. */
int qs_mapping_scan(struct qs_mapping_list *ret, struct qs_error *err);
void qs_mapping_list_done(struct qs_mapping_list *list); /* also a QS_AUTO releaser */

/*
 * Of those only the one called NAME and those on DEV, some perhaps twice, so that opening a
 * hundred devices does not look at a hundred mappings for each. *ret is empty before.
 */
int qs_mapping_find(const char *name, const struct qs_device *dev, struct qs_mapping_list *ret,
		    struct qs_error *err);

/*
 * An open that was interrupted between creating a mapping and giving it a table
 * leaves one that is not active for libcryptsetup (nor in qs_mapping_scan()), but
 * holds its name. Remove it; the caller holds the device's lock, so that it is nobody's
 * work in progress. Returns 1 removed, 0 there was none.
 */
int qs_mapping_remove_leftover(const char *name, struct qs_error *err);

/* Why libcryptsetup did not map NODE as NAME; CODE is the -errno that it returned. */
int qs_mapping_explain(int code, const char *node, const char *name, struct qs_error *err);

const struct qs_mapping *qs_mapping_by_name(const struct qs_mapping_list *list, const char *name);

/* The mapping whose backing device (or image) is DEV, or NULL. */
const struct qs_mapping *qs_mapping_of_device(const struct qs_mapping_list *list,
					      const struct qs_device *dev);

/* True when M stands on DEV. */
bool qs_mapping_is_on(const struct qs_mapping *m, const struct qs_device *dev);

#endif
