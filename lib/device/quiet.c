#define _GNU_SOURCE
#include "device/quiet.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/env.h"

/* Of the device NUMBER, below /dev, as no other file system may hold devices. Or -1. */
static int nameless_inode(dev_t number)
{
	QS_AUTO(qs_auto_free)
	char *name = qs_printf("/dev/.qs-util-%u:%u", major(number), minor(number));
	int fd;

	/* Left over from one that was killed just here; whoever opens the device holds its lock. */
	(void)unlink(name);
	if (mknod(name, S_IFBLK | 0600, number) < 0)
		return -1;
	fd = open(name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	(void)unlink(name);
	return fd;
}

static bool is_usable(const char *path, dev_t number)
{
	QS_AUTO(qs_auto_close) int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == number;
}

int qs_device_quiet_path(const char *node, char **ret)
{
	QS_AUTO(qs_auto_free) char *path = NULL;
	struct stat st;
	int fd = -1;

	if (stat(node, &st) == 0 && S_ISBLK(st.st_mode))
		fd = nameless_inode(st.st_rdev);
	if (fd >= 0) {
		path = qs_printf("/proc/self/fd/%d", fd);
		if (is_usable(path, st.st_rdev)) {
			*ret = QS_TAKE(path);
			return fd;
		}
		close(fd);
	}
	*ret = qs_strdup(node);
	return -1;
}
