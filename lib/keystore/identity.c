#include "keystore/identity.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <libcryptsetup.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/cleanup.h"
#include "luks/fields.h"

#define TEXT_MAX 512U /* of the identity as text */
#define SECTOR 512U   /* libcryptsetup's unit of offsets */

/* ---- of a header ---- */

static int describe(struct crypt_device *cd, struct qs_identity *ret, struct qs_error *err)
{
	const char *uuid = crypt_get_uuid(cd);
	const char *cipher = crypt_get_cipher(cd);
	const char *mode = crypt_get_cipher_mode(cd);
	int n;

	if (!uuid || !cipher || !mode)
		return qs_fail(err, QS_E_DAMAGED, "the header names no cipher");
	n = snprintf(ret->cipher, sizeof(ret->cipher), "%s-%s", cipher, mode);
	/* It stands in JSON, and in the text that is measured. */
	if (n < 0 || (size_t)n >= sizeof(ret->cipher) || strpbrk(ret->cipher, "\"\\\n"))
		return qs_fail(err, QS_E_HOSTILE, "the cipher's name is not usable");
	(void)snprintf(ret->uuid, sizeof(ret->uuid), "%s", uuid);
	ret->key_size = (unsigned)crypt_get_volume_key_size(cd);
	ret->sector_size = (unsigned)crypt_get_sector_size(cd);
	ret->data_offset = crypt_get_data_offset(cd) * SECTOR;
	return 0;
}

/* HMAC-SHA256 with the volume key, over everything but itself. */
static int measure(struct crypt_device *cd, int slot, const struct qs_secret *device_key,
		   const struct qs_identity *of, unsigned char ret[QS_IDENTITY_MAC_L],
		   struct qs_secret *ret_volume_key, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	char text[TEXT_MAX];
	int n = snprintf(text, sizeof(text), "qs-keystore 1\n%s\n%s\n%u\n%u\n%" PRIu64 "\n",
			 of->uuid, of->cipher, of->key_size, of->sector_size, of->data_offset);
	size_t size = (size_t)crypt_get_volume_key_size(cd);
	int r = qs_secret_init(&key, size, err);

	if (r < 0)
		return r;
	r = crypt_volume_key_get(cd, slot, key.data, &size, device_key->data, device_key->size);
	if (r == -EPERM || r == -ENOENT)
		return qs_fail(err, QS_E_NO_KEY, "the unwrapped key does not open keyslot %d",
			       slot);
	if (r < 0)
		return qs_fail_errno(err, r, "cannot read keyslot %d", slot);
	if (!HMAC(EVP_sha256(), key.data, (int)size, (unsigned char *)text, (size_t)n, ret, NULL))
		return qs_fail(err, QS_E_FAILED, "cannot measure the volume key");
	if (ret_volume_key)
		*ret_volume_key = qs_secret_move(&key);
	return 0;
}

int qs_identity_take(struct crypt_device *cd, int slot, const struct qs_secret *device_key,
		     struct qs_identity *ret, struct qs_error *err)
{
	int r = describe(cd, ret, err);

	return r < 0 ? r : measure(cd, slot, device_key, ret, ret->mac, NULL, err);
}

static const char *difference(const struct qs_identity *a, const struct qs_identity *b)
{
	if (strcmp(a->uuid, b->uuid) != 0)
		return "the LUKS UUID";
	if (strcmp(a->cipher, b->cipher) != 0)
		return "the cipher";
	if (a->key_size != b->key_size)
		return "the key size";
	if (a->sector_size != b->sector_size)
		return "the sector size";
	return a->data_offset != b->data_offset ? "the data offset" : NULL;
}

int qs_identity_check(struct crypt_device *cd, int slot, const struct qs_secret *device_key,
		      const struct qs_identity *recorded, struct qs_secret *ret_volume_key,
		      struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret volume_key = {};
	struct qs_identity now = {};
	const char *what;
	int r = describe(cd, &now, err);

	if (r < 0)
		return r;
	what = difference(&now, recorded);
	if (!what) {
		r = measure(cd, slot, device_key, &now, now.mac, &volume_key, err);
		if (r < 0)
			return r;
		if (memcmp(now.mac, recorded->mac, sizeof(now.mac)) != 0)
			what = "the volume key";
	}
	if (!what && ret_volume_key)
		*ret_volume_key = qs_secret_move(&volume_key);
	if (!what)
		return 0;
	return qs_fail(err, QS_E_HOSTILE,
		       "%s is not the one that the keystore recorded, so this is another volume "
		       "and is not opened (if you changed it yourself, enrol it anew with "
		       "cryptenroll --keystore --unlock-key-file)",
		       what);
}

/* ---- beside the device key ---- */

static void print_hex(const unsigned char *bytes, size_t count, char *ret)
{
	for (size_t i = 0; i < count; i++)
		(void)snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
}

static int parse_hex(const char *text, unsigned char ret[QS_IDENTITY_MAC_L])
{
	if (!text || strlen(text) != (size_t)2 * QS_IDENTITY_MAC_L ||
	    strspn(text, "0123456789abcdef") != strlen(text))
		return -EINVAL;
	for (size_t i = 0; i < QS_IDENTITY_MAC_L; i++) {
		unsigned byte = 0;

		(void)sscanf(text + 2 * i, "%2x", &byte); // NOLINT(cert-err34-c): checked above
		ret[i] = (unsigned char)byte;
	}
	return 0;
}

int qs_identity_pack(const struct qs_identity *identity, const struct qs_secret *device_key,
		     struct qs_secret *ret, struct qs_error *err)
{
	char mac[2 * QS_IDENTITY_MAC_L + 1], text[TEXT_MAX];
	int n, r;

	print_hex(identity->mac, QS_IDENTITY_MAC_L, mac);
	n = snprintf(text, sizeof(text),
		     "{\"uuid\":\"%s\",\"cipher\":\"%s\",\"key_size\":%u,\"sector_size\":%u,"
		     "\"data_offset\":%" PRIu64 ",\"mac\":\"%s\"}",
		     identity->uuid, identity->cipher, identity->key_size, identity->sector_size,
		     identity->data_offset, mac);
	r = qs_secret_init(ret, QS_DEVICE_KEY_L + (size_t)n, err);
	if (r < 0)
		return r;
	memcpy(ret->data, device_key->data, QS_DEVICE_KEY_L);
	memcpy((char *)ret->data + QS_DEVICE_KEY_L, text, (size_t)n);
	return 0;
}

static int parse(const json_t *json, struct qs_identity *ret)
{
	const char *uuid = qs_fields_text(json, "uuid");
	const char *cipher = qs_fields_text(json, "cipher");
	uint64_t key_size, sector_size;

	if (!uuid || strlen(uuid) >= sizeof(ret->uuid) || !cipher ||
	    strlen(cipher) >= sizeof(ret->cipher) ||
	    !qs_fields_number(json, "key_size", &key_size) || key_size > UINT16_MAX ||
	    !qs_fields_number(json, "sector_size", &sector_size) || sector_size > UINT16_MAX ||
	    !qs_fields_number(json, "data_offset", &ret->data_offset))
		return -EINVAL;
	(void)snprintf(ret->uuid, sizeof(ret->uuid), "%s", uuid);
	(void)snprintf(ret->cipher, sizeof(ret->cipher), "%s", cipher);
	ret->key_size = (unsigned)key_size;
	ret->sector_size = (unsigned)sector_size;
	return parse_hex(qs_fields_text(json, "mac"), ret->mac);
}

int qs_identity_unpack(const struct qs_secret *packed, struct qs_identity *ret,
		       struct qs_secret *ret_device_key, struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *json = NULL;
	struct qs_identity identity = {};
	int r;

	if (packed->size > QS_DEVICE_KEY_L)
		json = json_loadb((char *)packed->data + QS_DEVICE_KEY_L,
				  packed->size - QS_DEVICE_KEY_L, JSON_REJECT_DUPLICATES, NULL);
	if (!json || parse(json, &identity) < 0)
		return qs_fail(err, QS_E_DAMAGED,
			       "what the keystore wrapped is no device key with an identity");
	r = qs_secret_init(ret_device_key, QS_DEVICE_KEY_L, err);
	if (r < 0)
		return r;
	memcpy(ret_device_key->data, packed->data, QS_DEVICE_KEY_L);
	*ret = identity;
	return 0;
}
