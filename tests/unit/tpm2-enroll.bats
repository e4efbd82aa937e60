#!/usr/bin/env bats
# cryptenroll --tpm2: what it writes opens with stock tools, replaces what it
# should and nothing else, and leaves the header alone when the TPM does not play.

load tree
load tpm2

setup()
{
	make_tpm_tree "${ID}1"
	PIN=$BATS_TEST_TMPDIR/pin
	(umask 077 && echo 1234 >"$PIN")
}

teardown()
{
	drop_tpm
}

# The TPM2 tokens of the header, one a line.
tokens()
{
	cryptsetup luksDump --dump-json-metadata "$IMAGE" |
		jq -c '.tokens[] | select(.type == "systemd-tpm2")'
}

@test "enrolled: opens by the TPM, the header backup has it, the key file still opens" {
	run -0 --separate-stderr qs --json cryptenroll "${ID}1" --tpm2
	[ "$(field '.keyslot, .kind')" = $'1\ntpm2' ]
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	[ "$(field '.keyslot')" = 1 ]
	stock_opens "$IMAGE" "$(key_of 1)"
	cmp <(head -c 256K "$IMAGE") <(head -c 256K "$(backup_of 1)")
	[ "$(tokens | jq -c '[.["tpm2-pcrs"], .["tpm2-pcr-bank"], .["tpm2-pin"], .keyslots]')" = '[[7],"sha256",false,["1"]]' ]
	cryptsetup luksDump "$IMAGE" | grep -A2 '^  1: luks2' | grep -q 'Key:.*512'
}

@test "no PCR, other PCRs, another bank, a PIN" {
	run -0 qs cryptenroll "${ID}1" --tpm2 --pcrs none
	run -0 qs cryptenroll "${ID}1" --tpm2 --pcrs 0+2 --bank sha384
	run -0 qs cryptenroll "${ID}1" --tpm2 --pcrs 0,7 --pin-file "$PIN"
	[ "$(tokens | jq -c '[.["tpm2-pcrs"], .["tpm2-pcr-bank"], .["tpm2-pin"]]')" = '[[],null,false]
[[0,2],"sha384",false]
[[0,7],"sha256",true]' ]
	run -0 --separate-stderr qs --json cryptenroll "${ID}1" --list
	[ "$(field '.keyslots[1:] | map([.kind, .tpm2.pcrs, .tpm2.pin]) | tojson')" = \
		'[["tpm2","",false],["tpm2","0+2",false],["tpm2","0+7",true]]' ]
	[ "$(field '.keyslots[] | select(.tpm2.problem) | length')" = '' ]
	[ "$(field '.tpm.failures')" = 0 ]
}

@test "enrolled again after an update: one keyslot, the new one; another policy stays" {
	qs cryptenroll "${ID}1" --tpm2
	qs cryptenroll "${ID}1" --tpm2 --pcrs none --pin-file "$PIN"
	before=$(tokens | sed -n 2p)
	"$SWTPM" measure "$TPM" update 7
	run -0 qs cryptenroll "${ID}1" --list
	[[ $output == *'not by the TPM: PCR 7 (Secure Boot keys and state) changed since'* ]]
	run -2 qs cryptenroll "${ID}1" --test --tpm2
	run -0 --separate-stderr qs --json cryptenroll "${ID}1" --tpm2
	[ "$(field '.wiped | tojson')" = '[1]' ]
	[ "$(tokens | wc -l)" -eq 2 ]
	tokens | grep -qF "$before"
	run -0 --separate-stderr qs --json cryptenroll "${ID}1" --test --tpm2
	[ "$(field .kind)" = tpm2 ]
}

@test "revoked: the token goes with its keyslot, and the TPM opens it no more" {
	qs cryptenroll "${ID}1" --tpm2
	run -0 qs --yes cryptenroll "${ID}1" --wipe tpm2
	[ -z "$(tokens)" ]
	run -2 qs cryptenroll "${ID}1" --test --tpm2
	[[ $output == *'no TPM2 keyslot'* ]]
	run -0 qs cryptopen --test "${ID}1"
}

@test "the TPM is not left the only way, unless forced: 6" {
	qs cryptenroll "${ID}1" --tpm2
	run -6 qs --yes cryptenroll "${ID}1" --wipe 0
	rm "$(key_of 1)"
	run -6 qs --yes cryptenroll "${ID}1" --wipe 0
	[[ $output == *'only way'* ]]
	run -0 qs --yes cryptenroll "${ID}1" --wipe 0 --force
	run -0 qs cryptopen --test "${ID}1"
}

@test "a device that only the TPM opens at hand gets another way" {
	qs cryptenroll "${ID}1" --tpm2
	rm "$(key_of 1)"
	echo 'open sesame' >"$BATS_TEST_TMPDIR/new"
	chmod 0400 "$BATS_TEST_TMPDIR/new"
	run -0 qs cryptenroll "${ID}1" --passphrase-file "$BATS_TEST_TMPDIR/new"
	printf 'open sesame' | cryptsetup open --test-passphrase --key-file - "$IMAGE"
}

@test "what cannot be sealed leaves the header as it was" {
	before=$(sum "$IMAGE")
	run -6 qs cryptenroll "${ID}1" --tpm2 --pcrs 7+8
	[[ $output == *'PCR 8'* ]]
	run -64 qs cryptenroll "${ID}1" --tpm2 --pcrs 24
	run -64 qs cryptenroll "${ID}1" --pcrs 7 --key-file "$(key_of 1)"
	run -64 qs cryptenroll "${ID}1" --tpm2 --passphrase
	run -64 qs cryptenroll "${ID}1" --tpm2 --public-key-pcrs 11
	echo 403 >"$PIN" # its SHA-256 ends in a zero byte
	run -2 qs cryptenroll "${ID}1" --tpm2 --pin-file "$PIN"
	[[ $output == *'choose another one'* ]]
	use_tpm "$TPM/nobody"
	run -2 qs cryptenroll "${ID}1" --tpm2
	[ "$(sum "$IMAGE")" = "$before" ]
}

@test "a TPM that does not give back what it sealed: nothing is written" {
	before=$(sum "$IMAGE")
	"$SWTPM" proxy "$TPM" garbage
	use_tpm "$TPM/p"
	run -2 qs cryptenroll "${ID}1" --tpm2
	[[ $output == *'cannot be unsealed again'* ]]
	[ "$(sum "$IMAGE")" = "$before" ]
	[ -z "$(tokens)" ]
}

@test "a TPM that never answers: killed at the deadline, nothing is written" {
	before=$(sum "$IMAGE")
	"$SWTPM" proxy "$TPM" never
	use_tpm "$TPM/p" 'tpm2_deadline = 1;'
	run -1 qs cryptenroll "${ID}1" --tpm2
	[[ $output == *'did not answer within 1 second'* ]]
	[ "$(sum "$IMAGE")" = "$before" ]
	[ -z "$(tokens)" ]
}

@test "three devices, one session of the TPM; one that fails has a result of its own: 7" {
	make_tree 3
	qs cryptformat --no-open "${ID}2" "${ID}3"
	"$SWTPM" proxy "$TPM" count
	use_tpm "$TPM/p"
	run -0 --separate-stderr qs --json cryptenroll "${ID}1" "${ID}2" "${ID}3" --tpm2
	[ "$(jq -c '[.devices[].keyslot]' <<<"$output")" = '[1,1,1]' ]
	[ "$(grep -c 0x131 "$TPM/commands")" -eq 1 ] # CreatePrimary
	[ "$(grep -c 0x176 "$TPM/commands")" -eq 2 ] # StartAuthSession
	[ "$(grep -c 0x153 "$TPM/commands")" -ge 3 ] # Create: no secret is shared
	[ "$(grep -c 0x15e "$TPM/commands")" -eq 3 ] # Unseal
	run -0 --separate-stderr qs --json cryptopenall --test
	[ "$(jq -c '[.devices[].keyslot]' <<<"$output")" = '[1,1,1]' ]
	rm "$(key_of 2)"
	run -7 --separate-stderr qs --json cryptenroll "${ID}3" /dev/nothing "${ID}1" "${ID}3" --tpm2 --pcrs 0
	[ "$(jq -c '[.devices[] | .error.code // .keyslot]' <<<"$output")" = '[2,"no-device",2,"usage"]' ]
	run -0 qs --yes cryptenroll "${ID}1" "${ID}3" --wipe tpm2
	run -0 --separate-stderr qs --json cryptopenall --test # nothing but the TPM is left for the second
	[ "$(jq -c '[.devices[].keyslot]' <<<"$output")" = '[0,1,0]' ]
}

@test "a device that has no other way than the TPM is not enrolled, unless forced: 6" {
	qs cryptenroll "${ID}1" --tpm2
	rm "$(key_of 1)"
	qs --yes cryptenroll "${ID}1" --wipe 0 --force
	before=$(sum "$IMAGE")
	run -6 qs cryptenroll "${ID}1" --tpm2 --pcrs none
	[[ $output == *'only way'* ]]
	[ "$(sum "$IMAGE")" = "$before" ]
	run -0 qs cryptenroll "${ID}1" --tpm2 --force
	[ "$(tokens | wc -l)" -eq 1 ]
}

@test "PCRs that mean nothing, with --force" {
	run -0 qs cryptenroll "${ID}1" --tpm2 --pcrs 8 --force
	run -0 qs cryptenroll "${ID}1" --test --tpm2
}

@test "a signed policy: unsealed with the signature file where systemd looks for it" {
	local dir=$BATS_TEST_TMPDIR
	make_signer "$dir"
	run -2 qs cryptenroll "${ID}1" --tpm2 --public-key "$dir/pub.pem"
	[[ $output == *'no file of PCR signatures'* ]]
	[ -z "$(tokens)" ]
	sign_state "$dir"
	run -0 qs cryptenroll "${ID}1" --tpm2 --public-key "$dir/pub.pem"
	[ "$(tokens | jq -c '[.["tpm2-pcrs"], .tpm2_pubkey_pcrs]')" = '[[],[11]]' ]
	run -0 qs cryptenroll "${ID}1" --test --tpm2
	"$SWTPM" measure "$TPM" ready 11
	run -2 qs cryptenroll "${ID}1" --test --tpm2
	[[ $output == *'PCR 11'* ]]
}

@test "neither PIN nor passphrase is in argv, environment, JSON, or a file" {
	printf 'S3cr3t-P1N' >"$PIN"
	run -0 strace -f -qq -s 4096 -e trace=execve,write,pwrite64,sendto,openat -o "$BATS_TEST_TMPDIR/trace" \
		env ASAN_OPTIONS=detect_leaks=0 "$QS_UTIL" --root="$ROOT" --json cryptenroll "${ID}1" --tpm2 --pin-file "$PIN"
	grep -q sendto "$BATS_TEST_TMPDIR/trace"
	# The type of a token names a plugin of libcryptsetup; a header must not choose what code runs.
	grep -q 'openat.*tpm2\.so' "$BATS_TEST_TMPDIR/trace"
	run ! grep -q libcryptsetup-token "$BATS_TEST_TMPDIR/trace"
	run ! grep -F 'S3cr3t-P1N' "$BATS_TEST_TMPDIR/trace"
	run ! grep -rF 'S3cr3t-P1N' "$ROOT"
}
