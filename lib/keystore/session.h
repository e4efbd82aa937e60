/*
 * What one command knows of the keystore beside its files: the KEKs that it was given,
 * what a person was asked for, and what a new keystore is to be bound to.
 *
 * KEKs lie in memory that is shared with the workers which are forked later: locked, not
 * dumped, wiped in the end. So a TPM unseals once for any number of devices; and what failed
 * once is told again, never tried again.
 */
#ifndef QS_KEYSTORE_SESSION_H
#define QS_KEYSTORE_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/env.h"
#include "base/error.h"
#include "base/secret.h"
#include "keystore/keystore.h"
#include "keystore/provider.h"
#include "kmip/kmip.h"

#define QS_KEYSTORE_PCRS (UINT32_C(1) << 7) /* if nothing else is said: Secure Boot's */

struct qs_kek {
	char store[QS_KEYSTORE_UUID_L];
	uint32_t generation;
	bool there;
	unsigned char bytes[QS_KEK_L];
	struct qs_error error;      /* why it is not there */
	enum qs_kmip_denial denial; /* by answers of key servers, which are not away then */
};

/* A content key that was got ahead of the workers that need it. */
struct qs_got_key {
	bool there;
	unsigned char bytes[QS_KEK_L];
	struct qs_error error; /* why it is not there */
};

/* Content keys that are made and proven, for workers to wrap with: each is taken once. */
struct qs_ready_keys {
	uint32_t generation; /* that wraps them */
	size_t from, count;  /* which of the session's content keys they are */
	size_t taken;        /* by any process, so only changed atomically */
};

struct qs_hcvault_login;
struct qs_hcvault_silence;

/* At a Vault server; shared with workers, which may log in anew. */
struct qs_keystore_login {
	char *who; /* role, namespace and credentials in one text */
	struct qs_hcvault_login *login;
};

struct qs_keystore_session {
	pid_t owner; /* the process that adds to it and asks; its children only read */
	/* Content keys, in memory that is shared with workers, and how each is wrapped. */
	struct qs_got_key *got;
	char **got_wrapped;
	size_t got_count;
	struct qs_ready_keys *ready; /* shared with workers; NULL: none */
	struct qs_keystore_login logins[QS_KEYSTORE_GENERATIONS];
	size_t login_count;
	struct qs_hcvault_silence *silence; /* likewise; NULL: no Vault server was asked yet */
	struct qs_kek *keks;
	size_t count;
	/* TPM: the PIN that an option gave, or what was asked; it is tried once. */
	const struct qs_secret *pin;
	struct qs_secret asked;
	/* Asks for it, NEW_ONE: to be typed twice; NULL: nobody can be asked. */
	int (*ask_pin)(void *cookie, bool new_one, struct qs_secret *ret, struct qs_error *err);
	void *ask_cookie;
	/* TPM: what its first generation is bound to; later ones take it from the last. */
	uint32_t pcrs;
	bool want_pin;
	/* Key servers: the key there that the next generation is to be; NULL: one is made. */
	const char *key_id;
	/* The key that the generation of another line is to be, while that is made. */
	const struct qs_keystore_key *key;
	/* Ask none of them: what only they open is left to a later turn (QS_E_TEMPORARY). */
	bool local;
	bool no_lease; /* what they say themselves is wanted, and no lease (keystore/lease.h) */
};

/* Wipe and release; also a QS_AUTO releaser. */
void qs_keystore_session_done(struct qs_keystore_session *s);

/* The KEK of this generation, as far as it is known, or NULL. */
struct qs_kek *qs_keystore_session_find(const struct qs_keystore_session *s, const char *store,
					uint32_t generation);

/* A new one, neither there nor failed. */
int qs_keystore_session_add(struct qs_keystore_session *s, const char *store, uint32_t generation,
			    struct qs_kek **ret, struct qs_error *err);

/* The session of ENV that this process may add to, or OWN: workers only read their parent's. */
struct qs_keystore_session *qs_keystore_session_writable(const struct qs_env *env,
							 struct qs_keystore_session *own);

/*
 * Get the content keys of COUNT wrappings from PROVIDER in one call, for workers to find. What
 * fails is remembered. Does nothing where this process has no session.
 */
int qs_keystore_session_get_content(const struct qs_env *env, const struct qs_keystore *ks,
				    const struct qs_provider *provider,
				    struct qs_content_key *items, size_t count,
				    struct qs_error *err);

/*
 * Make COUNT content keys of generation NUMBER, PROVIDER's, ahead of the workers that wrap with
 * them, in one call; and have it unwrap them all in another: what it gives back is what they use.
 * Does nothing where this process has no session.
 */
int qs_keystore_session_make_content(const struct qs_env *env, const struct qs_keystore *ks,
				     const struct qs_provider *provider, uint32_t number,
				     size_t count, struct qs_error *err);

/* One of them, for the caller alone, and how it is wrapped (the session's). NULL: none is left. */
const struct qs_got_key *qs_keystore_session_take_content(const struct qs_env *env, uint32_t number,
							  const char **ret_wrapped);

/* Has the session the content key that is wrapped so? NULL: no. */
const struct qs_got_key *qs_keystore_session_content(const struct qs_env *env, const char *wrapped);

/* The bytes of KEK, or why it is not there. */
int qs_keystore_session_copy(const struct qs_kek *kek, struct qs_secret *ret, struct qs_error *err);

/* Of FETCH, which is a provider's: into the session, where this process has one. */
int qs_keystore_session_prepare(const struct qs_env *env, const struct qs_keystore *ks,
				const uint32_t *numbers, size_t count, bool ask,
				qs_kek_fetch *fetch, struct qs_error *err);

/*
 * One KEK out of the session, or read by GET, a provider's, and kept there where this process has
 * one. What fails is not kept: it is a file, and each use tells what is wrong with it.
 */
int qs_keystore_session_read(const struct qs_env *env, const struct qs_keystore *ks,
			     uint32_t number, qs_kek_get *get, struct qs_secret *ret,
			     struct qs_error *err);

/* One KEK out of the session, or fetched for this once. */
int qs_keystore_session_get(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
			    qs_kek_fetch *fetch, struct qs_secret *ret, struct qs_error *err);

#endif
