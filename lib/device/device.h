/*
 * Block devices and image files: inventory, names, and who uses them.
 */
#ifndef QS_DEVICE_DEVICE_H
#define QS_DEVICE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <blkid/blkid.h>

#include "base/env.h"
#include "base/error.h"

enum qs_device_kind {
	QS_DEVICE_DISK,
	QS_DEVICE_PARTITION,
	QS_DEVICE_LOOP,
	QS_DEVICE_MAPPER, /* a dm device: LVM volume, multipath map, another crypt mapping */
	QS_DEVICE_MD,     /* an md array */
	QS_DEVICE_OTHER,  /* zram, nbd, ... */
	QS_DEVICE_IMAGE,  /* a regular file */
};

/* Strings are owned by the device; those that nobody knows are NULL. */
struct qs_device {
	char *given; /* what the user typed, or node */
	char *node;  /* /dev/sdj; for an image its absolute path (real, not logical) */
	char *link;  /* the persistent name for tables: a by-id link, by-uuid, or the image's path
			(logical) */
	char *name;  /* enc-...; NULL while link is */
	enum qs_device_kind kind;
	dev_t devno; /* 0 for an image */
	dev_t fs;    /* of an image: its file system and number there; 0: not known */
	ino_t ino;
	char *disk; /* node of the whole disk when this is a partition, else NULL */
	char *vendor, *model, *serial, *revision, *wwn;
	char *transport;         /* "sata", "sas", "nvme", "virtio", "usb", ... */
	uint64_t size;           /* bytes */
	unsigned logical_block;  /* bytes; 512 for an image */
	unsigned physical_block; /* bytes */
	bool rotational, read_only, removable;
	char *member_of; /* node or name of the multipath map or md array that owns it, else NULL */
	struct udev_device *udev; /* its record when it was found; may be NULL */
};

void qs_device_free(struct qs_device *dev);
void qs_auto_device(struct qs_device **dev); /* QS_AUTO releaser */

/*
 * Find the device that WORD means: a node, any link below /dev, an image file, a
 * mapper name ("enc-..." or /dev/mapper/...; its backing device is meant, also
 * by way of crypttab when it is closed), or a LUKS UUID.
 * Returns: -ENODEV (QS_E_NO_DEVICE) absent; QS_E_WRONG_DEVICE a directory, a
 * character device; QS_E_FAILED two devices with this UUID (both are named).
 */
int qs_device_find(const struct qs_env *env, const char *word, struct qs_device **ret,
		   struct qs_error *err);

/*
 * Does ERR of qs_device_find() say that the device is away, or that something else is in its place?
 * All else says that it could not be looked at: it may be there.
 */
bool qs_device_is_absent(const struct qs_error *err);

/*
 * The logical path that the first field of a fstab line or the second of a
 * crypttab line means ("UUID=...", "LABEL=...", "/dev/..."), malloc'ed; NULL
 * when it is no device ("tmpfs", "host:/export").
 */
char *qs_spec_path(const char *spec);

/*
 * What the second field of a crypttab line (a path or a tag) leads to now: a
 * block device's node or an image's path (real), malloc'ed. Nothing is opened.
 * Returns 1 found, 0 nothing is there, or -errno when that cannot be told.
 */
int qs_device_node_of(const struct qs_env *env, const char *spec, char **ret, struct qs_error *err);

/* Does SPEC lead to DEV now? 1 yes, 0 no, or -errno when that cannot be told. Nothing is opened. */
int qs_device_leads_to(const struct qs_env *env, const char *spec, const struct qs_device *dev);

/* The file that a loop device stands on, malloc'ed; NULL for any other device. */
char *qs_device_loop_file(const struct qs_device *dev);

struct qs_device_list {
	struct qs_device **items;
	size_t count;
};

/*
 * Every disk of the system in the order of its kernel name; ALL adds partitions
 * and stacked devices (dm, md, loop with a backing file). Without medium: left out.
 */
int qs_device_scan(const struct qs_env *env, bool all, struct qs_device_list *ret,
		   struct qs_error *err);
void qs_device_list_done(struct qs_device_list *list); /* also a QS_AUTO releaser */

/*
 * The best persistent link for tables: the configured
 * order of by-id prefixes, in C order among equals, then by-uuid of the LUKS
 * header (UUID may be NULL). Links with characters that crypttab's two readers
 * understand differently are passed over. *ret_link (logical path) and
 * *ret_name ("enc-" + its last part; "enc-uuid-UUID") are malloc'ed.
 * Returns: QS_E_WRONG_DEVICE when there is none.
 */
int qs_device_name(const struct qs_env *env, const struct qs_device *dev, const char *uuid,
		   char **ret_link, char **ret_name, struct qs_error *err);

/*
 * The same for a device whose content is a new one at each start, so that its
 * UUID says nothing: a by-id link, else by-partuuid ("enc-partuuid-PARTUUID").
 */
int qs_device_name_place(const struct qs_env *env, const struct qs_device *dev, char **ret_link,
			 char **ret_name, struct qs_error *err);

/*
 * Wait until the link (logical path below /dev) leads to DEV, at most WAIT_MS
 * milliseconds. Images need none. Returns -ETIMEDOUT (QS_E_DEADLINE) if not.
 */
int qs_device_wait_link(const struct qs_env *env, const struct qs_device *dev, const char *link,
			unsigned wait_ms, struct qs_error *err);

/* Why a device may not be touched. */
enum qs_use_kind {
	QS_USE_MOUNT,    /* it, one of its partitions, or a device stacked on it is mounted */
	QS_USE_SWAP,     /* likewise active swap */
	QS_USE_HOLDER,   /* a dm, md, bcache, loop or other device stands on it */
	QS_USE_CRYPTTAB, /* /etc/crypttab names it */
	QS_USE_FSTAB,    /* /etc/fstab names it */
	QS_USE_SYSTEM,   /* below /, /boot, /boot/efi, /usr or /etc/cryptconf: never to be formatted
			  */
	QS_USE_MEMBER,   /* a path of a multipath map, a member of an md array: use the parent */
	QS_USE_PARTITIONS, /* a whole disk whose partitions are known to the kernel */
};

struct qs_use {
	enum qs_use_kind kind;
	/*
	 * "mounted on /data", "swap (sda2)", "held by dm-3 (vg0-lv1)", "line 4 of
	 * /etc/fstab", "below /boot" (SYSTEM), "a member of /dev/md0", "sda1, sda2"
	 * (PARTITIONS). In parentheses what it is about, when that is not the device.
	 */
	char *detail;
	char *name; /* of QS_USE_CRYPTTAB: the first field of the line, else NULL */
};

struct qs_use_list {
	struct qs_use *items;
	size_t count;
};

/*
 * All reasons, most serious first; none is an empty list. Reads sysfs,
 * /proc/self/mountinfo, /proc/swaps, crypttab and fstab; opens no device. With
 * a root prefix crypttab and fstab are those below it.
 */
int qs_device_uses(const struct qs_env *env, const struct qs_device *dev, struct qs_use_list *ret,
		   struct qs_error *err);

/*
 * The same for many devices: the tables are read once. The snapshot refers to
 * ENV and knows nothing of what happens after it was taken.
 */
struct qs_snapshot;
int qs_snapshot_take(const struct qs_env *env, struct qs_snapshot **ret, struct qs_error *err);
int qs_snapshot_uses(const struct qs_snapshot *shot, const struct qs_device *dev,
		     struct qs_use_list *ret, struct qs_error *err);
void qs_auto_snapshot(struct qs_snapshot **shot); /* QS_AUTO releaser */

void qs_use_list_done(struct qs_use_list *list);     /* also a QS_AUTO releaser */
const char *qs_use_kind_name(enum qs_use_kind kind); /* "mount", "swap", ... for JSON */

/*
 * What libblkid finds through FD, signature by signature ("ext4", "LVM2_member",
 * "gpt", "crypto_LUKS"), several joined by ", "; malloc'ed. *ret is NULL when
 * there is none. An I/O error is an error, never "nothing found".
 * OFFSETS outside the first MiB (RAID at the end, backup GPT) are looked at too.
 */
int qs_device_signatures(int fd, const char *node, char **ret, struct qs_error *err);

/*
 * Overwrite the magic of every signature that libblkid finds through FD, until
 * none is left; for a format that was forced. Not durable until the caller syncs.
 */
int qs_device_wipe_signatures(int fd, const char *node, struct qs_error *err);

/*
 * Leave out the prober of OCFS 1 (gone from Linux since 2.6): in libblkid 2.38.1 it
 * copies as many bytes as the disk says from a buffer of 512, so that a hostile
 * disk crashes whoever looks at it (tests/fuzz/corpus/image/ocfs). Returns as libblkid.
 */
int qs_device_tame_probe(blkid_probe probe);

/* Returns 1 when the first MiB (or the whole, if smaller) holds only zero bytes, 0 when not. */
int qs_device_is_blank(int fd, const char *node, struct qs_error *err);

#endif
