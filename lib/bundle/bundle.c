#include "bundle/bundle.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "key/keyfile.h"

struct qs_bundle {
	char *file;
	struct qs_sealed *sealed;
	uint64_t size; /* bytes of the archive */
	struct qs_manifest manifest;
};

static int unlock_by_key(const struct qs_env *env, struct qs_sealed *s,
			 const struct qs_bundle_unlock *how, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret pem = {};
	int r = qs_key_load(env, how->key_file, &pem, err);

	return r < 0 ? r : qs_sealed_use_key(s, &pem, how->key_file, how->ask, how->cookie, err);
}

static int unlock_by_passphrase(struct qs_sealed *s, const struct qs_bundle_unlock *how,
				struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret passphrase = {};
	int r = how->ask(how->cookie, &passphrase, err);

	return r < 0 ? r : qs_sealed_use_passphrase(s, &passphrase, err);
}

/* Before anybody is asked for a passphrase that could not open it. */
static int check_kind(const struct qs_seal_recipient_kinds *kinds,
		      const struct qs_bundle_unlock *how, struct qs_error *err)
{
	if (how->key_file && !kinds->certificate)
		return qs_fail(err, QS_E_NO_KEY,
			       "no private key opens it: it was sealed with a passphrase only");
	if (!how->key_file && !kinds->passphrase)
		return qs_fail(err, QS_E_NO_KEY,
			       "no passphrase opens it: it was sealed to certificates only; name a "
			       "private key");
	return 0;
}

static int unlock(const struct qs_env *env, struct qs_bundle *b, const void *data, size_t size,
		  const struct qs_bundle_unlock *how, struct qs_error *err)
{
	struct qs_seal_recipient_kinds kinds = {};
	int r = qs_sealed_load(data, size, env->config.max_kdf_iterations, &b->sealed, &kinds, err);

	if (r == 0)
		r = check_kind(&kinds, how, err);
	if (r < 0)
		return r;
	return how->key_file ? unlock_by_key(env, b->sealed, how, err)
			     : unlock_by_passphrase(b->sealed, how, err);
}

static int read_sealed(void *cookie, void *data, size_t size, struct qs_error *err)
{
	return qs_sealed_read(cookie, data, size, err);
}

/* The manifest is the first member; nothing behind it is looked at. */
static int take_manifest(struct qs_member *m, void *cookie, struct qs_error *err)
{
	int r = qs_manifest_parse(m->content.data ? m->content.data : "", m->content.size, cookie,
				  err);

	return r < 0 ? r : 1;
}

void qs_auto_bundle(struct qs_bundle **b)
{
	struct qs_bundle *bundle = *b;

	if (!bundle)
		return;
	qs_auto_sealed(&bundle->sealed);
	qs_manifest_done(&bundle->manifest);
	free(bundle->file);
	free(bundle);
	*b = NULL;
}

/* The envelope is released as soon as it is parsed: OpenSSL holds a copy of it. */
static int load(const struct qs_env *env, struct qs_bundle *b, const struct qs_bundle_unlock *how,
		struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *data = NULL;
	size_t size = 0;
	int r = qs_file_read(b->file, QS_SEAL_MAX + (QS_SEAL_MAX >> 4), &data, &size, err);

	if (r < 0)
		return r;
	r = unlock(env, b, data, size, how, err);
	if (r < 0)
		qs_error_prefix(err, "%s", b->file);
	return r;
}

int qs_bundle_open(const struct qs_env *env, const char *file, const struct qs_bundle_unlock *how,
		   struct qs_bundle **ret, struct qs_error *err)
{
	QS_AUTO(qs_auto_bundle) struct qs_bundle *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return qs_fail(err, QS_E_MEMORY, "no memory to open %s", file);
	b->file = qs_strdup(file);
	r = load(env, b, how, err);
	if (r < 0)
		return r;
	r = qs_sealed_authenticate(b->sealed, &b->size, err);
	if (r == 0)
		r = qs_members_read(read_sealed, b->sealed, b->size, take_manifest, &b->manifest,
				    err);
	if (r < 0) {
		qs_error_prefix(err, "%s", b->file);
		return r;
	}
	*ret = QS_TAKE(b);
	return 0;
}

const struct qs_manifest *qs_bundle_manifest(const struct qs_bundle *b)
{
	return &b->manifest;
}

/* What the visitor says of its own work needs no name of the bundle in front. */
struct walk {
	qs_member_visit *visit;
	void *cookie;
	bool visiting;
};

static int visit_one(struct qs_member *m, void *cookie, struct qs_error *err)
{
	struct walk *w = cookie;
	int r;

	w->visiting = true;
	r = w->visit(m, w->cookie, err);
	w->visiting = r != 0;
	return r;
}

int qs_bundle_each(struct qs_bundle *b, qs_member_visit *visit, void *cookie, struct qs_error *err)
{
	struct walk w = { visit, cookie, false };
	int r = qs_sealed_rewind(b->sealed, err);

	if (r == 0)
		r = qs_members_read(read_sealed, b->sealed, b->size, visit_one, &w, err);
	if (r < 0 && !w.visiting)
		qs_error_prefix(err, "%s", b->file);
	return r;
}
