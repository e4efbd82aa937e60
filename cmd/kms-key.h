/*
 * A key of a Vault server's for some devices only, from what was typed.
 */
#ifndef QS_CMD_KMS_KEY_H
#define QS_CMD_KMS_KEY_H

#include "command.h"
#include "keystore/provider.h"

/* As two lines each, so that a row can have them among its own. */
#define QS_KMS_KEY_OPTIONS                                                                         \
	{ .name = "kms-namespace",                                                                 \
	  .arg = "NS",                                                                             \
	  .help = "the namespace of --kms-key, if it is not vault_namespace" },                    \
		{ .name = "role-id",                                                               \
		  .arg = "ID",                                                                     \
		  .help = "log in for --kms-key with this role, and not as vault_role_id" },       \
	{                                                                                          \
		.name = "secret-id-file", .arg = "FILE",                                           \
		.help = "with --role-id: its secret-id is in FILE, from now on; root's, mode 0400" \
	}

/* Returns 1 *ret is filled, from the context's; 0 there is no --kms-key; QS_E_USAGE. */
int qs_kms_key_option(const struct qs_context *ctx, struct qs_keystore_key *ret,
		      struct qs_error *err);

#endif
