/*
 * The outside judges: random tables go through the editor, and what libmount
 * (mount, swapon) and systemd's generator then read must differ in the one field
 * that was meant.
 */
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
#include <sys/wait.h>
#include <unistd.h>

#include <libmount.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "tab/fstab.h"

#include "random.h"
#include "scratch.h"

#define GENERATOR "/lib/systemd/system-generators/systemd-fstab-generator"
#define FINDMNT "/bin/findmnt"
#define TABLES 10000
#define PROGRAM_EVERY 200 /* the judges that are programs see one table in so many */
#define NEW "/dev/mapper/enc-virtio-a-part2"

struct table {
	char *text;
	char *meant; /* what the editor should make of it */
	bool has_swap;
	unsigned line; /* of the swap */
};

static void put_foreign(FILE *out)
{
	static const char *const shapes[] = {
		"",
		" \t",
		"# a comment, swap none",
		"\t# UUID=1 none swap sw 0 0",
		"UUID=0b5c4a52-9b2d-4d5c-8d0e-7c2e4f1b9a10 / ext4 errors=remount-ro 0 1",
		"LABEL=\"data\"\t/data\txfs\tnoatime,nofail\t0\t2",
		"/dev/disk/by-id/scsi-1 /a\\040b ext4 rw",
		"server:/export /nfs nfs4 _netdev,x-systemd.automount 0 0",
		"tmpfs /tmp tmpfs size=1G,mode=1777 0 0 # why",
		"/dev/sdz9 none swap sw,pri=1 0 0",
		"/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0\r",
		"proc /proc proc",
		"/dev/caf\xc3\xa9 /caf\xc3\xa9 ext4 defaults 0 0",
	};

	fputs(ONE_OF(shapes), out);
}

/* The same line with the old and with the new first field. */
static void put_swap(FILE *text, FILE *meant)
{
	static const char *const indents[] = { "", "", "", " ", "\t" };
	static const char *const sources[] = {
		"UUID=2f7f8d0e-6d2d-4e0c-9b1a-111111111111",
		"LABEL=\"my\\040swap\"",
		"LABEL=swap",
		"PARTUUID=1234abcd-02",
		"/dev/sda2",
		"/dev/disk/by-id/virtio-a-part2",
	};
	static const char *const rests[] = {
		" none swap sw 0 0",
		"\tnone\t\tswap\tsw,pri=32767,discard=once\t0\t0",
		"  swap  swap  defaults,nofail,x-systemd.device-timeout=9s",
		" none swap nofail 0 0 # the old one  ",
		" none swap",
		" none swap sw 0 0\r",
	};
	const char *indent = ONE_OF(indents);
	const char *rest = ONE_OF(rests);

	fprintf(text, "%s%s%s", indent, ONE_OF(sources), rest);
	fprintf(meant, "%s%s%s", indent, NEW, rest);
}

static void make_table(struct table *t)
{
	size_t size;
	FILE *text = open_memstream(&t->text, &size);
	FILE *meant = open_memstream(&t->meant, &size);
	unsigned lines = 1 + pick(8);
	bool open_end;

	t->has_swap = pick(8) > 0;
	t->line = t->has_swap ? 1 + pick(lines) : 0;
	open_end = pick(4) == 0;
	for (unsigned i = 1; i <= lines; i++) {
		const char *end = i == lines && open_end ? "" : "\n";
		uint32_t before = random_state;

		if (i == t->line) {
			put_swap(text, meant);
		} else {
			put_foreign(text);
			random_state = before;
			put_foreign(meant);
		}
		fputs(end, text);
		fputs(end, meant);
	}
	assert_int_equal(fclose(text), 0);
	if (!t->has_swap)
		fprintf(meant, "%s" NEW "  none  swap  sw  0  0\n",
			t->text[0] && t->text[strlen(t->text) - 1] != '\n' ? "\n" : "");
	assert_int_equal(fclose(meant), 0);
}

static size_t find_line(const struct qs_fstab *tab, unsigned line)
{
	for (size_t i = 0; i < qs_fstab_count(tab); i++)
		if (qs_fstab_get(tab, i)->line == line)
			return i;
	fail_msg("line %u is no entry", line);
	return 0;
}

static void edit(const struct table *t)
{
	QS_AUTO(qs_auto_fstab) struct qs_fstab *tab = NULL;
	struct qs_error err = {};
	const char *text;
	size_t size;
	int r = qs_fstab_parse(t->text, strlen(t->text), &tab, &err);

	if (r == 0)
		r = t->has_swap ? qs_fstab_set_source(tab, find_line(tab, t->line), NEW, &err)
				: qs_fstab_add_swap(tab, NEW, "sw", &err);
	if (r != 1)
		fail_msg("%s in\n%s", err.text, t->text);
	text = qs_fstab_text(tab, &size);
	assert_int_equal(size, strlen(text));
	assert_string_equal(text, t->meant);
}

static int count_error(struct libmnt_table *table, const char *file, int line)
{
	(void)table;
	(void)file;
	(void)line;
	return 1; /* pass over the line, as mount -a does */
}

/* A line for each entry that libmount reads; the source is last, and left out for ours. */
static char *ask_libmount(const char *text, bool *ret_ours)
{
	struct libmnt_table *table = mnt_new_table();
	struct libmnt_iter *iter = mnt_new_iter(MNT_ITER_FORWARD);
	FILE *in = fmemopen((char *)text, strlen(text), "r");
	struct libmnt_fs *fs;
	char *answer = NULL;
	size_t size;
	FILE *out = open_memstream(&answer, &size);

	assert_non_null(in);
	mnt_table_set_parser_errcb(table, count_error);
	assert_int_equal(mnt_table_parse_stream(table, in, "fstab"), 0);
	while (mnt_table_next_fs(table, iter, &fs) == 0) {
		const char *source = mnt_fs_get_source(fs);
		const char *options = mnt_fs_get_options(fs);

		bool ours = source && strcmp(source, NEW) == 0;

		*ret_ours |= ours;
		fprintf(out, "%s %s %s %d %d %s\n", mnt_fs_get_target(fs), mnt_fs_get_fstype(fs),
			options ? options : "-", mnt_fs_get_freq(fs), mnt_fs_get_passno(fs),
			ours ? "" : source);
	}
	assert_int_equal(fclose(out) | fclose(in), 0);
	mnt_free_iter(iter);
	mnt_unref_table(table);
	return answer;
}

/* The same entries in the same order; ours has its new source and nothing else new. */
static void assert_libmount_agrees(const struct table *t)
{
	bool before_ours = false, ours = false;
	QS_AUTO(qs_auto_free) char *before = ask_libmount(t->text, &before_ours);
	QS_AUTO(qs_auto_free) char *after = ask_libmount(t->meant, &ours);
	const char *b = before, *a = after;

	assert_false(before_ours);
	assert_true(ours);
	while (*b && *a) {
		size_t length = strcspn(a, "\n");

		if (strncmp(a, b, length) != 0 || (a[length - 1] != ' ' && b[length] != '\n'))
			fail_msg("libmount reads\n%sfor\n%s", after, t->meant);
		b += strcspn(b, "\n") + 1;
		a += length + 1;
	}
	assert_string_equal(b, "");
	assert_string_equal(a, t->has_swap ? "" : "none swap sw 0 0 \n");
}

/* What PROGRAM says on both outputs, with one variable in its environment. */
static char *ask_program(char *const argv[], const char *variable, int *ret_status)
{
	char *const env[] = { (char *)variable, (char *)"SYSTEMD_LOG_LEVEL=debug",
			      (char *)"SYSTEMD_LOG_TARGET=console", NULL };
	char *answer = NULL;
	size_t size;
	FILE *out = open_memstream(&answer, &size);
	char chunk[4096];
	ssize_t n;
	int pipes[2], status;
	pid_t child;

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		if (dup2(pipes[1], STDOUT_FILENO) >= 0 && dup2(pipes[1], STDERR_FILENO) >= 0)
			execve(argv[0], argv, env);
		_exit(127);
	}
	close(pipes[1]);
	while ((n = read(pipes[0], chunk, sizeof(chunk))) > 0)
		fwrite(chunk, 1, (size_t)n, out);
	close(pipes[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	*ret_status = WEXITSTATUS(status);
	assert_int_equal(fclose(out), 0);
	return answer;
}

static void write_text(const char *path, const char *text)
{
	QS_AUTO(qs_auto_fclose) FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
}

/* Ours is read as a swap with the flags that its options say. */
static void assert_systemd_agrees(const struct table *t, const char *directory, const char *path)
{
	QS_AUTO(qs_auto_free) char *out = qs_printf("%s/units", directory);
	QS_AUTO(qs_auto_free) char *variable = qs_printf("SYSTEMD_FSTAB=%s", path);
	char *const argv[] = { (char *)GENERATOR, out, out, out, NULL };
	const char *ours = strstr(t->meant, NEW);
	QS_AUTO(qs_auto_free)
	char *line = qs_printf("%.*s", (int)strcspn(ours, "\n"), ours);
	int status;
	QS_AUTO(qs_auto_free) char *answer = ask_program(argv, variable, &status);
	static const char entry[] = "what=" NEW " where=";
	char *found = strstr(answer, entry);

	assert_int_not_equal(status, 127);
	if (!found || strstr(found + 1, entry))
		fail_msg("systemd says\n%sto\n%s", answer, t->meant);
	found[strcspn(found, "\n")] = '\0';
	assert_non_null(strstr(found, "type=swap"));
	assert_true((strstr(found, "nofail=yes") != NULL) == (strstr(line, "nofail") != NULL));
}

/* What has no device here is a warning, whatever cannot be parsed an error. */
static unsigned parse_errors(const char *path)
{
	char *const argv[] = { (char *)FINDMNT, (char *)"--verify", (char *)"--tab-file",
			       (char *)path, NULL };
	int status;
	QS_AUTO(qs_auto_free) char *answer = ask_program(argv, "LC_ALL=C", &status);
	const char *found = strstr(answer, " parse error");

	if (!found)
		return 0;
	while (found > answer && found[-1] != '\n')
		found--;
	return (unsigned)strtoul(found, NULL, 10);
}

static int make_scratch(void **state)
{
	*state = scratch_make();
	return 0;
}

static int drop_scratch(void **state)
{
	scratch_drop(*state);
	return 0;
}

static void test_judges_read_what_we_meant(void **state)
{
	const char *directory = *state;
	QS_AUTO(qs_auto_free) char *path = qs_printf("%s/fstab", directory);

	assert_int_equal(access(GENERATOR, X_OK), 0);
	assert_int_equal(access(FINDMNT, X_OK), 0);
	for (unsigned i = 0; i < TABLES; i++) {
		struct table t = {};

		make_table(&t);
		edit(&t);
		assert_libmount_agrees(&t);
		if (i % PROGRAM_EVERY == 0) {
			unsigned before;

			write_text(path, t.text);
			before = parse_errors(path);
			write_text(path, t.meant);
			assert_int_equal(parse_errors(path), before);
			assert_systemd_agrees(&t, directory, path);
		}
		free(t.text);
		free(t.meant);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_judges_read_what_we_meant, make_scratch,
						drop_scratch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
