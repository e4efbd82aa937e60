/*
 * QR codes for terminals: a module of its own (base/module.h), so that nothing
 * else links libqrencode.
 */
#ifndef QS_QR_QR_H
#define QS_QR_QR_H

#include "base/module.h"
#include "base/secret.h"

#define QS_QR_MODULE_NAME "qr"
#define QS_QR_MODULE_SYMBOL "qs_qr_module"
#define QS_QR_MODULE_VERSION 1U

struct qs_qr_functions {
	struct qs_module module;

	/*
	 * TEXT (letters, digits and dashes) as lines of UTF-8 half blocks, white on black whatever
	 * the terminal's colours are, with the quiet zone that readers need. *ret_columns is its
	 * width. It is TEXT in another form, and as secret; libqrencode keeps
	 * traces in memory that it frees without wiping it: lock all of it (qs_secret_lock_all).
	 */
	int (*render)(const struct qs_secret *text, struct qs_secret *ret, unsigned *ret_columns,
		      struct qs_error *err);
};

#endif
