#!/usr/bin/env bats
# keystore migrate: the key goes to another provider, as a rotation does, and devices open all the
# while. All orders of crashes: test-rotation.c; on real headers: tests/fault/migrating.py.

# shellcheck disable=SC2153 # SERVER is of kmip-shared
load tree
load tpm2
load kmip
load kmip-shared

setup()
{
	make_tree 2
	make_tpm
	KEYSTORE=$ROOT/etc/cryptconf/keystore
	VAULT=$BATS_TEST_TMPDIR/vault
	qs --yes keystore enable
	qs cryptformat --no-open "$ID"1 "$ID"2
}

teardown()
{
	"$BATS_TEST_DIRNAME/../vault-server" stop "$VAULT"
	drop_tpm
}

# servers PORT: what else the configuration has to name for provider kmip.
servers()
{
	mkdir -p "$ROOT/etc/cryptconf/kmip"
	identity client
	use_tpm "$TPM/s" "kmip_servers = \"localhost:$1\";" 'kmip_deadline = 3;'
}

# at GENERATION PROVIDER: both headers and backups are, and open.
at()
{
	local n place
	for n in 1 2; do
		for place in "$(image_of $n)" "$(backup_of $n)"; do
			cryptsetup luksDump --dump-json-metadata "$place" |
				jq -e --argjson g "$1" --arg p "$2" '[.tokens[]] |
					length == 1 and .[0].generation == $g and .[0].provider == $p'
		done
	done
	qs cryptopenall --test
	qs keystore verify
	qs --json keystore status >"$BATS_TEST_TMPDIR/status"
	"$BATS_TEST_DIRNAME/../validate-json" <"$BATS_TEST_TMPDIR/status"
	jq -e --argjson g "$1" --arg p "$2" '.result | .generation == $g and .provider == $p and (has("rotation") | not)' \
		"$BATS_TEST_TMPDIR/status"
}

providers()
{
	jq -c '[.result.generations[] | .provider]' "$BATS_TEST_TMPDIR/status"
}

# edited FILTER: what jq makes of keystore.json, as a run that was cut off would have left it.
edited()
{
	jq "$1 | del(.sum)" "$KEYSTORE/keystore.json" >"$BATS_TEST_TMPDIR/json"
	cat "$BATS_TEST_TMPDIR/json" >"$KEYSTORE/keystore.json"
}

sums()
{
	sha256sum "$KEYSTORE"/* "$(image_of 1)" "$(image_of 2)" "$(backup_of 1)"
}

@test "from a file to the TPM, a key server and back, and the generation before is kept where it is" {
	servers "$(<"$SERVER/port")"
	run -0 --separate-stderr qs --yes --json keystore migrate --provider tpm2 --pcrs 2+7
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '[.result.generation, .result.provider, (.devices | length)]' <<<"$output")" = '[2,"tpm2",2]' ]
	at 2 tpm2
	[ "$(providers)" = '["local","tpm2"]' ]
	jq -e '.result.generations[1].tpm2.pcrs == "2+7"' "$BATS_TEST_TMPDIR/status"
	qs keystore status | grep -q 'generation 1 (provider local), of '
	qs keystore rotate --force
	at 3 tpm2
	[ "$(providers)" = '["tpm2","tpm2"]' ]
	[ ! -e "$KEYSTORE/1.kek" ]
	qs --yes keystore migrate --provider kmip
	at 4 kmip
	[ "$(providers)" = '["tpm2","kmip"]' ]
	[ ! -e "$KEYSTORE/2.sealed" ]
	qs --yes keystore migrate --provider local
	at 5 local
	[ "$(providers)" = '["kmip","local"]' ]
	[ ! -e "$KEYSTORE/3.sealed" ]
	qs keystore rotate --force
	at 6 local
	[ "$(cd "$KEYSTORE" && echo *)" = '5.kek 6.kek keystore.json' ]
}

# all_servers: the configuration names both kinds; the one of vault is started in VAULT.
all_servers()
{
	"$BATS_TEST_DIRNAME/../vault-server" start "$VAULT" openbao
	mkdir "$ROOT/etc/cryptconf/vault"
	install -m 0400 "$VAULT/certs/ca.crt" "$ROOT/etc/cryptconf/vault/ca.pem"
	install -m 0400 "$VAULT/secret-id" "$ROOT/etc/cryptconf/vault/secret-id"
	servers "$(<"$SERVER/port")"
	printf 'vault_servers = "localhost:%s"; vault_role_id = "%s";\n' "$(<"$VAULT/port")" "$(<"$VAULT/role-id")" \
		>>"$ROOT/etc/cryptconf/qs-util.conf"
}

@test "to a key that stays at the key server, from every provider and to each" {
	local next generation=1
	all_servers
	for next in kmip-wrap tpm2 kmip-wrap kmip kmip-wrap vault kmip-wrap local; do
		run -0 qs --yes keystore migrate --provider $next
		generation=$((generation + 1))
		run -0 --separate-stderr qs --json keystore verify
		[ "$(jq -c --argjson g $generation '[.devices[] | .ok and .generation == $g]' <<<"$output")" = '[true,true,true,true]' ]
	done
	at 9 local
	[ "$(providers)" = '["kmip-wrap","local"]' ]
}

@test "between the TPM and key servers of both kinds, to and fro" {
	local next generation=1
	all_servers
	for next in kmip tpm2 vault kmip vault tpm2 local; do
		run -0 qs --yes keystore migrate --provider $next
		generation=$((generation + 1))
		run -0 --separate-stderr qs --json cryptopenall --test
		[ "$(jq -c --argjson g $generation '[.devices[] | .ok and .keystore_generation == $g]' <<<"$output")" = '[true,true]' ]
	done
	at 8 local
	[ "$(providers)" = '["tpm2","local"]' ]
}

@test "what cannot be gone to leaves nothing, and says why" {
	before=$(sums)
	servers 1
	run -75 qs --yes keystore migrate --provider kmip
	use_tpm "$TPM/nowhere"
	run ! qs --yes keystore migrate --provider tpm2
	[[ "$output" == *TPM* ]]
	run -5 qs --yes keystore migrate --provider local
	[[ "$output" == *'has the provider local already'* ]]
	run -5 qs keystore migrate --provider local
	[[ "$output" == *'has the provider local already'* ]]
	run -64 qs --yes keystore migrate
	run -64 qs --yes keystore migrate --provider elsewhere
	run -64 qs --yes keystore migrate --provider local --pcrs 7
	run -6 qs keystore migrate --provider tpm2
	[ "$before" = "$(sums)" ]
	# One that answers, and whose key cannot be stored.
	use_tpm "$TPM/s"
	mkdir "$KEYSTORE/2.sealed"
	run ! qs --yes keystore migrate --provider tpm2
	rmdir "$KEYSTORE/2.sealed"
	[ "$before" = "$(sums)" ]
	at 1 local
}

@test "one that was cut off goes on by rotate with what it was bound to, or is given up for another" {
	edited '.rotation = {state: "distributing-kek", generation: 2, provider: "tpm2", pcrs: 4}'
	qs keystore status | grep -q 'rotation to generation 2 (provider tpm2): distributing-kek'
	qs --json keystore status | jq -e '.result.rotation.provider == "tpm2"'
	qs cryptopenall --test
	qs keystore rotate
	at 2 tpm2
	jq -e '.result.generations[1].tpm2 == {pcrs: "2", bank: "sha256", pin: false}' "$BATS_TEST_TMPDIR/status"

	# Nothing was wrapped: what was made goes, and the other one takes its number.
	edited '.rotation = {state: "distributing-kek", generation: 3, provider: "local"}'
	(umask 077 && head -c 32 /dev/urandom >"$KEYSTORE/3.kek")
	servers "$(<"$SERVER/port")"
	qs --yes keystore migrate --provider kmip
	at 3 kmip
	[ ! -e "$KEYSTORE/3.kek" ]

	# Devices are on their way already.
	edited '.rotation = {state: "rewrapping-keys", generation: 4, provider: "tpm2"} |
		.generations += [{number: 4, created: .generations[0].created, provider: "tpm2"}]'
	before=$(sums)
	run -6 qs --yes keystore migrate --provider local
	[[ "$output" == *'rotation to generation 4 (provider tpm2) is under way'* ]]
	[ "$before" = "$(sums)" ]
}

@test "a PIN is for the TPM alone, on the way there and on the way back" {
	local pin=$BATS_TEST_TMPDIR/pin
	(umask 077 && echo 1234 >"$pin")
	qs --yes keystore migrate --provider tpm2 --pin-file "$pin"
	jq -e '.rotation == null' "$KEYSTORE/keystore.json"
	qs --json keystore status | jq -e '.result.generations[1].tpm2.pin'
	run -7 qs --yes keystore migrate --provider local
	[[ "$output" == *'needs its PIN'* ]]
	qs cryptopenall --test --pin-file "$pin"
	qs --yes keystore migrate --provider local --pin-file "$pin"
	run -0 qs --json keystore status
	jq -e '.result.provider == "local" and .result.generation == 3' <<<"$output"
	qs cryptopenall --test
}
