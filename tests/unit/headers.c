#define _GNU_SOURCE
#include "headers.h"

#include <endian.h>
#include <err.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/sha.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "base/file.h"

#define BLOCK_L 4096
#define SUM_AT 448
#define SUM_L 64

int headers_shell(const char *format, ...)
{
	QS_AUTO(qs_auto_free) char *command = NULL;
	QS_AUTO(qs_auto_free) char *quiet = NULL;
	char *argv[] = { "sh", "-c", NULL, NULL };
	va_list ap;
	pid_t pid;
	int status;

	va_start(ap, format);
	if (vasprintf(&command, format, ap) < 0)
		errx(1, "no memory");
	va_end(ap);
	quiet = qs_printf("{ %s\n} >log 2>&1 </dev/null", command);
	argv[2] = quiet;
	if (posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ) != 0 ||
	    waitpid(pid, &status, 0) < 0)
		errx(1, "cannot run sh");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

int headers_format(const char *options)
{
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s:/usr/sbin:/sbin", getenv("PATH"));

	/* mkfs, mkswap and cryptsetup are not in an ordinary user's PATH. */
	(void)setenv("PATH", path, 1);
	return headers_shell("head -c 64 /dev/urandom >key && truncate -s 64M luks2.img &&"
			     "cryptsetup -q luksFormat --luks2-metadata-size 128k"
			     " --luks2-keyslots-size 4m --key-file key %s luks2.img",
			     options);
}

void headers_load(const char *image, struct headers_pair *ret)
{
	QS_AUTO(qs_auto_close) int fd = open(image, O_RDONLY | O_CLOEXEC);
	uint64_t size;

	if (fd < 0 || qs_file_pread(fd, &size, sizeof(size), HEADERS_SIZE) < 0)
		err(1, "cannot read %s", image);
	ret->size = be64toh(size);
	for (unsigned i = 0; i < 2; i++) {
		ret->copy[i] = malloc(ret->size);
		if (!ret->copy[i] ||
		    qs_file_pread(fd, ret->copy[i], ret->size, (off_t)(i * ret->size)) < 0)
			errx(1, "cannot read both headers of %s", image);
	}
	ret->json = json_loads((const char *)ret->copy[0] + BLOCK_L, 0, NULL);
	if (!ret->json)
		errx(1, "%s has no LUKS2 metadata", image);
}

void headers_done(struct headers_pair *pair)
{
	free(pair->copy[0]);
	free(pair->copy[1]);
	json_decref(pair->json);
	*pair = (struct headers_pair){};
}

void headers_put_text(struct headers_pair *pair, unsigned which, const char *text, size_t length)
{
	uint8_t *area = pair->copy[which] + BLOCK_L;

	if (length > pair->size - BLOCK_L)
		errx(1, "%zu bytes of metadata do not fit", length);
	memset(area, 0, pair->size - BLOCK_L);
	memcpy(area, text, length);
}

void headers_put_json(struct headers_pair *pair, unsigned which)
{
	QS_AUTO(qs_auto_free) char *text = json_dumps(pair->json, JSON_COMPACT);

	headers_put_text(pair, which, text, strlen(text));
}

void headers_put_number(struct headers_pair *pair, unsigned which, enum headers_field field,
			uint64_t value)
{
	uint64_t big = htobe64(value);

	memcpy(pair->copy[which] + field, &big, sizeof(big));
}

void headers_store(const char *image, const struct headers_pair *pair, unsigned which)
{
	QS_AUTO(qs_auto_close) int fd = open(image, O_WRONLY | O_CLOEXEC);
	uint8_t *copy = pair->copy[which];

	memset(copy + SUM_AT, 0, SUM_L);
	SHA256(copy, pair->size, copy + SUM_AT);
	if (fd < 0 || qs_file_pwrite(fd, copy, pair->size, (off_t)(which * pair->size)) < 0)
		err(1, "cannot write %s", image);
}

static json_t *part(json_t *json, const char *section, const char *name)
{
	return json_object_get(json_object_get(json, section), name);
}

static void set(json_t *object, const char *name, json_t *value)
{
	if (json_object_set_new(object, name, value) < 0)
		errx(1, "cannot set %s", name);
}

static json_t *segment(json_t *json)
{
	return part(json, "segments", "0");
}

static json_t *keyslot(json_t *json, const char *section)
{
	return json_object_get(part(json, "keyslots", "0"), section);
}

static void set_cipher(json_t *json, const char *cipher)
{
	set(segment(json), "encryption", json_string(cipher));
}

static void null_cipher(json_t *json)
{
	set_cipher(json, "cipher_null-ecb");
}

static void null_cipher_capi(json_t *json)
{
	set_cipher(json, "capi:ecb(cipher_null)-plain");
}

static void null_cipher_escape(json_t *json)
{
	set_cipher(json, "null\x1b[2J");
}

static void no_cipher(json_t *json)
{
	json_object_del(segment(json), "encryption");
}

static void null_keyslot(json_t *json)
{
	set(keyslot(json, "area"), "encryption", json_string("cipher_null-ecb"));
}

static void two_segments(json_t *json)
{
	set(json_object_get(json, "segments"), "1", json_deep_copy(segment(json)));
	set(segment(json), "size", json_string("1048576"));
	set(part(json, "segments", "1"), "offset", json_string("33554432"));
}

static void no_segment(json_t *json)
{
	json_object_clear(json_object_get(json, "segments"));
}

static void renumbered_segment(json_t *json)
{
	json_t *only = json_deep_copy(segment(json));

	no_segment(json);
	set(json_object_get(json, "segments"), "7", only);
}

/* What cryptsetup leaves while it reencrypts: a requirement, and old and new state as segments. */
static void reencryption(json_t *json)
{
	json_t *segments = json_object_get(json, "segments");

	set(segments, "1", json_deep_copy(segment(json)));
	set(part(json, "segments", "1"), "flags", json_pack("[s]", "backup-previous"));
	set(segments, "2", json_deep_copy(segment(json)));
	set(part(json, "segments", "2"), "flags", json_pack("[s]", "backup-final"));
	set(json_object_get(json, "config"), "requirements",
	    json_pack("{s:[s]}", "mandatory", "online-reencrypt-v2"));
}

static void segment_flag(json_t *json)
{
	set(segment(json), "flags", json_pack("[s]", "in-reencryption"));
}

static void unknown_requirement(json_t *json)
{
	set(json_object_get(json, "config"), "requirements",
	    json_pack("{s:[s]}", "mandatory", "moon-phase"));
}

static void malformed_requirement(json_t *json)
{
	set(json_object_get(json, "config"), "requirements", json_pack("{s:i}", "mandatory", 1));
}

static void integrity(json_t *json)
{
	set(segment(json), "integrity",
	    json_pack("{s:s,s:s,s:s}", "type", "hmac(sha256)", "journal_encryption", "none",
		      "journal_integrity", "none"));
}

static void linear_segment(json_t *json)
{
	set(segment(json), "type", json_string("linear"));
}

static void iv_tweak(json_t *json)
{
	set(segment(json), "iv_tweak", json_string("8"));
}

static void sector_size(json_t *json)
{
	set(segment(json), "sector_size", json_integer(8192));
}

static void odd_sector_size(json_t *json)
{
	set(segment(json), "sector_size", json_integer(1000));
}

static void data_in_header(json_t *json)
{
	set(segment(json), "offset", json_string("32768"));
}

static void signed_offset(json_t *json)
{
	set(segment(json), "offset", json_string("+16777216"));
}

static void huge_offset(json_t *json)
{
	set(segment(json), "offset", json_string("18446744073709547520"));
}

static void odd_offset(json_t *json)
{
	set(segment(json), "offset", json_string("16777728"));
}

static void zero_size(json_t *json)
{
	set(segment(json), "size", json_string("0"));
}

static void huge_size(json_t *json)
{
	set(segment(json), "size", json_string("99999999999999999999"));
}

static void pbkdf2_cost(json_t *json)
{
	set(keyslot(json, "kdf"), "iterations", json_integer(4000000000));
}

static void pbkdf2_negative(json_t *json)
{
	set(keyslot(json, "kdf"), "iterations", json_integer(-1));
}

static void argon2(json_t *json, json_int_t memory_kib, json_int_t passes, json_int_t threads)
{
	set(part(json, "keyslots", "0"), "kdf",
	    json_pack("{s:s,s:I,s:I,s:I,s:s}", "type", "argon2id", "time", passes, "memory",
		      memory_kib, "cpus", threads, "salt",
		      "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="));
}

static void argon2_memory(json_t *json)
{
	argon2(json, 4294967295, 4, 4);
}

/* 2^54 KiB are 2^64 bytes. */
static void argon2_memory_wraps(json_t *json)
{
	argon2(json, 1LL << 54, 4, 4);
}

static void argon2_passes(json_t *json)
{
	argon2(json, 1048576, 4294967295, 4);
}

static void argon2_threads(json_t *json)
{
	argon2(json, 1048576, 4, 4000000);
}

static void argon2_no_threads(json_t *json)
{
	argon2(json, 1048576, 4, 0);
}

static void unknown_kdf(json_t *json)
{
	set(keyslot(json, "kdf"), "type", json_string("rot13"));
}

static void digest_cost(json_t *json)
{
	set(part(json, "digests", "0"), "iterations", json_integer(4000000000));
}

static void no_digest(json_t *json)
{
	json_object_clear(json_object_get(json, "digests"));
}

static void two_digests(json_t *json)
{
	set(json_object_get(json, "digests"), "1", json_deep_copy(part(json, "digests", "0")));
}

static void unknown_digest(json_t *json)
{
	set(part(json, "digests", "0"), "type", json_string("none"));
}

static void reencrypt_keyslot(json_t *json)
{
	set(part(json, "keyslots", "0"), "type", json_string("reencrypt"));
}

static void keyslot_number(json_t *json)
{
	set(json_object_get(json, "keyslots"), "99", json_deep_copy(part(json, "keyslots", "0")));
}

static void area_beyond(json_t *json)
{
	set(keyslot(json, "area"), "offset", json_string("1073741824"));
}

static void area_in_header(json_t *json)
{
	set(keyslot(json, "area"), "offset", json_string("4096"));
}

static void area_wraps(json_t *json)
{
	set(keyslot(json, "area"), "size", json_string("18446744073709551615"));
}

static void area_too_small(json_t *json)
{
	set(keyslot(json, "area"), "size", json_string("4096"));
}

static void no_key_size(json_t *json)
{
	set(part(json, "keyslots", "0"), "key_size", json_integer(0));
}

static void stripes(json_t *json)
{
	set(keyslot(json, "af"), "stripes", json_integer(1));
}

static void no_sizes(json_t *json)
{
	json_object_clear(json_object_get(json, "config"));
}

static void huge_keyslots(json_t *json)
{
	set(json_object_get(json, "config"), "keyslots_size", json_string("18446744073709551615"));
}

const struct headers_case headers_cases[] = {
	{ "null-cipher", "the data segment uses cipher_null-ecb, which does not encrypt",
	  null_cipher },
	{ "null-cipher-capi", "uses capi:ecb(cipher_null)-plain", null_cipher_capi },
	{ "null-cipher-escape", "uses null?[2J", null_cipher_escape },
	{ "no-cipher", "the data segment names no cipher", no_cipher },
	{ "null-keyslot", "keyslot 0 uses cipher_null-ecb, which does not encrypt", null_keyslot },
	{ "two-segments", "has 2 data segments", two_segments },
	{ "no-segment", "has 0 data segments", no_segment },
	{ "renumbered-segment", "data segment is not number 0", renumbered_segment },
	{ "reencryption", "a reencryption is unfinished (online-reencrypt-v2)", reencryption },
	{ "segment-flag", "carries the flag 'in-reencryption'", segment_flag },
	{ "unknown-requirement", "requires 'moon-phase'", unknown_requirement },
	{ "malformed-requirement", "requirements are malformed", malformed_requirement },
	{ "integrity", "integrity protection", integrity },
	{ "linear-segment", "type 'linear' instead of crypt", linear_segment },
	{ "iv-tweak", "IV does not begin at 0", iv_tweak },
	{ "sector-size", "sector size is not one of", sector_size },
	{ "odd-sector-size", "sector size is not one of", odd_sector_size },
	{ "data-in-header", "inside the header", data_in_header },
	{ "signed-offset", "offset is malformed", signed_offset },
	{ "huge-offset", "offset is malformed", huge_offset },
	{ "odd-offset", "offset is malformed", odd_offset },
	{ "zero-size", "size is malformed", zero_size },
	{ "huge-size", "size is malformed", huge_size },
	{ "pbkdf2-cost", "keyslot 0 wants 4000000000 PBKDF2 iterations", pbkdf2_cost },
	{ "pbkdf2-negative", "malformed iteration count", pbkdf2_negative },
	{ "argon2-memory", "keyslot 0 wants 4294967295 KiB of memory", argon2_memory },
	{ "argon2-memory-wraps", "keyslot 0 wants 18014398509481984 KiB", argon2_memory_wraps },
	{ "argon2-passes", "keyslot 0 wants 4294967295 Argon2 passes", argon2_passes },
	{ "argon2-threads", "keyslot 0 wants 4000000 threads", argon2_threads },
	{ "argon2-no-threads", "keyslot 0 wants 0 threads", argon2_no_threads },
	{ "unknown-kdf", "unknown key derivation 'rot13'", unknown_kdf },
	{ "digest-cost", "the digest of the volume key wants 4000000000", digest_cost },
	{ "no-digest", "not exactly one digest", no_digest },
	{ "two-digests", "not exactly one digest", two_digests },
	{ "unknown-digest", "a digest is not of type pbkdf2", unknown_digest },
	{ "reencrypt-keyslot", "keyslot 0 has type 'reencrypt'", reencrypt_keyslot },
	{ "keyslot-number", "a keyslot called '99'", keyslot_number },
	{ "area-beyond", "the area of keyslot 0", area_beyond },
	{ "area-in-header", "the area of keyslot 0", area_in_header },
	{ "area-wraps", "the area of keyslot 0", area_wraps },
	{ "area-too-small", "the key of keyslot 0 does not fit", area_too_small },
	{ "no-key-size", "the key of keyslot 0 does not fit", no_key_size },
	{ "stripes", "the key of keyslot 0 does not fit", stripes },
	{ "no-sizes", "the header's own sizes are malformed", no_sizes },
	{ "huge-keyslots", "the header's own sizes are malformed", huge_keyslots },
};

const size_t headers_case_count = QS_ARRAY_SIZE(headers_cases);

int headers_break(const char *image, const char *name)
{
	QS_AUTO(headers_done) struct headers_pair pair = {};

	for (size_t i = 0; i < headers_case_count; i++) {
		if (strcmp(headers_cases[i].name, name) != 0)
			continue;
		headers_load(image, &pair);
		headers_cases[i].edit(pair.json);
		for (unsigned which = 0; which < 2; which++) {
			headers_put_json(&pair, which);
			headers_store(image, &pair, which);
		}
		return 0;
	}
	return -1;
}
