/*
 * The keystore: numbered generations of a key-encryption key (KEK) that wraps
 * device keys. One per appliance:
 *
 *   /etc/cryptconf/keystore/keystore.json   state, provider, generations, rotation; no secret
 *   /etc/cryptconf/keystore/N.kek           provider "local": generation N, 32 bytes, 0400
 *
 * Devices name store and generation in a token of theirs (keystore/token.h).
 *
 * Besides the keystore's own key, which rotates and migrates, there may be keys for some devices
 * only, kept by the provider vault: the generations of such a key are a line of their own. Numbers
 * are shared by all lines.
 */
#ifndef QS_KEYSTORE_KEYSTORE_H
#define QS_KEYSTORE_KEYSTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/env.h"
#include "base/error.h"
#include "keystore/schedule.h"

#define QS_KEYSTORE_DIR QS_CONF_DIR "/keystore"
#define QS_KEYSTORE_FILE QS_KEYSTORE_DIR "/keystore.json"

#define QS_KEYSTORE_UUID_L 37
#define QS_KEYSTORE_PROVIDER_L 16
#define QS_KEYSTORE_GENERATIONS 64          /* that are kept at once */
#define QS_KEYSTORE_GENERATION_MAX 99999999 /* a week each for longer than there are tables */

/* Seconds for which a destroyed device can be brought back. */
#define QS_KEYSTORE_DAY UINT64_C(86400)
#define QS_KEYSTORE_RETENTION (7 * QS_KEYSTORE_DAY)
#define QS_KEYSTORE_RETENTION_MIN (1 * QS_KEYSTORE_DAY)
#define QS_KEYSTORE_RETENTION_MAX (365 * QS_KEYSTORE_DAY)

enum qs_keystore_state {
	QS_KEYSTORE_DISABLED, /* there is no keystore.json, nor what is left of a keystore */
	QS_KEYSTORE_ENABLING, /* its first generation is being made; nothing is wrapped by it */
	QS_KEYSTORE_ENABLED,
	QS_KEYSTORE_DISABLING, /* nothing depends on it, its generations are being erased */
};

/* How far a rotation has come; the words of DESIGN in keystore.json and in JSON output. */
enum qs_rotation_state {
	QS_ROTATION_IDLE,
	QS_ROTATION_DISTRIBUTING, /* the target is being made and proven; nothing is wrapped by it
				   */
	QS_ROTATION_REWRAPPING,   /* devices go from any other generation to the target */
};

struct qs_keystore_generation {
	uint32_t number;
	time_t created;
	char provider[QS_KEYSTORE_PROVIDER_L]; /* where its KEK lives; "": the keystore's */
	uint32_t line; /* 0: of the keystore's own key; else the number of the first of its line */
	bool begun;    /* with a line: not proven yet, nothing is wrapped by it */
};

struct qs_keystore {
	enum qs_keystore_state state;
	char store[QS_KEYSTORE_UUID_L];        /* its UUID; "" when disabled, as the next */
	char provider[QS_KEYSTORE_PROVIDER_L]; /* where the current generation lives */
	uint32_t current; /* the generation of the last rotation that was finished; 0 while enabling
			   */
	enum qs_rotation_state rotation;
	uint32_t target; /* the generation that the rotation makes; 0 when idle */
	char target_provider[QS_KEYSTORE_PROVIDER_L]; /* where that one lives; "" when idle */
	/* What a migration into the TPM was asked to bind it to, until it is made. */
	uint32_t target_pcrs;
	bool target_pin;
	struct qs_keystore_generation generations[QS_KEYSTORE_GENERATIONS]; /* oldest first */
	size_t count;
	uint32_t retention; /* seconds; 0: QS_KEYSTORE_RETENTION */
	struct qs_schedule schedule;
	time_t rotated; /* when the last rotation was finished; 0: none was, or an older qs-util
			   did it */
};

/* The word in keystore.json and in JSON output; static. */
const char *qs_keystore_state_name(enum qs_keystore_state state);

/*
 * Is there a keystore.json at all, or what is left of a keystore that lost it? Opening a device
 * without one costs this look only.
 */
bool qs_keystore_is_there(const struct qs_env *env);

/*
 * QS_E_CONFIG: without a keystore.json, its directory holds a file of a generation (ANY: any file
 * but a temporary).
 */
int qs_keystore_refuse_remains(const struct qs_env *env, bool any, struct qs_error *err);

/*
 * Read keystore.json; absent is QS_KEYSTORE_DISABLED. QS_E_CONFIG: malformed, or absent
 * beside what is left of a keystore; QS_E_KEY_FILE: not private to root, or no regular file.
 */
int qs_keystore_load(const struct qs_env *env, struct qs_keystore *ret, struct qs_error *err);

/* The same, and QS_E_FAILED with the way out unless it is enabled. */
int qs_keystore_load_enabled(const struct qs_env *env, struct qs_keystore *ret,
			     struct qs_error *err);

/* Write keystore.json durably, and read it back. The directory must be there. */
int qs_keystore_save(const struct qs_env *env, const struct qs_keystore *ks, struct qs_error *err);

/* Parse the text of a keystore.json, strictly: QS_E_CONFIG. */
int qs_keystore_parse(const char *text, size_t size, struct qs_keystore *ret, struct qs_error *err);

/* The text that qs_keystore_parse() reads; malloc'ed. */
char *qs_keystore_print(const struct qs_keystore *ks);

/* The generation of this number, or NULL. */
const struct qs_keystore_generation *qs_keystore_generation(const struct qs_keystore *ks,
							    uint32_t number);

/* The last generation of the keystore's own key; NULL: there is none yet. */
const struct qs_keystore_generation *qs_keystore_last_own(const struct qs_keystore *ks);

/* The last generation of the key whose line is LINE that is proven; NULL: there is none. */
const struct qs_keystore_generation *qs_keystore_head(const struct qs_keystore *ks, uint32_t line);

/* The generation that devices of generation NUMBER are brought to: of the same key. */
uint32_t qs_keystore_successor(const struct qs_keystore *ks, uint32_t number);

/* The provider's name of generation NUMBER, which KS has or makes. */
const char *qs_keystore_provider_name(const struct qs_keystore *ks, uint32_t number);

/* The generation of the keystore's own key that wraps what is wrapped now: the target once it is
 * proven, else the current. */
uint32_t qs_keystore_wraps_with(const struct qs_keystore *ks);

/* The word for it; static. */
const char *qs_rotation_state_name(enum qs_rotation_state state);

/* Seconds for which what is destroyed now is kept. */
uint32_t qs_keystore_retention(const struct qs_keystore *ks);

/* A time as in keystore.json and in JSON output. -EINVAL: any other form, or NULL. */
int qs_keystore_parse_time(const char *text, time_t *ret);

/* A random UUID (RFC 4122, version 4). */
int qs_keystore_new_uuid(char ret[QS_KEYSTORE_UUID_L], struct qs_error *err);

/* The one form of UUIDs that we write: 36 lower-case characters. */
bool qs_keystore_is_uuid(const char *text);

#endif
