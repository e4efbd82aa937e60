/*
 * The provider kmip: credentials, and the worker process that talks to the servers.
 */
#include <string.h>

#include "base/cleanup.h"
#include "base/task.h"
#include "keystore/kmip-internal.h"
#include "keystore/server.h"

/* The module keeps its own deadlines; its worker is killed when it does not. */
#define MARGIN_MS 1000U

#define PASSWORD_MAX 1024 /* bytes */

struct call {
	const struct qs_env *env;
	qs_kmip_job *job;
	void *cookie;
};

struct credentials {
	struct qs_secret ca, certificate, key, password;
};

static void credentials_done(struct credentials *c)
{
	qs_secret_done(&c->ca);
	qs_secret_done(&c->certificate);
	qs_secret_done(&c->key);
	qs_secret_done(&c->password);
}

/* One line of text. */
static int load_password(const struct qs_env *env, struct qs_secret *ret, struct qs_error *err)
{
	const char *path = env->config.kmip_password_file;
	const unsigned char *text;
	int r = qs_server_credential(env, path, "kmip_password_file", ret, err);

	if (r < 0)
		return r;
	text = ret->data;
	if (ret->size > 0 && text[ret->size - 1] == '\n')
		ret->size--;
	for (size_t i = 0; r == 0 && i < ret->size; i++)
		if (text[i] < ' ' || text[i] == 0x7f)
			r = -EINVAL;
	if (r < 0 || ret->size == 0 || ret->size > PASSWORD_MAX)
		return qs_fail(err, QS_E_KEY_FILE, "%s: it is not one line of a password", path);
	return 0;
}

static int job(struct qs_worker *worker, void *cookie, json_t **ret, struct qs_error *err)
{
	const struct call *call = cookie;
	const struct qs_config *config = &call->env->config;
	QS_AUTO(credentials_done) struct credentials c = {};
	const struct qs_kmip_access access = {
		.servers = config->kmip_servers,
		.version = config->kmip_version,
		.ca = { config->kmip_ca, &c.ca },
		.certificate = { config->kmip_certificate, &c.certificate },
		.key = { config->kmip_key, &c.key },
		.login = { config->kmip_user, &c.password },
		.deadline_ms = config->kmip_deadline_s * 1000,
	};
	const struct qs_module *module = NULL;
	int r;

	(void)worker;
	/* OpenSSL has keys in memory of its own. */
	qs_secret_lock_all();
	if (!*access.servers)
		return qs_fail(err, QS_E_CONFIG,
			       "no key server is configured: set kmip_servers in qs-util.conf");
	r = qs_server_credential(call->env, config->kmip_ca, "kmip_ca", &c.ca, err);
	if (r == 0)
		r = qs_server_credential(call->env, config->kmip_certificate, "kmip_certificate",
					 &c.certificate, err);
	if (r == 0)
		r = qs_server_credential(call->env, config->kmip_key, "kmip_key", &c.key, err);
	if (r == 0 && *config->kmip_user)
		r = load_password(call->env, &c.password, err);
	if (r == 0)
		r = qs_module_load(QS_KMIP_MODULE_NAME, QS_KMIP_MODULE_SYMBOL,
				   QS_KMIP_MODULE_VERSION, &module, err);
	if (r < 0)
		return r;
	return call->job((const struct qs_kmip_functions *)module, &access, call->cookie, ret, err);
}

int qs_kmip_call(const struct qs_env *env, qs_kmip_job *what, void *cookie, json_t **ret,
		 struct qs_error *err)
{
	QS_AUTO(qs_auto_free)
	char *late = qs_printf("no key server answered within %u seconds (kmip_deadline in "
			       "qs-util.conf)",
			       env->config.kmip_deadline_s);
	struct call call = { .env = env, .job = what, .cookie = cookie };
	const struct qs_task task = {
		.deadline_ms = env->config.kmip_deadline_s * 1000 + MARGIN_MS,
		.grace_ms = QS_SERVER_GRACE_MS,
		.late = late,
		.job = job,
		.cookie = &call,
	};

	return qs_task_run(&task, ret, NULL, err);
}
