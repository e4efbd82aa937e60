#include "tab/line.h"

#include <string.h>

bool qs_tab_is_space(char c)
{
	/* '\t' to '\r' are neighbours: tab, newline, vertical tab, form feed, CR. */
	return c == ' ' || (c >= '\t' && c <= '\r');
}

size_t qs_tab_split(const char *line, size_t size, struct qs_tab_field *fields, size_t max)
{
	const char *end = line + size;
	size_t count = 0;

	while (count < max) {
		while (line < end && qs_tab_is_space(*line))
			line++;
		if (line == end || (count == 0 && *line == '#'))
			break;
		fields[count].start = line;
		while (line < end && !qs_tab_is_space(*line))
			line++;
		fields[count].size = (size_t)(line - fields[count].start);
		count++;
	}
	return count;
}

size_t qs_tab_next(const char *text, size_t size, size_t *at, const char **ret_line)
{
	const char *line = text + *at;
	const char *newline;
	size_t length;

	if (*at >= size)
		return 0;
	newline = memchr(line, '\n', size - *at);
	length = newline ? (size_t)(newline - line) + 1 : size - *at;
	*ret_line = line;
	*at += length;
	return length;
}
