/*
 * The provider vault: credentials, and the worker process that talks to the servers.
 *
 * A secret-id that came wrapped is unwrapped once:
 *
 *   step                                left behind              second run
 *   unwrap at the server                the wrapping token,      "somebody has used it": a new
 *                                       which is void            one has to be made
 *   secret-id, durable                  both files               unwraps nothing, erases
 *   erase the wrapping token            finished
 */
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/task.h"
#include "key/keyfile.h"
#include "keystore/server.h"
#include "keystore/transit-internal.h"

/* The module keeps its own deadlines; its worker is killed when it does not. */
#define MARGIN_MS 1000U

/* Whose credentials, and where: of the configuration, or of a key for some devices only. */
struct identity {
	const char *role, *secret_id_file, *key; /* whose, if it is not the configuration's */
	const char *login_space, *name_space;
};

struct call {
	const struct qs_env *env;
	struct identity identity;
	qs_transit_job *job;
	void *cookie;
	struct qs_hcvault_login *login;
	struct qs_hcvault_silence *silence;
};

struct credentials {
	struct qs_secret ca, secret_id;
};

static void credentials_done(struct credentials *c)
{
	qs_secret_done(&c->ca);
	qs_secret_done(&c->secret_id);
}

static struct identity identify(const struct qs_env *env, const struct qs_transit_record *record)
{
	const struct qs_config *config = &env->config;
	struct identity id = {
		.role = config->vault_role_id,
		.secret_id_file = config->vault_secret_id_file,
		.login_space = config->vault_namespace,
		.name_space = config->vault_namespace,
	};

	if (record && *record->name_space)
		id.name_space = record->name_space;
	if (record && *record->role) {
		id.role = record->role;
		id.secret_id_file = record->secret_id_file;
		id.key = record->key;
		id.login_space = id.name_space;
	}
	return id;
}

bool qs_transit_same_login(const struct qs_transit_record *a, const struct qs_transit_record *b)
{
	return strcmp(a->role, b->role) == 0 && strcmp(a->secret_id_file, b->secret_id_file) == 0 &&
	       (!*a->role || strcmp(a->name_space, b->name_space) == 0);
}

static int load(const struct call *call, const char *path, struct qs_secret *ret,
		struct qs_error *err)
{
	const char *key = call->identity.key;
	QS_AUTO(qs_auto_free)
	char *what = qs_printf("the secret-id file %s of key %s", path, key ? key : "");

	return key ? qs_key_load_as(call->env, what, path, ret, err)
		   : qs_server_credential(call->env, path, "vault_secret_id_file", ret, err);
}

/* One line of visible ASCII that can stand in JSON as it is. */
static int load_line(const struct call *call, const char *path, struct qs_secret *ret,
		     struct qs_error *err)
{
	const char *text;
	int r = load(call, path, ret, err);

	if (r < 0)
		return r;
	text = ret->data;
	if (ret->size > 0 && text[ret->size - 1] == '\n')
		ret->size--;
	for (size_t i = 0; r == 0 && i < ret->size; i++)
		if (text[i] < '!' || text[i] > '~' || text[i] == '"' || text[i] == '\\')
			r = -EINVAL;
	if (r < 0 || ret->size == 0 || ret->size >= QS_TRANSIT_TOKEN_L)
		return qs_fail(err, QS_E_KEY_FILE, "%s: it is not one line of a secret-id", path);
	return 0;
}

static int unwrap_secret_id(const struct qs_hcvault_functions *module,
			    const struct qs_hcvault_access *how, const struct call *call,
			    const char *wrapped, struct qs_error *err)
{
	const char *path = call->identity.secret_id_file;
	QS_AUTO(qs_auto_free) char *real = qs_env_path(call->env, path);
	QS_AUTO(qs_secret_done) struct qs_secret token = {};
	QS_AUTO(qs_secret_done) struct qs_secret secret_id = {};
	int r;

	/* Both: a run that was killed had it already. */
	if (access(real, F_OK) == 0)
		return 0;
	r = load_line(call, wrapped, &token, err);
	if (r == 0)
		r = module->unwrap(how, &token, &secret_id, err);
	return r < 0 ? r : qs_key_store(call->env, path, &secret_id, false, err);
}

static int get_secret_id(const struct qs_hcvault_functions *module,
			 const struct qs_hcvault_access *how, const struct call *call,
			 struct credentials *c, struct qs_error *err)
{
	const char *path = call->identity.secret_id_file;
	QS_AUTO(qs_auto_free) char *wrapped = qs_printf("%s.wrapped", path);
	QS_AUTO(qs_auto_free) char *real = qs_env_path(call->env, wrapped);
	int r = 0;

	if (access(real, F_OK) == 0) {
		r = unwrap_secret_id(module, how, call, wrapped, err);
		if (r == 0)
			r = qs_file_erase(real, err);
	}
	return r < 0 ? r : load_line(call, path, &c->secret_id, err);
}

static int job(struct qs_worker *worker, void *cookie, json_t **ret, struct qs_error *err)
{
	const struct call *call = cookie;
	const struct qs_config *config = &call->env->config;
	QS_AUTO(credentials_done) struct credentials c = {};
	struct qs_hcvault_access how = {
		.servers = config->vault_servers,
		.name_space = call->identity.name_space,
		.login_space = call->identity.login_space,
		.mount = config->vault_mount,
		.auth = config->vault_auth_mount,
		.role = call->identity.role,
		.secret_id = &c.secret_id,
		.ca_path = config->vault_ca,
		.ca = &c.ca,
		.deadline_ms = config->vault_deadline_s * 1000,
		.login = call->login,
		.silence = call->silence,
	};
	const struct qs_module *module = NULL;
	int r;

	(void)worker;
	/* libcurl, OpenSSL and jansson have secrets in memory of their own. */
	qs_secret_lock_all();
	qs_secret_wipe_json();
	if (!*how.servers)
		return qs_fail(err, QS_E_CONFIG,
			       "no Vault server is configured: set vault_servers in qs-util.conf");
	if (!*how.role)
		return qs_fail(err, QS_E_CONFIG, "vault_role_id is not set in qs-util.conf");
	r = qs_server_credential(call->env, config->vault_ca, "vault_ca", &c.ca, err);
	if (r == 0)
		r = qs_module_load(QS_HCVAULT_MODULE_NAME, QS_HCVAULT_MODULE_SYMBOL,
				   QS_HCVAULT_MODULE_VERSION, &module, err);
	if (r == 0)
		r = get_secret_id((const struct qs_hcvault_functions *)module, &how, call, &c, err);
	if (r < 0)
		return r;
	return call->job((const struct qs_hcvault_functions *)module, &how, call->cookie, ret, err);
}

/* The session's login of WHO, in memory that it shares; NULL: it has none. */
static struct qs_hcvault_login *known_login(const struct qs_env *env, const char *who)
{
	const struct qs_keystore_session *s = env->keystore;

	for (size_t i = 0; s && i < s->login_count; i++)
		if (strcmp(s->logins[i].who, who) == 0)
			return s->logins[i].login;
	return NULL;
}

/* The login that this process may use for more than this call, or one for this call in *OWN. */
static int find_login(const struct call *call, struct qs_hcvault_login **own,
		      struct qs_hcvault_login **ret, struct qs_error *err)
{
	struct qs_keystore_session *s = qs_keystore_session_writable(call->env, NULL);
	QS_AUTO(qs_auto_free)
	char *who = qs_printf("%s %s %s", call->identity.role, call->identity.login_space,
			      call->identity.secret_id_file);
	void *memory = NULL;
	int r;

	*ret = known_login(call->env, who);
	if (*ret)
		return 0;
	r = qs_secret_share(&memory, sizeof(**ret), err);
	if (r < 0)
		return r;
	*ret = memory;
	if (s && s->login_count < QS_ARRAY_SIZE(s->logins))
		s->logins[s->login_count++] = (struct qs_keystore_login){ QS_TAKE(who), memory };
	else
		*own = memory;
	return 0;
}

/* What the session knows of servers that are silent. NULL: it has none that could know. */
static struct qs_hcvault_silence *find_silence(const struct qs_env *env)
{
	struct qs_keystore_session *s = qs_keystore_session_writable(env, NULL);
	void *memory = NULL;

	if (s && !s->silence && qs_secret_share(&memory, sizeof(*s->silence), NULL) == 0)
		s->silence = memory;
	return env->keystore ? env->keystore->silence : NULL;
}

int qs_transit_call(const struct qs_env *env, const struct qs_transit_record *record,
		    qs_transit_job *what, void *cookie, json_t **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_free)
	char *late = qs_printf("no Vault server answered within %u seconds (vault_deadline in "
			       "qs-util.conf)",
			       env->config.vault_deadline_s);
	struct qs_hcvault_login *own = NULL;
	struct call call = {
		.env = env,
		.identity = identify(env, record),
		.job = what,
		.cookie = cookie,
		.silence = find_silence(env),
	};
	const struct qs_task task = {
		.deadline_ms = env->config.vault_deadline_s * 1000 + MARGIN_MS,
		.grace_ms = QS_SERVER_GRACE_MS,
		.late = late,
		.job = job,
		.cookie = &call,
	};
	int r = find_login(&call, &own, &call.login, err);

	if (r == 0)
		r = qs_task_run(&task, ret, NULL, err);
	qs_secret_unshare(own, sizeof(*own));
	return r;
}
