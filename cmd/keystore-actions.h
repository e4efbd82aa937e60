/*
 * Subcommands of keystore that have a file of their own.
 */
#ifndef QS_CMD_KEYSTORE_ACTIONS_H
#define QS_CMD_KEYSTORE_ACTIONS_H

#include "command.h"

int qs_keystore_action_status(struct qs_context *ctx, struct qs_error *err);
int qs_keystore_action_check(struct qs_context *ctx, struct qs_error *err);
int qs_keystore_action_export(struct qs_context *ctx, struct qs_error *err);
int qs_keystore_action_enable(struct qs_context *ctx, struct qs_error *err);
int qs_keystore_action_migrate(struct qs_context *ctx, struct qs_error *err);
int qs_keystore_action_rotate(struct qs_context *ctx, struct qs_error *err);
int qs_keystore_action_schedule(struct qs_context *ctx, const char *time, struct qs_error *err);
int qs_keystore_action_retention(struct qs_context *ctx, const char *time, struct qs_error *err);
int qs_keystore_action_purge(struct qs_context *ctx, struct qs_error *err);

/* Text of status: when it is rotated, and was. */
void qs_keystore_print_schedule(FILE *out, const json_t *result);

/* Text of status: how long destroyed devices are kept, and which there are. */
void qs_keystore_print_retained(FILE *out, const json_t *result);

#endif
