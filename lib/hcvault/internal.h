/*
 * Shared by the files of the module hcvault.so.
 */
#ifndef QS_HCVAULT_INTERNAL_H
#define QS_HCVAULT_INTERNAL_H

#include <stdint.h>

#include <curl/curl.h>

#include "hcvault/hcvault.h"

/* A connection to one server, kept for several requests. Release with qs_hcvault_disconnect(). */
struct qs_hcvault_link {
	const struct qs_hcvault_access *access;
	const char *server; /* "HOST[:PORT]" */
	CURL *curl;
	struct curl_slist *addresses; /* of its name, for libcurl */
	int64_t deadline;             /* of qs_hcvault_now() */
	struct qs_secret buffer;      /* the last answer lies in it */
	size_t used;
	bool too_large;
	bool refused; /* the failure is an answer: other servers would say the same */
	bool silent;  /* the failure is that its time is over */
};

struct qs_hcvault_request {
	const char *method, *path;    /* behind /v1/ */
	const struct qs_secret *body; /* NULL: none */
	const char *token;            /* NULL: that of the login; "": none */
	const char *about;            /* in words */
	bool login;
	bool server; /* it is about the server, which takes no namespace for that */
};

int64_t qs_hcvault_now(void); /* ms */

int qs_hcvault_connect(const struct qs_hcvault_access *access, const char *server, int64_t deadline,
		       struct qs_hcvault_link *ret, struct qs_error *err);
void qs_hcvault_disconnect(struct qs_hcvault_link *link); /* also a QS_AUTO releaser */

/*
 * One request and its answer, whatever it is: *ret points into the link's buffer. *ret_retry_ms:
 * how long the server wants us to wait, 0 if it does not say.
 */
int qs_hcvault_send(struct qs_hcvault_link *link, const struct qs_hcvault_request *request,
		    struct qs_transit_answer *ret, unsigned *ret_retry_ms, struct qs_error *err);

/*
 * The same, and everything but success is an error; a busy server is waited for, a token that is
 * refused replaced once. *ret (may be NULL): the answer's object, a new reference, NULL if it has
 * none. *ret_verdict may be NULL.
 */
int qs_hcvault_ask(struct qs_hcvault_link *link, const struct qs_hcvault_request *request,
		   json_t **ret, enum qs_transit_verdict *ret_verdict, struct qs_error *err);

/* Make sure that the login has a token. */
int qs_hcvault_log_in(struct qs_hcvault_link *link, struct qs_error *err);

/*
 * Run OP with the first server that can be talked to; with the next when it failed there
 * otherwise than by the server's refusal. The error tells of all that were tried.
 */
int qs_hcvault_with_server(const struct qs_hcvault_access *access,
			   int (*op)(struct qs_hcvault_link *link, void *cookie,
				     struct qs_error *err),
			   void *cookie, struct qs_error *err);

#endif
