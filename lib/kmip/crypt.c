/*
 * Keys that stay at the server, which encrypts and decrypts with them. Nothing is changed there.
 *
 * All go in one message. What a server refuses of that is given up step by step, in the same
 * connection: half as many when its answer would be too large, else one by one; and where a batch
 * ends at its first error, the rest goes into the next one.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "kmip/session.h"

struct work {
	bool encrypt;
	struct qs_kmip_item *items;
	size_t count;
	struct qs_kmip_item **todo; /* of this server; room for all */
	size_t todo_count;
	const struct qs_kmip_item *trouble; /* one that another server may do */
};

/* ---- which cipher ---- */

int qs_kmip_require_ciphers(const struct qs_kmip_session *s, struct qs_error *err)
{
	if (qs_kmip_has_cipher(s->version, QS_KMIP_CBC))
		return 0;
	return qs_fail(
		err, QS_E_FAILED,
		"KMIP %d.%d, which is spoken with it, has no Encrypt and Decrypt (1.2 has), so "
		"keys cannot stay there: use the provider kmip, which fetches them",
		s->version.major, s->version.minor);
}

static struct qs_kmip_request request_of(bool encrypt, const struct qs_kmip_item *item)
{
	return (struct qs_kmip_request){
		.operation = encrypt ? QS_KMIP_ENCRYPT : QS_KMIP_DECRYPT,
		.about = item->uid,
		.key = item->key,
		.encrypted = &item->encrypted,
	};
}

static int take(bool encrypt, const struct qs_kmip_answer *answer, struct qs_kmip_item *item,
		struct qs_error *err)
{
	const unsigned char *key;
	int r;

	if (encrypt)
		return qs_kmip_read_encrypted(answer, item->uid, item->encrypted.cipher,
					      &item->encrypted, err);
	r = qs_kmip_read_decrypted(answer, item->uid, &key, err);
	if (r == 0)
		memcpy(item->key, key, sizeof(item->key));
	return r;
}

static int crypt_one(struct qs_kmip_session *s, bool encrypt, struct qs_kmip_item *item,
		     struct qs_error *err)
{
	const struct qs_kmip_request request = request_of(encrypt, item);
	struct qs_kmip_answer answer;
	int r = qs_kmip_ask_one(s, &request, &answer, err);

	if (r < 0)
		return r;
	r = take(encrypt, &answer, item, err);
	s->refused |= r < 0; /* it has no use for us */
	explicit_bzero(s->buffer.data, s->buffer.size);
	return r;
}

/* Encrypt random bytes and decrypt them. */
static int probe(struct qs_kmip_session *s, const char *uid, enum qs_kmip_cipher cipher,
		 struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret memory = {};
	QS_AUTO(qs_secret_done) struct qs_secret plain = {};
	struct qs_kmip_item *item;
	int r = qs_secret_init(&memory, sizeof(*item), err);

	if (r < 0 || (r = qs_secret_random(&plain, QS_KMIP_KEY_L, err)) < 0)
		return r;
	item = memory.data;
	(void)snprintf(item->uid, sizeof(item->uid), "%s", uid);
	item->encrypted.cipher = cipher;
	memcpy(item->key, plain.data, sizeof(item->key));
	r = crypt_one(s, true, item, err);
	explicit_bzero(item->key, sizeof(item->key));
	if (r == 0)
		r = crypt_one(s, false, item, err);
	if (r < 0 || memcmp(item->key, plain.data, sizeof(item->key)) == 0)
		return r;
	s->refused = true;
	return qs_fail(err, QS_E_FAILED, "its key %s decrypts to something else than it encrypted",
		       uid);
}

int qs_kmip_choose_cipher(struct qs_kmip_session *s, const char *uid, enum qs_kmip_cipher *ret,
			  struct qs_error *err)
{
	static const enum qs_kmip_cipher ciphers[] = { QS_KMIP_GCM, QS_KMIP_CBC };
	struct qs_error own = {};
	int r = qs_kmip_require_ciphers(s, err);

	if (r < 0) {
		s->refused = true;
		return r;
	}
	for (size_t i = 0; i < QS_ARRAY_SIZE(ciphers); i++) {
		if (!qs_kmip_has_cipher(s->version, ciphers[i]))
			continue;
		s->refused = false;
		own = (struct qs_error){};
		*ret = ciphers[i];
		r = probe(s, uid, ciphers[i], &own);
		if (r == 0)
			return 0;
		if (!s->refused)
			break;
	}
	if (err)
		*err = own;
	return r;
}

/* ---- many ---- */

static void take_answer(struct work *w, const struct qs_kmip_answer *answer,
			struct qs_kmip_item *item)
{
	item->error = answer->error;
	if (answer->verdict == QS_KMIP_DONE)
		item->done = take(w->encrypt, answer, item, &item->error) == 0;
	/* The server's own trouble, or what may be. */
	if (!w->trouble &&
	    (answer->verdict == QS_KMIP_TRY_LATER || answer->verdict == QS_KMIP_NOT_DECRYPTED))
		w->trouble = item;
}

static int refused_whole(struct qs_kmip_session *s, const struct qs_kmip_answer *answer,
			 struct qs_error *err)
{
	s->refused = answer->verdict != QS_KMIP_TRY_LATER;
	if (err)
		*err = answer->error;
	return qs_negative(qs_kind_errno(answer->error.kind));
}

/* Returns how many of COUNT from FROM on were answered; 0: that is too much for one message. */
static int ask_some(struct qs_kmip_session *s, struct work *w, size_t from, size_t count,
		    bool *ret_too_large, struct qs_error *err)
{
	struct qs_kmip_request requests[QS_KMIP_BATCH_MAX] = {};
	struct qs_kmip_answer answers[QS_KMIP_BATCH_MAX];
	int answered = 0, r;

	for (size_t i = 0; i < count; i++)
		requests[i] = request_of(w->encrypt, w->todo[from + i]);
	r = qs_kmip_ask_all(s, requests, count, answers, err);
	if (r < 0)
		return r;
	if (r == 1 && count == 1)
		return refused_whole(s, &answers[0], err);
	*ret_too_large = answers[0].verdict == QS_KMIP_TOO_LARGE;
	if (count > 1 && (r == 1 || *ret_too_large))
		return 0;
	while (answered < (int)count && answers[answered].verdict != QS_KMIP_UNANSWERED) {
		take_answer(w, &answers[answered], w->todo[from + (size_t)answered]);
		answered++;
	}
	explicit_bzero(s->buffer.data, s->buffer.size);
	return answered;
}

static int ask_for_all(struct qs_kmip_session *s, struct work *w, struct qs_error *err)
{
	size_t most = QS_KMIP_BATCH_MAX, at = 0;

	while (at < w->todo_count) {
		size_t count = w->todo_count - at < most ? w->todo_count - at : most;
		bool too_large = false;
		int r = ask_some(s, w, at, count, &too_large, err);

		if (r < 0)
			return r;
		at += (size_t)r;
		if (r == 0)
			most = too_large ? (count + 1) / 2 : 1;
	}
	return 0;
}

static int crypt_op(struct qs_kmip_session *s, void *cookie, struct qs_error *err)
{
	struct work *w = cookie;
	int r = qs_kmip_require_ciphers(s, err);

	if (r < 0)
		return r;
	w->todo_count = 0;
	w->trouble = NULL;
	for (size_t i = 0; i < w->count; i++) {
		struct qs_kmip_item *item = &w->items[i];

		if (item->done)
			continue;
		if (qs_kmip_has_cipher(s->version, item->encrypted.cipher))
			w->todo[w->todo_count++] = item;
		else
			(void)qs_fail(&item->error, QS_E_FAILED,
				      "it was encrypted by AES-GCM, which KMIP %d.%d cannot carry: "
				      "see kmip_version in qs-util.conf",
				      s->version.major, s->version.minor);
	}
	r = ask_for_all(s, w, err);
	if (r < 0 || !w->trouble)
		return r;
	if (err)
		*err = w->trouble->error;
	return qs_negative(qs_kind_errno(w->trouble->error.kind));
}

int qs_kmip_crypt(const struct qs_kmip_access *access, bool encrypt, struct qs_kmip_item *items,
		  size_t count, struct qs_error *err)
{
	QS_AUTO(qs_auto_free)
	struct qs_kmip_item **todo = calloc(count + 1, sizeof(struct qs_kmip_item *));
	struct work w = { .encrypt = encrypt, .items = items, .count = count, .todo = todo };

	if (!todo)
		return qs_fail(err, QS_E_MEMORY, "no memory for %zu keys", count);
	return qs_kmip_with_server(access, crypt_op, &w, err);
}
