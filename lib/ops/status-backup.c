/*
 * cryptstatus: how a header and its backups agree. Reads only.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "luks/backup.h"
#include "luks/make.h"
#include "luks/ondisk.h"
#include "ops/status.h"

/* Takes TEXT. */
static void warn(const struct qs_status_subject *s, char *text)
{
	qs_outcome_warn(s->outcome, "%s", text);
	free(text);
}

/* Both headers with their keyslot areas, in memory. */
struct pair {
	struct qs_luks_header recorded;
	struct qs_header_image now_image, recorded_image;
};

static void pair_done(struct pair *p)
{
	qs_luks_header_done(&p->recorded);
	qs_header_image_done(&p->now_image);
	qs_header_image_done(&p->recorded_image);
}

/* Returns 1 when both could be read. A backup that is cut off is told. */
static int read_areas(const struct qs_env *env, const struct qs_status_subject *s, struct pair *p)
{
	QS_AUTO(qs_auto_free) char *logical = qs_backup_path(env, s->outcome->name);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, logical);
	QS_AUTO(qs_auto_close) int fd = open(real, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (s->header.version == 0 || p->recorded.version != s->header.version ||
	    qs_luks_areas_read(s->fd, s->outcome->device, &s->header, &p->now_image, NULL) < 0)
		return 0;
	if (fd >= 0 && qs_luks_areas_read(fd, logical, &p->recorded, &p->recorded_image, NULL) == 0)
		return 1;
	warn(s, qs_printf("the header backup is cut off: 'qs-util cryptbackup %s' makes a new one",
			  s->command_word));
	return 0;
}

/* By sequence number; LUKS1 has none, there the headers themselves are compared. */
static bool is_agreed(const struct qs_status_subject *s, const struct pair *p)
{
	const struct qs_luks_header *now = &s->header, *recorded = &p->recorded;

	if (recorded->version != now->version || strcasecmp(recorded->uuid, now->uuid) != 0)
		return false;
	if (now->version == 2)
		return recorded->seqid == now->seqid;
	return p->now_image.data && p->recorded_image.data &&
	       memcmp(p->now_image.data, p->recorded_image.data, sizeof(struct qs_luks1_binary)) ==
		       0;
}

static void warn_of_difference(const struct qs_status_subject *s, const struct pair *p)
{
	const struct qs_luks_header *now = &s->header, *recorded = &p->recorded;

	if (recorded->version == 0)
		warn(s, qs_printf("the header backup cannot be used: 'qs-util cryptbackup %s' "
				  "makes a new one",
				  s->command_word));
	else if (strcasecmp(recorded->uuid, now->uuid) != 0)
		warn(s, qs_printf("the header backup is of another LUKS device (UUID %s)",
				  recorded->uuid));
	else if (now->version == 2 && now->seqid < recorded->seqid)
		warn(s, qs_printf("the header is older than its backup (sequence %" PRIu64
				  ", backup %" PRIu64 "): 'qs-util cryptrestore %s' puts the "
				  "newer one back, 'qs-util cryptbackup %s' keeps this one",
				  now->seqid, recorded->seqid, s->command_word, s->command_word));
	else
		warn(s, qs_printf("another program has changed the header since its backup "
				  "(sequence %" PRIu64 ", backup %" PRIu64
				  "): run 'qs-util cryptbackup %s'",
				  now->seqid, recorded->seqid, s->command_word));
}

/* Key material that differs though nobody wrote that keyslot since. */
static json_t *compare_areas(const struct qs_status_subject *s, const struct pair *p)
{
	uint32_t differ =
		qs_luks_areas_differ(&s->header, &p->now_image, &p->recorded, &p->recorded_image);
	json_t *list = json_array();

	for (int slot = 0; slot < QS_LUKS_AREAS_MAX; slot++) {
		if (!(differ & 1U << slot))
			continue;
		(void)json_array_append_new(list, json_integer(slot));
		warn(s, qs_printf("the key material of keyslot %d is not that of its backup, "
				  "though nobody has set it anew: 'qs-util cryptrestore %s' "
				  "repairs it",
				  slot, s->command_word));
	}
	return list;
}

static json_int_t count_versions(const struct qs_env *env, const char *name)
{
	QS_AUTO(qs_backup_list_done) struct qs_backup_list list = {};
	json_int_t n = 0;

	if (qs_backup_list(env, name, &list, NULL) < 0)
		return 0;
	for (size_t i = 0; i < list.count; i++)
		n += !list.items[i].current && !list.items[i].raw;
	return n;
}

void qs_status_add_backup(const struct qs_env *env, struct qs_status_subject *s)
{
	QS_AUTO(pair_done) struct pair p = {};
	struct qs_error err = {};
	time_t when = 0, now = time(NULL);
	json_t *backup;
	int r = s->outcome->name ? qs_backup_load(env, s->outcome->name, &p.recorded, &when, &err)
				 : 0;

	if (r < 0)
		warn(s, qs_strdup(err.text));
	if (r == 0 && strcmp(s->header.subsystem, QS_SUBSYSTEM) == 0)
		warn(s,
		     qs_printf("no header backup: run 'qs-util cryptbackup %s'", s->command_word));
	if (r <= 0)
		return;
	backup = json_pack("{s:o,s:I,s:I}", "time", qs_json_time(when), "age_seconds",
			   (json_int_t)(now > when ? now - when : 0), "versions",
			   count_versions(env, s->outcome->name));
	if (p.recorded.version == 2)
		(void)json_object_set_new(backup, "sequence",
					  json_integer((json_int_t)p.recorded.seqid));
	if (read_areas(env, s, &p))
		(void)json_object_set_new(backup, "damaged_keyslots", compare_areas(s, &p));
	if (s->header.version)
		(void)json_object_set_new(backup, "agrees", json_boolean(is_agreed(s, &p)));
	if (p.recorded.version == 0 || (s->header.version && !is_agreed(s, &p)))
		warn_of_difference(s, &p);
	qs_outcome_detail(s->outcome, "backup", backup);
}
