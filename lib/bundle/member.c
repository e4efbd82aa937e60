#define _GNU_SOURCE
#include "bundle/member.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "base/file.h"

/* ---- names ---- */

static const struct place {
	const char *name; /* with a slash at its end: a directory */
	bool deep;        /* directories in it too */
	enum qs_member_kind kind;
} places[] = {
	{ QS_MEMBER_MANIFEST_NAME, false, QS_MEMBER_MANIFEST },
	{ "crypttab", false, QS_MEMBER_CRYPTTAB },
	{ "fstab", false, QS_MEMBER_FSTAB },
	{ QS_MEMBER_CONF "qs-util.conf", false, QS_MEMBER_CONFIG },
	{ QS_MEMBER_KEYS, false, QS_MEMBER_KEY },
	{ QS_MEMBER_HEADERS, false, QS_MEMBER_HEADER },
	{ QS_MEMBER_KEYSTORE, true, QS_MEMBER_STORE },
	{ QS_MEMBER_CONF "retired/", true, QS_MEMBER_STORE },
};

/* One part of a name: not empty, not hidden ("." and ".." are that too), nothing unprintable. */
static bool is_part(const char *part, size_t length)
{
	const char *suffix = QS_TEMPORARY_SUFFIX;

	if (length == 0 || part[0] == '.')
		return false;
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)part[i] < ' ' || part[i] == 0x7f || part[i] == '\\')
			return false;
	return length < strlen(suffix) ||
	       memcmp(part + length - strlen(suffix), suffix, strlen(suffix)) != 0;
}

static bool has_good_parts(const char *name)
{
	for (const char *p = name;; p++) {
		size_t length = strcspn(p, "/");

		if (!is_part(p, length))
			return false;
		p += length;
		if (*p == '\0')
			return true;
	}
}

static bool is_in_place(const char *name, const struct place *place)
{
	size_t length = strlen(place->name);

	if (place->name[length - 1] != '/')
		return strcmp(name, place->name) == 0;
	return strncmp(name, place->name, length) == 0 &&
	       (place->deep || !strchr(name + length, '/'));
}

int qs_member_check(const char *name, enum qs_member_kind *ret, struct qs_error *err)
{
	for (size_t i = 0; has_good_parts(name) && i < QS_ARRAY_SIZE(places); i++) {
		if (!is_in_place(name, &places[i]))
			continue;
		if (ret)
			*ret = places[i].kind;
		return 0;
	}
	return qs_fail(err, QS_E_FAILED,
		       "'%s' has no place in a key bundle; a newer qs-util may know it", name);
}

const char *qs_member_file(const char *name)
{
	const char *slash = strrchr(name, '/');

	return slash ? slash + 1 : name;
}

/* ---- writing ---- */

static int put(struct qs_member_writer *w, const void *data, size_t size, struct qs_error *err)
{
	w->written += size;
	return size > 0 ? w->sink(w->cookie, data, size, err) : 0;
}

static int pad(struct qs_member_writer *w, struct qs_error *err)
{
	static const unsigned char zeros[QS_TAR_BLOCK];
	size_t behind = (size_t)(w->written % QS_TAR_BLOCK);

	return put(w, zeros, behind ? QS_TAR_BLOCK - behind : 0, err);
}

int qs_member_begin(struct qs_member_writer *w, const struct qs_tar_header *h, struct qs_error *err)
{
	unsigned char block[QS_TAR_BLOCK];

	if (!qs_tar_fits(h->name))
		return qs_fail(err, QS_E_FAILED,
			       "the name %s is too long for a tar archive (100 bytes); give the "
			       "file a shorter one",
			       h->name);
	if (h->size > QS_MEMBER_MAX)
		return qs_fail(err, QS_E_FAILED, "%s has %ju bytes; a bundle takes %u", h->name,
			       (uintmax_t)h->size, QS_MEMBER_MAX);
	qs_tar_encode(h, block);
	w->due = h->size;
	return put(w, block, sizeof(block), err);
}

int qs_member_write(struct qs_member_writer *w, const void *data, size_t size, struct qs_error *err)
{
	int r = put(w, data, size, err);

	w->due -= size;
	return r < 0 || w->due > 0 ? r : pad(w, err);
}

/* Two blocks of zeros. (Records of 10 KiB are for tapes; tar reads a pipe without them.) */
int qs_member_end(struct qs_member_writer *w, struct qs_error *err)
{
	static const unsigned char zeros[2 * QS_TAR_BLOCK];

	return put(w, zeros, sizeof(zeros), err);
}

/* ---- reading ---- */

struct reader {
	qs_member_source *source;
	void *cookie;
	uint64_t left; /* bytes that the source still has */
	void *seen;    /* names, for tsearch() */
	unsigned count;
};

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

static int remember(struct reader *r, const char *name, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *copy = qs_strdup(name);
	char *const *found = tsearch(copy, &r->seen, by_name);

	if (!found)
		return qs_fail(err, QS_E_MEMORY, "no memory for the names in the bundle");
	if (*found != copy)
		return qs_fail(err, QS_E_FAILED, "it holds '%s' twice", name);
	copy = NULL;
	if (++r->count > QS_MEMBERS_MAX)
		return qs_fail(err, QS_E_FAILED, "it holds more than %u files", QS_MEMBERS_MAX);
	return 0;
}

/* Checked before anything is allocated for it: a size in a header is a claim. */
static int check_left(const struct reader *r, uint64_t size, struct qs_error *err)
{
	return size <= r->left ? 0 : qs_fail(err, QS_E_FAILED, "the archive in it is cut off");
}

static int take(struct reader *r, void *data, size_t size, struct qs_error *err)
{
	int e = check_left(r, size, err);

	if (e < 0)
		return e;
	r->left -= size;
	return r->source(r->cookie, data, size, err);
}

static int skip_padding(struct reader *r, uint64_t size, struct qs_error *err)
{
	unsigned char rest[QS_TAR_BLOCK];
	size_t behind = (size_t)(size % QS_TAR_BLOCK);

	return behind ? take(r, rest, QS_TAR_BLOCK - behind, err) : 0;
}

static int read_content(struct reader *r, uint64_t size, struct qs_member *m, struct qs_error *err)
{
	int e;

	if (size > QS_MEMBER_MAX)
		return qs_fail(err, QS_E_FAILED, "'%s' claims to have %ju bytes", m->name,
			       (uintmax_t)size);
	e = check_left(r, size, err);
	if (e == 0 && size > 0) {
		e = qs_secret_init(&m->content, (size_t)size, err);
		if (e == 0)
			e = take(r, m->content.data, m->content.size, err);
	}
	return e < 0 ? e : skip_padding(r, size, err);
}

static void member_done(struct qs_member *m)
{
	qs_secret_done(&m->content);
}

/* Directories only say their mode; which ones there are follows from the files. */
static int read_one(struct reader *r, const struct qs_tar_header *h, qs_member_visit *visit,
		    void *cookie, struct qs_error *err)
{
	QS_AUTO(member_done) struct qs_member m = { .mtime = h->mtime };
	int e;

	if (h->directory)
		return 0;
	e = qs_member_check(h->name, &m.kind, err);
	if (e == 0 && r->count == 0 && m.kind != QS_MEMBER_MANIFEST)
		e = qs_fail(err, QS_E_FAILED, "it does not begin with a manifest");
	if (e == 0)
		e = remember(r, h->name, err);
	if (e < 0)
		return e;
	(void)memcpy(m.name, h->name, sizeof(m.name));
	e = read_content(r, h->size, &m, err);
	return e < 0 ? e : visit(&m, cookie, err);
}

static int read_all(struct reader *r, qs_member_visit *visit, void *cookie, struct qs_error *err)
{
	/* Directories count too: a walk over nothing but them must end. */
	for (unsigned headers = 0; headers <= 2 * QS_MEMBERS_MAX; headers++) {
		unsigned char block[QS_TAR_BLOCK];
		struct qs_tar_header h = {};
		int e = take(r, block, sizeof(block), err);

		if (e == 0)
			e = qs_tar_decode(block, &h, err);
		if (e == 0 && r->count == 0)
			return qs_fail(err, QS_E_FAILED, "it is empty");
		if (e <= 0)
			return e;
		e = read_one(r, &h, visit, cookie, err);
		if (e != 0)
			return e;
	}
	return qs_fail(err, QS_E_FAILED, "it holds too many directories");
}

int qs_members_read(qs_member_source *source, void *source_cookie, uint64_t total,
		    qs_member_visit *visit, void *cookie, struct qs_error *err)
{
	struct reader r = { .source = source, .cookie = source_cookie, .left = total };
	int e = read_all(&r, visit, cookie, err);

	tdestroy(r.seen, free);
	return e;
}
