/*
 * What is remembered and told of rotations beside keystore.json: the last error, when the journal
 * got it, and when it was last said that one is overdue (/var/lib/qs-util/rotation.json), and
 * entries for the journal. Nothing depends on the file: what is not of this keystore, or not
 * readable, is no record; hence it needs no sum.
 */
#ifndef QS_OPS_KEYSTORE_RECORD_H
#define QS_OPS_KEYSTORE_RECORD_H

#include <stddef.h>
#include <time.h>

#include "keystore/keystore.h"
#include "ops/ops.h"

struct qs_rotation_record {
	char store[QS_KEYSTORE_UUID_L];
	time_t failed; /* when the last rotation failed; 0: it did not */
	char message[1024];
	bool waiting;   /* it failed as devices could not be brought along */
	time_t told;    /* when the journal last got this message; 0: never */
	time_t overdue; /* when it was last told; 0: never */
};

/* Parse its text, strictly. Returns 0 or -EINVAL. */
int qs_rotation_record_parse(const char *text, size_t size, struct qs_rotation_record *ret);

/* The text that is read back; malloc'ed. */
char *qs_rotation_record_print(const struct qs_rotation_record *record);

/* Put "last_error" (time, message) into RESULT, if the last rotation of KS failed. */
void qs_rotation_add_error(const struct qs_env *env, const struct qs_keystore *ks, json_t *result);

/* A rotation of KS to GENERATION begins, or goes on: not told again of one that keeps failing. */
void qs_rotation_tell_begin(const struct qs_env *env, const struct qs_keystore *ks,
			    uint32_t generation);

/*
 * It has ended, by ERROR or well (kind QS_E_NONE); GENERATION 0: there was none, only devices were
 * to be brought along. REPORT: what became of devices. Also the record. The timer tries every 15
 * minutes: the same failure is told once a day.
 */
void qs_rotation_tell_end(const struct qs_env *env, const struct qs_keystore *ks,
			  uint32_t generation, const struct qs_error *error,
			  const struct qs_outcomes *report);

/* No device of KS waits any more, whoever brought them along: that they did is no error now. */
void qs_rotation_tell_settled(const struct qs_env *env, const struct qs_keystore *ks);

/* Tell that a rotation of KS is overdue, if it is, and that was not told for a day. */
void qs_rotation_tell_overdue(const struct qs_env *env, const struct qs_keystore *ks);

#endif
