#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "key/passphrase.h"
#include "scratch.h"

/* What a pipe that holds TEXT gives; *ret stays empty on failure. */
static int from_pipe(const char *text, size_t size, struct qs_secret *ret, struct qs_error *err)
{
	int ends[2], r;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(write(ends[1], text, size), size);
	close(ends[1]);
	r = qs_passphrase_read_fd(ends[0], "the pipe", ret, err);
	close(ends[0]);
	return r;
}

static void check_taken(const char *text, size_t size, const char *expected)
{
	QS_AUTO(qs_secret_done) struct qs_secret s = {};

	assert_int_equal(from_pipe(text, size, &s, NULL), 0);
	assert_int_equal(s.size, strlen(expected));
	assert_memory_equal(s.data, expected, s.size);
}

static void check_refused(const char *text, size_t size, const char *word)
{
	QS_AUTO(qs_secret_done) struct qs_secret s = {};
	struct qs_error err = {};

	assert_true(from_pipe(text, size, &s, &err) < 0);
	assert_int_equal(err.kind, QS_E_KEY_FILE);
	assert_non_null(strstr(err.text, word));
	assert_non_null(strstr(err.text, "the pipe"));
	assert_null(s.data);
}

static void test_one_line_without_its_newline(void **state)
{
	char longest[QS_PASSPHRASE_MAX + 2];

	(void)state;
	check_taken("secret", 6, "secret");
	check_taken("secret\n", 7, "secret");
	check_taken(" two words \r\n", 13, " two words \r");
	memset(longest, 'x', sizeof(longest));
	longest[QS_PASSPHRASE_MAX] = '\n';
	longest[QS_PASSPHRASE_MAX + 1] = '\0';
	{
		QS_AUTO(qs_secret_done) struct qs_secret s = {};

		assert_int_equal(from_pipe(longest, QS_PASSPHRASE_MAX + 1, &s, NULL), 0);
		assert_int_equal(s.size, QS_PASSPHRASE_MAX);
	}
}

static void test_what_is_no_passphrase(void **state)
{
	char text[QS_PASSPHRASE_MAX + 1];

	(void)state;
	memset(text, 'x', sizeof(text));
	check_refused("", 0, "empty");
	check_refused("\n", 1, "empty");
	check_refused("a\nb\n", 4, "one line");
	check_refused("a\n\n", 3, "one line");
	check_refused("a\0b", 3, "NUL");
	check_refused(text, sizeof(text), "longer");
}

static void test_a_file_must_be_private(void **state)
{
	char *dir = scratch_make();
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/pass", dir);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	QS_AUTO(qs_secret_done) struct qs_secret s = {};
	struct qs_error err = {};

	(void)state;
	assert_int_equal(write(fd, "secret\n", 7), 7);
	close(fd);
	assert_int_equal(chmod(path, 0640), 0);
	assert_true(qs_passphrase_read_file(path, &s, &err) < 0);
	assert_int_equal(err.kind, QS_E_KEY_FILE);
	assert_non_null(strstr(err.text, "chmod 0400"));
	assert_int_equal(chmod(path, 0400), 0);
	assert_int_equal(qs_passphrase_read_file(path, &s, NULL), 0);
	assert_int_equal(s.size, 6);
	qs_secret_done(&s);
	assert_true(qs_passphrase_read_file(dir, &s, &err) < 0);
	assert_non_null(strstr(err.text, "directory"));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(qs_passphrase_read_file(path, &s, &err), -ENOENT);
	scratch_drop(dir);
}

static void test_a_fifo_is_waited_for(void **state)
{
	char *dir = scratch_make();
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/fifo", dir);
	QS_AUTO(qs_secret_done) struct qs_secret s = {};
	pid_t pid;

	(void)state;
	assert_int_equal(mkfifo(path, 0600), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int fd = open(path, O_WRONLY | O_CLOEXEC); /* waits for the reader */

		_exit(write(fd, "late\n", 5) != 5);
	}
	assert_int_equal(qs_passphrase_read_file(path, &s, NULL), 0);
	assert_int_equal(s.size, 4);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	scratch_drop(dir);
}

static void on_signal(int number)
{
	(void)number;
}

static void test_a_signal_ends_the_wait(void **state)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART }, before;
	QS_AUTO(qs_secret_done) struct qs_secret s = {};
	struct qs_error err = {};
	pid_t parent = getpid(), pid;
	int ends[2];

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(sigaction(SIGTERM, &action, &before), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		/* Again and again: the first one may come before the wait has begun. */
		for (int i = 0; i < 1000 && getppid() == parent; i++) {
			(void)usleep(10000);
			(void)kill(parent, SIGTERM);
		}
		_exit(0);
	}
	assert_true(qs_passphrase_read_fd(ends[0], "the pipe", &s, &err) < 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	(void)sigaction(SIGTERM, &before, NULL);
	assert_int_equal(err.kind, QS_E_INTERRUPTED);
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_line_without_its_newline),
		cmocka_unit_test(test_what_is_no_passphrase),
		cmocka_unit_test(test_a_file_must_be_private),
		cmocka_unit_test(test_a_fifo_is_waited_for),
		cmocka_unit_test(test_a_signal_ends_the_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
