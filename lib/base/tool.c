#define _GNU_SOURCE
#include "base/tool.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/env.h"

static void release_actions(posix_spawn_file_actions_t *actions)
{
	(void)posix_spawn_file_actions_destroy(actions);
}

static void release_attributes(posix_spawnattr_t *attributes)
{
	(void)posix_spawnattr_destroy(attributes);
}

/* A group of its own, and the signals as a program expects them. */
static int set_attributes(posix_spawnattr_t *attributes)
{
	sigset_t all, none;
	int r;

	sigfillset(&all);
	sigemptyset(&none);
	r = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF |
							 POSIX_SPAWN_SETSIGMASK);
	if (r == 0)
		r = posix_spawnattr_setsigdefault(attributes, &all);
	return r ? r : posix_spawnattr_setsigmask(attributes, &none);
}

/* Both outputs go to OUT. Returns 0 or an errno value. */
static int start(const char *const *argv, int out, pid_t *ret)
{
	static char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin", locale[] = "LC_ALL=C";
	char *const environment[] = { path, locale, NULL };
	QS_AUTO(release_actions) posix_spawn_file_actions_t actions;
	QS_AUTO(release_attributes) posix_spawnattr_t attributes;
	int r;

	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawnattr_init(&attributes);
	r = set_attributes(&attributes);
	if (r == 0)
		r = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY,
						     0);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&actions, out, STDERR_FILENO);
	return r ? r
		 : posix_spawn(ret, argv[0], &actions, &attributes, (char *const *)argv,
			       environment);
}

/* Read IN to its end and keep the last line that is not blank. */
static void read_words(int in, char *ret, size_t size)
{
	char line[300] = "", c;
	size_t used = 0;
	ssize_t n;

	*ret = '\0';
	while ((n = read(in, &c, 1)) > 0 || (n < 0 && errno == EINTR)) {
		if (n < 0)
			continue;
		if (c != '\n' && used + 1 < sizeof(line)) {
			line[used++] = c;
			line[used] = '\0';
		}
		if (c != '\n')
			continue;
		if (used > 0)
			(void)snprintf(ret, size, "%s", line);
		used = 0;
	}
	if (used > 0)
		(void)snprintf(ret, size, "%s", line);
}

int qs_tool_run(const char *const *argv, struct qs_error *err)
{
	QS_AUTO(qs_auto_close) int in = -1, out = -1;
	const char *name = strrchr(argv[0], '/') + 1;
	char words[300];
	int pipes[2], status, r;
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC) < 0)
		return qs_fail_errno(err, errno, "cannot make a pipe to %s", name);
	in = pipes[0];
	out = pipes[1];
	r = start(argv, out, &pid);
	if (r != 0)
		return qs_fail_errno(err, r, "cannot run %s", argv[0]);
	qs_auto_close(&out);
	read_words(in, words, sizeof(words));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return qs_fail_errno(err, errno, "cannot wait for %s", name);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFSIGNALED(status))
		return qs_fail(err, QS_E_FAILED, "%s was ended by signal %d", name,
			       WTERMSIG(status));
	/* Many tools put their name in front by themselves. */
	if (strncmp(words, name, strlen(name)) == 0 && words[0])
		return qs_fail(err, QS_E_FAILED, "%s", words);
	return qs_fail(err, QS_E_FAILED, "%s failed with status %d%s%s", name, WEXITSTATUS(status),
		       words[0] ? ": " : "", words);
}
