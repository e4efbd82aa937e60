#include "kms-key.h"

static int check(const struct qs_keystore_key *key, struct qs_error *err)
{
	if (!key->name && (key->name_space || key->role || key->secret_id_file))
		return qs_fail(err, QS_E_USAGE,
			       "--kms-namespace, --role-id and --secret-id-file are for --kms-key");
	if (!key->role != !key->secret_id_file)
		return qs_fail(err, QS_E_USAGE, "--role-id and --secret-id-file go together");
	if (key->secret_id_file && key->secret_id_file[0] != '/')
		return qs_fail(err, QS_E_USAGE,
			       "--secret-id-file: '%s' does not begin with /, and is read again "
			       "whenever devices open",
			       key->secret_id_file);
	return key->name ? 1 : 0;
}

int qs_kms_key_option(const struct qs_context *ctx, struct qs_keystore_key *ret,
		      struct qs_error *err)
{
	*ret = (struct qs_keystore_key){
		.name = qs_option_value(ctx, "kms-key"),
		.name_space = qs_option_value(ctx, "kms-namespace"),
		.role = qs_option_value(ctx, "role-id"),
		.secret_id_file = qs_option_value(ctx, "secret-id-file"),
	};
	return check(ret, err);
}
