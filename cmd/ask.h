/*
 * Asking for a passphrase: from a file or a descriptor when an option names it,
 * else on the terminal, without showing it.
 */
#ifndef QS_CMD_ASK_H
#define QS_CMD_ASK_H

#include "base/secret.h"
#include "command.h"

/* The usual pair of rows of a command's options. */
#define QS_PASSPHRASE_OPTIONS                                                                      \
	{ .name = "passphrase-file",                                                               \
	  .arg = "FILE",                                                                           \
	  .help = "read the passphrase from FILE, without its final newline; - is standard "       \
		  "input" },                                                                       \
	{                                                                                          \
		.name = "passphrase-fd", .arg = "N", .max = 1023,                                  \
		.help = "read the passphrase from the open descriptor N"                           \
	}

/* The same for the PIN of a TPM2 keyslot, or of the keystore. */
#define QS_PIN_OPTIONS                                                                             \
	{ .name = "pin-file",                                                                      \
	  .arg = "FILE",                                                                           \
	  .help = "read the PIN beside the TPM from FILE; - is standard input" },                  \
	{                                                                                          \
		.name = "pin-fd", .arg = "N", .max = 1023,                                         \
		.help = "read the PIN from the open descriptor N"                                  \
	}

struct qs_ask {
	const char *file_option; /* "passphrase-file" */
	const char *fd_option;   /* "passphrase-fd" */
	const char *prompt;      /* "Passphrase of the bundle"; without a colon */
	bool twice;              /* a new one: typed twice, and both must agree */
	unsigned deadline_s;     /* give up waiting for it (QS_E_DEADLINE); 0: never */
};

/* Is one of the two options there? */
bool qs_ask_given(const struct qs_context *ctx, const struct qs_ask *ask);

/*
 * Get the passphrase. Without an option and without a terminal (or with --json)
 * QS_E_USAGE names the options; both options at once are QS_E_USAGE too.
 */
int qs_ask_passphrase(const struct qs_context *ctx, const struct qs_ask *ask, struct qs_secret *ret,
		      struct qs_error *err);

/* Let the keystore ask for its PIN, if somebody sits at a terminal. */
void qs_ask_offer_keystore(struct qs_context *ctx);

/* If --pin-file or --pin-fd is given: read the keystore's PIN into *ret, and let it be used. */
int qs_ask_keystore_pin(struct qs_context *ctx, struct qs_secret *ret, struct qs_error *err);

#endif
