#define _GNU_SOURCE
#include "luks/slots.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <libcryptsetup.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "luks/fields.h"
#include "luks/make.h"
#include "luks/unlock.h"

/* The unit in which differences are written; a multiple of every disk's block. */
#define BLOCK 4096U

/* Whoever holds libcryptsetup's lock writes a header, which takes milliseconds. */
#define LIBRARY_LOCK_DIR "/run/cryptsetup"
#define LIBRARY_LOCK_WAIT_MS 10000

void qs_slots_done(struct qs_slots *s)
{
	qs_auto_cd(&s->cd);
	if (s->fd > 0)
		qs_auto_close(&s->fd);
	s->fd = 0;
	qs_luks_header_done(&s->header);
	qs_header_image_done(&s->disk);
}

/* ---- the copy ---- */

static int refuse_luks1(const struct qs_luks_header *h, const char *node, struct qs_error *err)
{
	if (h->version != 1)
		return 0;
	return qs_fail(err, QS_E_WRONG_DEVICE,
		       "%s is LUKS1, which has a single copy of its header and no tokens: "
		       "convert it (cryptsetup convert --type luks2), or use cryptsetup",
		       node);
}

static int read_image(int fd, const char *node, struct qs_header_image *ret, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	int r = qs_header_image_complete(fd, node, ret, &h, err);

	return r < 0 ? r : refuse_luks1(&h, node, err);
}

static void copy_path(const struct qs_slots *s, char ret[static 32])
{
	(void)snprintf(ret, 32, "/proc/self/fd/%d", s->fd);
}

/* What libcryptsetup made of the copy. */
static int reread(struct qs_slots *s, struct qs_error *err)
{
	struct qs_luks_header h = {};
	int r = qs_luks_header_read(s->fd, &h, err);

	if (r < 0)
		return r;
	qs_luks_header_done(&s->header);
	s->header = h;
	return 0;
}

/* Takes the copy of IMAGE that libcryptsetup is to change into S. */
static int load_copy(const struct qs_env *env, const struct qs_header_image *image, uint64_t size,
		     const char *name, struct qs_slots *s, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header checked = {};
	char path[32];

	s->fd = qs_header_image_file(image, size, err);
	if (s->fd < 0)
		return s->fd;
	copy_path(s, path);
	return qs_luks_load_copy(env, path, s->node, name, &s->cd, &checked, err);
}

int qs_slots_load(const struct qs_env *env, int fd, uint64_t size, const char *node,
		  const char *name, struct qs_slots *ret, struct qs_error *err)
{
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	QS_AUTO(qs_slots_done) struct qs_slots s = { .node = node };
	int r = read_image(fd, node, &image, err);

	if (r == 0)
		r = qs_header_image_read_raw(fd, node, image.size, &s.disk, err);
	if (r == 0)
		r = load_copy(env, &image, size, name, &s, err);
	if (r == 0)
		r = reread(&s, err);
	if (r < 0)
		return r;
	*ret = s;
	s = (struct qs_slots){};
	return 0;
}

int qs_slots_load_tokens(const struct qs_env *env, int fd, uint64_t size, const char *node,
			 const char *name, struct qs_slots *ret, struct qs_error *err)
{
	QS_AUTO(qs_slots_done) struct qs_slots s = { .node = node, .only_tokens = true };
	int r = qs_header_image_alike(fd, node, &s.disk, &s.header, err);

	if (r == 0)
		return qs_slots_load(env, fd, size, node, name, ret, err);
	if (r > 0)
		r = load_copy(env, &s.disk, size, name, &s, err);
	if (r < 0)
		return r;
	*ret = s;
	s = (struct qs_slots){};
	return 0;
}

/* One whose update was cut off, or larger than usual: what was read is judged again. */
static int read_disk(int fd, const char *node, struct qs_slots *s, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image mended = {};
	int r = qs_header_image_copies(fd, node, &mended, &h, err);

	if (r == 0)
		r = refuse_luks1(&h, node, err);
	if (r == 0)
		r = qs_header_image_read_raw(fd, node, mended.size, &s->disk, err);
	return r < 0 ? r : qs_luks_header_judge(s->disk.data, s->disk.size, &s->header, err);
}

int qs_slots_load_disk(int fd, const char *node, struct qs_slots *ret, struct qs_error *err)
{
	QS_AUTO(qs_slots_done) struct qs_slots s = { .node = node, .only_tokens = true };
	int r = qs_header_image_alike(fd, node, &s.disk, &s.header, err);

	if (r == 0)
		r = read_disk(fd, node, &s, err);
	if (r < 0)
		return r;
	*ret = s;
	s = (struct qs_slots){};
	return 0;
}

int qs_slots_image(const struct qs_slots *s, struct qs_header_image *ret, struct qs_error *err)
{
	return qs_header_image_read(s->fd, s->node, ret, NULL, err);
}

int qs_slots_headers(const struct qs_slots *s, struct qs_header_image *ret, struct qs_error *err)
{
	return qs_header_image_read_raw(s->fd, s->node, 2 * s->header.metadata_size, ret, err);
}

/* ---- changes ---- */

static int set_token(struct qs_slots *s, const json_t *token, int slot, struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *whole = json_deep_copy(token);
	QS_AUTO(qs_auto_free) char *text = NULL;
	char number[16];
	int r;

	(void)snprintf(number, sizeof(number), "%d", slot);
	(void)json_object_set_new(whole, "keyslots", json_pack("[s]", number));
	text = whole ? json_dumps(whole, JSON_COMPACT) : NULL;
	if (!text)
		return qs_fail(err, QS_E_MEMORY, "no memory for a token of %s", s->node);
	r = crypt_token_json_set(s->cd, CRYPT_ANY_TOKEN, text);
	return r < 0 ? qs_fail_errno(err, r, "cannot add a token to the header of %s", s->node) : 0;
}

static int add_slot(struct qs_slots *s, const struct qs_slot_new *what)
{
	struct crypt_keyslot_context *old = NULL, *new = NULL;
	int r = crypt_keyslot_context_init_by_passphrase(s->cd, what->key->data, what->key->size,
							 &old);

	if (r == 0)
		r = crypt_keyslot_context_init_by_passphrase(s->cd, what->secret->data,
							     what->secret->size, &new);
	if (r == 0)
		r = crypt_keyslot_add_by_keyslot_context(s->cd, what->by, old, CRYPT_ANY_SLOT, new,
							 0);
	crypt_keyslot_context_free(old);
	crypt_keyslot_context_free(new);
	return r;
}

static int explain_add(int r, const struct qs_slots *s, struct qs_error *err)
{
	if (r == -EINVAL || r == -ENOSPC)
		return qs_fail(
			err, QS_E_NO_SPACE,
			"the header of %s has no room for another keyslot; remove one that is "
			"not needed (cryptenroll --wipe)",
			s->node);
	return qs_fail_errno(err, r, "cannot add a keyslot to the header of %s", s->node);
}

int qs_slots_set_token(struct qs_slots *s, const json_t *token, int slot, struct qs_error *err)
{
	int r = set_token(s, token, slot, err);

	return r < 0 ? r : reread(s, err);
}

int qs_slots_add(struct qs_slots *s, const struct qs_slot_new *what, struct qs_error *err)
{
	struct crypt_pbkdf_type pbkdf;
	int slot, r = qs_luks_pbkdf(what->pbkdf, what->worker, &pbkdf, err);

	if (r < 0)
		return r;
	r = crypt_set_pbkdf_type(s->cd, &pbkdf);
	if (r < 0)
		return qs_fail_errno(err, r, "cannot set the key derivation of the new keyslot");
	slot = add_slot(s, what);
	if (slot < 0)
		return explain_add(slot, s, err);
	r = what->token ? set_token(s, what->token, slot, err) : 0;
	if (r == 0)
		r = reread(s, err);
	return r < 0 ? r : slot;
}

int qs_slots_replace_token(struct qs_slots *s, int number, const json_t *token,
			   struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *text = json_dumps(token, JSON_COMPACT);
	int r = text ? crypt_token_json_set(s->cd, number, text) : -ENOMEM;

	if (r < 0)
		return qs_fail_errno(err, r, "cannot replace token %d in the header of %s", number,
				     s->node);
	return reread(s, err);
}

/* Tokens are for opening slots: one that is left without any is removed. */
static int drop_tokens(struct qs_slots *s, int slot)
{
	json_t *tokens = json_object_get(s->header.json, "tokens");
	const char *number;
	json_t *token;
	char name[16];

	(void)snprintf(name, sizeof(name), "%d", slot);
	json_object_foreach(tokens, number, token)
	{
		const json_t *slots = json_object_get(token, "keyslots");
		int n = qs_fields_slot(number), r = 0;

		if (n < 0 || !qs_fields_lists(slots, name))
			continue;
		if (json_array_size(slots) == 1)
			r = crypt_token_json_set(s->cd, n, NULL);
		else
			r = crypt_token_unassign_keyslot(s->cd, n, slot);
		if (r < 0)
			return r;
	}
	return 0;
}

int qs_slots_remove(struct qs_slots *s, int slot, struct qs_error *err)
{
	int r;

	if ((qs_slots_mask(s->header.json) & ~(1U << slot)) == 0)
		return qs_fail(
			err, QS_E_FORBIDDEN,
			"keyslot %d is the last one of %s; without it nobody could ever open "
			"the device (cryptdestroy is the command for that)",
			slot, s->node);
	r = drop_tokens(s, slot);
	if (r == 0)
		r = crypt_keyslot_destroy(s->cd, slot);
	if (r < 0)
		return qs_fail_errno(err, r, "cannot remove keyslot %d of %s", slot, s->node);
	return reread(s, err);
}

/* ---- writing ---- */

/* The lock's file, unless its last owner has removed it since it was opened. */
static int open_library_lock(dev_t device, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int fd = -1;
	char path[64];

	(void)snprintf(path, sizeof(path), LIBRARY_LOCK_DIR "/L_%u:%u", major(device),
		       minor(device));
	if (mkdir(LIBRARY_LOCK_DIR, 0700) < 0 && errno != EEXIST)
		return qs_fail_errno(err, errno, "cannot make the directory %s", LIBRARY_LOCK_DIR);
	fd = open(path, O_CREAT | O_NOFOLLOW | O_RDWR | O_CLOEXEC, 0600);
	return fd < 0 ? qs_fail_errno(err, errno, "cannot open the lock %s", path)
		      : qs_take_fd(&fd);
}

static bool is_still_there(int fd, dev_t device)
{
	struct stat open_one, named;
	char path[64];

	(void)snprintf(path, sizeof(path), LIBRARY_LOCK_DIR "/L_%u:%u", major(device),
		       minor(device));
	return fstat(fd, &open_one) == 0 && stat(path, &named) == 0 &&
	       open_one.st_ino == named.st_ino && open_one.st_dev == named.st_dev;
}

/*
 * The lock that libcryptsetup 2.x takes around every write of a LUKS2 header on a
 * block device (its lib/utils_device_locking.c); for an image file that is the flock
 * of the file, which whoever calls us holds already. Returns the descriptor, or -1
 * with *ret 0 when there is none to take.
 */
static int lock_against_library(const struct qs_slots *s, int fd, int *ret_fd, struct qs_error *err)
{
	const struct timespec pause = { .tv_nsec = 20L * 1000 * 1000 };
	struct stat st;

	if (fstat(fd, &st) < 0)
		return qs_fail_errno(err, errno, "cannot look at %s", s->node);
	if (!S_ISBLK(st.st_mode))
		return 0;
	for (unsigned waited = 0; waited < LIBRARY_LOCK_WAIT_MS; waited += 20) {
		QS_AUTO(qs_auto_close) int lock = open_library_lock(st.st_rdev, err);

		if (lock < 0)
			return lock;
		if (flock(lock, LOCK_EX | LOCK_NB) == 0 && is_still_there(lock, st.st_rdev)) {
			*ret_fd = qs_take_fd(&lock);
			return 0;
		}
		(void)nanosleep(&pause, NULL);
	}
	return qs_fail(err, QS_E_LOCKED, "another program is changing the header of %s", s->node);
}

static int check_unchanged(const struct qs_slots *s, int fd, struct qs_error *err)
{
	QS_AUTO(qs_header_image_done) struct qs_header_image now = {};
	size_t headers = 2 * s->header.metadata_size;
	int r = qs_header_image_read_raw(fd, s->node, headers, &now, err);

	if (r < 0 || memcmp(now.data, s->disk.data, headers) == 0)
		return r;
	(void)qs_fail(err, QS_E_TEMPORARY,
		      "another program has changed the header of %s meanwhile; try again", s->node);
	return -EAGAIN;
}

/* Only blocks that differ: nothing of other slots is ever written. */
static int write_part(const struct qs_slots *s, int fd, const struct qs_header_image *image,
		      size_t from, size_t to, struct qs_error *err)
{
	const char *old = s->disk.data, *new = image->data;
	int r = 0;

	for (size_t at = from, end; r == 0 && at < to; at = end) {
		end = at;
		while (end < to && memcmp(old + end, new + end, BLOCK) != 0)
			end += BLOCK;
		if (end > at)
			r = qs_file_pwrite(fd, new + at, end - at, (off_t)at);
		else
			end += BLOCK;
	}
	return r < 0 ? qs_fail_errno(err, r, "cannot write the header of %s", s->node) : 0;
}

static int sync_header(const struct qs_slots *s, int fd, struct qs_error *err)
{
	return fsync(fd) < 0 ? qs_fail_errno(err, errno, "cannot write the header of %s", s->node)
			     : 0;
}

int qs_slots_write_image(struct qs_slots *s, int fd, const struct qs_header_image *image,
			 struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int lock = -1;
	size_t copy = s->header.metadata_size;
	bool areas = image->size > 2 * copy;
	int r = lock_against_library(s, fd, &lock, err);

	if (r == 0)
		r = check_unchanged(s, fd, err);
	if (r == 0 && areas)
		r = write_part(s, fd, image, 2 * copy, image->size, err);
	if (r == 0 && areas)
		r = sync_header(s, fd, err);
	if (r == 0)
		r = write_part(s, fd, image, copy, 2 * copy, err);
	if (r == 0)
		r = sync_header(s, fd, err);
	return r < 0 ? r : write_part(s, fd, image, 0, copy, err);
}

int qs_slots_write(struct qs_slots *s, int fd, struct qs_error *err)
{
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	int r = s->only_tokens ? qs_slots_headers(s, &image, err) : qs_slots_image(s, &image, err);

	if (r == 0)
		r = qs_slots_write_image(s, fd, &image, err);
	if (r == 0)
		r = sync_header(s, fd, err);
	if (r < 0)
		return r;
	qs_header_image_done(&s->disk);
	s->disk = qs_header_image_move(&image);
	return 0;
}

/* ---- looking ---- */

const char *qs_slots_salt(const json_t *json, int slot)
{
	char name[16];

	(void)snprintf(name, sizeof(name), "%d", slot);
	return qs_fields_text(
		json_object_get(json_object_get(json_object_get(json, "keyslots"), name), "kdf"),
		"salt");
}

int qs_slots_by_salt(const json_t *json, const char *salt)
{
	for (int slot = 0; slot < QS_LUKS_AREAS_MAX; slot++) {
		const char *its = qs_slots_salt(json, slot);

		if (its && strcmp(its, salt) == 0)
			return slot;
	}
	return -1;
}

uint32_t qs_slots_mask(const json_t *json)
{
	json_t *slots = json_object_get(json, "keyslots"), *slot;
	const char *number;
	uint32_t mask = 0;

	json_object_foreach(slots, number, slot)
	{
		int n = qs_fields_slot(number);

		if (n >= 0)
			mask |= 1U << n;
	}
	return mask;
}
