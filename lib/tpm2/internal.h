/*
 * Shared by the parts of the module tpm2 only.
 */
#ifndef QS_TPM2_INTERNAL_H
#define QS_TPM2_INTERNAL_H

#include <tss2/tss2_esys.h>
#include <tss2/tss2_mu.h>
#include <tss2/tss2_rc.h>
#include <tss2/tss2_tctildr.h>

#include "tpm2/tpm2.h"

#define QS_TPM2_BANKS 4 /* SHA-1, SHA-256, SHA-384, SHA-512 */

struct qs_tpm2_bank {
	enum qs_tpm2_alg alg;
	size_t size;       /* bytes of a value */
	uint32_t assigned; /* PCRs that the TPM keeps in it; 0: no such bank */
	uint32_t known;    /* whose values have been read */
	uint8_t values[QS_TPM2_PCRS][TPM2_SHA512_DIGEST_SIZE];
};

struct qs_tpm2 {
	TSS2_TCTI_CONTEXT *tcti;
	ESYS_CONTEXT *esys;
	ESYS_TR ecc, rsa; /* systemd 252's primary keys, made when first needed */
	ESYS_TR srk;      /* persistent: closed, never flushed */
	uint32_t srk_handle;
	ESYS_TR parent;     /* with which the next two are salted; not to be flushed by this name */
	ESYS_TR encryption; /* for sealing */
	ESYS_TR policy;     /* for unsealing without a PIN, one token after the other */
	bool policy_empty;  /* nothing has been satisfied in it yet */
	json_t *closed;     /* qs_tpm2_before_closing(); NULL: values are what they are */
	const char *closing_event;
	bool banks_known;
	struct qs_tpm2_bank banks[QS_TPM2_BANKS];
};

/* explain.c: fail because a call of the stack failed; DOING says what was tried. */
int qs_tpm2_fail(struct qs_error *err, TSS2_RC rc, const char *doing);

/* Where ERR speaks of a keyslot: the same of a generation of the keystore. */
void qs_tpm2_explain_kek(struct qs_error *err);

/* The code without layer, and without number of session, handle or parameter. */
TSS2_RC qs_tpm2_code(TSS2_RC rc);

/* context.c */
void qs_tpm2_flush(const struct qs_tpm2 *tpm, ESYS_TR *handle);

/* parent.c: the key under which TOKEN is sealed; owned by TPM. */
int qs_tpm2_parent(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token, ESYS_TR *ret,
		   struct qs_error *err);
/* The key to seal under; *ret_alg says which it was. */
int qs_tpm2_sealing_parent(struct qs_tpm2 *tpm, ESYS_TR *ret, enum qs_tpm2_alg *ret_alg,
			   struct qs_error *err);
/* srk.c: the storage root key to seal under; TOKEN gets what names it. */
int qs_tpm2_srk(struct qs_tpm2 *tpm, struct qs_tpm2_token *token, ESYS_TR *ret,
		struct qs_error *err);
/* A primary key of the owner's, into *ret unless it is there; *OTHER is flushed. */
int qs_tpm2_make_primary(const struct qs_tpm2 *tpm, const TPM2B_PUBLIC *template, ESYS_TR *ret,
			 ESYS_TR *other, struct qs_error *err);
/* The templates of systemd 252. */
extern const TPM2B_PUBLIC qs_tpm2_ecc_template, qs_tpm2_rsa_template;
/* Load TOKEN's object; flush it. */
int qs_tpm2_load(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token, ESYS_TR parent,
		 ESYS_TR *ret, struct qs_error *err);

/* session.c: salted with PARENT. BOUND (ESYS_TR_NONE: not) is an object whose authValue is set. */
int qs_tpm2_start_session(const struct qs_tpm2 *tpm, ESYS_TR parent, ESYS_TR bound, TPM2_SE type,
			  ESYS_TR protect, ESYS_TR *ret, struct qs_error *err);
/* The connection's own encryption session for PARENT. */
int qs_tpm2_encryption_session(struct qs_tpm2 *tpm, ESYS_TR parent, struct qs_error *err);
/* Flush both. */
void qs_tpm2_drop_sessions(struct qs_tpm2 *tpm);
/*
 * Its policy session for PARENT, empty again. It encrypts what Unseal answers by itself: behind
 * the kernel's resource manager, which saves and loads all sessions and objects around every
 * command, a session more would cost a fifth of the time.
 */
int qs_tpm2_policy_session(struct qs_tpm2 *tpm, ESYS_TR parent, struct qs_error *err);

/* pcr.c */
int qs_tpm2_read_banks(struct qs_tpm2 *tpm, struct qs_error *err);
/* The bank, or NULL. After qs_tpm2_read_banks(). */
struct qs_tpm2_bank *qs_tpm2_find_bank(struct qs_tpm2 *tpm, enum qs_tpm2_alg alg);
int qs_tpm2_read_pcrs(struct qs_tpm2 *tpm, struct qs_tpm2_bank *bank, uint32_t pcrs,
		      struct qs_error *err);
/* The bank that HOW asks for or may have, its PCRs read and found to mean something. */
int qs_tpm2_choose_bank(struct qs_tpm2 *tpm, const struct qs_tpm2_seal *how, enum qs_tpm2_alg *ret,
			struct qs_error *err);
/* What the token keeps of a PCR's value, for qs_tpm2_explain_pcrs(). */
void qs_tpm2_pcr_hint(const struct qs_tpm2_bank *bank, unsigned pcr,
		      char ret[QS_TPM2_PCR_HINT_L + 1]);
/* Of TOKEN's PCRs those that moved, or all that may have; *ret_sure says which. */
uint32_t qs_tpm2_moved(const struct qs_tpm2_token *token, const struct qs_tpm2_bank *bank,
		       bool *ret_sure);
/* Fail with QS_E_TPM_PCR, naming what moved as far as the token's hints tell. */
int qs_tpm2_explain_pcrs(const struct qs_tpm2_token *token, const struct qs_tpm2_bank *bank,
			 struct qs_error *err);

/* policy.c */
struct qs_tpm2_policy {
	const struct qs_tpm2_token *token;
	enum qs_tpm2_alg bank;
	bool pcr_always;     /* systemd 251 and older: PolicyPCR also for no PCRs */
	bool exponent_zero;  /* some builds of systemd 254 and 255 */
	TPM2B_PUBLIC pubkey; /* of a signed policy */
	TPM2B_NAME pubkey_name;
	uint8_t digest[QS_TPM2_DIGEST_L];
};
/* Compute the digest for the present PCRs; fills all but token and bank, which are given. */
int qs_tpm2_policy_compute(struct qs_tpm2 *tpm, struct qs_tpm2_policy *policy,
			   struct qs_error *err);
/* The policy of TOKEN that has its digest now, or QS_E_TPM_PCR. */
int qs_tpm2_policy_find(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token,
			struct qs_tpm2_policy *ret, struct qs_error *err);
/* Has its key signed the PCRs' values? QS_E_TPM_PCR: no. Only for signed policies. */
int qs_tpm2_policy_is_signed(struct qs_tpm2 *tpm, const struct qs_tpm2_policy *policy,
			     const json_t *signatures, struct qs_error *err);
/* Satisfy it in SESSION. */
int qs_tpm2_policy_run(struct qs_tpm2 *tpm, const struct qs_tpm2_policy *policy,
		       const json_t *signatures, ESYS_TR session, struct qs_error *err);
/* H(32 zero bytes, PolicyPCR of PCRS): what somebody signs. */
int qs_tpm2_policy_of_pcrs(struct qs_tpm2 *tpm, enum qs_tpm2_alg bank, uint32_t pcrs,
			   uint8_t ret[QS_TPM2_DIGEST_L], struct qs_error *err);
/* TPML_PCR_SELECTION of one bank. */
TPML_PCR_SELECTION qs_tpm2_selection(enum qs_tpm2_alg bank, uint32_t pcrs);

/* signature.c */
/* PEM of an RSA key as TPM2B_PUBLIC with its exponent, and its name. */
int qs_tpm2_pubkey(const char *pem, bool exponent_zero, TPM2B_PUBLIC *ret, TPM2B_NAME *ret_name,
		   struct qs_error *err);
/* The signature of POLICY's approved digest in SIGNATURES. */
int qs_tpm2_find_signature(const struct qs_tpm2_policy *policy,
			   const uint8_t approved[QS_TPM2_DIGEST_L], const json_t *signatures,
			   TPMT_SIGNATURE *ret, struct qs_error *err);
/* SHA-256 of the token's policy reference; size 0 without one. */
void qs_tpm2_policy_ref(const struct qs_tpm2_token *token, TPM2B_NONCE *ret);

/* pin.c */
struct qs_tpm2_pin {
	struct qs_secret auth;      /* struct TPM2B_AUTH */
	struct qs_secret lock_half; /* Argon2id: half of its output, for the passphrase; or empty */
};
void qs_tpm2_pin_done(struct qs_tpm2_pin *pin);
/* For a new token; QS_E_PIN for PINs that systemd 252 could not use, unless it is for a KEK. */
int qs_tpm2_pin_new(const struct qs_secret *pin, bool kek, struct qs_tpm2_pin *ret,
		    struct qs_error *err);
/* For TOKEN, in the way of the version that wrote it. */
int qs_tpm2_pin_of(const struct qs_tpm2_token *token, const struct qs_tpm2_unseal *with,
		   struct qs_tpm2_pin *ret, struct qs_error *err);
/* The keyslot's passphrase from the unsealed SECRET. */
int qs_tpm2_passphrase(const struct qs_secret *secret, const struct qs_tpm2_pin *pin,
		       struct qs_secret *ret, struct qs_error *err);

int qs_tpm2_seal(struct qs_tpm2 *tpm, const struct qs_tpm2_seal *how,
		 struct qs_tpm2_token *ret_token, struct qs_secret *ret_passphrase,
		 struct qs_error *err);
int qs_tpm2_unseal(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token,
		   const struct qs_tpm2_unseal *with, struct qs_secret *ret_passphrase,
		   struct qs_error *err);
/* extend.c */
int qs_tpm2_values(struct qs_tpm2 *tpm, uint32_t pcrs, json_t **ret, struct qs_error *err);
int qs_tpm2_extend(struct qs_tpm2 *tpm, uint32_t pcrs, const char *event, struct qs_error *err);
int qs_tpm2_match(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token,
		  const struct qs_tpm2_unseal *with, uint32_t *ret_moved, struct qs_error *err);
int qs_tpm2_owns(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token, struct qs_error *err);

/* closed.c */
void qs_tpm2_before_closing(struct qs_tpm2 *tpm, json_t *closed, const char *event);
/* Of these values, just read, put those back that only our closing changed. */
void qs_tpm2_take_back_closing(const struct qs_tpm2 *tpm, struct qs_tpm2_bank *bank, uint32_t pcrs);

#endif
