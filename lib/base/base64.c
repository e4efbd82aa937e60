#include "base/base64.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/cleanup.h"
#include "base/env.h"

#define ALPHABET "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

void qs_bytes_done(struct qs_bytes *bytes)
{
	free(bytes->data);
	*bytes = (struct qs_bytes){};
}

struct qs_bytes qs_bytes_copy(const void *data, size_t size)
{
	struct qs_bytes copy = { malloc(size ? size : 1), size };

	if (!copy.data)
		abort();
	if (size > 0)
		memcpy(copy.data, data, size);
	return copy;
}

static size_t text_size(size_t size)
{
	return (size + 2) / 3 * 4;
}

int qs_base64_decode(const char *text, size_t max, struct qs_bytes *ret)
{
	QS_AUTO(qs_bytes_done) struct qs_bytes bytes = {};
	QS_AUTO(qs_auto_free) char *again = NULL;
	size_t length = strnlen(text, text_size(max) + 1);
	size_t used = strspn(text, ALPHABET);

	if (length > text_size(max) || length > INT_MAX)
		return -EFBIG;
	/* OpenSSL also takes blanks around the text, and any bits behind the last byte. */
	if (length % 4 != 0 || length - used > 2 || strspn(text + used, "=") != length - used)
		return -EINVAL;
	bytes.data = malloc(length / 4 * 3 + 1);
	if (!bytes.data)
		abort();
	if (length > 0 && EVP_DecodeBlock(bytes.data, (const unsigned char *)text, (int)length) < 0)
		return -EINVAL;
	bytes.size = length / 4 * 3 - (length - used);
	if (bytes.size > max)
		return -EFBIG;
	again = qs_base64_encode(bytes.data, bytes.size);
	if (strcmp(again, text) != 0)
		return -EINVAL;
	*ret = bytes;
	bytes = (struct qs_bytes){};
	return 0;
}

char *qs_base64_encode(const void *data, size_t size)
{
	char *text = malloc(text_size(size) + 1);

	if (!text || size > INT_MAX)
		abort();
	text[0] = '\0';
	(void)EVP_EncodeBlock((unsigned char *)text, data, (int)size);
	return text;
}

int qs_base64_encode_secret(const struct qs_secret *secret, struct qs_secret *ret,
			    struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret text = {};
	/* OpenSSL writes a NUL behind the text, which is not part of it. */
	int r = qs_secret_init(&text, text_size(secret->size) + 1, err);

	if (r < 0)
		return r;
	(void)EVP_EncodeBlock(text.data, secret->data, (int)secret->size);
	text.size--;
	*ret = qs_secret_move(&text);
	return 0;
}

/* The other alphabet is translated; of both, only what an encoder writes passes. */
int qs_base64url_decode(const char *text, size_t max, struct qs_bytes *ret)
{
	size_t length = strlen(text);
	QS_AUTO(qs_auto_free) char *usual = NULL;

	if (length > max * 2 + 4)
		return -EFBIG;
	if (strpbrk(text, "+/="))
		return -EINVAL;
	usual = qs_printf("%s%.*s", text, (int)(3 - (length + 3) % 4), "===");
	for (char *c = usual; *c; c++)
		if (*c == '-' || *c == '_')
			*c = *c == '-' ? '+' : '/';
	return qs_base64_decode(usual, max, ret);
}
