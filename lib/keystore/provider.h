/*
 * Providers: where the KEK of a keystore lives. One struct of functions each.
 *
 * Keys are wrapped and unwrapped in batches, since with some providers a hundred
 * keys cost one TPM unseal or one request over the network. A provider either hands out
 * the KEK, and the module jose.so wraps with it; or it keeps the KEK to itself and wraps the JWE's
 * content key. For callers that is the same.
 */
#ifndef QS_KEYSTORE_PROVIDER_H
#define QS_KEYSTORE_PROVIDER_H

#include <jansson.h>

#include "base/env.h"
#include "base/secret.h"
#include "keystore/keystore.h"

#define QS_KEK_L 32 /* bytes: AES-256 */

/* One key on its way into a wrapping or out of it. All of it is the caller's. */
struct qs_wrapping {
	char *volume;           /* what it is bound to: qs_keystore_volume() */
	uint32_t generation;    /* that wraps it */
	struct qs_secret plain; /* wrap: given; unwrap: made */
	json_t *jwe;            /* wrap: made, a new reference; unwrap: given, its form checked */
	struct qs_error error;  /* of this key; QS_E_NONE: done */
};

/* A content key on its way to a provider that wraps by itself, or back. */
struct qs_content_key {
	uint32_t generation;   /* that wraps it */
	uint32_t from;         /* rewrap: that has wrapped it so far */
	struct qs_secret key;  /* QS_KEK_L bytes; wrap: given; unwrap: made */
	char *wrapped;         /* wrap: made, malloc'ed; unwrap: given. See QS_WRAPPED_MAX */
	struct qs_error error; /* of this key; QS_E_NONE: done */
};

/* Bytes of a wrapped content key, which is printable ASCII. */
#define QS_WRAPPED_MAX 2048

/*
 * The KEK of a generation, QS_KEK_L bytes; and those of many, got in one go into S (see
 * keystore/session.h), where what failed has its error. ASK: a person may be asked.
 */
struct qs_keystore_session;
typedef int qs_kek_get(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		       struct qs_secret *ret, struct qs_error *err);
typedef int qs_kek_fetch(const struct qs_env *env, struct qs_keystore_session *s,
			 const struct qs_keystore *ks, const uint32_t *numbers, size_t count,
			 bool ask, struct qs_error *err);

/* COUNT content keys. -errno only when nothing could be begun. */
typedef int qs_content_keys(const struct qs_env *env, const struct qs_keystore *ks,
			    struct qs_content_key *items, size_t count, struct qs_error *err);

/* A key for some devices only, as somebody names it. */
struct qs_keystore_key {
	const char *name;
	const char *name_space; /* NULL: vault_namespace in qs-util.conf */
	const char *role;       /* NULL: the keystore's own credentials */
	const char *secret_id_file;
};

struct qs_provider {
	const char *name;
	const char *suffix; /* generation N has the file QS_KEYSTORE_DIR/N.SUFFIX */
	bool network;       /* a server is asked: not where the session is local */

	/* Could it work now? Before anything is made. Changes nothing. */
	int (*health)(const struct qs_env *env, struct qs_error *err);

	/* Make the KEK of generation NUMBER, durably. One that is there already stays: QS_E_EXISTS.
	 */
	int (*create)(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		      struct qs_error *err);

	/*
	 * Could the key that the session names (key_id) be the next generation? create() takes
	 * it then. Changes nothing. NULL where every key is made by create().
	 */
	int (*check_key)(const struct qs_env *env, const struct qs_keystore *ks,
			 struct qs_error *err);

	/*
	 * A provider that hands out its KEKs has one of these: GET reads a file, FETCH costs as
	 * much for many as for one. qs_keystore_prepare() is called before workers need them.
	 */
	qs_kek_get *get;
	qs_kek_fetch *fetch;

	/*
	 * A provider that keeps its KEKs to itself has these instead. In unwrap, -EPERM
	 * (QS_E_NO_KEY): changed, or another KEK's. wrap() may put a key that the server has made
	 * in the place of one that it was given.
	 */
	qs_content_keys *wrap;
	qs_content_keys *unwrap;

	/*
	 * Have what one generation has wrapped wrapped by another, without the key being shown:
	 * `wrapped` is replaced. What has an error afterwards can still be unwrapped and wrapped.
	 * NULL where the server has no such thing.
	 */
	qs_content_keys *rewrap;

	/*
	 * Log in for those of COUNT generations that are of the keystore's own key, once for the
	 * workers that will wrap or unwrap. May be NULL.
	 */
	int (*log_in)(const struct qs_env *env, const struct qs_keystore *ks,
		      const uint32_t *numbers, size_t count, struct qs_error *err);

	/*
	 * Is generation NUMBER one of KEY? Where KEY names no credentials and LOOSE, they may be
	 * any. Returns 1 yes, 0 no, or it is not known which it is of. NULL where generations have
	 * no line.
	 */
	int (*is_key)(const struct qs_env *env, uint32_t number, const struct qs_keystore_key *key,
		      bool loose, struct qs_error *err);

	/*
	 * Which key of the server's generation NUMBER is: "name" (of KMIP its identifier);
	 * "version", "namespace", "role_id", "secret_id_file" (vault); "cipher" (kmip-wrap),
	 * "adopted"; or "problem", as that there is no record of it. Reads files only. A new
	 * reference; NULL: of a KEK in a file there is nothing to say, or it was only begun. The
	 * function may be NULL.
	 */
	json_t *(*key)(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number);

	/*
	 * What the KEK of generation NUMBER is bound to: "pcrs" ("0+7"), "bank" (not without PCRs),
	 * "pin"; or "problem". Reads files only. A new reference; the function is NULL where it is
	 * bound to nothing.
	 */
	json_t *(*binding)(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number);

	/* Erase the KEK of generation NUMBER for good. Returns 1 erased, 0 was absent. */
	int (*retire)(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		      struct qs_error *err);

	/*
	 * What keystore status says of the server where the KEK of generation NUMBER is: fields of
	 * "server", a new reference. NULL where there is none. Of all that ends (certificates,
	 * credentials) "expires" has an object each: "what" (as a sentence begins) and "time".
	 */
	json_t *(*describe)(const struct qs_env *env, uint32_t number);
};

extern const struct qs_provider qs_provider_local, qs_provider_tpm2, qs_provider_kmip,
	qs_provider_kmip_wrap, qs_provider_vault;

/* One after the other, from 0 on; NULL: there are no more. */
const struct qs_provider *qs_provider_at(size_t i);

/* The provider of this name, or NULL. */
const struct qs_provider *qs_provider_find(const char *name);

/* The provider of generation NUMBER of KS. */
const struct qs_provider *qs_keystore_provider(const struct qs_keystore *ks, uint32_t number);

/*
 * Get what wrapping and unwrapping with GENERATIONS (COUNT of them) takes, once for all that this
 * command does, in the parent of its workers; without it each of them would have to get the KEK by
 * itself. What fails for a generation is told by each use of it and is not tried again; what has
 * been got or has failed is left alone; but where a server is only logged in to, that is told at
 * once. ASK: a person may be asked.
 */
int qs_keystore_prepare(const struct qs_env *env, const struct qs_keystore *ks,
			const uint32_t *generations, size_t count, bool ask, struct qs_error *err);

/* The same for all generations of KS. */
int qs_keystore_prepare_all(const struct qs_env *env, const struct qs_keystore *ks, bool ask,
			    struct qs_error *err);

/*
 * The same for COUNT devices, whose keys GENERATIONS wrap (0: none): where WRAPPED has a content
 * key that the provider wrapped, that is unwrapped, those of each provider in one call; for the
 * others the KEKs are got.
 */
int qs_keystore_prepare_devices(const struct qs_env *env, const struct qs_keystore *ks,
				const uint32_t *generations, char *const *wrapped, size_t count,
				bool ask, struct qs_error *err);

/*
 * The same for COUNT keys that generation NUMBER is going to wrap, and for unwrapping them again. A
 * provider that keeps its KEKs has proven by then that it does both; failing that is an error.
 */
int qs_keystore_prepare_wrapping(const struct qs_env *env, const struct qs_keystore *ks,
				 uint32_t number, size_t count, bool ask, struct qs_error *err);

/* Who can have what generation FROM has wrapped wrapped by TO (rewrap()), or NULL. */
const struct qs_provider *qs_keystore_rewrapper(const struct qs_env *env,
						const struct qs_keystore *ks, uint32_t from,
						uint32_t to);

/* Has any generation of KS something to be prepared for which devices are looked at first? */
bool qs_keystore_wants_prepare(const struct qs_keystore *ks);

/*
 * Wrap or unwrap COUNT keys, those of each provider in one call. What fails for one stands in its
 * error; -errno only when nothing could be begun. In unwrap, -EPERM (QS_E_NO_KEY): changed, or
 * another KEK's.
 */
int qs_keystore_wrap_keys(const struct qs_env *env, const struct qs_keystore *ks,
			  struct qs_wrapping *items, size_t count, struct qs_error *err);
int qs_keystore_unwrap_keys(const struct qs_env *env, const struct qs_keystore *ks,
			    struct qs_wrapping *items, size_t count, struct qs_error *err);

/* The same for keys that are all of PROVIDER's generations. */
int qs_provider_wrap(const struct qs_provider *provider, const struct qs_env *env,
		     const struct qs_keystore *ks, struct qs_wrapping *const *items, size_t count,
		     struct qs_error *err);
int qs_provider_unwrap(const struct qs_provider *provider, const struct qs_env *env,
		       const struct qs_keystore *ks, struct qs_wrapping *const *items, size_t count,
		       struct qs_error *err);

/* The KEK of generation NUMBER. QS_E_FAILED: its provider gives none away. */
int qs_keystore_kek(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		    struct qs_secret *ret, struct qs_error *err);

/* check_key() of PROVIDER, if the session names a key; QS_E_USAGE: it takes none. */
int qs_keystore_check_key(const struct qs_env *env, const struct qs_provider *provider,
			  const struct qs_keystore *ks, struct qs_error *err);

/* The sentence of a server's generation whose record PATH is not there: QS_E_KEY_FILE. */
int qs_keystore_no_record(const char *path, uint32_t number, struct qs_error *err);

/* Is the module there? */
int qs_kek_health(struct qs_error *err);

void qs_wrapping_done(struct qs_wrapping *w); /* also a QS_AUTO releaser */

/* "LUKS-UUID/KEYSLOT", to which a wrapped key is bound; malloc'ed. */
char *qs_keystore_volume(const char *uuid, int slot);

/* "STORE/GENERATION", the JWE's kid; malloc'ed. */
char *qs_keystore_kid(const char *store, uint32_t generation);

/*
 * Wrap random bytes with generation NUMBER, unwrap them from the text that a header
 * would hold, and compare: before anything depends on that generation.
 */
int qs_keystore_probe(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		      struct qs_error *err);

/*
 * The same for any generation. One that nothing is wrapped with any more need not wrap: a server
 * may have been told not to, or be able to make keys for its latest version only.
 */
int qs_keystore_probe_any(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
			  struct qs_error *err);

#endif
