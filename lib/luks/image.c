#define _GNU_SOURCE
#include "luks/image.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/rand.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "luks/fields.h"
#include "luks/ondisk.h"

/* LUKS2: two copies of at most 4 MiB and keyslots of at most 128 MiB (on-disk format 1.1.2). */
#define IMAGE_MAX (136U << 20)

/* A header that another tool changes while we read it is read again. */
#define TRIES 3

void qs_header_image_done(struct qs_header_image *image)
{
	free(image->data);
	image->data = NULL;
	image->size = 0;
}

struct qs_header_image qs_header_image_move(struct qs_header_image *from)
{
	struct qs_header_image image = *from;

	*from = (struct qs_header_image){};
	return image;
}

static struct qs_luks_header move_header(struct qs_luks_header *from)
{
	struct qs_luks_header h = *from;

	*from = (struct qs_luks_header){};
	return h;
}

/* As cryptsetup's backup: to the end of the last area, in whole pages, but never into the data. */
static uint64_t luks1_image_size(const struct qs_luks_header *h)
{
	uint64_t end = 0, pages;

	for (unsigned i = 0; i < QS_ARRAY_SIZE(h->luks1_area); i++)
		if (h->luks1_area[i] > end)
			end = h->luks1_area[i];
	end += h->luks1_area_size;
	pages = (end + 4095) / 4096 * 4096;
	return end <= h->data_offset && pages > h->data_offset ? h->data_offset : pages;
}

uint64_t qs_header_image_size(const struct qs_luks_header *h)
{
	uint64_t areas = 0, size;

	if (h->version == 2 &&
	    !qs_fields_decimal(json_object_get(h->json, "config"), "keyslots_size", &areas))
		return 0;
	size = h->version == 1 ? luks1_image_size(h) : 2 * h->metadata_size + areas;
	return areas <= IMAGE_MAX && size <= IMAGE_MAX && size <= h->data_offset ? size : 0;
}

static int check_good(const struct qs_luks_header *h, int fd, const char *node,
		      struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *damage = qs_luks_header_damage(h, fd, node);

	if (h->version == 0 || damage)
		return qs_fail(err, QS_E_DAMAGED, "%s: %s", node,
			       damage ? damage : "no LUKS header");
	if (h->copies_differ)
		return qs_fail(err, QS_E_DAMAGED,
			       "%s: the two copies of the LUKS2 header differ, as an update of it "
			       "was interrupted; `qs-util cryptrestore %s` makes them alike",
			       node, node);
	return 0;
}

static int check_size(const struct qs_luks_header *h, const char *node, uint64_t *ret,
		      struct qs_error *err)
{
	*ret = qs_header_image_size(h);
	if (*ret)
		return 0;
	return qs_fail(err, QS_E_HOSTILE, "%s: the LUKS header claims impossible sizes", node);
}

int qs_header_image_read_raw(int fd, const char *node, size_t size, struct qs_header_image *ret,
			     struct qs_error *err)
{
	QS_AUTO(qs_header_image_done)
	struct qs_header_image image = { malloc(size ? size : 1), size };
	int r;

	if (!image.data)
		return qs_fail(err, QS_E_MEMORY, "no memory for the header of %s", node);
	r = qs_file_pread(fd, image.data, image.size, 0);
	if (r == -ENODATA)
		return qs_fail(err, QS_E_DAMAGED,
			       "%s is cut off: its header and keyslots need %zu bytes", node, size);
	if (r < 0)
		return qs_fail_errno(err, r, "cannot read the header of %s", node);
	*ret = qs_header_image_move(&image);
	return 0;
}

int qs_header_image_file(const struct qs_header_image *image, uint64_t size, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int fd = memfd_create("luks-header", MFD_CLOEXEC);
	int r = fd < 0 || ftruncate(fd, (off_t)size) < 0 ? -errno : 0;

	if (r == 0)
		r = qs_file_pwrite(fd, image->data, image->size, 0);
	return r < 0 ? qs_fail_errno(err, r, "cannot hold a header in memory") : qs_take_fd(&fd);
}

/* What was read is the header that was checked, and not half of the one behind it. */
static int is_whole(const struct qs_header_image *image, const struct qs_luks_header *h,
		    struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header again = {};
	int r = qs_luks_header_judge(image->data, image->size, &again, err);

	if (r < 0)
		return r;
	return again.version == h->version && again.copy[0] == QS_COPY_OK &&
	       again.copy[1] == h->copy[1] && !again.copies_differ && again.seqid == h->seqid;
}

static int read_once(int fd, const char *node, struct qs_header_image *ret,
		     struct qs_luks_header *ret_header, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	uint64_t size = 0;
	int r = qs_luks_header_read(fd, &h, err);

	if (r == 0)
		r = check_good(&h, fd, node, err);
	if (r == 0)
		r = check_size(&h, node, &size, err);
	if (r == 0)
		r = qs_header_image_read_raw(fd, node, size, &image, err);
	if (r == 0)
		r = is_whole(&image, &h, err);
	if (r <= 0)
		return r;
	*ret = qs_header_image_move(&image);
	if (ret_header)
		*ret_header = move_header(&h);
	return 1;
}

int qs_header_image_read(int fd, const char *node, struct qs_header_image *ret,
			 struct qs_luks_header *ret_header, struct qs_error *err)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < TRIES; i++)
		r = read_once(fd, node, ret, ret_header, err);
	if (r == 0)
		return qs_fail(err, QS_E_TEMPORARY,
			       "the header of %s changes while it is being read", node);
	return r < 0 ? r : 0;
}

/* ---- mending in memory ---- */

static struct qs_luks2_binary *copy_at(const struct qs_header_image *image, unsigned which,
				       uint64_t size)
{
	return (void *)((char *)image->data + which * size);
}

static int seal(struct qs_luks2_binary *copy, uint64_t size, struct qs_error *err)
{
	uint8_t sum[QS_LUKS2_SUM_L];

	if (qs_luks2_checksum(copy, size, sum) < 0)
		return qs_fail(err, QS_E_FAILED, "cannot calculate the checksum of the header");
	memcpy(copy->sum, sum, sizeof(sum));
	return 0;
}

/* The copy to mend from: as libcryptsetup would choose, and one without its magic if need be. */
static unsigned better_copy(const struct qs_header_image *image, const struct qs_luks_header *h)
{
	enum qs_copy_state first = h->copy[0], second = h->copy[1];
	bool ok = first == QS_COPY_OK || second == QS_COPY_OK;
	enum qs_copy_state wanted = ok ? QS_COPY_OK : QS_COPY_NO_MAGIC;

	if (first != wanted || second != wanted)
		return first == wanted ? 0 : 1;
	return be64toh(copy_at(image, 1, h->metadata_size)->seqid) >
	       be64toh(copy_at(image, 0, h->metadata_size)->seqid);
}

/* Both copies hold the same text; magic, place, salt and checksum are each copy's own. */
static int mend_copies(struct qs_header_image *image, const struct qs_luks_header *h,
		       struct qs_error *err)
{
	unsigned good = better_copy(image, h), bad = 1 - good;
	uint64_t size = h->metadata_size;
	struct qs_luks2_binary *from = copy_at(image, good, size), *to = copy_at(image, bad, size);

	memcpy(from->magic, qs_luks_magics[good], sizeof(from->magic));
	memcpy(to, from, size);
	memcpy(to->magic, qs_luks_magics[bad], sizeof(to->magic));
	to->offset = htobe64(bad * size);
	if (RAND_bytes(to->salt, sizeof(to->salt)) != 1)
		return qs_fail(err, QS_E_FAILED, "no random bytes for the header's salt");
	return seal(to, size, err);
}

/* A copy that lies on a bad sector is made anew like any other. */
static int read_copies(int fd, const char *node, const struct qs_luks_header *h,
		       struct qs_header_image *ret, struct qs_error *err)
{
	int r = 0;

	ret->size = 2 * h->metadata_size;
	ret->data = calloc(1, ret->size);
	if (!ret->data)
		return qs_fail(err, QS_E_MEMORY, "no memory for the header of %s", node);
	for (unsigned i = 0; r == 0 && i < 2; i++)
		if (h->copy[i] != QS_COPY_IO)
			r = qs_file_pread(fd, copy_at(ret, i, h->metadata_size), h->metadata_size,
					  (off_t)(i * h->metadata_size));
	return r < 0 ? qs_fail_errno(err, r, "cannot read the header of %s", node) : 0;
}

static int salvage_copies(int fd, const char *node, const struct qs_luks_header *h,
			  struct qs_luks_header *ret, struct qs_header_image *ret_copies,
			  struct qs_error *err)
{
	int r = read_copies(fd, node, h, ret_copies, err);

	if (r == 0)
		r = mend_copies(ret_copies, h, err);
	return r < 0 ? r : qs_luks_header_judge(ret_copies->data, ret_copies->size, ret, err);
}

/* Bytes of header and keyslots; a first copy that cannot be read is not needed. */
static int read_behind_copies(int fd, const char *node, const struct qs_header_image *copies,
			      uint64_t size, struct qs_header_image *ret, struct qs_error *err)
{
	int r;

	ret->size = size;
	ret->data = malloc(size);
	if (!ret->data)
		return qs_fail(err, QS_E_MEMORY, "no memory for the header of %s", node);
	memcpy(ret->data, copies->data, copies->size);
	r = qs_file_pread(fd, (char *)ret->data + copies->size, size - copies->size,
			  (off_t)copies->size);
	return r < 0 ? qs_fail_errno(err, r, "cannot read the keyslots of %s", node) : 0;
}

int qs_header_image_salvage(int fd, const char *node, struct qs_header_image *ret,
			    struct qs_luks_header *ret_header, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {}, mended = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image copies = {}, image = {};
	uint64_t size = 0;
	int r = qs_luks_header_read(fd, &h, err);

	if (r < 0)
		return r;
	if (h.version == 1 || h.metadata_size == 0)
		return qs_fail(err, QS_E_DAMAGED, "no copy of the header of %s can be used", node);
	r = salvage_copies(fd, node, &h, &mended, &copies, err);
	if (r == 0)
		r = check_size(&mended, node, &size, err);
	if (r == 0)
		r = read_behind_copies(fd, node, &copies, size, &image, err);
	if (r < 0)
		return r;
	*ret = qs_header_image_move(&image);
	*ret_header = move_header(&mended);
	return 0;
}

/* Two copies of the usual size. Whatever is larger is read when its size is known. */
#define USUAL_COPIES (256U << 10)

/* Both copies, and the header that these very bytes are. Returns 0 when they are not all there. */
static int read_judged(int fd, const char *node, struct qs_header_image *ret,
		       struct qs_luks_header *ret_header, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	int r = qs_header_image_read_raw(fd, node, USUAL_COPIES, &image, NULL);

	if (r < 0)
		return 0;
	r = qs_luks_header_judge(image.data, image.size, &h, err);
	if (r < 0)
		return r;
	if (h.version != 2 || 2 * h.metadata_size > image.size)
		return 0;
	image.size = 2 * h.metadata_size;
	*ret = qs_header_image_move(&image);
	*ret_header = move_header(&h);
	return 1;
}

static bool is_alike(const struct qs_luks_header *h)
{
	return h->copy[0] == QS_COPY_OK && h->copy[1] == QS_COPY_OK && !h->copies_differ;
}

int qs_header_image_alike(int fd, const char *node, struct qs_header_image *ret,
			  struct qs_luks_header *ret_header, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	int r = read_judged(fd, node, &image, &h, err);

	if (r <= 0 || !is_alike(&h))
		return r < 0 ? r : 0;
	*ret = qs_header_image_move(&image);
	*ret_header = move_header(&h);
	return 1;
}

/* As qs_header_image_copies(), of a header that is larger than usual, or damaged. */
static int read_large_copies(int fd, const char *node, struct qs_header_image *ret,
			     struct qs_luks_header *ret_header, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	int r = qs_luks_header_read(fd, &h, err);

	if (r < 0)
		return r;
	if (qs_header_is_cut_update(&h))
		return salvage_copies(fd, node, &h, ret_header, ret, err);
	r = check_good(&h, fd, node, err);
	if (r == 0)
		r = qs_header_image_read_raw(fd, node, 2 * h.metadata_size, ret, err);
	if (r == 0)
		*ret_header = move_header(&h);
	return r;
}

int qs_header_image_copies(int fd, const char *node, struct qs_header_image *ret,
			   struct qs_luks_header *ret_header, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	int r = read_judged(fd, node, &image, &h, err);

	if (r < 0)
		return r;
	if (r == 0 || (!is_alike(&h) && !qs_header_is_cut_update(&h)))
		return read_large_copies(fd, node, ret, ret_header, err);
	r = is_alike(&h) ? 0 : mend_copies(&image, &h, err);
	if (r < 0)
		return r;
	/* One is the other's text now, and that one was whole. */
	h.copy[0] = h.copy[1] = QS_COPY_OK;
	h.copies_differ = false;
	*ret = qs_header_image_move(&image);
	*ret_header = move_header(&h);
	return 0;
}

bool qs_header_is_cut_update(const struct qs_luks_header *h)
{
	enum qs_copy_state a = h->copy[0], b = h->copy[1];

	return h->version == 2 && (h->copies_differ || (a == QS_COPY_OK && b == QS_COPY_BAD_SUM) ||
				   (a == QS_COPY_BAD_SUM && b == QS_COPY_OK));
}

int qs_header_image_complete(int fd, const char *node, struct qs_header_image *ret,
			     struct qs_luks_header *ret_header, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header seen = {}, h = {};
	int r = qs_luks_header_read(fd, &seen, err);

	if (r < 0)
		return r;
	r = qs_header_is_cut_update(&seen) ? qs_header_image_salvage(fd, node, ret, &h, err)
					   : qs_header_image_read(fd, node, ret, &h, err);
	if (r == 0 && ret_header)
		*ret_header = move_header(&h);
	return r;
}

int qs_header_image_set_seqid(struct qs_header_image *image, struct qs_luks_header *h,
			      uint64_t seqid, struct qs_error *err)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < 2; i++) {
		struct qs_luks2_binary *copy = copy_at(image, i, h->metadata_size);

		copy->seqid = htobe64(seqid);
		r = seal(copy, h->metadata_size, err);
	}
	if (r == 0)
		h->seqid = seqid;
	return r;
}
