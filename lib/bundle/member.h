/*
 * What is inside a key bundle: a tar archive of these members, in this order.
 *
 *   manifest.json               who made it, when, for which devices (bundle/manifest.h)
 *   crypttab, fstab             the tables as they were
 *   cryptconf/qs-util.conf
 *   cryptconf/keys/FILE         every file of keys_dir, wherever that is
 *   cryptconf/headers/FILE      header backups (not the older versions below NAME.d)
 *   cryptconf/keystore/..., cryptconf/retired/...
 *
 * so that `tar x -C /etc cryptconf` alone brings /etc/cryptconf back.
 *
 * What is read is foreign: a bundle for a certificate can be made by anybody who
 * has the certificate. A name that is not in this list is refused.
 */
#ifndef QS_BUNDLE_MEMBER_H
#define QS_BUNDLE_MEMBER_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/error.h"
#include "base/secret.h"
#include "bundle/tar.h"

enum qs_member_kind {
	QS_MEMBER_MANIFEST,
	QS_MEMBER_CRYPTTAB,
	QS_MEMBER_FSTAB,
	QS_MEMBER_CONFIG,
	QS_MEMBER_KEY,
	QS_MEMBER_HEADER,
	QS_MEMBER_STORE, /* keystore, retired */
	QS_MEMBER_KINDS
};

/* Each with a slash at its end, as prefix of names. */
#define QS_MEMBER_CONF "cryptconf/"
#define QS_MEMBER_KEYS QS_MEMBER_CONF "keys/"
#define QS_MEMBER_HEADERS QS_MEMBER_CONF "headers/"
#define QS_MEMBER_KEYSTORE QS_MEMBER_CONF "keystore/"

#define QS_MEMBER_MANIFEST_NAME "manifest.json"

/* Bytes; a LUKS2 header with its keyslots has at most 136 MiB (on-disk format 1.1.2). */
#define QS_MEMBER_MAX (136U << 20)

/* Files in one bundle; a thousand disks need two thousand. */
#define QS_MEMBERS_MAX 20000U

struct qs_member {
	enum qs_member_kind kind;
	char name[QS_TAR_NAME_L];
	time_t mtime;
	struct qs_secret content; /* empty content: data is NULL */
};

/*
 * Which member NAME is. Refused (QS_E_FAILED): "..", an absolute path, empty and
 * hidden parts, control characters, a temporary of qs_file_replace(), a place
 * that is not in the list above. *ret may be NULL.
 */
int qs_member_check(const char *name, enum qs_member_kind *ret, struct qs_error *err);

/* The part of a member's name behind its last slash. */
const char *qs_member_file(const char *name);

/* ---- writing ---- */

/* Takes SIZE bytes of the archive. */
typedef int qs_member_sink(void *cookie, const void *data, size_t size, struct qs_error *err);

struct qs_member_writer {
	qs_member_sink *sink;
	void *cookie;
	uint64_t written; /* bytes of the archive so far */
	uint64_t due;     /* bytes of the present member that have not come yet */
};

/* The header of a file or, with size 0, of a directory. */
int qs_member_begin(struct qs_member_writer *w, const struct qs_tar_header *h,
		    struct qs_error *err);

/* Content of the present member; all pieces together have h->size bytes. */
int qs_member_write(struct qs_member_writer *w, const void *data, size_t size,
		    struct qs_error *err);

/* The end of the archive. */
int qs_member_end(struct qs_member_writer *w, struct qs_error *err);

/* ---- reading ---- */

/* Fill DATA with exactly SIZE bytes of the archive; never asked for more than it has. */
typedef int qs_member_source(void *cookie, void *data, size_t size, struct qs_error *err);

/* Called for each file, in order; may take the content (qs_secret_move). Not 0 ends the walk. */
typedef int qs_member_visit(struct qs_member *m, void *cookie, struct qs_error *err);

/*
 * Read a whole archive of TOTAL bytes. Fails with QS_E_FAILED on anything that our writer does
 * not make: a bad name, the same name twice, a size above QS_MEMBER_MAX, no
 * manifest first. What was visited before stays visited, so nothing may be
 * written to disk in a first pass. Returns 0 or what VISIT returned.
 */
int qs_members_read(qs_member_source *source, void *source_cookie, uint64_t total,
		    qs_member_visit *visit, void *cookie, struct qs_error *err);

#endif
