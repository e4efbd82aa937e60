/*
 * cryptstatus: what is known of one device, what is wrong, and the way out.
 * Reads only: headers through our own reader, which repairs nothing (F8).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "key/command.h"
#include "key/keyfile.h"
#include "key/place.h"
#include "luks/backup.h"
#include "luks/driver.h"
#include "luks/kind.h"
#include "luks/make.h"
#include "ops/journal.h"
#include "ops/keystore.h"
#include "ops/open.h"
#include "ops/status.h"

#define MAX_KEYSLOTS 32

#define warn(s, ...) qs_outcome_warn((s)->outcome, __VA_ARGS__)

static void set(struct qs_status_subject *s, const char *key, json_t *value)
{
	qs_outcome_detail(s->outcome, key, value);
}

/* Which key probably opens a slot; nothing is tried here (that is cryptopen --test). */
static const char *opened_by(const struct qs_status *st, const struct qs_status_subject *s,
			     const struct qs_keyslot *slot)
{
	QS_AUTO(qs_auto_free) char *key = NULL;
	QS_AUTO(qs_auto_free) char *real = NULL;
	const char *kind;

	if (slot->token_type[0])
		return slot->token_type;
	kind = qs_slot_kind(s->header.json, slot->number, NULL);
	if (strcmp(kind, QS_KIND_PASSPHRASE) == 0)
		return kind;
	if (slot->key_file || strcmp(kind, QS_KIND_KEY_FILE) == 0)
		return "key file";
	if (slot->number != 0 || !s->outcome->name ||
	    strcmp(s->header.subsystem, QS_SUBSYSTEM) != 0)
		return "passphrase or key file";
	key = qs_key_path(st->env, s->outcome->name);
	real = qs_env_path(st->env, key);
	if (st->keys_hang.kind == QS_E_NONE && access(real, F_OK) == 0)
		return "key file";
	return qs_key_command_is_set(st->env) ? "key command" : "passphrase or key file";
}

static void add_keyslots(const struct qs_status *st, struct qs_status_subject *s)
{
	struct qs_keyslot slots[MAX_KEYSLOTS];
	size_t n = qs_luks_keyslots(&s->header, slots, MAX_KEYSLOTS);
	json_t *list = json_array();
	struct qs_error err = {};

	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(
			list, json_pack("{s:i,s:s,s:I,s:I,s:s}", "number", slots[i].number, "kdf",
					slots[i].kdf, "iterations", (json_int_t)slots[i].iterations,
					"memory", (json_int_t)slots[i].memory, "opened_by",
					opened_by(st, s, &slots[i])));
	set(s, "keyslots", list);
	qs_tpm2_describe(s->header.json, s->outcome->details);
	if (s->header.version == 2 && qs_keystore_describe(st->env, &s->header, list, &err) < 0)
		warn(s, "%s", err.text);
	if (n == 0)
		warn(s, "no keyslot: nothing opens this device but a header backup");
}

static void add_flags(struct qs_status_subject *s)
{
	const json_t *config = json_object_get(s->header.json, "config");
	json_t *flags = json_object_get(config, "flags");

	if (json_is_array(flags) && json_array_size(flags) > 0)
		set(s, "flags", json_deep_copy(flags));
}

static void add_driver(const struct qs_status *st, struct qs_status_subject *s)
{
	struct qs_cipher_driver driver = {};

	if (qs_cipher_driver(st->env, s->header.cipher, &driver, NULL) < 0 || !driver.driver[0])
		return;
	set(s, "driver", qs_utf8_json(driver.driver));
	if (driver.slow)
		warn(s,
		     "the kernel encrypts with %s, a generic driver several times slower than the "
		     "processor's own instructions; load aesni_intel or its like",
		     driver.driver);
}

static const char *line_problem(const struct qs_status *st, const struct qs_status_subject *s,
				const struct qs_crypttab_entry *e)
{
	QS_AUTO(qs_auto_free)
	char *key = e->key && e->key[0] == '/' ? qs_env_path(st->env, e->key) : NULL;

	if (!e->device || !e->key)
		return "has fewer fields than systemd and Debian agree on";
	if (strncmp(e->device, "/dev/sd", 7) == 0 || strncmp(e->device, "/dev/dm-", 8) == 0)
		return "uses a kernel name that may be another disk after a reboot";
	if (strcmp(e->name, s->outcome->name) != 0)
		return "uses another name";
	if (key && st->keys_hang.kind != QS_E_NONE && qs_key_is_in_dir(st->env, e->key))
		return "names a key file that cannot be looked for";
	if (key && access(key, F_OK) < 0)
		return "names a key file that does not exist";
	return NULL;
}

/* Why the key file of a line may be out of reach. */
static void warn_of_place(const struct qs_status *st, struct qs_status_subject *s, const char *key)
{
	QS_AUTO(qs_auto_free) char *missing = qs_key_missing_mount(st->env, key);

	if (missing)
		warn(s, "%s", missing);
	else if (st->keys_hang.kind != QS_E_NONE && qs_key_is_in_dir(st->env, key))
		warn(s, "%s", st->keys_hang.text);
}

static void add_crypttab(const struct qs_status *st, struct qs_status_subject *s)
{
	const struct qs_crypttab_entry *e =
		s->dev ? qs_open_line_of(st->env, st->tab, s->dev, s->header.uuid) : NULL;
	const char *problem;

	if (!e && s->outcome->name)
		e = qs_crypttab_find(st->tab, s->outcome->name);
	if (!e) {
		if (strcmp(s->header.subsystem, QS_SUBSYSTEM) == 0)
			set(s, "crypttab",
			    json_pack("{s:b,s:s}", "agrees", 0, "problem", "no line"));
		return;
	}
	if (!s->outcome->name)
		qs_outcome_set(&s->outcome->name, e->name);
	problem = line_problem(st, s, e);
	if (problem && e->key)
		warn_of_place(st, s, e->key);
	if (st->keys_hang.kind == QS_E_NONE && qs_key_holds_boot(st->env, e))
		warn(s,
		     "line %u of " QS_CRYPTTAB " makes every boot wait for %s, which is on another "
		     "file system: add the option nofail, or noauto and enable "
		     "qs-util-openall.service",
		     e->line, e->key);
	set(s, "crypttab",
	    json_pack("{s:i,s:b,s:s*}", "line", (int)e->line, "agrees", !problem, "problem",
		      problem));
}

/* What slots are changed for leaves the device's state as it is. */
static const char *state_of_op(const char *op, const char *state)
{
	if (strcmp(op, "format") == 0)
		return "formatting";
	if (strcmp(op, "restore") == 0)
		return "restoring";
	return strcmp(op, "destroy") == 0 ? "destroying" : state;
}

static void add_state(const struct qs_status *st, struct qs_status_subject *s, const char *damage)
{
	QS_AUTO(qs_journal_done) struct qs_journal journal = {};
	const struct qs_mapping *m = s->dev ? qs_mapping_of_device(&st->mappings, s->dev) : NULL;
	struct qs_error err = {};
	int r = s->outcome->name ? qs_journal_read(st->env, s->outcome->name, &journal, &err) : 0;
	const char *state = m                        ? "open"
			    : damage                 ? "damaged"
			    : s->header.version == 0 ? "not-luks"
						     : "closed";

	if (r < 0)
		warn(s, "%s", err.text);
	if (r == 1) {
		QS_AUTO(qs_auto_free) char *command = qs_journal_command(&journal, s->command_word);

		state = state_of_op(journal.op, state);
		warn(s, "a %s was begun and not finished: run `%s` again", journal.op, command);
	}
	set(s, "state", json_string(state));
	if (m)
		set(s, "mapper", qs_utf8_json(m->name));
	if (damage)
		warn(s, "%s", damage);
	if (s->header.copies_differ)
		warn(s,
		     "the two copies of the header differ, as an update of it was interrupted: "
		     "'qs-util cryptrestore %s' makes them alike",
		     s->command_word);
}

/* Names first: they do not depend on a good header, and what follows looks things up by them. */
static void add_names(const struct qs_status *st, struct qs_status_subject *s)
{
	QS_AUTO(qs_auto_free) char *link = NULL;
	QS_AUTO(qs_auto_free) char *name = NULL;
	const char *uuid = s->header.uuid[0] ? s->header.uuid : NULL;

	if (uuid)
		qs_outcome_set(&s->outcome->uuid, uuid);
	if (qs_device_known_in(st->env, st->tab, s->dev, uuid, &link, &name, NULL) < 0)
		return;
	qs_outcome_set(&s->outcome->by_id, link);
	qs_outcome_set(&s->outcome->name, name);
}

static void add_header(const struct qs_status *st, struct qs_status_subject *s)
{
	const struct qs_luks_header *h = &s->header;
	struct qs_error err = {};
	int r;

	if (h->version == 0)
		return;
	set(s, "version", json_integer(h->version));
	set(s, "cipher", qs_utf8_json(h->cipher));
	set(s, "key_size", json_integer(h->key_size));
	set(s, "sector_size", json_integer(h->sector_size));
	if (h->version == 2)
		set(s, "metadata_size", json_integer((json_int_t)h->metadata_size));
	add_flags(s);
	add_keyslots(st, s);
	add_driver(st, s);
	r = h->version == 2 ? qs_luks_json_check(h->json, &st->env->config, &err)
			    : qs_luks1_check(h, &st->env->config, &err);
	if (r < 0)
		warn(s, "cryptopen refuses this header: %s", err.text);
}

/* A backup says that there must be a header, even where nothing is left of it. */
static bool is_known(const struct qs_status *st, const struct qs_outcome *o)
{
	QS_AUTO(qs_auto_free) char *logical = o->name ? qs_backup_path(st->env, o->name) : NULL;
	QS_AUTO(qs_auto_free) char *real = logical ? qs_env_path(st->env, logical) : NULL;

	return real && access(real, F_OK) == 0;
}

void qs_status_describe(const struct qs_status *st, const struct qs_device *dev,
			struct qs_outcome *outcome)
{
	QS_AUTO(qs_auto_close) int fd = open(dev->node, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct qs_status_subject s = { .outcome = outcome, .dev = dev, .fd = fd };
	QS_AUTO(qs_auto_free) char *damage = NULL;
	int r;

	qs_outcome_set_device(outcome, dev);
	r = fd < 0 ? qs_fail_errno(&outcome->error, errno, "cannot open %s", dev->node)
		   : qs_luks_header_read(fd, &s.header, &outcome->error);
	if (r == 0) {
		add_names(st, &s);
		s.command_word = outcome->by_id ? outcome->by_id : outcome->device;
		if (qs_luks_header_is_trace(&s.header) || is_known(st, outcome))
			damage = qs_luks_header_damage(&s.header, fd, dev->node);
		add_state(st, &s, damage);
		add_header(st, &s);
		qs_status_add_backup(st->env, &s);
		add_crypttab(st, &s);
	}
	if (damage && s.header.version == 0)
		(void)qs_fail(&outcome->error, QS_E_DAMAGED, "%s", damage);
	qs_luks_header_done(&s.header);
}

void qs_status_describe_absent(const struct qs_status *st, const struct qs_crypttab_entry *e,
			       struct qs_outcomes *list)
{
	struct qs_status_subject s = {
		.outcome = qs_outcomes_add(list, e->device),
		.fd = -1,
		.command_word = e->device,
	};
	const struct qs_mapping *m = qs_mapping_by_name(&st->mappings, e->name);

	qs_outcome_set(&s.outcome->name, e->name);
	set(&s, "state", json_string("absent"));
	if (m)
		warn(&s,
		     "/dev/mapper/%s is left over from the disk that is gone: unmount it and run "
		     "`qs-util cryptclose %s`",
		     e->name, e->name);
	qs_status_add_backup(st->env, &s);
	add_crypttab(st, &s);
	qs_luks_header_done(&s.header);
}
