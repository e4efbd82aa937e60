/*
 * Paths by an inode that nobody watches: what has no need of one, or is not there, keeps its own.
 * With block devices and a udev: tests/guest/life.bats.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/quiet.h"

static void stays(const char *node)
{
	char *path = NULL;

	assert_int_equal(qs_device_quiet_path(node, &path), -1);
	assert_string_equal(path, node);
	free(path);
}

static void test_only_block_devices_get_one(void **state)
{
	(void)state;
	stays("/dev/null");
	stays("/proc/self/exe");
	stays("/dev/there-is-no-such-device");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_block_devices_get_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
