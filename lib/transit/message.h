/*
 * What is said to Vault and OpenBao, and what their answers mean: requests as text, answers as
 * a verdict, a sentence and typed values. No I/O. Written to the HTTP interface of Vault 1.8
 * and later and of OpenBao; texts of errors differ between them, so statuses decide wherever
 * they can.
 *
 * Answers are foreign input, bounded before they come here (QS_TRANSIT_ANSWER_MAX).
 */
#ifndef QS_TRANSIT_MESSAGE_H
#define QS_TRANSIT_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <jansson.h>

#include "base/error.h"
#include "base/secret.h"

#define QS_TRANSIT_ANSWER_MAX (1U << 20) /* bytes; 100 keys are 25 KiB */
#define QS_TRANSIT_TOKEN_L 4096          /* with its NUL; batch tokens have hundreds */
#define QS_TRANSIT_TEXT_L 256            /* a wrapped key with its NUL; usually about 100 */
#define QS_TRANSIT_KEY_L 32              /* bytes of a key that is wrapped */
#define QS_TRANSIT_WORD_L 64

/* What can be done to keys; which of them it is, is in the path of a request. */
enum qs_transit_verb {
	QS_TRANSIT_ENCRYPT,
	QS_TRANSIT_DECRYPT,
	QS_TRANSIT_REWRAP, /* what one version has encrypted, for another: the key is not shown */
};

/* A key on its way into a wrapping of the server's or out of it. */
struct qs_transit_item {
	char text[QS_TRANSIT_TEXT_L];        /* "vault:v3:..."; encrypt: made, rewrap: both */
	unsigned char key[QS_TRANSIT_KEY_L]; /* encrypt: given, decrypt: made */
	bool done;
	struct qs_error error; /* of this one */
};

enum qs_transit_verdict {
	QS_TRANSIT_DONE,
	QS_TRANSIT_REFUSED,   /* other servers would say the same */
	QS_TRANSIT_DENIED,    /* the token is not valid any more, or may not do this */
	QS_TRANSIT_ONE_BAD,   /* one of a batch is not authentic; which, is not said */
	QS_TRANSIT_BUSY,      /* the same server can be asked again in a moment */
	QS_TRANSIT_ELSEWHERE, /* another server may do it */
};

/* One answer. */
struct qs_transit_answer {
	long status;
	const char *text; /* SIZE bytes; need not be text at all */
	size_t size;
	const char *about; /* what was asked for, in words: "logging in" */
	bool login;        /* that was a login */
};

/*
 * What an answer means. *ret: its JSON object if it is QS_TRANSIT_DONE and has one, or a batch of
 * which some failed, a new reference; else NULL. *err is filled unless it is done.
 */
enum qs_transit_verdict qs_transit_judge(const struct qs_transit_answer *a, json_t **ret,
					 struct qs_error *err);

/* ---- requests; each is the body, in locked memory ---- */

int qs_transit_write_login(const char *role, const struct qs_secret *secret_id,
			   struct qs_secret *ret, struct qs_error *err);

/* What is known of this secret-id. */
int qs_transit_write_lookup(const struct qs_secret *secret_id, struct qs_secret *ret,
			    struct qs_error *err);

/* COUNT (at least 1) keys to be encrypted with version VERSION of a key. */
int qs_transit_write_encrypt(const struct qs_transit_item *items, size_t count, unsigned version,
			     struct qs_secret *ret, struct qs_error *err);

/* COUNT texts to be decrypted. */
int qs_transit_write_decrypt(const struct qs_transit_item *items, size_t count,
			     struct qs_secret *ret, struct qs_error *err);

/* COUNT texts to be rewrapped with version VERSION of their key. */
int qs_transit_write_rewrap(const struct qs_transit_item *items, size_t count, unsigned version,
			    struct qs_secret *ret, struct qs_error *err);

/* A key of QS_TRANSIT_KEY_L bytes to be made by the server. */
int qs_transit_write_datakey(struct qs_secret *ret, struct qs_error *err);

/* May TEXT stand in a body as it is, as a wrapped key? Visible ASCII, no quote, no backslash. */
bool qs_transit_is_text(const char *text);

/* ---- answers ---- */

struct qs_transit_login {
	char token[QS_TRANSIT_TOKEN_L];
	uint64_t seconds;             /* that it is valid for; 0: for ever */
	char role[QS_TRANSIT_WORD_L]; /* its name, as far as it fits into a path; else "" */
	bool renewable;
};

int qs_transit_read_login(const json_t *answer, struct qs_transit_login *ret, struct qs_error *err);

/* The secret-id that a wrapping token stands for. */
int qs_transit_read_secret_id(const json_t *answer, struct qs_secret *ret, struct qs_error *err);

/* When a secret-id ends, 0: never, or that is not said; and how often it may still be used. */
struct qs_transit_lifetime {
	time_t ends;
	uint64_t uses; /* 0: any number, or that is not said */
};

void qs_transit_read_lifetime(const json_t *answer, struct qs_transit_lifetime *ret);

/* Of a wrapping token: was it made to carry an AppRole's secret-id? */
int qs_transit_read_wrapping(const json_t *answer, struct qs_error *err);

struct qs_transit_key {
	uint32_t latest;
	uint32_t least; /* min_decryption_version */
	char type[QS_TRANSIT_WORD_L];
};

/* QS_E_CONFIG: a key that cannot be used for this (derived, soft-deleted, of a wrong type). */
int qs_transit_read_key(const json_t *answer, struct qs_transit_key *ret, struct qs_error *err);

/*
 * Does TEXT say which version of a key has encrypted it ("vault:v3:...")? Not where the
 * administrator of the server has given the key a template of his own.
 */
bool qs_transit_says_version(const char *text);

/* Does it say VERSION, or none? Nothing but its usual spelling is taken for it. */
bool qs_transit_is_of_version(const char *text, unsigned version);

/* A key that the server has made and encrypted with version VERSION; not by another one. */
int qs_transit_read_datakey(const json_t *answer, unsigned version, struct qs_transit_item *ret,
			    struct qs_error *err);

/*
 * Results of a batch, as many as COUNT and in that order; each is done or has its error. What was
 * rewrapped reads as what was encrypted.
 */
int qs_transit_read_encrypted(const json_t *answer, unsigned version, struct qs_transit_item *items,
			      size_t count, struct qs_error *err);
int qs_transit_read_decrypted(const json_t *answer, struct qs_transit_item *items, size_t count,
			      struct qs_error *err);

struct qs_transit_health {
	char version[QS_TRANSIT_WORD_L];
	bool sealed; /* also while it is not initialised */
};

/* The body of sys/health, whatever its status. */
int qs_transit_read_health(const char *text, size_t size, struct qs_transit_health *ret,
			   struct qs_error *err);

#endif
