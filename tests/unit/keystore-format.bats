#!/usr/bin/env bats
# cryptformat while the keystore is enabled: no key file, the wrapped key in the header, and nothing
# touched where the keystore cannot wrap.

load tree
load tpm2

setup()
{
	make_tree 3
	KEYSTORE=$ROOT/etc/cryptconf/keystore
}

metadata()
{
	cryptsetup luksDump --dump-json-metadata "$1"
}

untouched()
{
	cmp -n 67108864 "$(image_of "$1")" /dev/zero
	[ ! -e "$(backup_of "$1")" ] && [ ! -e "$ROOT/etc/cryptconf/pending/enc-scsi-3000$1.json" ]
}

# stock_opens_keyless N: by what the token holds, with jose, openssl's bytes of the KEK and cryptsetup.
stock_opens_keyless()
{
	local jwk=$BATS_TEST_TMPDIR/jwk jwe=$BATS_TEST_TMPDIR/jwe key=$BATS_TEST_TMPDIR/unwrapped
	printf '{"kty":"oct","alg":"A256GCMKW","k":"%s"}' \
		"$(base64 -w0 "$KEYSTORE/1.kek" | tr '+/' '-_' | tr -d =)" >"$jwk"
	metadata "$1" | jq -c '.tokens[] | select(.type == "qs-keystore") | .jwe' >"$jwe"
	jose jwe dec -i "$jwe" -k "$jwk" | head -c 64 >"$key"
	stock_opens "$1" "$key"
}

@test "what it makes, as stock tools see it" {
	qs --yes keystore enable
	run -0 qs --json cryptformat --no-open "$ID"1 "$ID"2
	jq -e '[.devices[].keystore_generation] == [1, 1]' <<<"$output"
	[ -z "$(ls -A "$ROOT/etc/cryptconf/keys" 2>/dev/null)" ]
	[ -z "$(ls -A "$ROOT/etc/cryptconf/pending")" ]
	for n in 1 2; do
		stock_opens_keyless "$(image_of $n)"
		stock_opens_keyless "$(backup_of $n)"
		cmp -n 4456448 "$(backup_of $n)" "$(image_of $n)"
		metadata "$(image_of $n)" | jq -e '(.keyslots | length == 1) and (.tokens | length == 1)'
		grep -qx "enc-scsi-3000$n  $ID$n  none  luks,noauto" "$ROOT/etc/crypttab"
	done
	qs cryptopen --test "$ID"1
	qs keystore verify
	run -5 qs cryptformat --no-open "$ID"1
	[[ "$output" == *'formatted already'* ]]
	# A key of one device is no key of the other.
	run ! cmp -s <(metadata "$(image_of 1)" | jq .tokens) <(metadata "$(image_of 2)" | jq .tokens)
}

@test "a key file goes before it: given, asked for, or from the key command" {
	qs --yes keystore enable
	new_key "$BATS_TEST_TMPDIR/key"
	qs cryptformat --no-open --key-file "$BATS_TEST_TMPDIR/key" "$ID"1
	stock_opens "$(image_of 1)" "$BATS_TEST_TMPDIR/key"
	qs cryptformat --no-open --key-file-only "$ID"2
	stock_opens "$(image_of 2)" "$(key_of 2)"
	run -0 qs --json keystore status
	jq -e '.result.generations[0].devices == 0' <<<"$output"
}

@test "a keystore that cannot wrap: nothing is touched" {
	qs --yes keystore enable
	mv "$KEYSTORE/1.kek" "$BATS_TEST_TMPDIR"
	run -2 qs cryptformat --no-open "$ID"1
	[[ "$output" == *'the keystore wraps no key now'*'1.kek does not exist'* ]]
	untouched 1
	mv "$BATS_TEST_TMPDIR/1.kek" "$KEYSTORE"
	jq '.state = "disabling" | del(.sum)' "$KEYSTORE/keystore.json" >"$BATS_TEST_TMPDIR/json"
	cat "$BATS_TEST_TMPDIR/json" >"$KEYSTORE/keystore.json"
	run -1 qs cryptformat --no-open "$ID"1
	[[ "$output" == *'is being disabled'*'--key-file-only'* ]]
	exec {lock}>"$ROOT/run/qs-util/keystore.lock"
	flock "$lock"
	printf 'lock_wait = 1;\n' >"$ROOT/etc/cryptconf/qs-util.conf"
	run -5 qs cryptformat --no-open "$ID"1
	exec {lock}>&-
	untouched 1
}

@test "an unfinished format goes on with the kind of key that it began with" {
	qs --yes keystore enable
	printf '{"version":1,"op":"format","uuid":"%s","device":"%s","key_file":"keystore"}' \
		"$(cat /proc/sys/kernel/random/uuid)" "$ID"1 >"$BATS_TEST_TMPDIR/journal"
	mkdir -p "$ROOT/etc/cryptconf/pending"
	cat "$BATS_TEST_TMPDIR/journal" >"$ROOT/etc/cryptconf/pending/enc-scsi-30001.json"
	run -6 qs cryptformat --no-open --key-file-only "$ID"1
	[[ "$output" == *'used the keystore'* ]]
	sed "s|\"keystore\"|\"/etc/cryptconf/keys/enc-scsi-30002.key\"|; s|${ID}1|${ID}2|" \
		"$BATS_TEST_TMPDIR/journal" >"$ROOT/etc/cryptconf/pending/enc-scsi-30002.json"
	run -6 qs cryptformat --no-open "$ID"2
	[[ "$output" == *'finish it with --key-file-only'* ]]
	qs cryptformat --no-open --key-file-only "$ID"2
	stock_opens "$(image_of 2)" "$(key_of 2)"
	qs cryptformat --no-open "$ID"1
	stock_opens_keyless "$(image_of 1)"
}

@test "the TPM gives its key once, however many devices are formatted" {
	make_tpm
	qs --yes keystore enable --provider tpm2
	"$SWTPM" proxy "$TPM" count
	use_tpm "$TPM/p"
	qs cryptformat --no-open "$ID"1 "$ID"2 "$ID"3
	use_tpm "$TPM/s"
	[ "$(grep -c '^0x15e$' "$TPM/commands")" = 1 ]
	qs keystore verify
	printf 'tpm2_device = "none";\n' >"$ROOT/etc/cryptconf/qs-util.conf"
	truncate -s 0 "$(image_of 3)"
	truncate -s 64M "$(image_of 3)"
	rm "$(backup_of 3)"
	run ! qs cryptformat --no-open "$ID"3
	[[ "$output" == *'the keystore wraps no key now'*'the TPM is not used'* ]]
	untouched 3
	drop_tpm
}

@test "opening derives a keyslot once: its identity is checked, and that is the proof" {
	qs --yes keystore enable
	qs cryptformat --no-open "$ID"1
	# The first keyslot's area lies behind two copies of 128 KiB; each derivation reads it.
	ASAN_OPTIONS=detect_leaks=0 strace -f -qq -y -e trace=lseek -o "$BATS_TEST_TMPDIR/trace" "$QS_UTIL" --root="$ROOT" cryptopen --test "$ID"1
	[ "$(grep -c '/img/d1>, 262144, SEEK_SET' "$BATS_TEST_TMPDIR/trace")" = 1 ]
}
