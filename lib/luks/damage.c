#include "luks/header.h"

#include <stdlib.h>
#include <string.h>

#include <blkid/blkid.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "base/file.h"
#include "device/device.h"

/* Where a stranger's signature is looked for when no copy tells its size. */
#define UNKNOWN_AREA (1ULL << 20)

static void probe_done(blkid_probe *probe)
{
	blkid_free_probe(*probe);
	*probe = NULL;
}

static const char *value(blkid_probe probe, const char *name)
{
	const char *text = NULL;

	return blkid_probe_lookup_value(probe, name, &text, NULL) == 0 ? text : NULL;
}

static bool begins_below(blkid_probe probe, uint64_t limit)
{
	const char *offset = value(probe, "SBMAGIC_OFFSET");

	return offset && strtoull(offset, NULL, 10) < limit;
}

/* Name what the last step of PROBE found, if it lies in the first LIMIT bytes and is not LUKS. */
static char *name_finding(blkid_probe probe, uint64_t limit)
{
	const char *type = value(probe, "TYPE");
	const char *table = value(probe, "PTTYPE");

	if (type && strcmp(type, "crypto_LUKS") != 0 && begins_below(probe, limit))
		return qs_printf("%s signature", type);
	/* libblkid takes no partition table whose first sector is not there (protective MBR). */
	if (!table)
		return NULL;
	if (strcmp(table, "gpt") == 0)
		return qs_strdup("GPT");
	if (strcmp(table, "dos") == 0)
		return qs_strdup("MBR partition table");
	return qs_printf("%s partition table", table);
}

static char *find_signature(int fd, uint64_t limit)
{
	QS_AUTO(probe_done) blkid_probe probe = blkid_new_probe();
	char *found = NULL;

	if (!probe || blkid_probe_set_device(probe, fd, 0, 0) != 0)
		return NULL;
	blkid_probe_enable_superblocks(probe, 1);
	blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_MAGIC);
	(void)qs_device_tame_probe(probe);
	blkid_probe_enable_partitions(probe, 1);
	while (!found && blkid_do_probe(probe) == 0)
		found = name_finding(probe, limit);
	return found;
}

static bool is_blank(int fd)
{
	static const char zeros[512];
	char start[sizeof(zeros)];

	return qs_file_pread(fd, start, sizeof(start), 0) == 0 &&
	       memcmp(start, zeros, sizeof(start)) == 0;
}

/* What lies over the first copy ("GPT", "zeros"), or NULL. */
static char *find_stranger(const struct qs_luks_header *h, int fd)
{
	char *found = find_signature(fd, h->metadata_size ? h->metadata_size : UNKNOWN_AREA);

	if (!found && is_blank(fd))
		return qs_strdup("zeros");
	return found;
}

static char *describe(const char *which, enum qs_copy_state state)
{
	switch (state) {
	case QS_COPY_OK:
		return qs_printf("%s copy intact", which);
	case QS_COPY_NO_MAGIC:
		return qs_printf("only the magic bytes of the %s copy are gone", which);
	case QS_COPY_BAD_SUM:
		return qs_printf("the %s copy fails its checksum", which);
	case QS_COPY_BAD_SIZE:
		return qs_printf("the %s copy has impossible sizes or is cut off", which);
	case QS_COPY_BAD_JSON:
		return qs_printf("the metadata of the %s copy is unusable", which);
	case QS_COPY_IO:
		return qs_printf("the %s copy cannot be read", which);
	default:
		return qs_printf("the %s copy is gone", which);
	}
}

/* Only LUKS2 has copies with a checksum; an impossible first block may also have been LUKS1. */
static const char *format_name(const struct qs_luks_header *h)
{
	bool hidden = h->copy[0] == QS_COPY_BAD_SIZE || h->copy[0] == QS_COPY_IO;

	return hidden && h->copy[1] == QS_COPY_ABSENT ? "LUKS" : "LUKS2";
}

static char *describe_missing(const char *stranger, const char *node)
{
	return qs_printf("no LUKS header: %s%sneither copy is there; if it was a LUKS device, "
			 "'qs-util cryptrestore %s' brings it back from its backup",
			 stranger ? stranger : "", stranger ? " in its place, " : "", node);
}

static char *describe_both(const struct qs_luks_header *h, const char *stranger)
{
	QS_AUTO(qs_auto_free) char *first = NULL;
	QS_AUTO(qs_auto_free) char *second = describe("second", h->copy[1]);

	if (h->copy[0] == QS_COPY_NO_MAGIC && h->copy[1] == QS_COPY_NO_MAGIC)
		return qs_strdup("only the magic bytes of both copies are gone");
	first = stranger ? qs_printf("%s over the first copy", stranger)
			 : describe("first", h->copy[0]);
	return qs_printf("%s, %s", first, second);
}

static char *way_out(const struct qs_luks_header *h, const char *node)
{
	bool survives =
		h->version == 2 || h->copy[0] == QS_COPY_NO_MAGIC || h->copy[1] == QS_COPY_NO_MAGIC;

	return qs_printf("'qs-util cryptrestore %s' restores it from %s", node,
			 survives ? "what is intact" : "its backup");
}

char *qs_luks_header_damage(const struct qs_luks_header *h, int fd, const char *node)
{
	QS_AUTO(qs_auto_free) char *stranger = NULL;
	QS_AUTO(qs_auto_free) char *both = NULL;
	QS_AUTO(qs_auto_free) char *out = NULL;

	if (h->copy[0] == QS_COPY_OK && (h->version == 1 || h->copy[1] == QS_COPY_OK))
		return NULL;
	if (h->copy[0] != QS_COPY_OK && h->copy[0] != QS_COPY_NO_MAGIC)
		stranger = find_stranger(h, fd);
	if (h->copy[0] == QS_COPY_ABSENT && h->copy[1] == QS_COPY_ABSENT)
		return describe_missing(stranger, node);
	both = describe_both(h, stranger);
	out = way_out(h, node);
	return qs_printf("%s header damaged: %s; %s", format_name(h), both, out);
}
