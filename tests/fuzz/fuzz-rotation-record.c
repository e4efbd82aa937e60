/*
 * What is remembered of rotations: what passes is the same after writing it again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "ops/keystore-record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
	if (!holds)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	QS_AUTO(qs_auto_free) char *text = NULL;
	struct qs_rotation_record record, again;

	if (qs_rotation_record_parse((const char *)data, size, &record) < 0)
		return 0;
	demand(qs_keystore_is_uuid(record.store));
	demand(record.failed || !record.message[0]);
	text = qs_rotation_record_print(&record);
	demand(qs_rotation_record_parse(text, strlen(text), &again) == 0);
	demand(again.failed == record.failed && again.overdue == record.overdue);
	demand(again.waiting == record.waiting && (record.failed || !record.waiting));
	demand(again.told == record.told && (record.failed || !record.told));
	demand(strcmp(again.store, record.store) == 0);
	return 0;
}
