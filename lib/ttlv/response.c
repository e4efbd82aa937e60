/*
 * Answers. Everything in them is foreign: the server's words are shown only as
 * printable text, and what is not exactly as asked for is refused.
 */
#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "ttlv/message.h"
#include "ttlv/reasons.h"
#include "ttlv/tags.h"

#define WORDS_MAX 200 /* bytes of the server's own sentence that are shown */

static const char *operation_name(enum qs_kmip_operation operation)
{
	switch (operation) {
	case QS_KMIP_CREATE:
		return "Create";
	case QS_KMIP_REGISTER:
		return "Register";
	case QS_KMIP_LOCATE:
		return "Locate";
	case QS_KMIP_GET:
		return "Get";
	case QS_KMIP_GET_ATTRIBUTES:
		return "Get Attributes";
	case QS_KMIP_ACTIVATE:
		return "Activate";
	case QS_KMIP_REVOKE:
		return "Revoke";
	case QS_KMIP_DESTROY:
		return "Destroy";
	case QS_KMIP_QUERY:
		return "Query";
	case QS_KMIP_ENCRYPT:
		return "Encrypt";
	case QS_KMIP_DECRYPT:
		return "Decrypt";
	default:
		return "Discover Versions";
	}
}

static enum qs_kind kind_of(enum qs_kmip_verdict verdict)
{
	switch (verdict) {
	case QS_KMIP_NOT_FOUND:
	case QS_KMIP_NOT_DECRYPTED:
		return QS_E_NO_KEY;
	case QS_KMIP_NOT_ALLOWED:
		return QS_E_NOT_PERMITTED;
	case QS_KMIP_TRY_LATER:
		return QS_E_TEMPORARY;
	default:
		return QS_E_FAILED;
	}
}

/* What the server says of it, "" for nothing; malloc'ed. */
static char *words_of(const struct qs_ttlv *item)
{
	char text[WORDS_MAX + 1] = "";
	struct qs_ttlv words;
	size_t size;

	if (qs_ttlv_find(item, TAG_RESULT_MESSAGE, &words) && words.type == QS_TTLV_TEXT) {
		size = words.size < WORDS_MAX ? words.size : WORDS_MAX;
		memcpy(text, words.value, size);
		text[size] = '\0';
	}
	return qs_utf8_printable(text);
}

static void refuse(const struct qs_ttlv *item, const struct qs_kmip_request *request,
		   struct qs_kmip_answer *ret)
{
	QS_AUTO(qs_auto_free) char *words = words_of(item);
	uint32_t code = 0, status = 0;
	const struct qs_kmip_reason *reason;

	(void)qs_ttlv_find_enumeration(item, TAG_RESULT_REASON, &code);
	(void)qs_ttlv_find_enumeration(item, TAG_RESULT_STATUS, &status);
	reason = qs_kmip_reason_find(code, request->operation);
	ret->verdict = reason->verdict;
	if (status == STATUS_PENDING)
		(void)qs_fail(&ret->error, QS_E_FAILED, "%s: the server wants to answer later",
			      operation_name(request->operation));
	else
		(void)qs_fail(&ret->error, kind_of(ret->verdict),
			      "%s is refused: %s (reason %x%s%s)",
			      operation_name(request->operation), reason->text, (unsigned)code,
			      *words ? ": " : "", words);
}

/* ---- the message ---- */

static int malformed(const char *what, struct qs_error *err)
{
	return qs_fail(err, QS_E_FAILED, "the server's answer has no usable %s", what);
}

static bool get_version(const struct qs_ttlv *in, struct qs_kmip_version *ret)
{
	struct qs_ttlv v;

	return qs_ttlv_find_structure(in, TAG_VERSION, &v) &&
	       qs_ttlv_find_integer(&v, TAG_VERSION_MAJOR, &ret->major) &&
	       qs_ttlv_find_integer(&v, TAG_VERSION_MINOR, &ret->minor);
}

/* The number of the request that ITEM answers, or -1. */
static int number_of(const struct qs_ttlv *item, size_t position, size_t count)
{
	struct qs_ttlv id;

	if (count == 1)
		return 0;
	if (!qs_ttlv_find(item, TAG_ITEM_ID, &id) || id.type != QS_TTLV_BYTES || id.size != 1 ||
	    id.value[0] != position)
		return -1;
	return id.value[0];
}

static int read_item(const struct qs_ttlv *item, size_t position, bool right_version,
		     const struct qs_kmip_request *requests, size_t count,
		     struct qs_kmip_answer *answers, struct qs_error *err)
{
	uint32_t status, operation;
	int n;

	if (!qs_ttlv_find_enumeration(item, TAG_RESULT_STATUS, &status))
		return malformed("result status", err);
	if (status != STATUS_SUCCESS &&
	    !qs_ttlv_find_enumeration(item, TAG_OPERATION, &operation)) {
		/* No operation: the message as a whole. */
		for (size_t i = 0; i < count; i++)
			refuse(item, &requests[i], &answers[i]);
		return 1;
	}
	n = position < count ? number_of(item, position, count) : -1;
	if (n < 0)
		return qs_fail(err, QS_E_FAILED, "the server answers what was not asked");
	if (!qs_ttlv_find_enumeration(item, TAG_OPERATION, &operation) ||
	    operation != requests[n].operation)
		return qs_fail(err, QS_E_FAILED, "the server answers another operation than %s",
			       operation_name(requests[n].operation));
	if (status != STATUS_SUCCESS) {
		refuse(item, &requests[n], &answers[n]);
		return 0;
	}
	if (!right_version)
		return qs_fail(err, QS_E_FAILED, "the server answers in another version of KMIP");
	if (!qs_ttlv_find_structure(item, TAG_RESPONSE_PAYLOAD, &answers[n].payload))
		return malformed("payload", err);
	answers[n].verdict = QS_KMIP_DONE;
	answers[n].error = (struct qs_error){};
	return 0;
}

static int read_items(const struct qs_ttlv *message, bool right_version, int32_t announced,
		      const struct qs_kmip_request *requests, size_t count,
		      struct qs_kmip_answer *answers, struct qs_error *err)
{
	struct qs_ttlv item;
	size_t at = 0, position = 0;
	int r = 0;

	while (r == 0 && qs_ttlv_next(message, &at, &item))
		if (item.tag == TAG_BATCH_ITEM && item.type == QS_TTLV_STRUCTURE)
			r = read_item(&item, position++, right_version, requests, count, answers,
				      err);
	if (r == 0 && (announced < 1 || position != (size_t)announced))
		return qs_fail(err, QS_E_FAILED, "the server announces %d answers and gives %zu",
			       (int)announced, position);
	return r;
}

int qs_kmip_response_read(const unsigned char *data, size_t size, struct qs_kmip_version version,
			  const struct qs_kmip_request *requests, size_t count,
			  struct qs_kmip_answer *answers, struct qs_error *err)
{
	struct qs_kmip_version theirs;
	struct qs_ttlv message, header;
	int32_t announced;
	int r = qs_ttlv_check(data, size, &message, err);

	if (r < 0)
		return r;
	if (message.tag != QS_KMIP_RESPONSE)
		return malformed("response", err);
	if (!qs_ttlv_find_structure(&message, TAG_RESPONSE_HEADER, &header))
		return malformed("header", err);
	if (!get_version(&header, &theirs))
		return malformed("version", err);
	if (!qs_ttlv_find_integer(&header, TAG_BATCH_COUNT, &announced))
		return malformed("batch count", err);
	for (size_t i = 0; i < count; i++) {
		answers[i] = (struct qs_kmip_answer){ .verdict = QS_KMIP_UNANSWERED };
		/* What stays: a batch ends at its first error. */
		(void)qs_fail(&answers[i].error, QS_E_FAILED,
			      "%s was not answered, after an error in the same message",
			      operation_name(requests[i].operation));
	}
	/* Errors come in any version (PyKMIP: 1.0). */
	return read_items(&message, theirs.major == version.major && theirs.minor == version.minor,
			  announced, requests, count, answers, err);
}

/* ---- payloads ---- */

int qs_kmip_read_uid(const struct qs_kmip_answer *answer, char ret[QS_KMIP_UID_L],
		     struct qs_error *err)
{
	if (!qs_ttlv_find_text(&answer->payload, TAG_UID, ret, QS_KMIP_UID_L) || !*ret)
		return malformed("unique identifier", err);
	return 0;
}

int qs_kmip_read_located(const struct qs_kmip_answer *answer, char ret[QS_KMIP_UID_L],
			 struct qs_error *err)
{
	struct qs_ttlv item;
	size_t at = 0;
	int found = 0;

	while (qs_ttlv_next(&answer->payload, &at, &item))
		found += item.tag == TAG_UID;
	if (found > 0 && qs_kmip_read_uid(answer, ret, err) < 0)
		return -EIO;
	return found;
}

static int bad_key(const char *what, struct qs_error *err)
{
	return qs_fail(err, QS_E_FAILED, "the server's key is not usable: %s", what);
}

int qs_kmip_read_key(const struct qs_kmip_answer *answer, const char *uid,
		     const unsigned char **ret, struct qs_error *err)
{
	struct qs_ttlv key, block, value, material;
	uint32_t format = 0, algorithm = ALGORITHM_AES;
	char theirs[QS_KMIP_UID_L];
	int r = qs_kmip_read_uid(answer, theirs, err);

	if (r < 0)
		return r;
	if (strcmp(theirs, uid) != 0)
		return bad_key("it is another one than was asked for", err);
	if (!qs_ttlv_find_structure(&answer->payload, TAG_SYMMETRIC_KEY, &key))
		return bad_key("it is no symmetric key", err);
	if (!qs_ttlv_find_structure(&key, TAG_KEY_BLOCK, &block))
		return bad_key("it has no key block", err);
	if (qs_ttlv_find(&block, TAG_KEY_WRAPPING, &value))
		return bad_key("it is wrapped by another key", err);
	(void)qs_ttlv_find_enumeration(&block, TAG_KEY_FORMAT, &format);
	(void)qs_ttlv_find_enumeration(&block, TAG_ALGORITHM, &algorithm);
	if (format != FORMAT_RAW || algorithm != ALGORITHM_AES)
		return bad_key("it is no raw AES key", err);
	if (!qs_ttlv_find_structure(&block, TAG_KEY_VALUE, &value) ||
	    !qs_ttlv_find(&value, TAG_KEY_MATERIAL, &material) || material.type != QS_TTLV_BYTES)
		return bad_key("there is no key material", err);
	if (material.size != QS_KMIP_KEY_L)
		return qs_fail(err, QS_E_FAILED,
			       "the server's key is not usable: it has %zu bytes instead of %d",
			       material.size, QS_KMIP_KEY_L);
	*ret = material.value;
	return 0;
}

static bool is_name(const struct qs_ttlv *item, const char *name)
{
	struct qs_ttlv value;

	return qs_ttlv_find(item, TAG_NAME_VALUE, &value) && value.type == QS_TTLV_TEXT &&
	       value.size == strlen(name) && memcmp(value.value, name, value.size) == 0;
}

/* The attribute called NAME in 1.x, or with TAG in 2.x; VALUE may have another type. */
static void take_attribute(uint32_t tag, const char *name, const struct qs_ttlv *value,
			   const char *wanted, struct qs_kmip_attributes *ret)
{
	bool number = value->type == QS_TTLV_ENUMERATION || value->type == QS_TTLV_INTEGER;
	uint32_t word = number ? qs_ttlv_word(value) : 0;

	if (tag == TAG_NAME || strcmp(name, "Name") == 0)
		ret->named |= wanted && is_name(value, wanted);
	else if (tag == TAG_STATE || strcmp(name, "State") == 0)
		ret->state = word <= QS_KMIP_DESTROYED_COMPROMISED ? (enum qs_kmip_state)word : 0;
	else if (tag == TAG_ALGORITHM || strcmp(name, "Cryptographic Algorithm") == 0)
		ret->algorithm = word;
	else if (tag == TAG_LENGTH || strcmp(name, "Cryptographic Length") == 0)
		ret->bits = (int32_t)word;
	else if (tag == TAG_USAGE_MASK || strcmp(name, "Cryptographic Usage Mask") == 0)
		ret->usage = (int32_t)word;
}

int qs_kmip_read_attributes(const struct qs_kmip_answer *answer, const char *name,
			    struct qs_kmip_attributes *ret, struct qs_error *err)
{
	struct qs_ttlv list, item, value;
	char which[32];
	size_t at = 0;

	*ret = (struct qs_kmip_attributes){};
	/* 1.x has them in the payload itself. */
	if (!qs_ttlv_find_structure(&answer->payload, TAG_ATTRIBUTES, &list))
		list = answer->payload;
	while (qs_ttlv_next(&list, &at, &item)) {
		if (item.tag != TAG_ATTRIBUTE)
			take_attribute(item.tag, "", &item, name, ret);
		else if (qs_ttlv_find_text(&item, TAG_ATTRIBUTE_NAME, which, sizeof(which)) &&
			 qs_ttlv_find(&item, TAG_ATTRIBUTE_VALUE, &value))
			take_attribute(TAG_ATTRIBUTE, which, &value, name, ret);
	}
	return ret->state < QS_KMIP_PRE_ACTIVE ? malformed("state of the key", err) : 0;
}

int qs_kmip_check_attributes(const struct qs_kmip_attributes *a, bool there, struct qs_error *err)
{
	bool wraps = (a->usage & USAGE_ENCRYPT_DECRYPT) == USAGE_ENCRYPT_DECRYPT ||
		     (!there && (a->usage & USAGE_WRAP_UNWRAP) == USAGE_WRAP_UNWRAP);

	if (a->algorithm != ALGORITHM_AES)
		return bad_key("it is not for AES", err);
	if (a->bits != QS_KMIP_KEY_L * 8)
		return qs_fail(err, QS_E_FAILED,
			       "the server's key is not usable: it has %d bits instead of %d",
			       (int)a->bits, QS_KMIP_KEY_L * 8);
	if (!wraps)
		return bad_key(there ? "its usage mask does not have Encrypt and Decrypt"
				     : "its usage mask has neither Encrypt and Decrypt nor Wrap "
				       "Key and Unwrap Key",
			       err);
	if (a->state != QS_KMIP_ACTIVE)
		return bad_key(a->state < QS_KMIP_ACTIVE ? "it is not activated"
							 : "it is in use no more",
			       err);
	return 0;
}

int qs_kmip_read_versions(const struct qs_kmip_answer *answer, struct qs_kmip_version *ret,
			  struct qs_error *err)
{
	struct qs_ttlv item;
	size_t best = qs_kmip_version_count, at = 0;

	while (qs_ttlv_next(&answer->payload, &at, &item)) {
		int32_t major, minor;

		if (item.tag != TAG_VERSION ||
		    !qs_ttlv_find_integer(&item, TAG_VERSION_MAJOR, &major) ||
		    !qs_ttlv_find_integer(&item, TAG_VERSION_MINOR, &minor))
			continue;
		for (size_t i = 0; i < best; i++)
			if (qs_kmip_versions[i].major == major &&
			    qs_kmip_versions[i].minor == minor)
				best = i;
	}
	if (best == qs_kmip_version_count)
		return qs_fail(err, QS_E_FAILED,
			       "the server speaks none of the versions of KMIP that we do (1.0 to "
			       "1.4, and 2.0)");
	*ret = qs_kmip_versions[best];
	return 0;
}

static bool has_operation(const struct qs_ttlv *payload, enum qs_kmip_operation operation)
{
	struct qs_ttlv item;
	size_t at = 0;

	while (qs_ttlv_next(payload, &at, &item))
		if (item.tag == TAG_OPERATION && item.type == QS_TTLV_ENUMERATION &&
		    qs_ttlv_word(&item) == operation)
			return true;
	return false;
}

int qs_kmip_read_query(const struct qs_kmip_answer *answer, bool there, char ret[QS_KMIP_TEXT_L],
		       struct qs_error *err)
{
	static const enum qs_kmip_operation needed[] = {
		QS_KMIP_LOCATE, QS_KMIP_GET_ATTRIBUTES, QS_KMIP_ACTIVATE,
		QS_KMIP_REVOKE, QS_KMIP_DESTROY,
	};
	static const enum qs_kmip_operation there_needed[] = { QS_KMIP_CREATE, QS_KMIP_ENCRYPT,
							       QS_KMIP_DECRYPT };

	for (size_t i = 0; there && i < QS_ARRAY_SIZE(there_needed); i++)
		if (!has_operation(&answer->payload, there_needed[i]))
			return qs_fail(err, QS_E_FAILED,
				       "the server does not have the operation %s, so keys cannot "
				       "stay there: use the provider kmip, which fetches them",
				       operation_name(there_needed[i]));
	if (!there && !has_operation(&answer->payload, QS_KMIP_GET))
		return qs_fail(err, QS_E_FAILED, "the server does not have the operation Get");
	if (!has_operation(&answer->payload, QS_KMIP_CREATE) &&
	    !has_operation(&answer->payload, QS_KMIP_REGISTER))
		return qs_fail(err, QS_E_FAILED,
			       "the server has neither the operation Create nor Register");
	for (size_t i = 0; i < QS_ARRAY_SIZE(needed); i++)
		if (!has_operation(&answer->payload, needed[i]))
			return qs_fail(err, QS_E_FAILED,
				       "the server does not have the operation %s",
				       operation_name(needed[i]));
	if (!qs_ttlv_find_text(&answer->payload, TAG_VENDOR, ret, QS_KMIP_TEXT_L))
		*ret = '\0';
	return 0;
}
