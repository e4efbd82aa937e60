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
 * Which version of which key is a generation: /etc/cryptconf/keystore/N.vault, root's alone.
 * A key of somebody's own making (adopted) is not ours to delete or to end versions of.
 */
struct qs_transit_record {
	char key[QS_TRANSIT_NAME_L];
	uint32_t version;
	bool adopted;
	/* A key for some devices only, which is adopted, too. What is "" is as in qs-util.conf. */
	bool dedicated;
	char name_space[QS_TRANSIT_NAME_L];
	char role[QS_TRANSIT_NAME_L];
	char secret_id_file[QS_TRANSIT_NAME_L]; /* logical; with a role only */
};

/*
 * One conversation with the servers, in a worker process that is killed when it takes longer
 * than vault_deadline. JOB gets the module and the credentials; *ret (may stay NULL) travels as
 * JSON, so no secret goes into it: those lie in memory that is shared. RECORD: whose credentials
 * and namespace; NULL: the keystore's own. The login is the
 * session's, so one for all calls of a command, if this process may add to the session.
 */
typedef int qs_transit_job(const struct qs_hcvault_functions *module,
			   const struct qs_hcvault_access *access, void *cookie, json_t **ret,
			   struct qs_error *err);
int qs_transit_call(const struct qs_env *env, const struct qs_transit_record *record,
		    qs_transit_job *job, void *cookie, json_t **ret, struct qs_error *err);

/* Have both the same credentials and log in to the same namespace? */
bool qs_transit_same_login(const struct qs_transit_record *a, const struct qs_transit_record *b);

/* The logical path of that file; malloc'ed. */
char *qs_transit_record_path(uint32_t number);

/* Returns 1 read, 0 there is none. QS_E_CONFIG: malformed. */
int qs_transit_record_load(const struct qs_env *env, uint32_t number, struct qs_transit_record *ret,
			   struct qs_error *err);

/* Durably; replaces nothing. */
int qs_transit_record_save(const struct qs_env *env, uint32_t number,
			   const struct qs_transit_record *record, struct qs_error *err);

/* Do ACTION to the key of RECORD at the server. *ret: as of struct qs_hcvault_functions. */
int qs_transit_do_key(const struct qs_env *env, const struct qs_transit_record *record,
		      enum qs_hcvault_action action, uint32_t number, struct qs_transit_key *ret,
		      struct qs_error *err);

/* NAME as a key of the transit engine. QS_E_USAGE: it cannot be one's. */
int qs_transit_take_name(const char *name, char ret[QS_TRANSIT_NAME_L], struct qs_error *err);

/* Of struct qs_provider. */
qs_content_keys qs_transit_wrap, qs_transit_unwrap, qs_transit_rewrap;

/*
 * create() of a generation with a line: a version of the session's key, or the next one of its
 * line's. A key for some devices only is made by its administrator.
 */
int qs_transit_create_dedicated(const struct qs_env *env, const struct qs_keystore *ks,
				uint32_t number, struct qs_error *err);

/* That N.vault is of a generation which keystore.json does not know. */
int qs_transit_refuse_record(uint32_t number, struct qs_error *err);

/* is_key() and key() of struct qs_provider. */
int qs_transit_is_key(const struct qs_env *env, uint32_t number, const struct qs_keystore_key *key,
		      bool loose, struct qs_error *err);
json_t *qs_transit_key_of(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number);

/* The name of the key that the keystore STORE makes for itself. */
void qs_transit_own_key(const char *store, char ret[QS_TRANSIT_NAME_L]);

#endif
