#!/usr/bin/env bats
# What is said of TPM2 keyslots without opening anything: would the TPM open them,
# which PCR moved, how near is the lockout; and keyslots after the TPM's way was closed.

load tree
load tpm2

setup()
{
	make_tpm_tree "${ID}1" "${ID}2"
}

teardown()
{
	drop_tpm
}

# The TPM's other life: PCRs as after a restart.
restart_tpm()
{
	"$SWTPM" stop "$TPM"
	"$SWTPM" start "$TPM" ''
	"$SWTPM" measure "$TPM" booted 0 2 7 11
}

@test "cryptstatus: opens now; then the PCR that moved is named, nothing counted or written" {
	qs cryptenroll "${ID}1" --tpm2 --pcrs 0+7
	before=$(sum "$IMAGE")
	run -0 --separate-stderr qs --json cryptstatus "${ID}1"
	[ "$(field '.keyslots[1].tpm2 | tojson')" = '{"pcrs":"0+7","bank":"sha256","pin":false,"signed":false}' ]
	[ "$(field '.tpm | tojson')" = '{"failures":0,"limit":32,"locked":false}' ]
	"$SWTPM" measure "$TPM" update 7
	run -0 --separate-stderr qs --json cryptstatus "${ID}1"
	[ "$(field '.keyslots[1].tpm2.moved')" = 7 ]
	[[ $(field '.keyslots[1].tpm2.problem') == 'PCR 7 (Secure Boot'* ]]
	run -0 --separate-stderr qs --json cryptenroll --list "${ID}1"
	[ "$(field '.keyslots[1].tpm2.moved')" = 7 ]
	run -0 qs cryptstatus "${ID}1"
	[[ $output == *'PCR 0+7, not now: PCR 7'* ]]
	[[ $output == *'0 of 32 failures'* ]]
	[ "$(failures)" = 0x0 ]
	[ "$(sum "$IMAGE")" = "$before" ]
}

@test "cryptstatus of many asks the TPM once, and of none with such a keyslot not at all" {
	"$SWTPM" proxy "$TPM" count
	use_tpm "$TPM/p"
	run -0 qs cryptstatus "${ID}1" "${ID}2"
	[ ! -s "$TPM/commands" ]
	qs cryptenroll "${ID}1" "${ID}2" --tpm2
	: >"$TPM/commands"
	run -0 --separate-stderr qs --json cryptstatus
	[ "$(jq -c '[.devices[].keyslots[1].tpm2.pcrs]' <<<"$output")" = '["7","7"]' ]
	[ "$(grep -c 0x131 "$TPM/commands")" -eq 1 ] # CreatePrimary
	run ! grep 0x15e "$TPM/commands"             # Unseal
}

@test "a lockout counter above half is warned of; a TPM that is gone is said to be" {
	printf '1234\n' >"$BATS_TEST_TMPDIR/pin"
	printf '4321\n' >"$BATS_TEST_TMPDIR/wrong"
	chmod 0400 "$BATS_TEST_TMPDIR"/{pin,wrong}
	qs cryptenroll "${ID}1" --tpm2 --pin-file "$BATS_TEST_TMPDIR/pin"
	TPM2TOOLS_TCTI=swtpm:path=$TPM/s tpm2_dictionarylockout -s -n 3 -t 1000 -l 1000
	qs cryptopen --test --pin-file "$BATS_TEST_TMPDIR/wrong" "${ID}1"
	run -0 qs cryptstatus "${ID}1"
	[[ $output != *'locks itself'* ]]
	qs cryptopen --test --pin-file "$BATS_TEST_TMPDIR/wrong" "${ID}1"
	run -0 qs cryptstatus "${ID}1"
	[[ $output == *'warning: the TPM has counted 2 of 3 failures'* ]]
	"$SWTPM" crash "$TPM"
	run -0 --separate-stderr qs --json cryptstatus "${ID}1"
	[[ $(field '.keyslots[1].tpm2.problem') == *'cannot reach the TPM'* ]]
	echo 'tpm2_device = "none";' >"$ROOT/etc/cryptconf/qs-util.conf"
	run -0 --separate-stderr qs --json cryptstatus "${ID}1"
	[[ $(field '.keyslots[1].tpm2.problem') == *'no TPM'* ]]
}

@test "closed after the boot: said as such, and enrolled again for the next start, not for now" {
	qs cryptenroll "${ID}1" --tpm2
	sed -i "\|${ID}1 |s|luks.*|luks,initramfs|" "$ROOT/etc/crypttab"
	run qs cryptopenall --early
	run qs cryptopenall --early # a second closing
	run -0 --separate-stderr qs --json cryptstatus "${ID}1"
	[ "$(field '.keyslots[1].tpm2 | .closed, .moved')" = $'true\nnull' ]
	run -0 qs cryptenroll "${ID}1" "${ID}2" --tpm2
	run -0 --separate-stderr qs --json cryptstatus "${ID}1" "${ID}2"
	[ "$(jq -c '[.devices[].keyslots[] | .tpm2.closed // empty]' <<<"$output")" = '[true,true]' ]
	run -2 qs cryptenroll --test --tpm2 "${ID}1"
	# A measurement of somebody else's on top: nobody knows what the next start will have.
	"$SWTPM" measure "$TPM" update 7
	run -0 --separate-stderr qs --json cryptstatus "${ID}1"
	[ "$(field '.keyslots[1].tpm2 | .closed, .moved')" = $'null\n7' ]
	restart_tpm
	rm -r "$ROOT/run/qs-util"
	run -0 qs cryptenroll --test --tpm2 "${ID}1"
	run -0 qs cryptenroll --test --tpm2 "${ID}2"
}

@test "a signed policy whose PCR was closed: enrolled by the signature for the next start, or not at all" {
	local dir=$BATS_TEST_TMPDIR file=$ROOT/etc/systemd/tpm2-pcr-signature.json
	make_signer "$dir"
	sign_state "$dir"
	cp "$file" "$dir/good"
	run -0 qs cryptenroll "${ID}1" --tpm2 --public-key "$dir/pub.pem"
	sed -i "\|${ID}1 |s|luks.*|luks,initramfs|" "$ROOT/etc/crypttab"
	run qs cryptopenall --early
	run -2 qs cryptenroll --test --tpm2 "${ID}1"
	run -0 --separate-stderr qs --json cryptstatus "${ID}1"
	[ "$(field '.keyslots[1].tpm2.closed')" = true ]
	run -0 qs cryptenroll "${ID}1" "${ID}2" --tpm2 --public-key "$dir/pub.pem"
	# No signature at all; one for the closed value, which no start has; one that is none.
	rm "$file"
	run -2 qs cryptenroll "${ID}2" --tpm2 --public-key "$dir/pub.pem"
	[[ $output == *'no file of PCR signatures'* ]]
	sign_state "$dir"
	run -2 qs cryptenroll "${ID}2" --tpm2 --public-key "$dir/pub.pem"
	[[ $output == *'the file of PCR signatures has none'* ]]
	jq -c '.sha256[0].sig = "AAAA"' <"$dir/good" >"$file"
	run -2 qs cryptenroll "${ID}2" --tpm2 --public-key "$dir/pub.pem"
	cp "$dir/good" "$file"
	restart_tpm
	rm -r "$ROOT/run/qs-util"
	run -0 qs cryptenroll --test --tpm2 "${ID}1"
	run -0 qs cryptenroll --test --tpm2 "${ID}2"
}
