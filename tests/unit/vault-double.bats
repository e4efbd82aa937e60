#!/usr/bin/env bats
# The double of Vault and OpenBao is held to what a genuine server was recorded with, and to what
# somebody else's client expects.

bats_require_minimum_version 1.5.0

setup()
{
	SERVER=$BATS_TEST_TMPDIR/server
}

teardown()
{
	"$BATS_TEST_DIRNAME/../vault-server" stop "$SERVER"
}

@test "the double answers as the recorded server did" {
	"$BATS_TEST_DIRNAME/../vault-server" start "$SERVER" 1.8 fresh
	run -0 "$BATS_TEST_DIRNAME/../vault-replay" "$SERVER" "$BATS_TEST_DIRNAME/../vectors/vault"
	[ "$output" = '147 exchanges' ]
}

@test "hvac works with the double of every age" {
	local age
	for age in 1.8 1.14 openbao; do
		"$BATS_TEST_DIRNAME/../vault-server" start "$SERVER" $age
		run -0 "$BATS_TEST_DIRNAME/../vault-judge" "$SERVER" $age
		[ ! -s "$SERVER/output" ] || { cat "$SERVER/output"; false; }
		"$BATS_TEST_DIRNAME/../vault-server" stop "$SERVER"
	done
}
