#include "kmip/session.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define PORT "5696"
#define HOSTS_MAX 16
#define REQUEST_L 65536 /* bytes; 128 identifiers of 255 bytes fit, and what goes with them */

/* ---- servers ---- */

static int bad_server(const char *text, struct qs_error *err)
{
	return qs_fail(
		err, QS_E_CONFIG,
		"kmip_servers in qs-util.conf: '%s' is not HOST or HOST:PORT (an IPv6 address "
		"in brackets)",
		text);
}

static bool is_port(const char *text)
{
	size_t length = strspn(text, "0123456789");
	unsigned long number = length <= 5 ? strtoul(text, NULL, 10) : 0;

	return !text[length] && number >= 1 && number <= 65535;
}

/* "[::1]:5696", "name:5696", "name". TEXT is changed. */
static int parse_host(char *text, struct qs_kmip_host *ret, struct qs_error *err)
{
	char *port = NULL, *name = text;

	(void)snprintf(ret->text, sizeof(ret->text), "%s", text);
	if (*text == '[') {
		char *end = strchr(text, ']');

		if (!end || (end[1] && end[1] != ':'))
			return bad_server(ret->text, err);
		port = end[1] ? end + 2 : NULL;
		*end = '\0';
		name++;
	} else if ((port = strchr(text, ':'))) {
		*port++ = '\0';
	}
	if (!*name || strlen(name) >= sizeof(ret->name) || (port && !is_port(port)))
		return bad_server(ret->text, err);
	(void)snprintf(ret->name, sizeof(ret->name), "%s", name);
	(void)snprintf(ret->port, sizeof(ret->port), "%s", port ? port : PORT);
	return 0;
}

/* Returns how many. */
static int parse_hosts(const char *servers, struct qs_kmip_host *ret, struct qs_error *err)
{
	int count = 0;

	for (const char *p = servers; *p; p += strcspn(p, ",")) {
		char text[QS_KMIP_SERVER_L];
		size_t length;
		int r;

		p += *p == ',';
		length = strcspn(p, ",");
		(void)snprintf(text, sizeof(text), "%.*s", (int)length, p);
		if (count == HOSTS_MAX)
			return qs_fail(err, QS_E_CONFIG,
				       "kmip_servers in qs-util.conf names more than %d",
				       HOSTS_MAX);
		r = parse_host(text, &ret[count], err);
		if (r < 0)
			return r;
		count++;
	}
	if (count == 0)
		return qs_fail(err, QS_E_CONFIG,
			       "no key server is configured: set kmip_servers in qs-util.conf");
	return count;
}

/* ---- requests ---- */

int qs_kmip_ask_all(struct qs_kmip_session *s, const struct qs_kmip_request *requests, size_t count,
		    struct qs_kmip_answer *answers, struct qs_error *err)
{
	unsigned char request[REQUEST_L];
	int size = qs_kmip_request_write(s->version, &s->link.access->login, requests, count,
					 request, sizeof(request), err);

	if (size >= 0)
		size = qs_kmip_exchange(&s->link, request, (size_t)size, &s->buffer, err);
	explicit_bzero(request, sizeof(request)); /* keys and a password were in it */
	if (size < 0)
		return size;
	return qs_kmip_response_read(s->buffer.data, (size_t)size, s->version, requests, count,
				     answers, err);
}

int qs_kmip_ask_one(struct qs_kmip_session *s, const struct qs_kmip_request *request,
		    struct qs_kmip_answer *ret, struct qs_error *err)
{
	int r = qs_kmip_ask_all(s, request, 1, ret, err);

	if (r < 0)
		return r;
	if (ret->verdict == QS_KMIP_DONE)
		return 0;
	s->refused = ret->verdict != QS_KMIP_TRY_LATER;
	if (err)
		*err = ret->error;
	return qs_negative(qs_kind_errno(ret->error.kind));
}

int qs_kmip_ask(struct qs_kmip_session *s, enum qs_kmip_operation operation, const char *about,
		struct qs_kmip_answer *ret, struct qs_error *err)
{
	return qs_kmip_ask_one(
		s, &(struct qs_kmip_request){ .operation = operation, .about = about }, ret, err);
}

void qs_kmip_note_verdict(const struct qs_kmip_session *s, enum qs_kmip_verdict verdict)
{
	bool trouble = verdict == QS_KMIP_TRY_LATER || verdict == QS_KMIP_UNANSWERED;

	qs_kmip_note_denial(s->link.access, trouble ? QS_KMIP_IN_TROUBLE : QS_KMIP_DENIED);
}

/* ---- the version ---- */

/*
 * Ask with header 1.1, the oldest that has the question; a server that does not know that
 * header may know 2.0, or 1.0. One that has no such question is of 1.0.
 */
static int negotiate(struct qs_kmip_session *s, struct qs_error *err)
{
	static const struct qs_kmip_version headers[] = { { 1, 1 }, { 2, 0 }, { 1, 0 } };
	const struct qs_kmip_request request = { .operation = QS_KMIP_DISCOVER };
	struct qs_kmip_answer answer = {};

	for (size_t i = 0; i < QS_ARRAY_SIZE(headers); i++) {
		int r;

		s->version = headers[i];
		r = qs_kmip_ask_all(s, &request, 1, &answer, err);
		if (r < 0)
			return r;
		if (answer.verdict == QS_KMIP_DONE)
			return qs_kmip_read_versions(&answer, &s->version, err);
		if (answer.verdict == QS_KMIP_NOT_SUPPORTED) {
			s->version = (struct qs_kmip_version){ 1, 0 };
			return 0;
		}
		if (answer.verdict != QS_KMIP_NOT_UNDERSTOOD)
			break;
	}
	qs_kmip_note_verdict(s, answer.verdict);
	if (err)
		*err = answer.error;
	return qs_negative(qs_kind_errno(answer.error.kind));
}

static int begin(struct qs_kmip_session *s, const struct qs_kmip_access *access, int64_t deadline,
		 struct qs_error *err)
{
	int r = qs_secret_init(&s->buffer, QS_TTLV_MESSAGE_MAX, err);

	if (r == 0)
		r = qs_kmip_connect(access, s->host, deadline, &s->link, err);
	if (r < 0 || qs_kmip_version_parse(access->version, &s->version))
		return r;
	return negotiate(s, err);
}

/* ---- the servers in their order ---- */

/*
 * Add what host NUMBER said. One that refused decides what kind of failure it is: were it that of
 * a server which is away, a lease would open what was revoked (keystore/lease.h).
 */
static void collect(const char *host, int number, struct qs_error *own, struct qs_error *all)
{
	enum qs_kind kind = number > 0 ? all->kind : own->kind;

	qs_error_prefix(own, "key server %s", host);
	if (number == 0)
		*all = *own;
	else
		qs_error_append(all, "; %s", own->text);
	all->kind = kind == QS_E_TEMPORARY ? own->kind : kind;
}

static int try_host(const struct qs_kmip_access *access, const struct qs_kmip_host *host,
		    int64_t deadline,
		    int (*op)(struct qs_kmip_session *s, void *cookie, struct qs_error *err),
		    void *cookie, bool *ret_refused, struct qs_error *err)
{
	struct qs_kmip_session s = { .link.fd = -1, .host = host };
	int r = begin(&s, access, deadline, err);

	if (r == 0)
		r = op(&s, cookie, err);
	*ret_refused = s.refused;
	qs_kmip_disconnect(&s.link);
	qs_secret_done(&s.buffer);
	return r;
}

int qs_kmip_with_server(const struct qs_kmip_access *access,
			int (*op)(struct qs_kmip_session *s, void *cookie, struct qs_error *err),
			void *cookie, struct qs_error *err)
{
	struct qs_kmip_host hosts[HOSTS_MAX];
	int64_t end = qs_kmip_now() + access->deadline_ms;
	int count = parse_hosts(access->servers, hosts, err);
	struct qs_error all = {};
	bool refused = false;
	int r = count;

	for (int i = 0; i < count && !refused; i++) {
		/* Each gets its share of what is left, so that a silent one does not take all. */
		int64_t now = qs_kmip_now();
		struct qs_error own = {};

		r = try_host(access, &hosts[i], now + (end - now) / (count - i), op, cookie,
			     &refused, &own);
		if (r >= 0)
			return r;
		collect(hosts[i].text, i, &own, &all);
	}
	if (count < 0)
		return count;
	if (err)
		*err = all;
	return qs_negative(qs_kind_errno(all.kind));
}
