/*
 * Shared by the files of the provider kmip.
 */
#ifndef QS_KEYSTORE_KMIP_INTERNAL_H
#define QS_KEYSTORE_KMIP_INTERNAL_H

#include "keystore/provider.h"
#include "kmip/kmip.h"

/*
 * One conversation with the key servers, in a worker process that is killed when it takes
 * longer than kmip_deadline. JOB gets the module and the credentials; *ret (may stay NULL)
 * travels as JSON, so no secret goes into it. QS_E_CONFIG, QS_E_KEY_FILE: the settings.
 */
typedef int qs_kmip_job(const struct qs_kmip_functions *module, const struct qs_kmip_access *access,
			void *cookie, json_t **ret, struct qs_error *err);
int qs_kmip_call(const struct qs_env *env, qs_kmip_job *job, void *cookie, json_t **ret,
		 struct qs_error *err);

/*
 * What is known of the key of a generation: /etc/cryptconf/keystore/N.kmip, root's alone.
 * The name is "qs-util/STORE/N".
 */
struct qs_kmip_record {
	char name[QS_KEYSTORE_UUID_L + 32];
	char uid[QS_KMIP_UID_L];
	bool adopted; /* somebody else made it (keystore rotate --key-id): it is theirs to destroy
		       */
};

/* The logical path of that file; malloc'ed. */
char *qs_kmip_record_path(uint32_t number);

/* Returns 1 read, 0 there is none (the name is set). QS_E_CONFIG: malformed, another's. */
int qs_kmip_record_load(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
			struct qs_kmip_record *ret, struct qs_error *err);

/* Durably; replaces only what has the same name, as an interrupted run leaves it. */
int qs_kmip_record_save(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
			const struct qs_kmip_record *record, struct qs_error *err);

#endif
