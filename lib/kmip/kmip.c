/*
 * The module kmip.so: see kmip/kmip.h. Making and erasing a key are several requests;
 * what a cut after each leaves, and what a second run does:
 *
 *   create                    left behind at the server        second run
 *   locate by name            nothing                          all
 *   create, or register       a pre-active key of that name    finds it by its name
 *   remember its identifier   the same, known                  as before
 *   activate                  the key                          finds it, active
 *   try it, if it is to stay  finished                         tries it again
 *
 *   erase                     left behind                      second run
 *   state and name            the key                          all
 *   revoke                    a deactivated key                destroys it
 *   destroy                   finished                         "there is none"
 */
#include <string.h>

#include "base/cleanup.h"
#include "base/openssl.h"
#include "kmip/session.h"

/* ---- describe ---- */

struct look {
	struct qs_kmip_description *description;
	bool there;
};

static int describe_op(struct qs_kmip_session *s, void *cookie, struct qs_error *err)
{
	const struct look *l = cookie;
	struct qs_kmip_description *d = l->description;
	const X509 *theirs = SSL_get0_peer_certificate(s->link.ssl);
	struct qs_kmip_answer answer;
	int r;

	(void)snprintf(d->server, sizeof(d->server), "%s", s->host->text);
	(void)snprintf(d->version, sizeof(d->version), "%d.%d", s->version.major, s->version.minor);
	if (theirs)
		d->server_expires = qs_openssl_expiry(theirs);
	r = qs_kmip_ask(s, QS_KMIP_QUERY, NULL, &answer, err);
	r = r < 0 ? r : qs_kmip_read_query(&answer, l->there, d->vendor, err);
	if (r == 0 && l->there)
		r = qs_kmip_require_ciphers(s, err);
	return r;
}

static int describe(const struct qs_kmip_access *access, bool there,
		    struct qs_kmip_description *ret, struct qs_error *err)
{
	struct look l = { ret, there };
	int64_t start = qs_kmip_now();
	SSL_CTX *context = NULL;
	int r;

	*ret = (struct qs_kmip_description){};
	/* Our certificates' times are known without any server. */
	r = qs_kmip_context(access, &context, ret, err);
	SSL_CTX_free(context);
	if (r == 0)
		r = qs_kmip_with_server(access, describe_op, &l, err);
	ret->answered_ms = r < 0 ? 0 : (unsigned)(qs_kmip_now() - start);
	return r;
}

/* ---- create ---- */

struct creation {
	const char *name, *uid;
	bool there;
	qs_kmip_remember *remember;
	void *cookie;
};

/* Returns how many keys have the name; *ret: the first. */
static int locate(struct qs_kmip_session *s, const char *name, char ret[QS_KMIP_UID_L],
		  struct qs_error *err)
{
	struct qs_kmip_answer answer;
	int r = qs_kmip_ask(s, QS_KMIP_LOCATE, name, &answer, err);

	return r < 0 ? r : qs_kmip_read_located(&answer, ret, err);
}

static int refuse_many(struct qs_kmip_session *s, const char *name, struct qs_error *err)
{
	s->refused = true;
	return qs_fail(err, QS_E_FORBIDDEN, "it has more than one key called %s", name);
}

static int get_attributes(struct qs_kmip_session *s, const char *uid, const char *name,
			  struct qs_kmip_attributes *ret, struct qs_error *err)
{
	struct qs_kmip_answer answer;
	int r = qs_kmip_ask(s, QS_KMIP_GET_ATTRIBUTES, uid, &answer, err);

	return r < 0 ? r : qs_kmip_read_attributes(&answer, name, ret, err);
}

static int get_state(struct qs_kmip_session *s, const char *uid, const char *name,
		     enum qs_kmip_state *ret, struct qs_error *err)
{
	struct qs_kmip_attributes found = {};
	int r = get_attributes(s, uid, name, &found, err);

	*ret = found.state;
	if (r < 0 || found.named)
		return r;
	/* Another data base under the same name, or restored: identifiers may mean other keys. */
	s->refused = true;
	return qs_fail(err, QS_E_FORBIDDEN, "its key %s is not called %s", uid, name);
}

/* Our own random bytes, where the server only keeps keys. */
static int register_key(struct qs_kmip_session *s, const char *name, struct qs_kmip_answer *answer,
			struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	int r = qs_secret_random(&key, QS_KMIP_KEY_L, err);
	const struct qs_kmip_request request = { .operation = QS_KMIP_REGISTER,
						 .about = name,
						 .key = key.data };

	return r < 0 ? r : qs_kmip_ask_one(s, &request, answer, err);
}

/* Not every server of 1.4 knows what sensitive is. */
static int make_there(struct qs_kmip_session *s, const char *name, struct qs_kmip_answer *answer,
		      struct qs_error *err)
{
	const struct qs_kmip_request request = { .operation = QS_KMIP_CREATE,
						 .about = name,
						 .sensitive = true };
	int r = -EIO;

	if (qs_kmip_has_cipher(s->version, QS_KMIP_GCM)) {
		r = qs_kmip_ask_one(s, &request, answer, err);
		if (r == 0 || !s->refused)
			return r;
	}
	s->refused = false;
	return qs_kmip_ask(s, QS_KMIP_CREATE, name, answer, err);
}

static int make_key(struct qs_kmip_session *s, const char *name, bool there,
		    char ret[QS_KMIP_UID_L], struct qs_error *err)
{
	struct qs_kmip_answer answer = { .verdict = QS_KMIP_FAILED };
	struct qs_error own = {}, second = {};
	int r = there ? make_there(s, name, &answer, &own)
		      : qs_kmip_ask(s, QS_KMIP_CREATE, name, &answer, &own);

	if (r < 0 && !there &&
	    (answer.verdict == QS_KMIP_NOT_SUPPORTED || answer.verdict == QS_KMIP_NOT_ALLOWED)) {
		s->refused = false;
		r = register_key(s, name, &answer, &second);
		if (r < 0)
			qs_error_append(&own, "; %s", second.text);
	}
	if (r < 0) {
		*err = own;
		return r;
	}
	return qs_kmip_read_uid(&answer, ret, err);
}

static int create_op(struct qs_kmip_session *s, void *cookie, struct qs_error *err)
{
	const struct creation *c = cookie;
	char uid[QS_KMIP_UID_L];
	struct qs_kmip_answer answer;
	enum qs_kmip_state state = QS_KMIP_PRE_ACTIVE;
	enum qs_kmip_cipher cipher = QS_KMIP_NO_CIPHER;
	int found = c->uid ? 1 : locate(s, c->name, uid, err);
	int r = found < 0 ? found : 0;

	if (found > 1)
		return refuse_many(s, c->name, err);
	if (c->uid)
		(void)snprintf(uid, sizeof(uid), "%s", c->uid);
	if (found == 1)
		r = get_state(s, uid, c->name, &state, err);
	else if (found == 0)
		r = make_key(s, c->name, c->there, uid, err);
	if (r < 0)
		return r;
	if (state > QS_KMIP_ACTIVE) {
		s->refused = true;
		return qs_fail(err, QS_E_FORBIDDEN, "its key %s is in use no more", c->name);
	}
	r = c->remember(uid, cipher, c->cookie, err);
	s->refused |= r < 0;
	if (r == 0 && state == QS_KMIP_PRE_ACTIVE)
		r = qs_kmip_ask(s, QS_KMIP_ACTIVATE, uid, &answer, err);
	if (r == 0 && c->there)
		r = qs_kmip_choose_cipher(s, uid, &cipher, err);
	if (r == 0 && c->there) {
		r = c->remember(uid, cipher, c->cookie, err);
		s->refused |= r < 0;
	}
	return r;
}

static int create(const struct qs_kmip_access *access, const char *name, const char *uid,
		  bool there, qs_kmip_remember *remember, void *cookie, struct qs_error *err)
{
	struct creation c = { name, uid, there, remember, cookie };

	return qs_kmip_with_server(access, create_op, &c, err);
}

/* ---- adopt ---- */

struct adoption {
	const char *id;
	bool there;
	enum qs_kmip_cipher cipher;
	char uid[QS_KMIP_UID_L];
};

static int find_by_name(struct qs_kmip_session *s, struct adoption *a,
			struct qs_kmip_attributes *ret, struct qs_error *err)
{
	int found = locate(s, a->id, a->uid, err);

	if (found < 0)
		return found;
	if (found > 1)
		return refuse_many(s, a->id, err);
	s->refused |= found == 0;
	return found ? get_attributes(s, a->uid, NULL, ret, err)
		     : qs_fail(err, QS_E_NO_KEY, "it has no key %s", a->id);
}

/* Is it handed out, or does it encrypt? */
static int try_key(struct qs_kmip_session *s, struct adoption *a, struct qs_error *err)
{
	struct qs_kmip_answer answer;
	const unsigned char *key;
	int r;

	if (a->there)
		return qs_kmip_choose_cipher(s, a->uid, &a->cipher, err);
	r = qs_kmip_ask(s, QS_KMIP_GET, a->uid, &answer, err);
	if (r == 0)
		r = qs_kmip_read_key(&answer, a->uid, &key, err);
	explicit_bzero(s->buffer.data, s->buffer.size);
	return r;
}

static int adopt_op(struct qs_kmip_session *s, void *cookie, struct qs_error *err)
{
	struct adoption *a = cookie;
	struct qs_kmip_attributes found;
	struct qs_error own = {};
	int r;

	(void)snprintf(a->uid, sizeof(a->uid), "%s", a->id);
	r = get_attributes(s, a->uid, NULL, &found, &own);
	if (r < 0 && own.kind == QS_E_NO_KEY) {
		s->refused = false;
		r = find_by_name(s, a, &found, err);
	} else if (r < 0) {
		*err = own;
	}
	if (r < 0)
		return r;
	r = qs_kmip_check_attributes(&found, a->there, err);
	s->refused |= r < 0;
	return r < 0 ? r : try_key(s, a, err);
}

static int adopt(const struct qs_kmip_access *access, const char *id, bool there,
		 char ret[QS_KMIP_UID_L], enum qs_kmip_cipher *ret_cipher, struct qs_error *err)
{
	struct adoption a = { .id = id, .there = there };
	int r;

	if (strlen(id) >= QS_KMIP_UID_L)
		return qs_fail(err, QS_E_USAGE, "no key has an identifier of %zu bytes",
			       strlen(id));
	r = qs_kmip_with_server(access, adopt_op, &a, err);
	memcpy(ret, a.uid, sizeof(a.uid));
	*ret_cipher = a.cipher;
	return r;
}

/* ---- get ---- */

struct fetch {
	struct qs_kmip_key *keys;
	size_t count;
};

static void take_key(const struct qs_kmip_session *s, const struct qs_kmip_answer *answer,
		     struct qs_kmip_key *key)
{
	const unsigned char *bytes;
	int r;

	if (answer->verdict != QS_KMIP_DONE) {
		qs_kmip_note_verdict(s, answer->verdict);
		key->error = answer->error;
		return;
	}
	key->error = (struct qs_error){};
	qs_secret_done(&key->key); /* from a server that failed after it */
	r = qs_kmip_read_key(answer, key->uid, &bytes, &key->error);
	if (r == 0)
		r = qs_secret_init(&key->key, QS_KMIP_KEY_L, &key->error);
	if (r == 0)
		memcpy(key->key.data, bytes, QS_KMIP_KEY_L);
}

/* Keys FROM on, COUNT of them, in one message. Returns 1: refused as a whole. */
static int get_some(struct qs_kmip_session *s, const struct fetch *f, size_t from, size_t count,
		    struct qs_error *err)
{
	struct qs_kmip_request requests[QS_KMIP_BATCH_MAX] = {};
	struct qs_kmip_answer answers[QS_KMIP_BATCH_MAX];
	int r;

	for (size_t i = 0; i < count; i++)
		requests[i] = (struct qs_kmip_request){ .operation = QS_KMIP_GET,
							.about = f->keys[from + i].uid };
	r = qs_kmip_ask_all(s, requests, count, answers, err);
	if (r == 1 && count == 1) {
		qs_kmip_note_verdict(s, answers[0].verdict);
		s->refused = answers[0].verdict != QS_KMIP_TRY_LATER;
		if (err)
			*err = answers[0].error;
		return qs_negative(qs_kind_errno(answers[0].error.kind));
	}
	for (size_t i = 0; r == 0 && i < count; i++)
		take_key(s, &answers[i], &f->keys[from + i]);
	explicit_bzero(s->buffer.data, s->buffer.size);
	return r;
}

/* Has the server an error of its own with one of them, which another one may not have? */
static int tell_trouble(const struct fetch *f, struct qs_error *err)
{
	for (size_t i = 0; i < f->count; i++)
		if (f->keys[i].error.kind == QS_E_TEMPORARY) {
			*err = f->keys[i].error;
			return -EAGAIN;
		}
	return 0;
}

/*
 * A batch stops at its first error, and one that is not to be had must not take the others
 * along; some servers take no batch at all.
 */
static int get_op(struct qs_kmip_session *s, void *cookie, struct qs_error *err)
{
	const struct fetch *f = cookie;
	int r = get_some(s, f, 0, f->count, err);

	if (r < 0)
		return r;
	for (size_t i = 0; f->count > 1 && i < f->count; i++) {
		if (r == 0 && f->keys[i].key.data)
			continue;
		if (get_some(s, f, i, 1, err) < 0)
			return -EIO;
	}
	return tell_trouble(f, err);
}

static int get(const struct qs_kmip_access *access, struct qs_kmip_key *keys, size_t count,
	       struct qs_error *err)
{
	struct fetch f = { keys, count };

	return qs_kmip_with_server(access, get_op, &f, err);
}

/* ---- erase ---- */

struct erasure {
	const char *name, *uid;
};

static int erase_op(struct qs_kmip_session *s, void *cookie, struct qs_error *err)
{
	const struct erasure *e = cookie;
	char uid[QS_KMIP_UID_L] = "";
	struct qs_kmip_answer answer;
	enum qs_kmip_state state;
	struct qs_error own = {};
	int r = e->uid ? 1 : locate(s, e->name, uid, err);

	if (r <= 0)
		return r;
	if (r > 1)
		return refuse_many(s, e->name, err);
	if (e->uid)
		(void)snprintf(uid, sizeof(uid), "%s", e->uid);
	r = get_state(s, uid, e->name, &state, &own);
	if (r < 0 && own.kind == QS_E_NO_KEY)
		return 0;
	if (r < 0 && err)
		*err = own;
	if (r == 0 && state >= QS_KMIP_DESTROYED)
		return 0;
	if (r == 0 && state == QS_KMIP_ACTIVE)
		r = qs_kmip_ask(s, QS_KMIP_REVOKE, uid, &answer, err);
	if (r == 0)
		r = qs_kmip_ask(s, QS_KMIP_DESTROY, uid, &answer, err);
	return r < 0 ? r : 1;
}

static int erase(const struct qs_kmip_access *access, const char *name, const char *uid,
		 struct qs_error *err)
{
	struct erasure e = { name, uid };

	return qs_kmip_with_server(access, erase_op, &e, err);
}

QS_MODULE_EXPORT extern const struct qs_kmip_functions qs_kmip_module;
const struct qs_kmip_functions qs_kmip_module = {
	.module.version = QS_KMIP_MODULE_VERSION,
	.describe = describe,
	.create = create,
	.adopt = adopt,
	.get = get,
	.crypt = qs_kmip_crypt,
	.erase = erase,
};
