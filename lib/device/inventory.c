#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "device/internal.h"

/* Fixed majors of Documentation/admin-guide/devices.txt: no disks, though they look like them. */
#define FLOPPY_MAJOR 2
#define CDROM_MAJOR 11

/*
 * Text that a device says about itself goes to terminals and into JSON: bytes
 * that are not printable ASCII become '?', outer blanks go, and nothing is NULL.
 */
static char *clean_text(const char *text)
{
	char *copy, *end;

	if (!text)
		return NULL;
	text += strspn(text, " ");
	if (*text == '\0')
		return NULL;
	copy = qs_strdup(text);
	for (end = copy; *end; end++)
		if (*end < ' ' || *end > '~')
			*end = '?';
	while (end[-1] == ' ')
		*--end = '\0';
	return copy;
}

static int hex_digit(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *found = c ? strchr(digits, c) : NULL;

	return found ? (int)(found - digits) : -1;
}

/* Undo udev's encoding of blanks and odd bytes as \x20. */
static char *decode_udev(const char *text)
{
	char *copy = qs_strdup(text);
	char *out = copy;

	for (const char *in = text; *in; in++) {
		if (in[0] == '\\' && in[1] == 'x' && hex_digit(in[2]) >= 0 &&
		    hex_digit(in[3]) >= 0) {
			*out++ = (char)(hex_digit(in[2]) * 16 + hex_digit(in[3]));
			in += 3;
		} else {
			*out++ = *in;
		}
	}
	*out = '\0';
	return copy;
}

static char *property(struct udev_device *dev, const char *name)
{
	return clean_text(udev_device_get_property_value(dev, name));
}

static char *encoded_property(struct udev_device *dev, const char *name)
{
	const char *value = udev_device_get_property_value(dev, name);
	QS_AUTO(qs_auto_free) char *decoded = value ? decode_udev(value) : NULL;

	return clean_text(decoded);
}

static char *attribute(dev_t devno, const char *name)
{
	QS_AUTO(qs_auto_free) char *text = qs_sysfs_text(devno, name);

	return clean_text(text);
}

static bool is_set(struct udev_device *dev, const char *name)
{
	const char *value = udev_device_get_property_value(dev, name);

	return value && strcmp(value, "1") == 0;
}

/* Put VALUE into *slot if that is still empty. */
static void fill(char **slot, char *value)
{
	if (*slot)
		free(value);
	else
		*slot = value;
}

/*
 * Who made the disk WHOLE. udev's text is longer than the SCSI inquiry that the
 * kernel shows; the vendor attribute of virtio and PCI is a number (0x1af4).
 */
static void identify(struct qs_device *dev, struct udev_device *u, dev_t whole)
{
	fill(&dev->vendor, encoded_property(u, "ID_VENDOR_ENC"));
	fill(&dev->vendor, property(u, "ID_VENDOR"));
	fill(&dev->vendor, attribute(whole, "device/vendor"));
	if (dev->vendor && strncmp(dev->vendor, "0x", 2) == 0)
		qs_auto_free(&dev->vendor);
	if (is_set(u, "ID_ATA"))
		fill(&dev->vendor, qs_strdup("ATA"));

	if (strncmp(udev_device_get_sysname(u), "nvme", strlen("nvme")) == 0)
		fill(&dev->model, attribute(whole, "device/model")); /* udev's has '_' for blanks */
	fill(&dev->model, encoded_property(u, "ID_MODEL_ENC"));
	fill(&dev->model, property(u, "ID_MODEL"));
	fill(&dev->model, attribute(whole, "device/model"));

	fill(&dev->serial, property(u, "ID_SCSI_SERIAL"));
	fill(&dev->serial, property(u, "SCSI_IDENT_SERIAL"));
	fill(&dev->serial, property(u, "ID_SERIAL_SHORT"));
	fill(&dev->serial, attribute(whole, "device/serial"));
	fill(&dev->serial, attribute(whole, "serial"));
	fill(&dev->serial, property(u, "ID_SERIAL"));

	fill(&dev->revision, property(u, "ID_REVISION"));
	fill(&dev->revision, attribute(whole, "device/rev"));
	fill(&dev->revision, attribute(whole, "device/firmware_rev"));

	fill(&dev->wwn, property(u, "ID_WWN_WITH_EXTENSION"));
	fill(&dev->wwn, property(u, "ID_WWN"));
	fill(&dev->wwn, attribute(whole, "wwid"));
	fill(&dev->wwn, attribute(whole, "device/wwid"));
}

/* Buses that show in the device's place in sysfs, the one to be named first. */
static const struct {
	const char *part;
	const char *transport;
} buses[] = {
	{ "/usb", "usb" },       { "/end_device-", "sas" }, { "/rport-", "fc" },
	{ "/session", "iscsi" }, { "/nvme", "nvme" },       { "/mmc_host/", "mmc" },
	{ "/virtio", "virtio" },
};

static const char *transport_of(struct udev_device *u, dev_t whole)
{
	const char *bus = udev_device_get_property_value(u, "ID_BUS");
	const char *path = udev_device_get_syspath(u);

	/* A SATA disk behind a SAS controller is still a SATA disk. */
	if (is_set(u, "ID_ATA_SATA"))
		return "sata";
	for (size_t i = 0; i < QS_ARRAY_SIZE(buses); i++)
		if (strstr(path, buses[i].part))
			return buses[i].transport;
	if (is_set(u, "ID_ATA") || (bus && strcmp(bus, "ata") == 0))
		return "ata";
	if (qs_sysfs_exists(whole, "device/sas_address"))
		return "sas";
	return bus;
}

static enum qs_device_kind kind_of(dev_t devno)
{
	QS_AUTO(qs_auto_free) char *name = qs_sysfs_name(devno);

	if (qs_sysfs_exists(devno, "partition"))
		return QS_DEVICE_PARTITION;
	if (qs_sysfs_exists(devno, "dm"))
		return QS_DEVICE_MAPPER;
	if (qs_sysfs_exists(devno, "md"))
		return QS_DEVICE_MD;
	if (strncmp(name, "loop", 4) == 0)
		return QS_DEVICE_LOOP;
	if (major(devno) == FLOPPY_MAJOR || major(devno) == CDROM_MAJOR)
		return QS_DEVICE_OTHER;
	return qs_sysfs_exists(devno, "device") ? QS_DEVICE_DISK : QS_DEVICE_OTHER;
}

/* Members of DEVNO's holders: the first multipath map or md array. */
static int parent_among(dev_t devno, dev_t *ret, char **ret_name, struct qs_error *err)
{
	QS_AUTO(qs_devset_done) struct qs_devset holders = {};
	int r = qs_sysfs_links(devno, "holders", &holders, err);

	for (size_t i = 0; r == 0 && i < holders.count; i++) {
		dev_t holder = holders.items[i];
		QS_AUTO(qs_auto_free) char *uuid = qs_sysfs_text(holder, "dm/uuid");
		QS_AUTO(qs_auto_free) char *name = NULL;

		if (uuid && strncmp(uuid, "mpath-", strlen("mpath-")) == 0) {
			name = qs_sysfs_text(holder, "dm/name");
			*ret_name = qs_printf("/dev/mapper/%s", name ? name : "?");
		} else if (qs_sysfs_exists(holder, "md")) {
			name = qs_sysfs_name(holder);
			*ret_name = qs_printf("/dev/%s", name);
		} else {
			continue;
		}
		*ret = holder;
		return 0;
	}
	return r;
}

int qs_device_parent(dev_t devno, dev_t *ret, char **ret_name, struct qs_error *err)
{
	dev_t disk = qs_sysfs_disk(devno);
	int r;

	*ret = 0;
	*ret_name = NULL;
	r = parent_among(devno, ret, ret_name, err);
	if (r == 0 && *ret == 0 && disk != 0)
		r = parent_among(disk, ret, ret_name, err);
	return r;
}

static void measure(struct qs_device *dev, dev_t whole)
{
	/* The kernel counts in units of 512 bytes whatever the sector size. */
	dev->size = qs_sysfs_number(dev->devno, "size", 0) * 512;
	dev->logical_block = (unsigned)qs_sysfs_number(whole, "queue/logical_block_size", 512);
	dev->physical_block =
		(unsigned)qs_sysfs_number(whole, "queue/physical_block_size", dev->logical_block);
	dev->rotational = qs_sysfs_number(whole, "queue/rotational", 0) == 1;
	dev->read_only = qs_sysfs_number(dev->devno, "ro", 0) == 1;
	dev->removable = qs_sysfs_number(whole, "removable", 0) == 1;
}

/* The link and the name; a device without them is still a device. */
static void name_it(const struct qs_env *env, struct udev_device *u, struct qs_device *dev)
{
	const char *type = udev_device_get_property_value(u, "ID_FS_TYPE");
	const char *uuid = NULL;

	if (type && strcmp(type, "crypto_LUKS") == 0)
		uuid = udev_device_get_property_value(u, "ID_FS_UUID");
	(void)qs_device_name(env, dev, uuid, &dev->link, &dev->name, NULL);
}

int qs_inventory_block(const struct qs_env *env, dev_t devno, const char *given,
		       struct qs_device **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_udev) struct udev *udev = udev_new();
	QS_AUTO(qs_auto_udev_device) struct udev_device *u = NULL;
	QS_AUTO(qs_auto_udev_device) struct udev_device *disk = NULL;
	QS_AUTO(qs_auto_device) struct qs_device *dev = qs_device_new();
	dev_t whole = qs_sysfs_disk(devno), parent;
	int r;

	if (!udev)
		return qs_fail(err, QS_E_MEMORY, "out of memory");
	u = udev_device_new_from_devnum(udev, 'b', devno);
	if (!u || !udev_device_get_devnode(u))
		return qs_fail(err, QS_E_NO_DEVICE,
			       "%s is block device %u:%u, which the kernel does not have",
			       given ? given : "it", major(devno), minor(devno));
	if (whole)
		disk = udev_device_new_from_devnum(udev, 'b', whole);
	dev->node = qs_strdup(udev_device_get_devnode(u));
	dev->given = qs_strdup(given ? given : dev->node);
	dev->devno = devno;
	dev->kind = kind_of(devno);
	if (disk)
		dev->disk = qs_strdup(udev_device_get_devnode(disk));
	identify(dev, disk ? disk : u, whole ? whole : devno);
	dev->transport = qs_strdup(transport_of(disk ? disk : u, whole ? whole : devno));
	measure(dev, whole ? whole : devno);
	r = qs_device_parent(devno, &parent, &dev->member_of, err);
	if (r < 0)
		return r;
	dev->udev = udev_device_ref(u);
	name_it(env, u, dev);
	*ret = QS_TAKE(dev);
	return 0;
}

char *qs_device_loop_file(const struct qs_device *dev)
{
	return dev->kind == QS_DEVICE_LOOP ? qs_sysfs_text(dev->devno, "loop/backing_file") : NULL;
}

int qs_inventory_image(const struct qs_env *env, const char *path, const char *given,
		       struct qs_device **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_device) struct qs_device *dev = qs_device_new();
	struct stat st;

	dev->node = realpath(path, NULL);
	if (!dev->node || stat(dev->node, &st) < 0)
		return qs_fail_errno(err, errno, "cannot find %s", path);
	dev->given = qs_strdup(given);
	dev->kind = QS_DEVICE_IMAGE;
	dev->fs = st.st_dev;
	dev->ino = st.st_ino;
	dev->size = (uint64_t)st.st_size;
	dev->logical_block = 512;
	dev->physical_block = 512;
	dev->read_only = access(dev->node, W_OK) < 0;
	(void)qs_device_name(env, dev, NULL, &dev->link, &dev->name, NULL);
	*ret = QS_TAKE(dev);
	return 0;
}
