/*
 * LUKS headers as they lie on the disk, shared by the reader and by those who
 * make or mend one in memory.
 */
#ifndef QS_LUKS_ONDISK_H
#define QS_LUKS_ONDISK_H

#include <stddef.h>
#include <stdint.h>

#include "luks/header.h"

#define QS_LUKS2_BLOCK_L 4096 /* the binary part of a LUKS2 copy; its JSON area follows */
#define QS_LUKS2_SUM_L 64     /* SHA-256 fills the first half */
#define QS_LUKS2_SALT_L 64
#define QS_LUKS1_STRIPES 4000 /* of the anti-forensic splitter, as in LUKS2 */

/* LUKS2 On-Disk Format Specification 1.1, chapter 2.1; integers are big-endian. */
struct qs_luks2_binary {
	uint8_t magic[6];
	uint16_t version;
	uint64_t size; /* of this copy: this block and the JSON area */
	uint64_t seqid;
	char label[QS_LUKS_LABEL_L];
	char sum_name[32];
	uint8_t salt[QS_LUKS2_SALT_L];
	char uuid[QS_LUKS_UUID_L];
	char subsystem[QS_LUKS_LABEL_L];
	uint64_t offset; /* of this copy on the device */
	uint8_t padding[184];
	uint8_t sum[QS_LUKS2_SUM_L];
	uint8_t padding4096[7 * 512];
} __attribute__((packed));

struct qs_luks1_slot {
	uint32_t active;
	uint32_t iterations;
	uint8_t salt[32];
	uint32_t area_offset; /* sectors of 512 bytes */
	uint32_t stripes;
} __attribute__((packed));

/* LUKS1 On-Disk Format Specification 1.2, figures 4 and 5; integers are big-endian. */
struct qs_luks1_binary {
	uint8_t magic[6];
	uint16_t version;
	char cipher[32];
	char mode[32];
	char hash[32];
	uint32_t payload_offset; /* sectors of 512 bytes */
	uint32_t key_size;       /* bytes */
	uint8_t digest[20];
	uint8_t digest_salt[32];
	uint32_t digest_iterations;
	char uuid[QS_LUKS_UUID_L];
	struct qs_luks1_slot slots[8];
} __attribute__((packed));

/* Of the first copy (and of LUKS1), and of the second one. */
extern const uint8_t qs_luks_magics[2][6];

/*
 * The checksum that belongs into COPY (SIZE bytes, magic in place), by the hash
 * that it names; the field itself counts as zeros. Returns: -EINVAL for a hash
 * that nobody knows; -ENOMEM.
 */
int qs_luks2_checksum(const void *copy, size_t size, uint8_t ret[QS_LUKS2_SUM_L]);

#endif
