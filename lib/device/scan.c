#define _GNU_SOURCE
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "device/internal.h"

/* Drivers that number their disks with letters: sda ... sdz, sdaa. */
static const char *const lettered[] = { "/dev/sd", "/dev/vd", "/dev/xvd", "/dev/hd" };

static size_t lettered_prefix(const char *node)
{
	for (size_t i = 0; i < QS_ARRAY_SIZE(lettered); i++)
		if (strncmp(node, lettered[i], strlen(lettered[i])) == 0)
			return strlen(lettered[i]);
	return 0;
}

static size_t letters(const char *s)
{
	size_t n = 0;

	while (isalpha((unsigned char)s[n]))
		n++;
	return n;
}

static int compare_nodes(const void *a, const void *b)
{
	const char *x = (*(struct qs_device *const *)a)->node;
	const char *y = (*(struct qs_device *const *)b)->node;
	size_t prefix = lettered_prefix(x);

	if (prefix > 0 && strncmp(x, y, prefix) == 0 && letters(x + prefix) != letters(y + prefix))
		return letters(x + prefix) < letters(y + prefix) ? -1 : 1;
	return strverscmp(x, y);
}

static int append(struct qs_device_list *list, struct qs_device *dev, struct qs_error *err)
{
	struct qs_device **grown =
		reallocarray(list->items, list->count + 1, sizeof(struct qs_device *));

	if (!grown) {
		qs_device_free(dev);
		return qs_fail(err, QS_E_MEMORY, "out of memory");
	}
	list->items = grown;
	list->items[list->count++] = dev;
	return 0;
}

static int add_device(const struct qs_env *env, dev_t devno, bool all, struct qs_device_list *list,
		      struct qs_error *err)
{
	struct qs_device *dev = NULL;
	int r;

	if (qs_sysfs_number(devno, "size", 0) == 0 || qs_sysfs_number(devno, "hidden", 0) == 1)
		return 0;
	r = qs_inventory_block(env, devno, NULL, &dev, err);
	if (r == -ENODEV) /* pulled out between the listing and now */
		return 0;
	if (r < 0)
		return r;
	if (!all && dev->kind != QS_DEVICE_DISK) {
		qs_device_free(dev);
		return 0;
	}
	return append(list, dev, err);
}

int qs_device_scan(const struct qs_env *env, bool all, struct qs_device_list *ret,
		   struct qs_error *err)
{
	QS_AUTO(qs_device_list_done) struct qs_device_list list = {};
	QS_AUTO(qs_devset_done) struct qs_devset known = {};
	int r = qs_sysfs_names("/sys/class/block", "", &known, err);

	for (size_t i = 0; r == 0 && i < known.count; i++)
		r = add_device(env, known.items[i], all, &list, err);
	if (r < 0)
		return r;
	if (list.count > 1)
		qsort(list.items, list.count, sizeof(struct qs_device *), compare_nodes);
	*ret = list;
	list = (struct qs_device_list){};
	return 0;
}
