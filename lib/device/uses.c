#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "device/internal.h"

/* The order in which reasons are told, and their names in JSON. */
static const struct {
	enum qs_use_kind kind;
	const char *name;
} kinds[] = {
	{ QS_USE_SYSTEM, "system" }, { QS_USE_MOUNT, "mount" },
	{ QS_USE_SWAP, "swap" },     { QS_USE_MEMBER, "member" },
	{ QS_USE_HOLDER, "holder" }, { QS_USE_CRYPTTAB, "crypttab" },
	{ QS_USE_FSTAB, "fstab" },   { QS_USE_PARTITIONS, "partitions" },
};

/* What a device is made of and what stands on it. */
struct stack {
	struct qs_devset own;     /* itself and its partitions; nothing for an image */
	struct qs_devset holders; /* what stands directly on those, or on a partition's disk */
	struct qs_devset all;     /* both, and everything above, and a partition's disk */
	dev_t parent;             /* multipath map or md array, or 0 */
};

static void release_stack(struct stack *s)
{
	qs_devset_done(&s->own);
	qs_devset_done(&s->holders);
	qs_devset_done(&s->all);
}

static void add_all(struct qs_devset *to, const struct qs_devset *from)
{
	for (size_t i = 0; i < from->count; i++)
		qs_devset_add(to, from->items[i]);
}

static bool is_image_claim(const struct qs_claim *claim, const struct qs_device *dev,
			   const struct stat *image)
{
	if (dev->kind != QS_DEVICE_IMAGE)
		return false;
	if (claim->ino != 0)
		return claim->fs == image->st_dev && claim->ino == image->st_ino;
	return claim->literal && strcmp(claim->literal, dev->node) == 0;
}

/* Holders that sysfs links, and loop devices, which it does not. */
static int add_holders(const struct qs_snapshot *shot, dev_t devno, struct qs_devset *ret,
		       struct qs_error *err)
{
	for (size_t i = 0; i < shot->count; i++)
		if (shot->claims[i].devno == devno)
			qs_devset_add(ret, shot->claims[i].holder);
	return qs_sysfs_links(devno, "holders", ret, err);
}

static int build_own(const struct qs_snapshot *shot, const struct qs_device *dev,
		     const struct stat *image, struct stack *ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *name = NULL;
	int r;

	for (size_t i = 0; i < shot->count; i++)
		if (is_image_claim(&shot->claims[i], dev, image))
			qs_devset_add(&ret->holders, shot->claims[i].holder);
	if (dev->kind == QS_DEVICE_IMAGE)
		return 0;
	qs_devset_add(&ret->own, dev->devno);
	r = qs_sysfs_partitions(dev->devno, &ret->own, err);
	for (size_t i = 0; r == 0 && i < ret->own.count; i++)
		r = add_holders(shot, ret->own.items[i], &ret->holders, err);
	if (r == 0)
		r = qs_device_parent(dev->devno, &ret->parent, &name, err);
	return r;
}

static int build_stack(const struct qs_snapshot *shot, const struct qs_device *dev,
		       const struct stat *image, struct stack *ret, struct qs_error *err)
{
	dev_t disk = dev->devno ? qs_sysfs_disk(dev->devno) : 0;
	int r = build_own(shot, dev, image, ret, err);

	if (r == 0 && disk != 0)
		r = add_holders(shot, disk, &ret->holders, err);
	if (r < 0)
		return r;
	add_all(&ret->all, &ret->own);
	add_all(&ret->all, &ret->holders);
	for (size_t i = 0; i < ret->all.count; i++) {
		r = qs_sysfs_partitions(ret->all.items[i], &ret->all, err);
		if (r == 0)
			r = add_holders(shot, ret->all.items[i], &ret->all, err);
		if (r < 0)
			return r;
	}
	/* Last, so that its other partitions stay out of it. */
	qs_devset_add(&ret->all, disk);
	return 0;
}

/* Takes DETAIL. The same reason by two ways (a disk and its partition) is told once. */
static void add_use(struct qs_use_list *list, enum qs_use_kind kind, char *detail, const char *name)
{
	struct qs_use *grown;

	for (size_t i = 0; i < list->count; i++) {
		if (list->items[i].kind == kind && strcmp(list->items[i].detail, detail) == 0) {
			free(detail);
			return;
		}
	}
	grown = reallocarray(list->items, list->count + 1, sizeof(*grown));
	if (!grown)
		abort();
	list->items = grown;
	grown[list->count++] = (struct qs_use){ kind, detail, qs_strdup(name) };
}

static char *dm_name(dev_t devno)
{
	QS_AUTO(qs_auto_free) char *name = qs_sysfs_name(devno);
	QS_AUTO(qs_auto_free) char *dm = qs_sysfs_text(devno, "dm/name");

	return dm ? qs_printf("%s (%s)", name, dm) : QS_TAKE(name);
}

/* SYSTEM counts for the device itself; everything else for all that stands on it as well. */
static bool is_concerned(const struct qs_claim *claim, const struct qs_device *dev,
			 const struct stat *image, const struct stack *s)
{
	const struct qs_devset *set = claim->kind == QS_USE_SYSTEM ? &s->own : &s->all;

	if (is_image_claim(claim, dev, image))
		return true;
	if (claim->devno != 0 || claim->ino != 0)
		return qs_devset_has(set, claim->devno);
	return claim->literal && dev->link && strcmp(claim->literal, dev->link) == 0;
}

static void use_claims(const struct qs_snapshot *shot, const struct qs_device *dev,
		       const struct stat *image, const struct stack *s, struct qs_use_list *list)
{
	for (size_t i = 0; i < shot->count; i++) {
		const struct qs_claim *claim = &shot->claims[i];
		bool shown = claim->kind == QS_USE_MOUNT || claim->kind == QS_USE_SWAP;
		QS_AUTO(qs_auto_free) char *about = NULL;

		if (!is_concerned(claim, dev, image, s))
			continue;
		if (shown && claim->devno != dev->devno)
			about = qs_sysfs_name(claim->devno);
		add_use(list, claim->kind,
			about ? qs_printf("%s (%s)", claim->detail, about)
			      : qs_strdup(claim->detail),
			claim->name);
	}
}

static void use_holders(const struct qs_snapshot *shot, const struct stack *s,
			struct qs_use_list *list)
{
	for (size_t i = 0; i < s->holders.count; i++) {
		QS_AUTO(qs_auto_free) char *name = dm_name(s->holders.items[i]);
		bool told = s->holders.items[i] == s->parent;

		for (size_t k = 0; k < shot->count; k++) /* loops speak for themselves */
			told = told || shot->claims[k].holder == s->holders.items[i];
		if (!told)
			add_use(list, QS_USE_HOLDER, qs_printf("held by %s", name), NULL);
	}
	for (size_t i = 0; i < s->own.count; i++) /* a bcache cache has no holder */
		if (qs_sysfs_exists(s->own.items[i], "bcache"))
			add_use(list, QS_USE_HOLDER, qs_strdup("held by bcache"), NULL);
}

static void use_partitions(const struct stack *s, struct qs_use_list *list)
{
	QS_AUTO(qs_auto_free) char *text = NULL;

	for (size_t i = 1; i < s->own.count; i++) {
		QS_AUTO(qs_auto_free) char *name = qs_sysfs_name(s->own.items[i]);
		QS_AUTO(qs_auto_free) char *before = text;

		text = qs_printf("%s%s%s", before ? before : "", before ? ", " : "", name);
	}
	if (text)
		add_use(list, QS_USE_PARTITIONS, QS_TAKE(text), NULL);
}

static void use_member(const struct qs_device *dev, struct qs_use_list *list)
{
	QS_AUTO(qs_auto_udev_device) struct udev_device *u = qs_device_udev(dev);
	const char *path, *type;

	if (dev->member_of) {
		add_use(list, QS_USE_MEMBER, qs_printf("a member of %s", dev->member_of), NULL);
		return;
	}
	if (!u)
		return;
	path = udev_device_get_property_value(u, "DM_MULTIPATH_DEVICE_PATH");
	type = udev_device_get_property_value(u, "ID_FS_TYPE");
	if ((path && strcmp(path, "1") == 0) || (type && strcmp(type, "mpath_member") == 0))
		add_use(list, QS_USE_MEMBER,
			qs_strdup("a path of a multipath map that is not active"), NULL);
}

static size_t weight(enum qs_use_kind kind)
{
	size_t i = 0;

	while (i < QS_ARRAY_SIZE(kinds) && kinds[i].kind != kind)
		i++;
	return i;
}

/* Stable, so that reasons of one kind stay in the order of their tables. */
static void sort_uses(struct qs_use_list *list)
{
	for (size_t i = 1; i < list->count; i++) {
		struct qs_use use = list->items[i];
		size_t k = i;

		for (; k > 0 && weight(list->items[k - 1].kind) > weight(use.kind); k--)
			list->items[k] = list->items[k - 1];
		list->items[k] = use;
	}
}

int qs_snapshot_uses(const struct qs_snapshot *shot, const struct qs_device *dev,
		     struct qs_use_list *ret, struct qs_error *err)
{
	QS_AUTO(release_stack) struct stack s = {};
	struct qs_use_list list = {};
	struct stat image = {};
	int r;

	if (dev->kind == QS_DEVICE_IMAGE && stat(dev->node, &image) < 0)
		return qs_fail_errno(err, errno, "cannot look at %s", dev->node);
	r = build_stack(shot, dev, &image, &s, err);
	if (r < 0)
		return r;
	use_claims(shot, dev, &image, &s, &list);
	use_member(dev, &list);
	use_holders(shot, &s, &list);
	use_partitions(&s, &list);
	sort_uses(&list);
	*ret = list;
	return 0;
}

void qs_auto_snapshot(struct qs_snapshot **shot)
{
	struct qs_snapshot *s = *shot;

	for (size_t i = 0; s && i < s->count; i++) {
		free(s->claims[i].literal);
		free(s->claims[i].detail);
		free(s->claims[i].name);
	}
	if (s)
		free(s->claims);
	free(s);
	*shot = NULL;
}

int qs_snapshot_take(const struct qs_env *env, struct qs_snapshot **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_snapshot) struct qs_snapshot *shot = calloc(1, sizeof(*shot));
	int r;

	if (!shot)
		return qs_fail(err, QS_E_MEMORY, "out of memory");
	shot->env = env;
	r = qs_claim_system(shot, err);
	if (r == 0)
		r = qs_claim_tables(shot, err);
	if (r < 0)
		return r;
	*ret = QS_TAKE(shot);
	return 0;
}

int qs_device_uses(const struct qs_env *env, const struct qs_device *dev, struct qs_use_list *ret,
		   struct qs_error *err)
{
	QS_AUTO(qs_auto_snapshot) struct qs_snapshot *shot = NULL;
	int r = qs_snapshot_take(env, &shot, err);

	if (r < 0)
		return r;
	return qs_snapshot_uses(shot, dev, ret, err);
}

void qs_use_list_done(struct qs_use_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->items[i].detail);
		free(list->items[i].name);
	}
	free(list->items);
	*list = (struct qs_use_list){};
}

const char *qs_use_kind_name(enum qs_use_kind kind)
{
	size_t i = weight(kind);

	return i < QS_ARRAY_SIZE(kinds) ? kinds[i].name : "other";
}
