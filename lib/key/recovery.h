/*
 * Recovery keys: 256 random bits that a person can write down and type, in
 * systemd's form, so that systemd-cryptenroll's habits and systemd-cryptsetup's
 * prompt hold for them too.
 */
#ifndef QS_KEY_RECOVERY_H
#define QS_KEY_RECOVERY_H

#include "base/error.h"
#include "base/secret.h"

/*
 * Characters: 64 letters, two for a byte, of those 16 that lie at the same place
 * on most keyboards ("modhex"), in eight groups with a dash between (systemd's
 * recovery-key.h). This text, dashes included, is what opens the keyslot.
 */
#define QS_RECOVERY_L 71

/* A new one, QS_RECOVERY_L bytes without a NUL. */
int qs_recovery_generate(struct qs_secret *ret, struct qs_error *err);

/*
 * If TYPED is a recovery key in any spelling (capitals, dashes or blanks left out
 * or put elsewhere), write it as it was enrolled. Returns 1 it is one, 0 it is not
 * (*ret is left alone), or -errno.
 */
int qs_recovery_spell(const struct qs_secret *typed, struct qs_secret *ret, struct qs_error *err);

#endif
