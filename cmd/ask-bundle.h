/*
 * What opens a key bundle, from the options of a command.
 */
#ifndef QS_CMD_ASK_BUNDLE_H
#define QS_CMD_ASK_BUNDLE_H

#include "ask.h"
#include "bundle/bundle.h"
#include "command.h"

/* The rows that a command with a bundle has. */
#define QS_BUNDLE_OPTIONS                                                                          \
	{ .name = "key-file",                                                                      \
	  .arg = "KEY",                                                                            \
	  .help = "private key (PEM) of a certificate that the bundle was sealed to; a "           \
		  "passphrase is then its own" },                                                  \
		QS_PASSPHRASE_OPTIONS

/* A question is asked only when the library comes to it. The path belongs to *ret_path. */
struct qs_bundle_unlock qs_ask_bundle(struct qs_context *ctx, char **ret_path);

#endif
