/*
 * What the links in /dev/disk/by-id lead to, looked at once for many devices: to find those of
 * one device costs as much as to look at all.
 *
 * Where udev has recorded a device's links they are taken from there, and nothing of this is
 * needed; but images, and devices without a record, have only the directory.
 *
 * It only says which links are worth a look: one that leads elsewhere by now is seen, as each is
 * looked at again before it is used. One that is made later is not, so the table lives for one
 * walk over many devices and not for a command that changes what links lead to.
 */
#ifndef QS_DEVICE_LINKS_H
#define QS_DEVICE_LINKS_H

#include <stdbool.h>
#include <stddef.h>

struct qs_link;

/* Empty until the first device needs it; workers that are forked then have it already. */
struct qs_links {
	bool taken;
	struct qs_link *items; /* those that could not be looked at, then by what they lead to */
	size_t count, failed;
};

void qs_links_done(struct qs_links *links); /* also a QS_AUTO releaser */

#endif
