# One key server for all tests of a file, and a tree of two devices for each of them: "load
# kmip-shared" behind "load kmip". OTHER is the directory of another server that a test may start.
# shellcheck shell=bash

setup_file()
{
	SERVER=$BATS_FILE_TMPDIR/server
	export SERVER
	kmip start "$SERVER"
}

teardown_file()
{
	kmip stop "$SERVER"
}

setup()
{
	make_tree 2
	# shellcheck disable=SC2034 # of the tests
	KEYSTORE=$ROOT/etc/cryptconf/keystore
	OTHER=$BATS_TEST_TMPDIR/other
	mkdir -p "$ROOT/etc/cryptconf/kmip"
	identity client
	servers "$SERVER"
}

teardown()
{
	[ ! -e "$OTHER" ] || kmip stop "$OTHER"
}

# asked OPERATION: how often the server has been.
asked()
{
	grep -c "Processing operation: $1\$" "$SERVER/log" || true
}
