/*
 * Shared by the files of the provider vault (which are called after Vault's transit engine: the
 * command vault is something else).
 */
#ifndef QS_KEYSTORE_TRANSIT_INTERNAL_H
#define QS_KEYSTORE_TRANSIT_INTERNAL_H

#include "hcvault/hcvault.h"
#include "keystore/provider.h"
#include "keystore/session.h"

#define QS_TRANSIT_NAME_L 256

/*
 * One conversation with the servers, in a worker process that is killed when it takes longer
 * than vault_deadline. JOB gets the module and the credentials; *ret (may stay NULL) travels as
 * JSON, so no secret goes into it: those lie in memory that is shared. The login is the
 * session's, so one for all calls of a command, if this process may add to the session.
 */
typedef int qs_transit_job(const struct qs_hcvault_functions *module,
			   const struct qs_hcvault_access *access, void *cookie, json_t **ret,
			   struct qs_error *err);
int qs_transit_call(const struct qs_env *env, qs_transit_job *job, void *cookie, json_t **ret,
		    struct qs_error *err);

/*
 * Which version of which key is a generation: /etc/cryptconf/keystore/N.vault, root's alone.
 * A key of somebody's own making (adopted) is not ours to delete or to end versions of.
 */
struct qs_transit_record {
	char key[QS_TRANSIT_NAME_L];
	uint32_t version;
	bool adopted;
};

/* The logical path of that file; malloc'ed. */
char *qs_transit_record_path(uint32_t number);

/* Returns 1 read, 0 there is none. QS_E_CONFIG: malformed. */
int qs_transit_record_load(const struct qs_env *env, uint32_t number, struct qs_transit_record *ret,
			   struct qs_error *err);

/* Durably; replaces nothing. */
int qs_transit_record_save(const struct qs_env *env, uint32_t number,
			   const struct qs_transit_record *record, struct qs_error *err);

/* The name of the key that the keystore STORE makes for itself. */
void qs_transit_own_key(const char *store, char ret[QS_TRANSIT_NAME_L]);

#endif
