/*
 * Providers: where the KEK of a keystore lives. One struct of functions each.
 *
 * Keys are wrapped and unwrapped in batches, since with some providers a hundred
 * keys cost one TPM unseal or one request over the network. A provider that keeps
 * the KEK to itself wraps the JWE's content key instead of handing a KEK to the
 * module jose.so; for its callers nothing changes.
 */
#ifndef QS_KEYSTORE_PROVIDER_H
#define QS_KEYSTORE_PROVIDER_H

#include <jansson.h>

#include "base/env.h"
#include "base/secret.h"
#include "keystore/keystore.h"

/* One key on its way into a wrapping or out of it. All of it is the caller's. */
struct qs_wrapping {
	char *volume;           /* what it is bound to: qs_keystore_volume() */
	uint32_t generation;    /* that wraps it */
	struct qs_secret plain; /* wrap: given; unwrap: made */
	json_t *jwe;            /* wrap: made, a new reference; unwrap: given, its form checked */
	struct qs_error error;  /* of this key; QS_E_NONE: done */
};

struct qs_provider {
	const char *name;

	/* Could it work now? Before anything is made. Changes nothing. */
	int (*health)(const struct qs_env *env, struct qs_error *err);

	/* Make the KEK of generation NUMBER, durably. One that is there already stays: QS_E_EXISTS.
	 */
	int (*create)(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		      struct qs_error *err);

	/*
	 * COUNT keys. What fails for one stands in its error; -errno only when nothing
	 * could be begun. In unwrap, -EPERM (QS_E_NO_KEY): changed, or another KEK's.
	 */
	int (*wrap)(const struct qs_env *env, const struct qs_keystore *ks,
		    struct qs_wrapping *items, size_t count, struct qs_error *err);
	int (*unwrap)(const struct qs_env *env, const struct qs_keystore *ks,
		      struct qs_wrapping *items, size_t count, struct qs_error *err);

	/* The KEK of generation NUMBER, to be encrypted for an escrow; NULL: it is given to nobody.
	 */
	int (*export_kek)(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
			  struct qs_secret *ret, struct qs_error *err);

	/*
	 * Get what wrapping and unwrapping with GENERATIONS (COUNT of them) takes, once for all
	 * that this command does, in the parent of its workers. What fails for a generation is told
	 * by each use of it and is not tried again; what has been got or has failed is left alone.
	 * ASK: a person may be asked. NULL where nothing has to be got.
	 */
	int (*prepare)(const struct qs_env *env, const struct qs_keystore *ks,
		       const uint32_t *generations, size_t count, bool ask, struct qs_error *err);

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
	 * What keystore status says of the server where the KEK is: fields of "server", a new
	 * reference. NULL where there is none.
	 */
	json_t *(*describe)(const struct qs_env *env);
};

extern const struct qs_provider qs_provider_local, qs_provider_tpm2, qs_provider_kmip;

/* The provider of this name, or NULL. */
const struct qs_provider *qs_provider_find(const char *name);

/*
 * The provider's prepare(). Before workers wrap or unwrap; without it each of them would have to
 * get the KEK by itself.
 */
int qs_keystore_prepare(const struct qs_env *env, const struct qs_keystore *ks,
			const uint32_t *generations, size_t count, bool ask, struct qs_error *err);

/* The same for all generations of KS. */
int qs_keystore_prepare_all(const struct qs_env *env, const struct qs_keystore *ks, bool ask,
			    struct qs_error *err);

/*
 * wrap() and unwrap() of providers that hand out the KEK: GET gives that of a generation
 * (QS_KEK_L bytes), and the module jose.so does the rest.
 */
typedef int qs_kek_get(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		       struct qs_secret *ret, struct qs_error *err);
int qs_kek_wrap(const struct qs_env *env, const struct qs_keystore *ks, struct qs_wrapping *items,
		size_t count, qs_kek_get *get, struct qs_error *err);
int qs_kek_unwrap(const struct qs_env *env, const struct qs_keystore *ks, struct qs_wrapping *items,
		  size_t count, qs_kek_get *get, struct qs_error *err);

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

#endif
