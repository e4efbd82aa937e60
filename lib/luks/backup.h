/*
 * Header backups: headers_dir/NAME.header, older versions in NAME.d/NUMBER.header,
 * and in NAME.d/damaged-SUM.raw what a restore overwrote that was no good header.
 *
 * crypt_header_backup() neither syncs nor checks what it wrote, and a full disk
 * leaves half a file (faults F5). So the header is read by us, checked in
 * memory, and put in place with qs_file_replace(). The file is what
 * `cryptsetup luksHeaderBackup` would have written, byte for byte.
 */
#ifndef QS_LUKS_BACKUP_H
#define QS_LUKS_BACKUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/env.h"
#include "base/error.h"
#include "luks/header.h"
#include "luks/image.h"

/* The logical path headers_dir/NAME.header; malloc'ed. */
char *qs_backup_path(const struct qs_env *env, const char *name);

/*
 * Make IMAGE the current backup of NAME, durably. A different last version moves
 * to NAME.d/, of which the newest config.header_versions stay.
 * Returns 1 written, 0 the backup already was the same.
 */
int qs_backup_store(const struct qs_env *env, const char *name, const struct qs_header_image *image,
		    struct qs_error *err);

/* The same, but no version goes: for a header that has not yet been proven. */
int qs_backup_put(const struct qs_env *env, const char *name, const struct qs_header_image *image,
		  struct qs_error *err);

/*
 * Refuse IMAGE (H its header) when a keyslot that nobody set anew has other key
 * material than in the current backup of NAME: QS_E_DAMAGED, naming NODE. A backup
 * that cannot be used proves nothing.
 */
int qs_backup_check_areas(const struct qs_env *env, const char *name,
			  const struct qs_header_image *image, const struct qs_luks_header *h,
			  const char *node, struct qs_error *err);

/*
 * Read the header and keyslot areas from NODE (a real path) and make them the
 * current backup of NAME: after every change of a slot or token, durably, before
 * the change counts as done. A damaged header, or key material that differs from the
 * backup's, is QS_E_DAMAGED and the old backup stays. Returns as qs_backup_store().
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

/*
 * Read a whole backup file (a real path), with its header: both copies good (those of a
 * change of tokens that was cut off are made alike in *ret), all keyslot areas there (else
 * QS_E_DAMAGED). -ENOENT: absent. *ret_time may be NULL.
 */
int qs_backup_read(const char *path, struct qs_header_image *ret, struct qs_luks_header *ret_header,
		   time_t *ret_time, struct qs_error *err);

/* ---- tokens (follow.c) ---- */

/*
 * The current backup of NAME goes ahead of a change of tokens, in place and a fortieth of the
 * bytes of a new one: its second copy becomes what the device shall have, then the device
 * is changed, then the first copy. So whatever is cut off, a backup whose copies are alike
 * names what the device has.
 */
struct qs_backup_follow {
	const struct qs_env *env;
	const char *name;
	const struct qs_header_image *image; /* at least both copies of the header to come */
	const struct qs_luks_header *h;      /* what it says */
	/* Both copies of the good header that it was before tokens were changed; or NULL. A backup
	   that has these very bytes need not be judged. */
	const struct qs_header_image *was;
};

enum qs_follow {
	QS_FOLLOW_NOT,    /* absent, damaged, other keyslots, a second name: store a new backup */
	QS_FOLLOW_SECOND, /* nothing but tokens differs: write the second copy */
	QS_FOLLOW_FIRST,  /* the second copy is written: write the first */
	QS_FOLLOW_SAME,   /* it is the same */
};

/* Has the current backup of NAME these very COPIES of a header? FROM_DISK: not as cached. */
bool qs_backup_has(const struct qs_env *env, const char *name, const struct qs_header_image *copies,
		   bool from_disk);

/* What the backup needs; an enum qs_follow or -errno. */
int qs_backup_may_follow(const struct qs_backup_follow *f, struct qs_error *err);

/*
 * Write copy WHICH of the header (0, 1), without a sync: whoever changes many backups
 * syncs all of them at once.
 */
int qs_backup_follow_copy(const struct qs_backup_follow *f, unsigned which, struct qs_error *err);

/* The header to come, by the second copy of the backup of NAME. */
int qs_backup_to_come(const struct qs_env *env, const char *name, struct qs_header_image *ret,
		      struct qs_luks_header *ret_header, struct qs_error *err);

/* ---- versions (versions.c) ---- */

/* One backup file. */
struct qs_backup_version {
	char *path; /* logical */
	bool current;
	bool raw;        /* NAME.d/damaged-SUM.raw: no backup, but may hold keyslots all the same */
	uint64_t number; /* of an older version's file: its sequence id (or the next free number),
			    for LUKS1 counted; 0 for the others */
	time_t time;     /* of modification */
};

struct qs_backup_list {
	struct qs_backup_version *items;
	size_t count;
};

/* The current backup, then older versions, newest first, then raw files. None: an empty list. */
int qs_backup_list(const struct qs_env *env, const char *name, struct qs_backup_list *ret,
		   struct qs_error *err);
void qs_backup_list_done(struct qs_backup_list *list); /* also a QS_AUTO releaser */

/* The names that have a current backup, NULL-terminated and sorted; release with
 * qs_backup_names_done(). */
int qs_backup_names(const struct qs_env *env, char ***ret, struct qs_error *err);
void qs_backup_names_done(char ***names); /* also a QS_AUTO releaser */

/*
 * Where the version IMAGE with the header H belongs in NAME.d: malloc'ed real
 * path of a file that is absent or is this image already. The directory exists
 * afterwards.
 */
int qs_backup_version_path(const struct qs_env *env, const char *name,
			   const struct qs_header_image *image, const struct qs_luks_header *h,
			   char **ret, struct qs_error *err);

/* Store IMAGE as an older version, durably, unless it is there or is the current backup. */
int qs_backup_keep(const struct qs_env *env, const char *name, const struct qs_header_image *image,
		   const struct qs_luks_header *h, struct qs_error *err);

/* Store bytes that are no usable header as NAME.d/damaged-SUM.raw. *ret_path: logical, malloc'ed.
 */
int qs_backup_keep_raw(const struct qs_env *env, const char *name,
		       const struct qs_header_image *image, char **ret_path, struct qs_error *err);

/* Erase all but the newest config.header_versions versions, and as many raw files (at least 1). */
int qs_backup_prune(const struct qs_env *env, const char *name, struct qs_error *err);

/* Is the file PATH (real) in NAME.d to be erased? RAW as in struct qs_backup_version. */
typedef bool qs_backup_judge(const char *path, bool raw, void *cookie);

/* Overwrite and remove what JUDGE says of all in NAME.d, left-over temporaries too. Returns how
 * many there were. */
int qs_backup_erase_if(const struct qs_env *env, const char *name, qs_backup_judge *judge,
		       void *cookie, struct qs_error *err);

/* Overwrite and remove the backup of NAME and all in NAME.d. Returns how many there were. */
int qs_backup_erase(const struct qs_env *env, const char *name, struct qs_error *err);

#endif
