#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "tab/crypttab.h"
#include "tab/fstab.h"

#include "scratch.h"

#define ID "/dev/disk/by-id/scsi-35"
#define KEY "/etc/cryptconf/keys/enc-a.key"

struct scratch {
	char *root;
	struct qs_env env;
};

static int make_scratch(void **state)
{
	struct scratch *s = calloc(1, sizeof(*s));
	QS_AUTO(qs_auto_free) char *etc = NULL;

	s->root = scratch_make();
	etc = qs_printf("%s/etc", s->root);
	assert_int_equal(mkdir(etc, 0755), 0);
	s->env.root = s->root;
	qs_config_init(&s->env.config);
	*state = s;
	return 0;
}

static int drop_scratch(void **state)
{
	struct scratch *s = *state;

	scratch_drop(s->root);
	qs_config_done(&s->env.config);
	free(s);
	return 0;
}

static void write_at(const struct scratch *s, const char *logical, const char *text)
{
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s%s", s->root, logical);
	QS_AUTO(qs_auto_fclose) FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
}

static void assert_file(const struct scratch *s, const char *logical, const char *expected)
{
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s%s", s->root, logical);
	QS_AUTO(qs_auto_free) char *text = NULL;
	struct qs_error err = {};
	size_t size;

	if (qs_file_read(path, 1 << 20, &text, &size, &err) < 0)
		fail_msg("%s", err.text);
	assert_string_equal(text, expected);
}

static void assert_absent(const struct scratch *s, const char *logical)
{
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s%s", s->root, logical);

	assert_int_not_equal(access(path, F_OK), 0);
}

static void set_and_save(const struct scratch *s)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	struct qs_error err = {};

	if (qs_crypttab_load(&s->env, &tab, &err) < 0 ||
	    qs_crypttab_set(tab, "enc-a", ID, KEY, NULL, &err) < 0 ||
	    qs_crypttab_save(&s->env, tab, &err) < 0)
		fail_msg("%s", err.text);
}

static void test_absent_file_is_empty_and_looking_makes_none(void **state)
{
	const struct scratch *s = *state;
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	struct qs_error err = {};

	assert_int_equal(qs_crypttab_load(&s->env, &tab, &err), 0);
	assert_int_equal(qs_crypttab_count(tab), 0);
	assert_absent(s, "/etc/crypttab");
	set_and_save(s);
	assert_file(s, "/etc/crypttab", "enc-a  " ID "  " KEY "  luks\n");
	assert_absent(s, "/etc/crypttab.qs-bak");
}

static void test_last_version_is_kept(void **state)
{
	const struct scratch *s = *state;

	write_at(s, "/etc/crypttab", "b /dev/b\n");
	set_and_save(s);
	assert_file(s, "/etc/crypttab", "b /dev/b\nenc-a  " ID "  " KEY "  luks\n");
	assert_file(s, "/etc/crypttab.qs-bak", "b /dev/b\n");
}

static void test_link_mode_and_owner_stay(void **state)
{
	const struct scratch *s = *state;
	QS_AUTO(qs_auto_free) char *link = qs_printf("%s/etc/crypttab", s->root);
	QS_AUTO(qs_auto_free) char *target = qs_printf("%s/etc/real-table", s->root);
	uid_t owner = geteuid() == 0 ? 12345 : geteuid();
	struct stat st;

	write_at(s, "/etc/real-table", "b /dev/b\n");
	assert_int_equal(symlink("real-table", link), 0);
	assert_int_equal(chown(target, owner, getegid()), 0);
	assert_int_equal(chmod(target, 0640), 0);
	set_and_save(s);
	assert_int_equal(lstat(link, &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(lstat(target, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(st.st_uid, owner);
	assert_file(s, "/etc/real-table", "b /dev/b\nenc-a  " ID "  " KEY "  luks\n");
}

static void test_damaged_file_is_named_and_untouched(void **state)
{
	const struct scratch *s = *state;
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/etc/crypttab", s->root);
	struct qs_crypttab *tab = NULL;
	struct qs_error err = {};
	QS_AUTO(qs_auto_fclose) FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_int_equal(fwrite("a /dev/a\nb \0 c\n", 1, 15, f), 15);
	assert_int_equal(fflush(f), 0);
	assert_true(qs_crypttab_load(&s->env, &tab, &err) < 0);
	assert_memory_equal(err.text, path, strlen(path));
	assert_non_null(strstr(err.text, "line 2"));
}

static void test_lock_is_made_and_excludes_another_process(void **state)
{
	struct scratch *s = *state;
	QS_AUTO(qs_auto_free) char *directory = qs_printf("%s/run/qs-util", s->root);
	QS_AUTO(qs_auto_close) int fd = -1;
	struct qs_error err = {};
	struct stat st;
	int status;
	pid_t child;

	s->env.config.lock_wait_s = 0;
	fd = qs_tab_lock(&s->env, &err);
	if (fd < 0)
		fail_msg("%s", err.text);
	assert_int_equal(stat(directory, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		bool refused = qs_tab_lock(&s->env, &err) == -EBUSY && err.kind == QS_E_LOCKED;

		_exit(refused ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	qs_auto_close(&fd);
	fd = qs_tab_lock(&s->env, &err);
	assert_true(fd >= 0);
}

static int collect(const struct qs_fstab_entry *e, void *cookie)
{
	fprintf(cookie, "%u[%s][%s][%s][%s]\n", e->line, e->source, e->target, e->type, e->options);
	return strcmp(e->target, "/stop") == 0 ? 7 : 0;
}

static void test_fstab_entries_are_visited_decoded(void **state)
{
	const struct scratch *s = *state;
	QS_AUTO(qs_auto_free) char *seen = NULL;
	struct qs_error err = {};
	size_t size;
	FILE *out = open_memstream(&seen, &size);

	assert_int_equal(qs_fstab_each(&s->env, collect, out, &err), 0);
	write_at(s, "/etc/fstab",
		 "# c\n\nUUID=\"aa-bb\" / ext4 rw 0 1\r\nLABEL=x\\040y\t/a\\040b\n/dev/sdz1\n"
		 "/dev/mapper/enc-a none swap sw # c\n=x /y\n/dev/q /stop xfs ro\n/dev/r /r\n");
	assert_int_equal(qs_fstab_each(&s->env, collect, out, &err), 7);
	assert_int_equal(fclose(out), 0);
	assert_string_equal(seen, "3[UUID=aa-bb][/][ext4][rw]\n4[LABEL=x y][/a b][][]\n"
				  "5[/dev/sdz1][][][]\n6[/dev/mapper/enc-a][none][swap][sw]\n"
				  "7[=x][/y][][]\n8[/dev/q][/stop][xfs][ro]\n");
}

static void test_fstab_that_is_no_file_is_an_error(void **state)
{
	const struct scratch *s = *state;
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/etc/fstab", s->root);
	struct qs_error err = {};

	assert_int_equal(mkdir(path, 0700), 0);
	assert_true(qs_fstab_each(&s->env, collect, NULL, &err) < 0);
	assert_non_null(strstr(err.text, path));
}

#define WITH_FILES(test) cmocka_unit_test_setup_teardown(test, make_scratch, drop_scratch)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_FILES(test_absent_file_is_empty_and_looking_makes_none),
		WITH_FILES(test_last_version_is_kept),
		WITH_FILES(test_link_mode_and_owner_stay),
		WITH_FILES(test_damaged_file_is_named_and_untouched),
		WITH_FILES(test_lock_is_made_and_excludes_another_process),
		WITH_FILES(test_fstab_entries_are_visited_decoded),
		WITH_FILES(test_fstab_that_is_no_file_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
