/*
 * The archive inside a key bundle, and its manifest. What is visited has a name
 * that leads nowhere else, and no name comes twice.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "bundle/manifest.h"
#include "bundle/member.h"
#include "tab/crypttab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *data;
	size_t left;
	char last[QS_TAR_NAME_L];
	size_t visited;
};

static void demand(bool holds)
{
	if (!holds)
		abort();
}

static int fetch(void *cookie, void *data, size_t size, struct qs_error *err)
{
	struct input *in = cookie;

	(void)err;
	demand(size <= in->left);
	memcpy(data, in->data, size);
	in->data += size;
	in->left -= size;
	return 0;
}

static void check_manifest(const struct qs_member *m)
{
	QS_AUTO(qs_manifest_done) struct qs_manifest manifest = {};

	if (qs_manifest_parse(m->content.data ? m->content.data : "", m->content.size, &manifest,
			      NULL) < 0)
		return;
	for (size_t i = 0; i < manifest.count; i++) {
		const struct qs_manifest_device *d = &manifest.devices[i];
		enum qs_member_kind kind = QS_MEMBER_KEY;

		demand(!strchr(d->name, '/') && *d->name);
		demand(!strpbrk(d->options, " \t\n"));
		demand(!strchr(d->uuid, '/'));
		demand(!*d->key || (qs_member_check(d->key, &kind, NULL) == 0));
		demand(kind == QS_MEMBER_KEY);
	}
}

static int visit(struct qs_member *m, void *cookie, struct qs_error *err)
{
	struct input *in = cookie;

	(void)err;
	demand((in->visited++ == 0) == (m->kind == QS_MEMBER_MANIFEST));
	demand(m->name[0] != '/' && m->name[0] != '.' && !strstr(m->name, "/."));
	demand(strcmp(m->name, in->last) != 0);
	memcpy(in->last, m->name, sizeof(in->last));
	if (m->kind == QS_MEMBER_MANIFEST)
		check_manifest(m);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { .data = data, .left = size };

	if (qs_members_read(fetch, &in, size, visit, &in, NULL) == 0)
		demand(in.visited > 0);
	return 0;
}
