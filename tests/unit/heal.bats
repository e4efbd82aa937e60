#!/usr/bin/env bats
# tpm2_self_heal: which TPM2 keyslots are sealed anew after another key has opened the
# device, and which never. Nothing can be opened here: mkhealed begins where cryptopen
# has done so. tests/guest/units.bats does it with a kernel.

# shellcheck disable=SC2154 # run sets stderr
load tree
load tpm2

setup()
{
	make_tpm_tree "${ID}1"
	use_tpm "$TPM/s" 'tpm2_self_heal = true;'
}

teardown()
{
	drop_tpm
}

heal()
{
	"$QS_BUILD/tests/unit/mkhealed" "$ROOT" "$IMAGE" "${ID}1" enc-scsi-30001
}

# left_alone: nothing is written, and nothing done.
left_alone()
{
	local before
	before=$(sum "$IMAGE")
	run -0 --separate-stderr heal
	[ "$output" = '{"keyslot":0}' ]
	[ "$(sum "$IMAGE")" = "$before" ]
}

kinds()
{
	qs --json cryptenroll --list "${ID}1" | jq -c '[.devices[0].keyslots[] | [.kind, .tpm2.problem]]'
}

@test "a PCR moved: sealed anew, the old keyslot gone, the backup refreshed, said why" {
	qs cryptenroll "${ID}1" --tpm2
	qs cryptenroll "${ID}1" --tpm2 --pcrs 0+2 --bank sha384
	"$SWTPM" measure "$TPM" update 7 2
	run -0 --separate-stderr heal
	[ "$output" = '{"keyslot":0,"tpm2_healed":1}' ]
	[[ $stderr == *'enc-scsi-30001: its TPM2 keyslot was sealed anew: PCR 7'*'sealed anew: PCR 2'* ]]
	[ "$(kinds)" = '[["key-file",null],["tpm2",null],["tpm2",null]]' ]
	run -0 qs cryptenroll --test --tpm2 "${ID}1"
	cmp <(head -c 256K "$IMAGE") <(head -c 256K "$(backup_of 1)")
	left_alone
}

@test "off by default" {
	qs cryptenroll "${ID}1" --tpm2
	"$SWTPM" measure "$TPM" update 7
	use_tpm "$TPM/s"
	left_alone
}

@test "a PIN cannot heal, nor a keyslot that opens, nor one of no PCR" {
	printf '1234\n' >"$BATS_TEST_TMPDIR/pin"
	chmod 0400 "$BATS_TEST_TMPDIR/pin"
	qs cryptenroll "${ID}1" --tpm2 --pin-file "$BATS_TEST_TMPDIR/pin"
	qs cryptenroll "${ID}1" --tpm2 --pcrs none
	qs cryptenroll "${ID}1" --tpm2 --pcrs 0
	"$SWTPM" measure "$TPM" update 7
	left_alone
	[ "$(failures)" = 0x0 ]
}

@test "another TPM's keyslot stays as it is, whatever the PCRs are" {
	qs cryptenroll "${ID}1" --tpm2
	drop_tpm
	make_tpm
	use_tpm "$TPM/s" 'tpm2_self_heal = true;'
	"$SWTPM" measure "$TPM" update 7
	left_alone
}

@test "what our own boot path closed has not moved" {
	qs cryptenroll "${ID}1" --tpm2
	sed -i "\|${ID}1 |s|luks.*|luks,initramfs|" "$ROOT/etc/crypttab"
	run qs cryptopenall --early
	left_alone
}

@test "an old header that was put back is not made current" {
	qs cryptenroll "${ID}1" --tpm2
	cp "$IMAGE" "$BATS_TEST_TMPDIR/old"
	qs cryptenroll "${ID}1" --recovery-key "$BATS_TEST_TMPDIR/recovery"
	cp "$BATS_TEST_TMPDIR/old" "$IMAGE"
	"$SWTPM" measure "$TPM" update 7
	left_alone
}

@test "PCRs into which nothing is measured any more are refused, with a warning" {
	qs cryptenroll "${ID}1" --tpm2
	"$SWTPM" stop "$TPM"
	"$SWTPM" start "$TPM" ''
	left_alone
	[[ $stderr == *'could not be sealed anew: nothing has been measured into PCR 7'* ]]
}
