/*
 * Answers of a KMIP server, which may be anybody until TLS has said who it is, and broken
 * afterwards. The first byte says which version and question they answer.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "ttlv/message.h"

#define ITEMS_MAX 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
	if (!holds)
		abort();
}

static void read_payload(const struct qs_kmip_answer *a, const uint8_t *data, size_t size)
{
	char uid[QS_KMIP_UID_L], vendor[QS_KMIP_TEXT_L];
	struct qs_kmip_version version;
	struct qs_kmip_attributes attributes;
	struct qs_kmip_encrypted encrypted;
	const unsigned char *key;

	if (qs_kmip_read_uid(a, uid, NULL) == 0) {
		demand(*uid && strlen(uid) < sizeof(uid));
		if (qs_kmip_read_key(a, uid, &key, NULL) == 0)
			demand(key > data && key + QS_KMIP_KEY_L <= data + size);
		if (qs_kmip_read_decrypted(a, uid, &key, NULL) == 0)
			demand(key > data && key + QS_KMIP_KEY_L <= data + size);
		for (enum qs_kmip_cipher c = QS_KMIP_CBC; c <= QS_KMIP_GCM; c++)
			if (qs_kmip_read_encrypted(a, uid, c, &encrypted, NULL) == 0)
				demand(encrypted.cipher == c &&
				       qs_kmip_is_iv_size(c, encrypted.iv_size));
	}
	(void)qs_kmip_read_located(a, uid, NULL);
	if (qs_kmip_read_attributes(a, "name", &attributes, NULL) == 0) {
		demand(attributes.state >= QS_KMIP_PRE_ACTIVE &&
		       attributes.state <= QS_KMIP_DESTROYED_COMPROMISED);
		(void)qs_kmip_check_attributes(&attributes, true, NULL);
	}
	(void)qs_kmip_read_versions(a, &version, NULL);
	if (qs_kmip_read_query(a, false, vendor, NULL) == 0)
		demand(strlen(vendor) < sizeof(vendor));
}

/* FIRST of an input; the last two are for 1.4 and one request. */
static enum qs_kmip_operation operation_of(uint8_t first)
{
	static const enum qs_kmip_operation operations[] = {
		QS_KMIP_CREATE,  QS_KMIP_LOCATE,   QS_KMIP_GET,   QS_KMIP_GET_ATTRIBUTES,
		QS_KMIP_DESTROY, QS_KMIP_DISCOVER, QS_KMIP_QUERY, QS_KMIP_ACTIVATE,
	};

	if (first == 0xff)
		return QS_KMIP_ENCRYPT;
	if (first == 0xfc)
		return QS_KMIP_DECRYPT;
	return operations[(first >> 2) % QS_ARRAY_SIZE(operations)];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct qs_kmip_answer answers[ITEMS_MAX];
	struct qs_kmip_request requests[ITEMS_MAX];
	struct qs_error err = {};
	size_t count;
	int r;

	if (size < 1)
		return 0;
	count = data[0] % ITEMS_MAX + 1;
	for (size_t i = 0; i < count; i++)
		requests[i].operation = operation_of(data[0]);
	r = qs_kmip_response_read(data + 1, size - 1,
				  qs_kmip_versions[(data[0] >> 5) % qs_kmip_version_count],
				  requests, count, answers, &err);
	demand(r >= 0 || (err.kind == QS_E_FAILED && err.text[0]));
	for (size_t i = 0; r >= 0 && i < count; i++) {
		demand((answers[i].verdict == QS_KMIP_DONE) ==
		       (answers[i].error.kind == QS_E_NONE));
		if (answers[i].verdict == QS_KMIP_DONE)
			read_payload(&answers[i], data + 1, size - 1);
	}
	return 0;
}
