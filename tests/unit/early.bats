#!/usr/bin/env bats
# cryptopenall --early: what an initramfs opens and what it says of the rest, and that the TPM's
# way is closed afterwards. Nothing can be mapped here; tests/boot boots with it.

load tree
load tpm2

# The host has no device-mapper, so that a device whose key fits is "failed" in the report.
setup()
{
	make_tree 3
	make_tpm
	qs cryptformat --no-open "${ID}1"
	early 1
}

teardown()
{
	drop_tpm
}

# early N [OPTION]: the initramfs opens disk N.
early()
{
	sed -i "\|${ID}$1 |s|luks.*|luks,${2-initramfs}|" "$ROOT/etc/crypttab"
}

report()
{
	cat "$ROOT/run/qs-util/early"
}

@test "only lines with initramfs or x-initrd.attach, and no key that is not theirs" {
	qs cryptformat --no-open "${ID}2" "${ID}3"
	early 2 x-initrd.attach,nofail
	run -0 --separate-stderr qs --json cryptopenall --early --test
	[ "$(jq -c '[.devices[].name]' <<<"$output")" = '["enc-scsi-30001","enc-scsi-30002"]' ]
	[ ! -e "$ROOT/run/qs-util/early" ]
	early 1 initramfs,header=/x
	run -0 --separate-stderr qs --json cryptopenall --early --test
	[ "$(jq -c '[.devices[].name]' <<<"$output")" = '["enc-scsi-30002"]' ]
}

@test "--early, --boot and --bundle exclude each other: 64" {
	run -64 qs cryptopenall --early --boot
	run -64 qs cryptopenall --early --bundle x
}

@test "the TPM opens, and afterwards no longer: the PCR of the policy is closed" {
	systemd_enroll 1 --tpm2-pcrs=7
	qs cryptbackup "${ID}1"
	rm "$(key_of 1)"
	run -0 --separate-stderr qs --json cryptopenall --early --test
	[ "$(jq -c '.devices[0].token' <<<"$output")" = 1 ]
	run -0 qs cryptopen --test "${ID}1" # --test closes nothing
	local before
	before=$(TPM2TOOLS_TCTI=swtpm:path=$TPM/s tpm2_pcrread sha256:7 | sed -n 's/.*0x//p')
	run qs cryptopenall --early
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'PCR 7'* ]]
	[ "$(jq -r .before.sha256.\"7\" "$ROOT/run/qs-util/tpm2-closed.json" | tr a-f A-F)" = "$before" ]
	# A second run records what the next boot will have, not what this one has now.
	run qs cryptopenall --early
	[ "$(jq -r .before.sha256.\"7\" "$ROOT/run/qs-util/tpm2-closed.json" | tr a-f A-F)" = "$before" ]
}

@test "every bank and no other PCR is extended" {
	systemd_enroll 1 --tpm2-pcrs=2+7
	qs cryptbackup "${ID}1"
	export TPM2TOOLS_TCTI=swtpm:path=$TPM/s
	tpm2_pcrread sha1:0,2,7,11+sha256:0,2,7,11+sha384:7 >"$BATS_TEST_TMPDIR/before"
	run qs cryptopenall --early
	tpm2_pcrread sha1:0,2,7,11+sha256:0,2,7,11+sha384:7 >"$BATS_TEST_TMPDIR/after"
	run diff "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/after"
	[ "$(grep -c '^> *7 *:' <<<"$output")" -eq 3 ]
	[ "$(grep -c '^>' <<<"$output")" -eq 3 ]
}

@test "closed on failure too: another state, no device at all, and tokens only in the backup" {
	systemd_enroll 1 --tpm2-pcrs=0
	qs cryptbackup "${ID}1"
	"$SWTPM" measure "$TPM" update 0
	run qs cryptopenall --early
	[[ $output == *'PCR 0'* ]]
	jq -e '.before.sha256."0"' "$ROOT/run/qs-util/tpm2-closed.json"
	rm -r "$ROOT/run/qs-util"
	cryptsetup token remove --token-id 1 "$(image_of 1)"
	run qs cryptopenall --early
	jq -e '.before.sha256."0"' "$ROOT/run/qs-util/tpm2-closed.json"
	rm -r "$ROOT/run/qs-util" "$ROOT${ID}1"
	echo 'early_wait = 0;' >>"$ROOT/etc/cryptconf/qs-util.conf"
	run qs cryptopenall --early
	jq -e '.before.sha256."0"' "$ROOT/run/qs-util/tpm2-closed.json"
	[ "$(report)" = "absent needed enc-scsi-30001 ${ID}1" ]
}

@test "a token that the header has and its backup does not is closed, too" {
	systemd_enroll 1 --tpm2-pcrs=0
	run qs cryptopenall --early
	[ "$(jq -c '.before.sha256 | keys' "$ROOT/run/qs-util/tpm2-closed.json")" = '["0"]' ]
	rm "$(key_of 1)"
	run -2 qs cryptopen --test "${ID}1"
}

@test "without a header backup the TPM is not asked, and PCR 7 closed" {
	systemd_enroll 1 --tpm2-pcrs=7
	rm -r "$ROOT/etc/cryptconf/headers" "$(key_of 1)"
	"$SWTPM" proxy "$TPM" count
	use_tpm "$TPM/p"
	run qs cryptopenall --early
	[[ $output == *'without a header backup'* ]]
	run ! grep -q 0x15e "$TPM/commands" # Unseal
	[ "$(report)" = "ask needed enc-scsi-30001 ${ID}1" ]
	use_tpm "$TPM/s"
	run -2 qs cryptopen --test "${ID}1"
}

@test "a keyslot that no PCR closes is not used: no PCR at all, or one that can be reset" {
	cp "$(image_of 1)" "$BATS_TEST_TMPDIR/good"
	cp "$(key_of 1)" "$BATS_TEST_TMPDIR/key1"
	systemd_enroll 1 --tpm2-pcrs=
	qs cryptbackup "${ID}1"
	rm "$(key_of 1)"
	run -2 qs cryptopenall --early --test
	[[ $output == *'stay open after the boot'* ]]
	run -0 qs cryptopen --test "${ID}1"
	cp "$BATS_TEST_TMPDIR/good" "$(image_of 1)"
	cp "$BATS_TEST_TMPDIR/key1" "$(key_of 1)"
	systemd_enroll 1 --tpm2-pcrs=16
	qs cryptbackup "${ID}1"
	rm "$(key_of 1)"
	run -2 qs cryptopenall --early --test
	[[ $output == *'stay open after the boot'* ]]
}

@test "a planted volume is refused, not asked for, whatever its keys: UUID, label and token ours" {
	systemd_enroll 1 --tpm2-pcrs=7
	qs cryptbackup "${ID}1"
	local uuid
	uuid=$(cryptsetup luksUUID "$(image_of 1)")
	cryptsetup token export --token-id 1 "$(image_of 1)" | jq -c '.keyslots=["0"]' >"$BATS_TEST_TMPDIR/token"
	echo evil >"$BATS_TEST_TMPDIR/evil"
	stock_format "$(image_of 1)" "$BATS_TEST_TMPDIR/evil" --uuid "$uuid" --label enc-scsi-30001 \
		--subsystem qs-util --luks2-metadata-size 128k
	cryptsetup token import --disable-external-tokens --json-file "$BATS_TEST_TMPDIR/token" "$(image_of 1)"
	rm "$(key_of 1)"
	run -6 qs cryptopenall --early
	[[ $output == *'volume key'* ]]
	[ "$(report)" = "refused needed enc-scsi-30001 ${ID}1" ]
	# LUKS1 of the same UUID has nothing that could be compared.
	stock_format "$(image_of 1)" "$BATS_TEST_TMPDIR/evil" --type luks1 --uuid "$uuid"
	run -6 qs cryptopenall --early
	[ "$(report)" = "refused needed enc-scsi-30001 ${ID}1" ]
}

@test "null ciphers of keyslot and segment, refused before a key is looked for" {
	rm "$(key_of 1)"
	cp "$(image_of 1)" "$BATS_TEST_TMPDIR/good"
	local attack
	for attack in null-cipher null-keyslot; do
		cp "$BATS_TEST_TMPDIR/good" "$(image_of 1)"
		"$QS_BUILD/tests/unit/mkheader" "$(image_of 1)" "$attack"
		run -6 qs cryptopenall --early
		[[ $output == *null* ]]
		[ "$(report)" = "refused needed enc-scsi-30001 ${ID}1" ]
	done
}

@test "no key: asked for; no header any more: failed; not there and nofail: absent" {
	qs cryptformat --no-open "${ID}2" "${ID}3"
	early 2
	early 3 initramfs,nofail
	rm "$(key_of 1)" "$(key_of 2)"
	cryptsetup luksErase -q "$(image_of 2)" 2>/dev/null
	dd if=/dev/zero of="$(image_of 2)" bs=1M count=8 conv=notrunc status=none
	rm "$ROOT${ID}3"
	run qs cryptopenall --early
	[ "$(report)" = "ask needed enc-scsi-30001 ${ID}1
failed needed enc-scsi-30002 ${ID}2
absent optional enc-scsi-30003 ${ID}3" ]
}

@test "a device that comes late is waited for" {
	rm "$(key_of 1)"
	mv "$ROOT${ID}1" "$BATS_TEST_TMPDIR/link"
	(sleep 1 && mv "$BATS_TEST_TMPDIR/link" "$ROOT${ID}1") 3>&- &
	run qs cryptopenall --early
	[ "$(report)" = "ask needed enc-scsi-30001 ${ID}1" ]
	wait
}

@test "no line for the initramfs: said, and nothing is done" {
	rm "$ROOT/etc/crypttab"
	run -0 qs cryptopenall --early
	[[ $output == *'no line of crypttab has the option initramfs or x-initrd.attach'* ]]
	[ ! -s "$ROOT/run/qs-util/early" ]
}

@test "a TPM that never answers costs its deadline and no more; then it is asked for" {
	systemd_enroll 1 --tpm2-pcrs=7
	qs cryptbackup "${ID}1"
	rm "$(key_of 1)"
	"$SWTPM" proxy "$TPM" never
	use_tpm "$TPM/p" 'tpm2_deadline = 1;'
	run -1 qs cryptopenall --early
	[[ $output == *'did not answer within 1 second ('* ]]
	[[ $output == *"could not be closed for this boot: the TPM did not answer within 1 second"* ]]
	[ "$(report)" = "ask needed enc-scsi-30001 ${ID}1" ]
}

@test "nobody answers: the question ends at its deadline, on a terminal and on a pipe" {
	rm "$(key_of 1)"
	mkfifo "$BATS_TEST_TMPDIR/pipe"
	exec 4<>"$BATS_TEST_TMPDIR/pipe" # a writer that says nothing
	run -1 qs cryptopen --test --ask-deadline 1 --passphrase-file "$BATS_TEST_TMPDIR/pipe" "${ID}1"
	[[ $output == *'nobody answered within 1 second'* ]]
	run -1 script -qec "$QS_UTIL --root=$ROOT cryptopen --test --passphrase --ask-deadline 1 ${ID}1" \
		/dev/null <"$BATS_TEST_TMPDIR/pipe"
	[[ $output == *'nobody answered within 1 second'* ]]
	exec 4>&-
}

# with_pin N: disk N opens by the TPM and the PIN 1234, and by nothing else.
with_pin()
{
	NEWPIN=1234 systemd_enroll "$1" --tpm2-pcrs=7 --tpm2-with-pin=yes
	qs cryptbackup "${ID}$1"
	rm "$(key_of "$1")"
}

# answer PIN...: each is given to one who asks, by a pipe in the place of the last one's.
answer()
{
	PIPE=$BATS_TEST_TMPDIR/pin
	mkfifo "$PIPE"
	for pin; do
		# shellcheck disable=SC2094 # another one by then
		{
			mkfifo "$PIPE.next"
			mv "$PIPE.next" "$PIPE"
			echo "$pin"
		} >"$PIPE"
	done 3>&- &
}

@test "a PIN is asked for until it is right, each wrong one counts once, the same again not at all" {
	with_pin 1
	answer 1111 1111 1234
	run -0 --separate-stderr qs --json cryptopenall --early --test --pin-file "$PIPE"
	[ "$(failures)" = 0x1 ]
	[ "$(field .token)" = 1 ]
	# shellcheck disable=SC2154 # set by run
	[[ $stderr == *'enc-scsi-30001: the PIN is wrong'* ]]
	[[ $stderr == *'the same PIN again: the TPM is not asked'* ]]
}

@test "three wrong PINs count three times; then it is asked for the passphrase, and the way is closed" {
	with_pin 1
	answer 1111 2222 3333 1234
	run qs cryptopenall --early --pin-file "$PIPE"
	[ "$(failures)" = 0x3 ]
	[ "$(report)" = "ask needed enc-scsi-30001 ${ID}1" ]
	jq -e '.before.sha256."7"' "$ROOT/run/qs-util/tpm2-closed.json"
	[ "$(cat "$PIPE")" = 1234 ] # nobody had asked for it
}

@test "no PIN is asked for what the boot can do without, what a key file opens, and without a way to ask" {
	qs cryptformat --no-open "${ID}2"
	cp "$(key_of 1)" "$BATS_TEST_TMPDIR/key1"
	with_pin 1
	early 1 initramfs,nofail
	answer 1234
	run qs cryptopenall --early --test --pin-file "$PIPE"
	[[ $output == *'needs its PIN'* ]]
	early 1
	run qs cryptopenall --early --test
	[[ $output == *'needs its PIN'* ]]
	install -m 400 "$BATS_TEST_TMPDIR/key1" "$(key_of 1)"
	run -0 qs cryptopenall --early --test --pin-file "$PIPE"
	[ "$(failures)" = 0x0 ]
	[ "$(cat "$PIPE")" = 1234 ]
}

@test "in lockout the TPM does not open by a PIN, and it is asked for the passphrase" {
	with_pin 1
	TPM2TOOLS_TCTI=swtpm:path=$TPM/s tpm2_dictionarylockout --setup-parameters --max-tries=1
	answer 1111 1234
	run qs cryptopenall --early --pin-file "$PIPE"
	[ "$(failures)" = 0x1 ]
	[[ $output == *'the TPM is locked after too many wrong PINs'* ]]
	[ "$(report)" = "ask needed enc-scsi-30001 ${ID}1" ]
}

@test "nobody gives a PIN, or an empty one: the next way, and nothing counts" {
	with_pin 1
	mkfifo "$BATS_TEST_TMPDIR/pipe"
	exec 4<>"$BATS_TEST_TMPDIR/pipe"
	run qs cryptopenall --early --pin-file "$BATS_TEST_TMPDIR/pipe" --ask-deadline 1
	exec 4>&-
	[[ $output == *'no PIN: nobody answered within 1 second'* ]]
	[ "$(report)" = "ask needed enc-scsi-30001 ${ID}1" ]
	run qs cryptopenall --early --pin-file - <<<''
	[ "$(report)" = "ask needed enc-scsi-30001 ${ID}1" ]
	[ "$(failures)" = 0x0 ]
}

@test "the question stands on the terminal when messages go elsewhere" {
	with_pin 1
	mkfifo "$BATS_TEST_TMPDIR/keys"
	{
		until grep -q 'PIN of' "$BATS_TEST_TMPDIR/screen" 2>/dev/null; do sleep 0.1; done
		# Once the echo is off: what was typed before is no answer.
		sleep 1
		echo 1234
	} >"$BATS_TEST_TMPDIR/keys" 3>&- &
	run -0 timeout 30 script -qfec "$QS_UTIL --root=$ROOT cryptopenall --early --test --pin-file - 2>$BATS_TEST_TMPDIR/log" \
		"$BATS_TEST_TMPDIR/screen" <"$BATS_TEST_TMPDIR/keys"
	grep -q 'PIN of enc-scsi-30001: ' "$BATS_TEST_TMPDIR/screen"
	run ! grep -q 'PIN of' "$BATS_TEST_TMPDIR/log"
}

# splash TYPED COMMAND...: unlock.sh's, with a plymouth on which TYPED (a file) is typed.
splash()
{
	local bin=$BATS_TEST_TMPDIR/bin
	mkdir "$bin" "$BATS_TEST_TMPDIR/run"
	cat >"$bin/plymouth" <<-END
		#!/bin/sh
		echo "\$*" >>$BATS_TEST_TMPDIR/calls
		[ "\$1" = ask-for-password ] || exit 0
		[ -s $1 ] || exec sleep 60
		head -n 1 $1
		sed -i 1d $1
	END
	printf '#!/bin/sh\nexec %s --root=%s "$@"\n' "$QS_UTIL" "$ROOT" >"$bin/qs-util"
	chmod 755 "$bin"/*
	shift
	# shellcheck disable=SC2016 # expanded inside
	run -0 env PATH="$bin:$PATH" sh -c '. "$0"; qs_run=$1; shift; "$@"' \
		"$BATS_TEST_DIRNAME/../../initramfs/unlock.sh" "$BATS_TEST_TMPDIR/run" "$@"
	[ -z "$(ls -A "$BATS_TEST_TMPDIR/run")" ]
}

@test "on the splash: plymouth is asked for each PIN, which goes through a pipe" {
	with_pin 1
	printf '1111\n1234\n' >"$BATS_TEST_TMPDIR/typed"
	splash "$BATS_TEST_TMPDIR/typed" qs_answered PIN --pin-file cryptopenall --early --test
	[ "$(failures)" = 0x1 ]
	[ "$(sort "$BATS_TEST_TMPDIR/calls" | uniq -c | xargs)" = '1 --ping 2 ask-for-password --prompt=PIN' ]
}

@test "on the splash: what nobody answers is given up and said; sentences are cut to what plymouth takes" {
	with_pin 1
	echo 'early_prompt = 1;' >>"$ROOT/etc/cryptconf/qs-util.conf"
	splash /dev/null eval "qs_answered PIN --pin-file cryptopenall --early --test || qs_say $(printf '%0300d' 0)"
	[[ $output == *'nobody answered within 1 second'* ]]
	grep -qx 'display-message --text=the question was given up: press Enter for the next one' "$BATS_TEST_TMPDIR/calls"
	grep -qx 'display-message --text=0\{250\}' "$BATS_TEST_TMPDIR/calls"
}
