/*
 * Requests. The least that the standard allows: servers refuse fields that they do not
 * know (PyKMIP: the whole message), and none is needed.
 */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "ttlv/message.h"
#include "ttlv/tags.h"

const struct qs_kmip_version qs_kmip_versions[] = {
	{ 2, 0 }, { 1, 4 }, { 1, 3 }, { 1, 2 }, { 1, 1 }, { 1, 0 },
};
const size_t qs_kmip_version_count = QS_ARRAY_SIZE(qs_kmip_versions);

bool qs_kmip_version_parse(const char *text, struct qs_kmip_version *ret)
{
	char name[32];

	for (size_t i = 0; i < qs_kmip_version_count; i++) {
		*ret = qs_kmip_versions[i];
		(void)snprintf(name, sizeof(name), "%d.%d", ret->major, ret->minor);
		if (strcmp(name, text) == 0)
			return true;
	}
	return false;
}

static void put_version(struct qs_ttlv_writer *w, struct qs_kmip_version version)
{
	qs_ttlv_begin(w, TAG_VERSION);
	qs_ttlv_integer(w, TAG_VERSION_MAJOR, version.major);
	qs_ttlv_integer(w, TAG_VERSION_MINOR, version.minor);
	qs_ttlv_end(w);
}

static void put_name(struct qs_ttlv_writer *w, uint32_t tag, const char *name)
{
	qs_ttlv_begin(w, tag);
	qs_ttlv_text(w, TAG_NAME_VALUE, name);
	qs_ttlv_enumeration(w, TAG_NAME_TYPE, NAME_TEXT);
	qs_ttlv_end(w);
}

/* The attributes of a key: in 1.x each in a structure with its name, in 2.x under its own tag. */
struct attribute {
	uint32_t tag;
	const char *name;       /* of 1.x */
	enum qs_ttlv_type type; /* QS_TTLV_STRUCTURE: the key's name */
	uint32_t value;
};

static void put_value(struct qs_ttlv_writer *w, uint32_t tag, const struct attribute *a,
		      const char *name)
{
	if (a->type == QS_TTLV_STRUCTURE)
		put_name(w, tag, name);
	else if (a->type == QS_TTLV_INTEGER)
		qs_ttlv_integer(w, tag, (int32_t)a->value);
	else if (a->type == QS_TTLV_BOOLEAN)
		qs_ttlv_boolean(w, tag, a->value);
	else
		qs_ttlv_enumeration(w, tag, a->value);
}

static void put_attributes(struct qs_ttlv_writer *w, struct qs_kmip_version version,
			   const struct attribute *list, size_t count, const char *name)
{
	if (version.major >= 2)
		qs_ttlv_begin(w, TAG_ATTRIBUTES);
	for (size_t i = 0; i < count; i++) {
		if (version.major >= 2) {
			put_value(w, list[i].tag, &list[i], name);
			continue;
		}
		qs_ttlv_begin(w, TAG_ATTRIBUTE);
		qs_ttlv_text(w, TAG_ATTRIBUTE_NAME, list[i].name);
		put_value(w, TAG_ATTRIBUTE_VALUE, &list[i], name);
		qs_ttlv_end(w);
	}
	if (version.major >= 2)
		qs_ttlv_end(w);
}

/* What is the same in Create and Register. */
static void put_new(struct qs_ttlv_writer *w, struct qs_kmip_version version,
		    const struct qs_kmip_request *request)
{
	static const struct attribute list[] = {
		{ TAG_ALGORITHM, "Cryptographic Algorithm", QS_TTLV_ENUMERATION, ALGORITHM_AES },
		{ TAG_LENGTH, "Cryptographic Length", QS_TTLV_INTEGER, QS_KMIP_KEY_L * 8 },
		{ TAG_USAGE_MASK, "Cryptographic Usage Mask", QS_TTLV_INTEGER,
		  USAGE_ENCRYPT_DECRYPT },
		{ TAG_NAME, "Name", QS_TTLV_STRUCTURE, 0 },
		{ TAG_SENSITIVE, "Sensitive", QS_TTLV_BOOLEAN, true },
	};
	size_t count = QS_ARRAY_SIZE(list) - !request->sensitive;

	qs_ttlv_enumeration(w, TAG_OBJECT_TYPE, OBJECT_SYMMETRIC_KEY);
	if (version.major < 2)
		qs_ttlv_begin(w, TAG_TEMPLATE);
	put_attributes(w, version, list, count, request->about);
	if (version.major < 2)
		qs_ttlv_end(w);
}

static void put_key(struct qs_ttlv_writer *w, const unsigned char *key)
{
	qs_ttlv_begin(w, TAG_SYMMETRIC_KEY);
	qs_ttlv_begin(w, TAG_KEY_BLOCK);
	qs_ttlv_enumeration(w, TAG_KEY_FORMAT, FORMAT_RAW);
	qs_ttlv_begin(w, TAG_KEY_VALUE);
	qs_ttlv_bytes(w, TAG_KEY_MATERIAL, key, QS_KMIP_KEY_L);
	qs_ttlv_end(w);
	qs_ttlv_enumeration(w, TAG_ALGORITHM, ALGORITHM_AES);
	qs_ttlv_integer(w, TAG_LENGTH, QS_KMIP_KEY_L * 8);
	qs_ttlv_end(w);
	qs_ttlv_end(w);
}

static void put_locate(struct qs_ttlv_writer *w, struct qs_kmip_version version, const char *name)
{
	static const struct attribute list[] = {
		{ TAG_OBJECT_TYPE, "Object Type", QS_TTLV_ENUMERATION, OBJECT_SYMMETRIC_KEY },
		{ TAG_NAME, "Name", QS_TTLV_STRUCTURE, 0 },
	};

	put_attributes(w, version, list, QS_ARRAY_SIZE(list), name);
}

static void put_get_attributes(struct qs_ttlv_writer *w, struct qs_kmip_version version)
{
	static const struct {
		uint32_t tag;
		const char *name;
	} list[] = {
		{ TAG_STATE, "State" },
		{ TAG_NAME, "Name" },
		{ TAG_ALGORITHM, "Cryptographic Algorithm" },
		{ TAG_LENGTH, "Cryptographic Length" },
		{ TAG_USAGE_MASK, "Cryptographic Usage Mask" },
	};

	for (size_t i = 0; i < QS_ARRAY_SIZE(list); i++)
		if (version.major >= 2)
			qs_ttlv_enumeration(w, TAG_ATTRIBUTE_REFERENCE, list[i].tag);
		else
			qs_ttlv_text(w, TAG_ATTRIBUTE_NAME, list[i].name);
}

static void put_revoke(struct qs_ttlv_writer *w)
{
	qs_ttlv_begin(w, TAG_REVOCATION_REASON);
	qs_ttlv_enumeration(w, TAG_REVOCATION_CODE, REVOKED_CESSATION);
	qs_ttlv_end(w);
}

/* The server chooses the initialization vector: some take none of ours. */
static void put_parameters(struct qs_ttlv_writer *w, const struct qs_kmip_request *request)
{
	bool gcm = request->encrypted->cipher == QS_KMIP_GCM;

	qs_ttlv_begin(w, TAG_PARAMETERS);
	qs_ttlv_enumeration(w, TAG_CIPHER_MODE, gcm ? MODE_GCM : MODE_CBC);
	if (!gcm)
		qs_ttlv_enumeration(w, TAG_PADDING, PADDING_PKCS5);
	qs_ttlv_enumeration(w, TAG_ALGORITHM, ALGORITHM_AES);
	if (request->operation == QS_KMIP_ENCRYPT)
		qs_ttlv_boolean(w, TAG_RANDOM_IV, true);
	if (gcm)
		qs_ttlv_integer(w, TAG_TAG_LENGTH, QS_KMIP_TAG_L);
	qs_ttlv_end(w);
}

static void put_crypt(struct qs_ttlv_writer *w, const struct qs_kmip_request *request)
{
	const struct qs_kmip_encrypted *e = request->encrypted;

	put_parameters(w, request);
	if (request->operation == QS_KMIP_ENCRYPT) {
		qs_ttlv_bytes(w, TAG_DATA, request->key, QS_KMIP_KEY_L);
		return;
	}
	qs_ttlv_bytes(w, TAG_DATA, e->data, qs_kmip_encrypted_size(e->cipher));
	qs_ttlv_bytes(w, TAG_IV, e->iv, e->iv_size);
	if (e->cipher == QS_KMIP_GCM)
		qs_ttlv_bytes(w, TAG_TAG, e->tag, sizeof(e->tag));
}

static void put_payload(struct qs_ttlv_writer *w, struct qs_kmip_version version,
			const struct qs_kmip_request *request)
{
	switch (request->operation) {
	case QS_KMIP_CREATE:
		put_new(w, version, request);
		return;
	case QS_KMIP_REGISTER:
		put_new(w, version, request);
		put_key(w, request->key);
		return;
	case QS_KMIP_LOCATE:
		put_locate(w, version, request->about);
		return;
	case QS_KMIP_QUERY:
		qs_ttlv_enumeration(w, TAG_QUERY_FUNCTION, QUERY_OPERATIONS);
		qs_ttlv_enumeration(w, TAG_QUERY_FUNCTION, QUERY_SERVER);
		return;
	case QS_KMIP_DISCOVER:
		for (size_t i = 0; i < qs_kmip_version_count; i++)
			put_version(w, qs_kmip_versions[i]);
		return;
	default:
		qs_ttlv_text(w, TAG_UID, request->about);
		break;
	}
	if (request->operation == QS_KMIP_GET)
		qs_ttlv_enumeration(w, TAG_KEY_FORMAT, FORMAT_RAW);
	else if (request->operation == QS_KMIP_GET_ATTRIBUTES)
		put_get_attributes(w, version);
	else if (request->operation == QS_KMIP_REVOKE)
		put_revoke(w);
	else if (request->encrypted)
		put_crypt(w, request);
}

static void put_login(struct qs_ttlv_writer *w, const struct qs_kmip_login *login)
{
	qs_ttlv_begin(w, TAG_AUTHENTICATION);
	qs_ttlv_begin(w, TAG_CREDENTIAL);
	qs_ttlv_enumeration(w, TAG_CREDENTIAL_TYPE, CREDENTIAL_PASSWORD);
	qs_ttlv_begin(w, TAG_CREDENTIAL_VALUE);
	qs_ttlv_text(w, TAG_USERNAME, login->user);
	qs_ttlv_text_bytes(w, TAG_PASSWORD, login->password->data, login->password->size);
	qs_ttlv_end(w);
	qs_ttlv_end(w);
	qs_ttlv_end(w);
}

static void put_header(struct qs_ttlv_writer *w, struct qs_kmip_version version,
		       const struct qs_kmip_login *login, const struct qs_kmip_request *requests,
		       size_t count)
{
	qs_ttlv_begin(w, TAG_REQUEST_HEADER);
	put_version(w, version);
	if (login && login->user && *login->user)
		put_login(w, login);
	if (count > 1 && requests->encrypted)
		qs_ttlv_enumeration(w, TAG_BATCH_ERRORS, ERRORS_CONTINUE);
	qs_ttlv_integer(w, TAG_BATCH_COUNT, (int32_t)count);
	qs_ttlv_end(w);
}

int qs_kmip_request_write(struct qs_kmip_version version, const struct qs_kmip_login *login,
			  const struct qs_kmip_request *requests, size_t count, void *buffer,
			  size_t size, struct qs_error *err)
{
	struct qs_ttlv_writer w = { .data = buffer, .size = size };

	qs_ttlv_begin(&w, TAG_REQUEST);
	put_header(&w, version, login, requests, count);
	for (size_t i = 0; i < count; i++) {
		const unsigned char id = (unsigned char)i;

		qs_ttlv_begin(&w, TAG_BATCH_ITEM);
		qs_ttlv_enumeration(&w, TAG_OPERATION, requests[i].operation);
		if (count > 1)
			qs_ttlv_bytes(&w, TAG_ITEM_ID, &id, sizeof(id));
		qs_ttlv_begin(&w, TAG_REQUEST_PAYLOAD);
		put_payload(&w, version, &requests[i]);
		qs_ttlv_end(&w);
		qs_ttlv_end(&w);
	}
	qs_ttlv_end(&w);
	if (w.full)
		return qs_fail(err, QS_E_FAILED, "%zu requests do not fit into one KMIP message",
			       count);
	return (int)w.used;
}
