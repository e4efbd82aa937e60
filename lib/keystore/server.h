/*
 * What providers whose keys are at a server have in common.
 */
#ifndef QS_KEYSTORE_SERVER_H
#define QS_KEYSTORE_SERVER_H

#include <time.h>

#include <jansson.h>

#include "base/env.h"
#include "base/error.h"
#include "base/secret.h"

/*
 * After an interrupt: enough for the exchange that is under way with a server that answers. One
 * that does not is not waited for, as a conversation may be cut off anywhere.
 */
#define QS_SERVER_GRACE_MS 500U

/*
 * Read the file PATH (logical) that SETTING of qs-util.conf names, by the rules for key files.
 * QS_E_CONFIG: it is not set; QS_E_KEY_FILE.
 */
int qs_server_credential(const struct qs_env *env, const char *path, const char *setting,
			 struct qs_secret *ret, struct qs_error *err);

/*
 * A provider's describe(): FOUND (may be NULL; taken over), and whether the server was reached:
 * R < 0: it was not, as WHY says. A new reference.
 */
json_t *qs_server_describe(json_t *found, int r, const struct qs_error *why);

/*
 * Into what describe() says: FIELD, and a member of "expires". WHAT (as a sentence begins) ends at
 * WHEN; 0: that is not known.
 */
void qs_server_add_end(json_t *json, const char *field, const char *what, time_t when);

#endif
