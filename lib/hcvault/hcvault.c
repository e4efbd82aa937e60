/*
 * The module hcvault.so: see hcvault/hcvault.h.
 */
#include <string.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "base/openssl.h"
#include "hcvault/internal.h"

#define BATCH_MAX 256 /* items of a request: its answer stays far below QS_TRANSIT_ANSWER_MAX */
#define BODY_L 128

/* ---- describe ---- */

static int not_health(const struct qs_transit_answer *answer, struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *ignored = NULL;
	struct qs_transit_health health;

	if (qs_transit_judge(answer, &ignored, err) != QS_TRANSIT_DONE)
		return qs_negative(qs_kind_errno(err->kind));
	return qs_transit_read_health(answer->text, answer->size, &health, err);
}

static time_t server_expiry(const struct qs_hcvault_link *link)
{
	struct curl_certinfo *chain = NULL;
	const struct curl_slist *line = NULL;

	if (curl_easy_getinfo(link->curl, CURLINFO_CERTINFO, &chain) != CURLE_OK || !chain ||
	    chain->num_of_certs < 1)
		return 0;
	for (line = chain->certinfo[0]; line; line = line->next)
		if (strncmp(line->data, "Cert:", 5) == 0)
			return qs_openssl_pem_expiry(line->data + 5, strlen(line->data + 5));
	return 0;
}

/* Most roles may not look at their own secret-id: then it is not known, and nothing else. */
static void look_at_secret_id(struct qs_hcvault_link *link, struct qs_transit_lifetime *ret)
{
	const struct qs_hcvault_login *login = link->access->login;
	QS_AUTO(qs_auto_free)
	char *path = qs_printf("auth/%s/role/%s/secret-id/lookup", link->access->auth, login->role);
	QS_AUTO(qs_secret_done) struct qs_secret body = {};
	QS_AUTO(qs_auto_json) json_t *answer = NULL;
	/* With a token that is named no login is tried again. */
	const struct qs_hcvault_request request = { "POST", path, &body, .token = login->token,
						    .about = "looking at the secret-id" };
	bool refused = link->refused;

	if (!*login->role || qs_transit_write_lookup(link->access->secret_id, &body, NULL) < 0)
		return;
	if (qs_hcvault_ask(link, &request, &answer, NULL, NULL) == 0)
		qs_transit_read_lifetime(answer, ret);
	link->refused = refused;
}

struct look_work {
	bool all;
	struct qs_hcvault_description *ret;
};

static int look(struct qs_hcvault_link *link, void *cookie, struct qs_error *err)
{
	static const struct qs_hcvault_request request = {
		"GET", "sys/health?standbyok=true&perfstandbyok=true", .token = "",
		.about = "asking for its state", .server = true
	};
	const struct look_work *w = cookie;
	struct qs_hcvault_description *d = w->ret;
	struct qs_transit_answer answer;
	int64_t start = qs_hcvault_now();
	unsigned retry;
	int r;

	(void)snprintf(d->server, sizeof(d->server), "%s", link->server);
	(void)curl_easy_setopt(link->curl, CURLOPT_CERTINFO, (long)w->all);
	r = qs_hcvault_send(link, &request, &answer, &retry, err);
	if (r < 0)
		return r;
	d->server_expires = w->all ? server_expiry(link) : 0;
	/* The status says the same as the body, unless it is not a Vault's at all. */
	if (qs_transit_read_health(answer.text, answer.size, &d->health, NULL) < 0)
		return not_health(&answer, err);
	d->answered_ms = (unsigned)(qs_hcvault_now() - start);
	r = qs_hcvault_log_in(link, err);
	if (r < 0)
		return r;
	d->token_ends = link->access->login->ends;
	if (w->all)
		look_at_secret_id(link, &d->secret_id);
	return 0;
}

/* Asks every time, so a login of before is not taken for an answer. */
static int describe(const struct qs_hcvault_access *access, bool all,
		    struct qs_hcvault_description *ret, struct qs_error *err)
{
	struct look_work w = { all, ret };

	*ret = (struct qs_hcvault_description){};
	if (all)
		ret->ca_expires = qs_openssl_pem_expiry(access->ca->data, access->ca->size);
	return qs_hcvault_with_server(access, look, &w, err);
}

/* ---- keys ---- */

struct key_work {
	const char *name;
	enum qs_hcvault_action action;
	uint32_t number;
	struct qs_transit_key *ret;
};

/* One request about the key; BODY may be NULL. */
static int ask_key(struct qs_hcvault_link *link, const char *name, const char *method,
		   const char *tail, char *body, json_t **ret, struct qs_error *err)
{
	const struct qs_secret text = { body, body ? strlen(body) : 0 };
	QS_AUTO(qs_auto_free)
	char *path = qs_printf("%s/keys/%s%s", link->access->mount, name, tail);
	QS_AUTO(qs_auto_free) char *about = qs_printf("%s %s", method, path);
	const struct qs_hcvault_request request = { method, path, body ? &text : NULL,
						    .about = about };

	return qs_hcvault_ask(link, &request, ret, NULL, err);
}

static int read_key(struct qs_hcvault_link *link, const struct key_work *w, struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *answer = NULL;
	int r = ask_key(link, w->name, "GET", "", NULL, &answer, err);

	if (r < 0)
		return r;
	r = qs_transit_read_key(answer, w->ret, err);
	link->refused |= r < 0;
	return r;
}

static int delete_key(struct qs_hcvault_link *link, const struct key_work *w, struct qs_error *err)
{
	char body[] = "{\"deletion_allowed\":true}";
	struct qs_error own = {};
	int r = ask_key(link, w->name, "GET", "", NULL, NULL, &own);

	if (r < 0 && own.kind == QS_E_NO_KEY)
		return 0;
	if (r == 0)
		r = ask_key(link, w->name, "POST", "/config", body, NULL, &own);
	if (r == 0)
		r = ask_key(link, w->name, "DELETE", "", NULL, NULL, &own);
	if (r < 0 && err)
		*err = own;
	return r < 0 ? r : 1;
}

static int key_op(struct qs_hcvault_link *link, void *cookie, struct qs_error *err)
{
	const struct key_work *w = cookie;
	char body[BODY_L];
	int r = 0;

	switch (w->action) {
	case QS_HCVAULT_READ:
		break;
	case QS_HCVAULT_CREATE:
		(void)snprintf(body, sizeof(body), "{\"type\":\"aes256-gcm96\"}");
		r = ask_key(link, w->name, "POST", "", body, NULL, err);
		break;
	case QS_HCVAULT_ROTATE:
		/* Not twice, when the answer of the first time was lost. */
		r = read_key(link, w, err);
		if (r < 0 || w->ret->latest > w->number)
			return r;
		(void)snprintf(body, sizeof(body), "{}");
		r = ask_key(link, w->name, "POST", "/rotate", body, NULL, err);
		break;
	case QS_HCVAULT_RAISE:
		(void)snprintf(body, sizeof(body), "{\"min_decryption_version\":%u}",
			       (unsigned)w->number);
		r = ask_key(link, w->name, "POST", "/config", body, NULL, err);
		break;
	case QS_HCVAULT_DELETE:
		return delete_key(link, w, err);
	}
	return r < 0 ? r : read_key(link, w, err);
}

static int key(const struct qs_hcvault_access *access, const char *name,
	       enum qs_hcvault_action action, uint32_t number, struct qs_transit_key *ret,
	       struct qs_error *err)
{
	struct key_work w = { name, action, number, ret };

	return qs_hcvault_with_server(access, key_op, &w, err);
}

/* ---- encrypt, decrypt, rewrap ---- */

struct crypt_work {
	enum qs_transit_verb verb;
	const char *name;
	uint32_t version;
	struct qs_transit_item *items;
	size_t count;
};

static int write_batch(const struct crypt_work *w, const struct qs_transit_item *items,
		       size_t count, struct qs_secret *ret, struct qs_error *err)
{
	switch (w->verb) {
	case QS_TRANSIT_ENCRYPT:
		return qs_transit_write_encrypt(items, count, w->version, ret, err);
	case QS_TRANSIT_REWRAP:
		return qs_transit_write_rewrap(items, count, w->version, ret, err);
	case QS_TRANSIT_DECRYPT:
		break;
	}
	return qs_transit_write_decrypt(items, count, ret, err);
}

static int crypt_some(struct qs_hcvault_link *link, const struct crypt_work *w, size_t from,
		      size_t count, enum qs_transit_verdict *verdict, struct qs_error *err)
{
	static const char *const verbs[] = { "encrypt", "decrypt", "rewrap" };
	struct qs_transit_item *items = w->items + from;
	QS_AUTO(qs_auto_free)
	char *path = qs_printf("%s/%s/%s", link->access->mount, verbs[w->verb], w->name);
	QS_AUTO(qs_auto_free) char *about = qs_printf("POST %s", path);
	QS_AUTO(qs_secret_done) struct qs_secret body = {};
	QS_AUTO(qs_auto_json) json_t *answer = NULL;
	const struct qs_hcvault_request request = { "POST", path, &body, .about = about };
	int r = write_batch(w, items, count, &body, err);

	for (size_t i = 0; i < count; i++)
		items[i].error = (struct qs_error){}; /* of a server that failed after it */
	if (r == 0)
		r = qs_hcvault_ask(link, &request, &answer, verdict, err);
	if (r < 0)
		return r;
	return w->verb == QS_TRANSIT_DECRYPT
		       ? qs_transit_read_decrypted(answer, items, count, err)
		       : qs_transit_read_encrypted(answer, w->version, items, count, err);
}

static int make_key(struct qs_hcvault_link *link, const struct crypt_work *w,
		    struct qs_transit_item *item, enum qs_transit_verdict *verdict,
		    struct qs_error *err)
{
	QS_AUTO(qs_auto_free)
	char *path = qs_printf("%s/datakey/plaintext/%s", link->access->mount, w->name);
	QS_AUTO(qs_auto_free) char *about = qs_printf("POST %s", path);
	QS_AUTO(qs_secret_done) struct qs_secret body = {};
	QS_AUTO(qs_auto_json) json_t *answer = NULL;
	const struct qs_hcvault_request request = { "POST", path, &body, .about = about };
	int r = qs_transit_write_datakey(&body, err);

	if (r == 0)
		r = qs_hcvault_ask(link, &request, &answer, verdict, err);
	return r < 0 ? r : qs_transit_read_datakey(answer, w->version, item, err);
}

/*
 * The role may not encrypt: so that nobody gets at what it has others encrypt, a policy may have
 * datakey in place of that. DENIED is what stays to be said when it has neither.
 */
static int make_keys(struct qs_hcvault_link *link, const struct crypt_work *w, size_t from,
		     size_t count, const struct qs_error *denied, struct qs_error *err)
{
	for (size_t i = from; i < from + count; i++) {
		enum qs_transit_verdict verdict = QS_TRANSIT_ELSEWHERE;
		struct qs_error own = {};
		int r = make_key(link, w, &w->items[i], &verdict, &own);

		if (r == 0)
			continue;
		*err = verdict == QS_TRANSIT_DENIED ? *denied : own;
		return qs_negative(qs_kind_errno(err->kind));
	}
	return 0;
}

/*
 * To Vault 1.9 one that is not authentic takes its whole batch along, and which one it was is not
 * said: then each is asked for by itself.
 */
static int crypt_each(struct qs_hcvault_link *link, const struct crypt_work *w, size_t from,
		      size_t count, struct qs_error *err)
{
	for (size_t i = from; i < from + count; i++) {
		enum qs_transit_verdict verdict = QS_TRANSIT_DONE;
		struct qs_error own = {};

		if (crypt_some(link, w, i, 1, &verdict, &own) == 0)
			continue;
		if (verdict != QS_TRANSIT_ONE_BAD) {
			*err = own;
			return qs_negative(qs_kind_errno(own.kind));
		}
		w->items[i].error = own;
	}
	return 0;
}

static int crypt_op(struct qs_hcvault_link *link, void *cookie, struct qs_error *err)
{
	const struct crypt_work *w = cookie;
	int r = 0;

	for (size_t from = 0; r == 0 && from < w->count; from += BATCH_MAX) {
		size_t count = w->count - from < BATCH_MAX ? w->count - from : BATCH_MAX;
		enum qs_transit_verdict verdict = QS_TRANSIT_DONE;
		struct qs_error own = {};

		r = crypt_some(link, w, from, count, &verdict, &own);
		if (r == 0)
			continue;
		if (verdict == QS_TRANSIT_ONE_BAD)
			r = crypt_each(link, w, from, count, err);
		else if (verdict == QS_TRANSIT_DENIED && w->verb == QS_TRANSIT_ENCRYPT)
			r = make_keys(link, w, from, count, &own, err);
		else
			*err = own;
	}
	return r;
}

static int crypt_keys(const struct qs_hcvault_access *access, enum qs_transit_verb verb,
		      const char *name, uint32_t version, struct qs_transit_item *items,
		      size_t count, struct qs_error *err)
{
	struct crypt_work w = { verb, name, version, items, count };

	return qs_hcvault_with_server(access, crypt_op, &w, err);
}

/* ---- a wrapped secret-id ---- */

struct unwrap_work {
	const char *wrapping;
	struct qs_secret *ret;
};

/* Where it was made is looked at first: unwrapping is possible once. */
static int unwrap_op(struct qs_hcvault_link *link, void *cookie, struct qs_error *err)
{
	const struct unwrap_work *w = cookie;
	QS_AUTO(qs_auto_free) char *body = qs_printf("{\"token\":\"%s\"}", w->wrapping);
	const struct qs_secret text = { body, strlen(body) };
	const struct qs_hcvault_request about = { "POST", "sys/wrapping/lookup", &text, .token = "",
						  .about = "looking at the wrapping token" };
	const struct qs_hcvault_request unwrap = { "POST", "sys/wrapping/unwrap",
						   .token = w->wrapping,
						   .about = "unwrapping the secret-id" };
	QS_AUTO(qs_auto_json) json_t *looked = NULL;
	QS_AUTO(qs_auto_json) json_t *answer = NULL;
	int r = qs_hcvault_ask(link, &about, &looked, NULL, err);

	if (r == 0) {
		r = qs_transit_read_wrapping(looked, err);
		link->refused |= r < 0;
	}
	if (r == 0) {
		/* From here on another server would only say that it was used. */
		r = qs_hcvault_ask(link, &unwrap, &answer, NULL, err);
		link->refused = true;
	}
	if (r == 0)
		r = qs_transit_read_secret_id(answer, w->ret, err);
	explicit_bzero(body, text.size);
	return r;
}

static int unwrap(const struct qs_hcvault_access *access, const struct qs_secret *wrapping,
		  struct qs_secret *ret, struct qs_error *err)
{
	char token[QS_TRANSIT_TOKEN_L] = "";
	struct unwrap_work w = { token, ret };
	int r;

	if (wrapping->size >= sizeof(token))
		return qs_fail(err, QS_E_KEY_FILE, "the wrapping token is too long");
	memcpy(token, wrapping->data, wrapping->size);
	r = qs_hcvault_with_server(access, unwrap_op, &w, err);
	explicit_bzero(token, sizeof(token));
	return r;
}

QS_MODULE_EXPORT extern const struct qs_hcvault_functions qs_hcvault_module;
const struct qs_hcvault_functions qs_hcvault_module = {
	.module.version = QS_HCVAULT_MODULE_VERSION,
	.describe = describe,
	.key = key,
	.crypt = crypt_keys,
	.unwrap = unwrap,
};
