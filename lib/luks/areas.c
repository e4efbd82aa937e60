#include "luks/image.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "luks/fields.h"
#include "luks/ondisk.h"

static size_t collect_luks1(const struct qs_luks_header *h, struct qs_luks_area *ret, size_t max)
{
	size_t n = 0;

	for (unsigned i = 0; i < QS_ARRAY_SIZE(h->luks1_area) && n < max; i++)
		if (h->luks1_iterations[i])
			ret[n++] = (struct qs_luks_area){ (int)i, h->luks1_area[i],
							  h->luks1_area_size };
	return n;
}

static const json_t *find_slot(const struct qs_luks_header *h, int slot)
{
	char number[16];

	(void)snprintf(number, sizeof(number), "%d", slot);
	return json_object_get(json_object_get(h->json, "keyslots"), number);
}

static size_t collect_luks2(const struct qs_luks_header *h, struct qs_luks_area *ret, size_t max)
{
	size_t n = 0;

	for (int i = 0; i < QS_LUKS_AREAS_MAX && n < max; i++) {
		const json_t *area = json_object_get(find_slot(h, i), "area");

		ret[n].slot = i;
		if (qs_fields_decimal(area, "offset", &ret[n].offset) &&
		    qs_fields_decimal(area, "size", &ret[n].size))
			n++;
	}
	return n;
}

static int by_offset(const void *a, const void *b)
{
	const struct qs_luks_area *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

size_t qs_luks_areas(const struct qs_luks_header *h, struct qs_luks_area *ret, size_t max)
{
	size_t n = h->version == 1 ? collect_luks1(h, ret, max) : collect_luks2(h, ret, max);

	qsort(ret, n, sizeof(*ret), by_offset);
	return n;
}

static bool is_within(const struct qs_luks_area *area, const struct qs_header_image *image)
{
	return area->offset <= image->size && area->size <= image->size - area->offset;
}

static bool is_same_slot(const struct qs_luks_header *a, const struct qs_header_image *image_a,
			 const struct qs_luks_header *b, const struct qs_header_image *image_b,
			 int slot)
{
	const struct qs_luks1_binary *x = image_a->data, *y = image_b->data;

	if (a->version != b->version)
		return false;
	if (a->version == 2)
		return json_equal(find_slot(a, slot), find_slot(b, slot));
	return a->key_size == b->key_size && image_a->size >= sizeof(*x) &&
	       image_b->size >= sizeof(*y) &&
	       memcmp(&x->slots[slot], &y->slots[slot], sizeof(x->slots[slot])) == 0;
}

uint32_t qs_luks_areas_differ(const struct qs_luks_header *a, const struct qs_header_image *image_a,
			      const struct qs_luks_header *b, const struct qs_header_image *image_b)
{
	struct qs_luks_area areas[QS_LUKS_AREAS_MAX];
	size_t n = qs_luks_areas(a, areas, QS_LUKS_AREAS_MAX);
	uint32_t differ = 0;

	for (size_t i = 0; i < n; i++) {
		const struct qs_luks_area *area = &areas[i];

		if (!is_same_slot(a, image_a, b, image_b, area->slot) ||
		    !is_within(area, image_a) || !is_within(area, image_b))
			continue;
		if (memcmp((const char *)image_a->data + area->offset,
			   (const char *)image_b->data + area->offset, area->size) != 0)
			differ |= 1U << area->slot;
	}
	return differ;
}

int qs_luks_areas_read(int fd, const char *node, const struct qs_luks_header *h,
		       struct qs_header_image *ret, struct qs_error *err)
{
	struct qs_luks_area areas[QS_LUKS_AREAS_MAX];
	size_t n = qs_luks_areas(h, areas, QS_LUKS_AREAS_MAX);
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	int r;

	image.size = qs_header_image_size(h);
	image.data = calloc(1, image.size + sizeof(struct qs_luks1_binary));
	if (!image.data)
		return qs_fail(err, QS_E_MEMORY, "no memory for the header of %s", node);
	r = qs_file_pread(fd, image.data, sizeof(struct qs_luks1_binary), 0);
	for (size_t i = 0; r == 0 && i < n; i++)
		if (is_within(&areas[i], &image))
			r = qs_file_pread(fd, (char *)image.data + areas[i].offset, areas[i].size,
					  (off_t)areas[i].offset);
	if (r < 0)
		return qs_fail_errno(err, r, "cannot read the keyslots of %s", node);
	*ret = qs_header_image_move(&image);
	return 0;
}

void qs_luks_areas_copy(const struct qs_luks_header *h, uint32_t slots,
			const struct qs_header_image *from, struct qs_header_image *to)
{
	struct qs_luks_area areas[QS_LUKS_AREAS_MAX];
	size_t n = qs_luks_areas(h, areas, QS_LUKS_AREAS_MAX);

	for (size_t i = 0; i < n; i++)
		if (slots & 1U << areas[i].slot && is_within(&areas[i], from) &&
		    is_within(&areas[i], to))
			memcpy((char *)to->data + areas[i].offset,
			       (const char *)from->data + areas[i].offset, areas[i].size);
}

/* ---- writing ---- */

static int write_range(int fd, const struct qs_header_image *image, uint64_t from, uint64_t to)
{
	if (to > image->size)
		to = image->size;
	if (from >= to)
		return 0;
	return qs_file_pwrite(fd, (const char *)image->data + from, to - from, (off_t)from);
}

static int sync_after(int fd, int r)
{
	return r < 0 || fsync(fd) == 0 ? r : -errno;
}

/* Everything behind the copies that no area of AREAS (by offset) covers. */
static int write_rest(int fd, const struct qs_header_image *image, uint64_t from,
		      const struct qs_luks_area *areas, size_t count)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < count; i++) {
		r = write_range(fd, image, from, areas[i].offset);
		if (areas[i].offset + areas[i].size > from)
			from = areas[i].offset + areas[i].size;
	}
	return r < 0 ? r : write_range(fd, image, from, image->size);
}

int qs_header_image_restore(int fd, const char *node, const struct qs_header_image *image,
			    const struct qs_luks_header *h, struct qs_error *err)
{
	struct qs_luks_area areas[QS_LUKS_AREAS_MAX];
	size_t n = qs_luks_areas(h, areas, QS_LUKS_AREAS_MAX);
	/* LUKS1: one copy, in the first page; its areas begin there at the earliest. */
	uint64_t copy = h->version == 2 ? h->metadata_size : QS_LUKS2_BLOCK_L;
	uint64_t copies = h->version == 2 ? 2 * copy : copy;
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = write_range(fd, image, areas[i].offset, areas[i].offset + areas[i].size);
	r = sync_after(fd, r);
	if (r == 0)
		r = sync_after(fd, write_range(fd, image, 0, copy));
	if (r == 0)
		r = sync_after(fd, write_range(fd, image, copy, copies));
	if (r == 0)
		r = sync_after(fd, write_rest(fd, image, copies, areas, n));
	return r < 0 ? qs_fail_errno(err, r, "cannot write the header of %s", node) : 0;
}
