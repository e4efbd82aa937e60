/*
 * Opening a block device for writing without anybody taking it for changed.
 *
 * udev watches the nodes of disks (inotify): whenever one is closed that was open
 * for writing, it makes a "change" event and examines the disk anew, with all its
 * rules and their programs. libcryptsetup opens every device that it maps once for
 * writing, only to see whether it may. So opening 24 disks would have 24 examined, whose
 * contents are what they were: a fifth of all the work (measured in a guest, Debian 12).
 * A watch is on an inode: another one of the same device is not watched.
 */
#ifndef QS_DEVICE_QUIET_H
#define QS_DEVICE_QUIET_H

/*
 * A path to the device of NODE by an inode that has no name, in RET; it leads there in this
 * process as long as the descriptor that is returned is open. Where NODE is no block device, or
 * no such inode can be made (a sandbox, a /dev without devices): NODE, and -1. Never fails. The
 * caller holds the device's lock.
 */
int qs_device_quiet_path(const char *node, char **ret);

#endif
