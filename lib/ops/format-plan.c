/*
 * cryptformat, before anything is touched: which device, under which name, and
 * is there an unfinished format to go on with?
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <libcryptsetup.h>
#include <openssl/rand.h>

#include "base/cleanup.h"
#include "key/command.h"
#include "key/keyfile.h"
#include "luks/backup.h"
#include "ops/format.h"
#include "ops/journal.h"
#include "tab/crypttab.h"

/* Beneath this there is no room for data behind the header. */
#define MIN_SIZE (QS_DATA_OFFSET + (1ULL << 20))

struct qs_luks_spec qs_format_spec(const struct qs_format_run *f, const struct qs_format_target *t)
{
	const struct qs_config *config = &f->env->config;
	const struct qs_format_options *o = f->options;
	bool ours = !o->key_file && !t->command;
	struct qs_luks_spec spec = {
		.device_size = t->dev->size,
		.uuid = t->uuid,
		.label = t->name,
		.cipher = o->cipher ? o->cipher : config->cipher,
		.key_size = o->key_size ? o->key_size : config->key_size,
		.sector_size = o->sector_size ? o->sector_size : config->sector_size,
		.metadata_size = config->metadata_size,
		.keyslots_size = config->keyslots_size,
		.pbkdf = o->pbkdf,
		.fast_device = config->workqueue_flags && !t->dev->rotational,
	};

	if (spec.sector_size == 0)
		spec.sector_size = t->dev->size % 4096 == 0 ? 4096 : 512;
	/* A key that we made has full entropy; a person's or a program's may not. */
	if (!ours && !o->pbkdf)
		spec.pbkdf = CRYPT_KDF_ARGON2ID;
	if (ours && spec.pbkdf && strcmp(spec.pbkdf, CRYPT_KDF_PBKDF2) == 0)
		spec.pbkdf = NULL;
	return spec;
}

const char *qs_format_source(const struct qs_format_target *t)
{
	return t->keystore ? QS_FORMAT_KEYSTORE : t->key_file;
}

static int make_uuid(char ret[static 40], struct qs_error *err)
{
	unsigned char b[16];

	if (RAND_bytes(b, sizeof(b)) != 1)
		return qs_fail(err, QS_E_FAILED, "no random bytes for a UUID");
	/* RFC 4122, 4.4: version 4, variant 1. */
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	(void)snprintf(ret, 40,
		       "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
		       b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12],
		       b[13], b[14], b[15]);
	return 0;
}

static int check_size(const struct qs_device *dev, struct qs_error *err)
{
	if (dev->size >= MIN_SIZE)
		return 0;
	return qs_fail(err, QS_E_TOO_SMALL, "%s has %ju bytes; a LUKS2 device needs at least %ju",
		       dev->node, (uintmax_t)dev->size, (uintmax_t)MIN_SIZE);
}

static int refuse_other_key(const struct qs_format_run *f, const struct qs_format_target *t,
			    const char *used, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *usual = qs_key_path(f->env, t->name);

	if (used && strcmp(used, QS_FORMAT_KEYSTORE) == 0)
		return qs_fail(err, QS_E_REFUSED,
			       "an unfinished format of %s used the keystore; finish it without a "
			       "key file, and with the keystore enabled",
			       t->dev->node);
	if (t->keystore && used && strcmp(used, usual) == 0)
		return qs_fail(err, QS_E_REFUSED,
			       "an unfinished format of %s used the key file %s; finish it with "
			       "--key-file-only",
			       t->dev->node, used);
	if (used && strcmp(used, QS_CRYPTTAB_NO_KEY) == 0)
		return qs_fail(err, QS_E_REFUSED,
			       "an unfinished format of %s used the key command; finish it without "
			       "a key file, and with key_command in the configuration",
			       t->dev->node);
	return qs_fail(err, QS_E_REFUSED,
		       "an unfinished format of %s used the key file %s; name that one",
		       t->dev->node, used ? used : "(none)");
}

/* An unfinished format of this very device; another's under the same name is refused. */
static int look_for_journal(const struct qs_format_run *f, struct qs_format_target *t,
			    struct qs_error *err)
{
	QS_AUTO(qs_journal_done) struct qs_journal journal = {};
	QS_AUTO(qs_auto_free) char *command = NULL;
	int r = qs_journal_read(f->env, t->name, &journal, err);

	if (r <= 0)
		return r;
	command = qs_journal_command(&journal, t->link);
	if (strcmp(journal.op, "format") != 0)
		return qs_fail(err, QS_E_REFUSED,
			       "a %s of %s was begun; finish that first with `%s`", journal.op,
			       t->dev->node, command);
	if (strcmp(journal.link, t->link) != 0)
		return qs_fail(err, QS_E_EXISTS,
			       "the name %s belongs to %s, whose format is unfinished", t->name,
			       journal.link);
	if (!journal.key_file || strcmp(journal.key_file, qs_format_source(t)) != 0)
		return refuse_other_key(f, t, journal.key_file, err);
	(void)snprintf(t->uuid, sizeof(t->uuid), "%s", journal.uuid);
	t->resume = true;
	return 0;
}

/*
 * The crypttab line of a device that we are to format: none, or (when a format
 * is continued) our own. Returns 1 when our line is there.
 */
static int look_at_crypttab(const struct qs_format_run *f, const struct qs_format_target *t,
			    struct qs_error *err)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	const struct qs_crypttab_entry *e;
	int r = qs_crypttab_load(f->env, &tab, err);

	if (r < 0)
		return r;
	e = qs_crypttab_find(tab, t->name);
	if (!e)
		return 0;
	if (strcmp(e->device ? e->device : "", t->link) == 0)
		return 1;
	return qs_fail(err, QS_E_EXISTS, "line %u of %s uses the name %s for %s", e->line,
		       QS_CRYPTTAB, t->name, e->device ? e->device : "nothing");
}

/* A header of ours without a journal: finished, or interrupted before journals were kept. */
static int look_for_finished(const struct qs_format_run *f, struct qs_format_target *t,
			     bool has_line, struct qs_error *err)
{
	QS_AUTO(qs_luks_header_done) struct qs_luks_header now = {}, recorded = {};
	QS_AUTO(qs_auto_free) char *key = qs_env_path(f->env, t->key_file);
	char label[QS_LUKS_LABEL_L];
	time_t when;
	int r;

	if (t->resume || f->options->force || (qs_format_has_file(t) && access(key, F_OK) < 0))
		return 0;
	r = qs_device_read_header(t->dev, &now, err);
	if (r < 0)
		return r;
	qs_luks_label(t->name, label);
	if (now.version != 2 || strcmp(now.subsystem, QS_SUBSYSTEM) != 0 ||
	    strcmp(now.label, label) != 0)
		return 0;
	r = qs_backup_load(f->env, t->name, &recorded, &when, err);
	if (r < 0)
		return r;
	if (r == 1 && strcmp(recorded.uuid, now.uuid) == 0 && (has_line || f->options->no_crypttab))
		return qs_fail(err, QS_E_EXISTS,
			       "%s is formatted already as %s; open it with `qs-util cryptopen %s`",
			       t->dev->node, t->name, t->link);
	if (r == 1 && strcmp(recorded.uuid, now.uuid) != 0)
		return 0;
	(void)snprintf(t->uuid, sizeof(t->uuid), "%s", now.uuid);
	t->ours = true;
	return 0;
}

static int find_name(const struct qs_format_run *f, struct qs_format_target *t,
		     struct qs_error *err)
{
	int r = make_uuid(t->uuid, err);

	if (r == 0)
		r = qs_device_name(f->env, t->dev, t->uuid, &t->link, &t->name, err);
	if (r < 0)
		return r;
	t->keystore = f->keystore;
	t->command = !f->options->key_file && !f->options->key_file_only && !f->keystore &&
		     qs_key_command_is_set(f->env);
	if (!qs_format_has_file(t))
		t->key_file = qs_strdup(QS_CRYPTTAB_NO_KEY);
	else
		t->key_file = f->options->key_file ? qs_env_absolute(f->options->key_file)
						   : qs_key_path(f->env, t->name);
	return 0;
}

int qs_format_prepare(const struct qs_format_run *f, struct qs_format_target *t,
		      struct qs_outcome *o)
{
	unsigned allowed = f->options->force ? 1U << QS_USE_PARTITIONS : 0;
	struct qs_error *err = &o->error;
	struct qs_luks_spec spec;
	int has_line, r;

	r = qs_device_find(f->env, o->device, &t->dev, err);
	if (r < 0)
		return r;
	qs_outcome_set_device(o, t->dev);
	t->lock = qs_device_lock(f->env, t->dev, 0, err);
	if (t->lock < 0)
		return t->lock;
	r = find_name(f, t, err);
	if (r < 0)
		return r;
	qs_outcome_set(&o->by_id, t->link);
	qs_outcome_set(&o->name, t->name);
	spec = qs_format_spec(f, t);
	r = qs_luks_spec_check(&spec, err);
	if (r == 0)
		r = qs_crypttab_check(t->name, t->link, t->key_file,
				      f->env->config.crypttab_options, err);
	if (r == 0)
		r = check_size(t->dev, err);
	if (r == 0)
		r = look_for_journal(f, t, err);
	has_line = r == 0 ? look_at_crypttab(f, t, err) : r;
	if (has_line < 0)
		return has_line;
	r = look_for_finished(f, t, has_line == 1, err);
	if (r < 0)
		return r;
	if (has_line == 1 && (t->resume || t->ours))
		allowed |= 1U << QS_USE_CRYPTTAB;
	return qs_device_check_unused(f->env, t->dev, allowed, err);
}
