/*
 * What the files of lib/device share: sysfs by device number, sets of device
 * numbers, and building the inventory of one device. Not for other modules.
 */
#ifndef QS_DEVICE_INTERNAL_H
#define QS_DEVICE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <libudev.h>

#include "base/env.h"
#include "base/error.h"
#include "device/device.h"
#include "device/links.h"

#define QS_BY_ID "/dev/disk/by-id/"
#define QS_BY_UUID "/dev/disk/by-uuid/"
#define QS_BY_PARTUUID "/dev/disk/by-partuuid/"

/* Block device numbers, each once, in the order in which they came. 0 is never one. */
struct qs_devset {
	dev_t *items;
	size_t count;
};

void qs_devset_add(struct qs_devset *set, dev_t devno);
bool qs_devset_has(const struct qs_devset *set, dev_t devno);
void qs_devset_done(struct qs_devset *set); /* also a QS_AUTO releaser */

/* A file below the device's directory in sysfs without white space at its end; NULL when absent. */
char *qs_sysfs_text(dev_t devno, const char *attribute);
uint64_t qs_sysfs_number(dev_t devno, const char *attribute, uint64_t otherwise);
bool qs_sysfs_exists(dev_t devno, const char *entry);

/* The kernel's name ("sda", "dm-3"), malloc'ed; "8:0" when the device is gone. */
char *qs_sysfs_name(dev_t devno);

/* The device with this kernel name, or 0. */
dev_t qs_sysfs_devno(const char *name);

/* The whole disk of a partition, or 0. */
dev_t qs_sysfs_disk(dev_t devno);

/*
 * Add to *ret what stands in a directory of links ("holders", "slaves"). A
 * device that has gone meanwhile has none; any other failure is an error,
 * because a missing holder would look like a free disk.
 */
int qs_sysfs_links(dev_t devno, const char *directory, struct qs_devset *ret, struct qs_error *err);

/* Add the partitions that the kernel knows on a whole disk. Errors as above. */
int qs_sysfs_partitions(dev_t devno, struct qs_devset *ret, struct qs_error *err);

/* Add the block devices whose names begin with PREFIX in a directory of sysfs, as above. */
int qs_sysfs_names(const char *directory, const char *prefix, struct qs_devset *ret,
		   struct qs_error *err);

/*
 * The multipath map or md array that DEVNO (or the disk it is a partition of)
 * belongs to: its device number, or 0. *ret_name ("/dev/mapper/mpatha",
 * "/dev/md0") is malloc'ed.
 */
int qs_device_parent(dev_t devno, dev_t *ret, char **ret_name, struct qs_error *err);

/* All NULL and 0; aborts when memory is out. */
struct qs_device *qs_device_new(void);

/*
 * Everything about the block device DEVNO. Returns -ENODEV (QS_E_NO_DEVICE)
 * when the kernel does not know it.
 */
int qs_inventory_block(const struct qs_env *env, dev_t devno, const char *given,
		       struct qs_device **ret, struct qs_error *err);

/* The same for the image file PATH. */
int qs_inventory_image(const struct qs_env *env, const char *path, const char *given,
		       struct qs_device **ret, struct qs_error *err);

/*
 * stat() a logical path: below the root prefix, or as it is when nothing is
 * there. *ret_real (may be NULL) is the path that was found, malloc'ed. Below
 * /dev/disk only the prefix counts. Returns 0 or -errno.
 */
int qs_spec_stat(const struct qs_env *env, const char *path, struct stat *ret, char **ret_real);

/* What tells DEV from others: mode and number of a block device, all of an image's. 0 or -errno. */
int qs_device_self(const struct qs_device *dev, struct stat *ret);

/* Does the logical path PATH lead to it now? 1 yes, 0 no, -errno: it cannot be told. */
int qs_spec_leads_to(const struct qs_env *env, const char *path, const struct stat *self);

typedef void qs_link_function(const char *part, void *cookie);

/*
 * Call FUNCTION with the file name of each link in /dev/disk/by-id that led to SELF, or could not
 * be looked at, when LINKS was taken: now, if that has not been done. Returns 0 or -errno of the
 * directory.
 */
int qs_links_each(const struct qs_env *env, struct qs_links *links, const struct stat *self,
		  qs_link_function *function, void *cookie);

/*
 * One reason why something is in use, before it is known which devices it
 * concerns: the block device DEVNO, or the file FS/INO, or what LITERAL (a
 * logical path from a table) may lead to one day. Unused ones are 0 or NULL.
 */
struct qs_claim {
	enum qs_use_kind kind;
	dev_t devno;
	dev_t fs;
	ino_t ino;
	dev_t holder; /* of QS_USE_HOLDER: the loop device that stands on it */
	char *literal;
	char *detail;
	char *name; /* as in struct qs_use */
};

struct qs_snapshot {
	const struct qs_env *env;
	struct qs_claim *claims;
	size_t count;
};

/* Add a copy of CLAIM; its detail is the text that follows, its strings stay the caller's. */
void qs_claim_add(struct qs_snapshot *shot, const struct qs_claim *claim, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* What mountinfo, swaps, loop devices and ZFS claim. */
int qs_claim_system(struct qs_snapshot *shot, struct qs_error *err);

/* What crypttab and fstab claim. */
int qs_claim_tables(struct qs_snapshot *shot, struct qs_error *err);

/* udev's record of DEV, a reference that is the caller's; NULL for an image, or without one. */
struct udev_device *qs_device_udev(const struct qs_device *dev);

static inline void qs_auto_udev(struct udev **u)
{
	*u = udev_unref(*u);
}

static inline void qs_auto_udev_device(struct udev_device **d)
{
	*d = udev_device_unref(*d);
}

static inline void qs_auto_udev_enumerate(struct udev_enumerate **e)
{
	*e = udev_enumerate_unref(*e);
}

#endif
