/*
 * Which devices are ours: the ones that a command without arguments is about.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "key/keyfile.h"
#include "luks/backup.h"
#include "luks/make.h"
#include "ops/internal.h"
#include "ops/open.h"
#include "tab/crypttab.h"

static bool exists(const struct qs_env *env, char *logical)
{
	QS_AUTO(qs_auto_free) char *owned = logical;
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, owned);

	return access(real, F_OK) == 0;
}

bool qs_name_is_known(const struct qs_env *env, const char *name)
{
	return exists(env, qs_key_path(env, name)) || exists(env, qs_backup_path(env, name));
}

char *qs_name_of_word(const char *word)
{
	const char *by_id = "/dev/disk/by-id/";
	QS_AUTO(qs_auto_free) char *name = NULL;

	if (strncmp(word, by_id, strlen(by_id)) == 0)
		name = qs_printf("enc-%s", word + strlen(by_id));
	else if (strncmp(word, "enc-", 4) == 0)
		name = qs_strdup(word);
	return name && !strchr(name, '/') ? QS_TAKE(name) : NULL;
}

int qs_device_known_as(const struct qs_env *env, const struct qs_device *dev, const char *uuid,
		       char **ret_link, char **ret_name, struct qs_error *err)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	int r = qs_crypttab_load(env, &tab, err);

	return r < 0 ? r : qs_device_known_in(env, tab, dev, uuid, ret_link, ret_name, err);
}

/* A line of ours that names the device by this very link. */
static const struct qs_crypttab_entry *find_link(const struct qs_env *env,
						 const struct qs_crypttab *tab, const char *link)
{
	for (size_t i = 0; i < qs_crypttab_count(tab); i++) {
		const struct qs_crypttab_entry *e = qs_crypttab_get(tab, i);

		if (e->device && strcmp(e->device, link) == 0 && qs_open_is_our_line(env, e))
			return e;
	}
	return NULL;
}

int qs_device_known_in(const struct qs_env *env, const struct qs_crypttab *tab,
		       const struct qs_device *dev, const char *uuid, char **ret_link,
		       char **ret_name, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *link = NULL;
	QS_AUTO(qs_auto_free) char *name = NULL;
	const struct qs_crypttab_entry *e;
	int r = qs_device_name(env, dev, uuid, &link, &name, err);

	if (r < 0)
		return r;
	/* Most lines name the device as we do: a thousand of them need no look at the disks. */
	e = find_link(env, tab, link);
	if (!e)
		e = qs_open_line_of(env, tab, dev, uuid ? uuid : "");
	if (e && qs_open_is_our_line(env, e))
		qs_outcome_set(&name, e->name);
	*ret_link = QS_TAKE(link);
	*ret_name = QS_TAKE(name);
	return 0;
}

/* A device that cannot be read is ours by its name only; without one that can be had, it may be. */
static bool is_ours(const struct qs_env *env, const struct qs_device *dev)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	QS_AUTO(qs_auto_free) char *link = NULL;
	QS_AUTO(qs_auto_free) char *name = NULL;

	struct qs_error own = {};
	int r = qs_device_peek_header(dev, &h, NULL);

	if (r == 0 && strcmp(h.subsystem, QS_SUBSYSTEM) == 0)
		return true;
	if (qs_device_known_as(env, dev, h.uuid[0] ? h.uuid : NULL, &link, &name, &own) == 0)
		return qs_name_is_known(env, name);
	return !qs_device_is_absent(&own) && (r < 0 || h.version > 0);
}

static bool is_listed(const struct qs_outcomes *list, const char *node)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->items[i].node && strcmp(list->items[i].node, node) == 0)
			return true;
	return false;
}

static int add_present(const struct qs_env *env, struct qs_outcomes *list, struct qs_error *err)
{
	QS_AUTO(qs_device_list_done) struct qs_device_list devices = {};
	int r = qs_device_scan(env, true, &devices, err);

	for (size_t i = 0; r == 0 && i < devices.count; i++) {
		const struct qs_device *dev = devices.items[i];

		if (!dev->member_of && !is_listed(list, dev->node) && is_ours(env, dev))
			qs_outcome_set(&qs_outcomes_add(list, dev->node)->node, dev->node);
	}
	return r;
}

/* Image files, which no scan finds, behind the lines that IS_MEANT says. */
static int add_tabled(const struct qs_env *env,
		      bool is_meant(const struct qs_env *env, const struct qs_crypttab_entry *e),
		      struct qs_outcomes *list, struct qs_error *err)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	int r = qs_crypttab_load(env, &tab, err);

	for (size_t i = 0; r == 0 && i < qs_crypttab_count(tab); i++) {
		const struct qs_crypttab_entry *e = qs_crypttab_get(tab, i);
		QS_AUTO(qs_auto_device) struct qs_device *dev = NULL;
		struct qs_error own = {};

		if (!is_meant(env, e))
			continue;
		if (qs_device_find(env, e->device, &dev, &own) < 0) {
			if (!qs_device_is_absent(&own))
				qs_outcomes_add(list, e->device)->error = own;
		} else if (!is_listed(list, dev->node)) {
			qs_outcome_set(&qs_outcomes_add(list, e->device)->node, dev->node);
		}
	}
	return r;
}

int qs_outcomes_add_ours(const struct qs_env *env, struct qs_outcomes *list, struct qs_error *err)
{
	int r = add_present(env, list, err);

	return r < 0 ? r : add_tabled(env, qs_open_is_our_line, list, err);
}

int qs_outcomes_add_lines(const struct qs_env *env, struct qs_outcomes *list, struct qs_error *err)
{
	return add_tabled(env, qs_open_may_be_our_line, list, err);
}
