/*
 * What a cgroup may use, on recorded trees of /proc and /sys.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/memory.h"

#include "scratch.h"

static char *root;

static void put(const char *path, const char *text)
{
	QS_AUTO(qs_auto_free) char *real = qs_printf("%s%s", root, path);
	QS_AUTO(qs_auto_free) char *directory = qs_strdup(real);
	QS_AUTO(qs_auto_fclose) FILE *f = NULL;

	*strrchr(directory, '/') = '\0';
	assert_int_equal(qs_file_make_dirs(directory, 0700, NULL), 0);
	f = fopen(real, "we");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
}

static int make_root(void **state)
{
	(void)state;
	root = scratch_make();
	return 0;
}

static int drop_root(void **state)
{
	(void)state;
	scratch_drop(root);
	return 0;
}

static void test_without_cgroups_there_is_no_limit(void **state)
{
	(void)state;
	assert_true(qs_memory_cgroup(root) == 0);
	put("/proc/self/cgroup", "nonsense\n\n::\n1:memory\n");
	assert_true(qs_memory_cgroup(root) == 0);
}

static void test_version_2_takes_the_smallest_up_to_the_top(void **state)
{
	(void)state;
	put("/proc/self/cgroup", "0::/a.slice/b.service\n");
	put("/sys/fs/cgroup/a.slice/b.service/memory.max", "max\n");
	assert_true(qs_memory_cgroup(root) == 0);
	put("/sys/fs/cgroup/a.slice/memory.max", "1073741824\n");
	assert_true(qs_memory_cgroup(root) == 1073741824);
	put("/sys/fs/cgroup/a.slice/b.service/memory.max", "536870912\n");
	assert_true(qs_memory_cgroup(root) == 536870912);
	put("/sys/fs/cgroup/memory.max", "4096\n");
	assert_true(qs_memory_cgroup(root) == 4096);
}

static void test_version_1_has_a_hierarchy_of_its_own(void **state)
{
	(void)state;
	put("/proc/self/cgroup",
	    "11:cpu,memoryless:/x\n9:cpuset,memory:/docker/0a\n1:name=systemd:/y\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1\n");
	assert_true(qs_memory_cgroup(root) == 9223372036854771712U);
	put("/sys/fs/cgroup/memory/docker/0a/memory.limit_in_bytes", "2147483648\n");
	assert_true(qs_memory_cgroup(root) == 2147483648U);
}

static void test_the_default_is_within_the_machine(void **state)
{
	(void)state;
	assert_true(qs_memory_default() > 0);
	assert_true(qs_memory_default() <=
		    (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_without_cgroups_there_is_no_limit, make_root,
						drop_root),
		cmocka_unit_test_setup_teardown(test_version_2_takes_the_smallest_up_to_the_top,
						make_root, drop_root),
		cmocka_unit_test_setup_teardown(test_version_1_has_a_hierarchy_of_its_own,
						make_root, drop_root),
		cmocka_unit_test(test_the_default_is_within_the_machine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
