#include "luks/purge.h"

#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "luks/backup.h"
#include "luks/image.h"
#include "luks/slots.h"

/* A keyslot in OLD that is not in NOW, whatever its number. */
static bool holds_another(const json_t *old, const json_t *now)
{
	uint32_t mask = qs_slots_mask(old);

	for (int slot = 0; slot < QS_LUKS_AREAS_MAX; slot++) {
		const char *salt = mask >> slot & 1 ? qs_slots_salt(old, slot) : NULL;

		if (mask >> slot & 1 && (!salt || qs_slots_by_salt(now, salt) < 0))
			return true;
	}
	return false;
}

/* 1 holds a revoked key, 0 does not, or -errno: it cannot be told. */
static int look(const char *path, const struct qs_luks_header *now)
{
	QS_AUTO(qs_header_image_done) struct qs_header_image image = {};
	QS_AUTO(qs_luks_header_done) struct qs_luks_header h = {};
	int r = qs_backup_read(path, &image, &h, NULL, NULL);

	if (r < 0)
		return r;
	if (strcasecmp(h.uuid, now->uuid) != 0)
		return 0;
	return h.version != 2 || holds_another(h.json, now->json);
}

static bool is_revoked(const char *path, bool raw, void *cookie)
{
	return raw || look(path, cookie) != 0;
}

/* Another name's backups are looked at, and only what is known to hold a revoked key is named. */
static int look_elsewhere(const struct qs_env *env, const char *name,
			  const struct qs_luks_header *now, json_t *ret_left, struct qs_error *err)
{
	QS_AUTO(qs_backup_list_done) struct qs_backup_list list = {};
	int r = qs_backup_list(env, name, &list, err);

	for (size_t i = 0; r == 0 && i < list.count; i++) {
		QS_AUTO(qs_auto_free) char *real = qs_env_path(env, list.items[i].path);

		if (!list.items[i].raw && look(real, now) == 1)
			(void)json_array_append_new(ret_left, qs_utf8_json(list.items[i].path));
	}
	return r;
}

int qs_backup_purge(const struct qs_env *env, const char *name, const struct qs_luks_header *now,
		    json_t *ret_left, struct qs_error *err)
{
	QS_AUTO(qs_backup_names_done) char **names = NULL;
	struct qs_luks_header known = *now; /* the judge takes no const; it changes nothing */
	int n = qs_backup_erase_if(env, name, is_revoked, &known, err);
	int r = n < 0 ? n : qs_backup_names(env, &names, err);

	for (char **other = names; r == 0 && *other; other++)
		if (strcmp(*other, name) != 0)
			r = look_elsewhere(env, *other, now, ret_left, err);
	return r < 0 ? r : n;
}
