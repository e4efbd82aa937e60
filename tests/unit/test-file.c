#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "scratch.h"

/* Large enough that two writers meet in the middle. */
#define SIZE ((size_t)256 << 10)

static int setup(void **state)
{
	*state = scratch_make();
	return 0;
}

static int teardown(void **state)
{
	scratch_drop(*state);
	return 0;
}

static const struct qs_replace ANEW = { .mode = 0600, .exclusive = true };
static const struct qs_replace OVER = { .mode = 0600 };

static int replace(const char *path, int letter, const struct qs_replace *how, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *data = malloc(SIZE);

	assert_non_null(data);
	memset(data, letter, SIZE);
	return qs_file_replace(path, data, SIZE, how, err);
}

/* A process of its own that writes PATH; it ends with the kind of its failure. */
static pid_t start(const char *path, int letter, const struct qs_replace *how)
{
	struct qs_error err = {};
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid > 0)
		return pid;
	_exit(replace(path, letter, how, &err) == 0 ? QS_E_NONE : (int)err.kind);
}

static int end_of(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void assert_whole(const char *path)
{
	QS_AUTO(qs_auto_free) char *data = NULL;
	size_t size = 0;

	assert_int_equal(qs_file_read(path, SIZE + 1, &data, &size, NULL), 0);
	assert_int_equal(size, SIZE);
	for (size_t i = 1; i < SIZE; i++)
		assert_int_equal(data[i], data[0]);
}

static char *temporary_in(const char *dir)
{
	return qs_printf("%s/.file" QS_TEMPORARY_SUFFIX, dir);
}

static void two_at_once(void **state, const struct qs_replace *how)
{
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/file", (char *)*state);
	QS_AUTO(qs_auto_free) char *temporary = temporary_in(*state);

	for (int round = 0; round < 100; round++) {
		pid_t a = start(path, 'a', how), b = start(path, 'b', how);
		int first = end_of(a), second = end_of(b);

		assert_true(first == QS_E_NONE || second == QS_E_NONE);
		assert_true(first == QS_E_NONE || first == QS_E_LOCKED || first == QS_E_EXISTS);
		assert_true(second == QS_E_NONE || second == QS_E_LOCKED || second == QS_E_EXISTS);
		assert_false(how->exclusive && first == second);
		assert_whole(path);
		assert_int_equal(access(temporary, F_OK), -1);
		assert_int_equal(unlink(path), 0);
	}
}

static void test_two_at_once_make_a_file(void **state)
{
	two_at_once(state, &ANEW);
}

static void test_two_at_once_replace_a_file(void **state)
{
	two_at_once(state, &OVER);
}

static void test_a_left_over_is_replaced(void **state)
{
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/file", (char *)*state);
	QS_AUTO(qs_auto_free) char *temporary = temporary_in(*state);
	QS_AUTO(qs_auto_close) int fd = open(temporary, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	struct qs_error err = {};

	assert_int_equal(write(fd, "half", 4), 4);
	assert_int_equal(replace(path, 'a', &ANEW, &err), 0);
	assert_whole(path);
	assert_int_equal(access(temporary, F_OK), -1);
}

static void test_a_link_in_the_way_is_not_followed(void **state)
{
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/file", (char *)*state);
	QS_AUTO(qs_auto_free) char *temporary = temporary_in(*state);
	QS_AUTO(qs_auto_free) char *victim = qs_printf("%s/victim", (char *)*state);
	struct qs_error err = {};
	struct stat st;

	assert_int_equal(close(open(victim, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), 0);
	assert_int_equal(symlink(victim, temporary), 0);
	assert_int_equal(replace(path, 'a', &ANEW, &err), 0);
	assert_whole(path);
	assert_int_equal(stat(victim, &st), 0);
	assert_int_equal(st.st_size, 0);
}

static void test_a_living_writer_is_left_alone(void **state)
{
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/file", (char *)*state);
	QS_AUTO(qs_auto_free) char *temporary = temporary_in(*state);
	QS_AUTO(qs_auto_close) int fd = open(temporary, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	struct qs_error err = {};

	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_true(replace(path, 'a', &ANEW, &err) < 0);
	assert_int_equal(err.kind, QS_E_LOCKED);
	assert_non_null(strstr(err.text, "another run is writing"));
	assert_int_equal(access(temporary, F_OK), 0);
	assert_int_equal(access(path, F_OK), -1);
	(void)close(qs_take_fd(&fd));
	assert_int_equal(replace(path, 'a', &ANEW, &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_two_at_once_make_a_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_two_at_once_replace_a_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_left_over_is_replaced, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_link_in_the_way_is_not_followed, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_a_living_writer_is_left_alone, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
