/*
 * Values out of answers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "base/text.h"
#include "base/utf8.h"
#include "luks/fields.h"
#include "transit/message.h"
#include "transit/refusals.h"

#define SECRET_ID_MAX 1024
#define TEXT_BEGIN "vault:v" /* of OpenBao, too; the version and a colon follow */

static int bad(const char *field, struct qs_error *err)
{
	return qs_fail(err, QS_E_FAILED, "its answer has no usable %s", field);
}

/* A member that is text of 1 to MAX - 1 visible characters, or NULL. */
static const char *word(const json_t *object, const char *name, size_t max)
{
	const char *text = qs_fields_text(object, name);

	if (!text || !*text || strlen(text) >= max ||
	    strlen(text) != json_string_length(json_object_get(object, name)))
		return NULL;
	for (const char *p = text; *p; p++)
		if (*p < '!' || *p > '~')
			return NULL;
	return text;
}

int qs_transit_read_login(const json_t *answer, struct qs_transit_login *ret, struct qs_error *err)
{
	const json_t *auth = json_object_get(answer, "auth");
	const char *token = word(auth, "client_token", sizeof(ret->token));

	const char *role = word(json_object_get(auth, "metadata"), "role_name", sizeof(ret->role));

	if (!token || !qs_fields_number(auth, "lease_duration", &ret->seconds))
		return bad("token", err);
	/* Nobody counts further; and no sum of it and a time may be too large. */
	if (ret->seconds > INT32_MAX)
		ret->seconds = INT32_MAX;
	memcpy(ret->token, token, strlen(token) + 1);
	ret->renewable = json_is_true(json_object_get(auth, "renewable"));
	ret->role[0] = '\0';
	if (role && !strpbrk(role, "/?#%\\"))
		memcpy(ret->role, role, strlen(role) + 1);
	return 0;
}

int qs_transit_read_secret_id(const json_t *answer, struct qs_secret *ret, struct qs_error *err)
{
	const char *text = word(json_object_get(answer, "data"), "secret_id", SECRET_ID_MAX);
	int r;

	if (!text || strpbrk(text, "\"\\"))
		return bad("secret-id", err);
	r = qs_secret_init(ret, strlen(text), err);
	if (r == 0)
		memcpy(ret->data, text, strlen(text));
	return r;
}

/* RFC 3339, whose fractions of a second and offset are less than what it is used for. */
static time_t read_time(const char *text)
{
	char seconds[QS_TEXT_TIME_L] = "";
	time_t when = 0;

	(void)snprintf(seconds, sizeof(seconds), "%.19sZ", text ? text : "");
	return qs_text_parse_time(seconds, QS_TEXT_RFC3339, &when) < 0 || when < 0 ? 0 : when;
}

void qs_transit_read_lifetime(const json_t *answer, struct qs_transit_lifetime *ret)
{
	const json_t *data = json_object_get(answer, "data");

	*ret = (struct qs_transit_lifetime){};
	ret->ends = read_time(word(data, "expiration_time", QS_TRANSIT_WORD_L));
	(void)qs_fields_number(data, "secret_id_num_uses", &ret->uses);
}

int qs_transit_read_wrapping(const json_t *answer, struct qs_error *err)
{
	const char *path = qs_fields_text(json_object_get(answer, "data"), "creation_path");
	QS_AUTO(qs_auto_free) char *printable = qs_utf8_printable(path);
	size_t length = strlen(printable), tail = strlen("/secret-id");

	/* The name of the mount is the administrator's choice. */
	if (path && strstr(printable, "/role/") && length > tail &&
	    strcmp(printable + length - tail, "/secret-id") == 0)
		return 0;
	return qs_fail(
		err, QS_E_NOT_PERMITTED,
		"the wrapping token was not made for a secret-id but at '%.200s': somebody may "
		"have put another one in its place",
		printable);
}

int qs_transit_read_key(const json_t *answer, struct qs_transit_key *ret, struct qs_error *err)
{
	static const char *const types[] = { "aes256-gcm96", "aes128-gcm96", "chacha20-poly1305" };
	const json_t *data = json_object_get(answer, "data");
	const char *type = word(data, "type", sizeof(ret->type));
	uint64_t latest, least;
	bool known = false;

	*ret = (struct qs_transit_key){};
	if (!type || !qs_fields_number(data, "latest_version", &latest) || latest < 1 ||
	    latest > INT32_MAX || !qs_fields_number(data, "min_decryption_version", &least) ||
	    least > latest)
		return bad("description of the key", err);
	for (size_t i = 0; i < QS_ARRAY_SIZE(types); i++)
		known |= strcmp(type, types[i]) == 0;
	if (!known)
		return qs_fail(err, QS_E_CONFIG,
			       "its key is of type %s; it has to be aes256-gcm96 or another that "
			       "encrypts with authentication",
			       type);
	if (json_is_true(json_object_get(data, "derived")))
		return qs_fail(err, QS_E_CONFIG,
			       "its key is a derived one; make one without derived=true");
	if (json_is_true(json_object_get(data, "soft_deleted")))
		return qs_fail(err, QS_E_CONFIG,
			       "its key is soft-deleted; its administrator can restore it");
	ret->latest = (uint32_t)latest;
	ret->least = (uint32_t)least;
	memcpy(ret->type, type, strlen(type) + 1);
	return 0;
}

/* ---- batches ---- */

/* What failed of an item; the text is the server's. */
static bool has_failed(const json_t *result, struct qs_transit_item *item)
{
	const char *text = qs_fields_text(result, "error");
	const struct qs_transit_refusal *known = text ? qs_transit_refusal(text) : NULL;
	QS_AUTO(qs_auto_free) char *printable = qs_utf8_printable(text);

	if (!text || !*text)
		return false;
	(void)qs_fail(&item->error, known ? known->kind : QS_E_FAILED,
		      "the key server says: %.400s", known ? known->sentence : printable);
	return true;
}

static int results_of(const json_t *answer, size_t count, const json_t **ret, struct qs_error *err)
{
	const json_t *list = json_object_get(json_object_get(answer, "data"), "batch_results");

	if (!json_is_array(list))
		return bad("results", err);
	if (json_array_size(list) != count)
		return qs_fail(err, QS_E_FAILED, "it answers %zu questions with %zu results", count,
			       json_array_size(list));
	*ret = list;
	return 0;
}

bool qs_transit_says_version(const char *text)
{
	return strncmp(text, TEXT_BEGIN, strlen(TEXT_BEGIN)) == 0;
}

bool qs_transit_is_of_version(const char *text, unsigned version)
{
	char begin[32];

	if (!qs_transit_says_version(text))
		return true;
	(void)snprintf(begin, sizeof(begin), TEXT_BEGIN "%u:", version);
	return strncmp(text, begin, strlen(begin)) == 0;
}

/* Does ITEM get TEXT, a wrapping by VERSION? */
static bool take_text(const char *text, unsigned version, struct qs_transit_item *item)
{
	item->done = text && qs_transit_is_text(text) && qs_transit_is_of_version(text, version);
	if (item->done)
		memcpy(item->text, text, strlen(text) + 1);
	return item->done;
}

int qs_transit_read_encrypted(const json_t *answer, unsigned version, struct qs_transit_item *items,
			      size_t count, struct qs_error *err)
{
	const json_t *list = NULL;
	int r = results_of(answer, count, &list, err);

	for (size_t i = 0; r == 0 && i < count; i++) {
		const json_t *result = json_array_get(list, i);
		const char *text = word(result, "ciphertext", sizeof(items[i].text));

		if (!has_failed(result, &items[i]) && !take_text(text, version, &items[i]))
			(void)qs_fail(&items[i].error, QS_E_FAILED,
				      "the key server did not wrap it with version %u of its key",
				      version);
	}
	return r;
}

/* Does ITEM get the key that TEXT is in base64? */
static bool take_key(const char *text, struct qs_transit_item *item)
{
	QS_AUTO(qs_bytes_done) struct qs_bytes key = {};

	item->done = text && qs_base64_decode(text, QS_TRANSIT_KEY_L, &key) == 0 &&
		     key.size == QS_TRANSIT_KEY_L;
	if (item->done)
		memcpy(item->key, key.data, key.size);
	if (key.data)
		explicit_bzero(key.data, key.size);
	return item->done;
}

int qs_transit_read_decrypted(const json_t *answer, struct qs_transit_item *items, size_t count,
			      struct qs_error *err)
{
	const json_t *list = NULL;
	int r = results_of(answer, count, &list, err);

	for (size_t i = 0; r == 0 && i < count; i++) {
		const json_t *result = json_array_get(list, i);
		const char *text = qs_fields_text(result, "plaintext");

		if (!has_failed(result, &items[i]) && !take_key(text, &items[i]))
			(void)qs_fail(&items[i].error, QS_E_NO_KEY,
				      "what the key server gives for it is no key of ours");
	}
	return r;
}

int qs_transit_read_datakey(const json_t *answer, unsigned version, struct qs_transit_item *ret,
			    struct qs_error *err)
{
	const json_t *data = json_object_get(answer, "data");
	const char *text = word(data, "ciphertext", sizeof(ret->text));

	if (!take_key(qs_fields_text(data, "plaintext"), ret))
		return bad("key that it has made", err);
	if (!take_text(text, version, ret))
		return qs_fail(
			err, QS_E_FAILED,
			"the key that it has made is not wrapped with version %u of its key: "
			"if its administrator has made a later version, `qs-util keystore "
			"rotate` takes it",
			version);
	return 0;
}

/* ---- the server's state ---- */

int qs_transit_read_health(const char *text, size_t size, struct qs_transit_health *ret,
			   struct qs_error *err)
{
	QS_AUTO(qs_auto_json) json_t *body = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
	const json_t *initialized = json_object_get(body, "initialized");
	const char *version = word(body, "version", sizeof(ret->version));

	*ret = (struct qs_transit_health){};
	if (!json_is_boolean(initialized) || !version)
		return bad("state", err);
	ret->sealed = json_is_true(json_object_get(body, "sealed"));
	memcpy(ret->version, version, strlen(version) + 1);
	return 0;
}
