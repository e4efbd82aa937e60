#include "luks/header.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "luks/fields.h"

#define BLOCK_L 4096             /* the binary part of a LUKS2 copy */
#define COPY_MAX (4ULL << 20)    /* largest sizes of the format: one copy ... */
#define AREAS_MAX (128ULL << 20) /* ... and all keyslots together */
#define THREADS_MAX 4     /* libcryptsetup 2.6 writes no more ("Maximum PBKDF threads is 4") */
#define STRIPES 4000      /* of the anti-forensic splitter; no tool writes another number */
#define KEY_BYTES_MAX 512 /* libcryptsetup's limit */
#define DEVICE_MAX (1ULL << 62) /* bytes; the kernel's offsets are signed */
#define TEXT_L 64               /* of a foreign text in a sentence */
#define WHERE_L 32

static const char digest_name[] = "the digest of the volume key";

/* Where keyslot areas may lie, in bytes of the device. */
struct range {
	uint64_t from;
	uint64_t to;
};

static const char *clean(char ret[TEXT_L], const char *s)
{
	return qs_fields_printable(ret, TEXT_L, s, strlen(s));
}

static const char *slot_name(char ret[WHERE_L], int number)
{
	(void)snprintf(ret, WHERE_L, "keyslot %d", number);
	return ret;
}

/*
 * The kernel's null cipher in any spelling: "cipher_null-ecb", "null",
 * "capi:ecb(cipher_null)-plain". No real cipher has "null" in its name.
 */
static int check_cipher(const char *cipher, const char *where, struct qs_error *err)
{
	char text[TEXT_L];

	if (!cipher || !*cipher)
		return qs_fail(err, QS_E_HOSTILE, "%s names no cipher", where);
	if (strstr(cipher, "null"))
		return qs_fail(err, QS_E_HOSTILE,
			       "%s uses %s, which does not encrypt: restore the header from its "
			       "backup",
			       where, clean(text, cipher));
	return 0;
}

static int check_requirements(const json_t *config, struct qs_error *err)
{
	const json_t *requirements = json_object_get(config, "requirements");
	const json_t *mandatory = json_object_get(requirements, "mandatory");
	const char *flag = json_string_value(json_array_get(mandatory, 0));
	char text[TEXT_L];

	if (!requirements || (json_is_object(requirements) && !mandatory))
		return 0;
	if (json_is_array(mandatory) && json_array_size(mandatory) == 0)
		return 0;
	if (!flag)
		return qs_fail(err, QS_E_HOSTILE, "the header's requirements are malformed");
	if (strstr(flag, "reencrypt"))
		return qs_fail(err, QS_E_HOSTILE,
			       "a reencryption is unfinished (%s): if you began it, end it with "
			       "'cryptsetup reencrypt --resume-only'",
			       clean(text, flag));
	return qs_fail(err, QS_E_HOSTILE, "the header requires '%s', which qs-util does not know",
		       clean(text, flag));
}

static int check_segment_kind(const json_t *segment, struct qs_error *err)
{
	const char *type = qs_fields_text(segment, "type");
	const char *tweak = qs_fields_text(segment, "iv_tweak");
	const json_t *flags = json_object_get(segment, "flags");
	const char *flag = json_string_value(json_array_get(flags, 0));
	char text[TEXT_L];

	if (!type || strcmp(type, "crypt") != 0)
		return qs_fail(err, QS_E_HOSTILE, "the data segment has type '%s' instead of crypt",
			       clean(text, type ? type : ""));
	if (flags)
		return qs_fail(err, QS_E_HOSTILE, "the data segment carries the flag '%s'",
			       clean(text, flag ? flag : ""));
	if (json_object_get(segment, "integrity"))
		return qs_fail(err, QS_E_HOSTILE,
			       "the data segment has integrity protection, which qs-util does not "
			       "open; use cryptsetup");
	if (!tweak || strcmp(tweak, "0") != 0)
		return qs_fail(err, QS_E_HOSTILE, "the data segment's IV does not begin at 0");
	return check_cipher(qs_fields_text(segment, "encryption"), "the data segment", err);
}

/* Sector size, place and length. Data that begins inside the header would overwrite it. */
static int check_segment_place(const json_t *segment, const struct range *areas,
			       struct qs_error *err)
{
	const char *size = qs_fields_text(segment, "size");
	uint64_t sector = 0, offset = 0, bytes = 0;

	if (!qs_fields_number(segment, "sector_size", &sector) || sector < 512 || sector > 4096 ||
	    (sector & (sector - 1)) != 0)
		return qs_fail(err, QS_E_HOSTILE,
			       "the data segment's sector size is not one of "
			       "512, 1024, 2048 and 4096");
	if (!qs_fields_decimal(segment, "offset", &offset) || offset > DEVICE_MAX ||
	    offset % sector != 0)
		return qs_fail(err, QS_E_HOSTILE, "the data segment's offset is malformed");
	if (offset < areas->to)
		return qs_fail(err, QS_E_HOSTILE,
			       "the data begins at byte %" PRIu64 ", inside the header of %" PRIu64
			       " bytes (detached headers are not supported)",
			       offset, areas->to);
	if (size && strcmp(size, "dynamic") == 0)
		return 0;
	if (!qs_fields_decimal(segment, "size", &bytes) || bytes == 0 || bytes > DEVICE_MAX ||
	    bytes % sector != 0)
		return qs_fail(err, QS_E_HOSTILE, "the data segment's size is malformed");
	return 0;
}

static int check_segments(const json_t *json, const struct range *areas, struct qs_error *err)
{
	const json_t *segment = qs_fields_segment(json);
	size_t count = json_object_size(json_object_get(json, "segments"));
	int r;

	if (count != 1)
		return qs_fail(err, QS_E_HOSTILE, "the header has %zu data segments instead of 1",
			       count);
	if (!segment)
		return qs_fail(err, QS_E_HOSTILE, "the header's data segment is not number 0");
	r = check_segment_kind(segment, err);
	return r < 0 ? r : check_segment_place(segment, areas, err);
}

static int check_iterations(uint64_t iterations, const char *where, const struct qs_config *config,
			    struct qs_error *err)
{
	if (iterations > config->max_kdf_iterations)
		return qs_fail(err, QS_E_HOSTILE,
			       "%s wants %" PRIu64 " PBKDF2 iterations, more than %u "
			       "(max_kdf_iterations in qs-util.conf)",
			       where, iterations, config->max_kdf_iterations);
	return 0;
}

static int check_pbkdf2(const json_t *kdf, const char *where, const struct qs_config *config,
			struct qs_error *err)
{
	uint64_t iterations;

	if (!qs_fields_number(kdf, "iterations", &iterations))
		return qs_fail(err, QS_E_HOSTILE, "%s has a malformed iteration count", where);
	return check_iterations(iterations, where, config, err);
}

static int check_argon2(const json_t *kdf, const char *where, const struct qs_config *config,
			struct qs_error *err)
{
	uint64_t passes, memory_kib, threads;

	if (!qs_fields_number(kdf, "time", &passes) ||
	    !qs_fields_number(kdf, "memory", &memory_kib) ||
	    !qs_fields_number(kdf, "cpus", &threads))
		return qs_fail(err, QS_E_HOSTILE, "%s has a malformed Argon2 cost", where);
	if (passes > config->max_kdf_time)
		return qs_fail(err, QS_E_HOSTILE,
			       "%s wants %" PRIu64 " Argon2 passes, more than %u "
			       "(max_kdf_time in qs-util.conf)",
			       where, passes, config->max_kdf_time);
	if (memory_kib > config->max_kdf_memory / 1024)
		return qs_fail(err, QS_E_HOSTILE,
			       "%s wants %" PRIu64 " KiB of memory, more than %" PRIu64
			       " (max_kdf_memory in qs-util.conf)",
			       where, memory_kib, config->max_kdf_memory / 1024);
	if (threads < 1 || threads > THREADS_MAX)
		return qs_fail(err, QS_E_HOSTILE,
			       "%s wants %" PRIu64 " threads, libcryptsetup writes 1 to %d", where,
			       threads, THREADS_MAX);
	return 0;
}

static int check_kdf(const json_t *kdf, const char *where, const struct qs_config *config,
		     struct qs_error *err)
{
	const char *type = qs_fields_text(kdf, "type");
	char text[TEXT_L];

	if (type && strcmp(type, "pbkdf2") == 0)
		return check_pbkdf2(kdf, where, config, err);
	if (type && (strcmp(type, "argon2i") == 0 || strcmp(type, "argon2id") == 0))
		return check_argon2(kdf, where, config, err);
	return qs_fail(err, QS_E_HOSTILE, "%s has the unknown key derivation '%s'", where,
		       clean(text, type ? type : ""));
}

static int check_area(const json_t *slot, const char *where, const struct range *areas,
		      struct qs_error *err)
{
	const json_t *area = json_object_get(slot, "area");
	const json_t *splitter = json_object_get(slot, "af");
	const char *type = qs_fields_text(area, "type");
	uint64_t offset, size, key_size, stripes;

	if (!type || strcmp(type, "raw") != 0 || !qs_fields_decimal(area, "offset", &offset) ||
	    !qs_fields_decimal(area, "size", &size))
		return qs_fail(err, QS_E_HOSTILE, "%s has a malformed area", where);
	if (offset < areas->from || offset > areas->to || size > areas->to - offset)
		return qs_fail(err, QS_E_HOSTILE,
			       "the area of %s (%" PRIu64 " bytes at %" PRIu64
			       ") lies outside of the header's %" PRIu64 " to %" PRIu64,
			       where, size, offset, areas->from, areas->to);
	if (!qs_fields_number(slot, "key_size", &key_size) || key_size == 0 ||
	    key_size > KEY_BYTES_MAX || !qs_fields_number(splitter, "stripes", &stripes) ||
	    stripes != STRIPES || key_size * stripes > size)
		return qs_fail(err, QS_E_HOSTILE, "the key of %s does not fit its area", where);
	return check_cipher(qs_fields_text(area, "encryption"), where, err);
}

static int check_keyslot(const char *number, const json_t *slot, const struct range *areas,
			 const struct qs_config *config, struct qs_error *err)
{
	const char *type = qs_fields_text(slot, "type");
	char where[WHERE_L], text[TEXT_L];
	int n = qs_fields_slot(number);
	int r;

	if (n < 0)
		return qs_fail(err, QS_E_HOSTILE, "the header has a keyslot called '%s'",
			       clean(text, number));
	(void)slot_name(where, n);
	if (!type || strcmp(type, "luks2") != 0)
		return qs_fail(err, QS_E_HOSTILE, "%s has type '%s' instead of luks2", where,
			       clean(text, type ? type : ""));
	r = check_kdf(json_object_get(slot, "kdf"), where, config, err);
	return r < 0 ? r : check_area(slot, where, areas, err);
}

static int check_keyslots(const json_t *json, const struct range *areas,
			  const struct qs_config *config, struct qs_error *err)
{
	json_t *slots = json_object_get(json, "keyslots");
	const char *number;
	json_t *slot;
	int r;

	json_object_foreach(slots, number, slot)
	{
		r = check_keyslot(number, slot, areas, config, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Every digest: a candidate key from any keyslot is tried against it, at its cost. */
static int check_digests(const json_t *json, const struct qs_config *config, struct qs_error *err)
{
	json_t *digests = json_object_get(json, "digests");
	const char *number, *type;
	json_t *digest;
	int r;

	if (!qs_fields_digest(json))
		return qs_fail(err, QS_E_HOSTILE,
			       "the header has not exactly one digest for its data segment");
	json_object_foreach(digests, number, digest)
	{
		type = qs_fields_text(digest, "type");
		if (!type || strcmp(type, "pbkdf2") != 0)
			return qs_fail(err, QS_E_HOSTILE, "a digest is not of type pbkdf2");
		r = check_pbkdf2(digest, digest_name, config, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int find_areas(const json_t *config, struct range *ret, struct qs_error *err)
{
	uint64_t json_size, areas_size;

	if (!qs_fields_decimal(config, "json_size", &json_size) ||
	    !qs_fields_decimal(config, "keyslots_size", &areas_size) || json_size > COPY_MAX ||
	    areas_size > AREAS_MAX)
		return qs_fail(err, QS_E_HOSTILE, "the header's own sizes are malformed");
	ret->from = 2 * (json_size + BLOCK_L);
	ret->to = ret->from + areas_size;
	return 0;
}

int qs_luks_json_check(const json_t *json, const struct qs_config *config, struct qs_error *err)
{
	const json_t *settings = json_object_get(json, "config");
	struct range areas = {};
	int r;

	r = find_areas(settings, &areas, err);
	if (r < 0)
		return r;
	r = check_requirements(settings, err);
	if (r < 0)
		return r;
	r = check_segments(json, &areas, err);
	if (r < 0)
		return r;
	r = check_digests(json, config, err);
	if (r < 0)
		return r;
	return check_keyslots(json, &areas, config, err);
}

int qs_luks1_check(const struct qs_luks_header *h, const struct qs_config *config,
		   struct qs_error *err)
{
	int r = check_cipher(h->cipher, "the header", err);

	if (r < 0)
		return r;
	if (h->data_offset < BLOCK_L)
		return qs_fail(err, QS_E_HOSTILE,
			       "the data begins at byte %" PRIu64 ", inside the header "
			       "(detached headers are not supported)",
			       h->data_offset);
	for (unsigned i = 0; i < QS_ARRAY_SIZE(h->luks1_iterations); i++) {
		char where[WHERE_L];

		r = check_iterations(h->luks1_iterations[i], slot_name(where, (int)i), config, err);
		if (r < 0)
			return r;
	}
	return check_iterations(h->luks1_digest_iterations, digest_name, config, err);
}
