/*
 * A key-encryption key in the form in which it may leave the machine: a JWK (RFC 7517)
 * that `jose jwe dec` takes, encrypted to somebody's RSA key so that
 * `openssl pkeyutl -decrypt` opens it.
 */
#ifndef QS_KEYSTORE_ESCROW_H
#define QS_KEYSTORE_ESCROW_H

#include <stdint.h>

#include <openssl/types.h>

#include "base/base64.h"
#include "base/error.h"
#include "base/secret.h"

/*
 * Parse the text of a PEM file, which PATH names. Fails (QS_E_FAILED) for anything but a
 * public RSA key of QS_RSA_BITS_MIN bits or more; a private key is not even parsed.
 */
int qs_escrow_parse_key(const struct qs_secret *pem, const char *path, EVP_PKEY **ret,
			struct qs_error *err);

/* The JWK of KEK (32 bytes), generation NUMBER of STORE: text without a NUL. */
int qs_escrow_jwk(const struct qs_secret *kek, const char *store, uint32_t number,
		  struct qs_secret *ret, struct qs_error *err);

/* Encrypt PLAIN by RSAES-OAEP (RFC 8017, 7.1) with SHA-256, also in MGF1, without a label. */
int qs_escrow_encrypt(EVP_PKEY *key, const struct qs_secret *plain, struct qs_bytes *ret,
		      struct qs_error *err);

void qs_auto_pkey(EVP_PKEY **key); /* QS_AUTO releaser */

#endif
