#!/usr/bin/env bats
# Keys of a Vault server's for some devices only, beside the keystore's own.

load tree
load vault
load journal

export DEADLINE=30 # no server is silent here, but the machine may be busy

setup()
{
	make_tree 4
	vault_setup
}

# generation_of N, key_of_device N: what opens disk N.
generation_of()
{
	qs --json cryptopen --test "${ID}$1" | jq '.devices[0].keystore_generation'
}

# own_namespace: "team", whose role's secret-id is in the file $SECRET.
own_namespace()
{
	namespace team >/dev/null
	SECRET=/etc/cryptconf/vault/team
	install -m 0400 "$SERVER/team.secret" "$ROOT$SECRET"
	OWN=(--kms-namespace team --role-id "$(<"$SERVER/team.role")" --secret-id-file "$SECRET")
	within team POST transit/keys/finance '{}' >/dev/null
}

# read_only N ARGUMENT...: a command while disk N takes no writes.
read_only()
{
	# shellcheck disable=SC2016 # the shell in there is to expand it
	unshare -m sh -euc 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; shift; exec "$@"' sh \
		"$(image_of "$1")" "$QS_UTIL" --root="$ROOT" "${@:2}" </dev/null
}

# last_error: what status says of the last rotation.
last_error()
{
	qs --json keystore status | jq -r '.result.last_error.message'
}

@test "devices are formatted with a key of theirs, changed to another and taken back" {
	started openbao
	own_namespace
	admin POST transit/keys/qs-one '{}'
	qs --yes keystore enable
	run -0 --separate-stderr qs --json cryptformat --no-open --kms-key finance "${OWN[@]}" "${ID}1" "${ID}2"
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '[.devices[].keystore_generation]' <<<"$output")" = '[2,2]' ]
	qs cryptformat --no-open "${ID}3"
	# The same key and credentials are the same generation, another key another.
	run -0 qs cryptformat --no-open --kms-key finance "${OWN[@]}" "${ID}4"
	[ "$(generation_of 4)" = 2 ]
	run -0 --separate-stderr qs --json keystore rewrap --kms-key qs-one "${ID}3" "${ID}4"
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '[.devices[].generation]' <<<"$output")" = '[3,3]' ]
	[ "$(generation_of 3)$(generation_of 4)$(generation_of 1)" = 332 ]
	run -0 --separate-stderr qs --json keystore status
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '[.result.generations[] | [.number, .devices, .line, .key.name, .key.namespace]]' <<<"$output")" = \
		'[[1,0,null,null,null],[2,2,2,"finance","team"],[3,2,3,"qs-one",null]]' ]
	run -0 qs keystore status
	[[ $output == *'version 1 of finance, namespace team, role '* ]]
	[ "$(stat -c %a "$KEYSTORE/2.vault")" = 400 ]
	# Told of each device, without asking anybody.
	rules ''
	run -0 --separate-stderr qs --json cryptstatus "${ID}1" "${ID}3"
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '[.devices[].keyslots[0].keystore | [.generation, .key.name]]' <<<"$output")" = '[[2,"finance"],[3,"qs-one"]]' ]
	run -0 qs cryptstatus "${ID}1"
	[[ $output == *', generation 2, key finance in team'* ]]
	[ ! -s "$SERVER/requests" ]
	run -0 qs cryptenroll "${ID}1" --list
	[[ $output == *'generation 2, key finance'* ]]
	! grep -rqF "$(<"$SERVER/team.secret")" "$KEYSTORE" || false
	# All of them stay where they are.
	run -0 qs keystore rotate --force
	run -0 qs --yes keystore migrate --provider vault
	run -0 qs keystore rewrap --all
	[ "$(generation_of 1)$(generation_of 3)" = 23 ]
	run -0 qs keystore verify
	run -0 qs keystore check
	# And back: what no device has any more is forgotten, and the key at the server untouched.
	run -0 qs keystore rewrap --cluster-key "${ID}3" "${ID}4"
	[ "$(generation_of 3)$(generation_of 4)" = 55 ]
	[ ! -e "$KEYSTORE/3.vault" ]
	# Nothing is left to do, but to make sure of what a run that was killed may have left unsynced.
	ASAN_OPTIONS=detect_leaks=0 run -0 strace -f -qq -y -e trace=syncfs -o "$BATS_TEST_TMPDIR/trace" \
		"$QS_UTIL" --root="$ROOT" keystore rewrap --cluster-key "${ID}3"
	[ "$output" = "${ID}3: nothing done for enc-scsi-30003 (has that key already)" ]
	grep -q 'syncfs(.*cryptconf/headers' "$BATS_TEST_TMPDIR/trace"
	qs --json keystore rewrap --cluster-key "${ID}3" | "$BATS_TEST_DIRNAME/../validate-json"
	[ "$(admin GET transit/keys/qs-one | jq -c '.data | [.latest_version, .min_decryption_version]')" = '[1,1]' ]
	run -0 qs keystore rewrap --all --cluster-key
	[ "$(jq -c '[.generations[].number]' "$KEYSTORE/keystore.json")" = '[4,5]' ]
	run -0 qs --json cryptopenall --test
}

@test "a key of theirs is rotated with its devices, and nothing else" {
	started 1.14
	admin POST transit/keys/qs-one '{}'
	qs --yes keystore enable --provider vault
	qs cryptformat --no-open --kms-key qs-one "${ID}1" "${ID}2"
	qs cryptformat --no-open "${ID}3"
	run -6 qs keystore rotate --kms-key qs-one
	mv "$(image_of 2)" "$BATS_TEST_TMPDIR/away"
	run -0 --separate-stderr qs --json keystore rotate --force --kms-key qs-one
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(generation_of 1)$(generation_of 3)" = 31 ]
	[ "$(jq -c '[.key, .key_version]' "$KEYSTORE/3.vault")" = '["qs-one",2]' ]
	# The device that was away comes along when it returns, and its generation goes.
	[ -e "$KEYSTORE/2.vault" ]
	mv "$BATS_TEST_TMPDIR/away" "$(image_of 2)"
	[ "$(generation_of 2)" = 2 ]
	run -0 qs keystore rotate --if-due
	[ "$(generation_of 2)" = 3 ]
	[ ! -e "$KEYSTORE/2.vault" ]
	run -2 qs keystore rotate --force --kms-key qs-none
	# What the administrator has rotated is the next version.
	admin POST transit/keys/qs-one/rotate '{}'
	run -0 qs keystore rotate --force --kms-key qs-one
	[ "$(jq .key_version "$KEYSTORE/4.vault")" = 3 ]
	run -0 qs keystore verify
	# Its device destroyed keeps it, and brings it back; the end of the keystore is not the key's.
	run -0 qs --yes cryptdestroy "${ID}1"
	run -0 qs keystore rotate --force
	run -0 qs --yes cryptrestore "${ID}1"
	[ "$(generation_of 1)" = 4 ]
	rm -r "$ROOT/etc/cryptconf/headers" "$ROOT/etc/crypttab" "$ROOT/etc/cryptconf/retired" "$ROOT/img"/*
	run -0 qs --yes keystore disable
	[ ! -e "$KEYSTORE" ]
	[ "$(admin GET transit/keys/qs-one | jq -c '.data | [.latest_version, .min_decryption_version]')" = '[3,1]' ]
}

@test "a rotation of a key that a device fails goes on by the same command, and is over when none waits" {
	started 1.14
	admin POST transit/keys/qs-one '{}'
	qs --yes keystore enable
	qs cryptformat --no-open --kms-key qs-one "${ID}1" "${ID}2"
	qs cryptformat --no-open "${ID}3"
	run -7 read_only 2 keystore rotate --force --kms-key qs-one
	[[ $output == *'1 device could not be brought to generation 3: the same command'* ]]
	[[ $(last_error) == '1 device could not be brought to generation 3: '* ]]
	# Nor does it get a second version by --force.
	run -7 read_only 2 keystore rotate --force --kms-key qs-one
	[ "$(generation_of 1)$(generation_of 2)$(generation_of 3)" = 321 ]
	run -0 --separate-stderr qs --json keystore rotate --kms-key qs-one
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '[.result.key, [.devices[].generation]]' <<<"$output")" = '[{"generation":3,"made":false},[3]]' ]
	[ "$(last_error)" = null ]
	[ "$(admin GET transit/keys/qs-one | jq .data.latest_version)" = 2 ]
	run -6 qs keystore rotate --kms-key qs-one
	# Whoever finishes it, it is over.
	run -7 read_only 2 keystore rotate --force --kms-key qs-one
	run -0 qs keystore rewrap --kms-key qs-one "${ID}2"
	[ "$(last_error)" = null ]
	# A new version that cannot be made is a failure, too.
	rules sealed
	run -75 journal keystore rotate --force --kms-key qs-one
	grep -x 'QS_EVENT=KeyRotationFailed' -A9 "$BATS_TEST_TMPDIR/journal.log" | grep -x QS_GENERATION=5
	[[ $(last_error) == *'it is sealed'* ]]
	rules ''
	run -0 qs keystore rotate --force --kms-key qs-one
	[[ $output == *'has a new version'* ]]
	[ "$(last_error)" = null ]
}

@test "an interrupted change tells of the devices that it was asked for, and of each once" {
	local pid
	qs --yes keystore enable
	qs cryptformat --no-open "${ID}1" "${ID}2" "${ID}3"
	exec {lock}>"$ROOT/run/qs-util/keystore.lock"
	flock "$lock"
	"$QS_UTIL" --root="$ROOT" --json keystore rewrap --cluster-key "${ID}1" "${ID}2" </dev/null >"$BATS_TEST_TMPDIR/out" {lock}>&- &
	pid=$!
	until readlink "/proc/$pid"/fd/* | grep -q keystore.lock; do sleep 0.02; done
	kill -TERM "$pid"
	exec {lock}>&-
	status=0
	wait "$pid" || status=$?
	[ "$status" = 1 ]
	"$BATS_TEST_DIRNAME/../validate-json" <"$BATS_TEST_TMPDIR/out"
	[ "$(jq -c '[.error.code, ([.devices[] | [.device[-1:], .error.code]] | sort)]' "$BATS_TEST_TMPDIR/out")" = \
		'["interrupted",[["1","interrupted"],["2","interrupted"]]]' ]
}

@test "a number that an older keystore.json does not know of is not taken, nor one that is none" {
	local kind
	qs --yes keystore enable
	cp -p "$KEYSTORE/keystore.json" "$BATS_TEST_TMPDIR"
	qs keystore rotate --force
	for kind in kek sealed kmip vault; do
		cp -p "$BATS_TEST_TMPDIR/keystore.json" "$KEYSTORE"
		[ "$kind" = kek ] || mv "$KEYSTORE"/2.* "$KEYSTORE/2.$kind"
		run -6 qs cryptformat --no-open --kms-key qs-one "${ID}1"
		[[ $output == *"/2.$kind is in the way"*keyrestore* ]]
		cmp "$BATS_TEST_TMPDIR/keystore.json" "$KEYSTORE/keystore.json"
	done
	[[ $output == *'move it away'* ]]
	# The way out that is named where there is one.
	mv "$KEYSTORE/2.vault" "$KEYSTORE/2.kek"
	kind=$(sum "$KEYSTORE/2.kek")
	run -6 qs cryptformat --no-open --kms-key qs-one "${ID}1"
	[[ $output == *'keystore rotate --force'* ]]
	run -0 qs keystore rotate --force
	[ "$(sum "$KEYSTORE/2.kek")" = "$kind" ]
	mv "$KEYSTORE/2.kek" "$KEYSTORE/99999999.kek"
	jq 'del(.sum) | .current = 99999999 | .generations[1].number = 99999999' "$KEYSTORE/keystore.json" >"$BATS_TEST_TMPDIR/last"
	cat "$BATS_TEST_TMPDIR/last" >"$KEYSTORE/keystore.json"
	run -6 qs cryptformat --no-open --kms-key qs-one "${ID}1"
	[[ $output == *'generations'* ]]
	run -0 qs keystore status
}

@test "what cannot be is refused, and nothing is made" {
	local before
	started openbao
	own_namespace
	run -1 qs cryptformat --no-open --kms-key finance "${ID}1"
	[[ $output == *'keystore enable'* && $output != *--key-file-only* ]]
	qs --yes keystore enable
	before=$(<"$KEYSTORE/keystore.json")
	refused()
	{
		run qs cryptformat --no-open "${@:3}" "${ID}1"
		[ "$status" = "$1" ] || { echo "$status, not $1 $2: $output"; return 1; }
		[[ $output == *"$2"* ]] || { echo "not $2: $output"; return 1; }
		[ "$(<"$KEYSTORE/keystore.json")" = "$before" ]
		[ "$(ls "$KEYSTORE")" = "$(printf '1.kek\nkeystore.json')" ]
		[ -z "$(blkid -p "$(image_of 1)")" ]
	}
	refused 64 'are for --kms-key' "${OWN[@]}"
	refused 64 'go together' --kms-key finance --role-id x
	refused 64 'begin with /' --kms-key finance --role-id x --secret-id-file y
	refused 64 'exclude each other' --kms-key finance --key-file-only
	refused 64 'no name of a key' --kms-key a/b
	refused 64 "keystore's own key" --kms-key "$(own_key)"
	refused 2 'vault write -f transit/keys/qs-none' --kms-key qs-none
	refused 2 'vault write -f transit/keys/none' --kms-key none "${OWN[@]}"
	refused 78 'vault_namespace in qs-util.conf, or a key' --kms-key finance --kms-namespace nowhere
	refused 2 'policy' --kms-key finance
	# The credentials are read as key files are.
	chmod 0644 "$ROOT$SECRET"
	refused 2 "$SECRET" --kms-key finance "${OWN[@]}"
	rm -f "$ROOT$SECRET"
	refused 2 "the secret-id file $SECRET of key finance does not exist" --kms-key finance "${OWN[@]}"
	(umask 077 && echo wrong >"$ROOT$SECRET")
	refused 2 'secret-id' --kms-key finance "${OWN[@]}"
	rules sealed
	refused 75 'it is sealed' --kms-key finance "${OWN[@]}"
	run -64 qs keystore rewrap --kms-key finance --cluster-key "${ID}1"
	run -64 qs keystore rewrap
	[[ $output == *'name devices, or give --all'* ]]
	[[ $(qs help keystore) == *' DEVICE...|--all |'* ]]
	run -64 qs keystore status --kms-key finance
	run -64 qs keystore verify --role-id x
	rules ''
	qs cryptformat --no-open --key-file-only "${ID}2"
	run -6 qs keystore rewrap --cluster-key "${ID}2"
	[[ $output == *"keystore rewrap ${ID}2"* ]]
}

@test "the keystore's credentials reach a key in a namespace below theirs" {
	started openbao
	own_namespace
	within team POST transit/keys/qs-x '{}'
	admin POST transit/keys/qs-x '{}'
	qs --yes keystore enable --provider vault
	run -2 qs cryptformat --no-open --kms-key qs-x --kms-namespace team "${ID}1"
	admin POST sys/policies/acl/qs "$(policy qs | jq '.policy += "\npath \"team/transit/+/qs-x\" { capabilities = [\"update\",\"read\"] }"')"
	run -0 qs cryptformat --no-open --kms-key qs-x --kms-namespace team "${ID}1"
	rules ''
	run -0 qs cryptopen --test "${ID}1"
	[ "$(cat "$SERVER/requests")" = 'POST auth/approle/login - 200
POST transit/decrypt/qs-x team 200' ]
	# Its namespace locked, or sealed, is like a server that is.
	for state in lock seal; do
		admin POST "sys/namespaces/team/$state"
		run -75 qs cryptopen --test "${ID}1"
		[[ $output == *'namespace is locked or sealed'* ]]
		admin POST sys/namespaces/team/unlock
	done
	run -0 qs cryptopen --test "${ID}1"
	# One of the same name in another namespace is another key.
	run -0 qs cryptformat --no-open --kms-key qs-x "${ID}2"
	rules ''
	run -0 --separate-stderr qs --json cryptopenall --test
	[ "$(jq -c '[.devices[].keystore_generation]' <<<"$output")" = '[2,3]' ]
	[ "$(asked approle/login)$(asked transit/decrypt)" = 12 ]
}

@test "a hundred devices of three keys open with one login of each and one request for each key" {
	started openbao
	own_namespace
	admin POST transit/keys/qs-one '{}'
	qs --yes keystore enable --provider vault
	qs cryptformat --no-open "${ID}1"
	qs cryptformat --no-open --kms-key qs-one "${ID}2"
	qs cryptformat --no-open --kms-key finance "${OWN[@]}" "${ID}3"
	copied 1 {11..102}
	copied 2 {103..105}
	copied 3 {106..108}
	rules ''
	run -0 --separate-stderr qs --json cryptopenall --test
	[ "$(jq -c '[.devices[].keystore_generation] | [length, (unique | length)]' <<<"$output")" = '[101,3]' ]
	[ "$(LC_ALL=C sort "$SERVER/requests")" = "POST auth/approle/login - 200
POST auth/approle/login team 200
POST transit/decrypt/finance team 200
POST transit/decrypt/qs-one - 200
POST transit/decrypt/$(own_key) - 200" ]
	# One key that is out of reach is its devices' failure, and no other's.
	admin POST sys/namespaces/team/lock
	run -7 --separate-stderr qs --json cryptopenall --test
	[ "$(jq '[.devices[] | select(.ok)] | length' <<<"$output")" = 97 ]
	[ "$(jq '[.devices[] | select(.ok | not)] | length' <<<"$output")" = 4 ]
}

@test "a server that says nothing is waited for once, however many keys devices have" {
	started openbao
	own_namespace
	qs --yes keystore enable --provider vault
	qs cryptformat --no-open "${ID}1"
	qs cryptformat --no-open --kms-key finance "${OWN[@]}" "${ID}2"
	DEADLINE=2 servers "$SERVER"
	# Only the first login stays without an answer: whoever asked again would get one.
	rules 'hold nth=1 when=before'
	run -75 qs cryptopenall --test
	[[ $output == *': it does not answer'*': it did not answer a moment ago'* ]]
	[ "$(asked login)" -le 1 ]
	run -0 qs cryptopenall --test
}

@test "a whole keystore lives in a namespace" {
	started openbao
	namespace team >/dev/null
	install -m 0400 "$SERVER/team.secret" "$ROOT/etc/cryptconf/vault/secret-id"
	sed -i "s/vault_role_id = [^;]*/vault_role_id = \"$(<"$SERVER/team.role")\"/" "$ROOT/etc/cryptconf/qs-util.conf"
	setting 'vault_namespace = "nowhere";'
	run -78 qs --yes keystore enable --provider vault
	[[ $output == *'no such namespace'* ]]
	sed -i s/nowhere/team/ "$ROOT/etc/cryptconf/qs-util.conf"
	rules ''
	run -0 qs --yes keystore enable --provider vault
	# What is asked of the server and not of the namespace has no namespace.
	[ "$(grep -c 'sys/health - 200' "$SERVER/requests")" -ge 1 ]
	[ "$(asked ' (auth|transit)/.* - ')" = 0 ]
	run -0 qs cryptformat --no-open "${ID}1"
	run -0 qs keystore rotate --force
	[ "$(generation_of 1)" = 2 ]
	[[ $(within team LIST transit/keys | jq -c .data.keys) == "[\"$(own_key)\"]" ]]
	[[ $(admin LIST transit/keys 2>&1) != *qs-util* ]]
	run -0 --separate-stderr qs --json keystore status
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '.result.generations[1].key | [.version, .namespace]' <<<"$output")" = '[2,"team"]' ]
	local state
	for state in lock seal; do
		admin POST "sys/namespaces/team/$state"
		run -75 qs cryptopen --test "${ID}1"
		run -75 qs keystore check
		[[ $output == *'namespace is locked or sealed'* ]]
		admin POST sys/namespaces/team/unlock
	done
	run -0 qs keystore verify
}

@test "what ends within thirty days is told, of the keystore's key and of others" {
	started openbao
	double stop "$SERVER"
	VAULT_DOUBLE_CERT=server-29 double start "$SERVER" openbao
	own_namespace
	install -m 0400 "$SERVER/secret-id" "$ROOT/etc/cryptconf/vault/secret-id"
	servers "$SERVER"
	qs --yes keystore enable --provider vault
	qs cryptformat --no-open --kms-key finance "${OWN[@]}" "${ID}1"
	# Who may not look at the secret-id does not know when it ends.
	run -0 --separate-stderr qs --json keystore status
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '[.result.server, .result.key_servers[0]] | map([.reachable, has("secret_id_expires")])' <<<"$output")" = '[[true,false],[true,false]]' ]
	run -1 --separate-stderr qs --json keystore check
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '.result | [.tried, (.warnings | length), .key_servers[0].generation]' <<<"$output")" = '[[1,2],1,2]' ]
	[[ $(jq -r '.result.warnings[]' <<<"$output") == "the Vault server's certificate ends in 29 days, on 20"* ]]
	# One that may, and whose secret-id ends in nine days and a half and may be used a few times.
	within team POST auth/approle/role/team '{"token_policies":"team","token_ttl":"20m","secret_id_ttl":"228h","secret_id_num_uses":9}'
	within team POST sys/policies/acl/team "$(policy '' | jq '.policy += "\npath \"auth/approle/role/team/secret-id/lookup\" { capabilities = [\"update\"] }"')"
	rm -f "$ROOT$SECRET"
	(umask 377 && within team POST auth/approle/role/team/secret-id | jq -r .data.secret_id >"$ROOT$SECRET")
	rules ''
	run -1 --separate-stderr qs --json keystore check
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[[ $(jq -r '.result.warnings[]' <<<"$output") == *"the secret-id in $SECRET ends in 9 days, on 20"* ]]
	[ "$(jq '.result.key_servers[0].secret_id_uses' <<<"$output")" -lt 9 ]
	[ "$(asked 'login team')" = 1 ]
	run -0 qs keystore status
	[[ $output == *'warning: the secret-id in'* ]]
	[[ $output == *'for generation 2:'* ]]
	# A file of ours that is away is not the server's failure.
	rm -f "$ROOT$SECRET"
	run -0 qs keystore status
	[[ $output == *"not asked: the secret-id file $SECRET of key finance does not exist"$'\n'* ]]
	qs --json keystore status | "$BATS_TEST_DIRNAME/../validate-json"
}

@test "a format, a change, a rotation and a return killed at any exchange open, and a second run finishes" {
	local count n when words
	started 1.14
	admin POST transit/keys/qs-one '{}'
	qs --yes keystore enable
	count=$(exchanges cryptformat --no-open --kms-key qs-one "${ID}1")
	((count >= 5))
	while read -r n when; do
		rm -rf "$ROOT"/etc/cryptconf/headers "$ROOT/etc/crypttab"
		truncate -s 0 "$(image_of 1)"
		truncate -s 64M "$(image_of 1)"
		qs keystore purge
		killed_at "$n" "$when" cryptformat --no-open --kms-key qs-one "${ID}1"
		run -0 qs cryptformat --no-open --kms-key qs-one "${ID}1"
		run -0 qs cryptopen --test "${ID}1"
	done < <(swept "$count")
	for words in '--cluster-key' '--kms-key qs-one' 'rotate'; do
		# shellcheck disable=SC2206
		words=(keystore rewrap $words "${ID}1")
		[ "${words[2]}" != rotate ] || words=(keystore rotate --force --kms-key qs-one)
		count=$(exchanges "${words[@]}")
		while read -r n when; do
			# From where it was before.
			[ "${words[2]}" != --cluster-key ] || qs keystore rewrap --kms-key qs-one "${ID}1"
			[ "${words[2]}" != --kms-key ] || qs keystore rewrap --cluster-key "${ID}1"
			killed_at "$n" "$when" "${words[@]}"
			run -0 qs cryptopen --test "${ID}1"
			run -0 qs "${words[@]}"
			run -0 qs keystore verify
			[ "$(jq '[.generations[] | select(.begun)] | length' "$KEYSTORE/keystore.json")" = 0 ]
		done < <(swept "$count")
	done
}
