/*
 * A header with its keyslot areas in memory: read from a device, mended, and
 * written in the order that leaves a header which opens at every cut.
 *
 * Not secret: the keyslots are encrypted.
 */
#ifndef QS_LUKS_IMAGE_H
#define QS_LUKS_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "luks/header.h"

/* The bytes from the beginning of the device to the end of the last keyslot area. */
struct qs_header_image {
	void *data;
	size_t size; /* bytes */
};

void qs_header_image_done(struct qs_header_image *image); /* also a QS_AUTO releaser */

/* Hand over to the caller; *from becomes empty. */
struct qs_header_image qs_header_image_move(struct qs_header_image *from);

/* Bytes that belong into an image of H; 0 when its sizes make no sense. */
uint64_t qs_header_image_size(const struct qs_luks_header *h);

/* SIZE bytes as they are, header or not; QS_E_DAMAGED when there are fewer. */
int qs_header_image_read_raw(int fd, const char *node, size_t size, struct qs_header_image *ret,
			     struct qs_error *err);

/*
 * Read header and keyslot areas through FD. The parsed header goes to *ret_header
 * (may be NULL). Fails with QS_E_DAMAGED when a copy is not good, when the copies
 * differ, and when the header does not end before its data or before the file: a
 * damaged header must not replace a good backup.
 */
int qs_header_image_read(int fd, const char *node, struct qs_header_image *ret,
			 struct qs_luks_header *ret_header, struct qs_error *err);

/*
 * The same from a LUKS2 header of which at least one copy survives, or lacks
 * nothing but its magic: *ret has two good copies, made of the better one.
 * Returns: QS_E_DAMAGED when neither can be used.
 */
int qs_header_image_salvage(int fd, const char *node, struct qs_header_image *ret,
			    struct qs_luks_header *ret_header, struct qs_error *err);

/*
 * Was an update of H cut off? One copy is whole, the other has a wrong checksum or another
 * sequence id. A copy that is gone, or lies under something else, is damage.
 */
bool qs_header_is_cut_update(const struct qs_luks_header *h);

/* qs_header_image_read() that completes such an update in *ret instead of refusing it. */
int qs_header_image_complete(int fd, const char *node, struct qs_header_image *ret,
			     struct qs_luks_header *ret_header, struct qs_error *err);

/*
 * Both copies without the keyslots of a LUKS2 header that lacks nothing: they are read and judged
 * once. Returns 1, or 0 when it is not such a one, or larger than usual.
 */
int qs_header_image_alike(int fd, const char *node, struct qs_header_image *ret,
			  struct qs_luks_header *ret_header, struct qs_error *err);

/* Both copies without the keyslots, and made alike by the better one, if one was cut off. */
int qs_header_image_copies(int fd, const char *node, struct qs_header_image *ret,
			   struct qs_luks_header *ret_header, struct qs_error *err);

/*
 * IMAGE as a file in memory, SIZE bytes long (with a hole behind the image) for
 * readers that expect a device. Returns the descriptor.
 */
int qs_header_image_file(const struct qs_header_image *image, uint64_t size, struct qs_error *err);

/* Give both copies of a LUKS2 image another sequence id; H is its header and gets it too. */
int qs_header_image_set_seqid(struct qs_header_image *image, struct qs_luks_header *h,
			      uint64_t seqid, struct qs_error *err);

/* Where one keyslot's key material lies, in bytes. */
struct qs_luks_area {
	int slot;
	uint64_t offset, size;
};

#define QS_LUKS_AREAS_MAX 32

/* Areas of the active keyslots of H by their offset, at most MAX; returns their number. */
size_t qs_luks_areas(const struct qs_luks_header *h, struct qs_luks_area *ret, size_t max);

/*
 * Keyslots that both headers hold with the same parameters (salt included, which
 * is drawn anew whenever a key is written) but with other key material: one of
 * the two is damaged. Returns them as bits; IMAGE may be cut off behind the
 * areas that it has.
 */
uint32_t qs_luks_areas_differ(const struct qs_luks_header *a, const struct qs_header_image *image_a,
			      const struct qs_luks_header *b,
			      const struct qs_header_image *image_b);

/* An image of H's size with only what qs_luks_areas_differ() looks at read from FD, the rest zeros.
 */
int qs_luks_areas_read(int fd, const char *node, const struct qs_luks_header *h,
		       struct qs_header_image *ret, struct qs_error *err);

/* Copy the key material of the keyslots in SLOTS (bits) from one image of a header to another. */
void qs_luks_areas_copy(const struct qs_luks_header *h, uint32_t slots,
			const struct qs_header_image *from, struct qs_header_image *to);

/*
 * Write IMAGE over whatever header FD has (faults F6): the areas that H, its
 * header, uses; the first copy; the second; the rest; each synced before the
 * next. As long as old and new areas do not overlap, every cut leaves a header
 * that opens: the new first copy counts only if its sequence id is not below
 * the old second one's.
 */
int qs_header_image_restore(int fd, const char *node, const struct qs_header_image *image,
			    const struct qs_luks_header *h, struct qs_error *err);

#endif
