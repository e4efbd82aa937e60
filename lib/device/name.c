#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "device/internal.h"
#include "tab/crypttab.h"

/* DM_NAME_LEN of <linux/dm-ioctl.h>, without the final NUL. */
#define NAME_MAX_LENGTH 127

/*
 * What libdevmapper takes in a name without mangling and udev leaves in a link
 * without encoding; so the name is the same everywhere.
 */
static bool is_plain(const char *part)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789#+-.:=@_";

	return *part && part[strspn(part, plain)] == '\0' &&
	       strlen(part) + strlen("enc-") <= NAME_MAX_LENGTH;
}

/*
 * Links that lead to what is on the disk and not to the disk: they go when it
 * is formatted.
 */
static bool is_content_link(const char *part)
{
	return strncmp(part, "lvm-pv-uuid-", strlen("lvm-pv-uuid-")) == 0;
}

static bool fits_crypttab(const char *name, const char *link)
{
	return qs_crypttab_check(name, link, "none", "luks", NULL) == 0;
}

static unsigned rank_of(const struct qs_env *env, const char *part)
{
	unsigned rank = 0;

	for (char **p = env->config.name_order; p && *p; p++, rank++)
		if (strncmp(part, *p, strlen(*p)) == 0)
			break;
	return rank;
}

/*
 * The best link so far; PART is the file name in /dev/disk/by-id. FAILED is the
 * -errno of a link that could not be looked at: without it the device would
 * silently get another name than it has on a good day.
 */
struct best {
	const struct qs_env *env;
	const struct qs_device *dev;
	struct stat self; /* of dev, looked at once and not for each of a thousand links */
	char *part;
	int failed;
};

static void consider(const char *part, void *cookie)
{
	struct best *best = cookie;
	QS_AUTO(qs_auto_free) char *link = qs_printf(QS_BY_ID "%s", part);
	unsigned rank = rank_of(best->env, part);
	int r;

	if (!is_plain(part) || is_content_link(part))
		return;
	if (best->part &&
	    (rank > rank_of(best->env, best->part) ||
	     (rank == rank_of(best->env, best->part) && strcmp(part, best->part) >= 0)))
		return;
	r = qs_spec_leads_to(best->env, link, &best->self);
	if (r < 0)
		best->failed = r;
	if (r <= 0)
		return;
	free(best->part);
	best->part = qs_strdup(part);
}

/* The links that udev recorded for the device: few, so that 100 disks cost 100 times as much as
 * one. */
static void consider_udev(struct best *best)
{
	QS_AUTO(qs_auto_udev_device) struct udev_device *u = qs_device_udev(best->dev);
	QS_AUTO(qs_auto_free) char *links = NULL;
	char *rest;

	if (!u)
		return;
	links = qs_strdup(udev_device_get_property_value(u, "DEVLINKS"));
	rest = links;
	for (char *link = strsep(&rest, " "); link; link = strsep(&rest, " "))
		if (strncmp(link, QS_BY_ID, strlen(QS_BY_ID)) == 0)
			consider(link + strlen(QS_BY_ID), best);
}

/* Without udev's record (a root prefix, an image, no udevd) the directory says the same. */
static void consider_directory(struct best *best)
{
	QS_AUTO(qs_links_done) struct qs_links own = {};
	struct qs_links *links = best->env->links ? best->env->links : &own;
	int r = qs_links_each(best->env, links, &best->self, consider, best);

	if (r < 0)
		best->failed = r;
}

static int take_name(const char *link, const char *prefix, const char *part, char **ret_link,
		     char **ret_name)
{
	QS_AUTO(qs_auto_free) char *name = qs_printf("enc-%s%s", prefix, part);

	if (strlen(name) > NAME_MAX_LENGTH || !fits_crypttab(name, link))
		return 0;
	*ret_link = qs_strdup(link);
	*ret_name = QS_TAKE(name);
	return 1;
}

static int name_image(const struct qs_env *env, const struct qs_device *dev, char **ret_link,
		      char **ret_name, struct qs_error *err)
{
	const char *link = qs_env_logical(env, dev->node);
	const char *part = strrchr(link, '/') + 1;

	if (is_plain(part) && take_name(link, "", part, ret_link, ret_name) > 0)
		return 0;
	return qs_fail(err, QS_E_WRONG_DEVICE,
		       "the path of %s has blanks or other characters that crypttab cannot hold, "
		       "or is too long: rename it or its directory",
		       dev->node);
}

/* The best by-id link. Returns 1 found, 0 none, or the error of a link that could not be looked at.
 */
static int name_by_id(const struct qs_env *env, const struct qs_device *dev, char **ret_link,
		      char **ret_name, struct qs_error *err)
{
	struct best best = { .env = env, .dev = dev };
	QS_AUTO(qs_auto_free) char *link = NULL;
	QS_AUTO(qs_auto_free) char *part = NULL;

	best.failed = qs_device_self(dev, &best.self);
	if (!best.failed && *env->root == '\0' && dev->kind != QS_DEVICE_IMAGE)
		consider_udev(&best);
	if (!best.failed && !best.part)
		consider_directory(&best);
	part = best.part;
	if (best.failed)
		return qs_fail_errno(err, best.failed, "cannot look at the links in " QS_BY_ID);
	if (!part)
		return 0;
	link = qs_printf(QS_BY_ID "%s", part);
	return take_name(link, "", part, ret_link, ret_name);
}

int qs_device_name(const struct qs_env *env, const struct qs_device *dev, const char *uuid,
		   char **ret_link, char **ret_name, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *link = NULL;
	int r = name_by_id(env, dev, ret_link, ret_name, err);

	if (r != 0)
		return r < 0 ? r : 0;
	if (dev->kind == QS_DEVICE_IMAGE)
		return name_image(env, dev, ret_link, ret_name, err);
	if (uuid && is_plain(uuid)) {
		link = qs_printf(QS_BY_UUID "%s", uuid);
		if (take_name(link, "uuid-", uuid, ret_link, ret_name) > 0)
			return 0;
	}
	return qs_fail(
		err, QS_E_WRONG_DEVICE,
		"%s has no usable link in /dev/disk/by-id: give the disk a serial number, or "
		"the link a name without blanks and odd characters",
		dev->node);
}

/* The first PARTUUID in C order that leads to DEV. Returns as name_by_id(). */
static int name_by_partuuid(const struct qs_env *env, const struct qs_device *dev, char **ret_link,
			    char **ret_name, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, QS_BY_PARTUUID);
	struct dirent **entries = NULL;
	int count = scandir(path, &entries, NULL, alphasort);
	int r = 0;

	if (count < 0 && errno != ENOENT)
		return qs_fail_errno(err, errno, "cannot look at the links in " QS_BY_PARTUUID);
	for (int i = 0; i < count; i++) {
		const char *part = entries[i]->d_name;
		QS_AUTO(qs_auto_free) char *link = qs_printf(QS_BY_PARTUUID "%s", part);

		if (r == 0 && *part != '.' && is_plain(part) &&
		    qs_device_leads_to(env, link, dev) > 0)
			r = take_name(link, "partuuid-", part, ret_link, ret_name);
		free(entries[i]);
	}
	free(entries);
	return r;
}

int qs_device_name_place(const struct qs_env *env, const struct qs_device *dev, char **ret_link,
			 char **ret_name, struct qs_error *err)
{
	int r = name_by_id(env, dev, ret_link, ret_name, err);

	if (r == 0)
		r = name_by_partuuid(env, dev, ret_link, ret_name, err);
	if (r != 0)
		return r < 0 ? r : 0;
	return qs_fail(err, QS_E_WRONG_DEVICE,
		       "%s has only names that may be another device's after the next start: give "
		       "the disk a serial number, or the disk a partition table so that the "
		       "partition has a PARTUUID",
		       dev->node);
}

int qs_device_wait_link(const struct qs_env *env, const struct qs_device *dev, const char *link,
			unsigned wait_ms, struct qs_error *err)
{
	const unsigned step_ms = 10;
	const struct timespec step = { .tv_nsec = step_ms * 1000000L };

	if (dev->kind == QS_DEVICE_IMAGE)
		return 0;
	for (unsigned waited = 0; qs_device_leads_to(env, link, dev) <= 0; waited += step_ms) {
		if (waited >= wait_ms)
			return qs_fail(err, QS_E_DEADLINE,
				       "%s does not lead to %s after %u ms: is udev running?", link,
				       dev->node, wait_ms);
		(void)nanosleep(&step, NULL);
	}
	return 0;
}
