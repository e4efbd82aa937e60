/*
 * The provider kmip-wrap: content keys as text.
 */
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "keystore/kmip-internal.h"

#define FORM "kmip:v1"
#define FIELDS_MAX 7 /* FORM has two of them */

static const char *const names[] = { [QS_KMIP_CBC] = "aes-cbc", [QS_KMIP_GCM] = "aes-gcm" };

const char *qs_kmip_cipher_name(enum qs_kmip_cipher cipher)
{
	return names[cipher];
}

enum qs_kmip_cipher qs_kmip_cipher_parse(const char *name)
{
	for (size_t i = 0; name && i < QS_ARRAY_SIZE(names); i++)
		if (names[i] && strcmp(names[i], name) == 0)
			return (enum qs_kmip_cipher)i;
	return QS_KMIP_NO_CIPHER;
}

char *qs_kmip_wrapped_print(const struct qs_kmip_wrapped *w)
{
	const struct qs_kmip_encrypted *e = &w->encrypted;
	bool gcm = e->cipher == QS_KMIP_GCM;
	QS_AUTO(qs_auto_free) char *uid = qs_base64_encode(w->uid, strlen(w->uid));
	QS_AUTO(qs_auto_free) char *iv = qs_base64_encode(e->iv, e->iv_size);
	QS_AUTO(qs_auto_free)
	char *data = qs_base64_encode(e->data, qs_kmip_encrypted_size(e->cipher));
	QS_AUTO(qs_auto_free) char *tag = qs_base64_encode(e->tag, sizeof(e->tag));

	return qs_printf(FORM ":%s:%s:%s:%s%s%s", qs_kmip_cipher_name(e->cipher), uid, iv, data,
			 gcm ? ":" : "", gcm ? tag : "");
}

/* MIN to MAX bytes. Returns how many. */
static int decode(const char *text, size_t min, size_t max, void *ret)
{
	QS_AUTO(qs_bytes_done) struct qs_bytes bytes = {};

	if (qs_base64_decode(text, max, &bytes) < 0 || bytes.size < min)
		return -EINVAL;
	memcpy(ret, bytes.data, bytes.size);
	return (int)bytes.size;
}

static int parse_fields(char *const *fields, size_t count, struct qs_kmip_wrapped *ret)
{
	struct qs_kmip_encrypted *e = &ret->encrypted;
	size_t size;
	int r;

	e->cipher = qs_kmip_cipher_parse(fields[2]);
	size = qs_kmip_encrypted_size(e->cipher);
	if (e->cipher == QS_KMIP_NO_CIPHER || count != (e->cipher == QS_KMIP_GCM ? 7 : 6))
		return -EINVAL;
	r = decode(fields[3], 1, sizeof(ret->uid) - 1, ret->uid);
	if (r < 0 || strlen(ret->uid) != (size_t)r)
		return -EINVAL;
	r = decode(fields[4], 1, sizeof(e->iv), e->iv);
	if (r < 0 || !qs_kmip_is_iv_size(e->cipher, (size_t)r))
		return -EINVAL;
	e->iv_size = (size_t)r;
	r = decode(fields[5], size, size, e->data);
	if (r >= 0 && e->cipher == QS_KMIP_GCM)
		r = decode(fields[6], sizeof(e->tag), sizeof(e->tag), e->tag);
	return r < 0 ? r : 0;
}

int qs_kmip_wrapped_parse(const char *text, struct qs_kmip_wrapped *ret)
{
	QS_AUTO(qs_auto_free) char *copy = qs_strdup(text);
	char *fields[FIELDS_MAX], *rest = copy;
	size_t count = 0;

	*ret = (struct qs_kmip_wrapped){};
	if (strncmp(text, FORM ":", strlen(FORM ":")) != 0)
		return -EINVAL;
	while (rest && count < FIELDS_MAX)
		fields[count++] = strsep(&rest, ":");
	return rest || count < 3 ? -EINVAL : parse_fields(fields, count, ret);
}
