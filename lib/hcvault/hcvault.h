/*
 * The module hcvault.so (base/module.h), which alone links libcurl: what is asked of a Vault or
 * OpenBao server. (Nothing of it has to do with the command vault, which keeps keys on a share.)
 *
 * Every function asks the first server that can answer, in their order; whatever it does may be
 * done again. It logs in when there is no token yet, and once more when the token is refused; a
 * token that comes to its end is renewed, which takes no use of the secret-id.
 * Whoever calls has a worker process around it: libcurl and OpenSSL have secrets in memory of
 * their own, which is wiped when it is freed as far as they let us, and ends with the process.
 */
#ifndef QS_HCVAULT_HCVAULT_H
#define QS_HCVAULT_HCVAULT_H

#include "base/error.h"
#include "base/module.h"
#include "base/secret.h"
#include "transit/message.h"

#define QS_HCVAULT_MODULE_NAME "hcvault"
#define QS_HCVAULT_MODULE_SYMBOL "qs_hcvault_module"
#define QS_HCVAULT_MODULE_VERSION 6

#define QS_HCVAULT_SERVER_L 300 /* "HOST:PORT" with its NUL */
#define QS_HCVAULT_SERVERS 16

/*
 * The login of a command, in memory that its workers share. Where logging in has failed, that is
 * told again and never tried again: wrong secret-ids lock a role.
 */
struct qs_hcvault_login {
	char token[QS_TRANSIT_TOKEN_L]; /* "": none yet */
	char role[QS_TRANSIT_WORD_L];   /* the name of its role, "": not known */
	int64_t ends;                   /* s of CLOCK_BOOTTIME; 0: never */
	int64_t renew;                  /* from when on to renew it, likewise; 0: not at all */
	struct qs_error failed;
};

/*
 * Which servers a command has waited for in vain, in memory that its workers share: for as long
 * as their deadline once more they count as silent and are not asked. Else each key and each step
 * would wait for them again, and a command with many keys for longer than any unit lets it.
 */
struct qs_hcvault_silence {
	int64_t until[QS_HCVAULT_SERVERS]; /* in their order; of qs_hcvault_now() */
};

struct qs_hcvault_access {
	const char *servers;      /* "HOST[:PORT],..." */
	const char *name_space;   /* "": none; of keys */
	const char *login_space;  /* likewise, of the role */
	const char *mount, *auth; /* where transit and AppRole are */
	const char *role;         /* role-id */
	const struct qs_secret *secret_id;
	const char *ca_path; /* that sentences name it by */
	const struct qs_secret *ca;
	unsigned deadline_ms; /* for all servers together */
	struct qs_hcvault_login *login;
	struct qs_hcvault_silence *silence; /* NULL: not remembered */
};

/* Times are s, 0 where there is no end or it is not known; texts "". */
struct qs_hcvault_description {
	char server[QS_HCVAULT_SERVER_L]; /* that answered */
	struct qs_transit_health health;
	int64_t token_ends;   /* as of struct qs_hcvault_login */
	unsigned answered_ms; /* connection and one question */
	time_t server_expires, ca_expires;
	struct qs_transit_lifetime secret_id; /* where the role may look at it */
};

enum qs_hcvault_action {
	QS_HCVAULT_READ,
	QS_HCVAULT_CREATE, /* an AES key with 256 bits; one that is there stays */
	QS_HCVAULT_ROTATE, /* unless it has a later version than NUMBER already */
	QS_HCVAULT_RAISE,  /* min_decryption_version = NUMBER */
	QS_HCVAULT_DELETE  /* returns 1, or 0: there is none */
};

struct qs_hcvault_functions {
	struct qs_module module;

	/*
	 * Look at the server and log in; if ALL, also at what ends. *ret is filled as far as it is
	 * known when that fails. QS_E_TEMPORARY: no server can be reached, or they are sealed;
	 * QS_E_NOT_PERMITTED: they do not take role-id and secret-id; QS_E_HOSTILE: they have no
	 * certificate that the authority vouches for; QS_E_CONFIG: servers, mounts, namespace.
	 */
	int (*describe)(const struct qs_hcvault_access *access, bool all,
			struct qs_hcvault_description *ret, struct qs_error *err);

	/*
	 * Do ACTION to the key NAME. *ret (not NULL) is the key as it is afterwards, but for
	 * QS_HCVAULT_DELETE. QS_E_NO_KEY: there is none of that name.
	 */
	int (*key)(const struct qs_hcvault_access *access, const char *name,
		   enum qs_hcvault_action action, uint32_t number, struct qs_transit_key *ret,
		   struct qs_error *err);

	/*
	 * Do VERB with VERSION (ignored by decrypt) of the key NAME to COUNT items. Where the role
	 * may not encrypt but may have keys made (datakey), an item gets the server's key instead
	 * of its own; that is a request for each.
	 */
	int (*crypt)(const struct qs_hcvault_access *access, enum qs_transit_verb verb,
		     const char *name, uint32_t version, struct qs_transit_item *items,
		     size_t count, struct qs_error *err);

	/* The secret-id that WRAPPING (a token) stands for, which is void afterwards. */
	int (*unwrap)(const struct qs_hcvault_access *access, const struct qs_secret *wrapping,
		      struct qs_secret *ret, struct qs_error *err);
};

#endif
