#!/usr/bin/env bats
# The keystore's provider kmip-wrap, whose keys never leave the key server: with a real one
# (PyKMIP), and with one that misbehaves.

load tree
load kmip
load kmip-shared

# between RULE: the double stands before the server.
between()
{
	[ ! -e "$OTHER" ] || kmip stop "$OTHER"
	rm -f "$OTHER"/{messages,items,connections}
	kmip double "$OTHER" "$SERVER" "$1:$(<"$SERVER/port")" server
	servers "$OTHER"
}

# copies COUNT: of disk 1, as disks 2 and on.
copies()
{
	local n line
	line=$(grep scsi-30001 "$ROOT/etc/crypttab")
	for ((n = 2; n <= $1; n++)); do
		cp --sparse=always "$(image_of 1)" "$ROOT/img/d$n"
		ln -sfn "$ROOT/img/d$n" "$ROOT${ID}$n"
		echo "${line//scsi-30001/scsi-3000$n}" >>"$ROOT/etc/crypttab"
	done
}

# token N: the number of the keystore's token of disk N.
token()
{
	cryptsetup luksDump "$(image_of "$1")" | sed -n 's/^ *\([0-9]*\): qs-keystore$/\1/p'
}

# rewrite N FILTER: somebody changes the wrapped key in the header of disk N, by jq.
rewrite()
{
	local number
	number=$(token "$1")
	cryptsetup token export --token-id "$number" "$(image_of "$1")" | jq -c ".jwe.header[\"qs-wrapped\"] |= ($2)" \
		>"$BATS_TEST_TMPDIR/token.json"
	cryptsetup token import --token-replace --token-id "$number" --json-file "$BATS_TEST_TMPDIR/token.json" "$(image_of "$1")"
}

@test "devices open in every version of KMIP that has Encrypt, and the key never leaves the server" {
	local version before cipher gets
	before=$(keys)
	gets=$(asked Get)
	qs cryptformat --no-open "${ID}1" "${ID}2"
	cp -rp "$ROOT/etc/cryptconf/keys" "$BATS_TEST_TMPDIR/keys"
	openssl genrsa 3072 2>/dev/null | openssl pkey -pubout -out "$BATS_TEST_TMPDIR/escrow.pub"
	for version in 1.0 1.1; do
		servers "$SERVER"
		setting "kmip_version = \"$version\";"
		run -1 qs --yes keystore enable --provider kmip-wrap
		[[ $output == *'use the provider kmip, which fetches'* ]]
		[ ! -e "$KEYSTORE" ]
		[ "$(keys)" = "$before" ]
	done
	for version in 1.2 1.3 1.4 2.0; do
		cipher=aes-gcm
		if [[ $version == 1.[23] ]]; then cipher=aes-cbc; fi
		servers "$SERVER"
		setting "kmip_version = \"$version\";"
		run -0 qs --yes keystore enable --provider kmip-wrap
		[ "$(stat -c '%a' "$KEYSTORE/1.kmip")" = 400 ]
		[ "$(jq -r .cipher "$KEYSTORE/1.kmip")" = $cipher ]
		qs cryptenroll "${ID}1" "${ID}2" --keystore
		rm "$ROOT/etc/cryptconf/keys"/*
		run -0 --separate-stderr qs --json keystore status
		"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
		[ "$(jq -c '.result | [.provider, .server.version, .server.reachable]' <<<"$output")" = "[\"kmip-wrap\",\"$version\",true]" ]
		run -0 --separate-stderr qs --json cryptopenall --test
		[ "$(jq -c '[.devices[].keystore_generation]' <<<"$output")" = '[1,1]' ]
		run -0 qs keystore rotate --force
		run -0 --separate-stderr qs --json keystore verify
		[ "$(jq -c '[.devices[] | select(.generation == 2)] | length' <<<"$output")" = 4 ]
		run -0 --separate-stderr qs --json keystore check
		[ "$(jq -c .result.tried <<<"$output")" = '[1,2]' ]
		run -1 qs keystore export --public-key "$BATS_TEST_TMPDIR/escrow.pub" --output "$BATS_TEST_TMPDIR/kek"
		[[ $output == *'gives no key away'* ]]
		cp -p "$BATS_TEST_TMPDIR/keys"/* "$ROOT/etc/cryptconf/keys"
		qs --yes cryptenroll "${ID}1" "${ID}2" --wipe keystore
		run -0 qs --yes keystore disable
		[ "$(keys)" = "$before" ]
		[ ! -e "$KEYSTORE" ]
	done
	[ "$(asked Get)" = "$gets" ]
}

@test "a hundred devices open with one connection and one message" {
	enrolled 1 kmip-wrap
	copies 100
	between pass
	run -0 --separate-stderr qs --json cryptopenall --test
	[ "$(jq '[.devices[] | select(.keystore_generation == 1)] | length' <<<"$output")" = 100 ]
	[ "$(wc -l <"$OTHER/connections")" = 1 ]
	[ "$(<"$OTHER/items")" = $'1e 1\n20 100' ]
}
