#include "luks/driver.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define CRYPTO_FILE "/proc/crypto"
#define NAME_L 128

/* One entry of /proc/crypto, as far as it matters here. */
struct entry {
	char name[NAME_L];
	char driver[NAME_L];
	long priority;
	bool internal;    /* a helper of another driver, never handed out */
	bool is_untested; /* its self-test is running or has failed */
};

/*
 * The kernel's name of a dm-crypt cipher: CIPHER[:KEYS]-MODE-IV is
 * "MODE(CIPHER)" and "capi:SPEC-IV" is SPEC. Without a mode, and for "plain"
 * alone, dm-crypt takes cbc (Linux, crypt_ctr_cipher_old).
 */
static void kernel_name(const char *cipher, char ret[NAME_L])
{
	const char *mode = strchr(cipher, '-');
	int bare = (int)strcspn(cipher, ":-");
	int length;

	if (strncmp(cipher, "capi:", 5) == 0) {
		const char *iv = strrchr(cipher, '-');

		length = iv ? (int)(iv - cipher - 5) : NAME_L;
		(void)snprintf(ret, NAME_L, "%.*s", length, cipher + 5);
		return;
	}
	if (!mode || strcmp(mode, "-plain") == 0)
		mode = "-cbc";
	length = (int)strcspn(mode + 1, "-");
	(void)snprintf(ret, NAME_L, "%.*s(%.*s)", length, mode + 1, bare, cipher);
}

/* PART stands in DRIVER and no letter or digit follows: "-ce" is in "xts-aes-ce", not in "-ceph".
 */
static bool has_part(const char *driver, const char *part)
{
	const char *found = strstr(driver, part);

	return found && !isalnum((unsigned char)found[strlen(part)]);
}

static const char *family(const char *driver)
{
	if (!*driver)
		return "";
	if (strstr(driver, "vaes"))
		return "vaes";
	if (strstr(driver, "aesni") || strstr(driver, "aes-ni"))
		return "aes-ni";
	if (has_part(driver, "-ce"))
		return "arm-ce";
	if (strstr(driver, "s390"))
		return "s390";
	/* "ecb(" is the kernel's template that calls a one-block cipher again and again. */
	if (strstr(driver, "generic") || strstr(driver, "ecb("))
		return "generic";
	return "other";
}

/* Take "KEY   : VALUE" (LENGTH bytes, no newline) into E. */
static void take_line(const char *line, size_t length, struct entry *e)
{
	const char *colon = memchr(line, ':', length);
	char value[NAME_L];
	size_t skip;

	if (!colon)
		return;
	skip = (size_t)(colon - line) + 1;
	skip += skip < length && line[skip] == ' ';
	(void)snprintf(value, sizeof(value), "%.*s", (int)(length - skip), line + skip);
	if (strncmp(line, "name ", 5) == 0)
		memcpy(e->name, value, sizeof(value));
	else if (strncmp(line, "driver ", 7) == 0)
		memcpy(e->driver, value, sizeof(value));
	else if (strncmp(line, "priority ", 9) == 0)
		e->priority = strtol(value, NULL, 10);
	else if (strncmp(line, "internal ", 9) == 0)
		e->internal = strcmp(value, "yes") == 0;
	else if (strncmp(line, "selftest ", 9) == 0)
		e->is_untested = strcmp(value, "passed") != 0;
}

/* Read one entry up to the blank line behind it. Returns where the next one begins. */
static const char *take_entry(const char *text, struct entry *ret)
{
	*ret = (struct entry){};
	while (*text) {
		size_t length = strcspn(text, "\n");

		take_line(text, length, ret);
		text += length + (text[length] == '\n');
		if (length == 0)
			break;
	}
	return text;
}

void qs_cipher_driver_parse(const char *text, const char *cipher, struct qs_cipher_driver *ret)
{
	char name[NAME_L];
	struct entry e, best = { .priority = -1 };

	kernel_name(cipher, name);
	while (*text) {
		text = take_entry(text, &e);
		if (strcmp(e.name, name) == 0 && !e.internal && !e.is_untested &&
		    e.priority > best.priority)
			best = e;
	}
	*ret = (struct qs_cipher_driver){};
	(void)snprintf(ret->driver, sizeof(ret->driver), "%s", best.driver);
	(void)snprintf(ret->family, sizeof(ret->family), "%s", family(best.driver));
	ret->slow = strcmp(ret->family, "generic") == 0;
}

int qs_cipher_driver(const struct qs_env *env, const char *cipher, struct qs_cipher_driver *ret,
		     struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_env_path(env, CRYPTO_FILE);
	QS_AUTO(qs_auto_fclose) FILE *f = fopen(path, "re");
	QS_AUTO(qs_auto_free) char *text = NULL;
	size_t size = 0;
	ssize_t n;

	if (!f && errno == ENOENT) {
		qs_cipher_driver_parse("", cipher, ret);
		return 0;
	}
	if (!f)
		return qs_fail_errno(err, errno, "cannot open %s", path);
	/* Files in /proc say that they have no bytes, so the text is read to its end. */
	n = getdelim(&text, &size, '\0', f);
	if (ferror(f))
		return qs_fail_errno(err, errno, "cannot read %s", path);
	qs_cipher_driver_parse(n < 0 ? "" : text, cipher, ret);
	return 0;
}
