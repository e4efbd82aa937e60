/*
 * Export of the keystore's key, for an escrow.
 */
#ifndef QS_OPS_KEYSTORE_EXPORT_H
#define QS_OPS_KEYSTORE_EXPORT_H

#include <stdint.h>

#include <jansson.h>

#include "ops/output-file.h"

struct qs_export_options {
	struct qs_output_file out;
	const char *public_key; /* of who may open it: a PEM file as the user typed it */
	uint32_t generation;    /* 0: the one that wraps now */
};

/*
 * Encrypt the KEK of one generation (keystore/escrow.h) into a file. *ret: "store",
 * "generation", "file" (absent for a descriptor), "size", "key_bits". QS_E_FAILED: the keystore
 * is disabled, does not have the generation, or its provider gives no key away; the public
 * key is not fit; QS_E_EXISTS. Changes nothing else.
 */
int qs_keystore_export(const struct qs_env *env, const struct qs_export_options *options,
		       json_t **ret, struct qs_error *err);

#endif
