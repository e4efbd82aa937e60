/*
 * The CMS envelope of a key bundle, up to its authentication. What authenticates
 * can be read twice, to its end and no further.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "bundle/seal.h"

/* Small, so that no input takes long. */
#define ITERATIONS_MAX 1000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Of this fuzzer only: the corpus is sealed to it. */
static char test_key[] = "-----BEGIN PRIVATE KEY-----\n"
			 "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgFWHjLYDfU6lsmHyr\n"
			 "+tjNij8VlaMKKMQ1FWMTjNp/oOuhRANCAAR9PS5NfdCOBgLX3qmYRTeE5svbX+cx\n"
			 "F8i5bRZoP+sddwqRMRCV0cZaYJAfASJuPz0Cve3KYr+FdYAgOov7RQct\n"
			 "-----END PRIVATE KEY-----\n";

static void demand(bool holds)
{
	if (!holds)
		abort();
}

static void read_twice(struct qs_sealed *s)
{
	QS_AUTO(qs_auto_free) char *first = NULL;
	QS_AUTO(qs_auto_free) char *second = NULL;
	uint64_t size = 0;

	if (qs_sealed_authenticate(s, &size, NULL) < 0)
		return;
	first = malloc(size + 1);
	second = malloc(size + 1);
	demand(first && second);
	demand(qs_sealed_read(s, first, size, NULL) == 0);
	demand(qs_sealed_read(s, first, 1, NULL) < 0);
	demand(qs_sealed_rewind(s, NULL) == 0);
	demand(qs_sealed_read(s, second, size, NULL) == 0);
	demand(memcmp(first, second, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct qs_secret pem = { test_key, sizeof(test_key) - 1 };
	const struct qs_secret passphrase = { "x", 1 };

	for (int by_key = 0; by_key < 2; by_key++) {
		QS_AUTO(qs_auto_sealed) struct qs_sealed *s = NULL;
		struct qs_seal_recipient_kinds kinds = {};

		if (qs_sealed_load(data, size, ITERATIONS_MAX, &s, &kinds, NULL) < 0)
			return 0;
		if (by_key ? qs_sealed_use_key(s, &pem, "key", NULL, NULL, NULL) == 0
			   : qs_sealed_use_passphrase(s, &passphrase, NULL) == 0)
			read_twice(s);
	}
	return 0;
}
