/*
 * The module kmip.so (base/module.h), which alone links libssl: what is asked of a KMIP
 * key server. Every function logs in at the first server that answers, in their order,
 * and ends the connection; all that they do may be done again.
 *
 * Deadlines hold at every wait, but whoever calls has a worker process around it all
 * the same: a key goes through memory of OpenSSL's that ends with the process.
 */
#ifndef QS_KMIP_KMIP_H
#define QS_KMIP_KMIP_H

#include <time.h>

#include "base/error.h"
#include "base/module.h"
#include "base/secret.h"
#include "ttlv/message.h"

#define QS_KMIP_MODULE_NAME "kmip"
#define QS_KMIP_MODULE_SYMBOL "qs_kmip_module"
#define QS_KMIP_MODULE_VERSION 6

#define QS_KMIP_SERVER_L 300 /* "HOST:PORT" with its NUL */

/* PEM text, and the path that sentences name it by. */
struct qs_kmip_pem {
	const char *path;
	const struct qs_secret *text;
};

/* Whether a server was away, or there and gave no key: the worst of what any of them answered. */
enum qs_kmip_denial {
	QS_KMIP_NOT_DENIED,
	QS_KMIP_IN_TROUBLE, /* it has an error of its own, or may have */
	QS_KMIP_DENIED      /* it refuses the key, or us */
};

struct qs_kmip_access {
	const char *servers; /* "HOST[:PORT],...", IPv6 addresses in brackets */
	const char *version; /* "auto", or "1.4" */
	struct qs_kmip_pem ca, certificate, key;
	struct qs_kmip_login login;  /* goes to servers that the authority vouches for, only */
	unsigned deadline_ms;        /* for all servers together */
	enum qs_kmip_denial *denial; /* get: raised by what any server answers; may be NULL */
};

/* One key to get. */
struct qs_kmip_key {
	const char *uid;
	struct qs_secret key;  /* made: QS_KMIP_KEY_L bytes */
	struct qs_error error; /* of this key */
};

/*
 * A key on its way to a key of the server's that encrypts it, or back: in memory that the process
 * which talks to the server shares with its parent.
 */
struct qs_kmip_item {
	char uid[QS_KMIP_UID_L];            /* of the server's key */
	struct qs_kmip_encrypted encrypted; /* encrypt: its cipher is given, the rest made */
	unsigned char key[QS_KMIP_KEY_L];
	bool done;
	struct qs_error error; /* why it is not */
};

/* Remember the identifier of a key, and how it encrypts if that is known already. */
typedef int qs_kmip_remember(const char *uid, enum qs_kmip_cipher cipher, void *cookie,
			     struct qs_error *err);

/* Times are 0, texts "", where that is not known. */
struct qs_kmip_description {
	char server[QS_KMIP_SERVER_L]; /* that answered */
	char version[8];
	char vendor[QS_KMIP_TEXT_L];
	time_t ca_expires, certificate_expires, server_expires;
	unsigned answered_ms; /* connection, login and one question */
};

struct qs_kmip_functions {
	struct qs_module module;

	/*
	 * Log in and look whether the server has all that we use; THERE: where its keys are to
	 * stay. *ret is filled as far as it is known when that fails. QS_E_TEMPORARY: no server can
	 * be reached in time; QS_E_NOT_PERMITTED: they do not take our certificate; QS_E_HOSTILE:
	 * they have none that the authority vouches for; QS_E_KEY_FILE: a PEM file; QS_E_CONFIG:
	 * servers.
	 */
	int (*describe)(const struct qs_kmip_access *access, bool there,
			struct qs_kmip_description *ret, struct qs_error *err);

	/*
	 * Make the active key NAME, or find the one that an interrupted run made: by its
	 * identifier UID, or if that is NULL by its name. With UID none is ever made anew. Where
	 * the server does not create keys for us, it is given one (Register).
	 * REMEMBER gets the identifier before the key is activated; its failure ends all.
	 * THERE: the key is to stay there, so the server makes it, sensitive where it knows that;
	 * which cipher it has is tried, and remembered.
	 */
	int (*create)(const struct qs_kmip_access *access, const char *name, const char *uid,
		      bool there, qs_kmip_remember *remember, void *cookie, struct qs_error *err);

	/*
	 * Look for a key that somebody made for us, by its identifier or else its name ID, whether
	 * it is active, AES-256, for encryption or wrapping, and handed out; THERE: for encryption,
	 * and with which cipher. *ret: its identifier, and that cipher.
	 * QS_E_NO_KEY: there is none; QS_E_FORBIDDEN: several have the name.
	 */
	int (*adopt)(const struct qs_kmip_access *access, const char *id, bool there,
		     char ret[QS_KMIP_UID_L], enum qs_kmip_cipher *ret_cipher,
		     struct qs_error *err);

	/*
	 * COUNT keys (up to QS_KMIP_BATCH_MAX) in one message if the server takes that. On failure,
	 * too, those that a server gave are there.
	 */
	int (*get)(const struct qs_kmip_access *access, struct qs_kmip_key *keys, size_t count,
		   struct qs_error *err);

	/*
	 * Encrypt or decrypt COUNT items, with as few messages as the server takes: one up to
	 * QS_KMIP_BATCH_MAX. Those that are done are left alone. On failure, too, some may be done.
	 */
	int (*crypt)(const struct qs_kmip_access *access, bool encrypt, struct qs_kmip_item *items,
		     size_t count, struct qs_error *err);

	/*
	 * Revoke and destroy the key UID, or if that is NULL the one called NAME. Returns 1, or 0:
	 * there is none. QS_E_FORBIDDEN: UID is not called NAME.
	 */
	int (*erase)(const struct qs_kmip_access *access, const char *name, const char *uid,
		     struct qs_error *err);
};

#endif
