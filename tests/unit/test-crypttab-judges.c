/*
 * The outside judges: random tables go through the editor, and what systemd's
 * generator and Debian's shell functions then read must be what we meant.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "tab/crypttab.h"

#include "random.h"
#include "scratch.h"

#define GENERATOR "/lib/systemd/system-generators/systemd-cryptsetup-generator"
#define FUNCTIONS "/lib/cryptsetup/functions"
#define TABLES 10000
#define MAX_OURS 3
#define MAX_FOREIGN 6

/*
 * To start the generator costs a hundred times what a line costs it, so it gets
 * many tables in one file. All names in it differ, as the generator
 * stops at a second line of one name.
 */
#define BATCH 40

#define TIMEOUT "x-systemd.device-timeout=30s"

/* One of our lines, and whether the table had an older one under that name. */
struct ours {
	char name[64], device[96], key[96], options[96];
};

struct table {
	struct ours ours[MAX_OURS];
	size_t count;
	char *foreign; /* all that is not ours, as it was and has to stay */
	char *text;    /* foreign and older lines of ours, mixed */
};

/* PREFIX and up to 20 random visible characters, more of those that mean something somewhere. */
static void random_text(char *ret, size_t size, const char *prefix)
{
	size_t used = (size_t)snprintf(ret, size, "%s", prefix);
	size_t end = used + 1 + pick(20);

	while (used < end && used + 1 < size)
		ret[used++] = pick(3) ? (char)(0x21 + pick(0x7f - 0x21)) : "/.:,=#-%"[pick(8)];
	ret[used] = '\0';
}

/* Fields that the editor's own check lets pass; the judges say whether it was right. */
static void random_ours(struct ours *o, size_t table, unsigned number)
{
	static const char *const devices[] = { "/dev/disk/by-id/scsi-3",
					       "/dev/disk/by-id/usb-X_0:0-", "/srv/images/", "/" };
	static const char *const keys[] = { "/etc/cryptconf/keys/enc-", "/media/k:", "/" };
	static const char *const options[] = { "luks,", "luks,nofail," TIMEOUT ",",
					       "luks,discard,keyfile-timeout=9s,header=/h", "" };
	char prefix[32];

	(void)snprintf(prefix, sizeof(prefix), "enc-%zu-%u", table, number);
	do {
		random_text(o->name, sizeof(o->name), prefix);
		random_text(o->device, sizeof(o->device), ONE_OF(devices));
		random_text(o->key, sizeof(o->key), ONE_OF(keys));
		random_text(o->options, sizeof(o->options), ONE_OF(options));
	} while (qs_crypttab_check(o->name, o->device, o->key, o->options, NULL) < 0);
}

static void put_foreign_line(FILE *out, unsigned number)
{
	static const char *const shapes[] = {
		"",
		" \t",
		"# comment",
		"\t # enc-1 /dev/x none luks",
		"f%u /dev/f none luks",
		"f%u\t\t/dev/f\tnone\tluks,discard  ",
		"f%u /dev/f",
		"f%u",
		"f%u /dev/disk/by-label/a\\040b none luks # note",
		"  f%u /dev/f none luks five six",
		"f%u\\040x /dev/f none luks",
		"f%u-\xc3\xa4 \"/dev/f\" 'none' luks",
		"# %% $HOME `x` \\",
	};
	static const char *const ends[] = { "\n", "\n", "\n", "\r\n" };

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	fprintf(out, ONE_OF(shapes), number);
#pragma GCC diagnostic pop
	fputs(ONE_OF(ends), out);
}

/* A line of that name as somebody may have left it. */
static void put_old_line(FILE *out, const struct ours *o)
{
	switch (pick(7)) {
	case 0:
		fprintf(out, "%s %s %s %s\n", o->name, o->device, o->key, o->options);
		break;
	case 1:
		fprintf(out, "%s  %s  %s  %s\r\n", o->name, o->device, o->key, o->options);
		break;
	case 2:
		fprintf(out, "\t%s\t/dev/old\tnone \t luks  #moved\n", o->name);
		break;
	case 3:
		fprintf(out, "%s /dev/old\n", o->name);
		break;
	case 4:
		fprintf(out, "%s\n", o->name);
		break;
	case 5:
		fprintf(out, "%s\v/dev/old\f%s - \r\n", o->name, o->key);
		break;
	default:
		break;
	}
}

static void make_table(struct table *t, size_t number)
{
	size_t size;
	FILE *foreign = open_memstream(&t->foreign, &size);
	FILE *text = open_memstream(&t->text, &size);
	unsigned lines = pick(MAX_FOREIGN);
	unsigned first = (unsigned)number * (MAX_FOREIGN + 1);

	t->count = 1 + pick(MAX_OURS);
	for (unsigned i = 0; i < t->count; i++)
		random_ours(&t->ours[i], number, i);
	for (unsigned i = 0; i < lines; i++) {
		uint32_t before = random_state;

		put_foreign_line(text, first + i);
		random_state = before;
		put_foreign_line(foreign, first + i);
		if (i < t->count)
			put_old_line(text, &t->ours[i]);
	}
	if (pick(3) == 0) {
		fprintf(text, "f%u /dev/f none luks", first + MAX_FOREIGN);
		fprintf(foreign, "f%u /dev/f none luks", first + MAX_FOREIGN);
	}
	assert_int_equal(fclose(foreign) | fclose(text), 0);
}

static bool is_ours(const struct table *t, const char *line)
{
	line += strspn(line, " \t");
	for (size_t i = 0; i < t->count; i++) {
		size_t length = strlen(t->ours[i].name);

		if (strncmp(line, t->ours[i].name, length) == 0 && strchr(" \t", line[length]))
			return true;
	}
	return strncmp(line, "#moved\n", 7) == 0;
}

/* TEXT without our lines is what was foreign before; only its last newline may be new. */
static void assert_foreign_untouched(const struct table *t, const char *text)
{
	QS_AUTO(qs_auto_free) char *rest = calloc(1, strlen(text) + 1);
	size_t length = strlen(t->foreign);

	while (*text) {
		size_t line = strcspn(text, "\n");

		line += text[line] == '\n';
		if (!is_ours(t, text))
			strncat(rest, text, line);
		text += line;
	}
	if (length > 0 && t->foreign[length - 1] != '\n' && strlen(rest) == length + 1)
		rest[length] = '\0';
	assert_string_equal(rest, t->foreign);
}

static void edit_and_write(struct table *t, const char *path)
{
	QS_AUTO(qs_auto_crypttab) struct qs_crypttab *tab = NULL;
	QS_AUTO(qs_auto_fclose) FILE *f = fopen(path, "we");
	struct qs_error err = {};
	const char *text;
	size_t size;

	assert_non_null(f);
	assert_int_equal(qs_crypttab_parse(t->text, strlen(t->text), &tab, &err), 0);
	for (size_t i = 0; i < t->count; i++) {
		const struct ours *o = &t->ours[i];

		if (qs_crypttab_set(tab, o->name, o->device, o->key, o->options, &err) < 0)
			fail_msg("%s", err.text);
	}
	/* One that was set and went again must leave nothing. */
	if (t->count > 1 && pick(4) == 0)
		assert_int_equal(qs_crypttab_remove(tab, t->ours[--t->count].name), 1);
	text = qs_crypttab_text(tab, &size);
	assert_int_equal(size, strlen(text));
	assert_foreign_untouched(t, text);
	assert_int_equal(fwrite(text, 1, size, f), size);
}

/* Run ARGV with the environment ENV in DIRECTORY, its messages dropped. */
static pid_t start(const char *directory, char *const argv[], char *const env[])
{
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		int null = open("/dev/null", O_WRONLY);

		if (chdir(directory) == 0 && null >= 0 && dup2(null, STDERR_FILENO) >= 0)
			execve(argv[0], argv, env);
		_exit(127);
	}
	return child;
}

static int finish(pid_t child)
{
	int status;

	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* The quoted words of an ExecStart line, "%%" undone, as NAME|DEVICE|KEY|OPTIONS. */
static void put_exec_line(FILE *out, const char *line)
{
	const char *separator = "";

	while ((line = strchr(line, '\'')) != NULL) {
		fputs(separator, out);
		for (line++; *line && *line != '\''; line++) {
			if (line[0] == '%' && line[1] == '%')
				line++;
			fputc(*line, out);
		}
		line += *line == '\'';
		separator = "\037";
	}
	fputc('\n', out);
}

static char *read_text(const char *path)
{
	char *text = NULL;
	struct qs_error err = {};
	size_t size;

	if (qs_file_read(path, 1 << 20, &text, &size, &err) < 0)
		fail_msg("%s", err.text);
	return text;
}

/* What systemd makes of the tables in the file BATCH: a line for each unit. */
static char *ask_systemd(const char *directory, const char *batch)
{
	QS_AUTO(qs_auto_free) char *out = qs_printf("%s.units", batch);
	QS_AUTO(qs_auto_free) char *tab_env = qs_printf("SYSTEMD_CRYPTTAB=%s", batch);
	QS_AUTO(qs_auto_free) char *run_env = qs_printf("RUNTIME_DIRECTORY=%s/run", directory);
	char *const argv[] = { (char *)GENERATOR, out, out, out, NULL };
	char *const env[] = { tab_env, run_env, NULL };
	QS_AUTO(qs_auto_closedir) DIR *units = NULL;
	char *text = NULL;
	struct dirent *e;
	size_t size;
	FILE *answer = open_memstream(&text, &size);

	assert_int_equal(mkdir(out, 0700), 0);
	assert_int_not_equal(finish(start(directory, argv, env)), 127);
	units = opendir(out);
	assert_non_null(units);
	while ((e = readdir(units)) != NULL) {
		QS_AUTO(qs_auto_free) char *path = qs_printf("%s/%s", out, e->d_name);
		QS_AUTO(qs_auto_free) char *unit = NULL;
		char *exec;

		if (e->d_type != DT_REG || !strstr(e->d_name, ".service"))
			continue;
		unit = read_text(path);
		exec = strstr(unit, "\nExecStart=");
		assert_non_null(exec);
		exec[1 + strcspn(exec + 1, "\n")] = '\0';
		put_exec_line(answer, exec);
	}
	assert_int_equal(fclose(answer), 0);
	return text;
}

/*
 * What Debian's functions make of the tables that the pattern FILES fits, a file with
 * ".debian" for each. They are slow, so meanwhile systemd is asked.
 */
static pid_t ask_debian(const char *directory, const char *files)
{
	static const char script[] =
		". " FUNCTIONS "\n"
		"show() {\n"
		"	printf '%s\\037%s\\037%s\\037%s\\n' \"$CRYPTTAB_NAME\" \"$CRYPTTAB_SOURCE\" "
		"\"$CRYPTTAB_KEY\" \"$CRYPTTAB_OPTIONS\"\n"
		"}\n"
		"for TABFILE in $1; do\n"
		"	crypttab_foreach_entry show >$TABFILE.debian\n"
		"done\n";
	char *const argv[] = { (char *)"/bin/sh", (char *)"-euc", (char *)script,
			       (char *)"sh",      (char *)files,  NULL };
	char *const env[] = { (char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };

	return start(directory, argv, env);
}

static size_t count_line(const char *text, const char *line)
{
	size_t length = strlen(line);
	size_t found = 0;

	for (; *text; text += strcspn(text, "\n"), text += *text == '\n')
		found += strncmp(text, line, length) == 0;
	return found;
}

/*
 * The options as the generator hands them on: it makes a drop-in for the device's
 * unit of the timeout and takes it out, and puts the list together again without
 * empty items and with the header last.
 */
static void rebuild_options(struct ours *o)
{
	QS_AUTO(qs_auto_free) char *copy = qs_strdup(o->options);
	const char *header = "";
	char *rest = copy;
	size_t used = 0;

	o->options[0] = '\0';
	for (char *item = strsep(&rest, ","); item; item = strsep(&rest, ",")) {
		if (strncmp(item, "header=", 7) == 0)
			header = item;
		else if (*item && strcmp(item, TIMEOUT) != 0)
			used += (size_t)snprintf(o->options + used, sizeof(o->options) - used,
						 "%s%s", used > 0 ? "," : "", item);
	}
	if (*header)
		(void)snprintf(o->options + used, sizeof(o->options) - used, ",%s", header);
}

/* Each line of ours exactly as we meant it, and nothing else under its name. */
static void assert_answer(const struct table *t, const char *judge, const char *answer)
{
	for (size_t i = 0; i < t->count; i++) {
		const struct ours *o = &t->ours[i];
		QS_AUTO(qs_auto_free)
		char *line =
			qs_printf("%s\037%s\037%s\037%s\n", o->name, o->device, o->key, o->options);
		QS_AUTO(qs_auto_free) char *name = qs_printf("%s\037", o->name);

		if (count_line(answer, line) != 1 || count_line(answer, name) != 1)
			fail_msg("%s did not read\n%sbut\n%s", judge, line, answer);
	}
}

/* The shells that read all tables, while they run. */
static pid_t debian[2];

/* Thousands of small files: in memory where that is possible. */
static int make_scratch(void **state)
{
	if (access("/dev/shm", W_OK) == 0)
		(void)setenv("TMPDIR", "/dev/shm", 0);
	*state = scratch_make();
	return 0;
}

static int drop_scratch(void **state)
{
	for (size_t i = 0; i < QS_ARRAY_SIZE(debian); i++) {
		if (debian[i] <= 0)
			continue;
		(void)kill(debian[i], SIGKILL);
		(void)waitpid(debian[i], NULL, 0);
	}
	scratch_drop(*state);
	return 0;
}

static void test_both_judges_are_installed(void **state)
{
	(void)state;
	assert_int_equal(access(GENERATOR, X_OK), 0);
	assert_int_equal(access(FUNCTIONS, R_OK), 0);
}

static char *table_path(const char *directory, size_t number)
{
	return qs_printf("%s/table-%05zu", directory, number);
}

/* Tables FIRST and following in one file; each begins on a line of its own. */
static char *write_batch(const char *directory, size_t first)
{
	char *path = qs_printf("%s/batch-%05zu", directory, first);
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	for (size_t i = first; i < first + BATCH && i < TABLES; i++) {
		QS_AUTO(qs_auto_free) char *table = table_path(directory, i);
		QS_AUTO(qs_auto_free) char *text = read_text(table);
		size_t length = strlen(text);
		bool last = i + 1 == first + BATCH || i + 1 == TABLES;

		fputs(text, f);
		if (!last && length > 0 && text[length - 1] != '\n')
			fputc('\n', f);
	}
	assert_int_equal(fclose(f), 0);
	return path;
}

static void judge_batch(const char *directory, const struct table *tables, size_t first)
{
	QS_AUTO(qs_auto_free) char *batch = write_batch(directory, first);
	QS_AUTO(qs_auto_free) char *answer = ask_systemd(directory, batch);

	for (size_t i = first; i < first + BATCH && i < TABLES; i++) {
		struct table meant = tables[i];

		for (size_t j = 0; j < meant.count; j++)
			rebuild_options(&meant.ours[j]);
		assert_answer(&meant, "systemd", answer);
	}
}

static void test_both_judges_read_what_we_meant(void **state)
{
	const char *directory = *state;
	struct table *tables = calloc(TABLES, sizeof(*tables));

	assert_non_null(tables);
	for (size_t i = 0; i < TABLES; i++) {
		QS_AUTO(qs_auto_free) char *path = table_path(directory, i);

		make_table(&tables[i], i);
		edit_and_write(&tables[i], path);
		free(tables[i].foreign);
		free(tables[i].text);
	}
	debian[0] = ask_debian(directory, "table-*[02468]");
	debian[1] = ask_debian(directory, "table-*[13579]");
	for (size_t i = 0; i < TABLES; i += BATCH)
		judge_batch(directory, tables, i);
	for (size_t i = 0; i < QS_ARRAY_SIZE(debian); i++) {
		int status = finish(debian[i]);

		debian[i] = 0;
		assert_int_equal(status, 0);
	}
	for (size_t i = 0; i < TABLES; i++) {
		QS_AUTO(qs_auto_free) char *path = table_path(directory, i);
		QS_AUTO(qs_auto_free) char *answer_path = qs_printf("%s.debian", path);
		QS_AUTO(qs_auto_free) char *answer = read_text(answer_path);

		assert_answer(&tables[i], "Debian", answer);
	}
	free(tables);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_judges_are_installed),
		cmocka_unit_test_setup_teardown(test_both_judges_read_what_we_meant, make_scratch,
						drop_scratch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
