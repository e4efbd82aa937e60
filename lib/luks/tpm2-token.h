/*
 * The LUKS2 token "systemd-tpm2": a keyslot's passphrase sealed in a TPM, in
 * systemd's own format, so that systemd-cryptsetup opens what we enrol and we
 * open what systemd-cryptenroll enrolled.
 *
 * Reads what systemd 248 to 262 write; writes the fields of systemd 252, which
 * every later version reads too. Anybody who has the disk can write a token:
 * sizes and types are checked here, the TPM checks the rest. No TPM is needed
 * for any of this.
 */
#ifndef QS_LUKS_TPM2_TOKEN_H
#define QS_LUKS_TPM2_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/base64.h"
#include "base/error.h"

#define QS_TPM2_TOKEN_TYPE "systemd-tpm2"

#define QS_TPM2_PCRS 24       /* PC Client platform: PCR 0 to 23 */
#define QS_TPM2_DIGEST_L 32   /* bytes; policies are SHA-256 */
#define QS_TPM2_PCR_HINT_L 16 /* hex digits of the digest of a PCR's value at enrolment */

/* TCG Algorithm Registry. */
enum qs_tpm2_alg {
	QS_TPM2_NONE = 0,
	QS_TPM2_RSA = 0x0001,
	QS_TPM2_SHA1 = 0x0004,
	QS_TPM2_SHA256 = 0x000b,
	QS_TPM2_SHA384 = 0x000c,
	QS_TPM2_SHA512 = 0x000d,
	QS_TPM2_ECC = 0x0023,
};

struct qs_tpm2_token {
	struct qs_bytes blob;
	/* Where in the blob: TPM2B_PRIVATE is [0, public_at), TPM2B_PUBLIC [public_at, seed_at),
	   and what is left a TPM2B_ENCRYPTED_SECRET (sealed offline). */
	size_t public_at, seed_at;
	char *pubkey;         /* PEM, of a signed policy; NULL: none */
	char *pubkey_ref;     /* policy reference of systemd 262; NULL: none */
	struct qs_bytes salt; /* of the PIN; empty: none (systemd 252) */
	struct qs_bytes srk;  /* serialised ESYS_TR of the parent; empty: the primary key of 252 */
	uint64_t argon2_memory; /* bytes; 0: no Argon2id */
	uint64_t argon2_passes, argon2_lanes;
	uint32_t keyslots;     /* a bit for each; never 0 */
	uint32_t pcrs;         /* literal PCR policy, a bit for each; 0: none */
	uint32_t pubkey_pcrs;  /* signed PCR policy; 0: none */
	enum qs_tpm2_alg bank; /* of all PCRs; QS_TPM2_NONE: not said */
	enum qs_tpm2_alg primary_alg;
	uint8_t policy_hash[QS_TPM2_DIGEST_L];
	bool pin;
	bool pcrlock; /* belongs to systemd-pcrlock; the blob may be missing */
	bool sharded; /* arrays of systemd 257; blob and policy_hash are not read */
	/* Our own, for people: never trusted. */
	char pcr_hints[QS_TPM2_PCRS][QS_TPM2_PCR_HINT_L + 1]; /* "" where not known */
	char *enrolled;                                       /* RFC 3339, or NULL */
};

void qs_tpm2_token_done(struct qs_tpm2_token *token); /* also a QS_AUTO releaser */

/* Whether JSON (one object of the header's "tokens") is such a token at all, good or not. */
bool qs_tpm2_token_is(const json_t *json);

/*
 * Read JSON. QS_E_DAMAGED names the field that no systemd would have written,
 * and blobs that are not a sealed SHA-256 object whose policy is the token's.
 */
int qs_tpm2_token_parse(const json_t *json, struct qs_tpm2_token *ret, struct qs_error *err);

/*
 * Can the TPM code open this token? Otherwise QS_E_TPM with a sentence: policies
 * of systemd-pcrlock are systemd's.
 */
int qs_tpm2_token_check_supported(const struct qs_tpm2_token *token, struct qs_error *err);

/* The fields that systemd 252 writes, in its order, and our own; a new reference. */
json_t *qs_tpm2_token_write(const struct qs_tpm2_token *token);

/* "sha256", or NULL for what is no bank; static. */
const char *qs_tpm2_bank_name(enum qs_tpm2_alg bank);

/* The reverse, upper and lower case alike; QS_TPM2_NONE when it is no bank's name. */
enum qs_tpm2_alg qs_tpm2_bank_of_name(const char *name);

/* "0+2+7", as systemd-cryptenroll takes it; "" for none. */
#define QS_TPM2_PCRS_TEXT_L 80
const char *qs_tpm2_pcrs_text(uint32_t pcrs, char ret[QS_TPM2_PCRS_TEXT_L]);

/* The reverse; ',' is taken too, "" is none. Returns 0 or -EINVAL. */
int qs_tpm2_pcrs_parse(const char *text, uint32_t *ret);

#endif
