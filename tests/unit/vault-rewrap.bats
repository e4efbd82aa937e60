#!/usr/bin/env bats
# The keystore's provider vault: the server rewraps what it has wrapped, and may make the keys.

load tree
load vault

setup()
{
	make_tree 3
	vault_setup
	export DEADLINE=30
}

# policy VERB...: all that the role may do to keys' contents.
policy()
{
	local verb text='path "transit/keys/qs*" { capabilities = ["create", "read", "update", "delete"] }'
	for verb; do text+=" path \"transit/$verb/qs*\" { capabilities = [\"update\"] }"; done
	admin POST sys/policies/acl/qs "$(jq -n --arg text "$text" '{policy: $text}')"
}

# all_tokens: of devices 1 to 3, without what changes when a server rewraps.
all_tokens()
{
	local n
	for n in 1 2 3; do
		cryptsetup luksDump --dump-json-metadata "$(image_of $n)" |
			jq -c '.tokens[] | select(.type == "qs-keystore") | .jwe'
	done
}

wrapped_by()
{
	all_tokens | jq -r '.header["qs-wrapped"]' | cut -d : -f 2 | sort -u | tr '\n' ' '
}

generations()
{
	qs --json cryptopenall --test | jq -c '[.devices[].keystore_generation]'
}

@test "a rotation has the server rewrap: no content key is sent, and the rest stays as it was" {
	local before
	started 1.14
	enrolled_with vault 3
	before=$(all_tokens | jq -c 'del(.header)')
	rules ''
	run -0 qs keystore rotate --force
	[ "$(asked transit/rewrap)" = 1 ]
	[ "$(asked transit/encrypt)" = 1 ] # the probe
	[ "$(asked transit/decrypt)" = 2 ] # the probe, and the proof of all devices
	[ "$(wrapped_by)" = 'v2 ' ]
	[ "$(all_tokens | jq -c 'del(.header)')" = "$before" ]
	[ "$(generations)" = '[2,2,2]' ]
	run -0 qs keystore rotate --force
	run -0 qs keystore verify
	[ "$(generations)" = '[3,3,3]' ]
	[ "$(admin GET "transit/keys/$(own_key)" | jq .data.min_decryption_version)" = 2 ]
	# Away from the server and back: what another provider wraps is wrapped anew.
	run -0 qs --yes keystore migrate --provider local
	run -0 qs --yes keystore migrate --provider vault
	run -0 qs keystore verify
}

@test "what the server does not rewrap is unwrapped and wrapped" {
	started openbao
	enrolled_with vault 3
	rules 'partial nth=2 path=rewrap'
	run -0 qs keystore rotate --force
	[ "$(asked transit/rewrap)" = 1 ]
	[ "$(asked transit/encrypt)" = 2 ]
	[ "$(generations)" = '[2,2,2]' ]
	policy encrypt decrypt
	rules ''
	run -0 qs keystore rotate --force
	[ "$(asked 'transit/rewrap.* 403')" = 1 ]
	[ "$(generations)" = '[3,3,3]' ]
	run -0 qs keystore verify
	# What the policy denies takes no second use of the secret-id, and no other way from a server
	# that stands behind one that is down.
	admin POST auth/approle/role/qs/secret-id '{"num_uses": 1}' | jq -j .data.secret_id >"$BATS_TEST_TMPDIR/once"
	install -m 0400 "$BATS_TEST_TMPDIR/once" "$ROOT/etc/cryptconf/vault/secret-id"
	sed -i 's/vault_servers = "/&localhost:1,/' "$ROOT/etc/cryptconf/qs-util.conf"
	rules ''
	run -0 qs keystore rotate --force
	[ "$(asked approle/login)" = 1 ]
	install -m 0400 "$SERVER/secret-id" "$ROOT/etc/cryptconf/vault/secret-id"
	[ "$(generations)" = '[4,4,4]' ]
}

@test "a rewrapping that is no such thing changes no device" {
	local before
	started 1.14
	enrolled_with vault 3
	before=$(all_tokens)
	rules 'tampered path=rewrap'
	run -7 qs keystore rotate --force
	[ "$(all_tokens)" = "$before" ]
	[ "$(generations)" = '[1,1,1]' ]
	rules 'short path=rewrap'
	run -0 qs keystore rotate
	[ "$(wrapped_by)" = 'v2 ' ]
	# A server that is gone in between is not asked the long way.
	rules 'status code=503 path=rewrap'
	run -7 qs keystore rotate --force
	[ "$(asked transit/encrypt)" = 1 ]
	rules ''
	run -0 qs keystore rotate
	[ "$(generations)" = '[3,3,3]' ]
}

@test "a role that may not encrypt has the server make the keys" {
	local age
	for age in 1.8 openbao; do
		started $age
		rm -rf "$ROOT"/etc/cryptconf/{keys,headers,retired} "$ROOT/etc/crypttab" "$ROOT/img"/*
		truncate -s 64M "$ROOT"/img/d{1,2,3}
		policy decrypt rewrap datakey/plaintext
		run -0 qs --yes keystore enable --provider vault
		rules ''
		run -0 qs cryptformat --no-open "${ID}1" "${ID}2" "${ID}3"
		[ "$(asked 'datakey/plaintext.* 200')" = 4 ] # and the probe
		[ "$(all_tokens | jq -r '.header["qs-wrapped"]' | sort -u | wc -l)" = 3 ]
		run -0 qs keystore rotate --force
		[ "$(wrapped_by)" = 'v2 ' ]
		run -0 qs keystore verify
		# The server makes keys for the latest version only: nothing has to be wrapped by another.
		run -0 qs keystore check
		# Somebody has made a later version: what it makes is of no generation of ours.
		admin POST "transit/keys/$(own_key)/rotate" '{}'
		truncate -s 0 "$(image_of 3)"
		truncate -s 64M "$(image_of 3)"
		run -1 qs cryptformat --no-open --force "${ID}3"
		[[ $output == *'keystore rotate'* ]]
		[ -z "$(blkid -p "$(image_of 3)")" ]
		policy decrypt rewrap
		run -2 qs cryptformat --no-open --force "${ID}3"
		[[ $output == *'POST transit/encrypt'*'policy'* ]]
		rm -rf "$KEYSTORE"
		double stop "$SERVER"
	done
}

@test "a header does not choose with which version it was wrapped" {
	local number text
	started 1.14
	enrolled_with vault 1
	number=$(cryptsetup luksDump "$(image_of 1)" | sed -n 's/^ *\([0-9]*\): qs-keystore$/\1/p')
	cryptsetup token export --token-id "$number" "$(image_of 1)" >"$BATS_TEST_TMPDIR/token"
	run -0 qs keystore rotate --force
	# A server takes the last three for version 1, too.
	for text in v1 v0 v01 v0000000001; do
		cryptsetup token remove --token-id "$number" "$(image_of 1)"
		sed "s/vault:v1:/vault:$text:/" "$BATS_TEST_TMPDIR/token" | jq -c '.generation = 2' |
			cryptsetup token import --token-id "$number" "$(image_of 1)"
		rules ''
		run -2 qs cryptopen --test "${ID}1"
		[[ $output == *'another version of the server'*'than 2, which is generation 2'* ]]
		[ "$(asked transit/decrypt)" = 0 ]
	done
}
