/*
 * The identity of a volume: what dm-crypt is told about it, and an HMAC-SHA256 over
 * that with the volume key. LUKS2 metadata is not authenticated; the identity lies
 * beside the device key in what the keystore wraps, so a header whose segment was
 * swapped, or that has another volume key, is refused before it is activated.
 */
#ifndef QS_KEYSTORE_IDENTITY_H
#define QS_KEYSTORE_IDENTITY_H

#include <stdint.h>

#include "base/error.h"
#include "base/secret.h"
#include "luks/header.h"

struct crypt_device;

#define QS_DEVICE_KEY_L 64 /* bytes */
#define QS_IDENTITY_MAC_L 32

struct qs_identity {
	char uuid[QS_LUKS_UUID_L];
	char cipher[64];      /* "aes-xts-plain64" */
	unsigned key_size;    /* bytes */
	unsigned sector_size; /* bytes */
	uint64_t data_offset; /* bytes */
	unsigned char mac[QS_IDENTITY_MAC_L];
};

/*
 * The identity of the loaded header CD, whose keyslot SLOT DEVICE_KEY opens.
 * -EPERM (QS_E_NO_KEY): it does not.
 */
int qs_identity_take(struct crypt_device *cd, int slot, const struct qs_secret *device_key,
		     struct qs_identity *ret, struct qs_error *err);

/*
 * Is the loaded header CD the volume that RECORDED is of? First what the header says,
 * then the volume key. QS_E_HOSTILE naming the first difference; -EPERM (QS_E_NO_KEY):
 * DEVICE_KEY does not open keyslot SLOT. *ret_volume_key (may be NULL): the key that was measured.
 */
int qs_identity_check(struct crypt_device *cd, int slot, const struct qs_secret *device_key,
		      const struct qs_identity *recorded, struct qs_secret *ret_volume_key,
		      struct qs_error *err);

/* DEVICE_KEY (QS_DEVICE_KEY_L bytes) and behind it the identity as JSON, to be wrapped. */
int qs_identity_pack(const struct qs_identity *identity, const struct qs_secret *device_key,
		     struct qs_secret *ret, struct qs_error *err);

/* The reverse; QS_E_DAMAGED: not of this form. */
int qs_identity_unpack(const struct qs_secret *packed, struct qs_identity *ret,
		       struct qs_secret *ret_device_key, struct qs_error *err);

#endif
