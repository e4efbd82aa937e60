/*
 * keystore.json: it may come out of a bundle or from another hand. What passes is the
 * same after writing it again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "keystore/keystore.h"
#include "keystore/provider.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
	if (!holds)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	QS_AUTO(qs_auto_free) char *text = NULL;
	QS_AUTO(qs_auto_free) char *again_text = NULL;
	struct qs_keystore ks = {}, again = {};
	struct qs_error err = {};
	int r = qs_keystore_parse((const char *)data, size, &ks, &err);

	demand(r == 0 || (err.kind == QS_E_CONFIG && err.text[0]));
	if (r < 0)
		return 0;
	demand(ks.state != QS_KEYSTORE_DISABLED && qs_keystore_is_uuid(ks.store));
	demand(qs_provider_find(ks.provider) != NULL);
	for (size_t i = 0; i < ks.count; i++)
		demand(qs_keystore_provider(&ks, ks.generations[i].number) != NULL);
	demand(ks.rotation == QS_ROTATION_IDLE || qs_keystore_provider(&ks, ks.target) != NULL);
	demand(ks.count <= QS_KEYSTORE_GENERATIONS);
	demand((ks.current == 0) == (ks.state == QS_KEYSTORE_ENABLING));
	demand((ks.target == 0) == (ks.rotation == QS_ROTATION_IDLE));
	text = qs_keystore_print(&ks);
	demand(qs_keystore_parse(text, strlen(text), &again, NULL) == 0);
	again_text = qs_keystore_print(&again);
	demand(strcmp(text, again_text) == 0);
	return 0;
}
