/*
 * Requests with a login, and the servers in their order.
 */
#define _GNU_SOURCE
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "hcvault/internal.h"

#define BUSY_MS                                                                                    \
	250 /* waited for a server that is busy and does not say for how long; then twice it */
#define RENEW_AFTER                                                                                \
	2 /* thirds of a token's time: what is left lasts for one command's requests               \
	   */

static int64_t boottime(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec;
}

/* ---- requests ---- */

/* Returns 0: waited; else what ERR has already. */
static int wait_for(const struct qs_hcvault_link *link, unsigned ms)
{
	const struct timespec span = { .tv_sec = ms / 1000,
				       .tv_nsec = (long)(ms % 1000) * 1000000 };

	if (qs_hcvault_now() + ms >= link->deadline)
		return -EAGAIN;
	(void)nanosleep(&span, NULL);
	return 0;
}

/* As qs_hcvault_ask(), but for the token. */
static int ask_on(struct qs_hcvault_link *link, const struct qs_hcvault_request *request,
		  json_t **ret, enum qs_transit_verdict *verdict, struct qs_error *err)
{
	unsigned wait = BUSY_MS;

	for (;; wait *= 2) {
		struct qs_transit_answer answer;
		struct qs_error own = {};
		unsigned retry = 0;
		int r;

		*verdict = QS_TRANSIT_ELSEWHERE;
		r = qs_hcvault_send(link, request, &answer, &retry, &own);
		if (r == 0)
			*verdict = qs_transit_judge(&answer, ret, &own);
		explicit_bzero(link->buffer.data, link->used);
		if (r == 0 && *verdict == QS_TRANSIT_DONE)
			return 0;
		if (*verdict == QS_TRANSIT_BUSY && wait_for(link, retry > wait ? retry : wait) == 0)
			continue;
		link->refused = *verdict == QS_TRANSIT_REFUSED;
		*err = own;
		return qs_negative(qs_kind_errno(own.kind));
	}
}

static void keep(struct qs_hcvault_login *login, struct qs_transit_login *got)
{
	int64_t now = boottime(), seconds = (int64_t)got->seconds;

	memcpy(login->token, got->token, sizeof(login->token));
	login->ends = seconds ? now + seconds : 0;
	login->renew = seconds && got->renewable ? now + seconds * RENEW_AFTER / 3 : 0;
	explicit_bzero(got, sizeof(*got));
}

/*
 * Tried once, in a part of the time that the request has. Where it fails, the token serves until
 * its end, and a login follows.
 */
static void renew(struct qs_hcvault_link *link)
{
	struct qs_hcvault_login *login = link->access->login;
	const struct qs_hcvault_request request = { "POST", "auth/token/renew-self",
						    .token = login->token,
						    .about = "renewing the token" };
	QS_AUTO(qs_auto_json) json_t *answer = NULL;
	struct qs_transit_login got = {};
	enum qs_transit_verdict verdict;
	struct qs_error ignored = {};
	bool refused = link->refused;
	int64_t now = qs_hcvault_now(), deadline = link->deadline;

	login->renew = 0;
	link->deadline = now + (deadline - now) / 4;
	if (ask_on(link, &request, &answer, &verdict, &ignored) == 0 &&
	    qs_transit_read_login(answer, &got, &ignored) == 0)
		keep(login, &got);
	link->refused = refused;
	link->deadline = deadline;
}

int qs_hcvault_log_in(struct qs_hcvault_link *link, struct qs_error *err)
{
	struct qs_hcvault_login *login = link->access->login;
	QS_AUTO(qs_auto_free) char *path = qs_printf("auth/%s/login", link->access->auth);
	QS_AUTO(qs_secret_done) struct qs_secret body = {};
	QS_AUTO(qs_auto_json) json_t *answer = NULL;
	struct qs_hcvault_request request = {
		"POST", path, &body, .token = "", .about = "logging in", .login = true
	};
	struct qs_transit_login got = {};
	enum qs_transit_verdict verdict;
	int64_t now = boottime();
	int r;

	if (login->failed.kind != QS_E_NONE) {
		link->refused = true;
		*err = login->failed;
		return qs_negative(qs_kind_errno(err->kind));
	}
	if (*login->token && (login->ends == 0 || now < login->ends)) {
		if (login->renew && now >= login->renew)
			renew(link);
		return 0;
	}
	r = qs_transit_write_login(link->access->role, link->access->secret_id, &body, err);
	if (r == 0)
		r = ask_on(link, &request, &answer, &verdict, err);
	if (r < 0 && link->refused)
		login->failed = *err;
	if (r == 0)
		r = qs_transit_read_login(answer, &got, err);
	if (r < 0)
		return r;
	memcpy(login->role, got.role, sizeof(login->role));
	keep(login, &got);
	return 0;
}

/* Was something denied by the policy? Then no login helps; it may be the secret-id's last. */
static bool is_token_valid(struct qs_hcvault_link *link)
{
	const struct qs_hcvault_request request = { "GET", "auth/token/lookup-self",
						    .token = link->access->login->token,
						    .about = "looking at the token" };
	QS_AUTO(qs_auto_json) json_t *answer = NULL;
	enum qs_transit_verdict verdict;
	struct qs_error ignored = {};

	return ask_on(link, &request, &answer, &verdict, &ignored) == 0;
}

int qs_hcvault_ask(struct qs_hcvault_link *link, const struct qs_hcvault_request *request,
		   json_t **ret, enum qs_transit_verdict *ret_verdict, struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *answer = NULL;
	enum qs_transit_verdict verdict = QS_TRANSIT_ELSEWHERE;
	struct qs_error own = {};
	int r = request->token ? 0 : qs_hcvault_log_in(link, &own);

	if (r == 0)
		r = ask_on(link, request, &answer, &verdict, &own);
	if (verdict == QS_TRANSIT_DENIED && !request->token && !is_token_valid(link)) {
		/* Expired, or revoked, or used as often as it may be. */
		*link->access->login->token = '\0';
		own = (struct qs_error){};
		r = qs_hcvault_log_in(link, &own);
		if (r == 0)
			r = ask_on(link, request, &answer, &verdict, &own);
	}
	link->refused |= verdict == QS_TRANSIT_DENIED && !request->token;
	if (ret_verdict)
		*ret_verdict = verdict;
	if (r < 0 && err)
		*err = own;
	if (ret)
		*ret = QS_TAKE(answer);
	return r;
}

/* ---- the servers in their order ---- */

/* Returns how many; TEXT is cut at the commas. */
static int parse_hosts(char *text, const char *ret[QS_HCVAULT_SERVERS], struct qs_error *err)
{
	int count = 0;
	char *next = NULL;

	for (char *p = strtok_r(text, ",", &next); p; p = strtok_r(NULL, ",", &next)) {
		if (count == QS_HCVAULT_SERVERS || strlen(p) >= QS_HCVAULT_SERVER_L ||
		    strpbrk(p, "/@?#\\"))
			return qs_fail(err, QS_E_CONFIG,
				       "vault_servers in qs-util.conf: '%.200s' is not HOST or "
				       "HOST:PORT, or one too many (%d)",
				       p, QS_HCVAULT_SERVERS);
		ret[count++] = p;
	}
	if (count == 0)
		return qs_fail(err, QS_E_CONFIG,
			       "no Vault server is configured: set vault_servers in qs-util.conf");
	return count;
}

static bool is_silent(const struct qs_hcvault_access *access, int host)
{
	return access->silence &&
	       qs_hcvault_now() < __atomic_load_n(&access->silence->until[host], __ATOMIC_RELAXED);
}

/* When the server HOST of COUNT has to have answered, all of them by END: one that is silent shall
 * not take all of the time, nor one that is not asked any. */
static int64_t share(const struct qs_hcvault_access *access, int host, int count, int64_t end)
{
	int64_t now = qs_hcvault_now(), asked = 1;

	for (int i = host + 1; i < count; i++)
		asked += !is_silent(access, i);
	return now + (end - now) / asked;
}

static void note_silence(const struct qs_hcvault_access *access, int host)
{
	if (access->silence)
		__atomic_store_n(&access->silence->until[host],
				 qs_hcvault_now() + access->deadline_ms, __ATOMIC_RELAXED);
}

/* A refusal says what it is, whatever else was wrong with the servers before; else the first that
 * says more than that it is away. */
static void collect(const struct qs_error *own, bool refused, struct qs_error *all)
{
	enum qs_kind kind = all->kind;

	if (kind == QS_E_NONE)
		*all = *own;
	else
		qs_error_append(all, "; %s", own->text);
	if (refused || kind == QS_E_TEMPORARY)
		all->kind = own->kind;
}

int qs_hcvault_with_server(const struct qs_hcvault_access *access,
			   int (*op)(struct qs_hcvault_link *link, void *cookie,
				     struct qs_error *err),
			   void *cookie, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *text = qs_strdup(access->servers);
	int64_t end = qs_hcvault_now() + access->deadline_ms;
	const char *hosts[QS_HCVAULT_SERVERS];
	struct qs_error all = {};
	bool refused = false;
	int r = access->login->failed.kind == QS_E_NONE ? parse_hosts(text, hosts, &all) : 0;
	int count = r;

	if (access->login->failed.kind != QS_E_NONE)
		all = access->login->failed;
	for (int i = 0; i < count && !refused; i++) {
		QS_AUTO(qs_hcvault_disconnect) struct qs_hcvault_link link = {};
		struct qs_error own = {};

		if (is_silent(access, i))
			r = qs_fail(&own, QS_E_TEMPORARY, "it did not answer a moment ago");
		else
			r = qs_hcvault_connect(access, hosts[i], share(access, i, count, end),
					       &link, &own);
		if (r == 0)
			r = op(&link, cookie, &own);
		if (r >= 0)
			return r;
		if (link.silent)
			note_silence(access, i);
		refused = link.refused;
		qs_error_prefix(&own, "Vault server %s", hosts[i]);
		collect(&own, refused, &all);
	}
	if (err)
		*err = all;
	return qs_negative(qs_kind_errno(all.kind));
}
