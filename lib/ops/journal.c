#include "ops/journal.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"

/* A few strings; anything longer is not ours. */
#define JOURNAL_MAX (64U << 10)

static char *journal_path(const struct qs_env *env, const char *name)
{
	QS_AUTO(qs_auto_free) char *logical = qs_printf(QS_PENDING_DIR "/%s.json", name);

	return qs_env_path(env, logical);
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

int qs_journal_read(const struct qs_env *env, const char *name, struct qs_journal *ret,
		    struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = journal_path(env, name);
	QS_AUTO(qs_auto_free) char *text = NULL;
	QS_AUTO(qs_auto_json) json_t *object = NULL;
	int r = qs_file_read_optional(path, JOURNAL_MAX, &text, NULL, err);

	if (r <= 0)
		return r;
	object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(object) || *text_of(object, "op") == '\0')
		return qs_fail(err, QS_E_FAILED,
			       "%s cannot be understood; look at it and remove it by hand", path);
	(void)snprintf(ret->op, sizeof(ret->op), "%s", text_of(object, "op"));
	(void)snprintf(ret->uuid, sizeof(ret->uuid), "%s", text_of(object, "uuid"));
	(void)snprintf(ret->image, sizeof(ret->image), "%s", text_of(object, "image"));
	ret->link = qs_strdup(text_of(object, "device"));
	ret->key_file = qs_strdup(json_string_value(json_object_get(object, "key_file")));
	ret->salt = qs_strdup(json_string_value(json_object_get(object, "salt")));
	ret->fstab = qs_strdup(json_string_value(json_object_get(object, "fstab")));
	return 1;
}

int qs_journal_write(const struct qs_env *env, const char *name, const struct qs_journal *journal,
		     struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = journal_path(env, name);
	QS_AUTO(qs_auto_free) char *dir = qs_env_path(env, QS_PENDING_DIR);
	QS_AUTO(qs_auto_free) char *text = NULL;
	QS_AUTO(qs_auto_json) json_t *object = NULL;
	const struct qs_replace how = { .mode = 0600 };
	int r = qs_file_make_dirs(dir, 0700, err);

	if (r < 0)
		return r;
	object = json_pack("{s:s,s:s,s:s,s:s*,s:s*,s:s*,s:s*}", "op", journal->op, "uuid",
			   journal->uuid, "device", journal->link, "key_file", journal->key_file,
			   "image", journal->image[0] ? journal->image : NULL, "salt",
			   journal->salt, "fstab", journal->fstab);
	text = object ? json_dumps(object, JSON_INDENT(1)) : NULL;
	if (!text)
		return qs_fail(err, QS_E_FAILED, "cannot note the beginning of the work on %s",
			       journal->link);
	return qs_file_replace(path, text, strlen(text), &how, err);
}

int qs_journal_remove(const struct qs_env *env, const char *name, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = journal_path(env, name);
	int r = qs_file_remove(path, err);

	return r < 0 ? r : 0;
}

char *qs_journal_command(const struct qs_journal *journal, const char *device)
{
	if (strcmp(journal->op, "new-key") == 0)
		return qs_printf("qs-util cryptenroll %s --new-key", device);
	if (strcmp(journal->op, "recovery-key") == 0)
		return qs_printf("qs-util cryptenroll %s --recovery-key%s%s", device,
				 journal->key_file ? " " : "",
				 journal->key_file ? journal->key_file : "");
	if (strcmp(journal->op, "rewrap") == 0)
		return qs_printf("qs-util keystore rewrap %s", device);
	return qs_printf("qs-util crypt%s %s", journal->op, device);
}

int qs_journal_drop(const struct qs_env *env, const char *name, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = journal_path(env, name);
	int r = qs_file_unlink(path, err);

	return r < 0 ? r : 0;
}

int qs_journal_sync(const struct qs_env *env, struct qs_error *err)
{
	/* The name does not matter: it is the directory that is synced. */
	QS_AUTO(qs_auto_free) char *path = journal_path(env, "any");
	struct qs_error own = {};
	int r = qs_file_sync_parent(path, &own);

	if (r == -ENOENT)
		return 0;
	if (r < 0 && err)
		*err = own;
	return r;
}

void qs_journal_done(struct qs_journal *journal)
{
	free(journal->link);
	free(journal->key_file);
	free(journal->salt);
	free(journal->fstab);
	*journal = (struct qs_journal){};
}
