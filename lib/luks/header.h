/*
 * Reading LUKS headers without changing them.
 *
 * libcryptsetup repairs a damaged copy as soon as it loads a header (faults
 * F8), so whoever only looks uses this reader: it checks both copies of a LUKS2
 * header (magic, size, SHA-256 checksum, JSON) and says which one is good. A
 * header is foreign input: sizes are bounded before anything is allocated.
 */
#ifndef QS_LUKS_HEADER_H
#define QS_LUKS_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "base/config.h"
#include "base/error.h"

enum qs_copy_state {
	QS_COPY_ABSENT, /* no magic */
	QS_COPY_OK,
	QS_COPY_BAD_SIZE, /* a magic, but an impossible version, size, offset or UUID */
	QS_COPY_BAD_SUM,
	QS_COPY_BAD_JSON, /* checksum right, text not usable */
	QS_COPY_IO,       /* could not be read */
	QS_COPY_NO_MAGIC, /* LUKS2: all right but for the six bytes of the magic (wipefs, mkswap) */
};

#define QS_LUKS_UUID_L 40
#define QS_LUKS_LABEL_L 48

/*
 * Texts are printable ASCII, other bytes have become '?'; a UUID has the usual
 * form of 36 characters or the copy is not usable, so it is safe in a path.
 * When only magic bytes are gone, version is 0 but uuid, label, subsystem,
 * seqid and metadata_size are known.
 */
struct qs_luks_header {
	int version; /* 0 none, 1, 2 */
	char uuid[QS_LUKS_UUID_L];
	char label[QS_LUKS_LABEL_L]; /* LUKS2 only, as subsystem */
	char subsystem[QS_LUKS_LABEL_L];
	uint64_t seqid;             /* LUKS2 epoch; the larger one of two good copies */
	uint64_t metadata_size;     /* bytes of one copy, LUKS2 */
	enum qs_copy_state copy[2]; /* LUKS2: first and second copy; LUKS1: copy[0] */
	bool copies_differ;         /* both good, sequence ids differ: a torn update, not damage */
	json_t *json;               /* LUKS2: the good copy's text; LUKS1: NULL */
	/* LUKS1 and, for the one crypt segment, LUKS2: */
	char cipher[64];              /* "aes-xts-plain64" */
	unsigned key_size;            /* bits */
	unsigned sector_size;         /* bytes; 512 for LUKS1 */
	uint64_t data_offset;         /* bytes */
	uint32_t luks1_iterations[8]; /* 0: slot not active */
	uint32_t luks1_digest_iterations;
	uint64_t luks1_area[8];   /* offset of each slot's key material, active or not; bytes */
	uint64_t luks1_area_size; /* bytes */
};

/*
 * Read the header behind FD, which may have been opened with O_DIRECT. An
 * unusable or absent header is not an error: version is 0 and copy[] says what
 * was seen. Which copy counts is decided as libcryptsetup does: of two good
 * ones that with the larger sequence id, the first when they are equal.
 * Fails only for lack of memory, and with the read error when the first copy
 * cannot be read and no second one is good.
 */
int qs_luks_header_read(int fd, struct qs_luks_header *ret, struct qs_error *err);

/* The same of SIZE bytes in memory, the beginning of a device. */
int qs_luks_header_judge(const void *bytes, size_t size, struct qs_luks_header *ret,
			 struct qs_error *err);

/*
 * The same in half the time, for what no update of a header changes (UUID,
 * label, segment, digest): the second copy is read only when the first is not
 * good. Otherwise copy[1] stays QS_COPY_ABSENT: damage cannot be told from this.
 */
int qs_luks_header_peek(int fd, struct qs_luks_header *ret, struct qs_error *err);

/*
 * Ask for the blocks that qs_luks_header_read() will read, all at once and
 * without waiting for each.
 */
void qs_luks_header_ask(int fd);

/* Is there a LUKS header, or what is left of one? */
bool qs_luks_header_is_trace(const struct qs_luks_header *h);

void qs_luks_header_done(struct qs_luks_header *h); /* also a QS_AUTO releaser */

/*
 * One sentence about a header that is damaged or missing ("LUKS2 header
 * damaged: GPT over the first copy, second copy intact; ..."), with the way
 * out, malloc'ed; NULL when both copies are good. FD is read for the signature
 * that lies over it, NODE is what a person calls the device.
 */
char *qs_luks_header_damage(const struct qs_luks_header *h, int fd, const char *node);

/*
 * Refuse headers that no honest tool writes for a device of ours, before any
 * key is tried (F11, F12): anything but one crypt segment, a null cipher in
 * segment or keyslot area, reencryption in progress, unknown mandatory
 * requirements, integrity, key derivation beyond CONFIG's caps, areas beyond the
 * header. JSON is what libcryptsetup holds (crypt_dump_json) or header.json.
 * Returns 0 or QS_E_HOSTILE with the reason.
 */
int qs_luks_json_check(const json_t *json, const struct qs_config *config, struct qs_error *err);

/* The same for a LUKS1 header (null cipher, iterations, data inside the header). */
int qs_luks1_check(const struct qs_luks_header *h, const struct qs_config *config,
		   struct qs_error *err);

/*
 * Compare what must never change by itself with what was recorded at format or
 * backup: UUID, the segment's cipher, sector size, offset and size, and the
 * digest of the volume key (salt and value). Of LUKS1, where both texts are NULL,
 * only the UUID. Returns 0 or QS_E_HOSTILE naming the first difference.
 */
int qs_luks_json_compare(const json_t *now, const char *uuid_now, const json_t *recorded,
			 const char *uuid_recorded, struct qs_error *err);

/* What one keyslot costs and what opens it; from JSON (LUKS2) or the header (LUKS1). */
struct qs_keyslot {
	int number;
	char kdf[16];        /* "pbkdf2", "argon2i", "argon2id" */
	bool key_file;       /* a fingerprint of ours says that a key file opens it */
	uint64_t iterations; /* pbkdf2 iterations, argon2 passes */
	uint64_t memory;     /* bytes; 0 for pbkdf2 */
	unsigned threads;    /* 1 for pbkdf2 */
	int token; /* a token that opens this slot, or -1; fingerprints and marks do not */
	char token_type[32]; /* "systemd-tpm2", "qs-keystore", "" */
};

/*
 * Active keyslots, at most MAX, cheapest first: by memory, then by iterations.
 * A cost that is malformed counts as the largest. Returns their number.
 */
size_t qs_luks_keyslots(const struct qs_luks_header *h, struct qs_keyslot *ret, size_t max);

#endif
