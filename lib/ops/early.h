/*
 * Opening before the root file system is mounted: cryptopenall --early in an
 * initramfs, where the header backups are the only thing that tells the disks
 * apart from planted ones, and where the TPM's way has to be closed afterwards.
 */
#ifndef QS_OPS_EARLY_H
#define QS_OPS_EARLY_H

#include <stdbool.h>
#include <stddef.h>

#include "ops/open.h"

/* A line of crypttab that the initramfs opens: LUKS, with the option initramfs or x-initrd.attach.
 */
bool qs_early_is_line(const struct qs_crypttab_entry *e);

/* Wait up to early_wait for devices that the boot needs and that are absent. */
void qs_early_wait(const struct qs_env *env, const struct qs_open_request *requests, size_t count);

/*
 * qs_open_ask_tpm2(), but only for devices whose header backup is there and for tokens that can
 * be closed. For needed devices whose keyslot wants a PIN, OPTIONS->ask_pin is called up to three
 * times; each PIN that is wrong counts once. Then, whatever came of it, and also when no device is
 * there, the TPM's way is closed for all tokens in the headers and in their backups; not with
 * OPTIONS->test. What fails is logged: there are other ways. If closing fails, what the TPM gave is
 * not used.
 */
int qs_early_ask_tpm2(const struct qs_env *env, const struct qs_open_options *options,
		      struct qs_open_request *requests, size_t count, const bool *only,
		      struct qs_tpm2_keys *keys, struct qs_error *err);

/* Run in a worker: refuse a header that is hostile or differs from its backup (QS_E_HOSTILE). */
int qs_early_check(const struct qs_env *env, const struct qs_open_request *request,
		   struct qs_error *err);

/*
 * /run/qs-util/early, for the script that asks for passphrases: a line "STATE NEED NAME LINK" for
 * each device. STATE: open; ask (another key may open it); refused (must not be asked for);
 * failed (no key would open it); absent. NEED: needed, or optional (nofail).
 */
int qs_early_report(const struct qs_env *env, const struct qs_outcomes *outcomes,
		    const struct qs_open_request *requests, struct qs_error *err);

#endif
