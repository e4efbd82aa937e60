/*
 * cryptformat, in a worker: one device from the probe to the header backup. The
 * table of what a crash leaves is in format.c.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/fs.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "key/command.h"
#include "key/keyfile.h"
#include "keystore/device.h"
#include "keystore/identity.h"
#include "luks/unlock.h"
#include "ops/format.h"
#include "ops/journal.h"
#include "ops/keystore.h"

/* Only what is known to be absent: an I/O error does not say so, and a link to nowhere is there. */
static bool is_absent(const char *real)
{
	return faccessat(AT_FDCWD, real, F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
	       (errno == ENOENT || errno == ENOTDIR);
}

/* Something that is known under this name but was not begun by a format. */
static int refuse_known(const struct qs_format_run *f, const struct qs_format_target *t,
			struct qs_error *err)
{
	const char *what[] = { NULL, NULL };
	QS_AUTO(qs_auto_free) char *usual = qs_key_path(f->env, t->name);
	QS_AUTO(qs_auto_free) char *key = qs_env_path(f->env, usual);
	QS_AUTO(qs_auto_free) char *logical = qs_backup_path(f->env, t->name);
	QS_AUTO(qs_auto_free) char *backup = qs_env_path(f->env, logical);
	size_t n = 0;

	if (!t->resume && !f->options->key_file && !is_absent(key))
		what[n++] = usual;
	if (!is_absent(backup))
		what[n++] = logical;
	if (n == 0 || f->options->force)
		return 0;
	return qs_fail(
		err, QS_E_REFUSED,
		"%s is known already (%s%s%s exists): run `qs-util cryptdestroy` first if its "
		"data is not needed any more",
		t->dev->node, what[0], n > 1 ? ", " : "", n > 1 ? what[1] : "");
}

static int refuse_content(const struct qs_format_run *f, const struct qs_format_target *t, int fd,
			  struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *found = NULL;
	int r = qs_device_signatures(fd, t->dev->node, &found, err);

	if (r < 0)
		return r;
	if (found && f->options->force)
		return qs_device_wipe_signatures(fd, t->dev->node, err);
	if (found)
		return qs_fail(err, QS_E_REFUSED, "%s holds %s; its data would be lost",
			       t->dev->node, found);
	/* Half a format of ours looks like random bytes. */
	if (t->resume || f->options->force)
		return 0;
	r = qs_device_is_blank(fd, t->dev->node, err);
	if (r == 0)
		return qs_fail(
			err, QS_E_REFUSED,
			"the first MiB of %s is not blank though no file system or other "
			"signature is known: it may be a disk with a detached header or plain "
			"dm-crypt",
			t->dev->node);
	return r < 0 ? r : 0;
}

static int ask_command(const struct qs_format_run *f, const struct qs_format_target *t,
		       struct qs_secret *ret, struct qs_error *err)
{
	return qs_key_command_run(f->env, t->name, t->uuid, t->dev->node, ret, err);
}

/* A program that makes up a new key each time would lose the data behind the first one. */
static int ask_twice(const struct qs_format_run *f, const struct qs_format_target *t,
		     struct qs_secret *ret, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = {}, again = {};
	int r = ask_command(f, t, &key, err);

	if (r == 0)
		r = ask_command(f, t, &again, err);
	if (r < 0)
		return r;
	if (!qs_secret_equal(&key, &again))
		return qs_fail(err, QS_E_KEY_FILE,
			       "the key command %s printed two different keys for %s; it has to "
			       "print the same one each time",
			       f->env->config.key_command, t->name);
	*ret = qs_secret_move(&key);
	return 0;
}

/*
 * *ret_ours: the key came from our generator, now or in the run that is gone on
 * with. A forced format may also find somebody's key file under the device's
 * name; one that does not even have our size is not ours, whatever the journal says.
 */
static int take_key(const struct qs_format_run *f, const struct qs_format_target *t,
		    struct qs_secret *ret, bool *ret_ours, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(f->env, t->key_file);
	int r;

	if (t->command)
		return ask_twice(f, t, ret, err);
	if (t->keystore)
		return qs_secret_random(ret, QS_DEVICE_KEY_L, err);
	*ret_ours = !f->options->key_file && (t->resume || is_absent(real));
	if (!f->options->key_file && is_absent(real))
		return qs_key_generate(f->env, t->key_file, ret, err);
	r = qs_key_load(f->env, t->key_file, ret, err);
	if (r < 0)
		return r;
	*ret_ours = *ret_ours && ret->size == QS_KEY_SIZE;
	/* Whoever made it may have been killed before it was durable. */
	return qs_file_sync(real, err);
}

/*
 * Journal, then key. If no key was made, nothing has happened and no journal
 * stays. The journal of an interrupted run is written again: it may not be durable.
 */
static int begin(const struct qs_format_run *f, const struct qs_format_target *t,
		 struct qs_secret *ret_key, bool *ret_ours, struct qs_error *err)
{
	struct qs_journal journal = { .op = "format",
				      .link = t->link,
				      .key_file = (char *)qs_format_source(t) };
	QS_AUTO(qs_auto_free) char *real = qs_env_path(f->env, t->key_file);
	int r;

	(void)snprintf(journal.uuid, sizeof(journal.uuid), "%s", t->uuid);
	r = qs_journal_write(f->env, t->name, &journal, err);
	if (r < 0)
		return r;
	r = take_key(f, t, ret_key, ret_ours, err);
	if (r < 0 && !t->resume &&
	    (f->options->key_file || !qs_format_has_file(t) || is_absent(real)))
		(void)qs_journal_remove(f->env, t->name, NULL);
	return r;
}

/* Old partitions must not stay in the kernel's table over the new header. */
static void forget_partitions(const struct qs_format_target *t, int fd)
{
	if (t->dev->kind == QS_DEVICE_DISK && ioctl(fd, BLKRRPART) < 0)
		qs_log(QS_LOG_DEBUG, "%s: partition table not read again: %m", t->dev->node);
}

/* ---- a key that the keystore wraps ---- */

struct wrapping {
	const struct qs_format_run *f;
	const struct qs_secret *key;
};

static int wrap(void *cookie, struct crypt_device *cd, json_t **ret, struct qs_error *err)
{
	const struct wrapping *w = cookie;

	return qs_keystore_wrap(w->f->env, &w->f->ks, w->f->generation, cd, 0, w->key, ret, err);
}

static int write_header(const struct qs_format_run *f, const struct qs_format_target *t, int fd,
			const struct qs_secret *key, bool ours, struct qs_worker *worker,
			struct qs_header_image *ret, struct qs_error *err)
{
	struct qs_luks_spec spec = qs_format_spec(f, t);
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	struct wrapping wrapping = { f, key };
	int r;

	spec.fingerprint = ours;
	spec.token = t->keystore ? wrap : NULL;
	spec.token_cookie = &wrapping;
	r = qs_luks_make(&spec, key, worker, &image, err);
	if (r == 0)
		r = qs_luks_write(fd, t->dev->node, &image, spec.metadata_size, err);
	if (r < 0)
		return r;
	if (f->options->force)
		forget_partitions(t, fd);
	*ret = image;
	image = (struct qs_header_image){};
	return 0;
}

/* By the key, or by what the disk holds of it. */
static int prove(const struct qs_format_run *f, const struct qs_format_target *t,
		 const struct qs_secret *key, struct qs_worker *worker, struct qs_error *err)
{
	const struct qs_unlock test = { .test = true, .slot = -1, .worker = worker };

	return t->keystore ? qs_keystore_prove(f->env, &f->ks, t->dev->node, err)
			   : qs_luks_unlock(f->env, t->dev->node, key, &test, err);
}

/* Steps 4 and 5: what the disk holds is what we wrote, the key opens it, and a backup exists. */
static int prove_and_back_up(const struct qs_format_run *f, const struct qs_format_target *t,
			     int fd, const struct qs_secret *key,
			     const struct qs_header_image *image, struct qs_worker *worker,
			     struct qs_error *err)
{
	int r;

	qs_worker_step(worker, "prove");
	r = qs_device_sync_and_compare(fd, t->dev->node, image->data, image->size, err);
	if (r == 0)
		r = prove(f, t, key, worker, err);
	if (r < 0) {
		qs_error_prefix(err, "the new header does not hold");
		return r;
	}
	qs_worker_step(worker, "backup");
	r = qs_backup_store(f->env, t->name, image, err);
	if (r < 0)
		qs_error_append(
			err, " (the device is formatted and its key is safe; run the same command "
			     "again when this is mended)");
	return r < 0 ? r : 0;
}

/* The header on the disk is the one that an earlier run wrote: finish what is missing. */
static int go_on(const struct qs_format_run *f, const struct qs_format_target *t, int fd,
		 struct qs_worker *worker, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	int r = 0;

	if (t->command)
		r = ask_command(f, t, &key, err);
	else if (!t->keystore)
		r = qs_key_load(f->env, t->key_file, &key, err);
	if (r == 0)
		r = qs_header_image_read(fd, t->dev->node, &image, NULL, err);
	return r < 0 ? r : prove_and_back_up(f, t, fd, &key, &image, worker, err);
}

static int from_the_start(const struct qs_format_run *f, const struct qs_format_target *t, int fd,
			  struct qs_worker *worker, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	bool ours = false;
	int r;

	qs_worker_step(worker, "key");
	r = begin(f, t, &key, &ours, err);
	if (r < 0)
		return r;
	qs_worker_step(worker, "format");
	r = write_header(f, t, fd, &key, ours, worker, &image, err);
	return r < 0 ? r : prove_and_back_up(f, t, fd, &key, &image, worker, err);
}

static int read_header(int fd, const char *node, struct qs_luks_header *ret, struct qs_error *err)
{
	int r = qs_luks_header_read(fd, ret, err);

	if (r < 0)
		qs_error_prefix(err, "cannot tell what %s holds", node);
	return r;
}

static bool is_only_luks(const char *signatures)
{
	for (const char *s = signatures; s; s = strstr(s, ", ")) {
		s += *s == ',' ? 2 : 0;
		if (strncmp(s, "crypto_LUKS", strlen("crypto_LUKS")) != 0)
			return false;
	}
	return true;
}

/*
 * Interrupted or torn while the header was written: until there is a backup
 * nobody can have put data behind it. Returns 1 yes, 0 no.
 */
static int is_half_written(const struct qs_format_run *f, const struct qs_format_target *t, int fd,
			   const struct qs_luks_header *header, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *damage = qs_luks_header_damage(header, fd, t->dev->node);
	QS_AUTO(qs_auto_free) char *logical = qs_backup_path(f->env, t->name);
	QS_AUTO(qs_auto_free) char *backup = qs_env_path(f->env, logical);
	bool foreign = header->version != 0 && strcmp(header->uuid, t->uuid) != 0;
	QS_AUTO(qs_auto_free) char *found = NULL;
	int r;

	if (!t->resume || foreign || !damage || !is_absent(backup))
		return 0;
	r = qs_device_signatures(fd, t->dev->node, &found, err);
	return r < 0 ? r : found && is_only_luks(found);
}

/* What is left of the first try must never be read together with the keyslots of the second. */
static int start_over(const struct qs_format_run *f, const struct qs_format_target *t, int fd,
		      struct qs_worker *worker, struct qs_error *err)
{
	int r = qs_device_wipe_signatures(fd, t->dev->node, err);

	if (r == 0 && fsync(fd) < 0)
		r = qs_fail_errno(err, errno, "cannot sync %s", t->dev->node);
	return r < 0 ? r : from_the_start(f, t, fd, worker, err);
}

/* The one that the run before has wrapped it with. */
static void tell_generation(const struct qs_luks_header *h, json_t *result)
{
	int number;
	json_t *found = json_object_get(qs_keystore_token_find(h->json, &number), "generation");

	if (found)
		(void)json_object_set(result, "keystore_generation", found);
}

int qs_format_device(struct qs_worker *worker, size_t i, void *cookie, json_t **ret,
		     struct qs_error *err)
{
	const struct qs_format_run *f = cookie;
	const struct qs_format_target *t = &f->targets[i];
	QS_AUTO(qs_luks_header_done) struct qs_luks_header header = {};
	QS_AUTO(qs_auto_close) int disk = -1, fd = -1;
	int half, r;

	qs_worker_step(worker, "probe");
	fd = qs_device_open_exclusive(t->dev, &disk, err);
	if (fd < 0)
		return fd;
	r = read_header(fd, t->dev->node, &header, err);
	if (r < 0)
		return r;
	*ret = json_pack("{s:s}", "uuid", t->uuid);
	if (t->keystore)
		(void)json_object_set_new(*ret, "keystore_generation", json_integer(f->generation));
	half = is_half_written(f, t, fd, &header, err);
	if (half < 0)
		return half;
	if (half ||
	    ((t->resume || t->ours) && header.version == 2 && strcmp(header.uuid, t->uuid) == 0)) {
		(void)json_object_set_new(*ret, "note",
					  json_string("continued an unfinished format"));
		if (!half)
			tell_generation(&header, *ret);
		return half ? start_over(f, t, fd, worker, err) : go_on(f, t, fd, worker, err);
	}
	r = refuse_known(f, t, err);
	if (r == 0)
		r = refuse_content(f, t, fd, err);
	return r < 0 ? r : from_the_start(f, t, fd, worker, err);
}
