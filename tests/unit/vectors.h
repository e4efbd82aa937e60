/*
 * The recorded tokens in tests/vectors/tpm2. Include after cmocka.h.
 */
#ifndef QS_TESTS_VECTORS_H
#define QS_TESTS_VECTORS_H

#include <jansson.h>

#include "base/cleanup.h"
#include "base/env.h"
#include "luks/tpm2-token.h"

#define VECTORS QS_SOURCE "/tests/vectors/tpm2"

static inline json_t *vector_json(const char *file)
{
	QS_AUTO(qs_auto_free) char *path = qs_printf(VECTORS "/%s", file);
	json_t *json = json_load_file(path, 0, NULL);

	if (!json)
		fail_msg("cannot read %s", path);
	return json;
}

static inline json_t *vector_token(const char *name)
{
	QS_AUTO(qs_auto_free) char *file = qs_printf("%s.token.json", name);

	return vector_json(file);
}

static inline struct qs_tpm2_token parse_token(const json_t *json)
{
	struct qs_tpm2_token token = {};
	struct qs_error err = {};

	if (qs_tpm2_token_parse(json, &token, &err) < 0)
		fail_msg("%s", err.text);
	return token;
}

#endif
