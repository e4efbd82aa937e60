#include "luks/plain.h"

#include <errno.h>
#include <string.h>

#include <libcryptsetup.h>

#include "base/cleanup.h"
#include "base/secret.h"
#include "luks/mapping.h"

int qs_plain_open(const char *node, const char *name, unsigned sector_size, bool allow_discards,
		  struct qs_error *err)
{
	struct crypt_params_plain params = { .sector_size = sector_size };
	QS_AUTO(qs_auto_cd) struct crypt_device *cd = NULL;
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	int r = qs_secret_random(&key, QS_PLAIN_KEY_BITS / 8, err);

	if (r < 0)
		return r;
	r = crypt_init(&cd, node);
	if (r == 0)
		r = crypt_format(cd, CRYPT_PLAIN, "aes", "xts-plain64", NULL, NULL, key.size,
				 &params);
	if (r == 0)
		r = crypt_activate_by_volume_key(cd, name, key.data, key.size,
						 allow_discards ? CRYPT_ACTIVATE_ALLOW_DISCARDS
								: 0);
	return r < 0 ? qs_mapping_explain(r, node, name, err) : 0;
}

int qs_plain_close(const char *name, struct qs_error *err)
{
	int r = crypt_deactivate_by_name(NULL, name, 0);

	if (r == 0 || r == -ENODEV)
		return 0;
	return qs_fail_errno(err, r, "cannot close /dev/mapper/%s", name);
}
