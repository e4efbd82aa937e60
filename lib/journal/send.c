/*
 * The module: entries by libsystemd's sd_journal_sendv().
 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include <systemd/sd-journal.h>

#include "journal/journal.h"

#define FIELDS_MAX 16U

static int send_fields(const char *const *fields, size_t count)
{
	struct iovec parts[FIELDS_MAX];

	if (count > FIELDS_MAX)
		return -E2BIG;
	for (size_t i = 0; i < count; i++)
		parts[i] = (struct iovec){ (void *)fields[i], strlen(fields[i]) };
	return sd_journal_sendv(parts, (int)count);
}

QS_MODULE_EXPORT extern const struct qs_journal_functions qs_journal_module;
const struct qs_journal_functions qs_journal_module = {
	.module = { QS_JOURNAL_MODULE_VERSION },
	.send = send_fields,
};
