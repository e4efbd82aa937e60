#define _GNU_SOURCE
#include "luks/make.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <libcryptsetup.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "luks/fingerprint.h"

/* libcryptsetup's lower limit for PBKDF2 (MIN_PBKDF2_ITERATIONS, 2.6.1). */
#define MIN_ITERATIONS 1000

/* What a reservation asks for before Argon2: the library's compiled-in default costs. */
#define ARGON2_MEMORY (1ULL << 30)
#define ARGON2_THREADS 4

void qs_luks_label(const char *name, char ret[static QS_LUKS_LABEL_L])
{
	(void)snprintf(ret, QS_LUKS_LABEL_L, "%s", name);
}

/* "aes-xts-plain64" to "aes" and "xts-plain64"; false when it has no mode. */
static bool split_cipher(const char *spec, char cipher[static 32], const char **mode)
{
	const char *dash = strchr(spec, '-');

	if (!dash || dash == spec || dash - spec >= 32 || dash[1] == '\0')
		return false;
	(void)snprintf(cipher, 32, "%.*s", (int)(dash - spec), spec);
	*mode = dash + 1;
	return true;
}

static bool is_power_of_two(uint64_t n)
{
	return n && (n & (n - 1)) == 0;
}

int qs_luks_spec_check(const struct qs_luks_spec *spec, struct qs_error *err)
{
	const char *mode;
	char cipher[32];

	if (!split_cipher(spec->cipher, cipher, &mode))
		return qs_fail(err, QS_E_USAGE,
			       "cipher %s: name a cipher with its mode, such as aes-xts-plain64",
			       spec->cipher);
	if (strstr(spec->cipher, "null"))
		return qs_fail(err, QS_E_USAGE, "cipher %s would not encrypt anything",
			       spec->cipher);
	if (spec->key_size < 128 || spec->key_size > 1024 || spec->key_size % 64)
		return qs_fail(err, QS_E_USAGE,
			       "key size %u: a multiple of 64 bits from 128 to 1024 is needed; "
			       "aes-xts-plain64 takes 256 or 512",
			       spec->key_size);
	if (spec->sector_size < 512 || spec->sector_size > 4096 ||
	    !is_power_of_two(spec->sector_size))
		return qs_fail(err, QS_E_USAGE, "sector size %u: 512, 1024, 2048 or 4096 is needed",
			       spec->sector_size);
	if (spec->pbkdf && strcmp(spec->pbkdf, CRYPT_KDF_PBKDF2) != 0 &&
	    strcmp(spec->pbkdf, CRYPT_KDF_ARGON2I) != 0 &&
	    strcmp(spec->pbkdf, CRYPT_KDF_ARGON2ID) != 0)
		return qs_fail(err, QS_E_USAGE, "PBKDF %s: pbkdf2, argon2i or argon2id is needed",
			       spec->pbkdf);
	return 0;
}

int qs_luks_pbkdf(const char *type, struct qs_worker *worker, struct crypt_pbkdf_type *ret,
		  struct qs_error *err)
{
	const struct crypt_pbkdf_type *usual;

	if (!type) {
		*ret = (struct crypt_pbkdf_type){
			.type = CRYPT_KDF_PBKDF2,
			.hash = "sha256",
			.iterations = MIN_ITERATIONS,
			.flags = CRYPT_PBKDF_NO_BENCHMARK,
		};
		return 0;
	}
	usual = crypt_get_pbkdf_default(CRYPT_LUKS2);
	*ret = (struct crypt_pbkdf_type){
		.type = type,
		.hash = "sha256",
		.time_ms = usual->time_ms,
	};
	if (strcmp(type, CRYPT_KDF_PBKDF2) == 0)
		return 0;
	ret->max_memory_kb = usual->max_memory_kb;
	ret->parallel_threads = usual->parallel_threads;
	return worker ? qs_worker_reserve(worker, ARGON2_MEMORY, ARGON2_THREADS, err) : 0;
}

/* Returns 0 or -errno. */
static int add_token(struct crypt_device *cd, const json_t *token)
{
	QS_AUTO(qs_auto_free) char *text = token ? json_dumps(token, JSON_COMPACT) : NULL;
	int r;

	if (!text)
		return -ENOMEM;
	/* No plugin is asked what it thinks of our token. */
	crypt_token_external_disable();
	r = crypt_token_json_set(cd, CRYPT_ANY_TOKEN, text);
	return r < 0 ? r : 0;
}

/* Of keyslot 0. Returns 0 or -errno. */
static int add_fingerprint(struct crypt_device *cd, const char *uuid, const struct qs_secret *key)
{
	QS_AUTO(qs_secret_done) struct qs_secret digest = {};
	QS_AUTO(qs_auto_json) json_t *token = NULL;
	struct qs_fingerprint print = { .slot = 0 };
	int r = qs_fingerprint_digest(key, &digest, NULL);

	if (r == 0)
		r = qs_fingerprint_make(&digest, uuid, print.sum, NULL);
	if (r < 0)
		return r;
	token = qs_fingerprint_token(&print);
	return add_token(cd, token);
}

/* What somebody else makes of the header, which is whole by then. */
static int add_token_of(const struct qs_luks_spec *spec, struct crypt_device *cd,
			struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *token = NULL;
	int r = spec->token(spec->token_cookie, cd, &token, err);

	if (r < 0)
		return r;
	(void)json_object_set_new(token, "keyslots", json_pack("[s]", "0"));
	r = add_token(cd, token);
	return r < 0 ? qs_fail_errno(err, r, "cannot add a token to the new header") : 0;
}

/* Returns 0 or -errno of the first libcryptsetup call that failed; *ret_what names it. */
static int format_in_memory(struct crypt_device *cd, const struct qs_luks_spec *spec,
			    const struct crypt_pbkdf_type *pbkdf, const struct qs_secret *key,
			    const char **ret_what)
{
	char cipher[32], label[QS_LUKS_LABEL_L];
	const char *mode = "";
	struct crypt_params_luks2 params = {
		.pbkdf = pbkdf,
		.sector_size = spec->sector_size,
		.label = label,
		.subsystem = QS_SUBSYSTEM,
	};
	int r;

	(void)split_cipher(spec->cipher, cipher, &mode);
	qs_luks_label(spec->label, label);
	*ret_what = "set the sizes of the header";
	r = crypt_set_metadata_size(cd, spec->metadata_size, spec->keyslots_size);
	if (r == 0)
		r = crypt_set_data_offset(cd, QS_DATA_OFFSET / 512);
	if (r < 0)
		return r;
	*ret_what = "format with this cipher, key size and sector size";
	r = crypt_format(cd, CRYPT_LUKS2, cipher, mode, spec->uuid, NULL, spec->key_size / 8,
			 &params);
	if (r < 0)
		return r;
	*ret_what = "add the keyslot";
	r = crypt_keyslot_add_by_volume_key(cd, 0, NULL, 0, key->data, key->size);
	if (r < 0)
		return r;
	*ret_what = "store the key's fingerprint";
	r = spec->fingerprint ? add_fingerprint(cd, spec->uuid, key) : 0;
	if (r < 0 || !spec->fast_device)
		return r;
	*ret_what = "store the workqueue flags";
	return crypt_persistent_flags_set(cd, CRYPT_FLAGS_ACTIVATION,
					  CRYPT_ACTIVATE_NO_READ_WORKQUEUE |
						  CRYPT_ACTIVATE_NO_WRITE_WORKQUEUE);
}

int qs_luks_make(const struct qs_luks_spec *spec, const struct qs_secret *key,
		 struct qs_worker *worker, struct qs_header_image *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_cd) struct crypt_device *cd = NULL;
	QS_AUTO(qs_auto_close) int fd = memfd_create("luks-header", MFD_CLOEXEC);
	struct crypt_pbkdf_type pbkdf;
	const char *what = "prepare the header";
	char path[64];
	int r;

	if (fd < 0 || ftruncate(fd, (off_t)spec->device_size) < 0)
		return qs_fail_errno(err, errno, "cannot make a header in memory");
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = qs_luks_pbkdf(spec->pbkdf, worker, &pbkdf, err);
	if (r < 0)
		return r;
	r = crypt_init(&cd, path);
	if (r == 0)
		r = format_in_memory(cd, spec, &pbkdf, key, &what);
	if (r < 0)
		return qs_fail_errno(err, r, "cannot %s (%s, %u bits, %u-byte sectors)", what,
				     spec->cipher, spec->key_size, spec->sector_size);
	r = spec->token ? add_token_of(spec, cd, err) : 0;
	if (r < 0)
		return r;
	return qs_header_image_read(fd, "the new header", ret, NULL, err);
}

static int write_part(int fd, const char *node, const struct qs_header_image *image, uint64_t from,
		      uint64_t to, struct qs_error *err)
{
	int r = qs_file_pwrite(fd, (const char *)image->data + from, to - from, (off_t)from);

	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r < 0 ? qs_fail_errno(err, r, "cannot write the header of %s", node) : 0;
}

int qs_luks_write(int fd, const char *node, const struct qs_header_image *image,
		  uint64_t metadata_size, struct qs_error *err)
{
	int r = write_part(fd, node, image, 2 * metadata_size, image->size, err);

	if (r == 0)
		r = write_part(fd, node, image, metadata_size, 2 * metadata_size, err);
	if (r == 0)
		r = write_part(fd, node, image, 0, metadata_size, err);
	return r;
}
