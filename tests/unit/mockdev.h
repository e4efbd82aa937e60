/*
 * A test program that wants disks runs itself again below umockdev-run, with
 * the sysfs, udev properties and nodes of udev/ (one file per kind of disk, in
 * the text format of umockdev-record). Files below $UMOCKDEV_DIR/proc and
 * $UMOCKDEV_DIR/sys then stand in for the real ones.
 */
#ifndef QS_TEST_MOCKDEV_H
#define QS_TEST_MOCKDEV_H

#include <dirent.h>
#include <glob.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Returns in the inner run only. */
static inline void mockdev_enter(char **argv)
{
	char source[] = __FILE__;
	char *args[64] = { "umockdev-run" };
	char pattern[PATH_MAX];
	size_t n = 1;
	glob_t files;

	if (getenv("UMOCKDEV_DIR"))
		return;
	snprintf(pattern, sizeof(pattern), "%s/udev/*.umockdev", dirname(source));
	if (glob(pattern, 0, NULL, &files) != 0 || files.gl_pathc > 24) {
		fprintf(stderr, "no %s: run this from the top of the source tree\n", pattern);
		exit(1);
	}
	for (size_t i = 0; i < files.gl_pathc; i++) {
		args[n++] = "--device";
		args[n++] = files.gl_pathv[i];
	}
	args[n++] = "--";
	args[n++] = argv[0];
	/* umockdev's library is preloaded, and so comes before the sanitizer's. */
	setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1);
	execvp(args[0], args);
	perror("cannot run umockdev-run (Debian package umockdev)");
	exit(1);
}

/* Write TEXT to the stand-in of PATH ("/proc/swaps"), with its directories. */
static inline void mockdev_write(const char *path, const char *text)
{
	char real[PATH_MAX];
	FILE *f;

	snprintf(real, sizeof(real), "%s%s", getenv("UMOCKDEV_DIR"), path);
	for (char *s = real + 1; (s = strchr(s, '/')); s++) {
		*s = '\0';
		mkdir(real, 0755);
		*s = '/';
	}
	f = fopen(real, "w");
	if (!f || fputs(text, f) < 0 || fclose(f) != 0) {
		perror(real);
		exit(1);
	}
}

/* The number that umockdev gives a node, for another name of it: without that, stat() says 0:0. */
static inline void mockdev_number_link(const char *directory, const char *name)
{
	const char *top = getenv("UMOCKDEV_DIR");
	char from[PATH_MAX], target[4096], to[2 * PATH_MAX];
	ssize_t n;

	snprintf(from, sizeof(from), "%s/dev/%s/%s", top, directory, name);
	n = readlink(from, target, sizeof(target) - 1);
	if (n < 0)
		return;
	target[n] = '\0';
	snprintf(from, sizeof(from), "%s/dev/.node/%s", top, strrchr(target, '/') + 1);
	n = readlink(from, target, sizeof(target) - 1);
	if (n < 0)
		return;
	target[n] = '\0';
	snprintf(to, sizeof(to), "%s/dev/.node/%s/%s", top, directory, name);
	for (char *s = to + strlen(top) + strlen("/dev/.node/"); *s; s++)
		if (*s == '/')
			*s = '_';
	if (symlink(target, to) < 0)
		perror(to);
}

/* umockdev 0.17 takes only devices below ".../block/" for block devices, which NVMe's are not. */
static inline void mockdev_move_nvme(void)
{
	char command[PATH_MAX];
	const char *top = getenv("UMOCKDEV_DIR");

	snprintf(command, sizeof(command), "mv %s/sys/dev/char/* %s/sys/dev/block/", top, top);
	if (system(command) != 0)
		exit(1);
}

/* What umockdev-run leaves to be done. */
static inline void mockdev_complete(void)
{
	static const char *const directories[] = { "mapper", "disk/by-id", "disk/by-uuid" };
	char path[PATH_MAX];

	for (size_t i = 0; i < sizeof(directories) / sizeof(directories[0]); i++) {
		const struct dirent *entry;
		DIR *d;

		snprintf(path, sizeof(path), "%s/dev/%s", getenv("UMOCKDEV_DIR"), directories[i]);
		d = opendir(path);
		while (d && (entry = readdir(d)))
			mockdev_number_link(directories[i], entry->d_name);
		if (d)
			closedir(d);
	}
	mockdev_move_nvme();
}

#endif
