/*
 * The file system that a key is on: the system's own, or one that may be away
 * (a USB stick, NFS, CIFS), and what that means for the device's line in crypttab.
 */
#ifndef QS_KEY_PLACE_H
#define QS_KEY_PLACE_H

#include <stdbool.h>

#include "base/env.h"
#include "base/error.h"
#include "tab/crypttab.h"

/*
 * Is PATH (logical) on a mount point that fstab or a systemd unit
 * (media-usb.mount) names, and nothing is mounted there? The clause "/media/usb,
 * which /etc/fstab mounts, is not mounted", malloc'ed, or NULL. An automount
 * that waits for its first use counts as mounted. Reads only local files.
 */
char *qs_key_missing_mount(const struct qs_env *env, const char *path);

/* Is PATH (logical) keys_dir or below it? */
bool qs_key_is_in_dir(const struct qs_env *env, const char *path);

/*
 * Is PATH (logical, absolute) on another file system than /etc/crypttab, or will
 * it be once fstab or a systemd unit mounts what they name? Links are followed,
 * so whoever asks has just seen that PATH answers, or that it does not exist.
 */
bool qs_key_is_apart(const struct qs_env *env, const char *path);

/*
 * OPTIONS for a new line in crypttab, so that it holds no boot; malloc'ed. Added are
 *
 * - "noauto" without a key file (KEY is QS_CRYPTTAB_NO_KEY), and
 * - "nofail" with a key that qs_key_is_apart(),
 *
 * unless they stand there. systemd 252 asks for a passphrase where it finds no
 * key file, with no end to it, and a line without nofail makes the boot wait for
 * the answer.
 */
char *qs_key_line_options(const struct qs_env *env, const char *key, const char *options);

/*
 * Add or change the line of a device of ours, as qs_crypttab_set() does: a line
 * that exists keeps the options that the administrator gave it; a new one gets
 * qs_key_line_options() of those of the configuration.
 */
int qs_key_set_line(const struct qs_env *env, struct qs_crypttab *tab, const char *name,
		    const char *device, const char *key, struct qs_error *err);

/* Can a boot wait for the key of this line, for good? */
bool qs_key_holds_boot(const struct qs_env *env, const struct qs_crypttab_entry *e);

#endif
