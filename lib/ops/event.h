/*
 * What happens to devices while nobody looks, for systemd's journal: entries with a
 * message id each, which systemd/qs-util.catalog explains (journalctl -x). Where no
 * journal runs nothing is loaded and nothing is sent.
 */
#ifndef QS_OPS_EVENT_H
#define QS_OPS_EVENT_H

#include "ops/ops.h"

enum qs_event {
	QS_EVENT_OPENED,           /* by QS_WAY */
	QS_EVENT_WAY_FAILED,       /* QS_WAY did not open it: QS_REASON */
	QS_EVENT_REFUSED,          /* what is on the device is not what was enrolled: QS_REASON */
	QS_EVENT_LOCKOUT,          /* the TPM is near its lockout, or locked: QS_REASON */
	QS_EVENT_HEALED,           /* its TPM2 keyslot was sealed anew: QS_REASON */
	QS_EVENT_WAY_LOST,         /* the check found that QS_WAY no longer opens it: QS_REASON */
	QS_EVENT_EXPIRES,          /* something that the keystore needs ends soon: QS_REASON */
	QS_EVENT_KEYS_LOST,        /* the check found that the keystore gives no keys: QS_REASON */
	QS_EVENT_ROTATION_STARTED, /* of the keystore, or it goes on */
	QS_EVENT_ROTATION_SUCCEEDED, /* all that is present is at the new generation */
	QS_EVENT_ROTATION_FAILED,    /* QS_REASON */
	QS_EVENT_ROTATION_OVERDUE,   /* not finished a day after it was due: QS_REASON */
	QS_EVENTS
};

/*
 * Send it. O (may be NULL) is the device that it is about: QS_DEVICE, QS_NAME, QS_UUID;
 * WAY and REASON may be NULL. That it cannot be sent is no failure of anything.
 */
void qs_event_send(const struct qs_env *env, enum qs_event event, const struct qs_outcome *o,
		   const char *way, const char *reason);

/*
 * The same of a rotation of the keystore: QS_EVENT has its name ("KeyRotationFailed"),
 * QS_GENERATION what it makes (0: not known); REASON may be NULL.
 */
void qs_event_send_rotation(const struct qs_env *env, enum qs_event event, uint32_t generation,
			    const char *reason);

/* What cryptopen and cryptopenall did to each device that they had to do with. */
void qs_event_report_open(const struct qs_env *env, const struct qs_outcomes *list);

#endif
