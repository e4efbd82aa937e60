/*
 * HTTPS by libcurl: the configured authority alone, no redirects, no proxy, nothing from the
 * environment, times and sizes bounded. Nothing here logs, so no secret can be in a log.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/x509_vfy.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "base/lookup.h"
#include "hcvault/internal.h"

#define PORT "8200"
#define URL_L 1024
#define HEADER_L (QS_TRANSIT_TOKEN_L + 64)

int64_t qs_hcvault_now(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- memory of libcurl's that is wiped when it is freed ---- */

static void wipe_free(void *p)
{
	if (p)
		explicit_bzero(p, malloc_usable_size(p));
	free(p);
}

static void *wipe_realloc(void *p, size_t size)
{
	void *new = malloc(size);
	size_t old = p ? malloc_usable_size(p) : 0;

	if (!new)
		return NULL;
	if (p)
		memcpy(new, p, old < size ? old : size);
	wipe_free(p);
	return new;
}

static int start(struct qs_error *err)
{
	static bool started;

	if (started)
		return 0;
	/* With it set libcurl writes the keys of TLS into that file. */
	(void)unsetenv("SSLKEYLOGFILE"); // NOLINT(concurrency-mt-unsafe): one thread
	if (curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, wipe_free, wipe_realloc, strdup,
				 calloc) != CURLE_OK)
		return qs_fail(err, QS_E_FAILED, "libcurl cannot be used");
	started = true;
	return 0;
}

/* ---- a connection ---- */

/* Into the buffer; more than fits is an error of the transfer. */
static size_t receive(char *data, size_t one, size_t size, void *cookie)
{
	struct qs_hcvault_link *link = cookie;

	(void)one;
	link->too_large = size > link->buffer.size - link->used;
	if (link->too_large)
		return 0;
	memcpy((char *)link->buffer.data + link->used, data, size);
	link->used += size;
	return size;
}

void qs_hcvault_disconnect(struct qs_hcvault_link *link)
{
	if (link->curl)
		curl_easy_cleanup(link->curl);
	curl_slist_free_all(link->addresses);
	qs_secret_done(&link->buffer);
	*link = (struct qs_hcvault_link){};
}

/* The port that a server has where none stands: "[::1]", "name". */
static bool has_port(const char *server)
{
	const char *end = strrchr(server, ']');

	return strchr(end ? end : server, ':') != NULL;
}

/* "HOST:PORT:ADDRESS,...", as libcurl wants it. */
static char *in_words(const char *host, const char *port, const struct addrinfo *list)
{
	char *text = qs_printf("%s:%s:", host, port);
	const char *between = "";

	for (const struct addrinfo *a = list; a; a = a->ai_next) {
		bool six = a->ai_family == AF_INET6;
		char address[NI_MAXHOST], *longer;

		if (getnameinfo(a->ai_addr, a->ai_addrlen, address, sizeof(address), NULL, 0,
				NI_NUMERICHOST) != 0)
			continue;
		longer = qs_printf("%s%s%s%s%s", text, between, six ? "[" : "", address,
				   six ? "]" : "");
		free(text);
		text = longer;
		between = ",";
	}
	return text;
}

/*
 * Not by libcurl: it gives a look-up up by waiting for it, for as long as name servers may take,
 * which would use up the time of the servers behind this one.
 */
static int look_up(struct qs_hcvault_link *link, struct qs_error *err)
{
	const char *colon = has_port(link->server) ? strrchr(link->server, ':') : NULL;
	const char *port = colon ? colon + 1 : PORT;
	size_t size = colon ? (size_t)(colon - link->server) : strlen(link->server);
	QS_AUTO(qs_auto_free) char *host = qs_printf("%.*s", (int)size, link->server);
	QS_AUTO(qs_auto_free) char *text = NULL;
	struct addrinfo *list = NULL;
	struct in_addr literal;
	int r;

	if (*host == '[' || inet_pton(AF_INET, host, &literal) == 1)
		return 0;
	r = qs_look_up(host, port, link->deadline - qs_hcvault_now(), &list, err);
	link->silent = r < 0 && qs_hcvault_now() >= link->deadline;
	if (r < 0)
		return r;
	text = in_words(host, port, list);
	freeaddrinfo(list);
	link->addresses = curl_slist_append(NULL, text);
	if (!link->addresses ||
	    curl_easy_setopt(link->curl, CURLOPT_RESOLVE, link->addresses) != CURLE_OK)
		return qs_fail(err, QS_E_MEMORY, "no memory for the addresses of %s", host);
	return 0;
}

int qs_hcvault_connect(const struct qs_hcvault_access *access, const char *server, int64_t deadline,
		       struct qs_hcvault_link *ret, struct qs_error *err)
{
	struct curl_blob ca = { access->ca->data, access->ca->size, CURL_BLOB_NOCOPY };
	CURLcode c = CURLE_OK;
	int r = start(err);

	*ret = (struct qs_hcvault_link){ .access = access, .server = server, .deadline = deadline };
	if (r == 0)
		r = qs_secret_init(&ret->buffer, QS_TRANSIT_ANSWER_MAX, err);
	if (r < 0)
		return r;
	ret->curl = curl_easy_init();
	if (!ret->curl)
		return qs_fail(err, QS_E_MEMORY, "no memory for a connection");
	c |= curl_easy_setopt(ret->curl, CURLOPT_PROTOCOLS_STR, "https");
	c |= curl_easy_setopt(ret->curl, CURLOPT_FOLLOWLOCATION, 0L);
	c |= curl_easy_setopt(ret->curl, CURLOPT_PROXY, "");
	c |= curl_easy_setopt(ret->curl, CURLOPT_NOPROXY, "*");
	c |= curl_easy_setopt(ret->curl, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	c |= curl_easy_setopt(ret->curl, CURLOPT_NOSIGNAL, 1L);
	c |= curl_easy_setopt(ret->curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	c |= curl_easy_setopt(ret->curl, CURLOPT_SSL_VERIFYPEER, 1L);
	c |= curl_easy_setopt(ret->curl, CURLOPT_SSL_VERIFYHOST, 2L);
	c |= curl_easy_setopt(ret->curl, CURLOPT_CAINFO, NULL);
	c |= curl_easy_setopt(ret->curl, CURLOPT_CAPATH, NULL);
	c |= curl_easy_setopt(ret->curl, CURLOPT_CAINFO_BLOB, &ca);
	c |= curl_easy_setopt(ret->curl, CURLOPT_WRITEFUNCTION, receive);
	c |= curl_easy_setopt(ret->curl, CURLOPT_WRITEDATA, ret);
	if (c != CURLE_OK)
		return qs_fail(err, QS_E_FAILED, "libcurl lacks what is needed");
	return look_up(ret, err);
}

/* ---- what failed ---- */

static int explain_certificate(const struct qs_hcvault_link *link, struct qs_error *err)
{
	long verdict = 0;

	(void)curl_easy_getinfo(link->curl, CURLINFO_SSL_VERIFYRESULT, &verdict);
	switch (verdict) {
	/* The name is compared first, and then libcurl has not asked OpenSSL yet. */
	case X509_V_ERR_UNSPECIFIED:
		return qs_fail(err, QS_E_HOSTILE,
			       "its certificate is for another name than the one in vault_servers");
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return qs_fail(
			err, QS_E_HOSTILE,
			"its certificate, or its authority's, has expired; is this machine's clock "
			"right?");
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return qs_fail(err, QS_E_HOSTILE,
			       "its certificate is not valid yet; is this machine's clock right?");
	default:
		return qs_fail(err, QS_E_HOSTILE, "its certificate is not vouched for by %s (%ld)",
			       link->access->ca_path, verdict);
	}
}

static int explain(const struct qs_hcvault_link *link, CURLcode c, struct qs_error *err)
{
	switch (c) {
	case CURLE_PEER_FAILED_VERIFICATION:
		return explain_certificate(link, err);
	case CURLE_SSL_CACERT_BADFILE:
		return qs_fail(err, QS_E_KEY_FILE, "vault_ca: %s holds no certificate in PEM form",
			       link->access->ca_path);
	case CURLE_COULDNT_RESOLVE_HOST:
		return qs_fail(err, QS_E_TEMPORARY, "its name is not known");
	case CURLE_COULDNT_CONNECT:
		return qs_fail(err, QS_E_TEMPORARY, "cannot connect");
	case CURLE_OPERATION_TIMEDOUT:
		return qs_fail(err, QS_E_TEMPORARY, "it does not answer");
	case CURLE_GOT_NOTHING:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_PARTIAL_FILE:
	case CURLE_SSL_CONNECT_ERROR:
		return qs_fail(err, QS_E_TEMPORARY, "it ended the connection");
	case CURLE_WRITE_ERROR:
	case CURLE_OUT_OF_MEMORY:
		return qs_fail(err, QS_E_FAILED, "its answer is too large");
	default:
		return qs_fail(err, QS_E_TEMPORARY, "%s", curl_easy_strerror(c));
	}
}

/* ---- one request ---- */

static int add_header(struct curl_slist **list, const char *name, const char *value)
{
	char line[HEADER_L];
	struct curl_slist *longer;

	(void)snprintf(line, sizeof(line), "%s: %s", name, value);
	longer = curl_slist_append(*list, line);
	explicit_bzero(line, sizeof(line));
	if (longer)
		*list = longer;
	return longer ? 0 : -ENOMEM;
}

static int add_headers(const struct qs_hcvault_link *link, const struct qs_hcvault_request *request,
		       struct curl_slist **ret)
{
	const char *token = request->token ? request->token : link->access->login->token;
	const char *space = request->token ? link->access->login_space : link->access->name_space;
	int r = add_header(ret, "X-Vault-Request", "true");

	/* libcurl would wait for a 100 before a long body. */
	if (r == 0)
		r = add_header(ret, "Expect", "");
	if (r == 0 && request->body)
		r = add_header(ret, "Content-Type", "application/json");
	if (r == 0 && *token)
		r = add_header(ret, "X-Vault-Token", token);
	if (r == 0 && *space && !request->server)
		r = add_header(ret, "X-Vault-Namespace", space);
	return r;
}

static CURLcode perform(struct qs_hcvault_link *link, const struct qs_hcvault_request *request,
			struct curl_slist *headers)
{
	int64_t left = link->deadline - qs_hcvault_now();
	char url[URL_L];

	if (left <= 0)
		return CURLE_OPERATION_TIMEDOUT;
	(void)snprintf(url, sizeof(url), "https://%s%s/v1/%s", link->server,
		       has_port(link->server) ? "" : ":" PORT, request->path);
	link->used = 0;
	(void)curl_easy_setopt(link->curl, CURLOPT_URL, url);
	(void)curl_easy_setopt(link->curl, CURLOPT_HTTPHEADER, headers);
	(void)curl_easy_setopt(link->curl, CURLOPT_TIMEOUT_MS, (long)left);
	(void)curl_easy_setopt(link->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)left);
	(void)curl_easy_setopt(link->curl, CURLOPT_HTTPGET, 1L);
	if (request->body) {
		(void)curl_easy_setopt(link->curl, CURLOPT_POSTFIELDSIZE_LARGE,
				       (curl_off_t)request->body->size);
		(void)curl_easy_setopt(link->curl, CURLOPT_POSTFIELDS, request->body->data);
	}
	(void)curl_easy_setopt(link->curl, CURLOPT_CUSTOMREQUEST, request->method);
	return curl_easy_perform(link->curl);
}

int qs_hcvault_send(struct qs_hcvault_link *link, const struct qs_hcvault_request *request,
		    struct qs_transit_answer *ret, unsigned *ret_retry_ms, struct qs_error *err)
{
	struct curl_slist *headers = NULL;
	curl_off_t retry = 0;
	CURLcode c;

	if (add_headers(link, request, &headers) < 0) {
		curl_slist_free_all(headers);
		return qs_fail(err, QS_E_MEMORY, "no memory for a request");
	}
	c = perform(link, request, headers);
	curl_slist_free_all(headers);
	if (c == CURLE_WRITE_ERROR && !link->too_large)
		c = CURLE_RECV_ERROR;
	link->silent = c == CURLE_OPERATION_TIMEDOUT;
	if (c != CURLE_OK)
		return explain(link, c, err);
	*ret = (struct qs_transit_answer){
		.text = link->buffer.data,
		.size = link->used,
		.about = request->about,
		.login = request->login,
	};
	(void)curl_easy_getinfo(link->curl, CURLINFO_RESPONSE_CODE, &ret->status);
	(void)curl_easy_getinfo(link->curl, CURLINFO_RETRY_AFTER, &retry);
	*ret_retry_ms = retry > 0 && retry < 3600 ? (unsigned)retry * 1000
			: retry > 0               ? 3600000
						  : 0;
	return 0;
}
