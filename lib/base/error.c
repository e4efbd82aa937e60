#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct kind_row {
	const char *name;
	int code;
	int exit;
	bool retryable;
};

/* clang-format off */
static const struct kind_row kinds[QS_E_KINDS] = {
	[QS_E_NONE]          = { "ok",               0,            0, false },
	[QS_E_FAILED]        = { "failed",           EIO,          1, false },
	[QS_E_IO]            = { "io-error",         EIO,          1, false },
	[QS_E_NO_SPACE]      = { "no-space",         ENOSPC,       1, false },
	[QS_E_READ_ONLY]     = { "read-only",        EROFS,        1, false },
	[QS_E_INTERRUPTED]   = { "interrupted",      EINTR,        1, true  },
	[QS_E_DEADLINE]      = { "deadline",         ETIMEDOUT,    1, true  },
	[QS_E_NO_DM]         = { "no-device-mapper", ENOTSUP,      1, false },
	[QS_E_NO_KEY]        = { "no-key",           EPERM,        2, false },
	[QS_E_KEY_FILE]      = { "key-file",         EKEYREJECTED, 2, false },
	[QS_E_TPM]           = { "tpm",              ENOTRECOVERABLE, 2, false },
	[QS_E_TPM_ABSENT]    = { "tpm-absent",       ENXIO,        2, false },
	[QS_E_TPM_LOCKOUT]   = { "tpm-lockout",      ENOLCK,       2, false },
	[QS_E_TPM_PCR]       = { "tpm-pcr",          ESTALE,       2, false },
	[QS_E_PIN]           = { "pin",              ENOANO,       2, false },
	[QS_E_NOT_PERMITTED] = { "not-permitted",    EACCES,       2, false },
	[QS_E_MEMORY]        = { "memory",           ENOMEM,       3, true  },
	[QS_E_NO_DEVICE]     = { "no-device",        ENODEV,       4, false },
	[QS_E_WRONG_DEVICE]  = { "wrong-device",     ENOTBLK,      4, false },
	[QS_E_NOT_LUKS]      = { "not-luks",         EMEDIUMTYPE,  4, false },
	[QS_E_DAMAGED]       = { "header-damaged",   EBADMSG,      4, false },
	[QS_E_TOO_SMALL]     = { "too-small",        EFBIG,        4, false },
	[QS_E_IN_USE]        = { "in-use",           EBUSY,        5, false },
	[QS_E_EXISTS]        = { "exists",           EEXIST,       5, false },
	[QS_E_LOCKED]        = { "locked",           EBUSY,        5, true  },
	[QS_E_REFUSED]       = { "refused",          ENOTEMPTY,    6, false },
	[QS_E_FORBIDDEN]     = { "forbidden",        ENOTEMPTY,    6, false },
	[QS_E_HOSTILE]       = { "header-refused",   EBADMSG,      6, false },
	[QS_E_UNCONFIRMED]   = { "not-confirmed",    ECANCELED,    6, false },
	[QS_E_PARTIAL]       = { "partial",          EIO,          7, false },
	[QS_E_USAGE]         = { "usage",            EINVAL,      64, false },
	[QS_E_TEMPORARY]     = { "temporary",        EAGAIN,      75, true  },
	[QS_E_CONFIG]        = { "configuration",    EINVAL,      78, false },
};
/* clang-format on */

static const struct kind_row *row(enum qs_kind kind)
{
	return (unsigned)kind < QS_E_KINDS ? &kinds[kind] : &kinds[QS_E_FAILED];
}

const char *qs_kind_name(enum qs_kind kind)
{
	return row(kind)->name;
}

int qs_kind_exit(enum qs_kind kind)
{
	return row(kind)->exit;
}

const char *qs_exit_meaning(int status)
{
	switch (status) {
	case 0:
		return "success, and durable: a power cut cannot undo it";
	case 1:
		return "failed";
	case 2:
		return "no key opens the device, or not permitted";
	case 3:
		return "out of memory";
	case 4:
		return "wrong device: absent, not LUKS, damaged, too small";
	case 5:
		return "busy, or exists already";
	case 6:
		return "refused for safety, or not confirmed; --force overrides some refusals, --yes confirms";
	case 7:
		return "some devices done, some failed";
	case 64:
		return "wrong usage";
	case 75:
		return "temporary failure, try again later";
	case 78:
		return "the configuration is wrong";
	default:
		return NULL;
	}
}

int qs_kind_errno(enum qs_kind kind)
{
	return -row(kind)->code;
}

bool qs_kind_retryable(enum qs_kind kind)
{
	return row(kind)->retryable;
}

enum qs_kind qs_kind_of_name(const char *name)
{
	for (unsigned i = 0; i < QS_E_KINDS; i++)
		if (name && strcmp(kinds[i].name, name) == 0)
			return (enum qs_kind)i;
	return QS_E_FAILED;
}

enum qs_kind qs_kind_of_errno(int code)
{
	switch (code < 0 ? -code : code) {
	case 0:
		return QS_E_NONE;
	case ENOMEM:
		return QS_E_MEMORY;
	case ENOSPC:
	case EDQUOT:
		return QS_E_NO_SPACE;
	case EROFS:
		return QS_E_READ_ONLY;
	case EPERM:
	case EACCES:
		return QS_E_NOT_PERMITTED;
	case ENODEV:
	case ENXIO:
		return QS_E_NO_DEVICE;
	case EBUSY:
		return QS_E_IN_USE;
	case EEXIST:
		return QS_E_EXISTS;
	case EIO:
		return QS_E_IO;
	case EINTR:
		return QS_E_INTERRUPTED;
	case ETIMEDOUT:
		return QS_E_DEADLINE;
	case EAGAIN:
		return QS_E_TEMPORARY;
	default:
		return QS_E_FAILED;
	}
}

static void __attribute__((format(printf, 3, 0)))
set_text(struct qs_error *err, enum qs_kind kind, const char *format, va_list ap)
{
	if (!err)
		return;
	err->kind = kind;
	(void)vsnprintf(err->text, sizeof(err->text), format, ap);
}

int qs_error_set(struct qs_error *err, enum qs_kind kind, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	set_text(err, kind, format, ap);
	va_end(ap);
	return qs_kind_errno(kind);
}

int qs_error_set_errno(struct qs_error *err, int code, const char *format, ...)
{
	va_list ap;

	code = code < 0 ? -code : code;
	va_start(ap, format);
	set_text(err, qs_kind_of_errno(code), format, ap);
	va_end(ap);
	qs_error_append(err, ": %s", strerror(code));
	return -code;
}

void qs_error_prefix(struct qs_error *err, const char *format, ...)
{
	char old[sizeof(err->text)];
	va_list ap;

	if (!err)
		return;
	memcpy(old, err->text, sizeof(old));
	va_start(ap, format);
	(void)vsnprintf(err->text, sizeof(err->text), format, ap);
	va_end(ap);
	qs_error_append(err, ": %s", old);
}

void qs_error_append(struct qs_error *err, const char *format, ...)
{
	size_t used;
	va_list ap;

	if (!err)
		return;
	used = strlen(err->text);
	va_start(ap, format);
	(void)vsnprintf(err->text + used, sizeof(err->text) - used, format, ap);
	va_end(ap);
}
