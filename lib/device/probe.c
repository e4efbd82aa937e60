#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <blkid/blkid.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "device/internal.h"

/*
 * libblkid takes a failed read for "nothing there". So everything it looks at
 * is read here first, where errors count, into a sparse file in memory of the
 * device's size, and libblkid probes that.
 */
struct mirror {
	int fd; /* the file in memory */
	uint64_t size;
	unsigned sector;
};

/* Enough for an O_DIRECT descriptor on any disk. */
#define ALIGNMENT 4096U
#define CHUNK (1U << 16)

/*
 * Superblocks end below 1 MiB, but for VMFS, whose magics are at 1 and 2 MiB, and
 * second LUKS2 headers; those at the end are RAID, backup GPT, and ZFS labels in
 * the last 768 KiB.
 */
#define HEAD (2U << 20)
#define TAIL (2U << 20)
static const uint64_t spots[] = { 2U << 20, 4U << 20 };

/* Every place that the LUKS2 specification 1.1.2, chapter 2.2, allows for the second header. */
static const uint64_t second_headers[] = { 0x4000,  0x8000,   0x10000,  0x20000, 0x40000,
					   0x80000, 0x100000, 0x200000, 0x400000 };
#define SECOND_HEADER "crypto_LUKS (second header)"
static const char second_magic[6] = "SKUL\xba\xbe";

/* Far more than any disk has: ZFS has 4 times 128 uberblocks. */
#define MAX_SIGNATURES 4096

static void release_mirror(struct mirror *m)
{
	qs_auto_close(&m->fd);
}

static void release_probe(blkid_probe *probe)
{
	blkid_free_probe(*probe);
}

static int read_at(int fd, const char *node, void *data, size_t size, uint64_t offset,
		   struct qs_error *err)
{
	int r = qs_file_pread(fd, data, size, (off_t)offset);

	if (r == -ENODATA) /* an early end, or the kernel's word for a bad sector */
		r = -EIO;
	if (r < 0)
		return qs_fail_errno(err, r, "cannot read %s at byte %llu", node,
				     (unsigned long long)offset);
	return 0;
}

static int size_of(int fd, const char *node, uint64_t *ret, struct qs_error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return qs_fail_errno(err, errno, "cannot look at %s", node);
	if (S_ISREG(st.st_mode))
		*ret = (uint64_t)st.st_size;
	else if (ioctl(fd, BLKGETSIZE64, ret) < 0)
		return qs_fail_errno(err, errno, "cannot get the size of %s", node);
	return 0;
}

static int copy_region(struct mirror *m, int fd, const char *node, uint64_t offset, uint64_t size,
		       struct qs_error *err)
{
	char buffer[CHUNK] __attribute__((aligned(ALIGNMENT)));
	int r;

	if (offset >= m->size)
		return 0;
	if (size > m->size - offset)
		size = m->size - offset;
	while (size > 0) {
		size_t n = size < CHUNK ? (size_t)size : CHUNK;

		r = read_at(fd, node, buffer, n, offset, err);
		if (r < 0)
			return r;
		r = qs_file_pwrite(m->fd, buffer, n, (off_t)offset);
		if (r < 0)
			return qs_fail_errno(err, r, "cannot keep what was read from %s", node);
		offset += n;
		size -= n;
	}
	return 0;
}

static int mirror_fill(struct mirror *m, int fd, const char *node, struct qs_error *err)
{
	uint64_t tail = m->size > TAIL ? (m->size - TAIL) / ALIGNMENT * ALIGNMENT : 0;
	int r = copy_region(m, fd, node, 0, HEAD, err);

	for (size_t i = 0; r == 0 && i < QS_ARRAY_SIZE(spots); i++)
		r = copy_region(m, fd, node, spots[i], ALIGNMENT, err);
	if (r == 0)
		r = copy_region(m, fd, node, tail, m->size - tail, err);
	return r;
}

static int mirror_make(int fd, const char *node, struct mirror *ret, struct qs_error *err)
{
	QS_AUTO(release_mirror) struct mirror m = { .fd = -1, .sector = 512 };
	int sector, r;

	r = size_of(fd, node, &m.size, err);
	if (r < 0)
		return r;
	if (ioctl(fd, BLKSSZGET, &sector) == 0 && sector > 0)
		m.sector = (unsigned)sector;
	m.fd = memfd_create("qs-util-probe", MFD_CLOEXEC);
	if (m.fd < 0 || ftruncate(m.fd, (off_t)m.size) < 0)
		return qs_fail_errno(err, errno, "cannot make room to probe %s", node);
	r = mirror_fill(&m, fd, node, err);
	if (r < 0)
		return r;
	*ret = m;
	m.fd = -1;
	return 0;
}

/* A magic of SIZE bytes; SIZE 0 where libblkid cannot say which bytes it means. */
typedef int take_signature(const char *name, uint64_t offset, size_t size, void *cookie,
			   struct qs_error *err);

static bool lookup_magic(blkid_probe probe, const char *where, const char *what, uint64_t *ret,
			 size_t *ret_size)
{
	const char *text;

	if (blkid_probe_lookup_value(probe, where, &text, NULL) < 0 ||
	    blkid_probe_lookup_value(probe, what, NULL, ret_size) < 0)
		return false;
	*ret = strtoull(text, NULL, 10);
	return true;
}

/* Tell about the signature that PROBE stands on, and hide it so that the next one comes. */
static int take_found(blkid_probe probe, take_signature *take, void *cookie, struct qs_error *err)
{
	const char *name = "unknown";
	uint64_t offset = 0;
	size_t size = 0;

	if (blkid_probe_lookup_value(probe, "TYPE", &name, NULL) == 0)
		(void)lookup_magic(probe, "SBMAGIC_OFFSET", "SBMAGIC", &offset, &size);
	else if (blkid_probe_lookup_value(probe, "PTTYPE", &name, NULL) == 0)
		(void)lookup_magic(probe, "PTMAGIC_OFFSET", "PTMAGIC", &offset, &size);
	if (strcmp(name, "crypto_LUKS") == 0 && offset > 0)
		name = SECOND_HEADER;
	if (size > 0) {
		(void)blkid_probe_hide_range(probe, offset, size);
		(void)blkid_probe_step_back(probe);
	}
	return take(name, offset, size, cookie, err);
}

/* A second header whose checksum or first header is gone is still somebody's data. */
static int take_second_headers(const struct mirror *m, take_signature *take, void *cookie,
			       struct qs_error *err)
{
	char magic[sizeof(second_magic)];
	int r = 0;

	for (size_t i = 0; r == 0 && i < QS_ARRAY_SIZE(second_headers); i++)
		if (qs_file_pread(m->fd, magic, sizeof(magic), (off_t)second_headers[i]) == 0 &&
		    memcmp(magic, second_magic, sizeof(magic)) == 0)
			r = take(SECOND_HEADER, second_headers[i], sizeof(magic), cookie, err);
	return r;
}

int qs_device_tame_probe(blkid_probe probe)
{
	static char ocfs[] = "ocfs";
	char *names[] = { ocfs, NULL };

	return blkid_probe_filter_superblocks_type(probe, BLKID_FLTR_NOTIN, names);
}

static int prepare(blkid_probe probe, const struct mirror *m)
{
	if (blkid_probe_set_device(probe, m->fd, 0, 0) < 0 ||
	    blkid_probe_set_sectorsize(probe, m->sector) < 0 ||
	    blkid_probe_enable_superblocks(probe, 1) < 0 ||
	    blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_MAGIC |
							     BLKID_SUBLKS_BADCSUM) < 0 ||
	    qs_device_tame_probe(probe) < 0 || blkid_probe_enable_partitions(probe, 1) < 0 ||
	    blkid_probe_set_partitions_flags(probe, BLKID_PARTS_MAGIC | BLKID_PARTS_FORCE_GPT) < 0)
		return -EIO;
	return 0;
}

static int each_signature(const struct mirror *m, const char *node, take_signature *take,
			  void *cookie, struct qs_error *err)
{
	QS_AUTO(release_probe) blkid_probe probe = blkid_new_probe();
	int r = 0, found;

	if (!probe)
		return qs_fail(err, QS_E_MEMORY, "out of memory");
	if (m->size == 0)
		return 0;
	if (prepare(probe, m) < 0)
		return qs_fail(err, QS_E_FAILED, "cannot probe %s", node);
	for (unsigned i = 0; (found = blkid_do_probe(probe)) == 0; i++) {
		if (i >= MAX_SIGNATURES)
			return qs_fail(err, QS_E_FAILED, "%s has too many signatures", node);
		r = take_found(probe, take, cookie, err);
		if (r < 0)
			return r;
	}
	if (found < 0)
		return qs_fail(err, QS_E_IO, "cannot probe %s", node);
	return take_second_headers(m, take, cookie, err);
}

static bool has_word(const char *list, const char *word)
{
	size_t length = strlen(word);

	for (const char *s = list; s; s = strstr(s, ", ")) {
		s += *s == ',' ? 2 : 0;
		if (strncmp(s, word, length) == 0 && (s[length] == ',' || s[length] == '\0'))
			return true;
	}
	return false;
}

/* What belongs to something that is already in the list needs no word of its own. */
static bool is_part_of(const char *list, const char *name)
{
	return (strcmp(name, SECOND_HEADER) == 0 && has_word(list, "crypto_LUKS")) ||
	       (strcmp(name, "PMBR") == 0 && has_word(list, "gpt"));
}

static int collect(const char *name, uint64_t offset, size_t size, void *cookie,
		   struct qs_error *err)
{
	char **list = cookie;
	QS_AUTO(qs_auto_free) char *before = NULL;

	(void)offset;
	(void)size;
	(void)err;
	if (*list && (has_word(*list, name) || is_part_of(*list, name)))
		return 0;
	before = *list;
	*list = qs_printf("%s%s%s", before ? before : "", before ? ", " : "", name);
	return 0;
}

int qs_device_signatures(int fd, const char *node, char **ret, struct qs_error *err)
{
	QS_AUTO(release_mirror) struct mirror m = { .fd = -1 };
	QS_AUTO(qs_auto_free) char *list = NULL;
	int r = mirror_make(fd, node, &m, err);

	if (r == 0)
		r = each_signature(&m, node, collect, &list, err);
	if (r < 0)
		return r;
	*ret = QS_TAKE(list);
	return 0;
}

struct wipe {
	int fd;
	const char *node;
	const struct mirror *mirror;
};

static int wipe_one(const char *name, uint64_t offset, size_t size, void *cookie,
		    struct qs_error *err)
{
	static const char zeros[256];
	const struct wipe *w = cookie;
	int r;

	if (size == 0 || size > sizeof(zeros))
		return qs_fail(err, QS_E_FAILED, "cannot tell which bytes of %s make it %s",
			       w->node, name);
	r = qs_file_pwrite(w->fd, zeros, size, (off_t)offset);
	if (r == 0)
		r = qs_file_pwrite(w->mirror->fd, zeros, size, (off_t)offset);
	if (r < 0)
		return qs_fail_errno(err, r, "cannot remove the %s signature of %s", name, w->node);
	return 0;
}

int qs_device_wipe_signatures(int fd, const char *node, struct qs_error *err)
{
	QS_AUTO(release_mirror) struct mirror m = { .fd = -1 };
	QS_AUTO(qs_auto_free) char *left = NULL;
	struct wipe wipe = { fd, node, &m };
	int r = mirror_make(fd, node, &m, err);

	if (r == 0)
		r = each_signature(&m, node, wipe_one, &wipe, err);
	if (r == 0)
		r = qs_device_signatures(fd, node, &left, err);
	if (r < 0)
		return r;
	if (left)
		return qs_fail(err, QS_E_FAILED, "%s still shows %s after it was removed", node,
			       left);
	return 0;
}

static bool is_zero(const char *data, size_t size)
{
	/* All bytes equal the one before them, and the first is zero. */
	return data[0] == '\0' && memcmp(data, data + 1, size - 1) == 0;
}

int qs_device_is_blank(int fd, const char *node, struct qs_error *err)
{
	char data[CHUNK] __attribute__((aligned(ALIGNMENT)));
	uint64_t size, limit = 1U << 20;
	int r = size_of(fd, node, &size, err);

	if (r < 0)
		return r;
	if (size < limit)
		limit = size;
	for (uint64_t offset = 0; offset < limit; offset += CHUNK) {
		size_t n = limit - offset < CHUNK ? (size_t)(limit - offset) : CHUNK;

		r = read_at(fd, node, data, n, offset, err);
		if (r < 0)
			return r;
		if (!is_zero(data, n))
			return 0;
	}
	return 1;
}
