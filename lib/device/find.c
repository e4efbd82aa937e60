#define _GNU_SOURCE
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "device/internal.h"
#include "tab/crypttab.h"

#define MAPPER "/dev/mapper/"

static bool starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

static const char *type_name(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return "a directory";
	case S_IFCHR:
		return "a character device";
	case S_IFIFO:
		return "a pipe";
	case S_IFSOCK:
		return "a socket";
	default:
		return "something unknown";
	}
}

static int fail_absent(const struct qs_env *env, const char *path, int r, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, path);
	char target[PATH_MAX];
	ssize_t n;

	if (r == -ELOOP)
		return qs_fail(err, QS_E_NO_DEVICE, "%s is a link that leads back to itself", path);
	if (r != -ENOENT && r != -ENOTDIR)
		return qs_fail_errno(err, r, "cannot look at %s", path);
	n = readlink(real, target, sizeof(target) - 1);
	if (n < 0)
		return qs_fail(err, QS_E_NO_DEVICE, "there is no %s", path);
	target[n] = '\0';
	return qs_fail(err, QS_E_NO_DEVICE, "%s is a link to %s, which does not exist", path,
		       target);
}

/*
 * A regular file where only devices belong: the leftover of a copy to a disk
 * that was absent, or a link that somebody planted. Below a root prefix a link
 * may stand for an image, but for one of that tree only.
 */
static int check_image(const struct qs_env *env, const char *path, const char *real,
		       struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *root = NULL;
	QS_AUTO(qs_auto_free) char *target = NULL;

	if (!starts_with(path, "/dev/") || starts_with(path, "/dev/shm/"))
		return 0;
	if (*env->root == '\0' || !starts_with(path, "/dev/disk/"))
		return qs_fail(err, QS_E_WRONG_DEVICE, "%s is a regular file and not a device",
			       path);
	root = realpath(env->root, NULL);
	target = realpath(real, NULL);
	if (!root || !target)
		return qs_fail_errno(err, errno, "cannot look at %s", path);
	if (starts_with(target, root) && target[strlen(root)] == '/')
		return 0;
	return qs_fail(err, QS_E_WRONG_DEVICE, "%s leads to %s, a file outside of %s", path, target,
		       env->root);
}

static int find_path(const struct qs_env *env, const char *path, const char *given,
		     struct qs_device **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *real = NULL;
	struct stat st;
	int r;

	path = qs_env_logical(env, path);
	r = qs_spec_stat(env, path, &st, &real);
	if (r < 0)
		return fail_absent(env, path, r, err);
	if (S_ISBLK(st.st_mode))
		return qs_inventory_block(env, st.st_rdev, given, ret, err);
	if (!S_ISREG(st.st_mode))
		return qs_fail(err, QS_E_WRONG_DEVICE, "%s is %s, not a disk or an image file",
			       path, type_name(st.st_mode));
	r = check_image(env, path, real, err);
	if (r < 0)
		return r;
	return qs_inventory_image(env, real, given, ret, err);
}

static bool is_uuid(const char *word)
{
	static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	size_t i;

	for (i = 0; shape[i] && word[i]; i++)
		if (shape[i] == '-' ? word[i] != '-' : !isxdigit((unsigned char)word[i]))
			return false;
	return shape[i] == '\0' && word[i] == '\0';
}

/* Block devices that udev knows with this UUID, as devices of their own. */
static int uuid_matches(const char *uuid, struct qs_devset *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_udev) struct udev *udev = udev_new();
	QS_AUTO(qs_auto_udev_enumerate) struct udev_enumerate *list = NULL;
	struct udev_list_entry *entry;
	int r;

	if (!udev || !(list = udev_enumerate_new(udev)))
		return qs_fail(err, QS_E_MEMORY, "out of memory");
	if ((r = udev_enumerate_add_match_subsystem(list, "block")) < 0 ||
	    (r = udev_enumerate_add_match_property(list, "ID_FS_UUID", uuid)) < 0 ||
	    (r = udev_enumerate_scan_devices(list)) < 0)
		return qs_fail_errno(err, r, "cannot list the block devices");
	udev_list_entry_foreach(entry, udev_enumerate_get_list_entry(list))
	{
		QS_AUTO(qs_auto_udev_device)
		struct udev_device *u =
			udev_device_new_from_syspath(udev, udev_list_entry_get_name(entry));

		if (u)
			qs_devset_add(ret, udev_device_get_devnum(u));
	}
	return 0;
}

/* Without those that belong to another match: the paths of a multipath map show its UUID too. */
static int drop_members(const struct qs_devset *found, struct qs_devset *ret, struct qs_error *err)
{
	for (size_t i = 0; i < found->count; i++) {
		QS_AUTO(qs_auto_free) char *name = NULL;
		dev_t parent;
		int r = qs_device_parent(found->items[i], &parent, &name, err);

		if (r < 0)
			return r;
		if (!qs_devset_has(found, parent))
			qs_devset_add(ret, found->items[i]);
	}
	return 0;
}

static int fail_two(const char *uuid, const struct qs_devset *found, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *first = qs_sysfs_name(found->items[0]);
	QS_AUTO(qs_auto_free) char *second = qs_sysfs_name(found->items[1]);

	return qs_fail(err, QS_E_FAILED,
		       "%zu devices have the UUID %s, /dev/%s and /dev/%s: name one of them by its "
		       "link in /dev/disk/by-id",
		       found->count, uuid, first, second);
}

static int find_uuid(const struct qs_env *env, const char *word, const char *given,
		     struct qs_device **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *uuid = qs_strdup(word);
	QS_AUTO(qs_auto_free) char *link = NULL;
	QS_AUTO(qs_devset_done) struct qs_devset found = {};
	QS_AUTO(qs_devset_done) struct qs_devset own = {};
	struct stat st;
	int linked, r;

	for (char *c = uuid; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	link = qs_printf(QS_BY_UUID "%s", uuid);
	linked = qs_spec_stat(env, link, &st, NULL);
	if (linked == 0 && S_ISBLK(st.st_mode))
		qs_devset_add(&found, st.st_rdev);
	r = uuid_matches(uuid, &found, err);
	if (r == 0)
		r = drop_members(&found, &own, err);
	if (r < 0)
		return r;
	if (own.count > 1)
		return fail_two(uuid, &own, err);
	if (own.count == 1)
		return qs_inventory_block(env, own.items[0], given, ret, err);
	if (linked == 0)
		return find_path(env, link, given, ret, err);
	return qs_fail(err, QS_E_NO_DEVICE, "no device has the UUID %s", uuid);
}

static int find_spec(const struct qs_env *env, const char *spec, const char *given,
		     struct qs_device **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = NULL;

	if (starts_with(spec, "UUID=") && is_uuid(spec + strlen("UUID=")))
		return find_uuid(env, spec + strlen("UUID="), given, ret, err);
	path = qs_spec_path(spec);
	if (!path)
		return qs_fail(err, QS_E_NO_DEVICE, "there is no %s", spec);
	return find_path(env, path, given, ret, err);
}

/* The mapping DEVNO is open: an encrypted one stands for the device below it, others for
 * themselves. */
static int find_below(const struct qs_env *env, dev_t devno, const char *given,
		      struct qs_device **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *uuid = qs_sysfs_text(devno, "dm/uuid");
	QS_AUTO(qs_devset_done) struct qs_devset slaves = {};
	int r;

	if (!uuid || !starts_with(uuid, "CRYPT-"))
		return qs_inventory_block(env, devno, given, ret, err);
	r = qs_sysfs_links(devno, "slaves", &slaves, err);
	if (r < 0)
		return r;
	if (slaves.count != 1)
		return qs_fail(err, QS_E_NO_DEVICE,
			       "the mapping %s is open, but the disk below it is gone", given);
	return qs_inventory_block(env, slaves.items[0], given, ret, err);
}

/*
 * A mapper name: open, or closed and in crypttab. Returns 1 when it is neither,
 * and then has not touched *err.
 */
static int find_mapper(const struct qs_env *env, const char *name, const char *given,
		       struct qs_device **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *node = qs_printf(MAPPER "%s", name);
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	const struct qs_crypttab_entry *entry;
	struct stat st;
	int r;

	if (stat(node, &st) == 0 && S_ISBLK(st.st_mode))
		return find_below(env, st.st_rdev, given, ret, err);
	r = qs_crypttab_load(env, &tab, err);
	if (r < 0)
		return r;
	entry = qs_crypttab_find(tab, name);
	if (!entry || !entry->device)
		return 1;
	r = find_spec(env, entry->device, given, ret, err);
	if (r < 0)
		qs_error_prefix(err, "%s is line %u of " QS_CRYPTTAB, name, entry->line);
	return r;
}

/* A word without a slash that is no UUID: mapper name, then file in the working directory. */
static int find_plain(const struct qs_env *env, const char *word, struct qs_device **ret,
		      struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *node = qs_printf("/dev/%s", word);
	struct stat st;
	int r = find_mapper(env, word, word, ret, err);

	if (r <= 0)
		return r;
	if (stat(word, &st) == 0)
		return find_path(env, word, word, ret, err);
	if (stat(node, &st) == 0 && S_ISBLK(st.st_mode))
		return qs_fail(err, QS_E_NO_DEVICE, "there is no %s here: do you mean %s?", word,
			       node);
	return qs_fail(err, QS_E_NO_DEVICE,
		       "%s is no device, no image file, no open mapping and not in " QS_CRYPTTAB,
		       word);
}

bool qs_device_is_absent(const struct qs_error *err)
{
	return err->kind == QS_E_NO_DEVICE || err->kind == QS_E_WRONG_DEVICE;
}

int qs_device_find(const struct qs_env *env, const char *word, struct qs_device **ret,
		   struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *tagged = NULL;
	int r;

	if (*word == '\0')
		return qs_fail(err, QS_E_NO_DEVICE, "an empty word names no device");
	for (const char *c = word; *c; c++)
		if (iscntrl((unsigned char)*c))
			return qs_fail(err, QS_E_NO_DEVICE,
				       "a name with control characters names no device");
	if (is_uuid(word))
		return find_uuid(env, word, word, ret, err);
	tagged = *word == '/' ? NULL : qs_spec_path(word);
	if (tagged)
		return find_spec(env, word, word, ret, err);
	if (!strchr(word, '/'))
		return find_plain(env, word, ret, err);
	if (!starts_with(word, MAPPER) || strchr(word + strlen(MAPPER), '/'))
		return find_path(env, word, word, ret, err);
	r = find_mapper(env, word + strlen(MAPPER), word, ret, err);
	return r > 0 ? find_path(env, word, word, ret, err) : r;
}
