/*
 * Subcommands of keystore that have a file of their own.
 */
#ifndef QS_CMD_KEYSTORE_ACTIONS_H
#define QS_CMD_KEYSTORE_ACTIONS_H

#include "command.h"

int qs_keystore_action_export(struct qs_context *ctx, struct qs_error *err);

#endif
