#!/usr/bin/env bats
# cryptopenall --test --all-ways: each way by itself, what needs a person as far as it can
# be told, nothing written; and the entries that the journal gets.

load tree
load journal
load tpm2

setup()
{
	make_tpm_tree "${ID}1" "${ID}2"
}

teardown()
{
	drop_tpm
}

check()
{
	qs --json cryptopenall --test --all-ways
}

# ways [JQ]: of the first device in $output.
ways()
{
	jq -c "[.devices[0].ways[] | ${1-[.way, .keyslot, .proven]}]" <<<"$output"
}

@test "key file, two TPM2 keyslots, a PIN, a recovery key: proven, or found in order" {
	printf '1234\n' >"$BATS_TEST_TMPDIR/pin"
	chmod 0400 "$BATS_TEST_TMPDIR/pin"
	qs cryptenroll "${ID}1" --tpm2
	qs cryptenroll "${ID}1" --tpm2 --pcrs none
	qs cryptenroll "${ID}1" --tpm2 --pcrs 0 --pin-file "$BATS_TEST_TMPDIR/pin"
	qs cryptenroll "${ID}1" --recovery-key "$BATS_TEST_TMPDIR/recovery"
	before=$(cat "$IMAGE" "$(backup_of 1)" | sha256sum)
	run -0 --separate-stderr check
	[ "$(ways)" = '[["key-file",0,true],["recovery",4,false],["tpm2",1,true],["tpm2",2,true],["tpm2",null,false]]' ]
	[ "$(jq -c '.devices[1].ways | length' <<<"$output")" = 1 ]
	[ "$(failures)" = 0x0 ]
	[ "$(cat "$IMAGE" "$(backup_of 1)" | sha256sum)" = "$before" ]
}

@test "each way that fails is named, though others work: 7, or 2 for all" {
	qs cryptenroll "${ID}1" --tpm2
	"$SWTPM" measure "$TPM" update 7
	run -7 --separate-stderr check
	[[ $(ways '.problem // empty') == '["PCR 7'* ]]
	[[ $(jq -r '.devices[0].error.message' <<<"$output") == *'tpm2: PCR 7'* ]]
	new_key "$(key_of 1)"
	new_key "$(key_of 2)"
	run -2 --separate-stderr check
	# Whatever key file keyslot 0 is of, it is nowhere at hand.
	[ "$(ways)" = '[["key-file",null,false],["key-file",0,false],["tpm2",null,false]]' ]
}

@test "a key file that crypttab names and that is gone, though the TPM opens" {
	qs cryptenroll "${ID}1" --tpm2
	rm "$(key_of 1)"
	run -7 --separate-stderr check
	[[ $(ways .problem) == '["'*'does not exist'* ]]
	sed -i "\|${ID}1 |s|/etc/[^ ]*key|none|" "$ROOT/etc/crypttab"
	run -0 --separate-stderr check
	[ "$(ways)" = '[["key-file",0,false],["tpm2",1,true]]' ]
}

@test "the keyslot of a recovery key that is damaged" {
	qs cryptenroll "${ID}1" --recovery-key "$BATS_TEST_TMPDIR/recovery"
	local offset
	offset=$(cryptsetup luksDump --dump-json-metadata "$IMAGE" | jq -r '.keyslots["1"].area.offset')
	printf 'xxxx' | dd of="$IMAGE" bs=1 seek=$((offset + 8192)) conv=notrunc status=none
	run -7 --separate-stderr check
	[[ $(ways '[.way, .problem]') == *'["recovery","the key material of its keyslot'* ]]
}

@test "a device that nothing at hand opens; a TPM that is gone, switched off, or never answers" {
	qs cryptenroll "${ID}1" --tpm2
	"$SWTPM" proxy "$TPM" never
	use_tpm "$TPM/p" 'tpm2_deadline = 1;'
	run -7 --separate-stderr check
	[[ $(ways '.problem // empty') == *'did not answer'* ]]
	echo 'tpm2_device = "none";' >"$ROOT/etc/cryptconf/qs-util.conf"
	run -0 --separate-stderr check
	rm "$(key_of 1)"
	sed -i "\|${ID}1 |s|/etc/[^ ]*key|none|" "$ROOT/etc/crypttab"
	echo "tpm2_device = \"swtpm:path=$TPM/nobody\";" >"$ROOT/etc/cryptconf/qs-util.conf"
	run -7 --separate-stderr check
	[[ $(ways '.problem // empty') == *'cannot reach the TPM'* ]]
}

@test "a null cipher is refused, and --all-ways alone makes no sense: 64" {
	"$QS_BUILD/tests/unit/mkheader" "$IMAGE" null-cipher
	run -7 --separate-stderr check
	[ "$(jq -r '.devices[0].error.code' <<<"$output")" = header-refused ]
	run -64 qs cryptopenall --all-ways
	run -64 qs cryptopenall --test --all-ways --early
}

@test "an old header that was put back: the TPM is not asked for it" {
	qs cryptenroll "${ID}1" --tpm2
	cp "$IMAGE" "$BATS_TEST_TMPDIR/old"
	qs cryptenroll "${ID}1" --recovery-key "$BATS_TEST_TMPDIR/recovery"
	cp "$BATS_TEST_TMPDIR/old" "$IMAGE"
	run -7 --separate-stderr check
	[[ $(ways '.problem // empty') == '["the header is older than its backup'* ]]
}

@test "the journal gets an entry with a message id for each way that is lost, and none without a journal" {
	qs cryptenroll "${ID}1" --tpm2
	"$SWTPM" measure "$TPM" update 7
	run -7 journal cryptopenall --test --all-ways
	local log=$BATS_TEST_TMPDIR/journal.log
	[ "$(grep -c '^MESSAGE_ID=' "$log")" -eq 1 ]
	grep -qx 'MESSAGE_ID=a8b056d7cf974dc59fc81ba652ee9414' "$log"
	grep -qx 'QS_NAME=enc-scsi-30001' "$log"
	grep -qx 'QS_WAY=tpm2' "$log"
	grep -q '^QS_REASON=PCR 7 (Secure Boot' "$log"
	grep -qx 'PRIORITY=4' "$log"
	rm -r "$ROOT/run/systemd"
	run -7 strace -f -qq -e trace=sendmsg,openat -o "$BATS_TEST_TMPDIR/trace" env ASAN_OPTIONS=detect_leaks=0 \
		"$QS_UTIL" --root="$ROOT" cryptopenall --test --all-ways
	run ! grep -E 'journal' "$BATS_TEST_TMPDIR/trace"
}

@test "a TPM near its lockout is an event of the check, and no way is lost by that" {
	printf '1234\n' >"$BATS_TEST_TMPDIR/pin"
	printf '4321\n' >"$BATS_TEST_TMPDIR/wrong"
	chmod 0400 "$BATS_TEST_TMPDIR"/{pin,wrong}
	qs cryptenroll "${ID}1" --tpm2 --pin-file "$BATS_TEST_TMPDIR/pin"
	TPM2TOOLS_TCTI=swtpm:path=$TPM/s tpm2_dictionarylockout -s -n 3 -t 1000 -l 1000
	local log=$BATS_TEST_TMPDIR/journal.log
	qs cryptopen --test --pin-file "$BATS_TEST_TMPDIR/wrong" "${ID}1"
	run -0 journal cryptopenall --test --all-ways
	[ ! -s "$log" ]
	qs cryptopen --test --pin-file "$BATS_TEST_TMPDIR/wrong" "${ID}1"
	run -0 journal cryptopenall --test --all-ways
	[[ $output == *'the TPM has counted 2 of 3 failures'* ]]
	[ "$(grep '^MESSAGE_ID=' "$log")" = MESSAGE_ID=f16d0d2b2a6e4a93a9c7d0376b3de0de ]
	[ "$(failures)" = 0x2 ]
}

@test "every message of ours is in the catalog, and the catalog knows no other" {
	local top=$BATS_TEST_DIRNAME/../..
	diff <(grep -oE '"[0-9a-f]{32}"' "$top/lib/ops/event.c" | tr -d '"' | sort) \
		<(sed -n 's/^-- //p' "$top/systemd/qs-util.catalog" | sort)
	journalctl --update-catalog --root="$BATS_TEST_TMPDIR" || true
	mkdir -p "$BATS_TEST_TMPDIR/usr/lib/systemd/catalog"
	cp "$top/systemd/qs-util.catalog" "$BATS_TEST_TMPDIR/usr/lib/systemd/catalog"
	run -0 journalctl --update-catalog --root="$BATS_TEST_TMPDIR"
	[ -s "$BATS_TEST_TMPDIR/var/lib/systemd/catalog/database" ]
}
