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

int qs_device_self(const struct qs_device *dev, struct stat *ret)
{
	*ret = (struct stat){ .st_mode = S_IFBLK, .st_rdev = dev->devno };
	return dev->kind == QS_DEVICE_IMAGE && stat(dev->node, ret) < 0 ? -errno : 0;
}

int qs_spec_leads_to(const struct qs_env *env, const char *path, const struct stat *self)
{
	struct stat st;
	int r = qs_spec_stat(env, path, &st, NULL);

	if (r < 0)
		return r == -ENOENT || r == -ENOTDIR || r == -ELOOP ? 0 : r;
	if (S_ISBLK(self->st_mode))
		return S_ISBLK(st.st_mode) && st.st_rdev == self->st_rdev;
	return st.st_dev == self->st_dev && st.st_ino == self->st_ino;
}

int qs_device_leads_to(const struct qs_env *env, const char *spec, const struct qs_device *dev)
{
	QS_AUTO(qs_auto_free) char *path = qs_spec_path(spec);
	struct stat self;
	int r = qs_device_self(dev, &self);

	return r < 0 || !path ? r : qs_spec_leads_to(env, path, &self);
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
