/*
 * The TPM, as the rest of qs-util sees it: a struct of functions in a module of
 * its own (base/module.h), so that nothing else links the TPM software stack.
 *
 * One connection serves any number of tokens: the parent key and the sessions
 * are set up once (on real TPMs they take most of the time). The calls block
 * as long as the TPM takes, which may be for ever: run them in a worker process
 * with a deadline. Whatever a connection loaded into the TPM is flushed again,
 * on failures too; a worker that was killed leaves it to the kernel's resource
 * manager (/dev/tpmrm0).
 *
 * No function tries anything again that would count towards the TPM's lockout.
 */
#ifndef QS_TPM2_TPM2_H
#define QS_TPM2_TPM2_H

#include "base/module.h"
#include "base/secret.h"
#include "luks/tpm2-token.h"

#define QS_TPM2_MODULE_NAME "tpm2"
#define QS_TPM2_MODULE_SYMBOL "qs_tpm2_module"
#define QS_TPM2_MODULE_VERSION 6U

#define QS_TPM2_SECRET_L 32              /* bytes that are sealed, as systemd's */
#define QS_TPM2_SRK UINT32_C(0x81000001) /* TCG TPM 2.0 Provisioning Guidance, 7.5.1 */

struct qs_tpm2; /* a connection; not to be shared between processes */

/* The counter that locks a TPM after too many wrong PINs (dictionary attack protection). */
struct qs_tpm2_health {
	uint32_t failures;   /* counted at present */
	uint32_t limit;      /* so many lock it */
	uint32_t recovery_s; /* one is forgiven after so many seconds; 0: never */
	bool locked;
	char manufacturer[5]; /* four letters, "IBM" */
	uint32_t firmware[2];
};

/* What it counts by itself (TPM2_ReadClock). Nobody sets it back; clearing the TPM begins anew. */
struct qs_tpm2_clock {
	uint64_t ms;       /* while it had power; after a power cut up to 70 minutes behind */
	uint32_t resets;   /* starts of the machine */
	uint32_t restarts; /* since the last of these: suspends to memory, and starts after them */
};

struct qs_tpm2_seal {
	/*
	 * The secret is a key-encryption key, which no systemd has to open: sealed under the
	 * persistent storage root key (QS_TPM2_SRK, made if it is absent, never replaced), and
	 * without a PIN outside of the lockout, which power cuts count towards.
	 */
	bool kek;
	uint32_t pcrs;         /* literal policy; may be 0 */
	enum qs_tpm2_alg bank; /* QS_TPM2_NONE: SHA-256, or a refusal that says what there is */
	bool unset_pcrs;       /* take PCRs that are all zeros or ones, which bind to nothing */
	const struct qs_secret *pin; /* NULL: none */
	uint32_t pubkey_pcrs;        /* signed policy; 0: none */
	const char *pubkey;          /* PEM of an RSA key; NULL: none */
};

/* What opening a token may need besides the TPM. All may be NULL. */
struct qs_tpm2_unseal {
	const struct qs_secret *pin; /* used only for tokens that want one */
	const json_t *signatures;    /* tpm2-pcr-signature.json */
	uint64_t max_memory;         /* bytes and passes that Argon2id may cost; 0: no limit */
	uint64_t max_passes;
	bool kek; /* it was sealed as one: the secret itself is wanted, of QS_TPM2_SECRET_L bytes */
};

struct qs_tpm2_functions {
	struct qs_module module;

	/*
	 * Connect to DEVICE: "auto" (/dev/tpmrm0) or "DRIVER:CONFIGURATION" as tss2 takes
	 * it. Nothing is asked of the TPM but whether it has been started.
	 * QS_E_TPM_ABSENT, QS_E_TPM.
	 */
	int (*open)(const char *device, struct qs_tpm2 **ret, struct qs_error *err);

	/* Flush all, close; NULL is fine. */
	void (*close)(struct qs_tpm2 *tpm);

	int (*health)(struct qs_tpm2 *tpm, struct qs_tpm2_health *ret, struct qs_error *err);

	int (*clock)(struct qs_tpm2 *tpm, struct qs_tpm2_clock *ret, struct qs_error *err);

	/*
	 * Seal a new random secret so that systemd 252 and all later versions unseal it.
	 * *ret_token gets all but the keyslots, *ret_passphrase the keyslot's passphrase
	 * (44 characters). Nothing is proven yet: unseal the token.
	 * QS_E_REFUSED: PCRs that bind to nothing; QS_E_PIN: a PIN that cannot be used.
	 */
	int (*seal)(struct qs_tpm2 *tpm, const struct qs_tpm2_seal *how,
		    struct qs_tpm2_token *ret_token, struct qs_secret *ret_passphrase,
		    struct qs_error *err);

	/*
	 * The passphrase of TOKEN's keyslots. One try; a wrong PIN counts once.
	 * QS_E_TPM_PCR: not in this state, naming the PCRs; QS_E_PIN; QS_E_TPM_LOCKOUT;
	 * QS_E_TPM: sealed by another TPM or before it was cleared, and other failures;
	 * QS_E_HOSTILE: absurd costs.
	 */
	int (*unseal)(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token,
		      const struct qs_tpm2_unseal *with, struct qs_secret *ret_passphrase,
		      struct qs_error *err);

	/*
	 * Would it open now, as far as that can be told without the PIN, and with WITH NULL without
	 * signatures? Counts nothing. With QS_E_TPM_PCR *ret_moved gets the PCRs that moved, 0 if
	 * they are not known.
	 */
	int (*match)(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token,
		     const struct qs_tpm2_unseal *with, uint32_t *ret_moved, struct qs_error *err);

	/* Is its object one that this TPM sealed, whatever the PCRs are? Errors as unseal. */
	int (*owns)(struct qs_tpm2 *tpm, const struct qs_tpm2_token *token, struct qs_error *err);

	/*
	 * From now on PCRs count as what CLOSED (in the form of values) says, if they are that,
	 * extended by EVENT one or several times: seal and match work with the values of the next
	 * start. CLOSED NULL ends it. EVENT stays the caller's.
	 */
	void (*before_closing)(struct qs_tpm2 *tpm, json_t *closed, const char *event);

	/*
	 * The present values of PCRS, read anew, as hex: {"sha256": {"7": "..."}}, with every bank
	 * that keeps all of them. A new reference.
	 */
	int (*values)(struct qs_tpm2 *tpm, uint32_t pcrs, json_t **ret, struct qs_error *err);

	/* Extend each of PCRS, in every bank, by the hash of the text EVENT (TPM2_PCR_Event). */
	int (*extend)(struct qs_tpm2 *tpm, uint32_t pcrs, const char *event, struct qs_error *err);
};

#endif
