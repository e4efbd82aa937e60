#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include <blkid/blkid.h>

#include "base/cleanup.h"
#include "device/internal.h"

static const struct {
	const char *tag;
	const char *directory;
} tags[] = {
	{ "UUID=", QS_BY_UUID },
	{ "LABEL=", "/dev/disk/by-label/" },
	{ "PARTUUID=", QS_BY_PARTUUID },
	{ "PARTLABEL=", "/dev/disk/by-partlabel/" },
	{ "ID=", QS_BY_ID },
};

/* The link that udev makes for a tag: its file name is encoded as in udev's rules. */
static char *tag_path(const char *directory, const char *value)
{
	QS_AUTO(qs_auto_free) char *bare = NULL;
	int length = (int)strlen(value);
	char encoded[4 * 255 + 1];

	if (length >= 2 && (*value == '"' || *value == '\'') && value[length - 1] == *value)
		bare = qs_printf("%.*s", length - 2, value + 1);
	else
		bare = qs_strdup(value);
	if (*bare == '\0' || blkid_encode_string(bare, encoded, sizeof(encoded)) != 0)
		return NULL;
	return qs_printf("%s%s", directory, encoded);
}

char *qs_spec_path(const char *spec)
{
	for (size_t i = 0; i < QS_ARRAY_SIZE(tags); i++)
		if (strncmp(spec, tags[i].tag, strlen(tags[i].tag)) == 0)
			return tag_path(tags[i].directory, spec + strlen(tags[i].tag));
	return *spec == '/' ? qs_strdup(spec) : NULL;
}

int qs_spec_stat(const struct qs_env *env, const char *path, struct stat *ret, char **ret_real)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
	int r = stat(real, ret) < 0 ? -errno : 0;

	/* What a user types is often real already: --root=/var/x with /var/x/disk.img. */
	if (r == -ENOENT && strncmp(path, "/dev/disk/", strlen("/dev/disk/")) != 0) {
		free(real);
		real = qs_strdup(path);
		r = stat(real, ret) < 0 ? -errno : 0;
	}
	if (r == 0 && ret_real)
		*ret_real = QS_TAKE(real);
	return r;
}

int qs_device_node_of(const struct qs_env *env, const char *spec, char **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_spec_path(spec);
	QS_AUTO(qs_auto_free) char *real = NULL;
	struct stat st;
	int r = path ? qs_spec_stat(env, path, &st, &real) : -ENOENT;

	if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
		return 0;
	if (r == 0) {
		*ret = realpath(real, NULL);
		r = *ret ? 1 : -errno;
	}
	return r < 0 ? qs_fail_errno(err, r, "cannot look at %s", path) : r;
}
