#include "base/utf8.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The length in bytes that a first byte announces; 0: none can begin with it. */
static size_t announced(unsigned char first)
{
	if (first < 0x80)
		return 1;
	if (first >> 5 == 0x6)
		return 2;
	if (first >> 4 == 0xE)
		return 3;
	return first >> 3 == 0x1E ? 4 : 0;
}

/* The code point at S and its length in bytes (RFC 3629); 0 when it is no UTF-8. */
static size_t decode(const unsigned char *s, uint32_t *ret)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t length = announced(s[0]);
	uint32_t c = length > 1 ? s[0] & (0x7FU >> length) : s[0];

	for (size_t i = 1; i < length; i++) {
		if (s[i] >> 6 != 2) /* the NUL at the end too */
			return 0;
		c = c << 6 | (s[i] & 0x3FU);
	}
	if (c < least[length] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
		return 0;
	*ret = c;
	return length;
}

/* What a terminal would obey instead of showing it. */
static bool is_control(uint32_t c)
{
	return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x200E || c == 0x200F ||
	       (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}

static char *escape(const char *s, bool controls)
{
	const unsigned char *in = (const unsigned char *)s;
	char *text = malloc(4 * strlen(s) + 1); /* \xNN for every byte */
	char *out = text;

	if (!text)
		abort();
	while (*in) {
		uint32_t c = 0;
		size_t length = decode(in, &c);
		bool keep = length > 0 && !(controls && is_control(c));

		for (size_t n = length > 0 ? length : 1; n > 0; n--, in++) {
			if (keep)
				*out++ = (char)*in;
			else
				out += sprintf(out, "\\x%02x", *in);
		}
	}
	*out = '\0';
	return text;
}

char *qs_utf8_printable(const char *s)
{
	return escape(s ? s : "", true);
}

json_t *qs_utf8_json(const char *s)
{
	char *valid;
	json_t *string;

	if (!s)
		return NULL;
	valid = escape(s, false);
	string = json_string(valid);
	free(valid);
	return string;
}
