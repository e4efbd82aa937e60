/*
 * A device's key, into a token and out of it.
 */
#ifndef QS_KEYSTORE_DEVICE_H
#define QS_KEYSTORE_DEVICE_H

#include <jansson.h>

#include "base/env.h"
#include "base/secret.h"
#include "keystore/keystore.h"
#include "keystore/token.h"

struct crypt_device;

/*
 * Wrap DEVICE_KEY, which opens keyslot SLOT of the loaded header CD, with
 * generation NUMBER. It is unwrapped again from the text that the header will hold, and its
 * identity checked, before this returns. *ret: the token without "keyslots".
 */
int qs_keystore_wrap(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
		     struct crypt_device *cd, int slot, const struct qs_secret *device_key,
		     json_t **ret, struct qs_error *err);

/*
 * The key that TOKEN holds for the loaded header CD, whose identity has been checked by
 * then, and the keyslot; *ret_volume_key (may be NULL): the volume key, which was measured for it.
 * QS_E_DAMAGED: the token; QS_E_HOSTILE: another volume;
 * QS_E_NO_KEY: another keystore's, a generation that this one does not have, another KEK,
 * or it does not open the keyslot; QS_E_KEY_FILE: the KEK's file; QS_E_FAILED: the
 * module; or another provider's.
 */
int qs_keystore_unwrap(const struct qs_env *env, const struct qs_keystore *ks,
		       struct crypt_device *cd, const json_t *token, struct qs_secret *ret,
		       struct qs_secret *ret_volume_key, struct qs_keystore_token *ret_token,
		       struct qs_error *err);

/* A token on its way to another generation. */
struct qs_rewrap {
	const char *uuid;      /* of the volume; the caller's, as the next */
	const json_t *token;   /* as its header has it */
	uint32_t target;       /* the generation that it goes to */
	bool keep;             /* it is at that generation: only prove that it unwraps */
	json_t *made;          /* as its header shall have it; a new reference */
	struct qs_error error; /* of this one; QS_E_NONE: done */
};

/* How many keys go to the provider in one call. */
#define QS_REWRAP_BATCH 100

/*
 * Wrap what COUNT tokens hold with the generations that they go to. Each is unwrapped again from
 * the text that its header will hold, and compared, before this returns. Three calls of each
 * provider for each QS_REWRAP_BATCH of them; two where its server rewraps.
 */
int qs_keystore_rewrap(const struct qs_env *env, const struct qs_keystore *ks,
		       struct qs_rewrap *items, size_t count, struct qs_error *err);

/*
 * Does this keystore have what TOKEN names? The refusals of qs_keystore_unwrap() before the KEK. Of
 * a disabled keystore TOKEN is not looked at.
 */
int qs_keystore_check_token(const struct qs_keystore *ks, const struct qs_keystore_token *token,
			    struct qs_error *err);

#endif
