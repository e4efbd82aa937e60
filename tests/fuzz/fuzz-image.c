/*
 * Header images: what cryptbackup stores, cryptrestore mends and writes. Checksums
 * are put right first (as if the magic were there, so that a lost one is found).
 * What is made whole must be whole, and what is written must be what was read.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "luks/image.h"
#include "luks/ondisk.h"

#define INPUT_MAX (64 * 1024)
#define DEVICE_SIZE (24 << 20) /* zeros behind the input */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
	if (!holds)
		abort();
}

static void repair_checksum(uint8_t *device, size_t device_size, size_t offset, unsigned which)
{
	struct qs_luks2_binary *copy = (void *)(device + offset);
	uint8_t magic[sizeof(copy->magic)], sum[QS_LUKS2_SUM_L];
	uint64_t size;

	if (offset + sizeof(*copy) > device_size)
		return;
	size = be64toh(copy->size);
	if (size < sizeof(*copy) || size > device_size - offset)
		return;
	memcpy(magic, copy->magic, sizeof(magic));
	memcpy(copy->magic, qs_luks_magics[which], sizeof(magic));
	if (qs_luks2_checksum(copy, size, sum) == 0)
		memcpy(copy->sum, sum, sizeof(sum));
	memcpy(copy->magic, magic, sizeof(magic));
}

static struct qs_luks_header parse(const struct qs_header_image *image)
{
	QS_AUTO(qs_auto_close) int fd = qs_header_image_file(image, DEVICE_SIZE, NULL);
	struct qs_luks_header h = {};

	demand(fd >= 0 && qs_luks_header_read(fd, &h, NULL) == 0);
	return h;
}

/* Both copies are good, say the same, and take another number. */
static void check_whole(struct qs_header_image *image, struct qs_luks_header *h)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header again = parse(image), raised = {};

	demand(again.version == 2 && again.copy[0] == QS_COPY_OK && again.copy[1] == QS_COPY_OK);
	demand(!again.copies_differ && again.seqid == h->seqid);
	demand(strcmp(again.uuid, h->uuid) == 0 && json_equal(again.json, h->json));
	demand(qs_header_image_set_seqid(image, h, 77, NULL) == 0);
	raised = parse(image);
	demand(raised.copy[0] == QS_COPY_OK && raised.copy[1] == QS_COPY_OK);
	demand(raised.seqid == 77 && !raised.copies_differ);
}

/* Written over something else it is the same again, and nothing behind it has changed. */
static void check_written(const struct qs_header_image *image, const struct qs_luks_header *h)
{
	static int other = -1;
	QS_AUTO(qs_header_image_done) struct qs_header_image back = {};

	if (other < 0)
		other = memfd_create("other", MFD_CLOEXEC);
	demand(ftruncate(other, 0) == 0 && ftruncate(other, DEVICE_SIZE) == 0);
	demand(qs_header_image_restore(other, "other", image, h, NULL) == 0);
	demand(qs_header_image_read_raw(other, "other", image->size, &back, NULL) == 0);
	demand(memcmp(back.data, image->data, image->size) == 0);
	demand(lseek(other, (off_t)((image->size + 4095) & ~4095ULL), SEEK_DATA) < 0);
}

static void check_areas(const struct qs_header_image *image, const struct qs_luks_header *h)
{
	struct qs_luks_area areas[QS_LUKS_AREAS_MAX];
	size_t n = qs_luks_areas(h, areas, QS_LUKS_AREAS_MAX);

	for (size_t i = 1; i < n; i++)
		demand(areas[i - 1].offset <= areas[i].offset);
	demand(qs_luks_areas_differ(h, image, h, image) == 0);
}

static void run(int fd)
{
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {}, salvaged = {};
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {}, better = {};
	struct qs_error err = {};

	if (qs_header_image_read(fd, "fuzz", &image, &h, &err) == 0) {
		demand(image.size <= h.data_offset);
		check_areas(&image, &h);
		check_written(&image, &h);
	} else {
		demand(err.kind != QS_E_NONE && err.text[0]);
	}
	if (qs_header_image_salvage(fd, "fuzz", &salvaged, &better, &err) == 0) {
		check_areas(&salvaged, &better);
		check_whole(&salvaged, &better);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t device[INPUT_MAX];
	static int fd = -1;

	if (fd < 0)
		fd = memfd_create("header", MFD_CLOEXEC);
	if (size > sizeof(device))
		return 0;
	memcpy(device, data, size);
	repair_checksum(device, size, 0, 0);
	repair_checksum(device, size, 0x4000, 1);
	demand(ftruncate(fd, 0) == 0 && ftruncate(fd, DEVICE_SIZE) == 0);
	demand(qs_file_pwrite(fd, device, size, 0) == 0);
	run(fd);
	return 0;
}
