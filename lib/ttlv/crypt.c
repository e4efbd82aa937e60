/*
 * Keys of a server's that encrypt and decrypt for us.
 */
#include <string.h>

#include "ttlv/message.h"
#include "ttlv/tags.h"

#define CBC_BLOCK 16 /* bytes that PKCS5 adds to a multiple of a block */

size_t qs_kmip_encrypted_size(enum qs_kmip_cipher cipher)
{
	return cipher == QS_KMIP_GCM ? QS_KMIP_KEY_L : QS_KMIP_KEY_L + CBC_BLOCK;
}

bool qs_kmip_is_iv_size(enum qs_kmip_cipher cipher, size_t size)
{
	return size <= QS_KMIP_IV_MAX &&
	       size >= (cipher == QS_KMIP_GCM ? QS_KMIP_IV_MIN : QS_KMIP_IV_MAX);
}

bool qs_kmip_has_cipher(struct qs_kmip_version version, enum qs_kmip_cipher cipher)
{
	return version.major > 1 || version.minor >= (cipher == QS_KMIP_GCM ? 4 : 2);
}

static int get_bytes(const struct qs_kmip_answer *answer, uint32_t tag, const char *what,
		     struct qs_ttlv *ret, struct qs_error *err)
{
	if (qs_ttlv_find(&answer->payload, tag, ret) && ret->type == QS_TTLV_BYTES)
		return 0;
	return qs_fail(err, QS_E_FAILED, "the server's answer has no %s", what);
}

static int check_uid(const struct qs_kmip_answer *answer, const char *uid, struct qs_error *err)
{
	char theirs[QS_KMIP_UID_L];
	int r = qs_kmip_read_uid(answer, theirs, err);

	if (r == 0 && strcmp(theirs, uid) != 0)
		return qs_fail(err, QS_E_FAILED, "the server used another key than it was to use");
	return r;
}

static int bad_size(const char *what, size_t size, struct qs_error *err)
{
	return qs_fail(err, QS_E_FAILED, "the server's answer has %s of %zu bytes", what, size);
}

int qs_kmip_read_encrypted(const struct qs_kmip_answer *answer, const char *uid,
			   enum qs_kmip_cipher cipher, struct qs_kmip_encrypted *ret,
			   struct qs_error *err)
{
	struct qs_ttlv data = {}, iv = {}, tag = {};
	int r = check_uid(answer, uid, err);

	if (r == 0)
		r = get_bytes(answer, TAG_DATA, "encrypted data", &data, err);
	if (r == 0)
		r = get_bytes(answer, TAG_IV, "initialization vector", &iv, err);
	if (r == 0 && cipher == QS_KMIP_GCM)
		r = get_bytes(answer, TAG_TAG, "tag", &tag, err);
	if (r < 0)
		return r;
	if (data.size != qs_kmip_encrypted_size(cipher))
		return bad_size("encrypted data", data.size, err);
	if (!qs_kmip_is_iv_size(cipher, iv.size))
		return bad_size("an initialization vector", iv.size, err);
	if (cipher == QS_KMIP_GCM && tag.size != sizeof(ret->tag))
		return bad_size("a tag", tag.size, err);
	*ret = (struct qs_kmip_encrypted){ .cipher = cipher, .iv_size = iv.size };
	memcpy(ret->data, data.value, data.size);
	memcpy(ret->iv, iv.value, iv.size);
	if (cipher == QS_KMIP_GCM)
		memcpy(ret->tag, tag.value, tag.size);
	return 0;
}

int qs_kmip_read_decrypted(const struct qs_kmip_answer *answer, const char *uid,
			   const unsigned char **ret, struct qs_error *err)
{
	struct qs_ttlv data = {};
	int r = check_uid(answer, uid, err);

	if (r == 0)
		r = get_bytes(answer, TAG_DATA, "decrypted data", &data, err);
	if (r < 0)
		return r;
	if (data.size != QS_KMIP_KEY_L)
		return qs_fail(err, QS_E_NO_KEY,
			       "what the server decrypted has %zu bytes instead of %d: it was "
			       "changed, or is of another key",
			       data.size, QS_KMIP_KEY_L);
	*ret = data.value;
	return 0;
}
