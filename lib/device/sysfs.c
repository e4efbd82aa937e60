#define _GNU_SOURCE
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "device/internal.h"

void qs_devset_add(struct qs_devset *set, dev_t devno)
{
	dev_t *grown;

	if (devno == 0 || qs_devset_has(set, devno))
		return;
	grown = reallocarray(set->items, set->count + 1, sizeof(*grown));
	if (!grown)
		abort();
	grown[set->count++] = devno;
	set->items = grown;
}

bool qs_devset_has(const struct qs_devset *set, dev_t devno)
{
	for (size_t i = 0; i < set->count; i++)
		if (set->items[i] == devno)
			return true;
	return false;
}

void qs_devset_done(struct qs_devset *set)
{
	free(set->items);
	*set = (struct qs_devset){};
}

static char *directory_of(dev_t devno)
{
	return qs_printf("/sys/dev/block/%u:%u", major(devno), minor(devno));
}

static char *read_text(const char *path)
{
	QS_AUTO(qs_auto_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[4096]; /* sysfs gives at most one page */
	ssize_t n;

	if (fd < 0)
		return NULL;
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return NULL;
	while (n > 0 && isspace((unsigned char)text[n - 1]))
		n--;
	text[n] = '\0';
	return qs_strdup(text);
}

char *qs_sysfs_text(dev_t devno, const char *attribute)
{
	QS_AUTO(qs_auto_free) char *directory = directory_of(devno);
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/%s", directory, attribute);

	return read_text(path);
}

uint64_t qs_sysfs_number(dev_t devno, const char *attribute, uint64_t otherwise)
{
	QS_AUTO(qs_auto_free) char *text = qs_sysfs_text(devno, attribute);
	unsigned long long value;
	char *end;

	if (!text || !isdigit((unsigned char)*text))
		return otherwise;
	value = strtoull(text, &end, 10);
	return *end ? otherwise : value;
}

bool qs_sysfs_exists(dev_t devno, const char *entry)
{
	QS_AUTO(qs_auto_free) char *directory = directory_of(devno);
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/%s", directory, entry);

	return access(path, F_OK) == 0;
}

char *qs_sysfs_name(dev_t devno)
{
	QS_AUTO(qs_auto_free) char *directory = directory_of(devno);
	QS_AUTO(qs_auto_free) char *real = realpath(directory, NULL);

	if (!real)
		return qs_printf("%u:%u", major(devno), minor(devno));
	return qs_strdup(strrchr(real, '/') + 1);
}

static dev_t devno_in(const char *directory)
{
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/dev", directory);
	QS_AUTO(qs_auto_free) char *text = read_text(path);
	unsigned long ma, mi;
	char *end;

	if (!text)
		return 0;
	ma = strtoul(text, &end, 10);
	if (end == text || *end != ':')
		return 0;
	mi = strtoul(end + 1, &end, 10);
	return *end ? 0 : makedev((unsigned)ma, (unsigned)mi);
}

dev_t qs_sysfs_devno(const char *name)
{
	QS_AUTO(qs_auto_free) char *directory = qs_printf("/sys/class/block/%s", name);

	return devno_in(directory);
}

dev_t qs_sysfs_disk(dev_t devno)
{
	QS_AUTO(qs_auto_free) char *directory = directory_of(devno);
	QS_AUTO(qs_auto_free) char *real = NULL;

	if (!qs_sysfs_exists(devno, "partition"))
		return 0;
	real = realpath(directory, NULL);
	if (!real)
		return 0;
	*strrchr(real, '/') = '\0';
	return devno_in(real);
}

/* Call TAKE for every entry of PATH; an absent directory has none. */
static int each_entry(const char *path,
		      void (*take)(const char *path, const struct dirent *entry, void *),
		      void *cookie, struct qs_error *err)
{
	QS_AUTO(qs_auto_closedir) DIR *d = opendir(path);
	const struct dirent *entry;

	if (!d && (errno == ENOENT || errno == ENODEV))
		return 0;
	if (!d)
		return qs_fail_errno(err, errno, "cannot read %s", path);
	for (errno = 0; (entry = readdir(d)); errno = 0)
		if (entry->d_name[0] != '.')
			take(path, entry, cookie);
	if (errno != 0 && errno != ENOENT && errno != ENODEV)
		return qs_fail_errno(err, errno, "cannot read %s", path);
	return 0;
}

static int compare_numbers(const void *a, const void *b)
{
	dev_t x = *(const dev_t *)a, y = *(const dev_t *)b;

	return x < y ? -1 : x > y;
}

/* Directories of sysfs have no order: give what came after the first BEFORE items one. */
static void sort_added(struct qs_devset *set, size_t before)
{
	if (set->count > before)
		qsort(set->items + before, set->count - before, sizeof(*set->items),
		      compare_numbers);
}

struct wanted {
	const char *prefix;
	struct qs_devset *set;
};

static void take_name(const char *path, const struct dirent *entry, void *cookie)
{
	const struct wanted *wanted = cookie;
	const char *name = entry->d_name;

	(void)path;
	if (strncmp(name, wanted->prefix, strlen(wanted->prefix)) == 0)
		qs_devset_add(wanted->set, qs_sysfs_devno(name));
}

int qs_sysfs_names(const char *directory, const char *prefix, struct qs_devset *ret,
		   struct qs_error *err)
{
	struct wanted wanted = { prefix, ret };
	size_t before = ret->count;
	int r = each_entry(directory, take_name, &wanted, err);

	sort_added(ret, before);
	return r;
}

int qs_sysfs_links(dev_t devno, const char *directory, struct qs_devset *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *device = directory_of(devno);
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/%s", device, directory);

	return qs_sysfs_names(path, "", ret, err);
}

static void take_partition(const char *path, const struct dirent *entry, void *cookie)
{
	QS_AUTO(qs_auto_free) char *mark = qs_printf("%s/%s/partition", path, entry->d_name);

	/* Of forty entries thirty are files. */
	if (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN)
		return;
	if (access(mark, F_OK) == 0)
		qs_devset_add(cookie, qs_sysfs_devno(entry->d_name));
}

int qs_sysfs_partitions(dev_t devno, struct qs_devset *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *device = directory_of(devno);
	size_t before = ret->count;
	int r = each_entry(device, take_partition, ret, err);

	sort_added(ret, before);
	return r;
}
