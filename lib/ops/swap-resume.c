/*
 * Hibernation: who writes memory to a swap and reads it back at the next start has
 * lost it when that swap gets a new key in between.
 *
 * Debian's installer writes RESUME=UUID=... into its own file for every swap that it
 * makes, whether anybody hibernates or not; this says nothing and is set to none.
 * A setting anywhere else was made by a person, and is a refusal.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "ops/swap.h"
#include "tab/line.h"

#define MAX_TEXT (1U << 20)
#define ADVICE "remove that first, or give --force if nobody hibernates"

struct look {
	const struct qs_env *env;
	const struct qs_swap_target *t;
	const char *file; /* logical */
};

static const char *skip_blanks(const char *text)
{
	return text + strspn(text, " \t");
}

/* A word "resume=SPEC" of a kernel command line, perhaps inside of GRUB's quotes. */
static int check_words(const struct look *look, const char *line, struct qs_error *err)
{
	const char *found = line;

	if (*skip_blanks(line) == '#')
		return 0;
	while ((found = strstr(found, "resume="))) {
		bool begins = found == line || strchr(" \t\"'", found[-1]);
		QS_AUTO(qs_auto_free) char *value = NULL;

		found += strlen("resume=");
		value = qs_printf("%.*s", (int)strcspn(found, " \t\"'\n"), found);
		if (begins && qs_swap_is_named(look->env, look->t, value))
			return qs_fail(err, QS_E_REFUSED,
				       "the system hibernates to %s (resume=%s in %s), which a new "
				       "key at each start would make unreadable; " ADVICE,
				       look->t->dev->node, value, look->file);
	}
	return 0;
}

/* The value of a line "RESUME=VALUE", malloc'ed, or NULL. */
static char *resume_of(const char *line, size_t size)
{
	QS_AUTO(qs_auto_free) char *copy = qs_printf("%.*s", (int)size, line);
	const char *start = skip_blanks(copy);

	if (strncmp(start, "RESUME=", strlen("RESUME=")) != 0)
		return NULL;
	start += strlen("RESUME=");
	return qs_printf("%.*s", (int)strcspn(start, " \t\r\n"), start);
}

static int check_resume(const struct look *look, const char *line, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *value = resume_of(line, strlen(line));

	if (!value || strcmp(look->file, QS_RESUME_FILE) == 0 ||
	    !qs_swap_is_named(look->env, look->t, value))
		return 0;
	return qs_fail(err, QS_E_REFUSED,
		       "the system hibernates to %s (RESUME=%s in %s), which a new key at each "
		       "start would make unreadable; " ADVICE,
		       look->t->dev->node, value, look->file);
}

static bool is_one_of(const char *word, const char *const *list)
{
	for (; *list; list++)
		if (strcasecmp(word, *list) == 0)
			return true;
	return false;
}

/* systemd's own: hibernation is allowed in so many words, or a key or lid does it. */
static int check_systemd(const struct look *look, const char *line, struct qs_error *err)
{
	static const char *const yes[] = { "1", "yes", "y", "true", "t", "on", NULL };
	static const char *const actions[] = { "hibernate", "hybrid-sleep",
					       "suspend-then-hibernate", NULL };
	static const char *const keys[] = { "AllowHibernation", "AllowHybridSleep",
					    "AllowSuspendThenHibernate", NULL };
	const char *start = skip_blanks(line);
	size_t length = strcspn(start, "= \t");
	const char *behind = skip_blanks(start + length);
	QS_AUTO(qs_auto_free) char *key = qs_printf("%.*s", (int)length, start);
	QS_AUTO(qs_auto_free) char *value = NULL;

	if (*start == '#' || *start == ';' || *behind != '=')
		return 0;
	behind = skip_blanks(behind + 1);
	value = qs_printf("%.*s", (int)strcspn(behind, " \t\r\n"), behind);
	if (!(is_one_of(key, keys) && is_one_of(value, yes)) && !is_one_of(value, actions))
		return 0;
	return qs_fail(err, QS_E_REFUSED,
		       "the system is set up to hibernate (%s=%s in %s), and cannot wake up from a "
		       "swap that gets a new key at each start; " ADVICE,
		       key, value, look->file);
}

typedef int line_check(const struct look *look, const char *line, struct qs_error *err);

static int check_file(struct look *look, const char *logical, line_check *check,
		      struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_env_path(look->env, logical);
	QS_AUTO(qs_auto_free) char *text = NULL;
	const char *line;
	size_t size, at = 0, length;
	int r = qs_file_read_optional(path, MAX_TEXT, &text, &size, err);

	if (r <= 0)
		return r;
	look->file = logical;
	r = 0;
	while (r == 0 && (length = qs_tab_next(text, size, &at, &line)) > 0) {
		QS_AUTO(qs_auto_free) char *copy = qs_printf("%.*s", (int)length, line);

		r = check(look, copy, err);
	}
	return r;
}

/* Every file of a directory whose name ends with SUFFIX. */
static int check_directory(struct look *look, const char *logical, const char *suffix,
			   line_check *check, struct qs_error *err)
{
	QS_AUTO(qs_auto_free) char *path = qs_env_path(look->env, logical);
	QS_AUTO(qs_auto_closedir) DIR *d = opendir(path);
	const struct dirent *e;
	int r = 0;

	if (!d)
		return errno == ENOENT || errno == ENOTDIR
			       ? 0
			       : qs_fail_errno(err, errno, "cannot open %s", path);
	for (errno = 0; r == 0 && (e = readdir(d)); errno = 0) {
		size_t length = strlen(e->d_name), end = strlen(suffix);
		QS_AUTO(qs_auto_free) char *file = qs_printf("%s/%s", logical, e->d_name);

		if (e->d_name[0] != '.' && length >= end &&
		    strcmp(e->d_name + length - end, suffix) == 0)
			r = check_file(look, file, check, err);
	}
	if (r == 0 && errno)
		r = qs_fail_errno(err, errno, "cannot read %s", path);
	return r;
}

/* A file of /proc has no size beforehand. */
static int check_running_kernel(struct look *look, struct qs_error *err)
{
	static const char file[] = "/proc/cmdline";
	QS_AUTO(qs_auto_close) int fd = open(file, O_RDONLY | O_CLOEXEC);
	char line[4096]; /* COMMAND_LINE_SIZE of the larger architectures */
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);

	if (n < 0)
		return qs_fail_errno(err, errno, "cannot read %s", file);
	line[n] = '\0';
	look->file = file;
	return check_words(look, line, err);
}

int qs_swap_check_hibernation(const struct qs_env *env, const struct qs_swap_target *t,
			      struct qs_error *err)
{
	static const struct {
		const char *path, *suffix; /* with a suffix it is a directory */
		line_check *check;
	} places[] = {
		{ "/etc/default/grub", NULL, check_words },
		{ "/etc/default/grub.d", ".cfg", check_words },
		{ "/etc/kernel/cmdline", NULL, check_words },
		{ "/etc/initramfs-tools/initramfs.conf", NULL, check_resume },
		{ "/etc/initramfs-tools/conf.d", "", check_resume },
		{ "/etc/systemd/sleep.conf", NULL, check_systemd },
		{ "/etc/systemd/sleep.conf.d", ".conf", check_systemd },
		{ "/etc/systemd/logind.conf", NULL, check_systemd },
		{ "/etc/systemd/logind.conf.d", ".conf", check_systemd },
	};
	struct look look = { .env = env, .t = t };
	int r = *env->root ? 0 : check_running_kernel(&look, err);

	for (size_t i = 0; r == 0 && i < QS_ARRAY_SIZE(places); i++)
		r = places[i].suffix ? check_directory(&look, places[i].path, places[i].suffix,
						       places[i].check, err)
				     : check_file(&look, places[i].path, places[i].check, err);
	return r;
}

char *qs_swap_resume_edit(const struct qs_env *env, const struct qs_swap_target *t,
			  const char *text, size_t size, size_t *ret_size)
{
	char *edited = NULL;
	FILE *out = open_memstream(&edited, ret_size);
	const char *line;
	size_t at = 0, length;

	if (!out)
		abort();
	while ((length = qs_tab_next(text, size, &at, &line)) > 0) {
		QS_AUTO(qs_auto_free) char *value = resume_of(line, length);

		if (value && qs_swap_is_named(env, t, value))
			fputs(line[length - 1] == '\n' ? "RESUME=none\n" : "RESUME=none", out);
		else
			fwrite(line, 1, length, out);
	}
	if (fclose(out) != 0)
		abort();
	return edited;
}
