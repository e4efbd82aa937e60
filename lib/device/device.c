#include "device/internal.h"

#include <stdlib.h>

#include "base/cleanup.h"

struct qs_device *qs_device_new(void)
{
	struct qs_device *dev = calloc(1, sizeof(*dev));

	if (!dev)
		abort();
	return dev;
}

void qs_device_free(struct qs_device *dev)
{
	if (!dev)
		return;
	free(dev->given);
	free(dev->node);
	free(dev->link);
	free(dev->name);
	free(dev->disk);
	free(dev->vendor);
	free(dev->model);
	free(dev->serial);
	free(dev->revision);
	free(dev->wwn);
	free(dev->transport);
	free(dev->member_of);
	(void)udev_device_unref(dev->udev);
	free(dev);
}

/* To open a record costs more than all else that is asked of a device: it is kept. */
struct udev_device *qs_device_udev(const struct qs_device *dev)
{
	QS_AUTO(qs_auto_udev) struct udev *udev = NULL;

	if (dev->udev)
		return udev_device_ref(dev->udev);
	if (dev->devno == 0 || !(udev = udev_new()))
		return NULL;
	return udev_device_new_from_devnum(udev, 'b', dev->devno);
}

void qs_auto_device(struct qs_device **dev)
{
	qs_device_free(QS_TAKE(*dev));
}

void qs_device_list_done(struct qs_device_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		qs_device_free(list->items[i]);
	free(list->items);
	*list = (struct qs_device_list){};
}
