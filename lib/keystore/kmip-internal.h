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
	/* Provider kmip-wrap: how the server encrypts with it; none before that was tried. */
	enum qs_kmip_cipher cipher;
};

/* The logical path of that file; malloc'ed. */
char *qs_kmip_record_path(uint32_t number);

/* Returns 1 read, 0 there is none (the name is set). QS_E_CONFIG: malformed, another's. */
int qs_kmip_record_load(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
			struct qs_kmip_record *ret, struct qs_error *err);

/* The key of struct qs_provider. */
json_t *qs_kmip_key_of(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number);

/* What to say where there is none. Returns -errno. */
int qs_kmip_no_record(uint32_t number, struct qs_error *err);

/* Durably; replaces only what has the same name, as an interrupted run leaves it. */
int qs_kmip_record_save(const struct qs_env *env, const struct qs_keystore *ks, uint32_t number,
			const struct qs_kmip_record *record, struct qs_error *err);

/*
 * A content key as the provider kmip-wrap keeps it in headers: "kmip:v1:CIPHER:UID:IV:DATA[:TAG]",
 * CIPHER "aes-gcm" or "aes-cbc" (which has no tag), the rest base64; UID is the identifier of the
 * server's key.
 */
struct qs_kmip_wrapped {
	char uid[QS_KMIP_UID_L];
	struct qs_kmip_encrypted encrypted;
};

/* "aes-gcm"; static. */
const char *qs_kmip_cipher_name(enum qs_kmip_cipher cipher);

/* QS_KMIP_NO_CIPHER: not one of them, or NULL. */
enum qs_kmip_cipher qs_kmip_cipher_parse(const char *name);

char *qs_kmip_wrapped_print(const struct qs_kmip_wrapped *w); /* malloc'ed */

/* Only what is printed is taken. -EINVAL. */
int qs_kmip_wrapped_parse(const char *text, struct qs_kmip_wrapped *ret);

/* The wrap and unwrap of kmip-wrap. */
qs_content_keys qs_kmip_wrap_keys, qs_kmip_unwrap_keys;

#endif
