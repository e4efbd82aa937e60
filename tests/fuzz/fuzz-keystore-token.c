/*
 * qs-keystore tokens: JSON out of a header that anybody may have written. What passes
 * is of one exact form, as libjose is to get nothing else.
 */
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/cleanup.h"
#include "keystore/jwe.h"
#include "keystore/provider.h"
#include "keystore/token.h"
#include "luks/fields.h"

#define UUID "2bae304e-0274-4a7b-8797-d39c2fc92cac" /* of the corpus */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
	if (!holds)
		abort();
}

static void check_accepted(const struct qs_keystore_token *t)
{
	QS_AUTO(qs_bytes_done) struct qs_bytes protected = {};
	QS_AUTO(qs_auto_json) json_t *json = NULL;
	const char *wrapped = qs_jwe_wrapped(t->jwe);

	demand(t->slot >= 0 && t->slot < 32);
	demand(t->generation >= 1 && t->generation <= QS_KEYSTORE_GENERATION_MAX);
	demand(qs_keystore_is_uuid(t->store) && t->provider[0]);
	demand(json_object_size(t->jwe) == (wrapped ? 5 : 6));
	demand(!wrapped || (*wrapped && strlen(wrapped) <= QS_WRAPPED_MAX));
	demand(qs_base64url_decode(qs_fields_text(t->jwe, "protected"), 256, &protected) == 0);
	json = json_loadb((char *)protected.data, protected.size, 0, NULL);
	demand(strcmp(qs_fields_text(json, "alg"), wrapped ? "dir" : "A256GCMKW") == 0);
	demand(strcmp(qs_fields_text(json, "enc"), "A256GCM") == 0);
	demand(json_object_size(json) == 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	QS_AUTO(qs_auto_json) json_t *json = json_loadb((const char *)data, size, 0, NULL);
	struct qs_keystore_token token;
	struct qs_error err = {};
	int r;

	if (!json)
		return 0;
	r = qs_keystore_token_parse(json, UUID, &token, &err);
	demand(r == 0 || ((err.kind == QS_E_DAMAGED || err.kind == QS_E_HOSTILE) && err.text[0]));
	if (r == 0)
		check_accepted(&token);
	return 0;
}
