#ifndef QS_CMD_SHOW_KEY_H
#define QS_CMD_SHOW_KEY_H

#include "base/error.h"
#include "base/secret.h"

/* Show KEY, the recovery key of DEVICE, on standard output, which must be a terminal. */
int qs_show_key(const char *device, const struct qs_secret *key, struct qs_error *err);

#endif
