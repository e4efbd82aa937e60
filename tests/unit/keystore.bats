#!/usr/bin/env bats
# The keystore: what it wraps opens with stock tools, what is not its own is refused, and
# nothing that depends on it is ever erased.

load tree

setup()
{
	make_tree 2
	KEYSTORE=$ROOT/etc/cryptconf/keystore
	IMAGE=$(image_of 1)
	JWE=$BATS_TEST_TMPDIR/jwe
	JWK=$BATS_TEST_TMPDIR/jwk
	DEVKEY=$BATS_TEST_TMPDIR/device-key
}

# enrolled COUNT: that many devices, enabled and enrolled.
enrolled()
{
	local n devices=()
	for ((n = 1; n <= $1; n++)); do devices+=("$ID$n"); done
	qs cryptformat --no-open "${devices[@]}"
	qs --yes keystore enable
	qs cryptenroll "${devices[@]}" --keystore
}

# token IMAGE: its keystore token; token_number IMAGE.
token()
{
	cryptsetup luksDump --dump-json-metadata "$1" | jq -c '.tokens[] | select(.type == "qs-keystore")'
}

token_number()
{
	cryptsetup luksDump --dump-json-metadata "$1" |
		jq -r '.tokens | to_entries[] | select(.value.type == "qs-keystore") | .key'
}

# set_token IMAGE FILTER: put what the jq FILTER makes of the token in its place, header and backup.
set_token()
{
	local number new
	number=$(token_number "$1")
	new=$(token "$1" | jq -c "$2")
	cryptsetup token remove --token-id "$number" "$1"
	cryptsetup token import --token-id "$number" --json-file - "$1" <<<"$new"
}

# The KEK as a JWK, by stock tools.
make_jwk()
{
	printf '{"kty":"oct","alg":"A256GCMKW","k":"%s"}' \
		"$(base64 -w0 "$KEYSTORE/1.kek" | tr '+/' '-_' | tr -d =)" >"$JWK"
}

# device_key IMAGE: into the file DEVKEY, by jose alone.
device_key()
{
	make_jwk
	token "$1" | jq -c .jwe >"$JWE"
	jose jwe dec -i "$JWE" -k "$JWK" | head -c 64 >"$DEVKEY"
}

# Everything below the root, but locks: what a look must not change.
tree_sum()
{
	find "$ROOT" -path "$ROOT/run" -prune -o -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum
}

@test "enable asks, makes private files, and is refused a second time" {
	run -6 qs keystore enable
	[ ! -e "$KEYSTORE" ]
	run -0 --separate-stderr qs --json keystore status
	[ "$(jq -r .result.state <<<"$output")" = disabled ]
	run -0 --separate-stderr qs --json --yes keystore enable
	[ "$(jq -r .result.state <<<"$output")" = enabled ]
	[ "$(stat -c '%a %s' "$KEYSTORE/1.kek")" = '400 32' ]
	[ "$(stat -c %a "$KEYSTORE")" = 700 ]
	[ "$(stat -c %a "$KEYSTORE/keystore.json")" = 600 ]
	before=$(tree_sum)
	run -5 qs --yes keystore enable
	[[ $output == *'enabled already'* ]]
	# Nobody is asked to confirm what is refused.
	run -5 qs keystore enable
	[[ $output == *'enabled already'* ]]
	[ "$(tree_sum)" = "$before" ]
	run -0 --separate-stderr qs --json keystore status
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '.result | [.state, .provider, .generation, .generations[0].devices]' <<<"$output")" = '["enabled","local",1,0]' ]
}

@test "enabling that fails leaves nothing, and remains of a keystore are not overwritten" {
	cp "$QS_UTIL" "$BATS_TEST_TMPDIR/alone"
	run -1 "$BATS_TEST_TMPDIR/alone" --root="$ROOT" --yes keystore enable
	[[ $output == *'module jose'* ]]
	[ ! -e "$KEYSTORE" ]
	mkdir -p "$KEYSTORE"
	head -c 32 /dev/urandom >"$KEYSTORE/1.kek"
	before=$(sum "$KEYSTORE/1.kek")
	run -78 qs --yes keystore enable
	[[ $output == *'no keystore.json'* ]]
	[ "$(sum "$KEYSTORE/1.kek")" = "$before" ]
	run -64 qs keystore rotato
	run -64 qs --yes keystore enable --provider nobody
	run -64 qs keystore status --provider local
}

@test "jose and cryptsetup recover the key without us, and it opens device and backup" {
	enrolled 1
	device_key "$IMAGE"
	[ "$(stat -c %s "$DEVKEY")" = 64 ]
	stock_opens "$IMAGE" "$DEVKEY"
	cryptsetup open --test-passphrase --key-file "$DEVKEY" "$(backup_of 1)"
	# Word by word as the manual has it.
	jose jwe dec -i "$JWE" -k "$JWK" |
		cryptsetup open --test-passphrase --key-file - --keyfile-size 64 "$IMAGE"
	[ "$(token "$IMAGE" | jq -c '[.keyslots, .version, .generation, .provider]')" = '[["1"],1,1,"local"]' ]
	[ "$(token "$IMAGE" | jq -r .jwe.protected | tr '_-' '/+' | base64 -d 2>/dev/null | jq -r .kid)" = \
		"$(jq -r .store "$KEYSTORE/keystore.json")/1" ]
	jose jwe dec -i "$JWE" -k "$JWK" | tail -c +65 | jq -e --arg u "$(cryptsetup luksUUID "$IMAGE")" \
		'.uuid == $u and .cipher == "aes-xts-plain64" and .key_size == 64 and .data_offset == 16777216 and (.mac | length == 64)'
	[ "$(cryptsetup luksDump --dump-json-metadata "$IMAGE" | jq -c '.keyslots["1"].kdf | [.type, .iterations]')" = '["pbkdf2",1000]' ]
}

@test "devices open by the keystore, before key files and without them" {
	enrolled 2
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '.devices[0] | [.keyslot, .keystore_generation, has("key_file")]' <<<"$output")" = '[1,1,false]' ]
	rm "$(key_of 1)"
	sed -i "s|/etc/cryptconf/keys/enc-scsi-30002.key|none|" "$ROOT/etc/crypttab"
	rm "$(key_of 2)"
	run -0 --separate-stderr qs --json cryptopenall --test
	[ "$(jq -c '[.devices[].keystore_generation]' <<<"$output")" = '[1,1]' ]
	run -0 --separate-stderr qs --json cryptenroll "${ID}1" --list
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '.devices[0].keyslots[1] | [.kind, .keystore.generation]' <<<"$output")" = '["keystore",1]' ]
	# What unlocks a device for a change, too.
	run -0 qs cryptenroll "${ID}1" --recovery-key "$BATS_TEST_TMPDIR/recovery"
	run -0 qs keystore verify
}

@test "enrolling again replaces the keyslot; revoking it ends what the keystore could open" {
	enrolled 1
	device_key "$IMAGE"
	run -0 --separate-stderr qs --json cryptenroll "${ID}1" --keystore
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '.devices[0] | [.keyslot, .kind, .generation]' <<<"$output")" = '[2,"keystore",1]' ]
	run ! stock_opens "$IMAGE" "$DEVKEY"
	device_key "$IMAGE"
	stock_opens "$IMAGE" "$DEVKEY"
	run -6 qs --yes keystore disable
	[[ $output == *'depend on the keystore'* ]]
	# Nobody is asked to confirm what is refused.
	run -6 qs keystore disable
	[[ $output == *'depend on the keystore'* ]]
	run -0 qs --yes cryptenroll "${ID}1" --wipe keystore
	run ! stock_opens "$IMAGE" "$DEVKEY"
	run ! cryptsetup open --test-passphrase --key-file "$DEVKEY" "$(backup_of 1)"
	stock_opens "$IMAGE" "$(key_of 1)"
	[ -z "$(token "$IMAGE")" ]
	run -6 qs keystore disable
	[[ $output == *'--yes'* ]]
	run -0 qs --yes keystore disable
	[ ! -e "$KEYSTORE" ]
	run -1 qs keystore disable
	[[ $output == *'is not enabled'* ]]
	run -1 qs cryptenroll "${ID}1" --keystore
	[[ $output == *'keystore enable'* ]]
}

@test "disable is refused for a backup of an absent disk, and for a header that cannot be read" {
	enrolled 2
	qs --yes cryptenroll "${ID}1" --wipe keystore
	mv "$(image_of 2)" "$BATS_TEST_TMPDIR/away"
	rm "$ROOT${ID}2"
	run -6 qs --yes keystore disable
	[[ $output == *"enc-scsi-30002"* ]]
	rm -r "$ROOT/etc/cryptconf/headers/enc-scsi-30002".*
	# Neither of both copies is usable, but the magic is there.
	printf 'x' | dd of="$IMAGE" bs=1 seek=5000 conv=notrunc status=none
	printf 'x' | dd of="$IMAGE" bs=1 seek=$((131072 + 5000)) conv=notrunc status=none
	run -6 qs --yes keystore disable
	[[ $output == *'cannot be told'* ]]
	[ -e "$KEYSTORE/1.kek" ]
}

@test "where the keystore fails the key file opens; without one the reason is told" {
	enrolled 1
	mv "$KEYSTORE/1.kek" "$BATS_TEST_TMPDIR/kek"
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[[ $(jq -r '.devices[0].keystore_problem' <<<"$output") == *'1.kek does not exist'* ]]
	mv "$(key_of 1)" "$BATS_TEST_TMPDIR/key"
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'1.kek does not exist (generation 1 of the keystore; a key bundle has it, too: keyrestore)'* ]]
	run -7 qs keystore verify
	head -c 32 /dev/urandom >"$KEYSTORE/1.kek"
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'can be read or written by group or others'* ]]
	chmod 0400 "$KEYSTORE/1.kek"
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'does not fit'* ]]
	cp "$BATS_TEST_TMPDIR/kek" "$KEYSTORE/1.kek"
	run -0 qs cryptopen --test "${ID}1"
}

@test "a keystore.json that is not ours or not private is a sentence, and changes nothing" {
	enrolled 1
	rm "$(key_of 1)"
	local json=$KEYSTORE/keystore.json good before
	good=$(<"$json")
	before=$(sum "$IMAGE")
	attempt()
	{
		local status=$1 text=$2
		run "-$status" qs cryptopen --test "${ID}1"
		[[ $output == *"$text"* ]]
		run "-$status" qs cryptenroll "${ID}1" --keystore
		[ "$(sum "$IMAGE")" = "$before" ]
	}
	chmod 0644 "$json"
	attempt 2 'group or others'
	chmod 0600 "$json"
	printf '%s' "${good:0:60}" >"$json"
	attempt 78 'not usable'
	jq -c '.extra = 1 | del(.sum)' <<<"$good" >"$json"
	attempt 78 'not usable'
	jq -c '.current = 2' <<<"$good" >"$json"
	attempt 78 'remove its member "sum"'
	jq -c '.version = 2 | del(.sum)' <<<"$good" >"$json"
	attempt 78 'newer'
	run -78 qs keystore status
	run -78 qs --yes keystore disable
	run -78 qs --yes keystore enable
	jq -c '.store = "00000000-0000-4000-8000-000000000000" | del(.sum)' <<<"$good" >"$json"
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'another keystore'* ]]
	jq -c '.current = 2 | .generations[0].number = 2 | del(.sum)' <<<"$good" >"$json"
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'no longer has'* ]]
	printf '%s\n' "$good" >"$json"
	run -0 qs cryptopen --test "${ID}1"
}

@test "tokens that were changed, swapped or made up open nothing, and the key file still does" {
	enrolled 2
	local good
	good=$(token "$IMAGE")
	rm -r "$ROOT/etc/cryptconf/headers"
	attempt()
	{
		set_token "$IMAGE" "$1"
		run -0 qs cryptopen --test "${ID}1"
		run -7 qs keystore verify
		[[ $output == *"$2"* ]]
		set_token "$IMAGE" "$good"
	}
	attempt '.generation = 2' 'jwe.protected'
	attempt '.version = 2' 'version'
	attempt '.jwe.extra = "AAAA"' 'field jwe '
	attempt '.jwe.ciphertext |= ((if .[0:1] == "A" then "B" else "A" end) + .[1:])' 'does not fit'
	attempt '.jwe.tag = "AAAAAAAAAAAAAAAAAAAAAA"' 'does not fit'
	attempt '.jwe.header.iv = "AAAA"' 'jwe.header'
	attempt '.jwe.protected = ("{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"kid\":\"x\"}" | @base64)' 'jwe.protected'
	# The other device's token: refused for every key.
	set_token "$IMAGE" "$(token "$(image_of 2)")"
	run -6 qs cryptopen --test "${ID}1"
	[[ $output == *'another volume'* ]]
}

@test "a planted volume with the device's own key is refused, whatever else would open it" {
	enrolled 1
	device_key "$IMAGE"
	local old
	old=$(token "$IMAGE")
	# Somebody who had the machine for an hour: same UUID, same key, other volume key.
	stock_format "$IMAGE" "$(key_of 1)" --uuid "$(cryptsetup luksUUID "$IMAGE")" --label enc-scsi-30001 \
		--subsystem qs-util --sector-size 4096
	cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file "$(key_of 1)" "$IMAGE" "$DEVKEY"
	cryptsetup token import --json-file - "$IMAGE" <<<"$old"
	rm -r "$ROOT/etc/cryptconf/headers"
	stock_opens "$IMAGE" "$DEVKEY"
	run -6 qs cryptopen --test "${ID}1"
	[[ $output == *'the volume key is not the one'* ]]
	run -6 qs keystore verify
	stock_format "$IMAGE" "$(key_of 1)" --uuid "$(jq -r '.jwe.protected' <<<"$old" | tr '_-' '/+' | base64 -d 2>/dev/null | jq -r '."qs-volume" | split("/")[0]')" --sector-size 512
	cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file "$(key_of 1)" "$IMAGE" "$DEVKEY"
	cryptsetup token import --json-file - "$IMAGE" <<<"$old"
	run -6 qs cryptopen --test "${ID}1"
	[[ $output == *'the sector size is not the one'* ]]
}

@test "status and verify only look, and verify finds a backup that no longer opens" {
	enrolled 2
	before=$(tree_sum)
	run -0 --separate-stderr qs --json keystore verify
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '[.devices[] | select(.generation == 1) | .ok]' <<<"$output")" = '[true,true,true,true]' ]
	run -0 --separate-stderr qs --json keystore status
	[ "$(jq -c '.result.generations[0] | [.devices, .backups]' <<<"$output")" = '[2,2]' ]
	[ "$(jq -c '.result | [.rotation_state, .rotation]' <<<"$output")" = '["idle",null]' ]
	run -0 qs keystore status
	[[ $output == *'rotation: idle'*'generation 1 (current), of '*'for 2 devices and 2 header backups'* ]]
	run -0 qs cryptenroll "${ID}1" --list
	[ "$(tree_sum)" = "$before" ]
	# The keyslot's key material, in the backup alone.
	offset=$(cryptsetup luksDump --dump-json-metadata "$IMAGE" | jq -r '.keyslots["1"].area.offset')
	head -c 4096 /dev/urandom | dd of="$(backup_of 1)" bs=4096 seek=$((offset / 4096)) conv=notrunc status=none
	run -7 qs keystore verify
	[[ $output == *'enc-scsi-30001.header'* ]]
	[[ $output == *'does not open keyslot 1'* ]]
}

@test "a key bundle carries the keystore, and devices open again after it was lost" {
	enrolled 1
	(umask 077 && echo correct-horse-battery >"$BATS_TEST_TMPDIR/pass")
	qs keybackup "$BATS_TEST_TMPDIR/bundle" --passphrase-file "$BATS_TEST_TMPDIR/pass"
	rm -r "$KEYSTORE" "$(key_of 1)"
	run -2 qs cryptopen --test "${ID}1"
	qs --yes keyrestore "$BATS_TEST_TMPDIR/bundle" --passphrase-file "$BATS_TEST_TMPDIR/pass"
	rm "$(key_of 1)"
	[ "$(stat -c '%a %s' "$KEYSTORE/1.kek")" = '600 32' ]
	run -0 qs cryptopen --test "${ID}1"
}
