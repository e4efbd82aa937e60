/*
 * usage: mkhealed ROOT NODE LINK NAME
 *
 * What cryptopen does for TPM2 keyslots when it has opened NODE by its key file, which
 * needs device-mapper: qs_heal() (ops/heal.h) with the configuration below ROOT. Prints the
 * details that it leaves.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "ops/heal.h"
#include "ops/internal.h"

static void to_stderr(enum qs_log_level level, const char *message, void *cookie)
{
	(void)level;
	(void)cookie;
	fprintf(stderr, "%s\n", message);
}

int main(int argc, char **argv)
{
	QS_AUTO(qs_outcomes_done) struct qs_outcomes list = {};
	const struct qs_open_options options = {};
	struct qs_open_request request = {};
	struct qs_env env = {};
	struct qs_error err = {};
	char *file;
	int r;

	if (argc != 5)
		return 64;
	qs_log_install(to_stderr, QS_LOG_NOTICE, NULL);
	env.root = argv[1];
	file = qs_env_path(&env, QS_CONFIG_FILE);
	qs_config_init(&env.config);
	r = qs_config_load(&env.config, file, true, &err);
	free(file);
	if (r == 0)
		r = qs_outcomes_init(&list, (const char *const *)&argv[3], 1, &err);
	if (r < 0) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	request.node = argv[2];
	request.link = argv[3];
	request.name = argv[4];
	qs_outcome_set(&list.items[0].name, argv[4]);
	qs_outcome_detail(&list.items[0], "keyslot", json_integer(0));
	qs_heal(&env, &options, &request, &list);
	(void)json_dumpf(list.items[0].details, stdout, JSON_COMPACT | JSON_SORT_KEYS);
	qs_config_done(&env.config);
	return 0;
}
