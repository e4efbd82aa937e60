/* What may stand in a line of ours; see qs_crypttab_check(). */
#define _GNU_SOURCE
#include "tab/crypttab.h"

#include <ctype.h>
#include <string.h>

#include "base/text.h"

/* DM_NAME_LEN of the kernel's dm-ioctl.h, without its NUL. */
#define MAX_NAME 127
/* PATH_MAX without its NUL; far below the megabyte at which systemd gives up on a file. */
#define MAX_FIELD 4095

enum { NAME, DEVICE, KEY, OPTIONS, FIELDS };

static const char *const field_names[FIELDS] = { "name", "device", "key file", "options" };

/*
 * systemd reads "FILE:DEVICE" as a file on another device where what stands
 * behind the last colon is a path or a tag; Debian takes all of it for the path.
 */
static bool names_device(const char *text, size_t size)
{
	const char *colon = memrchr(text, ':', size);
	const char *end = text + size;

	return colon && colon + 1 < end &&
	       (colon[1] == '/' || memchr(colon, '=', (size_t)(end - colon)));
}

static int check_location(const char *what, const char *text, size_t size, struct qs_error *err)
{
	if (!names_device(text, size))
		return 0;
	return qs_fail(err, QS_E_FAILED,
		       "the %s %.*s cannot stand in crypttab: systemd takes what follows its last "
		       "':' for a device",
		       what, (int)size, text);
}

static int check_options(const char *options, struct qs_error *err)
{
	size_t length;
	int r = 0;

	for (const char *p = options; *p && r == 0; p += length + (p[length] == ',')) {
		length = strcspn(p, ",");
		if (strncmp(p, "header=", 7) == 0)
			r = check_location("header file", p + 7, length - 7, err);
	}
	return r;
}

bool qs_crypttab_no_options(const char *options)
{
	return strcmp(options, "-") == 0 || strcmp(options, "none") == 0 ||
	       !options[strspn(options, ",")];
}

bool qs_crypttab_no_key(const char *key)
{
	return strcmp(key, QS_CRYPTTAB_NO_KEY) == 0 || strcmp(key, "-") == 0;
}

/* What systemd takes for an empty field and Debian literally. */
static bool is_placeholder(size_t field, const char *text)
{
	return (field == OPTIONS && qs_crypttab_no_options(text)) ||
	       (field == KEY && strcmp(text, "-") == 0);
}

static int check_bytes(size_t field, const char *text, struct qs_error *err)
{
	bool (*accept)(char) = field == NAME ? qs_text_is_name : qs_text_is_plain;

	for (const char *p = text; *p; p++) {
		if (accept(*p) && !(field == NAME && p == text && *p == '#'))
			continue;
		return qs_fail(
			err, QS_E_FAILED,
			isgraph((unsigned char)*p)
				? "the %s of a crypttab line cannot have a '%c' at byte %zu"
				: "the %s of a crypttab line cannot have the byte 0x%02x at byte %zu",
			field_names[field], (unsigned char)*p, (size_t)(p - text) + 1);
	}
	return 0;
}

static int check_field(size_t field, const char *text, struct qs_error *err)
{
	size_t max = field == NAME ? MAX_NAME : MAX_FIELD;

	if (!*text || is_placeholder(field, text))
		return qs_fail(err, QS_E_FAILED, "the %s of a crypttab line cannot be '%s'",
			       field_names[field], text);
	if (strlen(text) > max)
		return qs_fail(err, QS_E_FAILED,
			       "the %s of a crypttab line cannot have more than %zu bytes",
			       field_names[field], max);
	if (field == NAME && (strcmp(text, ".") == 0 || strcmp(text, "..") == 0))
		return qs_fail(err, QS_E_FAILED, "a mapping cannot be named '%s'", text);
	return check_bytes(field, text, err);
}

/* A device may be a tag instead ("UUID=..."), a key file the word "none". */
static int check_path(size_t field, const char *text, struct qs_error *err)
{
	if ((field == DEVICE && *text != '/' && strchr(text, '=')) ||
	    (field == KEY && strcmp(text, "none") == 0) || qs_text_is_normal_path(text))
		return 0;
	return qs_fail(err, QS_E_FAILED,
		       "the %s of a crypttab line has to be an absolute path without '.', '..' or "
		       "'//', not %s",
		       field_names[field], text);
}

int qs_crypttab_check(const char *name, const char *device, const char *key, const char *options,
		      struct qs_error *err)
{
	const char *const fields[FIELDS] = { name, device, key, options };
	int r;

	for (size_t i = 0; i < FIELDS; i++) {
		r = check_field(i, fields[i], err);
		if (r == 0 && (i == DEVICE || i == KEY))
			r = check_path(i, fields[i], err);
		if (r < 0)
			return r;
	}
	r = check_location("key file", key, strlen(key), err);
	if (r < 0)
		return r;
	return check_options(options, err);
}
