/*
 * One conversation with a key server: a version, requests and their answers.
 */
#ifndef QS_KMIP_SESSION_H
#define QS_KMIP_SESSION_H

#include "kmip/internal.h"

struct qs_kmip_session {
	struct qs_kmip_link link;
	const struct qs_kmip_host *host;
	struct qs_kmip_version version;
	struct qs_secret buffer; /* the last answer lies in it */
	bool refused;            /* the failure is an answer: other servers would say the same */
};

/*
 * Run OP with the first server that can be talked to; with the next when it failed there
 * otherwise than by the server's refusal. The error tells of all that were tried.
 */
int qs_kmip_with_server(const struct qs_kmip_access *access,
			int (*op)(struct qs_kmip_session *s, void *cookie, struct qs_error *err),
			void *cookie, struct qs_error *err);

/*
 * One message. Returns 0, or 1 for a message that was refused as a whole. Each answer is
 * the caller's to look at.
 */
int qs_kmip_ask_all(struct qs_kmip_session *s, const struct qs_kmip_request *requests, size_t count,
		    struct qs_kmip_answer *answers, struct qs_error *err);

/* One request, of which everything but QS_KMIP_DONE is an error. */
int qs_kmip_ask_one(struct qs_kmip_session *s, const struct qs_kmip_request *request,
		    struct qs_kmip_answer *ret, struct qs_error *err);
int qs_kmip_ask(struct qs_kmip_session *s, enum qs_kmip_operation operation, const char *about,
		struct qs_kmip_answer *ret, struct qs_error *err);

/* For qs_kmip_access.denial: the server's answer is no, as VERDICT says. */
void qs_kmip_note_verdict(const struct qs_kmip_session *s, enum qs_kmip_verdict verdict);

/* ---- keys that stay at the server (kmip/crypt.c) ---- */

/* QS_E_FAILED: the version that is spoken has no cipher. */
int qs_kmip_require_ciphers(const struct qs_kmip_session *s, struct qs_error *err);

/* The best with which the key UID encrypts and decrypts, by trying. */
int qs_kmip_choose_cipher(struct qs_kmip_session *s, const char *uid, enum qs_kmip_cipher *ret,
			  struct qs_error *err);

/* See struct qs_kmip_functions. */
int qs_kmip_crypt(const struct qs_kmip_access *access, bool encrypt, struct qs_kmip_item *items,
		  size_t count, struct qs_error *err);

#endif
