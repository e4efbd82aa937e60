/*
 * The exchanges in tests/vectors/kmip, for tests. Include it behind cmocka's header.
 */
#ifndef QS_TESTS_EXCHANGES_H
#define QS_TESTS_EXCHANGES_H

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/env.h"

#define VECTORS QS_SOURCE "/tests/vectors/kmip"

struct bytes {
	unsigned char data[4096];
	size_t size;
};

struct exchange {
	char file[64], name[256];
	struct bytes request, response;
};

static inline void add_hex(struct bytes *b, const char *hex)
{
	unsigned byte;

	for (; sscanf(hex, "%2x", &byte) == 1; hex += 2) {
		assert_true(b->size < sizeof(b->data));
		b->data[b->size++] = (unsigned char)byte;
	}
}

/* Call CHECK with every exchange of FILE. Returns how many. */
static inline int each(const char *file, void (*check)(const struct exchange *e))
{
	QS_AUTO(qs_auto_free) char *path = qs_printf(VECTORS "/%s", file);
	QS_AUTO(qs_auto_fclose) FILE *f = fopen(path, "r");
	struct exchange e = {};
	struct bytes *into = NULL;
	char line[256];
	int count = 0;

	if (!f)
		fail_msg("cannot read %s", path);
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "exchange ", 9) == 0) {
			e = (struct exchange){};
			(void)snprintf(e.file, sizeof(e.file), "%s", file);
			(void)snprintf(e.name, sizeof(e.name), "%s", line + 9);
		} else if (strncmp(line, "request ", 8) == 0) {
			into = &e.request;
		} else if (strncmp(line, "response ", 9) == 0) {
			into = &e.response;
		} else if (!*line && into) {
			check(&e);
			count++;
			into = NULL;
		} else if (into && *line != '#') {
			add_hex(into, line);
		}
	}
	if (into)
		check(&e);
	return count + (into != NULL);
}

#endif
