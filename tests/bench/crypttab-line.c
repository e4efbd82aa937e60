/*
 * Goal G13: change one line of crypttab, durably, as every command of ours does
 * it. A program of its own, because each command has other work beside it.
 *
 * Usage: crypttab-line ROOT NAME DEVICE KEYFILE
 */
#include <stdio.h>

#include "base/cleanup.h"
#include "tab/crypttab.h"

static int change(const struct qs_env *env, char **field, struct qs_error *err)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	QS_AUTO(qs_auto_close) int lock = qs_tab_lock(env, err);
	int r;

	if (lock < 0)
		return lock;
	r = qs_crypttab_load(env, &tab, err);
	if (r == 0)
		r = qs_crypttab_set(tab, field[0], field[1], field[2], NULL, err);
	if (r == 0)
		return qs_fail(err, QS_E_FAILED, "the line was so already");
	return r < 0 ? r : qs_crypttab_save(env, tab, err);
}

int main(int argc, char **argv)
{
	struct qs_env env = {};
	struct qs_error err = {};
	int r;

	if (argc != 5)
		return 64;
	env.root = argv[1];
	qs_config_init(&env.config);
	r = change(&env, argv + 2, &err);
	if (r < 0)
		(void)fprintf(stderr, "crypttab-line: %s\n", err.text);
	qs_config_done(&env.config);
	return r < 0;
}
