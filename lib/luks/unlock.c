#define _GNU_SOURCE
#include "luks/unlock.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <libcryptsetup.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "device/quiet.h"
#include "luks/backup.h"
#include "luks/mapping.h"

#define MAX_KEYSLOTS 32

/* Loading takes no lock, since that could wait and write: see read_luks2_at_rest() in header.c. */
#define LOAD_TRIES 3
#define LOAD_WAIT_US 10000

int qs_luks_explain(const char *node, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int fd = open(node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_auto_free) char *damage = NULL;
	int r;

	if (fd < 0)
		return qs_fail_errno(err, errno, "cannot open %s", node);
	r = qs_luks_header_read(fd, &h, err);
	if (r < 0)
		return r;
	if (!qs_luks_header_is_trace(&h))
		return qs_fail(err, QS_E_NOT_LUKS, "%s has no LUKS header", node);
	damage = qs_luks_header_damage(&h, fd, node);
	if (damage)
		return qs_fail(err, QS_E_DAMAGED, "%s", damage);
	return qs_fail(err, QS_E_DAMAGED, "libcryptsetup cannot use the LUKS header of %s", node);
}

int qs_luks_header_of(struct crypt_device *cd, struct qs_luks_header *ret, struct qs_error *err)
{
	const char *text = NULL, *uuid = crypt_get_uuid(cd);
	int r = crypt_dump_json(cd, &text, 0);

	if (r < 0)
		return qs_fail_errno(err, r, "cannot read the header's metadata");
	ret->json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	if (!ret->json)
		return qs_fail(err, QS_E_HOSTILE, "the header's metadata is not usable JSON");
	ret->version = 2;
	(void)snprintf(ret->uuid, sizeof(ret->uuid), "%s", uuid ? uuid : "");
	return 0;
}

static int check_recorded(const struct qs_env *env, const struct qs_luks_header *h,
			  const char *name, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header recorded = {};
	int r = qs_backup_peek(env, name, &recorded, NULL);

	/* LUKS1 metadata has nothing to compare, but never takes the place of LUKS2. */
	if (r > 0 && recorded.version == 1 && h->version == 1)
		return 0;
	/* A backup that cannot be used proves nothing, for or against the device. */
	if (r <= 0 || recorded.version != 2) {
		if (r != 0)
			qs_log(QS_LOG_WARNING, "%s: the header backup cannot be read", name);
		return 0;
	}
	r = qs_luks_json_compare(h->json, h->uuid, recorded.json, recorded.uuid, err);
	if (r < 0)
		qs_error_append(
			err,
			"; the header is not the one that was backed up, so it is not opened "
			"(if you changed it yourself, as by reencrypting: back %s up with qs-util "
			"cryptbackup --force, then make the initramfs again if that opens it)",
			name);
	return r;
}

int qs_luks_check_identity(const struct qs_env *env, const struct qs_luks_header *h,
			   const char *name, struct qs_error *err)
{
	int r = qs_luks_json_check(h->json, &env->config, err);

	return r == 0 && name ? check_recorded(env, h, name, err) : r;
}

static int check_luks1(const struct qs_env *env, const char *path, struct qs_luks_header *ret,
		       struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int r;

	if (fd < 0)
		return qs_fail_errno(err, errno, "cannot open %s", path);
	r = qs_luks_header_read(fd, ret, err);
	return r < 0 ? r : qs_luks1_check(ret, &env->config, err);
}

int qs_luks_load(const struct qs_env *env, const char *node, const char *name,
		 struct crypt_device **ret_cd, struct qs_luks_header *ret_header,
		 struct qs_error *err)
{
	return qs_luks_load_copy(env, node, node, name, ret_cd, ret_header, err);
}

/* A context that has failed to load stays as it is: each try has its own. */
static int load(const char *path, const char *node, struct crypt_device **ret, struct qs_error *err)
{
	for (int i = 0; i < LOAD_TRIES; i++) {
		QS_AUTO(qs_auto_cd) struct crypt_device *cd = NULL;
		int r = crypt_init(&cd, path);

		if (r < 0)
			return qs_fail_errno(err, r, "cannot open %s", node);
		if (crypt_load(cd, CRYPT_LUKS, NULL) == 0) {
			*ret = QS_TAKE(cd);
			return 0;
		}
		if (i + 1 < LOAD_TRIES)
			(void)usleep(LOAD_WAIT_US);
	}
	return qs_luks_explain(node, err);
}

int qs_luks_load_copy(const struct qs_env *env, const char *path, const char *node,
		      const char *name, struct crypt_device **ret_cd,
		      struct qs_luks_header *ret_header, struct qs_error *err)
{
	QS_AUTO(qs_auto_cd) struct crypt_device *cd = NULL;
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	int r;

	/* A header must not choose what code runs as root, and loading must not write (F8). */
	crypt_token_external_disable();
	(void)crypt_metadata_locking(NULL, 0);
	r = load(path, node, &cd, err);
	if (r < 0)
		return r;
	if (strcmp(crypt_get_type(cd), CRYPT_LUKS1) == 0) {
		r = check_luks1(env, path, &h, err);
		if (r == 0 && name)
			r = check_recorded(env, &h, name, err);
	} else {
		r = qs_luks_header_of(cd, &h, err);
		if (r == 0)
			r = qs_luks_check_identity(env, &h, name, err);
	}
	if (r < 0) {
		qs_error_prefix(err, "%s", node);
		return r;
	}
	*ret_cd = QS_TAKE(cd);
	*ret_header = h;
	h = (struct qs_luks_header){};
	return 0;
}

void qs_luks_warm_up(void)
{
	const struct crypt_pbkdf_type any = {
		.type = CRYPT_KDF_PBKDF2,
		.hash = "sha256",
		.iterations = 1000,
		.flags = CRYPT_PBKDF_NO_BENCHMARK,
	};
	QS_AUTO(qs_auto_cd) struct crypt_device *cd = NULL;

	/* A device of no file: nothing is opened, but what is set for it needs the algorithms. */
	if (crypt_init(&cd, NULL) == 0)
		(void)crypt_set_pbkdf_type(cd, &any);
}

static bool is_cheap(const struct qs_keyslot *slot)
{
	return slot->memory <= QS_CHEAP_MEMORY &&
	       (slot->memory > 0 || slot->iterations <= QS_CHEAP_ITERATIONS);
}

/* Flags that format stored in the header (no-read-workqueue, ...) are added by libcryptsetup. */
static uint32_t activation_flags(const struct qs_unlock *how)
{
	uint32_t flags = 0;

	if (!how->test && how->read_only)
		flags |= CRYPT_ACTIVATE_READONLY;
	if (!how->test && how->allow_discards)
		flags |= CRYPT_ACTIVATE_ALLOW_DISCARDS;
	return flags;
}

/* Returns the slot, -EPERM when this slot does not fit, or another error that ends the search. */
static int try_slot(struct crypt_device *cd, const char *node, int slot,
		    const struct qs_secret *key, const struct qs_unlock *how, struct qs_error *err)
{
	const char *name = how->test ? NULL : how->name;
	uint32_t flags = activation_flags(how);
	int r;

	if (how->volume_key)
		r = crypt_activate_by_volume_key(cd, name, how->volume_key->data,
						 how->volume_key->size, flags);
	else
		r = crypt_activate_by_passphrase(cd, name, slot, key->data, key->size, flags);
	if (r >= 0 && how->volume_key)
		return slot;
	if (r >= 0 || r == -EPERM || r == -ENOENT)
		return r == -ENOENT ? -EPERM : r;
	if (!how->test)
		return qs_mapping_explain(r, node, how->name, err);
	return qs_fail_errno(err, r, "cannot try keyslot %d of %s", slot, node);
}

static int reserve(const struct qs_unlock *how, const struct qs_keyslot *slot, struct qs_error *err)
{
	if (!how->worker || is_cheap(slot))
		return 0;
	return qs_worker_reserve(how->worker, slot->memory, slot->threads, err);
}

int qs_luks_unlock_loaded(struct crypt_device *cd, const char *node, const struct qs_luks_header *h,
			  const struct qs_secret *key, const struct qs_unlock *how,
			  struct qs_error *err)
{
	struct qs_keyslot slots[MAX_KEYSLOTS];
	size_t n = qs_luks_keyslots(h, slots, MAX_KEYSLOTS);

	for (size_t i = 0; i < n; i++) {
		int r;

		if ((how->slot >= 0 && slots[i].number != how->slot) ||
		    how->skip >> slots[i].number & 1)
			continue;
		r = reserve(how, &slots[i], err);
		if (r == 0)
			r = try_slot(cd, node, slots[i].number, key, how, err);
		if (r != -EPERM)
			return r;
	}
	if (n == 0)
		return qs_fail(err, QS_E_NO_KEY,
			       "%s has no keyslot left: it was erased, or needs its header backup",
			       node);
	return qs_fail(err, QS_E_NO_KEY, "this key opens none of the %zu keyslots of %s", n, node);
}

int qs_luks_unlock(const struct qs_env *env, const char *node, const struct qs_secret *key,
		   const struct qs_unlock *how, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int quiet = -1; /* open until CD is done with it */
	QS_AUTO(qs_auto_free) char *path = NULL;
	QS_AUTO(qs_auto_cd) struct crypt_device *cd = NULL;
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	int r;

	if (!how->test)
		quiet = qs_device_quiet_path(node, &path);
	r = qs_luks_load_copy(env, path ? path : node, node, how->name, &cd, &h, err);
	return r < 0 ? r : qs_luks_unlock_loaded(cd, node, &h, key, how, err);
}

int qs_luks_try(struct crypt_device *cd, const char *node, const struct qs_keyslot *slot,
		const struct qs_secret *key, struct qs_worker *worker, struct qs_error *err)
{
	const struct qs_unlock how = { .test = true, .worker = worker };
	int r = reserve(&how, slot, err);

	if (r == 0)
		r = try_slot(cd, node, slot->number, key, &how, err);
	return r == -EPERM ? 0 : r < 0 ? r : 1;
}
