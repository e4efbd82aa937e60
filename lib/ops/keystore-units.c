/*
 * The keystore's part in the units of systemd: where a generation is at a key server, opening
 * at boot has a second turn, for which the first one leaves it (systemd/qs-util-generator).
 */
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/tool.h"
#include "keystore/provider.h"
#include "ops/ops.h"

#define SYSTEMD "/run/systemd/system" /* is there where it runs: sd_booted(3) */

bool qs_keystore_has_server(const struct qs_env *env)
{
	struct qs_keystore ks;

	if (qs_keystore_load(env, &ks, NULL) < 0)
		return false;
	for (size_t i = 0; i < ks.count; i++)
		if (qs_keystore_provider(&ks, ks.generations[i].number)->network)
			return true;
	return false;
}

void qs_keystore_follow_units(const struct qs_env *env, bool had_server)
{
	const char *const argv[] = { "/bin/systemctl", "daemon-reload", NULL };
	struct qs_error err = {};

	/* The units are the running system's, which another root is not. */
	if (*env->root || qs_keystore_has_server(env) == had_server || access(SYSTEMD, F_OK) < 0)
		return;
	if (qs_tool_run(argv, &err) < 0)
		qs_log(QS_LOG_WARNING,
		       "the units of the next start are right; for those of this one run systemctl "
		       "daemon-reload: %s",
		       err.text);
}
