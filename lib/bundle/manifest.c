#include "bundle/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "base/utf8.h"
#include "bundle/member.h"
#include "tab/crypttab.h"

#define FORMAT "qs-util key bundle"
#define VERSION 1

json_t *qs_manifest_new(const char *host, const char *created)
{
	return json_pack("{s:s,s:i,s:o,s:s,s:[],s:[]}", "format", FORMAT, "version", VERSION,
			 "host", qs_utf8_json(host), "created", created, "devices", "files");
}

void qs_manifest_add_device(json_t *manifest, const struct qs_manifest_device *d)
{
	json_t *device =
		json_pack("{s:o,s:o,s:o,s:s,s:b,s:s}", "name", qs_utf8_json(d->name), "device",
			  qs_utf8_json(d->device), "key", qs_utf8_json(d->key), "uuid", d->uuid,
			  "in_crypttab", d->in_crypttab, "options", d->options);

	(void)json_array_append_new(json_object_get(manifest, "devices"), device);
}

void qs_manifest_add_file(json_t *manifest, const char *name, size_t size, const char *sum)
{
	json_t *file = json_pack("{s:o,s:I,s:s*}", "name", qs_utf8_json(name), "size",
				 (json_int_t)size, "sha256", *sum ? sum : NULL);

	(void)json_array_append_new(json_object_get(manifest, "files"), file);
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* All that is checked of a line but the key's path, which follows from where it is restored. */
static int check_device(const struct qs_manifest_device *d, struct qs_error *err)
{
	enum qs_member_kind kind = QS_MEMBER_KEY;
	int r = qs_crypttab_check(d->name, d->device, "none", *d->options ? d->options : "luks",
				  err);

	if (r == 0 && *d->key)
		r = qs_member_check(d->key, &kind, err);
	if (r == 0 && kind != QS_MEMBER_KEY)
		r = qs_fail(err, QS_E_FAILED, "its manifest names %s as the key of %s", d->key,
			    d->name);
	if (r == 0 && strspn(d->uuid, "0123456789abcdefABCDEF-") != strlen(d->uuid))
		r = qs_fail(err, QS_E_FAILED, "its manifest has a UUID of %s that is none",
			    d->name);
	return r;
}

static int parse_device(const json_t *object, struct qs_manifest *m, struct qs_error *err)
{
	struct qs_manifest_device *d = &m->devices[m->count++];

	*d = (struct qs_manifest_device){
		.name = qs_strdup(text_of(object, "name")),
		.device = qs_strdup(text_of(object, "device")),
		.key = qs_strdup(text_of(object, "key")),
		.uuid = qs_strdup(text_of(object, "uuid")),
		.options = qs_strdup(text_of(object, "options")),
		.in_crypttab = json_is_true(json_object_get(object, "in_crypttab")),
	};
	return check_device(d, err);
}

static int parse_devices(const json_t *list, struct qs_manifest *m, struct qs_error *err)
{
	size_t count = json_array_size(list);

	if (count > QS_MEMBERS_MAX)
		return qs_fail(err, QS_E_FAILED, "its manifest names %zu devices", count);
	m->devices = calloc(count + 1, sizeof(*m->devices));
	if (!m->devices)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", count);
	for (size_t i = 0; i < count; i++) {
		int r = parse_device(json_array_get(list, i), m, err);

		if (r < 0)
			return r;
	}
	return 0;
}

int qs_manifest_parse(const char *text, size_t size, struct qs_manifest *ret, struct qs_error *err)
{
	QS_AUTO(qs_manifest_done) struct qs_manifest m = {};
	QS_AUTO(qs_auto_json)
	json_t *root = size <= QS_MANIFEST_MAX
			       ? json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL)
			       : NULL;
	json_int_t version = json_integer_value(json_object_get(root, "version"));
	int r;

	if (strcmp(text_of(root, "format"), FORMAT) != 0 || version < 1)
		return qs_fail(err, QS_E_FAILED, "its manifest cannot be understood");
	if (version > VERSION)
		return qs_fail(err, QS_E_FAILED,
			       "it was made by a newer qs-util (its format is %jd, this one knows "
			       "%d); use that one",
			       (intmax_t)version, VERSION);
	m.host = qs_strdup(text_of(root, "host"));
	m.created = qs_strdup(text_of(root, "created"));
	r = parse_devices(json_object_get(root, "devices"), &m, err);
	if (r < 0)
		return r;
	*ret = m;
	m = (struct qs_manifest){};
	return 0;
}

void qs_manifest_device_copy(const struct qs_manifest_device *d, struct qs_manifest_device *ret)
{
	*ret = (struct qs_manifest_device){
		.name = qs_strdup(d->name),
		.device = qs_strdup(d->device),
		.key = qs_strdup(d->key),
		.uuid = qs_strdup(d->uuid),
		.options = qs_strdup(d->options),
		.in_crypttab = d->in_crypttab,
	};
}

void qs_manifest_device_done(struct qs_manifest_device *d)
{
	free(d->name);
	free(d->device);
	free(d->key);
	free(d->uuid);
	free(d->options);
	*d = (struct qs_manifest_device){};
}

void qs_manifest_done(struct qs_manifest *m)
{
	for (size_t i = 0; i < m->count; i++)
		qs_manifest_device_done(&m->devices[i]);
	free(m->devices);
	free(m->host);
	free(m->created);
	*m = (struct qs_manifest){};
}
