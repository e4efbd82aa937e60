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
	const unsigned char *key;

	if (qs_kmip_read_uid(a, uid, NULL) == 0) {
		demand(*uid && strlen(uid) < sizeof(uid));
		if (qs_kmip_read_key(a, uid, &key, NULL) == 0)
			demand(key > data && key + QS_KMIP_KEY_L <= data + size);
	}
	(void)qs_kmip_read_located(a, uid, NULL);
	if (qs_kmip_read_attributes(a, "name", &attributes, NULL) == 0) {
		demand(attributes.state >= QS_KMIP_PRE_ACTIVE &&
		       attributes.state <= QS_KMIP_DESTROYED_COMPROMISED);
		(void)qs_kmip_check_attributes(&attributes, NULL);
	}
	(void)qs_kmip_read_versions(a, &version, NULL);
	if (qs_kmip_read_query(a, vendor, NULL) == 0)
		demand(strlen(vendor) < sizeof(vendor));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum qs_kmip_operation operations[] = {
		QS_KMIP_CREATE,  QS_KMIP_LOCATE,   QS_KMIP_GET,   QS_KMIP_GET_ATTRIBUTES,
		QS_KMIP_DESTROY, QS_KMIP_DISCOVER, QS_KMIP_QUERY, QS_KMIP_ACTIVATE,
	};
	struct qs_kmip_answer answers[ITEMS_MAX];
	struct qs_kmip_request requests[ITEMS_MAX];
	struct qs_error err = {};
	size_t count;
	int r;

	if (size < 1)
		return 0;
	count = data[0] % ITEMS_MAX + 1;
	for (size_t i = 0; i < count; i++)
		requests[i].operation = operations[(data[0] >> 2) % QS_ARRAY_SIZE(operations)];
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
