/*
 * A key bundle that is read: a file that is decrypted, authenticated as a whole
 * before anything of it is believed, and then walked as often as needed.
 */
#ifndef QS_BUNDLE_BUNDLE_H
#define QS_BUNDLE_BUNDLE_H

#include "base/env.h"
#include "base/error.h"
#include "bundle/manifest.h"
#include "bundle/member.h"
#include "bundle/seal.h"

/* What opens it. */
struct qs_bundle_unlock {
	const char *key_file; /* logical path of a private key in PEM; NULL: by passphrase */
	/*
	 * Gives the passphrase, of the bundle or of the private key; called at most once,
	 * and only when there is something for it to open.
	 */
	qs_seal_ask *ask;
	void *cookie;
};

struct qs_bundle;

/*
 * Read and authenticate FILE (a real path). Errors name it.
 * Returns: QS_E_NO_KEY when the passphrase or private key does not open it;
 * QS_E_KEY_FILE, QS_E_USAGE when the right kind of them was not given;
 * QS_E_FAILED when it is damaged, was changed, or is no bundle.
 */
int qs_bundle_open(const struct qs_env *env, const char *file, const struct qs_bundle_unlock *how,
		   struct qs_bundle **ret, struct qs_error *err);

const struct qs_manifest *qs_bundle_manifest(const struct qs_bundle *b);

/* Walk over all members, the manifest too; can be called again. As qs_members_read(). */
int qs_bundle_each(struct qs_bundle *b, qs_member_visit *visit, void *cookie, struct qs_error *err);

void qs_auto_bundle(struct qs_bundle **b); /* QS_AUTO releaser */

#endif
