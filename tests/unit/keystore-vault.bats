#!/usr/bin/env bats
# The keystore's provider vault, with the double of Vault and OpenBao in several ages.

load tree
load vault

setup()
{
	make_tree 2
	vault_setup
}

@test "a key of the server's own opens devices at every age, and is deleted in the end" {
	local age key
	for age in 1.8 1.14 openbao; do
		started $age
		rm -rf "$ROOT"/etc/cryptconf/{keys,headers,retired} "$ROOT/etc/crypttab" "$ROOT/img"/*
		truncate -s 64M "$ROOT/img/d1" "$ROOT/img/d2"
		enrolled_with vault 2
		key=$(own_key)
		[ "$(stat -c '%a' "$KEYSTORE/1.vault")" = 400 ]
		[ "$(jq -c '[.key, .key_version, .adopted]' "$KEYSTORE/1.vault")" = "[\"$key\",1,false]" ]
		run -0 --separate-stderr qs --json keystore status
		"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
		[ "$(jq -c '.result.server | [.reachable, .sealed]' <<<"$output")" = '[true,false]' ]
		run -0 --separate-stderr qs --json cryptopenall --test
		[ "$(jq -c '[.devices[].keystore_generation]' <<<"$output")" = '[1,1]' ]
		run -0 qs keystore verify
		run -6 qs --yes keystore disable
		run -0 qs keystore rotate --force
		[ "$(admin GET "transit/keys/$key" | jq .data.latest_version)" = 2 ]
		run -0 --separate-stderr qs --json cryptopenall --test
		[ "$(jq -c '[.devices[].keystore_generation]' <<<"$output")" = '[2,2]' ]
		# The third takes the first with it, and versions that nobody needs open nothing more.
		run -0 qs keystore rotate --force
		[ ! -e "$KEYSTORE/1.vault" ]
		[ "$(admin GET "transit/keys/$key" | jq -c '.data | [.latest_version, .min_decryption_version]')" = '[3,2]' ]
		rm -r "$ROOT/etc/cryptconf/headers" "$ROOT/etc/crypttab"
		truncate -s 0 "$ROOT/img/d1" "$ROOT/img/d2"
		run -0 qs --yes keystore disable
		[ ! -e "$KEYSTORE" ]
		run admin GET "transit/keys/$key"
		[[ $output == *'"errors":[]'* ]]
		double stop "$SERVER"
	done
}

@test "a key bundle opens its devices by the server, and says what it lacks for that" {
	local bundle=$BATS_TEST_TMPDIR/keys.cms
	started 1.14
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=backup -days 2 \
		-keyout "$BATS_TEST_TMPDIR/backup.pem" -out "$BATS_TEST_TMPDIR/backup.crt" 2>"$BATS_TEST_TMPDIR/openssl.log"
	qs --yes keystore enable --provider vault
	qs cryptformat --no-open "${ID}1" "${ID}2"
	qs keybackup --to "$BATS_TEST_TMPDIR/backup.crt" "$bundle"
	rm -r "$KEYSTORE" "$ROOT/etc/crypttab" "$ROOT/etc/cryptconf/headers"
	run -0 qs cryptopenall --test --bundle "$bundle" --key-file "$BATS_TEST_TMPDIR/backup.pem"
	[ "$(grep -c 'key proven' <<<"$output")" -eq 2 ]
	[ ! -e "$KEYSTORE" ]
	rm "$ROOT/etc/cryptconf/qs-util.conf"
	run -78 qs cryptopenall --test --bundle "$bundle" --key-file "$BATS_TEST_TMPDIR/backup.pem"
	[[ $output == *'set vault_servers in qs-util.conf'*'qs-util keyrestore'* ]]
}

@test "a hundred devices open, and are verified, with one login and one request" {
	started 1.14
	enrolled_with vault 1
	copied 1 {2..100}
	# Each request takes a while: how often that is waited for is what is counted.
	rules 'slow seconds=0.05'
	run -0 --separate-stderr qs --json cryptopenall --test
	[ "$(jq '[.devices[] | select(.keystore_generation == 1)] | length' <<<"$output")" = 100 ]
	[ "$(asked approle/login)" = 1 ]
	[ "$(asked transit/decrypt)" = 1 ]
	[ "$(wc -l <"$SERVER/requests")" = 2 ]
	rules ''
	run -0 --separate-stderr qs --json keystore verify
	[ "$(jq '[.devices[] | select(.note == "opens with generation 1")] | length' <<<"$output")" = 101 ]
	[ "$(asked approle/login)" = 1 ]
	[ "$(asked transit/decrypt)" = 1 ]
	[ "$(wc -l <"$SERVER/requests")" = 2 ]
}

@test "devices are formatted, and enrolled, with one login and one request to wrap and to prove" {
	started openbao
	make_tree 5
	qs --yes keystore enable --provider vault
	rules ''
	run -0 qs cryptformat --no-open "${ID}1" "${ID}2" "${ID}3"
	[ "$(cut -d ' ' -f 2 "$SERVER/requests" | tr '\n' ' ')" = \
		"auth/approle/login transit/encrypt/$(own_key) transit/decrypt/$(own_key) " ]
	qs cryptformat --no-open --key-file-only "${ID}4" "${ID}5"
	rules ''
	run -0 qs cryptenroll "${ID}4" "${ID}5" --keystore
	[ "$(wc -l <"$SERVER/requests")" = 3 ]
	# No two of them share a content key.
	run -0 qs keystore verify
	local n
	for n in 1 2 3 4 5; do
		cryptsetup luksDump --dump-json-metadata "$(image_of $n)" |
			jq -r '.tokens[] | select(.type == "qs-keystore") | .jwe.header["qs-wrapped"]'
	done | sort -u >"$BATS_TEST_TMPDIR/wrapped"
	[ "$(wc -l <"$BATS_TEST_TMPDIR/wrapped")" = 5 ]
	# What the server gives back is another key: nothing is made that would not open.
	rm -rf "$ROOT"/etc/cryptconf/headers "$ROOT/etc/crypttab" "$ROOT/img"/*
	truncate -s 64M "$ROOT/img/d1"
	rules 'tampered path=decrypt'
	run -1 qs cryptformat --no-open "${ID}1"
	[[ $output == *'another key'* ]]
	[ -z "$(blkid -p "$(image_of 1)")" ]
}

@test "what the server refuses is a sentence, and nothing is made or changed" {
	local age
	refused()
	{
		run qs --yes keystore enable --provider vault
		[ "$status" = "$1" ] || { echo "$status, not $1 $2: $output"; return 1; }
		[[ $output == *"$2"* ]] || { echo "not $2: $output"; return 1; }
		[ ! -e "$KEYSTORE" ]
	}
	for age in 1.8 openbao; do
		started $age
		rules 'sealed'
		refused 75 'it is sealed'
		rules 'standby to=https://elsewhere.example'
		refused 75 'standby'
		rules 'redirect to=https://elsewhere.example'
		refused 75 'elsewhere'
		rules 'used-up'
		refused 2 'used up'
		[ "$(asked approle/login)" = 1 ]
		refused 2 'secret-id'
		double stop "$SERVER"
		started $age
		rules 'status code=403 text="permission denied" path=login'
		refused 2 'locked'
		rules 'status code=400 text="missing client token" path=login'
		refused 78 'vault_auth_mount'
		rules 'status code=403 text="permission denied" path=transit'
		refused 2 'policy'
		rules 'html'
		refused 1 "not one of Vault's"
		rules 'truncated'
		refused 1 "not one of Vault's"
		rules 'oversized'
		refused 1 'too large'
		rules 'headers'
		refused 1 'too large'
		rules 'cut'
		refused 75 'ended the connection'
		rules 'hang'
		refused 75 'does not answer'
		rules 'status code=502'
		refused 75 'status 502'
		rules 'status code=429 retry=60 path=keys'
		refused 75 'busy'
		rules 'short'
		refused 1 '1 questions with 0 results'
		rules 'partial'
		refused 2 'cannot wrap and unwrap'
		rules 'tampered path=encrypt'
		refused 2 'cannot wrap and unwrap'
		rules 'tampered path=decrypt'
		refused 2 'cannot wrap and unwrap'
		rules ''
		[[ $(admin LIST transit/keys 2>&1) != *qs-util* ]]
		setting 'vault_mount = "nowhere";'
		if [ $age = 1.8 ]; then refused 2 'policy'; fi
		servers "$SERVER"
		setting 'vault_namespace = "team";'
		if [ $age = openbao ]; then refused 78 'vault_namespace'; fi
		double stop "$SERVER"
	done
}

@test "a busy server is waited for, and a token that is not valid any more replaced once" {
	started openbao
	enrolled_with vault 1
	rules 'status code=429 times=1' 'status code=503 text="namespace is busy" times=0'
	run -0 qs cryptopen --test "${ID}1"
	rules 'expired times=1 path=transit' 'expired times=1 path=lookup-self'
	run -0 qs cryptopen --test "${ID}1"
	[ "$(asked approle/login)" = 2 ]
	rules 'expired path=transit' 'expired path=lookup-self'
	run -2 qs cryptopen --test "${ID}1"
	[ "$(asked approle/login)" = 2 ]
	# With a token that is valid it is the policy, and another login would be for nothing.
	rules 'status code=403 path=transit'
	run -2 qs cryptopen --test "${ID}1"
	[ "$(asked approle/login)" = 1 ]
}

@test "a token that comes to its end is renewed; where that is refused, a login follows" {
	DEADLINE=30 started 1.14
	enrolled_with vault 1
	admin POST auth/approle/role/qs '{"token_policies":"qs","token_ttl":"8s","token_max_ttl":"1h"}'
	rules 'slow seconds=1.5 path=transit'
	run -0 qs keystore rotate --force
	[ "$(asked renew-self)" -ge 1 ]
	[ "$(asked approle/login)" = 1 ]
	rules 'slow seconds=1.5 path=transit' 'status code=403 path=renew-self'
	run -0 qs keystore rotate --force
	[ "$(asked renew-self)" -ge 1 ]
	[ "$(asked approle/login)" -ge 2 ]
}

@test "the next server answers when one is down, silent, sealed, a standby or not itself" {
	started 1.14
	enrolled_with vault 1
	double start "$OTHER" 1.14
	ln -sfn "$SERVER/certs" "$OTHER/certs.same"
	rm -r "$OTHER/certs" && mv "$OTHER/certs.same" "$OTHER/certs"
	double stop "$OTHER"
	servers "$OTHER" "$SERVER"
	run -0 qs cryptopen --test "${ID}1"
	# What the one that answers says is what counts: that there is no key yet, that we may not.
	run -0 qs --yes keystore migrate --provider local
	run -0 qs --yes keystore migrate --provider vault
	echo none >"$BATS_TEST_TMPDIR/none"
	install -m 0400 "$BATS_TEST_TMPDIR/none" "$ROOT/etc/cryptconf/vault/secret-id"
	run -2 qs cryptopen --test "${ID}1"
	install -m 0400 "$SERVER/secret-id" "$ROOT/etc/cryptconf/vault/secret-id"
	double start "$OTHER" 1.14
	servers "$OTHER" "$SERVER"
	local rule
	for rule in sealed 'standby to=https://localhost:1' hang cut html 'status code=500'; do
		echo "$rule" >"$OTHER/rules.new"
		mv "$OTHER/rules.new" "$OTHER/rules"
		run -0 qs cryptopen --test "${ID}1"
	done
	double stop "$OTHER"
	local certificate
	for certificate in rogue:'not vouched for' expired:'has expired' early:'not valid yet' other:'another name'; do
		VAULT_DOUBLE_CERT=server-${certificate%%:*} double start "$OTHER" 1.14
		servers "$OTHER" "$SERVER"
		run -0 qs cryptopen --test "${ID}1"
		servers "$OTHER"
		run -6 qs cryptopen --test "${ID}1"
		[[ $output == *"${certificate#*:}"* ]] || { echo "$output"; false; }
		double stop "$OTHER"
	done
	printf 'vault_servers = "nowhere.invalid"; vault_role_id = "x"; vault_deadline = 1;\n' >"$ROOT/etc/cryptconf/qs-util.conf"
	run -75 qs cryptopen --test "${ID}1"
	[[ $output == *nowhere.invalid* ]]
	run -0 --separate-stderr qs --json keystore status
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq .result.server.reachable <<<"$output")" = false ]
}

@test "one wrapped key that was changed is one device's failure, and the others open" {
	local age
	for age in 1.8 1.14; do
		started $age
		rules ''
		rm -rf "$ROOT"/etc/cryptconf/{keys,headers,keystore} "$ROOT/etc/crypttab" "$ROOT/img"/*
		truncate -s 64M "$ROOT/img/d1" "$ROOT/img/d2"
		enrolled_with vault 2
		# Another key's, as the server sees it: well-formed, and not authentic.
		local text=$BATS_TEST_TMPDIR/token
		local number
		number=$(cryptsetup luksDump "$(image_of 2)" | sed -n 's/^ *\([0-9]*\): qs-keystore$/\1/p')
		rm -f "$text"
		cryptsetup token export --token-id "$number" --json-file "$text" "$(image_of 2)"
		python3 - "$text" <<'END'
import json, sys
token = json.load(open(sys.argv[1]))
header = token["jwe"]["header"]
wrapped = header["qs-wrapped"]
header["qs-wrapped"] = wrapped[:-9] + ("A" if wrapped[-9] != "A" else "B") + wrapped[-8:]
json.dump(token, open(sys.argv[1], "w"))
END
		cryptsetup token remove --token-id "$number" "$(image_of 2)"
		cryptsetup token import --token-id "$number" --json-file "$text" "$(image_of 2)"
		rm -r "$ROOT/etc/cryptconf/headers"
		run -7 --separate-stderr qs --json cryptopenall --test
		[ "$(jq -c '[.devices[].ok]' <<<"$output")" = '[true,false]' ]
		[[ $(jq -r '.devices[1].error.message' <<<"$output") == *'the wrapped key was changed'* ]]
		rules 'partial nth=2'
		run -7 --separate-stderr qs --json cryptopenall --test
		rules 'short'
		run ! qs cryptopenall --test
		rules 'tampered path=decrypt'
		run ! qs cryptopenall --test
		[[ $output != *Segmentation* ]]
		double stop "$SERVER"
	done
}

@test "a key that somebody has made is used and rotated, and never ended" {
	started openbao
	setting 'vault_key = "qs-shared";'
	run -2 qs --yes keystore enable --provider vault
	[[ $output == *'vault write -f transit/keys/qs-shared'* ]]
	[ ! -e "$KEYSTORE" ]
	admin POST transit/keys/qs-shared '{"derived":true}'
	run -78 qs --yes keystore enable --provider vault
	[[ $output == *derived* ]]
	admin POST transit/keys/qs-shared/config '{"deletion_allowed":true}'
	admin DELETE transit/keys/qs-shared
	admin POST transit/keys/qs-shared '{}'
	admin POST transit/keys/qs-shared/rotate '{}'
	enrolled_with vault 1
	[ "$(jq -c '[.key, .key_version, .adopted]' "$KEYSTORE/1.vault")" = '["qs-shared",2,true]' ]
	# One that the administrator has rotated is taken as it is.
	admin POST transit/keys/qs-shared/rotate '{}'
	run -0 qs keystore rotate --force
	[ "$(jq .key_version "$KEYSTORE/2.vault")" = 3 ]
	run -0 qs keystore rotate --force
	[ "$(jq .key_version "$KEYSTORE/3.vault")" = 4 ]
	[ ! -e "$KEYSTORE/1.vault" ]
	admin POST transit/keys/qs-other '{}'
	run -2 qs keystore rotate --force --key-id qs-none
	run -0 qs keystore rotate --force --key-id qs-other
	[ "$(jq -c '[.key, .key_version]' "$KEYSTORE/4.vault")" = '["qs-other",1]' ]
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	[ "$(jq '.devices[0].keystore_generation' <<<"$output")" = 4 ]
	rm -r "$ROOT/etc/cryptconf/headers" "$ROOT/etc/crypttab"
	truncate -s 0 "$ROOT/img/d1"
	run -0 qs --yes keystore disable
	[ "$(admin GET transit/keys/qs-shared | jq -c '.data | [.latest_version, .min_decryption_version]')" = '[4,1]' ]
	admin GET transit/keys/qs-other
}

@test "a secret-id that came wrapped is unwrapped once, and one that somebody has used is told" {
	local file
	started 1.14
	file=$ROOT/etc/cryptconf/vault/secret-id
	rm -f "$file"
	wrapped()
	{
		curl -sS --cacert "$SERVER/certs/ca.crt" -H "X-Vault-Token: $(<"$SERVER/token")" -H 'X-Vault-Wrap-TTL: 120s' \
			-X POST "https://localhost:$(<"$SERVER/port")/v1/$1" --data "${2-{\}}" | jq -r .wrap_info.token
	}
	(umask 077 && wrapped auth/approle/role/qs/secret-id >"$file.wrapped")
	cp "$file.wrapped" "$BATS_TEST_TMPDIR/used"
	run -0 qs --yes keystore enable --provider vault
	[ ! -e "$file.wrapped" ]
	[ "$(stat -c %a "$file")" = 400 ]
	rm -f "$file"
	install -m 0400 "$BATS_TEST_TMPDIR/used" "$file.wrapped"
	run -0 --separate-stderr qs --json keystore status
	[[ $(jq -r .result.server.problem <<<"$output") == *'take it for stolen'* ]]
	# A token that carries something else.
	rm -f "$file.wrapped"
	(umask 077 && wrapped sys/capabilities-self '{"paths":["x"]}' >"$file.wrapped")
	run -0 --separate-stderr qs --json keystore status
	[[ $(jq -r .result.server.problem <<<"$output") == *'not made for a secret-id'* ]]
}

@test "without qs-util: whoever may decrypt at the server opens the device by curl, jose and cryptsetup" {
	local number text
	started 1.14
	enrolled_with vault 1
	run -1 qs keystore export --public-key /nowhere
	cd "$BATS_TEST_TMPDIR"
	number=$(cryptsetup luksDump "$(image_of 1)" | sed -n 's/^ *\([0-9]*\): qs-keystore$/\1/p')
	cryptsetup token export --token-id "$number" --json-file token.json "$(image_of 1)"
	jose fmt -j token.json -g jwe -o jwe.json
	text=$(jq -r '.header["qs-wrapped"]' jwe.json)
	admin POST "transit/decrypt/$(own_key)" "{\"ciphertext\":\"$text\"}" | jq -r .data.plaintext |
		base64 -d | jose b64 enc -I - | jq -R '{kty: "oct", k: .}' >content.jwk
	jose jwe dec -i jwe.json -k content.jwk >plain
	cryptsetup open --test-passphrase --key-file plain --keyfile-size 64 "$(image_of 1)"
}

@test "Ctrl-C while the server says nothing: 1 and not 75, and a second run goes on" {
	started openbao
	# Shorter than any other wait for what was interrupted: who waits for it gets 75.
	DEADLINE=9 servers "$SERVER"
	run -1 interrupted_at 3 after --yes keystore enable --provider vault
	[[ $output == *interrupted* ]]
	qs --yes keystore enable --provider vault
	qs cryptformat --no-open "${ID}1" "${ID}2"
	run -1 interrupted_at 1 before --json cryptopenall --test
	[ "$(jq -c '[.devices[].error.code]' <<<"$output")" = '["interrupted","interrupted"]' ]
	run -1 interrupted_at 1 before --json keystore check
	[ "$(jq -r .error.code <<<"$output")" = interrupted ]
	[ ! -e "$ROOT/var/lib/qs-util/keystore-check.json" ]
	run -1 interrupted_at 1 before --json keystore status
	[ "$(jq -r .error.code <<<"$output")" = interrupted ]
	run -1 interrupted_at 2 after keystore rotate --force
	[[ $output == *interrupted* ]]
	run -0 qs cryptopenall --test
	run -0 qs keystore rotate --force
	run -0 --separate-stderr qs --json cryptopenall --test
	[ "$(jq -c '[.devices[].keystore_generation]' <<<"$output")" = '[2,2]' ]
	[ "$(admin GET "transit/keys/$(own_key)" | jq .data.latest_version)" = 2 ]
}

@test "enabling that is killed at any exchange is finished by a second run, and leaves no other key" {
	local count n when
	started 1.14
	count=$(exchanges --yes keystore enable --provider vault)
	((count >= 6))
	qs --yes keystore disable
	while read -r n when; do
		killed_at "$n" "$when" --yes keystore enable --provider vault
		run -0 qs --yes keystore enable --provider vault
		run -0 admin LIST transit/keys
		[ "$(jq -c .data.keys <<<"$output")" = "[\"$(own_key)\"]" ]
		run -0 qs --yes keystore disable
		run ! admin LIST transit/keys
	done < <(swept "$count")
}

@test "a rotation that is killed at any exchange opens the device, and is finished by a second run" {
	local count n when before
	started openbao
	enrolled_with vault 1
	count=$(exchanges keystore rotate --force)
	((count >= 6))
	while read -r n when; do
		before=$(jq .current "$KEYSTORE/keystore.json")
		killed_at "$n" "$when" keystore rotate --force
		run -0 qs cryptopen --test "${ID}1"
		run -0 qs keystore rotate --force
		run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
		(("$(jq '.devices[0].keystore_generation' <<<"$output")" > before))
		[ "$(jq -c '[.current, has("rotation")]' "$KEYSTORE/keystore.json")" = "[$(jq '.devices[0].keystore_generation' <<<"$output"),false]" ]
	done < <(swept "$count")
	run -0 qs keystore verify
}

@test "a keystore moves to the server and away from it" {
	started 1.8
	qs cryptformat --no-open "${ID}1"
	qs --yes keystore enable
	qs cryptenroll "${ID}1" --keystore
	mv "$ROOT/etc/cryptconf/keys" "$BATS_TEST_TMPDIR/keys"
	mkdir -m 0700 "$ROOT/etc/cryptconf/keys"
	rules 'sealed'
	run -75 qs --yes keystore migrate --provider vault
	[ ! -e "$KEYSTORE/2.vault" ]
	rules ''
	run -0 qs --yes keystore migrate --provider vault
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	[ "$(jq '.devices[0].keystore_generation' <<<"$output")" = 2 ]
	[ "$(asked transit/decrypt)" -ge 1 ]
	run -0 qs --yes keystore migrate --provider local
	run -0 --separate-stderr qs --json keystore status
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	double stop "$SERVER"
	run -0 qs cryptopen --test "${ID}1"
}

@test "enabling that can be neither finished nor taken back says so" {
	make_tree 1
	started 1.14
	rules 'status code=500 path=transit/encrypt' 'status code=500 path=/config$'
	run -75 qs --yes keystore enable --provider vault
	[[ $output == *'(something is left'* ]]
	rules ''
	run -0 qs --yes keystore enable --provider vault
}

@test "a check that no server answers is remembered" {
	started 1.14
	enrolled_with vault 1
	run -0 qs keystore check
	double stop "$SERVER"
	sleep 1.1 # the times are in seconds
	run -75 --separate-stderr qs --json keystore check
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	run -0 --separate-stderr qs --json keystore status
	[ "$(jq '.result.last_check | .time > .succeeded' <<<"$output")" = true ]
}
