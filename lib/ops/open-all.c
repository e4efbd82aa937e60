/*
 * cryptopenall: every device of ours that is present. Which those are is known
 * from crypttab and the names of the key files, so that nothing is scanned and
 * no header read in the parent.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "key/command.h"
#include "key/keydir.h"
#include "key/keyfile.h"
#include "key/place.h"
#include "keystore/provider.h"
#include "keystore/session.h"
#include "luks/unlock.h"
#include "ops/bundle.h"
#include "ops/check.h"
#include "ops/early.h"
#include "ops/internal.h"
#include "ops/keystore.h"
#include "ops/open.h"

struct plan {
	struct qs_open_jobs jobs;
	struct qs_outcomes *outcomes;
	struct qs_mapping_list mappings;
	bool keystore;             /* there is one */
	struct qs_outcomes lost;   /* qs_open_find_lost() */
	struct qs_error keys_hang; /* why keys_dir must not be touched, if so */
	bool *todo;                /* one per outcome: a worker must open it */
	size_t todo_count;
};

static bool has_name(const struct plan *p, const char *name)
{
	for (size_t i = 0; i < p->outcomes->count; i++)
		if (strcmp(p->outcomes->items[i].name, name) == 0)
			return true;
	return false;
}

static struct qs_open_request *add_candidate(struct plan *p, const char *name, const char *link)
{
	struct qs_outcome *o = qs_outcomes_add(p->outcomes, link);
	size_t count = p->outcomes->count;
	struct qs_open_request *grown = realloc(p->jobs.requests, count * sizeof(*grown));

	if (!grown)
		abort();
	p->jobs.requests = grown;
	qs_outcome_set(&o->name, name);
	qs_outcome_set(&o->by_id, link);
	grown[count - 1] = (struct qs_open_request){
		.name = qs_strdup(name),
		.link = qs_strdup(link),
		.node = qs_env_path(p->jobs.env, link),
		.command = qs_key_command_is_set(p->jobs.env),
		.keystore = p->keystore,
		.no_keystore = !p->keystore,
	};
	return &grown[count - 1];
}

static void add_usual_key(const struct plan *p, struct qs_open_request *request, const char *name)
{
	QS_AUTO(qs_auto_free) char *key = qs_key_path(p->jobs.env, name);

	qs_open_add_key(request, key);
}

static void add_line(struct plan *p, const struct qs_crypttab_entry *e)
{
	QS_AUTO(qs_auto_free) char *link = qs_spec_path(e->device);
	struct qs_open_request *request = add_candidate(p, e->name, link ? link : e->device);

	qs_open_apply_line(request, e);
	request->systemd = !qs_crypttab_has_option(e->options, "noauto");
	add_usual_key(p, request, e->name);
}

/* Without the key command, which an initramfs does not have. */
static void add_early_line(struct plan *p, const struct qs_crypttab_entry *e)
{
	struct qs_open_request *request;

	add_line(p, e);
	request = &p->jobs.requests[p->outcomes->count - 1];
	request->command = false;
	request->keystore = false;
	request->no_keystore = false;
	request->early = true;
}

/* A line that was ours as long as there was a keystore. Returns false when E is none. */
static bool add_lost_line(struct plan *p, const struct qs_crypttab_entry *e)
{
	for (size_t i = 0; i < p->lost.count; i++) {
		if (strcmp(p->lost.items[i].name, e->name) != 0)
			continue;
		add_line(p, e);
		p->outcomes->items[p->outcomes->count - 1].error = p->lost.items[i].error;
		return true;
	}
	return false;
}

static int add_lines(struct plan *p, bool early, struct qs_error *err)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	int r = qs_crypttab_load(p->jobs.env, &tab, err);

	if (r == 0 && !early)
		r = qs_open_find_lost(p->jobs.env, tab, &p->lost, err);
	for (size_t i = 0; r == 0 && i < qs_crypttab_count(tab); i++) {
		const struct qs_crypttab_entry *e = qs_crypttab_get(tab, i);

		if (has_name(p, e->name))
			continue;
		if (early && qs_early_is_line(e))
			add_early_line(p, e);
		if (!early && !add_lost_line(p, e) && qs_open_is_our_line(p->jobs.env, e))
			add_line(p, e);
	}
	return r;
}

/* "enc-X.key" without a line belongs to /dev/disk/by-id/X, if that is there. */
static void add_key_file(struct plan *p, const char *file)
{
	size_t length = strlen(file);
	QS_AUTO(qs_auto_free) char *name = NULL;
	QS_AUTO(qs_auto_free) char *link = NULL;
	QS_AUTO(qs_auto_free) char *path = NULL;

	if (length <= 4 || strcmp(file + length - 4, ".key") != 0)
		return;
	name = qs_printf("%.*s", (int)(length - 4), file);
	link = qs_name_to_link(name);
	if (!link || has_name(p, name))
		return;
	path = qs_env_path(p->jobs.env, link);
	if (access(path, F_OK) == 0)
		add_usual_key(p, add_candidate(p, name, link), name);
}

static void add_key_files(struct plan *p)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(p->jobs.env, p->jobs.env->config.keys_dir);
	QS_AUTO(qs_auto_closedir) DIR *d = opendir(real);
	const struct dirent *e;

	while (d && (e = readdir(d)))
		add_key_file(p, e->d_name);
}

/* ---- from a key bundle ---- */

static bool is_there(const struct qs_env *env, const char *link)
{
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, link);

	return access(real, F_OK) == 0;
}

/* Its link, or when that is gone (another controller, another machine) its LUKS UUID. */
static char *find_link(const struct qs_env *env, const struct qs_manifest_device *d)
{
	const char *uuid = strncmp(d->device, "UUID=", 5) == 0 ? d->device + 5 : d->uuid;
	QS_AUTO(qs_auto_free) char *by_uuid = qs_printf("/dev/disk/by-uuid/%s", uuid);

	if (d->device[0] != '/' || (*uuid && !is_there(env, d->device) && is_there(env, by_uuid)))
		return QS_TAKE(by_uuid);
	return qs_strdup(d->device);
}

static void add_bundle(struct plan *p, const struct qs_bundle_keys *bundle)
{
	for (size_t i = 0; i < bundle->count; i++) {
		const struct qs_manifest_device *d = &bundle->devices[i];
		const struct qs_crypttab_entry line = { .name = d->name, .options = d->options };
		QS_AUTO(qs_auto_free) char *link = find_link(p->jobs.env, d);
		struct qs_open_request *request;

		if (has_name(p, d->name))
			continue;
		request = add_candidate(p, d->name, link);
		request->command = false;
		request->no_keystore = false;
		request->bundle = true;
		request->key = bundle->keys[i].data ? &bundle->keys[i] : NULL;
		qs_open_apply_line(request, &line);
	}
}

/*
 * Without those keys whose directory hangs: another one, or the key command, need
 * not wait for it. Returns false when nothing is left.
 */
static bool drop_keys(const struct plan *p, struct qs_open_request *request)
{
	size_t kept = 0;

	for (size_t i = 0; i < QS_OPEN_KEYS && request->key_files[i]; i++) {
		char *key = QS_TAKE(request->key_files[i]);

		if (qs_key_is_in_dir(p->jobs.env, key))
			free(key);
		else
			request->key_files[kept++] = key;
	}
	return kept > 0 || request->command || request->keystore;
}

/* Returns true when a worker must open it. */
static bool must_open(const struct plan *p, struct qs_outcome *o, struct qs_open_request *request,
		      const struct qs_open_options *options)
{
	QS_AUTO(qs_auto_free) char *real = realpath(request->node, NULL);
	struct qs_device dev = { .node = real };
	int r;

	if (o->error.kind != QS_E_NONE)
		return false;
	if (options->boot && request->systemd) {
		qs_outcome_set(&o->note, "left to systemd");
		qs_outcome_detail(o, "state", json_string("left"));
		return false;
	}
	r = real ? qs_open_stat_device(real, &dev) : -errno;
	if (r < 0 && r != -ENOENT && r != -ENOTDIR) {
		(void)qs_fail_errno(&o->error, r, "cannot look at %s", request->link);
		return false;
	}
	if (r < 0) {
		qs_outcome_set(&o->note, QS_OPEN_ABSENT);
		qs_outcome_detail(o, "state", json_string(QS_OPEN_ABSENT));
		return false;
	}
	qs_outcome_set(&o->node, real);
	qs_outcome_set(&request->node, real);
	qs_open_apply_options(request, options);
	r = options->test ? 0
			  : qs_open_check_mapping(&p->mappings, request->name, &dev, "", &o->error);
	if (r == 1)
		qs_open_note_open(o);
	if (r == 0 && p->keys_hang.kind != QS_E_NONE && !drop_keys(p, request)) {
		o->error = p->keys_hang;
		return false;
	}
	return r == 0;
}

static int add_all(struct plan *p, const struct qs_open_options *options, struct qs_error *err)
{
	int r;

	if (options->bundle) {
		add_bundle(p, options->bundle);
		return 0;
	}
	r = add_lines(p, options->early, err);
	if (r == 0 && options->early && !options->test)
		qs_early_wait(p->jobs.env, p->jobs.requests, p->outcomes->count);
	if (r == 0 && !options->early && qs_key_dir_answers(p->jobs.env, &p->keys_hang) == 0)
		add_key_files(p);
	return r;
}

static int make_plan(struct plan *p, const struct qs_open_options *options, struct qs_error *err)
{
	int r = add_all(p, options, err);

	if (r < 0)
		return r;
	r = options->test ? 0 : qs_mapping_scan(&p->mappings, err);
	if (r < 0)
		return r;
	p->todo = calloc(p->outcomes->count + 1, sizeof(*p->todo));
	if (!p->todo)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu devices", p->outcomes->count);
	for (size_t i = 0; p->jobs.requests && i < p->outcomes->count; i++) {
		p->todo[i] = must_open(p, &p->outcomes->items[i], &p->jobs.requests[i], options);
		p->todo_count += p->todo[i];
	}
	return 0;
}

static bool has_its_key(size_t i, void *cookie)
{
	return qs_tpm2_fetch_is_settled(cookie, i);
}

/* Each device as soon as the TPM has come to it, or at once. FETCH may be NULL. */
static int open_beside(const struct qs_env *env, struct plan *p, struct qs_tpm2_fetch *fetch,
		       struct qs_error *err)
{
	const struct qs_beside tpm = {
		.pool = fetch ? qs_tpm2_fetch_pool(fetch) : NULL,
		.ready = has_its_key,
		.prepare = p->todo_count > 1 ? qs_luks_warm_up : NULL,
		.cookie = fetch,
	};

	return qs_outcomes_run_beside(env, p->outcomes, p->todo, qs_open_job, &p->jobs, &tpm, err);
}

/* The keystore is asked only for those to which the TPM gave nothing: that is known at its end. */
static int prepare_keystore(const struct qs_env *env, struct plan *p, struct qs_tpm2_fetch **fetch,
			    struct qs_error *err)
{
	int r = 0;

	if (!p->keystore)
		return 0;
	if (*fetch && qs_tpm2_fetch_pool(*fetch))
		r = qs_pool_run(qs_tpm2_fetch_pool(*fetch), 1, err);
	qs_tpm2_fetch_done(fetch);
	return r < 0 ? r
		     : qs_open_prepare_keystore(env, p->jobs.requests, p->outcomes->count, p->todo,
						err);
}

/* Is only a key server missing? Its turn comes when the network is up. */
static bool waits_for_server(const struct qs_open_request *request, const struct qs_outcome *o,
			     const struct qs_keystore *ks)
{
	uint32_t generation;

	if (o->error.kind != QS_E_TEMPORARY)
		return false;
	generation = qs_open_keystore_peek(request, ks, NULL);
	return generation > 0 && qs_keystore_provider(ks, generation)->network;
}

static void leave_to_servers(const struct qs_env *env, const struct plan *p)
{
	struct qs_keystore ks;

	if (!env->keystore || !env->keystore->local || qs_keystore_load(env, &ks, NULL) < 0)
		return;
	for (size_t i = 0; i < p->outcomes->count; i++) {
		struct qs_outcome *o = &p->outcomes->items[i];

		if (!waits_for_server(&p->jobs.requests[i], o, &ks))
			continue;
		o->error = (struct qs_error){};
		qs_outcome_set(&o->note, "left until key servers are asked");
		qs_outcome_detail(o, "state", json_string("left"));
	}
}

int qs_open_all(const struct qs_env *env, const struct qs_open_options *options,
		struct qs_outcomes *ret, struct qs_error *err)
{
	QS_AUTO(qs_tpm2_keys_done) struct qs_tpm2_keys tpm2 = {};
	QS_AUTO(qs_tpm2_fetch_done) struct qs_tpm2_fetch *fetch = NULL;
	/* With what is in the bundle instead of what is on this machine. */
	struct qs_env inside = *env;
	struct plan p = { .jobs = { .env = &inside }, .outcomes = ret };
	int r = qs_outcomes_init(ret, NULL, 0, err);

	if (options->bundle)
		inside.held = qs_bundle_keystore(options->bundle);
	p.keystore = options->bundle ? inside.held != NULL : qs_keystore_is_there(env);
	if (r == 0)
		r = make_plan(&p, options, err);
	if (r == 0 && options->all_ways)
		r = qs_open_prepare_keystore(&inside, p.jobs.requests, ret->count, p.todo, err);
	if (r == 0 && options->all_ways) {
		r = qs_check_ways(env, p.jobs.requests, ret, p.todo, err);
		p.todo_count = 0;
	}
	if (r == 0 && options->early)
		r = qs_early_ask_tpm2(env, options, p.jobs.requests, ret->count, p.todo, &tpm2,
				      err);
	else if (r == 0 && p.todo_count > 0)
		r = qs_open_begin_tpm2(env, options, p.jobs.requests, ret->count, p.todo, &tpm2,
				       &fetch, err);
	if (r == 0 && p.todo_count > 0)
		r = prepare_keystore(&inside, &p, &fetch, err);
	if (r == 0 && !options->all_ways)
		r = open_beside(&inside, &p, fetch, err);
	if (r == 0 && options->early && !options->test)
		r = qs_early_report(env, ret, p.jobs.requests, err);
	if (r == 0 && p.todo_count > 0)
		leave_to_servers(&inside, &p);
	if (r == 0 && p.todo_count > 0)
		qs_open_finish(env, options, p.jobs.requests, ret);
	for (size_t i = 0; p.jobs.requests && i < ret->count; i++)
		qs_open_request_done(&p.jobs.requests[i]);
	free(p.jobs.requests);
	free(p.todo);
	qs_outcomes_done(&p.lost);
	qs_mapping_list_done(&p.mappings);
	return r;
}
