/*
 * The one table of configuration keys: the parser, the commented file in etc/
 * and the manual page all come from it. Private to base/config*.c.
 */
#ifndef QS_BASE_CONFIG_KEYS_H
#define QS_BASE_CONFIG_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include "base/config.h"

enum qs_config_type {
	QS_CONFIG_DIR,     /* char *: an absolute path that crypttab can hold */
	QS_CONFIG_PROGRAM, /* char *: the same of a program, or "" */
	QS_CONFIG_TPM,     /* char *: auto, none, or what tss2 knows it by */
	QS_CONFIG_SERVERS, /* char *: HOST[:PORT],... or "" */
	QS_CONFIG_NAME,    /* char *: a name or path at a key server, or "" */
	QS_CONFIG_USER,    /* char *: a name of a user, or "" */
	QS_CONFIG_KMIP,    /* char *: auto, or a version of KMIP */
	QS_CONFIG_OPTIONS, /* char *: crypttab's fourth field */
	QS_CONFIG_CIPHER,  /* char * */
	QS_CONFIG_NAMES,   /* char **, NULL-terminated */
	QS_CONFIG_NUMBER,  /* unsigned */
	QS_CONFIG_SECONDS, /* unsigned */
	QS_CONFIG_SIZE,    /* uint64_t, bytes */
	QS_CONFIG_BOOL,    /* bool */
};

struct qs_config_row {
	const char *name;
	enum qs_config_type type;
	bool power_of_two; /* numbers only, as all up to number */
	bool zero;         /* 0 is allowed too */
	uint64_t min, max;
	uint64_t multiple_of; /* 0: any */
	uint64_t number;      /* default */
	const char *text;     /* default of the types that are char * */
	size_t offset;        /* in struct qs_config */
	const char *help;     /* lines of up to 90 characters */
};

extern const struct qs_config_row qs_config_rows[];
extern const size_t qs_config_row_count;

/* Default of the key of type QS_CONFIG_NAMES; NULL-terminated. */
extern const char *const qs_config_names[];

#define QS_CONFIG_ALLOWED_L 160

/* What ROW allows, for errors and the manual: "16 KiB to 4 MiB, a power of two". */
void qs_config_allowed(const struct qs_config_row *row, char ret[QS_CONFIG_ALLOWED_L]);

#endif
