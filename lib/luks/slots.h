/*
 * Changing keyslots and tokens of a LUKS2 device.
 *
 * The change is made by libcryptsetup in a copy of the header in memory, and what
 * differs is written by us through one descriptor: keyslot areas, then the second
 * copy, then the first, each synced before the next. So a slot and its token come
 * and go in one step, an error of fsync is seen (F3), nothing is changed in place
 * (F7), and a cut at any point leaves the old or the new header. While it is
 * written, libcryptsetup's own lock is held and the header must still be the one
 * that was read, or the caller begins anew (F10).
 */
#ifndef QS_LUKS_SLOTS_H
#define QS_LUKS_SLOTS_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/env.h"
#include "base/error.h"
#include "base/pool.h"
#include "base/secret.h"
#include "luks/header.h"
#include "luks/image.h"

struct crypt_device;

/* A header that is being changed. All of it belongs to this struct. */
struct qs_slots {
	int fd;                       /* of the copy in memory */
	struct crypt_device *cd;      /* on that copy */
	struct qs_luks_header header; /* the copy as it is now */
	struct qs_header_image disk;  /* what the device holds */
	const char *node;             /* of the device, for sentences; the caller's */
	bool only_tokens;             /* the copy has no key material, and disk ends before it */
};

/*
 * Read the header through FD and make the copy (SIZE: of the device, in bytes).
 * It is checked as before an open (qs_luks_load with NAME). An update that was cut
 * off is completed in the copy, other damage is QS_E_DAMAGED; LUKS1 is
 * QS_E_WRONG_DEVICE, as it has one copy of its header and no tokens.
 */
int qs_slots_load(const struct qs_env *env, int fd, uint64_t size, const char *node,
		  const char *name, struct qs_slots *ret, struct qs_error *err);

/*
 * The same without key material, a fortieth of the bytes, for changes of tokens only; a header
 * whose update was cut off is loaded whole.
 */
int qs_slots_load_tokens(const struct qs_env *env, int fd, uint64_t size, const char *node,
			 const char *name, struct qs_slots *ret, struct qs_error *err);

/*
 * Only what the device holds, and its header, for qs_slots_write_image(): there is no copy that
 * could be changed, and nothing is checked but that the header is good or its update cut off.
 */
int qs_slots_load_disk(int fd, const char *node, struct qs_slots *ret, struct qs_error *err);

void qs_slots_done(struct qs_slots *s); /* also a QS_AUTO releaser */

struct qs_slot_new {
	int by;                         /* the keyslot that KEY opens */
	const struct qs_secret *key;    /* which gives the volume key */
	const struct qs_secret *secret; /* what shall open the new one */
	const char *pbkdf;              /* as in struct qs_luks_spec; NULL for full entropy */
	json_t *token;            /* written with it, with its number as "keyslots"; or NULL */
	struct qs_worker *worker; /* asked before Argon2 runs; may be NULL */
};

/* Add a keyslot to the copy. Returns its number. QS_E_NO_SPACE: there is no room for another. */
int qs_slots_add(struct qs_slots *s, const struct qs_slot_new *what, struct qs_error *err);

/* Add TOKEN to the copy, for keyslot SLOT: one that had to know the number of its slot. */
int qs_slots_set_token(struct qs_slots *s, const json_t *token, int slot, struct qs_error *err);

/* Put TOKEN, with its "keyslots", in the place of token NUMBER of the copy. */
int qs_slots_replace_token(struct qs_slots *s, int number, const json_t *token,
			   struct qs_error *err);

/*
 * Remove keyslot SLOT from the copy: its key material is overwritten, tokens that
 * name no other slot go with it. The last one is QS_E_FORBIDDEN.
 */
int qs_slots_remove(struct qs_slots *s, int slot, struct qs_error *err);

/* The copy as bytes, both copies of the header alike. */
int qs_slots_image(const struct qs_slots *s, struct qs_header_image *ret, struct qs_error *err);

/* The same without keyslots: both copies of the header. */
int qs_slots_headers(const struct qs_slots *s, struct qs_header_image *ret, struct qs_error *err);

/*
 * Write the copy through FD, which must be the device's and writable. On success
 * s->disk is the copy. Returns: -EAGAIN (QS_E_TEMPORARY) another program changed
 * the header meanwhile; nothing was written, load again.
 */
int qs_slots_write(struct qs_slots *s, int fd, struct qs_error *err);

/*
 * The same with IMAGE, of the size of s->disk, in the place of the copy; s->disk stays. The first
 * copy of the header, which is written last, is the caller's to sync.
 */
int qs_slots_write_image(struct qs_slots *s, int fd, const struct qs_header_image *image,
			 struct qs_error *err);

/* The keyslot of JSON whose salt is SALT (base64, as in the metadata), or -1. */
int qs_slots_by_salt(const json_t *json, const char *salt);

/* The salt of keyslot SLOT, which no other slot ever has; owned by JSON, NULL if there is none. */
const char *qs_slots_salt(const json_t *json, int slot);

/* The active keyslots as bits. */
uint32_t qs_slots_mask(const json_t *json);

#endif
