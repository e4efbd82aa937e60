#define _GNU_SOURCE
#include "luks/mapping.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <linux/dm-ioctl.h>

#include "base/cleanup.h"

#define SYS_BLOCK "/sys/block"

/* One line of a sysfs file without its newline. Returns false when it cannot be read. */
static bool read_line(int dir, const char *file, char *ret, size_t size)
{
	QS_AUTO(qs_auto_close) int fd = openat(dir, file, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);

	if (n < 0)
		return false;
	ret[n] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return true;
}

/* "CRYPT-LUKS2-0123...cdef-NAME" (libcryptsetup's dm_prepare_uuid) to version and dashed UUID. */
static bool parse_dm_uuid(const char *text, struct qs_mapping *m)
{
	const char *hex;

	if (strncmp(text, "CRYPT-", 6) != 0)
		return false;
	m->luks = strncmp(text, "CRYPT-LUKS1-", 12) == 0   ? 1
		  : strncmp(text, "CRYPT-LUKS2-", 12) == 0 ? 2
							   : 0;
	hex = text + 12;
	if (m->luks > 0 && strspn(hex, "0123456789abcdef") >= 32)
		(void)snprintf(m->uuid, sizeof(m->uuid), "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8,
			       hex + 12, hex + 16, hex + 20);
	return true;
}

/* "8:16" as sysfs writes device numbers. */
static dev_t parse_devno(const char *text)
{
	char *colon = NULL;
	unsigned long major_nr = strtoul(text, &colon, 10);

	return *colon == ':' ? makedev((unsigned)major_nr, (unsigned)strtoul(colon + 1, NULL, 10))
			     : 0;
}

/* The first device below slaves/; a disk that was pulled has none or a dangling link. */
static void find_backing(int dir, struct qs_mapping *m)
{
	int fd = openat(dir, "slaves", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	QS_AUTO(qs_auto_closedir) DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;
	char path[300], line[32], file[4096];

	while (d && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof(path), "slaves/%s/dev", e->d_name);
		if (!read_line(dir, path, line, sizeof(line)))
			continue;
		m->backing = parse_devno(line);
		/* sysfs writes '!' for '/' ("cciss!c0d0"). */
		(void)snprintf(m->backing_node, sizeof(m->backing_node), "/dev/%.58s", e->d_name);
		for (char *p = m->backing_node; (p = strchr(p, '!'));)
			*p = '/';
		(void)snprintf(path, sizeof(path), "slaves/%s/loop/backing_file", e->d_name);
		if (read_line(dir, path, file, sizeof(file)))
			m->image = qs_strdup(file);
		return;
	}
}

static bool read_mapping(int sys_block, const char *dm, struct qs_mapping *m)
{
	QS_AUTO(qs_auto_close) int dir = openat(sys_block, dm, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char uuid[200], size[32];

	/* Size 0: no live table, an open is on its way there or was interrupted. */
	if (dir < 0 || !read_line(dir, "size", size, sizeof(size)) || strcmp(size, "0") == 0 ||
	    !read_line(dir, "dm/uuid", uuid, sizeof(uuid)) || !parse_dm_uuid(uuid, m) ||
	    !read_line(dir, "dm/name", m->name, sizeof(m->name)))
		return false;
	(void)snprintf(m->dm, sizeof(m->dm), "%.31s", dm);
	find_backing(dir, m);
	return true;
}

/* The mapping of /sys/block/DM, if it is one of dm-crypt, to the end of LIST. */
static int add(struct qs_mapping_list *list, int sys_block, const char *dm, struct qs_error *err)
{
	struct qs_mapping m = {};
	struct qs_mapping *grown;

	if (strncmp(dm, "dm-", 3) != 0 || !read_mapping(sys_block, dm, &m))
		return 0;
	grown = realloc(list->items, (list->count + 1) * sizeof(*grown));
	if (!grown) {
		free(m.image);
		return qs_fail(err, QS_E_MEMORY, "no memory for the list of mappings");
	}
	list->items = grown;
	list->items[list->count++] = m;
	return 0;
}

/* Those of /sys/block that are named in the directory D; NULL: none. */
static int add_all(struct qs_mapping_list *list, int sys_block, DIR *d, struct qs_error *err)
{
	const struct dirent *e;
	int r = 0;

	while (r == 0 && d && (e = readdir(d)))
		r = add(list, sys_block, e->d_name, err);
	return r;
}

int qs_mapping_scan(struct qs_mapping_list *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_closedir) DIR *d = opendir(SYS_BLOCK);
	QS_AUTO(qs_mapping_list_done) struct qs_mapping_list list = {};
	int r = d ? add_all(&list, dirfd(d), d, err) : 0;

	if (r < 0)
		return r;
	*ret = list;
	list = (struct qs_mapping_list){};
	return 0;
}

/* One ioctl on the mapping called NAME. Returns 0 or -errno. */
static int control(const char *name, unsigned long request, struct dm_ioctl *ret)
{
	QS_AUTO(qs_auto_close) int fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);

	*ret = (struct dm_ioctl){
		.version = { DM_VERSION_MAJOR, 0, 0 },
		.data_size = sizeof(*ret),
		.data_start = sizeof(*ret),
	};
	(void)snprintf(ret->name, sizeof(ret->name), "%s", name);
	return fd < 0 || ioctl(fd, request, ret) < 0 ? -errno : 0;
}

int qs_mapping_find(const char *name, const struct qs_device *dev, struct qs_mapping_list *ret,
		    struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int block = open(SYS_BLOCK, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	QS_AUTO(qs_auto_closedir) DIR *holders = NULL;
	struct dm_ioctl io;
	char text[64];
	int r = 0;

	if (dev->kind == QS_DEVICE_IMAGE)
		return qs_mapping_scan(ret, err);
	(void)snprintf(text, sizeof(text), "/sys/dev/block/%u:%u/holders", major(dev->devno),
		       minor(dev->devno));
	holders = opendir(text);
	if (control(name, DM_DEV_STATUS, &io) == 0) {
		(void)snprintf(text, sizeof(text), "dm-%u", minor((dev_t)io.dev));
		r = add(ret, block, text, err);
	}
	return r < 0 ? r : add_all(ret, block, holders, err);
}

int qs_mapping_remove_leftover(const char *name, struct qs_error *err)
{
	struct dm_ioctl io;
	int r = control(name, DM_DEV_STATUS, &io);

	/* No device-mapper, or nothing of that name: nothing is left over. */
	if (r < 0 || (io.flags & DM_ACTIVE_PRESENT_FLAG) || strncmp(io.uuid, "CRYPT-", 6) != 0)
		return 0;
	r = control(name, DM_DEV_REMOVE, &io);
	if (r < 0)
		return qs_fail_errno(err, r,
				     "cannot remove /dev/mapper/%s, which an interrupted open left",
				     name);
	return 1;
}

int qs_mapping_explain(int code, const char *node, const char *name, struct qs_error *err)
{
	switch (code) {
	case -ENOTSUP:
	case -ENOSYS:
		return qs_fail(
			err, QS_E_NO_DM,
			"cannot map %s: the kernel has no device-mapper or no dm-crypt for its "
			"cipher; try `modprobe dm-crypt`",
			node);
	case -EEXIST:
		return qs_fail(err, QS_E_EXISTS, "a mapping with the name %s exists already", name);
	case -EBUSY:
		return qs_fail(err, QS_E_IN_USE, "%s is in use", node);
	default:
		return qs_fail_errno(err, code, "cannot map %s as %s", node, name);
	}
}

void qs_mapping_list_done(struct qs_mapping_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i].image);
	free(list->items);
	list->items = NULL;
	list->count = 0;
}

const struct qs_mapping *qs_mapping_by_name(const struct qs_mapping_list *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->items[i].name, name) == 0)
			return &list->items[i];
	return NULL;
}

bool qs_mapping_is_on(const struct qs_mapping *m, const struct qs_device *dev)
{
	if (dev->kind == QS_DEVICE_IMAGE)
		return m->image && strcmp(m->image, dev->node) == 0;
	return m->backing != 0 && m->backing == dev->devno;
}

const struct qs_mapping *qs_mapping_of_device(const struct qs_mapping_list *list,
					      const struct qs_device *dev)
{
	for (size_t i = 0; i < list->count; i++)
		if (qs_mapping_is_on(&list->items[i], dev))
			return &list->items[i];
	return NULL;
}
