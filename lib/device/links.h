/*
 * What the links in /dev/disk/by-id and the lines of crypttab lead to, looked at once for many
 * devices: to find those of one device costs as much as to look at all.
 *
 * Where udev has recorded a device's links they are taken from there, and no directory is read;
 * but images, and devices without a record, have nothing else.
 *
 * It only says which links are worth a look: one that leads elsewhere by now is seen, as each is
 * looked at again before it is used. One that is made later is not, so the table lives for one
 * walk over many devices and not for a command that changes what links lead to.
 */
#ifndef QS_DEVICE_LINKS_H
#define QS_DEVICE_LINKS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/env.h"

struct qs_device;
struct qs_link;

/* Empty until the first device needs it; workers that are forked then have it already. */
struct qs_links {
	bool taken;
	struct qs_link *items; /* those that could not be looked at, then by what they lead to */
	size_t count, failed;
	struct qs_link *lines; /* of crypttab, as far as they were asked for */
	size_t line_count;
};

void qs_links_done(struct qs_links *links); /* also a QS_AUTO releaser */

/*
 * May SPEC, which stands in line INDEX of crypttab as it was loaded for this walk, lead to DEV?
 * False: when the line was looked at first, it led elsewhere. True: look. Without env->links
 * always.
 */
bool qs_links_may_lead(const struct qs_env *env, size_t index, const char *spec,
		       const struct qs_device *dev);

#endif
