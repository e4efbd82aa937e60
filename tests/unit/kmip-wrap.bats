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

# What else is done with it, at generation 1.
changed()
{
	run -0 qs keystore rotate --force
	run -0 --separate-stderr qs --json keystore verify
	[ "$(jq -c '[.devices[] | select(.generation == 2)] | length' <<<"$output")" = 4 ]
	run -0 --separate-stderr qs --json keystore check
	[ "$(jq -c .result.tried <<<"$output")" = '[1,2]' ]
	run -1 qs keystore export --public-key "$BATS_TEST_TMPDIR/escrow.pub" --output "$BATS_TEST_TMPDIR/kek"
	[[ $output == *'gives no key away'* ]]
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
		[ "$(jq -c '.result | [.provider, .server.version, .server.reachable, .generations[0].key.cipher]' <<<"$output")" = \
			"[\"kmip-wrap\",\"$version\",true,\"$cipher\"]" ]
		run -0 --separate-stderr qs --json cryptopenall --test
		[ "$(jq -c '[.devices[].keystore_generation]' <<<"$output")" = '[1,1]' ]
		if [[ $version == [12].[20] ]]; then changed; fi
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

@test "a server that takes no such batch, or stops in it, is asked for less in the same connection" {
	enrolled 1 kmip-wrap
	copies 4
	rewrite 2 '.[:-3] + (if .[-3:-2] == "A" then "Q" else "A" end) + "=="'
	rm -r "$ROOT/etc/cryptconf/headers" # of what another backup says
	opened()
	{
		between "$1"
		run -7 --separate-stderr qs --json cryptopenall --test
		[ "$(jq -c '[.devices[].ok]' <<<"$output")" = '[true,false,true,true]' ]
		[[ $(jq -r '.devices[1].error.message' <<<"$output") == *'it was changed, or is of another key'* ]]
		[ "$(wc -l <"$OTHER/connections")" = 1 ]
		[ "$(tr '\n' , <"$OTHER/items")" = "1e 1,$2" ] || { cat "$OTHER/items"; return 1; }
	}
	opened pass '20 4,'
	opened single '20 4,20 1,20 1,20 1,20 1,'
	opened few:2 '20 4,20 2,20 2,'
	opened stop '20 4,20 2,'
}

@test "answers of a server that is not what it says are sentences, and its twin is asked" {
	enrolled 2 kmip-wrap
	local rule
	for rule in version:'another version' batch:'announces' cut-short:'answer' refuse:20:2a:'error of its own' \
		refuse:20:100:'changed, or is of another key' edit:20:4200c2:gone:'no decrypted data' \
		edit:20:420094:flip:'another key than' edit:20:420093:flip:'not asked' edit:20:420093:gone:'not asked'; do
		between "${rule%:*}"
		run ! qs cryptopenall --test
		[[ $output == *"${rule##*:}"* ]] || { echo "not ${rule##*:}: $output"; return 1; }
		case $rule in edit:20:4200*) continue ;; esac
		servers "$OTHER" "$SERVER"
		run -0 qs cryptopenall --test
	done
	# Keys of the wrong size, or another one, open nothing.
	for rule in cut:'has 8 bytes instead of 32' flip:'the wrapped key was changed'; do
		between "edit:20:4200c2:${rule%:*}"
		run -2 qs cryptopen --test "${ID}1"
		[[ $output == *"${rule#*:}"* ]] || { echo "not ${rule#*:}: $output"; return 1; }
	done
	DEADLINE=2 between slow
	run -75 qs cryptopen --test "${ID}1"
	[[ $output == *'does not answer'* || $output == *'no key server answered within'* ]]
	# What it refuses is no reason to ask another one.
	between refuse:20:c
	servers "$OTHER" "$SERVER"
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'permission denied'* ]]
}

@test "a server that cannot wrap is refused, and nothing is left there or here" {
	local rule before
	before=$(keys)
	for rule in without:1f:'operation Encrypt' without:20:'operation Decrypt' without:1:'operation Create' \
		refuse:1:5:'Create is refused' refuse:1f:8:'Encrypt is refused' refuse:20:5:'Decrypt is refused' \
		edit:1f:4200c2:cut:'encrypted data of 8 bytes' edit:1f:42003d:gone:'no initialization vector' \
		edit:1f:42003d:cut:'initialization vector of 8 bytes' edit:1f:420094:flip:'another key than' \
		edit:20:4200c2:flip:'something else than it encrypted' edit:1f:4200c2:flip:'Decrypt is refused'; do
		between "${rule%:*}"
		run ! qs --yes keystore enable --provider kmip-wrap
		[[ $output == *"${rule##*:}"* ]] || { echo "not ${rule##*:}: $output"; return 1; }
		[ ! -e "$KEYSTORE" ]
		[ "$(keys)" = "$before" ]
	done
	# Where tags get lost it is AES-CBC. (It has keys that are sensitive, but does not mind.)
	between edit:1f:4200ff:gone
	run -0 qs --yes keystore enable --provider kmip-wrap
	[ "$(jq -r .cipher "$KEYSTORE/1.kmip")" = aes-cbc ]
	between refuse:20:8
	run -1 qs keystore rotate --force
	[[ $output == *'Decrypt is refused'* ]]
	[ "$(jq -c .current "$KEYSTORE/keystore.json")" = 1 ]
	servers "$SERVER"
	run -0 qs keystore rotate --force
	[ "$(jq -c .current "$KEYSTORE/keystore.json")" = 2 ]
	[ "$(keys)" = $((before + 2)) ]
	qs --yes keystore disable
	[ "$(keys)" = "$before" ]
}

@test "a wrapped key that was changed, or taken from elsewhere, opens nothing" {
	enrolled 2 kmip-wrap
	local good record=$KEYSTORE/1.kmip
	good=$(<"$record")
	rm -r "$ROOT/etc/cryptconf/headers"
	cp "$(image_of 1)" "$BATS_TEST_TMPDIR/good"
	refused()
	{
		run -"$1" qs cryptopen --test "${ID}1"
		[[ $output == *"$2"* ]] || { echo "not $2: $output"; return 1; }
		cp --sparse=always "$BATS_TEST_TMPDIR/good" "$(image_of 1)"
	}
	rewrite 1 'split(":") | .[3] = "OTk5" | join(":")'
	refused 2 'by another key of the server'
	rewrite 1 '"vault:v1:AAAA"'
	refused 4 'none of a KMIP server'
	rewrite 1 '.[:-1]'
	refused 4 'none of a KMIP server'
	# That of the other disk is a good one.
	rewrite 1 "\"$(cryptsetup token export --token-id "$(token 2)" "$(image_of 2)" | jq -r '.jwe.header["qs-wrapped"]')\""
	refused 2 'the wrapped key was changed'
	(umask 077 && jq -c 'del(.cipher, .sum)' <<<"$good" >"$record.new") && mv "$record.new" "$record"
	refused 78 'how the server encrypts'
	(umask 077 && jq -c 'del(.sum) | .cipher = "rot13"' <<<"$good" >"$record.new") && mv "$record.new" "$record"
	refused 78 'is not usable'
	rm "$record"
	refused 2 'is not known'
	(umask 077 && cat >"$record") <<<"$good"
	# GCM needs a field that KMIP 1.3 does not have.
	setting 'kmip_version = "1.3";'
	refused 1 'KMIP 1.3 cannot carry'
	servers "$SERVER"
	setting 'kmip_version = "1.1";'
	refused 1 'has no Encrypt'
}

@test "with AES-CBC it is the JWE that refuses what was changed" {
	setting 'kmip_version = "1.2";'
	enrolled 1 kmip-wrap
	rm -r "$ROOT/etc/cryptconf/headers"
	# A bit of the initialization vector, so that the padding stays right.
	rewrite 1 'split(":") | .[4] = (if .[4][:1] == "A" then "B" else "A" end) + .[4][1:] | join(":")'
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'the wrapped key was changed'* ]]
}

@test "a key that was made at the server wraps, by its identifier or its name, and stays" {
	local id before
	before=$(keys)
	made()
	{
		"$BATS_TEST_DIRNAME/../kmip-admin" "$SERVER" "$@"
	}
	id=$(made master)
	run -1 qs --yes keystore enable --provider kmip-wrap --key-id "$(made signs 256 sign)"
	[[ $output == *'does not have Encrypt and Decrypt'* ]]
	[ ! -e "$KEYSTORE" ]
	enrolled 1 kmip-wrap
	run -0 qs keystore rotate --force --key-id master
	[ "$(jq -c '[.uid, .adopted, .cipher]' "$KEYSTORE/2.kmip")" = "[\"$id\",true,\"aes-gcm\"]" ]
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	[ "$(jq -c '.devices[0].keystore_generation' <<<"$output")" = 2 ]
	run -0 qs keystore status
	[[ $output == *"; key $id there, which wraps with aes-gcm, not of our making"* ]]
	rm -r "$ROOT"/dev/disk/by-id "$ROOT/etc/cryptconf/headers" "$ROOT/etc/crypttab"
	qs --yes keystore disable
	[ "$(keys)" = $((before + 2)) ]
}

@test "the manual's recovery opens the device by the server alone" {
	local recipe text version
	text=$(recipe 'Recovery with the KMIP')
	[[ $text == *ProxyKmipClient*jose* ]]
	printf '[client]\nhost=127.0.0.1\nport=%s\ncertfile=%s\nkeyfile=%s\nca_certs=%s\n' "$(<"$SERVER/port")" \
		"$SERVER/certs/client.crt" "$SERVER/certs/client.key" "$SERVER/certs/ca.crt" >"$BATS_TEST_TMPDIR/pykmip.conf"
	mkdir "$BATS_TEST_TMPDIR/shm"
	for version in 1.2 2.0; do
		rm -rf "${ROOT:?}/etc" "$BATS_TEST_TMPDIR/keys" && mkdir -p "$ROOT/etc/cryptconf/kmip"
		truncate -s 0 "$(image_of 1)" && truncate -s 64M "$(image_of 1)"
		identity client
		servers "$SERVER"
		setting "kmip_version = \"$version\";"
		enrolled 1 kmip-wrap
		recipe=${text//\/root\/pykmip.conf/$BATS_TEST_TMPDIR\/pykmip.conf}
		recipe=${recipe//\/dev\/sdj/$(image_of 1)}
		recipe=${recipe//\/dev\/shm/$BATS_TEST_TMPDIR\/shm}
		recipe=${recipe//python3 /\/usr\/bin\/python3 }
		recipe=${recipe/cryptsetup open/cryptsetup open --test-passphrase}
		run -0 bash -euo pipefail -c "$recipe"
	done
	rewrite 1 '.[:-3] + (if .[-3:-2] == "A" then "Q" else "A" end) + "=="'
	run ! bash -euo pipefail -c "$recipe"
}
