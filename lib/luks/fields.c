#include "luks/fields.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *qs_fields_text(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

bool qs_fields_decimal(const json_t *object, const char *name, uint64_t *ret)
{
	const char *text = qs_fields_text(object, name);
	unsigned long long value;
	char *end;

	/* strtoull() alone would also take a sign, blanks and "". */
	if (!text || text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno != 0 || *end != '\0')
		return false;
	*ret = value;
	return true;
}

bool qs_fields_number(const json_t *object, const char *name, uint64_t *ret)
{
	const json_t *value = json_object_get(object, name);

	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return false;
	*ret = (uint64_t)json_integer_value(value);
	return true;
}

bool qs_fields_lists(const json_t *array, const char *word)
{
	for (size_t i = 0; i < json_array_size(array); i++) {
		const char *item = json_string_value(json_array_get(array, i));

		if (item && strcmp(item, word) == 0)
			return true;
	}
	return false;
}

int qs_fields_slot(const char *number)
{
	size_t length = strspn(number, "0123456789");
	long n;

	if (length < 1 || length > 2 || number[length] != '\0' || (length == 2 && *number == '0'))
		return -1;
	n = strtol(number, NULL, 10);
	return n < 32 ? (int)n : -1;
}

const json_t *qs_fields_segment(const json_t *json)
{
	return json_object_get(json_object_get(json, "segments"), "0");
}

const json_t *qs_fields_digest(const json_t *json)
{
	json_t *digests = json_object_get(json, "digests");
	const json_t *found = NULL;
	const char *number;
	const json_t *digest;

	json_object_foreach(digests, number, digest)
	{
		if (!qs_fields_lists(json_object_get(digest, "segments"), "0"))
			continue;
		if (found)
			return NULL;
		found = digest;
	}
	return found;
}

const char *qs_fields_printable(char *ret, size_t size, const char *s, size_t length)
{
	size_t n = strnlen(s, length < size - 1 ? length : size - 1);

	memcpy(ret, s, n);
	for (size_t i = 0; i < n; i++)
		if (ret[i] < ' ' || ret[i] > '~')
			ret[i] = '?';
	ret[n] = '\0';
	return ret;
}
