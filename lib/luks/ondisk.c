#define OPENSSL_SUPPRESS_DEPRECATED /* SHA256_Init() and its like, see sum_sha256() */
#include "luks/ondisk.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/sha.h>

#include "base/cleanup.h"

_Static_assert(sizeof(struct qs_luks2_binary) == QS_LUKS2_BLOCK_L, "size in the specification");
_Static_assert(sizeof(struct qs_luks1_binary) == 592, "size in the specification");

const uint8_t qs_luks_magics[2][6] = {
	{ 'L', 'U', 'K', 'S', 0xba, 0xbe },
	{ 'S', 'K', 'U', 'L', 0xba, 0xbe },
};

struct part {
	const void *data;
	size_t size;
};

/*
 * Every tool sums with SHA-256. OpenSSL's own function for it, because the EVP
 * interface first builds its tables of algorithms, which takes longer than all
 * the rest of reading a header.
 */
static bool sum_sha256(const struct part parts[3], uint8_t ret[QS_LUKS2_SUM_L])
{
	SHA256_CTX ctx;
	bool ok = SHA256_Init(&ctx);

	for (size_t i = 0; ok && i < 3; i++)
		ok = SHA256_Update(&ctx, parts[i].data, parts[i].size);
	return ok && SHA256_Final(ret, &ctx);
}

static int sum_other(const char *name, const struct part parts[3], uint8_t ret[QS_LUKS2_SUM_L])
{
	EVP_MD *md = EVP_MD_fetch(NULL, name, NULL);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = md && EVP_MD_get_size(md) <= QS_LUKS2_SUM_L && ctx && EVP_DigestInit(ctx, md);

	for (size_t i = 0; ok && i < 3; i++)
		ok = EVP_DigestUpdate(ctx, parts[i].data, parts[i].size);
	ok = ok && EVP_DigestFinal(ctx, ret, NULL);
	EVP_MD_CTX_free(ctx);
	EVP_MD_free(md);
	return ok ? 0 : -EINVAL;
}

int qs_luks2_checksum(const void *copy, size_t size, uint8_t ret[QS_LUKS2_SUM_L])
{
	static const uint8_t zeros[QS_LUKS2_SUM_L];
	const struct qs_luks2_binary *b = copy;
	const size_t before = offsetof(struct qs_luks2_binary, sum),
		     behind = before + sizeof(b->sum);
	const struct part parts[] = {
		{ copy, before },
		{ zeros, sizeof(zeros) }, /* the field of the checksum itself counts as zeros */
		{ (const uint8_t *)copy + behind, size - behind },
	};

	if (size < QS_LUKS2_BLOCK_L || !memchr(b->sum_name, '\0', sizeof(b->sum_name)))
		return -EINVAL;
	memset(ret, 0, QS_LUKS2_SUM_L);
	if (strcmp(b->sum_name, "sha256") == 0)
		return sum_sha256(parts, ret) ? 0 : -EINVAL;
	return sum_other(b->sum_name, parts, ret);
}
