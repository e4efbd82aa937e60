/*
 * Configuration: no text may crash the parser, and whatever it takes obeys the
 * limits that the rest of the program relies on.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/config.h"
#include "base/env.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);

/* libconfig 1.5 loses the strings of a text with a syntax error. */
const char *__lsan_default_suppressions(void)
{
	return "leak:libconfig";
}

static void demand(bool holds)
{
	if (!holds)
		abort();
}

/* Absolute, and no part of it leads up. */
static bool is_safe_dir(const char *dir)
{
	size_t length = strlen(dir);

	return dir[0] == '/' && !strstr(dir, "/../") &&
	       (length < 3 || strcmp(dir + length - 3, "/..") != 0);
}

static void check_limits(const struct qs_config *c)
{
	demand(is_safe_dir(c->keys_dir) && is_safe_dir(c->headers_dir));
	demand(c->crypttab_options[0] && !strpbrk(c->crypttab_options, " \t\r\n\\"));
	demand(!strstr(c->cipher, "null"));
	demand(c->name_order[0] != NULL);
	demand(c->key_size >= 128 && c->key_size <= 512);
	demand(c->sector_size == 0 || (c->sector_size >= 512 && c->sector_size <= 4096));
	demand(c->metadata_size >= 16384 && c->metadata_size <= 4 << 20);
	demand(c->keyslots_size >= 4096 && c->keyslots_size % 4096 == 0);
	demand(c->open_deadline_s > 0 && c->lock_wait_s <= 3600);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	QS_AUTO(qs_config_done) struct qs_config config;
	QS_AUTO(qs_auto_free) char *text = qs_printf("%.*s", (int)size, (const char *)data);
	struct qs_error err = {};

	qs_config_init(&config);
	if (qs_config_parse(&config, text, "fuzz", &err) < 0)
		demand(err.kind == QS_E_CONFIG && err.text[0]);
	check_limits(&config);
	return 0;
}
