/*
 * LUKS headers: the bytes of a device's beginning. Checksums are put right
 * first, or nothing would get past them. No bytes may crash the reader or be
 * changed by it, and a header that passes the check keeps what callers rely on.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/sha.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "luks/header.h"
#include "luks/kind.h"
#include "luks/slots.h"

#define INPUT_MAX (64 * 1024)
#define SUM_AT 448 /* in the binary block of a LUKS2 copy */
#define SUM_L 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
	if (!holds)
		abort();
}

static void repair_checksum(uint8_t *device, size_t device_size, size_t offset)
{
	uint8_t *copy = device + offset;
	uint64_t size;

	if (offset + SUM_AT + SUM_L > device_size)
		return;
	memcpy(&size, copy + 8, sizeof(size));
	size = be64toh(size);
	if (size < SUM_AT + SUM_L || size > device_size - offset)
		return;
	memset(copy + SUM_AT, 0, SUM_L);
	SHA256(copy, size, copy + SUM_AT);
}

static void check_texts(const struct qs_luks_header *h)
{
	demand(strlen(h->uuid) == 0 || strlen(h->uuid) == 36);
	for (const char *p = h->uuid; *p; p++)
		demand(isxdigit((unsigned char)*p) || *p == '-');
	for (const char *p = h->label; *p; p++)
		demand(isprint((unsigned char)*p));
	for (const char *p = h->cipher; *p; p++)
		demand(isprint((unsigned char)*p));
}

/* What passed has bounded costs, encrypts, and keeps its data off its header. */
static void check_accepted(const struct qs_luks_header *h, const struct qs_config *config)
{
	struct qs_keyslot slots[32];
	size_t count = qs_luks_keyslots(h, slots, QS_ARRAY_SIZE(slots));

	demand(h->cipher[0] && !strstr(h->cipher, "null"));
	demand(h->data_offset >= 2 * h->metadata_size && h->data_offset > 0);
	demand(h->sector_size >= 512 && h->sector_size <= 4096);
	for (size_t i = 0; i < count; i++) {
		demand(slots[i].memory <= config->max_kdf_memory);
		demand(slots[i].memory || slots[i].iterations <= config->max_kdf_iterations);
		demand(slots[i].threads >= 1 && slots[i].threads <= 4);
	}
	demand(qs_luks_json_compare(h->json, h->uuid, h->json, h->uuid, NULL) == 0);
}

/* Whatever the tokens say, it can be shown. */
static void check_kinds(const struct qs_luks_header *h)
{
	char since[QS_SLOT_TIME_L];

	for (int slot = 0; slot < 32; slot++) {
		demand(qs_slot_kind_is_known(qs_slot_kind(h->json, slot, since)));
		demand(strspn(since, "0123456789-:TZ") == strlen(since));
		demand(!qs_slots_salt(h->json, slot) || qs_slots_mask(h->json) >> slot & 1);
	}
}

/* In memory it is judged as on the device. */
static void check_memory(const struct qs_luks_header *h, const uint8_t *device, size_t size)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header m = {};

	demand(qs_luks_header_judge(device, size, &m, NULL) == 0);
	demand(m.version == h->version && m.seqid == h->seqid && strcmp(m.uuid, h->uuid) == 0);
	demand(m.copy[0] == h->copy[0] && m.copy[1] == h->copy[1]);
	demand(m.metadata_size == h->metadata_size && m.copies_differ == h->copies_differ);
	demand(m.json == h->json || json_equal(m.json, h->json));
}

static void run(int fd, const uint8_t *device, size_t size)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_config_done) struct qs_config config;
	QS_AUTO(qs_auto_free) char *damage = NULL;
	struct qs_error err = {};
	int r;

	qs_config_init(&config);
	demand(qs_luks_header_read(fd, &h, &err) == 0);
	demand((h.version == 2) == (h.json != NULL));
	check_texts(&h);
	check_memory(&h, device, size);
	damage = qs_luks_header_damage(&h, fd, "node");
	demand(h.version != 0 || damage);
	if (h.version == 0)
		return;
	check_kinds(&h);
	r = h.version == 1 ? qs_luks1_check(&h, &config, &err)
			   : qs_luks_json_check(h.json, &config, &err);
	demand(r == 0 || (err.kind == QS_E_HOSTILE && err.text[0]));
	if (r == 0)
		check_accepted(&h, &config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t device[INPUT_MAX], after[INPUT_MAX];
	static int fd = -1;

	if (fd < 0)
		fd = memfd_create("header", MFD_CLOEXEC);
	if (size > sizeof(device))
		return 0;
	memcpy(device, data, size);
	repair_checksum(device, size, 0);
	repair_checksum(device, size, 0x4000);
	demand(ftruncate(fd, (off_t)size) == 0 && qs_file_pwrite(fd, device, size, 0) == 0);
	run(fd, device, size);
	demand(qs_file_pread(fd, after, size, 0) == 0 && memcmp(device, after, size) == 0);
	return 0;
}
