#define _GNU_SOURCE
#include "base/config.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <libconfig.h>

#include "base/cleanup.h"
#include "base/config-keys.h"
#include "base/env.h"
#include "base/file.h"
#include "base/text.h"

#define MAX_FILE (1U << 20)
/* The longest name that device-mapper takes and ".key" must still fit behind a directory. */
#define MAX_DIR 1024
#define MAX_CIPHER 63
#define MAX_NAMES 64

/* One setting on its way from the file into the struct. */
struct assignment {
	const struct qs_config_row *row;
	const config_setting_t *setting;
	const char *file;
	void *target; /* the field */
};

static const struct qs_config_row *find_row(const char *name)
{
	for (size_t i = 0; i < qs_config_row_count; i++)
		if (strcmp(qs_config_rows[i].name, name) == 0)
			return &qs_config_rows[i];
	return NULL;
}

static void *field(struct qs_config *config, const struct qs_config_row *row)
{
	return (char *)config + row->offset;
}

static bool is_text(const struct qs_config_row *row)
{
	return row->type == QS_CONFIG_DIR || row->type == QS_CONFIG_PROGRAM ||
	       row->type == QS_CONFIG_OPTIONS || row->type == QS_CONFIG_CIPHER ||
	       row->type == QS_CONFIG_TPM || row->type == QS_CONFIG_SERVERS ||
	       row->type == QS_CONFIG_KMIP || row->type == QS_CONFIG_NAME ||
	       row->type == QS_CONFIG_USER;
}

static void free_names(char ***names)
{
	for (size_t i = 0; *names && (*names)[i]; i++)
		free((*names)[i]);
	free(*names);
	*names = NULL;
}

static void store_number(const struct qs_config_row *row, void *target, uint64_t number)
{
	if (row->type == QS_CONFIG_SIZE)
		*(uint64_t *)target = number;
	else if (row->type == QS_CONFIG_BOOL)
		*(bool *)target = number != 0;
	else
		*(unsigned *)target = (unsigned)number;
}

/* Room for MAX_NAMES names and the NULL behind them. */
static char **new_names(void)
{
	char **names = calloc(MAX_NAMES + 1, sizeof(*names));

	if (!names)
		abort();
	return names;
}

static char **default_names(void)
{
	char **names = new_names();

	for (size_t i = 0; qs_config_names[i]; i++)
		names[i] = qs_strdup(qs_config_names[i]);
	return names;
}

void qs_config_init(struct qs_config *ret)
{
	memset(ret, 0, sizeof(*ret));
	for (size_t i = 0; i < qs_config_row_count; i++) {
		const struct qs_config_row *row = &qs_config_rows[i];

		if (row->type == QS_CONFIG_NAMES)
			*(char ***)field(ret, row) = default_names();
		else if (is_text(row))
			*(char **)field(ret, row) = qs_strdup(row->text);
		else
			store_number(row, field(ret, row), row->number);
	}
}

void qs_config_done(struct qs_config *config)
{
	for (size_t i = 0; i < qs_config_row_count; i++) {
		const struct qs_config_row *row = &qs_config_rows[i];

		if (row->type == QS_CONFIG_NAMES)
			free_names(field(config, row));
		else if (is_text(row))
			qs_auto_free(field(config, row));
	}
}

/* The value as a piece of a sentence; the file may hold anything. */
static void show(const config_setting_t *s, char *buffer, size_t size)
{
	const char *text = config_setting_get_string(s);

	switch (config_setting_type(s)) {
	case CONFIG_TYPE_STRING:
		(void)snprintf(buffer, size, "\"%.60s\"", text ? text : "");
		break;
	case CONFIG_TYPE_INT:
	case CONFIG_TYPE_INT64:
		(void)snprintf(buffer, size, "%lld", config_setting_get_int64(s));
		break;
	case CONFIG_TYPE_BOOL:
		(void)snprintf(buffer, size, "%s", config_setting_get_bool(s) ? "true" : "false");
		break;
	case CONFIG_TYPE_FLOAT:
		(void)snprintf(buffer, size, "a number with a fraction");
		break;
	default:
		(void)snprintf(buffer, size, "a list or group");
	}
	for (char *p = buffer; *p; p++)
		if (!isprint((unsigned char)*p))
			*p = '?';
}

static int not_allowed(const struct assignment *a, const config_setting_t *culprit,
		       struct qs_error *err)
{
	char found[80], allowed[QS_CONFIG_ALLOWED_L];

	show(culprit, found, sizeof(found));
	qs_config_allowed(a->row, allowed);
	return qs_fail(err, QS_E_CONFIG, "%s:%u: %s is %s; allowed: %s", a->file,
		       config_setting_source_line(culprit), a->row->name, found, allowed);
}

static bool all_bytes(const char *text, bool (*accept)(char c))
{
	while (*text && accept(*text))
		text++;
	return !*text;
}

static bool is_good_path(const char *text)
{
	return strlen(text) <= MAX_DIR && qs_text_is_normal_path(text) &&
	       all_bytes(text, qs_text_is_plain);
}

/* ':' would make systemd take the rest of a key's path for another device. */
static bool is_good_dir(const char *text)
{
	return is_good_path(text) && !strchr(text, ':');
}

/* A default like "swap" would have every data disk overwritten at the next boot. */
static bool is_good_options(const char *text)
{
	static const char *const never[] = { "plain", "swap",    "tmp",  "tcrypt", "tcrypt-hidden",
					     "bitlk", "fvault2", "none", "-" };
	size_t length;

	if (!*text || strlen(text) > MAX_DIR || !all_bytes(text, qs_text_is_plain))
		return false;
	for (const char *p = text; *p; p += length + (p[length] == ',')) {
		length = strcspn(p, ",");
		for (size_t i = 0; i < QS_ARRAY_SIZE(never); i++)
			if (strcspn(p, ",=") == strlen(never[i]) &&
			    strncmp(p, never[i], strlen(never[i])) == 0)
				return false;
	}
	return true;
}

static bool is_good_cipher(const char *text)
{
	return strlen(text) <= MAX_CIPHER && all_bytes(text, qs_text_is_plain) &&
	       text[strcspn(text, "-")] == '-' && text[0] != '-' && !strcasestr(text, "null");
}

/* A driver's name and its configuration; a path as a driver would be a library to load. */
static bool is_good_tpm(const char *text)
{
	size_t driver = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");

	if (strcmp(text, "auto") == 0 || strcmp(text, "none") == 0)
		return true;
	return driver > 0 && text[driver] == ':' && strlen(text) <= MAX_DIR &&
	       all_bytes(text, qs_text_is_plain);
}

/* Which of them is a host is looked at when one is connected to. */
static bool is_good_servers(const char *text)
{
	return strlen(text) <= MAX_DIR && all_bytes(text, qs_text_is_plain) && !strchr(text, '/') &&
	       !strstr(text, ",,");
}

/* It becomes a part of a URL and of JSON. */
static bool is_good_name(const char *text)
{
	static const char all[] = "abcdefghijklmnopqrstuvwxyz"
				  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/";
	size_t length = strlen(text);

	return strspn(text, all) == length && length <= MAX_DIR && !strstr(text, "..") &&
	       !strstr(text, "//") && *text != '/' && (length == 0 || text[length - 1] != '/');
}

/* Visible ASCII that libconfig does not escape. */
static bool is_good_user(const char *text)
{
	for (const char *c = text; *c; c++)
		if (*c < '!' || *c > '~' || *c == '"' || *c == '\\')
			return false;
	return strlen(text) <= MAX_DIR;
}

static bool is_good_kmip(const char *text)
{
	static const char *const all[] = { "auto", "1.0", "1.1", "1.2", "1.3", "1.4", "2.0" };

	for (size_t i = 0; i < QS_ARRAY_SIZE(all); i++)
		if (strcmp(all[i], text) == 0)
			return true;
	return false;
}

static int store_text(const struct assignment *a, struct qs_error *err)
{
	const char *text = config_setting_get_string(a->setting);
	bool good = false;

	if (text && a->row->type == QS_CONFIG_DIR)
		good = is_good_dir(text);
	else if (text && a->row->type == QS_CONFIG_PROGRAM)
		good = !*text || is_good_path(text);
	else if (text && a->row->type == QS_CONFIG_OPTIONS)
		good = is_good_options(text);
	else if (text && a->row->type == QS_CONFIG_TPM)
		good = is_good_tpm(text);
	else if (text && a->row->type == QS_CONFIG_SERVERS)
		good = is_good_servers(text);
	else if (text && a->row->type == QS_CONFIG_NAME)
		good = is_good_name(text);
	else if (text && a->row->type == QS_CONFIG_USER)
		good = is_good_user(text);
	else if (text && a->row->type == QS_CONFIG_KMIP)
		good = is_good_kmip(text);
	else if (text)
		good = is_good_cipher(text);
	if (!good)
		return not_allowed(a, a->setting, err);
	free(*(char **)a->target);
	*(char **)a->target = qs_strdup(text);
	return 0;
}

/* The first item that is no beginning of a link's name, or NULL. */
static const config_setting_t *bad_name(const config_setting_t *list)
{
	for (int i = 0; i < config_setting_length(list); i++) {
		const config_setting_t *item = config_setting_get_elem(list, (unsigned)i);
		const char *text = config_setting_get_string(item);

		if (!text || !*text || !all_bytes(text, qs_text_is_name))
			return item;
	}
	return NULL;
}

static int store_names(const struct assignment *a, struct qs_error *err)
{
	char ***names = a->target;
	int count = config_setting_length(a->setting);
	const config_setting_t *bad;

	if (!config_setting_is_array(a->setting) || count < 1 || count > MAX_NAMES)
		return not_allowed(a, a->setting, err);
	bad = bad_name(a->setting);
	if (bad)
		return not_allowed(a, bad, err);
	free_names(names);
	*names = new_names();
	for (int i = 0; i < count; i++)
		(*names)[i] = qs_strdup(config_setting_get_string_elem(a->setting, i));
	return 0;
}

static bool number_is_allowed(const struct qs_config_row *row, uint64_t n)
{
	if (n == 0 && row->zero)
		return true;
	return n >= row->min && n <= row->max && (!row->power_of_two || (n & (n - 1)) == 0) &&
	       (row->multiple_of == 0 || n % row->multiple_of == 0);
}

static int get_number(const struct assignment *a, uint64_t *ret)
{
	const config_setting_t *s = a->setting;
	long long integer = config_setting_get_int64(s);

	if (a->row->type == QS_CONFIG_SIZE && config_setting_type(s) == CONFIG_TYPE_STRING)
		return qs_text_parse_size(config_setting_get_string(s), ret);
	if (a->row->type == QS_CONFIG_SECONDS && config_setting_type(s) == CONFIG_TYPE_STRING)
		return qs_text_parse_seconds(config_setting_get_string(s), ret);
	if (config_setting_type(s) != CONFIG_TYPE_INT &&
	    config_setting_type(s) != CONFIG_TYPE_INT64)
		return -EINVAL;
	*ret = (uint64_t)integer;
	return integer < 0 ? -ERANGE : 0;
}

static int store(const struct assignment *a, struct qs_error *err)
{
	uint64_t number;

	if (is_text(a->row))
		return store_text(a, err);
	if (a->row->type == QS_CONFIG_NAMES)
		return store_names(a, err);
	if (a->row->type == QS_CONFIG_BOOL) {
		if (config_setting_type(a->setting) != CONFIG_TYPE_BOOL)
			return not_allowed(a, a->setting, err);
		number = config_setting_get_bool(a->setting) != 0;
	} else if (get_number(a, &number) < 0 || !number_is_allowed(a->row, number)) {
		return not_allowed(a, a->setting, err);
	}
	store_number(a->row, a->target, number);
	return 0;
}

/* Behind a string or comment that begins at P, or P itself. */
static const char *skip_quoted(const char *p)
{
	const char *end;

	if (*p == '#' || (p[0] == '/' && p[1] == '/'))
		return p + strcspn(p, "\n");
	if (p[0] == '/' && p[1] == '*') {
		end = strstr(p + 2, "*/");
		return end ? end + 2 : p + strlen(p);
	}
	if (*p != '"')
		return p;
	for (p++; *p && *p != '"'; p++)
		if (*p == '\\' && p[1])
			p++;
	return *p ? p + 1 : p;
}

/* Behind the number at P; NULL when libconfig would not read it as it stands there. */
static const char *skip_number(const char *p)
{
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(p, &end, p[0] == '0' && (p[1] == 'x' || p[1] == 'X') ? 16 : 10);
	if (errno || n > INT64_MAX || (n > INT32_MAX && *end != 'L'))
		return NULL;
	return end;
}

static unsigned line_of(const char *text, const char *p)
{
	unsigned line = 1;

	for (; text < p; text++)
		line += *text == '\n';
	return line;
}

/*
 * Refuse what libconfig 1.5 takes in silence: it keeps the low 32 bits of a
 * larger number (4294967296 becomes 0, which means "automatic"), and @include
 * opens any path, a device or FIFO too.
 */
static int check_source(const char *text, const char *file, struct qs_error *err)
{
	const char *p = text;

	while (*p) {
		const char *start = p;

		p = skip_quoted(p);
		if (p != start)
			continue;
		if (*p == '@')
			return qs_fail(err, QS_E_CONFIG, "%s:%u: @include is not supported", file,
				       line_of(text, p));
		if (isalpha((unsigned char)*p) || *p == '*')
			while (isalnum((unsigned char)*p) || (*p && strchr("*_-", *p)))
				p++;
		else if (isdigit((unsigned char)*p))
			p = skip_number(p);
		else
			p++;
		if (!p)
			return qs_fail(
				err, QS_E_CONFIG,
				"%s:%u: number too large; write an L behind it, or a size with its unit, \"8 GiB\"",
				file, line_of(text, start));
	}
	return 0;
}

static int store_all(struct qs_config *config, const config_setting_t *root, const char *file,
		     struct qs_error *err)
{
	struct assignment a = { .file = file };

	for (int i = 0; i < config_setting_length(root); i++) {
		int r;

		a.setting = config_setting_get_elem(root, (unsigned)i);
		a.row = find_row(config_setting_name(a.setting));
		if (!a.row)
			return qs_fail(err, QS_E_CONFIG,
				       "%s:%u: unknown key %.60s, see qs-util.conf(5)", file,
				       config_setting_source_line(a.setting),
				       config_setting_name(a.setting));
		a.target = field(config, a.row);
		r = store(&a, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int qs_config_parse(struct qs_config *config, const char *text, const char *file,
		    struct qs_error *err)
{
	QS_AUTO(config_destroy) config_t parsed;
	int r;

	config_init(&parsed);
	r = check_source(text, file, err);
	if (r < 0)
		return r;
	if (!config_read_string(&parsed, text))
		return qs_fail(err, QS_E_CONFIG, "%s:%d: %s", file, config_error_line(&parsed),
			       config_error_text(&parsed));
	return store_all(config, config_root_setting(&parsed), file, err);
}

int qs_config_load(struct qs_config *config, const char *file, bool must_exist,
		   struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *text = NULL;
	size_t size;
	int r;

	r = qs_file_read_optional(file, MAX_FILE, &text, &size, err);
	if (r == 0 && !must_exist)
		return 0;
	if (r == 0)
		return qs_fail(err, QS_E_CONFIG, "there is no configuration file %s", file);
	if ((r == -EINVAL || r == -EFBIG) && err)
		err->kind = QS_E_CONFIG;
	if (r < 0)
		return r;
	if (strlen(text) != size)
		return qs_fail(err, QS_E_CONFIG, "%s:%u: a NUL byte; the file is damaged", file,
			       line_of(text, text + strlen(text)));
	return qs_config_parse(config, text, file, err);
}
