#include "base/sum.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "base/cleanup.h"

#define MEMBER "sum"

void qs_sum(const void *data, size_t size, char ret[static QS_SUM_L])
{
	unsigned char sum[SHA256_DIGEST_LENGTH];

	/* No libcrypto is without it: this is memory that is not to be had. */
	if (!SHA256(data, size, sum))
		abort();
	for (size_t i = 0; i < sizeof(sum); i++)
		(void)snprintf(ret + 2 * i, 3, "%02x", sum[i]);
}

static void sum_others(const json_t *object, char ret[static QS_SUM_L])
{
	QS_AUTO(qs_auto_json) json_t *others = json_copy((json_t *)object);
	QS_AUTO(qs_auto_free) char *text = NULL;

	(void)json_object_del(others, MEMBER);
	text = json_dumps(others, JSON_COMPACT | JSON_SORT_KEYS);
	if (!text)
		abort();
	qs_sum(text, strlen(text), ret);
}

char *qs_sum_print(json_t *object)
{
	char sum[QS_SUM_L];

	if (!object)
		return NULL;
	sum_others(object, sum);
	return json_object_set_new(object, MEMBER, json_string(sum)) == 0
		       ? json_dumps(object, JSON_INDENT(2))
		       : NULL;
}

int qs_sum_check(const json_t *object, const char *path, struct qs_error *err)
{
	const json_t *member = json_object_get(object, MEMBER);
	const char *text = json_string_value(member);
	char sum[QS_SUM_L];

	if (!member)
		return 0;
	sum_others(object, sum);
	if (text && strcmp(text, sum) == 0)
		return 0;
	return qs_fail(err, QS_E_CONFIG,
		       "%s is not usable: its contents are not what its sum was made of, so "
		       "something has changed them; take it from a key bundle (keyrestore), or, "
		       "if it was edited on purpose, remove its member \"" MEMBER "\"",
		       path);
}

size_t qs_sum_others(const json_t *object)
{
	return json_object_size(object) - (json_object_get(object, MEMBER) != NULL);
}
