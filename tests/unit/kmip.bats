#!/usr/bin/env bats
# The keystore's provider kmip with a real key server (PyKMIP), and with one that misbehaves.

# shellcheck disable=SC2153 # SERVER is of kmip-shared
load tree
load journal
load kmip
load kmip-shared

@test "a key of the server's opens devices in every version of KMIP, and is destroyed in the end" {
	local version before
	before=$(keys)
	enrolled 2
	[ "$(keys)" = $((before + 1)) ]
	[ "$(stat -c '%a' "$KEYSTORE/1.kmip")" = 400 ]
	[ "$(jq -r .name "$KEYSTORE/1.kmip")" = "qs-util/$(jq -r .store "$KEYSTORE/keystore.json")/1" ]
	run -0 --separate-stderr qs --json cryptopenall --test
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '[.devices[].keystore_generation]' <<<"$output")" = '[1,1]' ]
	run -6 qs --yes keystore disable
	mv "$BATS_TEST_TMPDIR"/keys/* "$ROOT/etc/cryptconf/keys"
	qs --yes cryptenroll "${ID}1" "${ID}2" --wipe keystore
	qs --yes keystore disable
	openssl genrsa 3072 >"$BATS_TEST_TMPDIR/escrow.key" 2>/dev/null
	openssl pkey -in "$BATS_TEST_TMPDIR/escrow.key" -pubout -out "$BATS_TEST_TMPDIR/escrow.pub"
	for version in 1.0 1.1 1.2 1.3 1.4 2.0; do
		servers "$SERVER"
		setting "kmip_version = \"$version\";"
		run -0 qs --yes keystore enable --provider kmip
		qs cryptenroll "${ID}1" --keystore
		run -0 --separate-stderr qs --json keystore status
		"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
		[ "$(jq -c '.result.server | [.version, .reachable]' <<<"$output")" = "[\"$version\",true]" ]
		run -0 qs keystore rotate --force
		run -0 qs keystore rotate --force
		[ "$(keys)" = $((before + 2)) ] # the first generation is gone
		run -0 --separate-stderr qs --json keystore verify
		[ "$(jq -c '[.devices[] | select(.generation == 3)] | length' <<<"$output")" = 2 ]
		run -0 qs keystore export --public-key "$BATS_TEST_TMPDIR/escrow.pub" --output "$BATS_TEST_TMPDIR/kek.$version"
		[ "$(exported "$version" | jq -r .alg)" = A256GCMKW ]
		qs --yes cryptenroll "${ID}1" --wipe keystore
		run -0 qs --yes keystore disable
		[ "$(keys)" = "$before" ]
		[ ! -e "$KEYSTORE" ]
	done
}

# exported VERSION: the JWK that was exported.
exported()
{
	openssl pkeyutl -decrypt -inkey "$BATS_TEST_TMPDIR/escrow.key" -pkeyopt rsa_padding_mode:oaep \
		-pkeyopt rsa_oaep_md:sha256 -in "$BATS_TEST_TMPDIR/kek.$1"
}

@test "one login and one Get, however many devices" {
	enrolled 2
	local n line
	line=$(grep scsi-30001 "$ROOT/etc/crypttab")
	for ((n = 3; n <= 8; n++)); do
		cp --sparse=always "$(image_of 1)" "$ROOT/img/d$n"
		ln -s "$ROOT/img/d$n" "$ROOT${ID}$n"
		echo "${line//scsi-30001/scsi-3000$n}" >>"$ROOT/etc/crypttab"
	done
	kmip double "$OTHER" "$SERVER" "count:$(<"$SERVER/port")"
	servers "$OTHER"
	local before
	before=$(asked Get)
	run -0 --separate-stderr qs --json cryptopenall --test
	[ "$(jq -c '[.devices[].keystore_generation]' <<<"$output")" = '[1,1,1,1,1,1,1,1]' ]
	[ "$(asked Get)" = $((before + 1)) ]
	[ "$(wc -l <"$OTHER/connections")" = 1 ]
}

@test "the twin answers when the first server is gone, silent, or not itself" {
	local id
	enrolled 1
	kmip double "$OTHER" "$SERVER" silent
	DEADLINE=6 servers "$OTHER" "$SERVER"
	run -0 qs cryptopen --test "${ID}1"
	kmip stop "$OTHER"
	run -0 qs cryptopen --test "${ID}1"
	kmip double "$OTHER" "$SERVER" silent server-rogue
	servers "$OTHER" "$SERVER"
	run -0 qs cryptopen --test "${ID}1"
	kmip stop "$OTHER"
	kmip double "$OTHER" "$SERVER" cut server
	servers "$OTHER" "$SERVER"
	run -0 qs cryptopen --test "${ID}1"
	run -0 --separate-stderr qs --json keystore status
	[ "$(jq -r .result.server.address <<<"$output")" = "localhost:$(<"$SERVER/port")" ]
	jq -e '.result.server.answered_ms | type == "number" and . >= 0' <<<"$output"
	id=$(jq -r .uid "$KEYSTORE/1.kmip")
	[ "$(jq -r ".result.generations[0].key.name" <<<"$output")" = "$id" ]
	run -0 qs keystore status
	[[ $output == *"; key $id there"*", answered in "*" ms"* ]]
}

@test "a server that is down or says nothing is waited for once, and the next key is tried" {
	enrolled 2
	kmip double "$OTHER" "$SERVER" "count:1"
	servers "$OTHER"
	run -75 qs cryptopenall --test
	[[ $output == *'ended the connection'* ]]
	[ "$(wc -l <"$OTHER/connections")" = 1 ]
	kmip stop "$OTHER"
	run -75 qs cryptopen --test "${ID}1"
	[[ $output == *'cannot connect'* ]]
	run -0 --separate-stderr qs --json keystore status
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '.result.server | [.reachable, has("certificate_expires"), has("version")]' <<<"$output")" = '[false,true,false]' ]
	DEADLINE=3 servers "$SERVER"
	kmip freeze "$SERVER"
	run qs cryptopen --test "${ID}2"
	cp -p "$BATS_TEST_TMPDIR"/keys/* "$ROOT/etc/cryptconf/keys"
	run -0 --separate-stderr qs --json cryptopen --test "${ID}2"
	kmip thaw "$SERVER"
	[ "$(jq -c '.devices[0] | [.keyslot, has("keystore_generation")]' <<<"$output")" = '[0,false]' ]
}

# interrupted SIGNAL ARGUMENT...: a command gets it once it talks to a server that says nothing.
interrupted()
{
	local pid signal=$1 status=0
	rm -f "$OTHER/connections"
	kmip freeze "$SERVER"
	setsid "$QS_UTIL" --root="$ROOT" "${@:2}" </dev/null &
	pid=$!
	until [ -e "$OTHER/connections" ] || ! kill -0 "$pid"; do sleep 0.02; done
	kill "-$signal" -- "-$pid"
	wait "$pid" || status=$?
	kmip thaw "$SERVER"
	return "$status"
}

@test "Ctrl-C and SIGTERM while the server says nothing: 1 and not 75, and a second run goes on" {
	kmip double "$OTHER" "$SERVER" "count:$(<"$SERVER/port")"
	# Shorter than any other wait for what was interrupted: who waits for it gets 75.
	DEADLINE=9 servers "$OTHER"
	run -1 interrupted INT --yes keystore enable --provider kmip
	[[ $output == *interrupted* ]]
	enrolled 2
	run -1 interrupted INT --json cryptopenall --test
	[ "$(jq -c '[.devices[].error.code]' <<<"$output")" = '["interrupted","interrupted"]' ]
	run -1 interrupted TERM --json keystore check
	[ "$(jq -r .error.code <<<"$output")" = interrupted ]
	[ ! -e "$ROOT/var/lib/qs-util/keystore-check.json" ]
	run -0 qs cryptopenall --test
}

@test "--local asks no server, and leaves only what needs one" {
	enrolled 2
	kmip double "$OTHER" "$SERVER" "count:$(<"$SERVER/port")"
	servers "$OTHER"
	cp -p "$BATS_TEST_TMPDIR"/keys/*2.key "$ROOT/etc/cryptconf/keys"
	run -0 --separate-stderr qs --json cryptopenall --local --test
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '[.devices[] | [.state, .keyslot, .error]]' <<<"$output")" = '[["left",null,null],[null,0,null]]' ]
	[ ! -e "$OTHER/connections" ]
	run -0 qs cryptopenall --test
	[ "$(wc -l <"$OTHER/connections")" = 1 ]
	# What is wrong otherwise is no matter of the network.
	truncate -s 1M "$(image_of 1)"
	run -7 qs cryptopenall --local --test
}

@test "each side refuses the other's wrong certificate with a sentence, and nothing is made" {
	local before server
	before=$(keys)
	refused()
	{
		run -"$1" qs --yes keystore enable --provider kmip
		[[ $output == *"$2"* ]] || { echo "not $2: $output"; return 1; }
		[ ! -e "$KEYSTORE" ]
	}
	identity client-expired
	refused 2 'expired on'
	identity client-early
	refused 2 'valid from'
	identity client-rogue
	refused 2 'does not know its authority'
	identity client-noeku
	refused 2 'clientAuth'
	identity client
	install -m 0400 "$SERVER/certs/client-rogue.key" "$ROOT/etc/cryptconf/kmip/client.key"
	refused 2 'is not that of'
	openssl pkcs8 -topk8 -in "$SERVER/certs/client.key" -passout pass:secret -out "$BATS_TEST_TMPDIR/locked.key"
	install -m 0400 "$BATS_TEST_TMPDIR/locked.key" "$ROOT/etc/cryptconf/kmip/client.key"
	refused 2 'under a passphrase'
	chmod 0644 "$ROOT/etc/cryptconf/kmip/client.key"
	refused 2 'can be read'
	identity client
	for server in expired:'has expired' early:'not valid yet' other:'another name' cn:'another name' rogue:'not vouched for'; do
		kmip double "$OTHER" "$SERVER" silent "server-${server%%:*}"
		servers "$OTHER"
		refused 6 "${server#*:}"
		kmip stop "$OTHER"
	done
	[ "$(keys)" = "$before" ]
}

@test "answers that are cut, too long or no KMIP are sentences" {
	local rule
	kmip double "$OTHER" "$SERVER" silent server
	DEADLINE=3 servers "$OTHER"
	run -75 qs --yes keystore enable --provider kmip
	# Its worker says the one; where that gets no time for it, who waits for it the other.
	[[ $output == *'does not answer'* || $output == *'no key server answered within'* ]]
	kmip stop "$OTHER"
	for rule in gone:'ended the connection' babble:'no KMIP message' large:'claims to have' \
		cut:'ended the connection'; do
		kmip double "$OTHER" "$SERVER" "${rule%%:*}" server
		servers "$OTHER"
		run ! qs --yes keystore enable --provider kmip
		[[ $output == *"${rule#*:}"* ]] || { echo "not ${rule#*:}: $output"; return 1; }
		[ ! -e "$KEYSTORE" ]
		kmip stop "$OTHER"
	done
	setting 'kmip_servers = "";'
	printf 'kmip_servers = "";\n' >"$ROOT/etc/cryptconf/qs-util.conf"
	run -78 qs --yes keystore enable --provider kmip
	[[ $output == *kmip_servers* ]]
	printf 'kmip_servers = "a:b:c";\n' >"$ROOT/etc/cryptconf/qs-util.conf"
	run -78 qs --yes keystore enable --provider kmip
	printf 'kmip_version = "3.0";\n' >"$ROOT/etc/cryptconf/qs-util.conf"
	run -78 qs keystore status
	printf 'kmip_servers = "nowhere.invalid"; kmip_deadline = 30;\n' >"$ROOT/etc/cryptconf/qs-util.conf"
	run -75 qs --yes keystore enable --provider kmip
	[[ $output == *nowhere.invalid* ]]
}

@test "a key of the server's that is another, or gone, opens nothing and is not destroyed" {
	enrolled 1
	local record=$KEYSTORE/1.kmip good
	good=$(<"$record")
	change()
	{
		(umask 077 && jq -c "$1 | del(.sum)" <<<"$good" >"$record.new") && mv "$record.new" "$record"
	}
	# Another keystore's key at the same server.
	local neighbour=$BATS_TEST_TMPDIR/neighbour theirs
	mkdir -p "$neighbour"/{etc/cryptconf,run}
	cp -a "$ROOT"/etc/cryptconf/{kmip,qs-util.conf} "$neighbour/etc/cryptconf"
	"$QS_UTIL" --root="$neighbour" --yes keystore enable --provider kmip </dev/null
	theirs=$(jq -r .uid "$neighbour/etc/cryptconf/keystore/1.kmip")
	change ".uid = \"$theirs\""
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'does not fit'* ]]
	change '.uid = "4711"'
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'no such key'* ]]
	change '.name = "qs-util/other/1"'
	run ! qs cryptopen --test "${ID}1"
	[[ $output == *'another key'* ]]
	rm "$record"
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'is not known'* ]]
	rm -r "$ROOT"/dev/disk/by-id "$ROOT/etc/cryptconf/headers" "$ROOT/etc/crypttab"
	change ".uid = \"$theirs\""
	run -6 qs --yes keystore disable
	[[ $output == *'is not called'* ]]
	# Without a record it is found by its name.
	rm "$record"
	local before
	before=$(keys)
	run -0 qs --yes keystore disable
	[ "$(keys)" = $((before - 1)) ]
}

# made NAME [BITS [USAGE]]: somebody makes an active key there. Prints its identifier.
made()
{
	"$BATS_TEST_DIRNAME/../kmip-admin" "$SERVER" "$@"
}

@test "a rotation to a key that was made at the server, by its identifier or its name" {
	local id before
	enrolled 1
	id=$(made master-2)
	before=$(keys)
	refused()
	{
		run -"$1" qs keystore rotate --force --key-id "$2"
		[[ $output == *"$3"* ]] || { echo "not $3: $output"; return 1; }
		[ "$(jq -c '[.current, .rotation]' "$KEYSTORE/keystore.json")" = '[1,null]' ]
	}
	refused 2 nothing 'no key nothing'
	refused 1 "$(made short 128)" '128 bits'
	refused 1 "$(made signs 256 sign)" 'usage mask'
	refused 1 "$(made waits 256 wait)" 'not activated'
	made twice >/dev/null
	made twice >/dev/null
	refused 6 twice 'more than one key called twice'
	refused 6 "$(jq -r .uid "$KEYSTORE/1.kmip")" 'is generation 1 already'
	before=$(keys)
	run -0 qs keystore rotate --force --key-id master-2
	[ "$(keys)" = "$before" ]
	[ "$(jq -c '[.uid, .adopted]' "$KEYSTORE/2.kmip")" = "[\"$id\",true]" ]
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	[ "$(jq -c '.devices[0].keystore_generation' <<<"$output")" = 2 ]
	# It is not ours to destroy; the first one is.
	run -0 qs keystore rotate --force
	run -0 qs keystore rotate --force
	[ "$(keys)" = $((before + 1)) ]
	[ ! -e "$KEYSTORE/2.kmip" ]
	rm -r "$ROOT"/dev/disk/by-id "$ROOT/etc/cryptconf/headers" "$ROOT/etc/crypttab"
	qs --yes keystore disable
	[ "$(keys)" = $((before - 1)) ]
	run -0 qs --yes keystore enable --provider kmip --key-id "$id"
	qs --yes keystore disable
	[ "$(keys)" = $((before - 1)) ]
	run -64 qs --yes keystore enable --key-id "$id"
	[[ $output == *'makes its own'* ]]
}

@test "a server that creates no keys is given one" {
	local before reason
	before=$(keys)
	for reason in 5 c; do
		kmip double "$OTHER" "$SERVER" "refuse:1:$reason:$(<"$SERVER/port")" server
		servers "$OTHER"
		run -0 qs --yes keystore enable --provider kmip
		[ "$(keys)" = $((before + 1)) ]
		grep -qx 3 "$OTHER/messages"
		run -0 qs --yes keystore disable
		[ "$(keys)" = "$before" ]
		kmip stop "$OTHER"
	done
	kmip double "$OTHER" "$SERVER" "refuse:1:7:$(<"$SERVER/port")" server
	servers "$OTHER"
	run -1 qs --yes keystore enable --provider kmip
	[[ $output == *'Create is refused'* ]]
	[ ! -e "$KEYSTORE" ]
}

@test "answers of a server that is not what it says are sentences, and its twin is asked" {
	enrolled 1
	local rule port
	port=$(<"$SERVER/port")
	for rule in version:'another version' batch:'announces' cut-short:'answer' refuse:a:2a:'error of its own' refuse:a:100:'does not say why'; do
		kmip double "$OTHER" "$SERVER" "${rule%:*}:$port" server
		servers "$OTHER"
		run ! qs cryptopen --test "${ID}1"
		[[ $output == *"${rule##*:}"* ]] || { echo "not ${rule##*:}: $output"; return 1; }
		servers "$OTHER" "$SERVER"
		run -0 qs cryptopen --test "${ID}1"
		kmip stop "$OTHER"
	done
	kmip double "$OTHER" "$SERVER" "slow:$port" server
	DEADLINE=6 servers "$OTHER" "$SERVER"
	run -0 qs cryptopen --test "${ID}1"
	kmip stop "$OTHER"
	# What it refuses is no reason to ask another one.
	kmip double "$OTHER" "$SERVER" "refuse:a:c:$port" server
	servers "$OTHER" "$SERVER"
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'permission denied'* ]]
}

@test "what ends within 30 days is told: by status, by check, and to the journal" {
	local log=$BATS_TEST_TMPDIR/journal.log first
	qs --yes keystore enable --provider kmip
	check()
	{
		run -"$1" --separate-stderr journal --json keystore check
		"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	}
	identity client-31
	check 0
	[ "$(jq -c '.result | [.tried, has("warnings"), (.server.expires | length)]' <<<"$output")" = '[[1],false,3]' ]
	[ ! -s "$log" ]
	first=$(jq -r .result.last_check.succeeded <<<"$output")
	[ "$first" = "$(jq -r .result.last_check.time <<<"$output")" ]
	identity client-29
	check 1
	[[ $(jq -r '.result.warnings[]' <<<"$output") == "this machine's certificate (kmip_certificate) ends in 29 days, on 20"* ]]
	grep -qx 'MESSAGE_ID=9fd303b770a14f1d865497a70f209dd6' "$log"
	grep -q '^QS_REASON=this machine' "$log"
	run -0 qs keystore status
	[[ $output == *"warning: this machine's certificate"* ]]
	# A second thing is told, too, and what has ended is no matter of days.
	kmip double "$OTHER" "$SERVER" "pass:$(<"$SERVER/port")" server-29
	servers "$OTHER"
	check 1
	[ "$(jq -c '.result.warnings | length' <<<"$output")" = 2 ]
	[ "$(grep -c '^MESSAGE_ID=' "$log")" = 2 ]
	identity client-expired
	servers "$SERVER"
	check 2
	[[ $(jq -r '.result.warnings[]' <<<"$output") == "this machine's certificate (kmip_certificate) ended on 20"* ]]
	grep -qx 'MESSAGE_ID=93b9abf1642c4fd5a8412d3c7713d7a0' "$log"
	[ "$(jq -c '.result.tried' <<<"$output")" = '[]' ]
	identity client
	printf 'kmip_servers = "localhost:1"; kmip_deadline = 1;\n' >"$ROOT/etc/cryptconf/qs-util.conf"
	# All of this may be over within one second.
	sed -i 's/"succeeded": "20../"succeeded": "2000/' "$ROOT/var/lib/qs-util/keystore-check.json"
	check 75
	jq -e '.result.last_check | .time > .succeeded and (.succeeded | startswith("2000-"))' <<<"$output"
	run -0 qs keystore status
	[[ $output == *'last check on 20'*'; the last one that had the keys on 2000-'* ]]
	# A file that somebody broke says nothing.
	echo '{"time":1}' >"$ROOT/var/lib/qs-util/keystore-check.json"
	run -0 --separate-stderr qs --json keystore status
	[ "$(jq -c '.result | has("last_check")' <<<"$output")" = false ]
}

@test "enabling and disabling that were cut off between server and disk are finished by a second run" {
	local before state
	before=$(keys)
	qs --yes keystore enable --provider kmip
	# Cut behind Create: the key is there, and nothing here knows its identifier.
	state=$(jq '.state = "enabling" | .current = 0 | .generations = [] | del(.sum)' "$KEYSTORE/keystore.json")
	echo "$state" >"$KEYSTORE/keystore.json"
	rm "$KEYSTORE/1.kmip"
	run -0 qs --yes keystore enable --provider kmip
	[ "$(keys)" = $((before + 1)) ]
	# Cut behind Destroy: the record is left.
	state=$(jq '.state = "disabling" | del(.sum)' "$KEYSTORE/keystore.json")
	cp -p "$KEYSTORE/1.kmip" "$BATS_TEST_TMPDIR"
	qs --yes keystore disable
	[ "$(keys)" = "$before" ]
	mkdir -m 0700 "$KEYSTORE"
	cp -p "$BATS_TEST_TMPDIR/1.kmip" "$KEYSTORE"
	(umask 077 && echo "$state" >"$KEYSTORE/keystore.json")
	run -0 qs --yes keystore disable
	[ ! -e "$KEYSTORE" ]
	# Nothing can be erased while no server answers, and nothing is forgotten.
	qs --yes keystore enable --provider kmip
	printf 'kmip_servers = "localhost:1"; kmip_deadline = 1;\n' >"$ROOT/etc/cryptconf/qs-util.conf"
	run -75 qs --yes keystore disable
	[ -e "$KEYSTORE/1.kmip" ]
	servers "$SERVER"
	run -0 qs --yes keystore disable
	[ "$(keys)" = "$before" ]
}

@test "a user and his password go to servers that want them, from a file of root's alone" {
	local file=$ROOT/etc/cryptconf/kmip/password
	kmip double "$OTHER" "$SERVER" "login:qs@x:two words:$(<"$SERVER/port")" server
	refused()
	{
		run -"$1" qs --yes keystore enable --provider kmip
		[[ $output == *"$2"* ]] || { echo "not $2: $output"; return 1; }
		[[ $output != *words* ]]
		[ ! -e "$KEYSTORE" ]
	}
	servers "$OTHER"
	refused 2 'does not accept who we are'
	setting 'kmip_user = "qs@x";'
	refused 2 'kmip_password_file'
	echo 'two words' >"$file"
	chmod 0644 "$file"
	refused 2 'can be read'
	chmod 0400 "$file"
	run -0 qs --yes keystore enable --provider kmip
	run -0 --separate-stderr qs --json keystore status
	[ "$(jq .result.server.reachable <<<"$output")" = true ]
	[[ $output != *words* ]]
	qs --yes keystore disable
	printf 'other words' >"$file"
	refused 2 'does not accept who we are'
	printf 'two\nwords' >"$file"
	refused 2 'one line of a password'
	: >"$file"
	refused 2 'password'
	printf 'kmip_user = "a b";\n' >"$ROOT/etc/cryptconf/qs-util.conf"
	run -78 qs keystore status
	# The real one takes them, too.
	servers "$SERVER"
	setting 'kmip_user = "qs@x";'
	echo 'two words' >"$file"
	run -0 qs --yes keystore enable --provider kmip
	qs --yes keystore disable
}
