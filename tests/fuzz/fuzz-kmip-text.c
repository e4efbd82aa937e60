/*
 * Wrapped content keys of the provider kmip-wrap, out of headers that anybody may have written.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "keystore/kmip-internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
	if (!holds)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	QS_AUTO(qs_auto_free) char *text = strndup((const char *)data, size);
	QS_AUTO(qs_auto_free) char *again = NULL;
	struct qs_kmip_wrapped w;

	if (!text || qs_kmip_wrapped_parse(text, &w) < 0)
		return 0;
	demand(*w.uid && strlen(w.uid) < sizeof(w.uid));
	demand(qs_kmip_is_iv_size(w.encrypted.cipher, w.encrypted.iv_size));
	/* One key has one spelling. */
	again = qs_kmip_wrapped_print(&w);
	demand(strcmp(again, text) == 0);
	return 0;
}
