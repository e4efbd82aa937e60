/*
 * What the operations share: outcomes, targets (a device with its name and
 * lock), and the pool that reports into outcomes.
 */
#ifndef QS_OPS_INTERNAL_H
#define QS_OPS_INTERNAL_H

#include <time.h>

#include "base/pool.h"
#include "device/device.h"
#include "luks/header.h"
#include "luks/mapping.h"
#include "ops/ops.h"

struct qs_crypttab;

/* One more at the end; its strings are still NULL. */
struct qs_outcome *qs_outcomes_add(struct qs_outcomes *list, const char *device);

/* Drop the last one. */
void qs_outcomes_pop(struct qs_outcomes *list);

/* Node and link of a device that was found. */
void qs_outcome_set_device(struct qs_outcome *outcome, const struct qs_device *dev);

/* Replace a string of an outcome by a copy. */
void qs_outcome_set(char **field, const char *value);

/* Put KEY: VALUE (the reference is taken over) into the outcome's details. */
void qs_outcome_detail(struct qs_outcome *outcome, const char *key, json_t *value);

/* RFC 3339 in UTC, to the second. */
json_t *qs_json_time(time_t when);

/* Put a sentence into the outcome's "warnings". */
void qs_outcome_warn(struct qs_outcome *outcome, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* What a person knows a disk by ("size", "model", "serial"), for the question before its end. */
void qs_outcome_detail_disk(struct qs_outcome *outcome, const struct qs_device *dev);

/*
 * The lock of one device, /run/qs-util/dev-MAJOR:MINOR.lock (images: the inode):
 * whoever formats, opens, destroys or changes keyslots holds it. Opens wait for it;
 * whatever overwrites does not (WAIT_MS 0): two such commands on one disk at
 * once is a mistake to be told (QS_E_LOCKED).
 */
int qs_device_lock(const struct qs_env *env, const struct qs_device *dev, unsigned wait_ms,
		   struct qs_error *err);

/*
 * Open DEV for writing, alone: O_EXCL keeps mounts and mappings away, and the
 * whole disk's flock keeps udev from probing half-written headers
 * (systemd.io/BLOCK_DEVICE_LOCKING). *ret_disk_fd holds that lock.
 */
int qs_device_open_exclusive(const struct qs_device *dev, int *ret_disk_fd, struct qs_error *err);

/*
 * The same without O_EXCL, for the header below an open mapping, which the kernel
 * does not look at: the caller has made sure that the mapping is the header's own, or
 * changes nothing but keyslots and tokens.
 */
int qs_device_open_below(const struct qs_device *dev, int *ret_disk_fd, struct qs_error *err);

/* fsync, then read [0, SIZE) again from the disk (O_DIRECT where it can) and compare with DATA. */
int qs_device_sync_and_compare(int fd, const char *node, const void *data, size_t size,
			       struct qs_error *err);

/*
 * Open NODE for reading what is on the disk, not in the cache: with O_DIRECT, or where
 * the file system has none, after the cache was dropped. Returns a descriptor.
 */
int qs_device_open_uncached(const char *node, struct qs_error *err);

/* What qs_device_overwrite() needs. */
struct qs_overwrite {
	const struct qs_env *env;
	const struct qs_device *dev;
	const char *label;    /* how progress names the device */
	uint64_t done, total; /* devices, for progress */
	uint64_t from;        /* bytes, a multiple of 4096 */
};

/*
 * Write zeros from there to the end of the device through FD, sync, and read all of it
 * again. The progress callback gets percentages. An interrupt (qs_pool_interrupt)
 * ends it with QS_E_INTERRUPTED.
 */
int qs_device_overwrite(const struct qs_overwrite *how, int fd, struct qs_error *err);

/* Read the LUKS header of DEV, changing nothing. */
int qs_device_read_header(const struct qs_device *dev, struct qs_luks_header *ret,
			  struct qs_error *err);

/* The same by qs_luks_header_peek(). */
int qs_device_peek_header(const struct qs_device *dev, struct qs_luks_header *ret,
			  struct qs_error *err);

/* The refusal of a device that is used for USE; never succeeds. */
int qs_device_refuse_use(const struct qs_device *dev, const struct qs_use *use,
			 struct qs_error *err);

/* Refuse a device that is used. ALLOWED lists kinds that do not matter here, as 1 << kind. */
int qs_device_check_unused(const struct qs_env *env, const struct qs_device *dev, unsigned allowed,
			   struct qs_error *err);

/*
 * Run one job per item of LIST whose error.kind is QS_E_NONE (or, with ONLY, for
 * which ONLY[i] is true) and write results into it. The job gets the item's index in LIST. Details
 * that a job returns are merged; "uuid", "name", "by_id" and "note" go to their fields.
 */
int qs_outcomes_run(const struct qs_env *env, struct qs_outcomes *list, const bool *only,
		    qs_job *job, void *cookie, struct qs_error *err);

/* What runs beside such jobs, as base/pool.h says; READY gets the item's index in the list. */
struct qs_beside {
	const struct qs_pool *pool;
	bool (*ready)(size_t index, void *cookie);
	void (*prepare)(void);
	void *cookie;
};
int qs_outcomes_run_beside(const struct qs_env *env, struct qs_outcomes *list, const bool *only,
			   qs_job *job, void *cookie, const struct qs_beside *beside,
			   struct qs_error *err);

/*
 * One outcome at the end of LIST for every device of ours that is present, named by
 * its node or its line in crypttab: subsystem qs-util in the header, a key or a
 * header backup of its name, or a line of ours in crypttab. Nothing is said of absent ones; one
 * that cannot be looked at may be there, and has its error and no node.
 */
int qs_outcomes_add_ours(const struct qs_env *env, struct qs_outcomes *list, struct qs_error *err);

/* What is not listed yet and behind a line that would be ours with a keystore. */
int qs_outcomes_add_lines(const struct qs_env *env, struct qs_outcomes *list, struct qs_error *err);

/*
 * Link and name of a device under which its key, backups and line are found: the
 * name of the line of ours that leads to it (a disk that moved to another link
 * keeps its name, see crypttabrepair), else both by the naming rule. The label in
 * the header is not asked: it is the disk's own word, and another disk's key
 * would be erased by it. UUID may be NULL. Errors as qs_device_name(), and of
 * reading crypttab.
 */
int qs_device_known_as(const struct qs_env *env, const struct qs_device *dev, const char *uuid,
		       char **ret_link, char **ret_name, struct qs_error *err);

/* The same by a table that was read already, for many devices. */
int qs_device_known_in(const struct qs_env *env, const struct qs_crypttab *tab,
		       const struct qs_device *dev, const char *uuid, char **ret_link,
		       char **ret_name, struct qs_error *err);

/* True when a key or a header backup of NAME exists. */
bool qs_name_is_known(const struct qs_env *env, const char *name);

/* A word that is a name of ours, or its by-id link, as that name; malloc'ed, else NULL. */
char *qs_name_of_word(const char *word);

/* Does a crypttab line of another device than NAME use this key file (logical)? Returns 1 yes, 0
 * no.
 */
int qs_key_is_shared(const struct qs_env *env, const char *name, const char *key,
		     struct qs_error *err);

/* How many workers a command has that mostly waits for disks. */
unsigned qs_outcomes_disk_workers(const struct qs_env *env);

/*
 * The same for jobs that only look at devices: none gets more than 30 s, and the
 * error of one that did not end says that the device does not answer.
 */
int qs_outcomes_look(const struct qs_env *env, struct qs_outcomes *list, const bool *only,
		     qs_job *job, void *cookie, struct qs_error *err);

/* "enc-scsi-3…" back to its by-id link, "enc-uuid-U" to by-uuid; malloc'ed, NULL for other names.
 */
char *qs_name_to_link(const char *name);

#endif
