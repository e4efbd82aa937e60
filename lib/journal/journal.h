/*
 * systemd's journal, as the rest of qs-util sees it: a module of its own
 * (base/module.h), so that nothing else links libsystemd.
 */
#ifndef QS_JOURNAL_JOURNAL_H
#define QS_JOURNAL_JOURNAL_H

#include <stddef.h>

#include "base/module.h"

#define QS_JOURNAL_MODULE_NAME "journal"
#define QS_JOURNAL_MODULE_SYMBOL "qs_journal_module"
#define QS_JOURNAL_MODULE_VERSION 1U

struct qs_journal_functions {
	struct qs_module module;

	/* One entry of COUNT fields, "NAME=value" each. Returns 0 or -errno. */
	int (*send)(const char *const *fields, size_t count);
};

#endif
