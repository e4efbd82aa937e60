#include "ops/event.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/utf8.h"
#include "journal/journal.h"

#define SOCKET "/run/systemd/journal/socket"

#define FIELDS 9U

/* Ids of our own (journalctl --new-id128); they never change: people search for them. */
static const struct {
	const char *id;
	enum qs_log_level level;
	const char
		*text; /* name of the device, or ABOUT, stands before it; way and reason behind */
	const char *about; /* where there is no device */
	const char *name;  /* of a rotation's: other products have events of these names */
} events[QS_EVENTS] = {
	[QS_EVENT_OPENED] = { .id = "b56f21aba2474211b76ca6f71a4743f4", QS_LOG_INFO, "was opened" },
	[QS_EVENT_WAY_FAILED] = { .id = "c303c4466e39450788307c398d8670c6",
				  QS_LOG_WARNING,
				  "was not opened" },
	[QS_EVENT_REFUSED] = { .id = "eb6b4fe61d8f4b4396299ab5455c35a2",
			       QS_LOG_ERROR,
			       "was refused" },
	[QS_EVENT_LOCKOUT] = { .id = "f16d0d2b2a6e4a93a9c7d0376b3de0de",
			       QS_LOG_WARNING,
			       "is near its lockout",
			       "the TPM" },
	[QS_EVENT_HEALED] = { .id = "2ded6d3ce00e41f8aa31ceb5906629ff",
			      QS_LOG_NOTICE,
			      "was sealed to the TPM anew" },
	[QS_EVENT_WAY_LOST] = { .id = "a8b056d7cf974dc59fc81ba652ee9414",
				QS_LOG_WARNING,
				"is no longer opened" },
	[QS_EVENT_EXPIRES] = { .id = "9fd303b770a14f1d865497a70f209dd6",
			       QS_LOG_WARNING,
			       "needs what ends soon",
			       "the keystore" },
	[QS_EVENT_KEYS_LOST] = { .id = "93b9abf1642c4fd5a8412d3c7713d7a0",
				 QS_LOG_ERROR,
				 "does not give its keys",
				 "the keystore" },
	[QS_EVENT_ROTATION_STARTED] = { .id = "fd430628f5184f2489b4bd8c814d387c",
					QS_LOG_INFO,
					"began",
					.name = "KeyRotationStarted" },
	[QS_EVENT_ROTATION_SUCCEEDED] = { .id = "6ec732c9164d40ffaf9dfd76671cfe29",
					  QS_LOG_NOTICE,
					  "is finished",
					  .name = "KeyRotationSucceeded" },
	[QS_EVENT_ROTATION_FAILED] = { .id = "6436837c39874e0fa259cd9f3a14c81d",
				       QS_LOG_ERROR,
				       "failed",
				       .name = "KeyRotationFailed" },
	[QS_EVENT_ROTATION_OVERDUE] = { .id = "ff0ec94bd02a4367a282c3fec441b031",
					QS_LOG_WARNING,
					"is overdue",
					.name = "KeyRotationOverdue" },
};

/* "NAME=value"; a value of somebody else's must not begin another field. */
static char *field(const char *name, const char *value)
{
	QS_AUTO(qs_auto_free) char *safe = qs_utf8_printable(value);

	return qs_printf("%s=%s", name, safe);
}

struct entry {
	char *fields[FIELDS];
	size_t count;
};

static void add(struct entry *e, char *text)
{
	e->fields[e->count++] = text;
}

static void begin(struct entry *e, enum qs_event event, const char *text)
{
	add(e, qs_printf("MESSAGE_ID=%s", events[event].id));
	add(e, qs_printf("PRIORITY=%d", (int)events[event].level));
	add(e, field("MESSAGE", text));
}

static void send_entry(const struct qs_journal_functions *journal, struct entry *e)
{
	if (journal->send((const char *const *)e->fields, e->count) < 0)
		qs_log(QS_LOG_DEBUG, "the journal did not take: %s", e->fields[2]);
	while (e->count > 0)
		free(e->fields[--e->count]);
}

/* NULL where no journal runs: nothing is loaded then. */
static const struct qs_journal_functions *find_journal(const struct qs_env *env)
{
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, SOCKET);
	const struct qs_module *module = NULL;
	struct qs_error err = {};

	if (access(path, F_OK) < 0)
		return NULL;
	if (qs_module_load(QS_JOURNAL_MODULE_NAME, QS_JOURNAL_MODULE_SYMBOL,
			   QS_JOURNAL_MODULE_VERSION, &module, &err) < 0)
		qs_log(QS_LOG_DEBUG, "the journal gets no message: %s", err.text);
	return (const struct qs_journal_functions *)module;
}

void qs_event_send(const struct qs_env *env, enum qs_event event, const struct qs_outcome *o,
		   const char *way, const char *reason)
{
	const struct qs_journal_functions *journal = find_journal(env);
	const char *name = o && o->name ? o->name : o ? o->device : events[event].about;
	QS_AUTO(qs_auto_free) char *text = NULL;
	struct entry e = {};

	if (!journal)
		return;
	text = qs_printf("%s %s%s%s%s%s", name, events[event].text, way ? " by " : "",
			 way ? way : "", reason ? ": " : "", reason ? reason : "");
	begin(&e, event, text);
	if (o)
		add(&e, field("QS_NAME", name));
	if (o && o->node)
		add(&e, field("QS_DEVICE", o->node));
	if (o && o->uuid)
		add(&e, field("QS_UUID", o->uuid));
	if (way)
		add(&e, field("QS_WAY", way));
	if (reason)
		add(&e, field("QS_REASON", reason));
	send_entry(journal, &e);
}

void qs_event_send_rotation(const struct qs_env *env, enum qs_event event, uint32_t generation,
			    const char *reason)
{
	const struct qs_journal_functions *journal = find_journal(env);
	QS_AUTO(qs_auto_free) char *to = NULL;
	QS_AUTO(qs_auto_free) char *text = NULL;
	struct entry e = {};

	if (!journal)
		return;
	to = generation ? qs_printf(" to generation %u", (unsigned)generation) : qs_strdup("");
	text = qs_printf("the keystore's rotation%s %s%s%s", to, events[event].text,
			 reason ? ": " : "", reason ? reason : "");
	begin(&e, event, text);
	add(&e, field("QS_EVENT", events[event].name));
	if (generation)
		add(&e, qs_printf("QS_GENERATION=%u", (unsigned)generation));
	if (reason)
		add(&e, field("QS_REASON", reason));
	send_entry(journal, &e);
}

/* What opened it; NULL: nothing had to. */
static const char *way_of(const json_t *details)
{
	/* Its token is one, too. */
	if (json_object_get(details, "keystore_generation"))
		return "the keystore";
	if (json_object_get(details, "token"))
		return "the TPM";
	if (json_object_get(details, "key_command"))
		return "the key command";
	if (json_object_get(details, "key_file"))
		return "a key file";
	return json_object_get(details, "keyslot") ? "a passphrase or recovery key" : NULL;
}

static void report(const struct qs_env *env, const struct qs_outcome *o)
{
	const char *way = way_of(o->details);
	const char *problem = json_string_value(json_object_get(o->details, "tpm2_problem"));

	if (problem)
		qs_event_send(env, QS_EVENT_WAY_FAILED, o, "the TPM", problem);
	if (o->error.kind == QS_E_HOSTILE)
		qs_event_send(env, QS_EVENT_REFUSED, o, NULL, o->error.text);
	else if (o->error.kind == QS_E_TPM_LOCKOUT)
		qs_event_send(env, QS_EVENT_LOCKOUT, NULL, NULL, o->error.text);
	else if (o->error.kind != QS_E_NONE)
		qs_event_send(env, QS_EVENT_WAY_FAILED, o, NULL, o->error.text);
	else if (way)
		qs_event_send(env, QS_EVENT_OPENED, o, way, NULL);
}

void qs_event_report_open(const struct qs_env *env, const struct qs_outcomes *list)
{
	for (size_t i = 0; i < list->count; i++)
		report(env, &list->items[i]);
}
