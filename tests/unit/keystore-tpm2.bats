#!/usr/bin/env bats
# The keystore in the TPM: one unsealing for any number of devices, a PIN that is tried once, and
# a TPM that is another one, was cleared, is away or measured something else.

load tree
load tpm2

setup()
{
	make_tree 2
	make_tpm
	KEYSTORE=$ROOT/etc/cryptconf/keystore
	SEALED=$KEYSTORE/1.sealed
	PIN=$BATS_TEST_TMPDIR/pin
	(umask 077 && echo 1234 >"$PIN")
	export TPM2TOOLS_TCTI=swtpm:path=$TPM/s
}

teardown()
{
	drop_tpm
}

# enrolled COUNT [OPTION...]: that many devices, and the keystore on the TPM; no key files.
enrolled()
{
	local n count=$1 devices=() pin=()
	shift
	[[ $* != *--pin-file* ]] || pin=(--pin-file "$PIN")
	for ((n = 1; n <= count; n++)); do devices+=("$ID$n"); done
	qs cryptformat --no-open "${devices[@]}"
	qs --yes keystore enable --provider tpm2 "$@"
	qs cryptenroll "${devices[@]}" --keystore "${pin[@]}"
	for ((n = 1; n <= count; n++)); do mv "$(key_of "$n")" "$BATS_TEST_TMPDIR/key$n"; done
}

# counted N ARGUMENT...: it succeeds, and so many Unseals reach the TPM.
counted()
{
	local count=$1
	shift
	"$SWTPM" proxy "$TPM" count
	use_tpm "$TPM/p"
	qs "$@"
	use_tpm "$TPM/s"
	[ "$(grep -c '^0x15e$' "$TPM/commands")" = "$count" ]
	rm "$TPM/commands"
}

header_sum()
{
	head -c 1M "$(image_of 1)" | sha256sum
}

# refused STATUS TEXT: device 1 does not open, for this reason, and nothing is written.
refused()
{
	local before
	before=$(header_sum)
	run "-$1" qs cryptopen --test "${ID}1"
	[[ $output == *"$2"* ]]
	[ "$(header_sum)" = "$before" ]
}

@test "enable seals under the storage root key, devices open by it, disable erases it" {
	run ! tpm2_readpublic -c 0x81000001
	enrolled 2
	[ "$(stat -c %a "$SEALED")" = 600 ]
	tpm2_readpublic -c 0x81000001 -n "$BATS_TEST_TMPDIR/name" >/dev/null
	# The sealed object: fixedTPM, fixedParent, noDA; the token names the key above it.
	jq -r '.sealed."tpm2-blob"' "$SEALED" | base64 -d | xxd -p -c 999 | grep -q '0008000b00000412'
	jq -r '.sealed.tpm2_srk' "$SEALED" | base64 -d | xxd -p -c 999 | grep -q "^810000010022$(xxd -p -c 99 "$BATS_TEST_TMPDIR/name")"
	run -0 --separate-stderr qs --json keystore status
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '.result | [.provider, .generations[0].devices]' <<<"$output")" = '["tpm2",2]' ]
	[ "$(jq -c '.result.generations[0].tpm2' <<<"$output")" = '{"pcrs":"7","bank":"sha256","pin":false}' ]
	run -0 --separate-stderr qs --json cryptopenall --test
	[ "$(jq -c '[.devices[].keystore_generation]' <<<"$output")" = '[1,1]' ]
	counted 1 keystore verify
	counted 1 cryptopen --test "${ID}2"
	# Unlocked by the keystore, and enrolled in it again.
	counted 1 cryptenroll "${ID}1" "${ID}2" --keystore
	run -6 qs --yes keystore disable
	cp "$BATS_TEST_TMPDIR/key1" "$(key_of 1)"
	cp "$BATS_TEST_TMPDIR/key2" "$(key_of 2)"
	counted 0 cryptopen --test "${ID}1" "$(key_of 1)"
	counted 1 cryptopenall --test --all-ways
	qs --yes cryptenroll "${ID}1" "${ID}2" --wipe keystore
	run -0 qs --yes keystore disable
	[ ! -e "$KEYSTORE" ]
	# What somebody else keeps in the TPM is not replaced.
	run -0 qs --yes keystore enable --provider tpm2 --pcrs none
	tpm2_readpublic -c 0x81000001 -n "$BATS_TEST_TMPDIR/again" >/dev/null
	cmp "$BATS_TEST_TMPDIR/name" "$BATS_TEST_TMPDIR/again"
	[ "$(jq -c '.sealed."tpm2-pcrs"' "$SEALED")" = '[]' ]
}

@test "24 devices: the TPM unseals once to enrol them, and once to open them" {
	local n devices=()
	make_tree 24
	for ((n = 1; n <= 24; n++)); do devices+=("$ID$n"); done
	qs cryptformat --no-open "${devices[@]}"
	qs --yes keystore enable --provider tpm2
	counted 1 cryptenroll "${devices[@]}" --keystore
	for ((n = 1; n <= 24; n++)); do rm "$(key_of "$n")"; done
	counted 1 cryptopenall --test
}

@test "a PCR that moved, a TPM in lockout, none, another one, a cleared one: 2, and said as such" {
	enrolled 1
	"$SWTPM" measure "$TPM" update 7
	refused 2 'generation 1 of the keystore: PCR 7 changed since it was sealed'
	run -7 qs keystore verify
	[[ $output == *'PCR 7 changed'* ]]
	# A key file still opens it.
	cp "$BATS_TEST_TMPDIR/key1" "$(key_of 1)"
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	[[ $(field .keystore_problem) == *'PCR 7 changed'* ]]
	rm "$(key_of 1)"
	"$SWTPM" stop "$TPM"
	refused 2 'cannot reach the TPM'
	run -7 qs keystore verify
	"$SWTPM" start "$TPM"
	"$SWTPM" measure "$TPM" booted 0 2 7 11
	run -0 qs cryptopen --test "${ID}1"
	# What has no PIN is outside of the lockout.
	tpm2_dictionarylockout -s -n 1 -t 1000 -l 1000
	tpm2_createprimary -Q -C o -p right -c "$TPM/locked"
	run ! tpm2_create -Q -C "$TPM/locked" -P wrong
	"$SWTPM" flush "$TPM"
	[ "$(failures)" = 0x1 ]
	run -0 qs cryptopen --test "${ID}1"
	tpm2_clear
	refused 2 'does not have the storage root key'
	# Its new storage root key is another one.
	mkdir -p "$BATS_TEST_TMPDIR/other/etc"
	cp -a "$ROOT/etc/cryptconf" "$BATS_TEST_TMPDIR/other/etc/"
	rm -r "$BATS_TEST_TMPDIR/other/etc/cryptconf"/{headers,keystore}
	ROOT=$BATS_TEST_TMPDIR/other qs --yes keystore enable --provider tpm2
	refused 2 'sealed by another TPM'
}

@test "a TPM that hangs, or talks nonsense: a sentence after the deadline" {
	enrolled 1
	"$SWTPM" proxy "$TPM" never
	use_tpm "$TPM/p" 'tpm2_deadline = 1;'
	refused 1 'did not answer within 1 second '
	"$SWTPM" proxy "$TPM" garbage
	refused 2 'generation 1 of the keystore: '
}

@test "a PIN: from a file, typed once, tried once, and never by itself" {
	enrolled 2 --pin-file "$PIN"
	jq -r '.sealed."tpm2-blob"' "$SEALED" | base64 -d | xxd -p -c 999 | grep -q '0008000b00000012'
	counted 1 cryptopenall --test --pin-file "$PIN"
	run -0 qs keystore verify --pin-file "$PIN"
	run -0 typed 1234 -- cryptopenall --test
	run -0 typed 1234 -- cryptopen --test "${ID}1"
	refused 2 'needs its PIN'
	[ "$(failures)" = 0x0 ]
	(umask 077 && echo 4321 >"$PIN")
	run -2 qs cryptopenall --test --pin-file "$PIN"
	[[ $output == *'the PIN is wrong'* ]]
	[ "$(failures)" = 0x1 ]
	run -7 typed 4444 -- keystore verify
	[ "$(failures)" = 0x2 ]
	# Nobody is asked where a key file is at hand.
	cp "$BATS_TEST_TMPDIR/key1" "$(key_of 1)"
	run -0 typed -- cryptopen --test "${ID}1"
	[ "$(failures)" = 0x2 ]
}

@test "enabling that fails leaves nothing behind" {
	run -6 qs --yes keystore enable --provider tpm2 --pcrs 16
	[[ $output == *'nothing has been measured into PCR 16'* ]]
	[ ! -e "$KEYSTORE" ]
	run -2 qs --yes keystore enable --provider tpm2 --pin
	[[ $output == *'needs its PIN'* ]]
	run -64 qs --yes keystore enable --pcrs 7
	run -64 qs --yes keystore enable --provider tpm2 --pcrs 7,x
	run -64 qs keystore status --pcrs 7
	# A storage root key that has a copy elsewhere.
	tpm2_createprimary -Q -C o -G ecc256:aes128cfb -c "$TPM/other.ctx" \
		-a 'restricted|decrypt|sensitivedataorigin|userwithauth'
	tpm2_evictcontrol -Q -C o -c "$TPM/other.ctx" 0x81000001
	"$SWTPM" flush "$TPM"
	run -2 qs --yes keystore enable --provider tpm2
	[[ $output == *'not one that never leaves the TPM'* ]]
	"$SWTPM" stop "$TPM"
	run -2 qs --yes keystore enable --provider tpm2
	[[ $output == *'cannot reach the TPM'* ]]
	printf 'tpm2_device = "none";\n' >"$ROOT/etc/cryptconf/qs-util.conf"
	run -2 qs --yes keystore enable --provider tpm2
	[ ! -e "$KEYSTORE" ]
	[ ! -e "$ROOT/etc/cryptconf/keystore.json" ]
}

@test "a sealed file that is not ours or not private is a sentence, and the TPM is not asked" {
	enrolled 1
	local good
	good=$(<"$SEALED")
	use_tpm "$TPM/nowhere"
	chmod 0644 "$SEALED"
	refused 2 'group or others'
	chmod 0600 "$SEALED"
	printf '%s' "${good:0:300}" >"$SEALED"
	refused 78 'its text is malformed'
	attempt()
	{
		jq -c "$1 | del(.sum)" <<<"$good" >"$SEALED"
		refused 78 "$2"
	}
	attempt '.version = 2' 'its version'
	attempt '.store = "00000000-0000-4000-8000-000000000000"' 'another keystore'
	attempt '.generation = 2' 'another generation'
	attempt '.sealed."tpm2-blob" |= .[:-8]' 'tpm2-blob'
	attempt '.sealed."tpm2-policy-hash" |= ("00" + .[2:])' 'tpm2-blob'
	attempt '.sealed."tpm2-pin" = true' 'not what we seal'
	attempt '.sealed.tpm2_srk |= ("gQAAAg" + .[6:])' 'not what we seal'
	attempt '.sealed.more = 1' 'other fields'
	rm "$SEALED"
	refused 2 'does not exist'
	run -0 --separate-stderr qs --json keystore status
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[[ $(jq -r '.result.generations[0].tpm2.problem' <<<"$output") == *'does not exist'* ]]
	use_tpm "$TPM/s"
	(umask 077 && printf '%s' "$good" >"$SEALED")
	run -0 qs cryptopen --test "${ID}1"
	# One bit of the object's private part: the TPM refuses it.
	jq -c '.sealed."tpm2-blob" |= (.[:40] + (if .[40:41] == "A" then "B" else "A" end) + .[41:])' <<<"$good" >"$SEALED"
	refused 78 'remove its member "sum"'
	jq -c 'del(.sum)' "$SEALED" >"$BATS_TEST_TMPDIR/edited"
	cat "$BATS_TEST_TMPDIR/edited" >"$SEALED"
	refused 2 'sealed by another TPM'
	run -7 qs keystore verify
}

@test "what is sealed in the TPM goes to an escrow all the same" {
	enrolled 1 --pin-file "$PIN"
	openssl genrsa -out "$BATS_TEST_TMPDIR/rsa" 3072 2>/dev/null
	openssl rsa -in "$BATS_TEST_TMPDIR/rsa" -pubout -out "$BATS_TEST_TMPDIR/pub" 2>/dev/null
	qs keystore export --public-key "$BATS_TEST_TMPDIR/pub" --output "$BATS_TEST_TMPDIR/kek" --pin-file "$PIN"
	openssl pkeyutl -decrypt -inkey "$BATS_TEST_TMPDIR/rsa" -in "$BATS_TEST_TMPDIR/kek" -out "$BATS_TEST_TMPDIR/jwk" \
		-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256
	cryptsetup luksDump --dump-json-metadata "$(image_of 1)" |
		jq -c '.tokens[] | select(.type == "qs-keystore") | .jwe' >"$BATS_TEST_TMPDIR/jwe"
	jose jwe dec -i "$BATS_TEST_TMPDIR/jwe" -k "$BATS_TEST_TMPDIR/jwk" |
		cryptsetup open --test-passphrase --key-file - --keyfile-size 64 "$(image_of 1)"
}

@test "rotated: the next generation is bound as the last one, and each is unsealed once" {
	enrolled 2 --pin-file "$PIN" --pcrs 2+7
	counted 2 keystore rotate --force --pin-file "$PIN"
	[ "$(jq -c '[.generation, .sealed."tpm2-pcrs", .sealed."tpm2-pin"]' "$KEYSTORE/2.sealed")" = '[2,[2,7],true]' ]
	[ "$(jq -c '.current' "$KEYSTORE/keystore.json")" = 2 ]
	counted 1 cryptopenall --test --pin-file "$PIN"
	run -0 qs keystore verify --pin-file "$PIN"
	run -0 qs keystore status
	[[ $output == *'; TPM, PCR 2+7, PIN'* ]]
	# A wrong PIN makes no generation that nobody could open.
	(umask 077 && echo 4321 >"$PIN.wrong")
	before=$(sum "$KEYSTORE/keystore.json")
	run ! qs keystore rotate --force --pin-file "$PIN.wrong"
	[[ $output == *'the PIN is wrong'* ]]
	[ ! -e "$KEYSTORE/3.sealed" ]
	run -0 qs cryptopenall --test --pin-file "$PIN"
	qs keystore rotate --force --pin-file "$PIN"
	[ "$(jq -c '.current' "$KEYSTORE/keystore.json")" = 3 ]
	# The one before the last is erased.
	[ ! -e "$SEALED" ]
	# By itself it waits for nobody, and says what to do.
	qs keystore schedule 1D
	jq '.generations[].created = "2026-01-01T00:00:00Z" | .schedule.since = .generations[0].created | del(.sum)' \
		"$KEYSTORE/keystore.json" >"$BATS_TEST_TMPDIR/aged"
	cat "$BATS_TEST_TMPDIR/aged" >"$KEYSTORE/keystore.json"
	run -2 typed -- keystore rotate --if-due
	[[ $output == *'needs its PIN'*'qs-util keystore rotate'*'asks for it'* ]]
	[[ $(qs --json keystore status | jq -r .result.last_error.message) == *'asks for it' ]]
	run -0 qs keystore rotate --if-due --pin-file "$PIN"
}
