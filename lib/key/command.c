#define _GNU_SOURCE
#include "key/command.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/utf8.h"
#include "key/keyfile.h"

/* A key is small as a rule; the buffer doubles when it is not. */
#define FIRST_BUFFER (64U << 10)

/* Of what it says on standard error; the rest is read and dropped. */
#define SAYS_MAX 300

/* sysexits.h: the same program may succeed later. */
#define STATUS_TEMPORARY 75

/* How long a killed program may take to be gone. */
#define DEATH_MS 2000

struct run {
	const char *program; /* logical */
	unsigned deadline_s;
	pid_t pid;
	int process; /* a descriptor of it, readable when it has ended */
	int out, err;
	struct qs_secret buffer;
	size_t used;
	char says[SAYS_MAX + 1];
	size_t said;
};

bool qs_key_command_is_set(const struct qs_env *env)
{
	return env->config.key_command[0] != '\0';
}

/* ---- may it be run? ---- */

static const char *wrong_with(const struct stat *st, bool last)
{
	const char *problem;

	if (S_ISLNK(st->st_mode))
		return "is a symbolic link";
	if (!last && !S_ISDIR(st->st_mode))
		return "is not a directory";
	if (last && !S_ISREG(st->st_mode))
		return "is not a regular file";
	problem = qs_key_not_private(st, 022);
	if (!problem && last && !(st->st_mode & 0111))
		return "is not executable";
	return problem;
}

/*
 * From the top down: what a directory holds is as good as the directory, so
 * nobody can change afterwards what was found right. With --root the check
 * begins behind it.
 */
int qs_key_command_check(const struct qs_env *env, struct qs_error *err)
{
	const char *program = env->config.key_command;
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, program);
	char *p = real + (qs_env_logical(env, real) - real);
	bool last = false;

	while (!last) {
		size_t length = 1 + strcspn(p + 1, "/");
		const char *problem;
		struct stat st;
		char slash;

		p += length;
		slash = *p;
		*p = '\0';
		last = slash == '\0';
		if (lstat(real, &st) < 0)
			return qs_fail(err, QS_E_CONFIG,
				       "the key command %s cannot be used: %s: %s", program, real,
				       strerror(errno));
		problem = wrong_with(&st, last);
		if (problem)
			return qs_fail(err, QS_E_CONFIG, "the key command %s is not run: %s %s",
				       program, real, problem);
		*p = slash;
	}
	return 0;
}

/* ---- in the new process ---- */

static void __attribute__((noreturn))
become(const char *real, char *const argv[], int in, const int out[2], const int err[2])
{
	char *const environment[] = { (char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
				      (char *)"LANG=C", NULL };
	sigset_t none;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)setpgid(0, 0);
	/* A worker ignores signals, and what is ignored stays so over execve(). */
	for (int number = 1; number < NSIG; number++)
		(void)signal(number, SIG_DFL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(in, 0) < 0 || dup2(out[1], 1) < 0 || dup2(err[1], 2) < 0 || chdir("/") < 0 ||
	    close_range(3, ~0U, 0) < 0)
		_exit(127);
	(void)execve(real, argv, environment);
	dprintf(2, "cannot be run: %s", strerror(errno));
	_exit(127);
}

/* ---- in the worker ---- */

static int start(struct run *run, const char *real, char *const argv[], struct qs_error *error)
{
	QS_AUTO(qs_auto_close) int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int out[2], err[2];

	if (in < 0 || pipe2(out, O_CLOEXEC) < 0)
		return qs_fail_errno(error, errno, "cannot run the key command");
	run->out = out[0];
	if (pipe2(err, O_CLOEXEC) < 0) {
		close(out[1]);
		return qs_fail_errno(error, errno, "cannot run the key command");
	}
	run->err = err[0];
	run->pid = fork();
	if (run->pid == 0)
		become(real, argv, in, out, err);
	close(out[1]);
	close(err[1]);
	if (run->pid < 0)
		return qs_fail_errno(error, errno, "cannot run the key command");
	/* Here too: it must be done before anybody kills the group. */
	(void)setpgid(run->pid, run->pid);
	run->process = pidfd_open(run->pid, 0);
	if (run->process < 0 || fcntl(run->out, F_SETFL, O_NONBLOCK) < 0 ||
	    fcntl(run->err, F_SETFL, O_NONBLOCK) < 0)
		return qs_fail_errno(error, errno, "cannot watch the key command");
	return 0;
}

/* Twice the room, at most one byte more than a key may have. The old buffer is wiped. */
static int grow(struct qs_secret *buffer, size_t used, struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret larger = {};
	size_t size = buffer->size ? buffer->size * 2 : FIRST_BUFFER;
	int r = qs_secret_init(&larger, size > QS_KEY_MAX ? QS_KEY_MAX + 1 : size, err);

	if (r < 0)
		return r;
	if (used > 0)
		memcpy(larger.data, buffer->data, used);
	qs_secret_done(buffer);
	*buffer = qs_secret_move(&larger);
	return 0;
}

/* Take what the pipe holds now. Returns -errno, after an end of file too with *fd closed. */
static int read_key(struct run *run, struct qs_error *err)
{
	while (run->out >= 0) {
		ssize_t n;
		int r = run->used == run->buffer.size ? grow(&run->buffer, run->used, err) : 0;

		if (r < 0)
			return r;
		n = read(run->out, (char *)run->buffer.data + run->used,
			 run->buffer.size - run->used);
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n < 0 && errno != EINTR)
			return qs_fail_errno(err, errno, "cannot read from the key command");
		if (n == 0)
			qs_auto_close(&run->out);
		if (n > 0)
			run->used += (size_t)n;
		if (run->used > QS_KEY_MAX)
			return qs_fail(err, QS_E_KEY_FILE,
				       "the key command %s printed more than %u bytes; LUKS takes "
				       "no longer key",
				       run->program, QS_KEY_MAX);
	}
	return 0;
}

static void read_words(struct run *run)
{
	char chunk[512];
	ssize_t n;

	while (run->err >= 0 && (n = read(run->err, chunk, sizeof(chunk))) != -1) {
		size_t room = SAYS_MAX - run->said;
		size_t some = (size_t)n < room ? (size_t)n : room;

		if (n == 0)
			qs_auto_close(&run->err);
		memcpy(run->says + run->said, chunk, some);
		run->said += some;
	}
}

static int64_t now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/*
 * Until the program ends: one that it has left behind may keep the pipes open,
 * and is not waited for.
 */
static int collect(struct run *run, struct qs_error *err)
{
	int64_t end = now_ms() + (int64_t)run->deadline_s * 1000;
	bool ended = false;
	int r = 0;

	while (r == 0 && !ended) {
		struct pollfd fds[] = { { run->out, POLLIN, 0 },
					{ run->err, POLLIN, 0 },
					{ run->process, POLLIN, 0 } };
		int64_t left = end - now_ms();

		if (left <= 0)
			return qs_fail(
				err, QS_E_DEADLINE,
				"the key command %s was killed, as it had not ended after %u "
				"seconds (key_deadline)",
				run->program, run->deadline_s);
		(void)poll(fds, QS_ARRAY_SIZE(fds), (int)left);
		ended = fds[2].revents != 0;
		read_words(run);
		r = read_key(run, err);
	}
	return r;
}

/*
 * Kill what is left of the group; the number stays taken until the program has
 * been waited for. Returns its status, or -1 when it hangs inside the kernel.
 */
static int finish(const struct run *run)
{
	struct pollfd fd = { run->process, POLLIN, 0 };
	int status = -1;

	(void)kill(-run->pid, SIGKILL);
	if (run->process < 0 || poll(&fd, 1, DEATH_MS) == 1)
		(void)waitpid(run->pid, &status, 0);
	return status;
}

/* What it said, on one line and without control characters, behind ": "; "" for nothing. */
static char *words(struct run *run)
{
	QS_AUTO(qs_auto_free) char *printable = NULL;

	while (run->said > 0 && strchr(" \t\r\n", run->says[run->said - 1]))
		run->said--;
	run->says[run->said] = '\0';
	for (char *p = run->says; *p; p++)
		if (*p == '\n')
			*p = ' ';
	printable = qs_utf8_printable(run->says);
	return *printable ? qs_printf(": %s", printable) : qs_strdup("");
}

static int verdict(struct run *run, int status, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *says = words(run);
	bool exited = WIFEXITED(status);

	if (exited && WEXITSTATUS(status) == 0 && run->used > 0) {
		if (*says)
			qs_log(QS_LOG_NOTICE, "key command %s%s", run->program, says);
		return 0;
	}
	if (exited && WEXITSTATUS(status) == 0)
		return qs_fail(err, QS_E_KEY_FILE, "the key command %s printed no key%s",
			       run->program, says);
	if (!exited)
		return qs_fail(err, QS_E_KEY_FILE, "the key command %s was ended by signal %d%s",
			       run->program, WTERMSIG(status), says);
	return qs_fail(err,
		       WEXITSTATUS(status) == STATUS_TEMPORARY ? QS_E_TEMPORARY : QS_E_KEY_FILE,
		       "the key command %s ended with status %d%s", run->program,
		       WEXITSTATUS(status), says);
}

static int run_program(struct run *run, const char *real, char *const argv[], struct qs_secret *ret,
		       struct qs_error *err)
{
	QS_AUTO(qs_secret_done) struct qs_secret key = {};
	int r = start(run, real, argv, err);
	int status = 0;

	if (r == 0)
		r = collect(run, err);
	if (run->pid > 0)
		status = finish(run);
	if (r == 0)
		r = verdict(run, status, err);
	if (r == 0)
		r = qs_secret_init(&key, run->used, err);
	if (r < 0)
		return r;
	memcpy(key.data, run->buffer.data, run->used);
	*ret = qs_secret_move(&key);
	return 0;
}

int qs_key_command_run(const struct qs_env *env, const char *name, const char *uuid,
		       const char *node, struct qs_secret *ret, struct qs_error *err)
{
	const char *program = env->config.key_command;
	QS_AUTO(qs_auto_free) char *real = qs_env_path(env, program);
	struct run run = { .program = program,
			   .deadline_s = env->config.key_deadline_s,
			   .process = -1,
			   .out = -1,
			   .err = -1 };
	char *const argv[] = { real, (char *)name, (char *)uuid, (char *)node, NULL };
	int r = qs_key_command_check(env, err);

	if (r == 0)
		r = run_program(&run, real, argv, ret, err);
	qs_secret_done(&run.buffer);
	qs_auto_close(&run.process);
	qs_auto_close(&run.out);
	qs_auto_close(&run.err);
	return r;
}
