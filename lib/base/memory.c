#include "base/memory.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/env.h"

/* The number in a file of a cgroup; 0 for "max", and when there is none. */
static uint64_t read_limit(const char *path)
{
	QS_AUTO(qs_auto_fclose) FILE *f = fopen(path, "re");
	char line[64];

	return f && fgets(line, sizeof(line), f) ? strtoull(line, NULL, 10) : 0;
}

static uint64_t smaller_limit(uint64_t a, uint64_t b)
{
	return a > 0 && (b == 0 || a < b) ? a : b;
}

static bool has_word(const char *list, const char *word)
{
	size_t length = strlen(word);

	for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
		if (strcspn(p, ",") == length && strncmp(p, word, length) == 0)
			return true;
	return false;
}

/* The smallest limit of the cgroup PATH and those above it. BASE is where the hierarchy is mounted.
 */
static uint64_t limit_of(const char *base, char *path, const char *file)
{
	uint64_t limit = 0;
	char *slash;

	for (;;) {
		QS_AUTO(qs_auto_free) char *full = qs_printf("%s%s/%s", base, path, file);

		limit = smaller_limit(limit, read_limit(full));
		slash = strrchr(path, '/');
		if (!slash)
			return limit;
		*slash = '\0';
	}
}

/*
 * A line of /proc/self/cgroup is "ID:CONTROLLERS:PATH" (cgroups(7)); version 2
 * has no controllers there, version 1 a hierarchy with "memory" among them.
 */
uint64_t qs_memory_cgroup(const char *root)
{
	QS_AUTO(qs_auto_free) char *own = qs_printf("%s/proc/self/cgroup", root);
	QS_AUTO(qs_auto_free) char *v1 = qs_printf("%s/sys/fs/cgroup/memory", root);
	QS_AUTO(qs_auto_free) char *v2 = qs_printf("%s/sys/fs/cgroup", root);
	QS_AUTO(qs_auto_fclose) FILE *f = fopen(own, "re");
	char line[4096 + 64];
	uint64_t limit = 0;

	while (f && fgets(line, sizeof(line), f)) {
		char *rest = line;

		line[strcspn(line, "\n")] = '\0';
		(void)strsep(&rest, ":");
		if (rest && rest[0] == ':')
			limit = smaller_limit(limit, limit_of(v2, rest + 1, "memory.max"));
		else if (rest && has_word(strsep(&rest, ":"), "memory") && rest)
			limit = smaller_limit(limit, limit_of(v1, rest, "memory.limit_in_bytes"));
	}
	return limit;
}

uint64_t qs_memory_default(void)
{
	uint64_t ram = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	return smaller_limit(ram, qs_memory_cgroup("")) / 2;
}
