#!/usr/bin/env bats
# A key server's key that is kept under the TPM for when no server answers (kms_lease).
# shellcheck disable=SC2030,SC2031 # $output is read by functions of the same test

load tree
load tpm2
load kmip

setup()
{
	SERVER=$BATS_TEST_TMPDIR/server
	OTHER=$BATS_TEST_TMPDIR/other
	# shellcheck disable=SC2034 # of servers()
	DEADLINE=30 # nothing here is silent
	make_tree 1
	make_tpm
	KEYSTORE=$ROOT/etc/cryptconf/keystore
	kmip start "$SERVER"
	mkdir -p "$ROOT/etc/cryptconf/kmip"
	identity client
	configure "$SERVER" 'kms_lease = "168h";'
}

teardown()
{
	kmip stop "$SERVER"
	[ ! -e "$OTHER" ] || kmip stop "$OTHER"
	drop_tpm
}

# configure DIR SETTING...: the server to ask.
configure()
{
	servers "$1"
	setting "tpm2_device = \"swtpm:path=$TPM/s\";" "${@:2}"
}

@test "a server that is away opens by its lease, until it ends, and only on this TPM" {
	enrolled 1
	[ ! -e "$KEYSTORE/1.lease" ]
	[ "$(leases)" = '["missing",null]' ]
	run -0 qs keystore status
	[[ $output == *'leases: none yet: keystore check makes one'* ]]
	run -0 qs keystore check
	[ "$(stat -c %a "$KEYSTORE/1.lease")" = 400 ]
	run -0 --separate-stderr qs --json keystore status
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '.result | [.lease_state, (.leases | map(.generation))]' <<<"$output")" = '["made",[1]]' ]
	run -0 qs keystore status
	[[ $output == *'without the key server until 20'* ]]
	kmip stop "$SERVER"
	run -0 qs cryptopen --test "${ID}1"
	[[ $output == *'the lease is used: '*'cannot connect'* ]]
	# The check is of the server itself, and leaves the lease.
	run -75 qs keystore check
	run -0 qs cryptopenall --test
	# It cannot be made longer, nor be used by another machine.
	cp -p "$KEYSTORE/1.lease" "$BATS_TEST_TMPDIR/lease"
	sed 's/"until": [0-9]*/"until": 9999999999/' "$BATS_TEST_TMPDIR/lease" >"$KEYSTORE/1.lease"
	run -75 qs cryptopen --test "${ID}1"
	[[ $output == *'1.lease is malformed'* ]]
	[[ $(lease .problem) == *malformed* ]]
	jq '.until = 9999999999 | del(.sum)' "$BATS_TEST_TMPDIR/lease" >"$KEYSTORE/1.lease"
	run -75 qs cryptopen --test "${ID}1"
	[[ $output == *'was changed'* ]]
	printf '{"version":1' >"$KEYSTORE/1.lease"
	run -75 qs cryptopen --test "${ID}1"
	[[ $output == *'1.lease is malformed'* ]]
	cp -p "$BATS_TEST_TMPDIR/lease" "$KEYSTORE/1.lease"
	"$SWTPM" measure "$TPM" update 7
	run -75 qs cryptopen --test "${ID}1"
	[[ $output == *'PCR 7'* ]]
	# Without the setting there is none, whatever lies there.
	configure "$SERVER"
	run -75 qs cryptopen --test "${ID}1"
	[[ $output != *lease* && $output != *PCR* ]]
	[[ $(leases) == '["off","kms_lease is off;'* ]]
	run -0 qs keystore status
	[[ $output == *'leases: off'* && $output != *'without the key server'* ]]
	# The server is back: the check makes a new one for the present state, and then one that ends.
	kmip start "$SERVER"
	configure "$SERVER" 'kms_lease = "168h";'
	run -0 qs keystore check
	kmip stop "$SERVER"
	run -0 qs cryptopen --test "${ID}1"
	kmip start "$SERVER"
	configure "$SERVER" 'kms_lease = 1;'
	run -0 qs keystore check
	kmip stop "$SERVER"
	sleep 1.1
	run -75 qs cryptopen --test "${ID}1"
	[[ $output == *'the lease ended on 20'* ]]
}

# no_lease_with STATUS DIR...: the servers DIR, of which one answers.
no_lease_with()
{
	servers "${@:2}"
	setting "tpm2_device = \"swtpm:path=$TPM/s\"; kms_lease = \"168h\";"
	run "-$1" qs cryptopen --test "${ID}1"
	[[ $output == *'generation 1 of the keystore'* && $output != *'the lease'* ]]
}

@test "no lease is used against the answer of a server, whatever others say" {
	local case port dead=$BATS_TEST_TMPDIR/dead
	port=$(<"$SERVER/port")
	mkdir "$dead"
	echo 1 >"$dead/port"
	enrolled 1
	run -0 qs keystore check
	# Destroyed, permission denied, its own limit, its own error.
	for case in 1:2 c:2 3a:75 100:75; do
		kmip double "$OTHER" "$SERVER" "refuse:a:${case%:*}:$port" server
		no_lease_with "${case#*:}" "$OTHER"
		no_lease_with "${case#*:}" "$dead" "$OTHER"
		kmip stop "$OTHER"
	done
	# It takes our certificate no more.
	identity client-rogue
	no_lease_with 2 "$dead" "$SERVER"
	identity client
	servers "$dead"
	setting "tpm2_device = \"swtpm:path=$TPM/s\"; kms_lease = \"168h\";"
	run -0 qs cryptopen --test "${ID}1"
	[[ $output == *'the lease is used'* ]]
}

# checked_with DIR...: the servers DIR; prints whether the lease is still there.
checked_with()
{
	servers "$@"
	setting "tpm2_device = \"swtpm:path=$TPM/s\"; kms_lease = \"168h\";"
	qs keystore check >&2 || true
	[ -e "$KEYSTORE/1.lease" ] && [ -e "$KEYSTORE/1.sealed" ] && echo kept || echo ended
}

@test "a server that refuses the key or us ends the lease; one in trouble does not, whatever others say" {
	local port twin=$BATS_TEST_TMPDIR/twin
	port=$(<"$SERVER/port")
	enrolled 1
	[ "$(checked_with "$SERVER")" = kept ]
	kmip double "$OTHER" "$SERVER" "refuse:a:100:$port" server
	kmip double "$twin" "$SERVER" "pass:$port" server-expired
	run checked_with "$OTHER" "$twin"
	kmip stop "$twin"
	[ "${lines[-1]}" = kept ]
	kmip stop "$OTHER"
	identity client-rogue
	[ "$(checked_with "$SERVER")" = ended ]
	identity client
	[ "$(checked_with "$SERVER")" = kept ]
	kmip double "$OTHER" "$SERVER" "refuse:a:1:$port" server
	[ "$(checked_with "$OTHER")" = ended ]
}

# restart [crash]: the machine is switched off and on, or loses its power.
restart()
{
	"$SWTPM" "${1:-stop}" "$TPM"
	"$SWTPM" start "$TPM"
	"$SWTPM" measure "$TPM" booted 0 2 7 11
}

# The state of all, and what is wrong with the first one.
leases()
{
	qs --json keystore status | jq -c '.result | [.lease_state, .leases[0].problem]'
}

# lease JQ: of status.
lease()
{
	qs --json keystore status | jq -c ".result.leases[0] | $1"
}

# pass SECONDS: by the TPM's clock alone.
pass()
{
	local now
	export TPM2TOOLS_TCTI=swtpm:path=$TPM/s
	now=$(tpm2_readclock | sed -n 's/^ *clock: //p')
	tpm2_setclock "$((now + $1 * 1000))"
	unset TPM2TOOLS_TCTI
}

@test "a lease ends after so many starts, however the machine is switched off" {
	enrolled 1
	configure "$SERVER" 'kms_lease_boots = 2;'
	run -0 qs keystore check
	[ "$(lease '[.until, .boots, .boots_left]')" = '[null,2,2]' ]
	kmip stop "$SERVER"
	restart
	[ "$(lease .boots_left)" = 1 ]
	run -0 qs cryptopen --test "${ID}1"
	restart crash
	run -0 qs keystore status
	[[ $output == *'without the key server for 0 more starts (of 2)'* ]]
	run -0 qs cryptopen --test "${ID}1"
	cp -p "$KEYSTORE/1.lease" "$BATS_TEST_TMPDIR/lease"
	restart
	run -75 qs cryptopen --test "${ID}1"
	[[ $output == *'the lease ended: it was for 2 starts of this machine'* ]]
	run -0 qs keystore status
	[[ $output == *'a lease that opens nothing: the lease ended'* ]]
	# Nor do its numbers make it longer.
	jq '.boots = 9 | del(.sum)' "$BATS_TEST_TMPDIR/lease" >"$KEYSTORE/1.lease"
	run -75 qs cryptopen --test "${ID}1"
	[[ $output == *'was changed'* ]]
	# The server renews it, as another one, too.
	kmip start "$SERVER"
	configure "$SERVER" 'kms_lease_boots = 1; kms_lease = "1h";'
	run -0 qs keystore check
	[ "$(lease '[.boots_left, .seconds_left > 3000 and .seconds_left <= 3600]')" = '[1,true]' ]
	run -0 --separate-stderr qs --json keystore status
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	kmip stop "$SERVER"
	# This machine's clock stands still, the TPM's does not.
	pass 1800
	run -0 qs cryptopen --test "${ID}1"
	pass 1800
	run -75 qs cryptopen --test "${ID}1"
	[[ $output == *"ended by the TPM's clock"* ]]
}

# The bytes of the keystore's key at the server.
kek()
{
	python3 - "$SERVER/keys.db" <<-'END'
		import sqlite3, sys
		print(sqlite3.connect(sys.argv[1]).execute("SELECT value FROM managed_objects").fetchone()[0].hex())
	END
}

# The files of the machine that have these bytes.
holders()
{
	python3 - "$(kek)" "$ROOT"/{etc,run,var} "$TPM" <<-'END'
		import pathlib, sys
		key = bytes.fromhex(sys.argv[1])
		for folder in sys.argv[2:]:
		    for file in pathlib.Path(folder).rglob("*"):
		        if file.is_file() and key in file.read_bytes():
		            print(file)
	END
}

@test "a lease keeps no secret in a file, and is gone once the keystore went elsewhere" {
	enrolled 1
	run -0 qs keystore check
	[ -e "$KEYSTORE/1.lease" ]
	[ "$(kek | wc -c)" = 65 ]
	[ -z "$(holders)" ]
	kek | xxd -r -p >"$ROOT/etc/planted"
	[ "$(holders)" = "$ROOT/etc/planted" ]
	qs --yes keystore migrate --provider local
	[ ! -e "$KEYSTORE/1.lease" ] && [ ! -e "$KEYSTORE/1.sealed" ]
	run -0 qs keystore check
	[ ! -e "$KEYSTORE/1.lease" ]
	run -0 qs keystore rotate --force
	[ ! -e "$KEYSTORE/1.kmip" ]
}

@test "a lease ends when the server refuses, when it is switched off, and with its generation" {
	enrolled 1
	run -0 qs keystore check
	kmip double "$OTHER" "$SERVER" "refuse:a:c:$(<"$SERVER/port")" server
	configure "$OTHER" 'kms_lease = "168h";'
	# It answers, so no lease is used.
	run -2 qs cryptopen --test "${ID}1"
	run -2 qs keystore check
	[ "$(echo "$KEYSTORE"/1.*)" = "$KEYSTORE/1.kmip" ]
	configure "$SERVER" 'kms_lease = "168h";'
	run -0 qs keystore check
	[ -e "$KEYSTORE/1.lease" ] && [ -e "$KEYSTORE/1.sealed" ]
	configure "$SERVER"
	run -0 qs keystore check
	[ "$(echo "$KEYSTORE"/1.*)" = "$KEYSTORE/1.kmip" ]
	configure "$SERVER" 'kms_lease = "168h";'
	run -0 qs keystore check
	run -0 qs keystore rotate --force
	run -0 qs keystore check
	[ -e "$KEYSTORE/1.lease" ] && [ -e "$KEYSTORE/2.lease" ]
	run -0 qs keystore rotate --force
	[ "$(echo "$KEYSTORE"/1.*)" = "$KEYSTORE/1.*" ]
	rm -r "$ROOT"/dev/disk/by-id "$ROOT/etc/cryptconf/headers" "$ROOT/etc/crypttab"
	run -0 qs --yes keystore disable
	[ ! -e "$KEYSTORE" ]
}
