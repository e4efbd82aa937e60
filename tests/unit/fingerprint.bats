#!/usr/bin/env bats
# The fingerprint of a generated key in the header: what it is, that stock tools
# do not mind it, and that nothing trusts it.

load tree

setup()
{
	make_tree 2
	KEY=$BATS_TEST_TMPDIR/key
	new_key "$KEY"
}

token()
{
	cryptsetup luksDump --dump-json-metadata "$(image_of 1)" |
		jq -c '.tokens[] | select(.type == "qs-fingerprint")'
}

@test "it is what openssl computes from key file and UUID" {
	local digest uuid sum
	qs cryptformat --no-open "${ID}1"
	digest=$(openssl dgst -sha256 -r "$(key_of 1)" | cut -d' ' -f1)
	uuid=$(cryptsetup luksUUID "$(image_of 1)")
	sum=$(printf %s "$uuid" | openssl dgst -sha256 -r -mac HMAC -macopt hexkey:"$digest" | cut -d' ' -f1)
	[ "$(token)" = "{\"type\":\"qs-fingerprint\",\"keyslots\":[\"0\"],\"version\":1,\"fingerprint\":\"$sum\"}" ]
}

@test "a key that somebody supplied gets none" {
	qs cryptformat --no-open "${ID}1" "$KEY"
	[ -z "$(token)" ]
}

@test "a file of somebody's under the device's name gets none, though the format is forced" {
	mkdir -p "$(dirname "$(key_of 1)")"
	mv "$KEY" "$(key_of 1)"
	qs cryptformat --no-open --force --yes "${ID}1"
	stock_opens "$(image_of 1)" "$(key_of 1)"
	[ -z "$(token)" ]
}

@test "stock cryptsetup opens by key file and by passphrase, and dumps the token" {
	qs cryptformat --no-open "${ID}1"
	[ -n "$(token)" ]
	stock_opens "$(image_of 1)" "$(key_of 1)"
	printf secret | cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
		--key-file "$(key_of 1)" "$(image_of 1)" -
	# Without a key file cryptsetup asks the tokens first.
	printf secret | cryptsetup open --test-passphrase "$(image_of 1)"
	cryptsetup luksDump "$(image_of 1)" | grep -A1 '0: qs-fingerprint' | grep -q 'Keyslot: *0'
}

@test "cryptstatus: the slot is a key file's; a token that opens the slot is still told" {
	qs cryptformat --no-open "${ID}1"
	opened_by() { qs --json cryptstatus "${ID}1" | jq -r '.devices[0].keyslots[0].opened_by'; }
	mv "$(key_of 1)" "$KEY"
	[ "$(opened_by)" = 'key file' ]
	echo '{"type":"example","keyslots":["0"]}' | cryptsetup token import --token-id 5 "$(image_of 1)"
	[ "$(opened_by)" = example ]
}

@test "tokens that lie change nothing: the key opens, and only the key" {
	qs cryptformat --no-open "${ID}1"
	local other
	other=$(token | jq -c '.fingerprint |= (.[32:] + .[:32])')
	cryptsetup token remove --token-id 0 "$(image_of 1)"
	echo "$other" | cryptsetup token import "$(image_of 1)"
	jq -nc '{type: "qs-fingerprint", keyslots: [], version: 1, fingerprint: ("ab" * 4000)}' |
		cryptsetup token import "$(image_of 1)"
	run -0 qs cryptopen --test "${ID}1"
	run -2 qs cryptopen --test "${ID}1" "$KEY"
}
