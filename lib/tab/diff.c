#define _GNU_SOURCE
#include "tab/diff.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tab/line.h"

#define CONTEXT 3

/* How far apart equal lines are looked for behind a difference; beyond, all is replaced. */
#define REACH 4000

struct lines {
	const char **start; /* COUNT + 1: the last one is the end of the text */
	size_t count;
};

/* [a, a + na) of the old lines became [b, b + nb) of the new ones. */
struct change {
	size_t a, na, b, nb;
};

struct diff {
	struct lines old, new;
	struct change *changes;
	size_t count;
};

static void *must_have(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

static struct lines split(const char *text, size_t size)
{
	struct lines l = {};
	const char *line;
	size_t at = 0, n = 0;

	while (qs_tab_next(text, size, &at, &line) > 0)
		n++;
	l.start = must_have(calloc(n + 1, sizeof(*l.start)));
	for (at = 0; qs_tab_next(text, size, &at, &line) > 0;)
		l.start[l.count++] = line;
	l.start[n] = text + size;
	return l;
}

static size_t size_of(const struct lines *l, size_t i)
{
	return (size_t)(l->start[i + 1] - l->start[i]);
}

static bool same(const struct diff *d, size_t a, size_t b)
{
	size_t size = size_of(&d->old, a);

	return size == size_of(&d->new, b) && memcmp(d->old.start[a], d->new.start[b], size) == 0;
}

/* The nearest pair of equal lines at or behind A and B; both ends when there is none in reach. */
static void find_equal(const struct diff *d, size_t *a, size_t *b)
{
	for (size_t away = 1; away <= REACH; away++)
		for (size_t i = 0; i <= away; i++) {
			size_t x = *a + i, y = *b + away - i;

			if (x >= d->old.count || y >= d->new.count || !same(d, x, y))
				continue;
			*a = x;
			*b = y;
			return;
		}
	*a = d->old.count;
	*b = d->new.count;
}

static void compare(struct diff *d)
{
	size_t a = 0, b = 0;

	while (a < d->old.count || b < d->new.count) {
		struct change c = { .a = a, .b = b };

		if (a < d->old.count && b < d->new.count &&same(d, a, b)) {
			a++;
			b++;
			continue;
		}
		find_equal(d, &a, &b);
		c.na = a - c.a;
		c.nb = b - c.b;
		d->changes = must_have(realloc(d->changes, (d->count + 1) * sizeof(*d->changes)));
		d->changes[d->count++] = c;
	}
}

static void put(FILE *out, char mark, const struct lines *l, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++) {
		size_t size = size_of(l, i);

		fputc(mark, out);
		for (size_t k = 0; k < size; k++)
			fputc(l->start[i][k] ? l->start[i][k] : '?', out);
		if (size == 0 || l->start[i][size - 1] != '\n')
			fputs("\n\\ No newline at end of file\n", out);
	}
}

/* As in "@@ -3,7 +3,6 @@": an empty range is numbered by the line before it. */
static void put_range(FILE *out, const char *mark, size_t from, size_t count)
{
	fprintf(out, "%s%zu", mark, count > 0 ? from + 1 : from);
	if (count != 1)
		fprintf(out, ",%zu", count);
}

/* One hunk: changes FIRST to LAST, which are so near that their contexts meet. */
static void put_hunk(FILE *out, const struct diff *d, size_t first, size_t last)
{
	const struct change *begin = &d->changes[first], *end = &d->changes[last];
	size_t before = begin->a < CONTEXT ? begin->a : CONTEXT;
	size_t left = d->old.count - (end->a + end->na);
	size_t after = left < CONTEXT ? left : CONTEXT;
	size_t a = begin->a - before, b = begin->b - before;

	put_range(out, "@@ -", a, end->a + end->na + after - a);
	put_range(out, " +", b, end->b + end->nb + after - b);
	fputs(" @@\n", out);
	for (size_t i = first; i <= last; i++) {
		const struct change *c = &d->changes[i];

		put(out, ' ', &d->old, a, c->a);
		put(out, '-', &d->old, c->a, c->a + c->na);
		put(out, '+', &d->new, c->b, c->b + c->nb);
		a = c->a + c->na;
	}
	put(out, ' ', &d->old, a, a + after);
}

char *qs_diff(const char *path, const char *old, size_t old_size, const char *new, size_t new_size)
{
	struct diff d = { .old = split(old, old_size), .new = split(new, new_size) };
	char *text = NULL;
	size_t size;
	FILE *out = must_have(open_memstream(&text, &size));

	compare(&d);
	if (d.count > 0)
		fprintf(out, "--- %s\n+++ %s\n", path, path);
	for (size_t first = 0, last; first < d.count; first = last + 1) {
		for (last = first; last + 1 < d.count; last++)
			if (d.changes[last + 1].a - (d.changes[last].a + d.changes[last].na) >
			    2 * (size_t)CONTEXT)
				break;
		put_hunk(out, &d, first, last);
	}
	if (fclose(out) != 0)
		abort();
	free(d.changes);
	free(d.old.start);
	free(d.new.start);
	return text;
}
