/*
 * Backups are LUKS2 headers of two copies with a checksum each, so what is changed in place
 * leaves at every cut a copy that is whole, old or new, and both open. Key material is not
 * touched.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "luks/backup.h"

#define BLOCK 4096U

static char *real_path(const struct qs_env *env, const char *name)
{
	QS_AUTO(qs_auto_free) char *logical = qs_backup_path(env, name);

	return qs_env_path(env, logical);
}

/* All but tokens: equal salts mean equal key material. */
static bool same_volume(const struct qs_luks_header *a, const struct qs_luks_header *b)
{
	static const char *const members[] = { "keyslots", "segments", "digests", "config" };

	if (a->metadata_size != b->metadata_size || strcmp(a->uuid, b->uuid) != 0 ||
	    strcmp(a->label, b->label) != 0 || strcmp(a->subsystem, b->subsystem) != 0)
		return false;
	for (size_t i = 0; i < QS_ARRAY_SIZE(members); i++)
		if (!json_equal(json_object_get(a->json, members[i]),
				json_object_get(b->json, members[i])))
			return false;
	return true;
}

static bool is_whole(int fd, const struct qs_backup_follow *f)
{
	struct stat st;

	/* A second name is an older version that must not change. */
	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1 &&
	       (uint64_t)st.st_size == qs_header_image_size(f->h);
}

static bool has_copy(const struct qs_header_image *now, const struct qs_backup_follow *f,
		     unsigned which)
{
	size_t size = f->h->metadata_size;

	return memcmp((const char *)now->data + which * size,
		      (const char *)f->image->data + which * size, size) == 0;
}

static bool is_same(const struct qs_header_image *a, const struct qs_header_image *b)
{
	return b && a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
}

bool qs_backup_has(const struct qs_env *env, const char *name, const struct qs_header_image *copies,
		   bool from_disk)
{
	QS_AUTO(qs_auto_free) char *real = real_path(env, name);
	QS_AUTO(qs_auto_close) int fd = open(real, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	QS_AUTO(qs_header_image_done) struct qs_header_image now = {};

	if (fd < 0)
		return false;
	if (from_disk)
		(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	return qs_header_image_read_raw(fd, real, copies->size, &now, NULL) == 0 &&
	       is_same(&now, copies);
}

/* Is NOW, of the backup, the header of the same volume? Whether its first copy is whole: *ret. */
static int check_volume(const struct qs_backup_follow *f, const struct qs_header_image *now,
			bool *ret, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header b = {};
	int r;

	*ret = true;
	if (is_same(now, f->was))
		return 1;
	r = qs_luks_header_judge(now->data, now->size, &b, err);
	if (r < 0)
		return r;
	*ret = b.copy[0] == QS_COPY_OK;
	return b.version == 2 && same_volume(&b, f->h);
}

int qs_backup_may_follow(const struct qs_backup_follow *f, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = real_path(f->env, f->name);
	QS_AUTO(qs_auto_close) int fd = open(real, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	QS_AUTO(qs_header_image_done) struct qs_header_image now = {};
	bool first = false;
	int r;

	if (fd < 0)
		return errno == ENOENT ? QS_FOLLOW_NOT
				       : qs_fail_errno(err, errno, "cannot open %s", real);
	if (!is_whole(fd, f))
		return QS_FOLLOW_NOT;
	r = qs_header_image_read_raw(fd, real, 2 * f->h->metadata_size, &now, err);
	if (r == 0)
		r = check_volume(f, &now, &first, err);
	if (r <= 0)
		return r < 0 ? r : QS_FOLLOW_NOT;
	if (has_copy(&now, f, 1))
		return has_copy(&now, f, 0) ? QS_FOLLOW_SAME : QS_FOLLOW_FIRST;
	/* Until the second copy is whole the first one must be. */
	return first ? QS_FOLLOW_SECOND : QS_FOLLOW_NOT;
}

/* In one call, so that no kill leaves half of a copy. */
static int write_difference(int fd, const char *old, const char *new, size_t size, off_t at)
{
	size_t from = 0, to = size;

	while (from < to && memcmp(old + from, new + from, BLOCK) == 0)
		from += BLOCK;
	while (to > from && memcmp(old + to - BLOCK, new + to - BLOCK, BLOCK) == 0)
		to -= BLOCK;
	return to > from ? qs_file_pwrite(fd, new + from, to - from, at + (off_t)from) : 0;
}

int qs_backup_follow_copy(const struct qs_backup_follow *f, unsigned which, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = real_path(f->env, f->name);
	QS_AUTO(qs_auto_close) int fd = open(real, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	QS_AUTO(qs_header_image_done) struct qs_header_image old = {};
	size_t size = f->h->metadata_size, at = which * size;
	int r;

	if (fd < 0)
		return qs_fail_errno(err, errno, "cannot open the header backup %s", real);
	r = qs_header_image_read_raw(fd, real, 2 * size, &old, err);
	if (r < 0)
		return r;
	r = write_difference(fd, (char *)old.data + at, (const char *)f->image->data + at, size,
			     (off_t)at);
	return r < 0 ? qs_fail_errno(err, r, "cannot change the header backup %s", real) : 0;
}

int qs_backup_to_come(const struct qs_env *env, const char *name, struct qs_header_image *ret,
		      struct qs_luks_header *ret_header, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = real_path(env, name);
	QS_AUTO(qs_auto_close) int fd = open(real, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return qs_fail_errno(err, errno, "cannot open %s", real);
	return qs_header_image_copies(fd, real, ret, ret_header, err);
}
