#!/usr/bin/env bats
# Which keys open a device, which headers are refused, and that one bad device
# does not hold up the others. Nothing is mapped here (--test); the guest tests do that.

load tree

setup()
{
	make_tree 2
	KEY=$BATS_TEST_TMPDIR/key
	new_key "$KEY"
}

# A configuration for this test: settings, each with its semicolon.
configure()
{
	mkdir -p "$ROOT/etc/cryptconf"
	printf '%s\n' "$@" >"$ROOT/etc/cryptconf/qs-util.conf"
}

@test "formatted by us: --test proves the key and changes nothing" {
	qs cryptformat --no-open "${ID}1"
	before=$(sum "$(image_of 1)")
	run -0 qs cryptopen --test "${ID}1"
	run -0 qs cryptopen --test "$(image_of 1)" "$(key_of 1)"
	run -0 qs cryptopenall --test
	[ "$(sum "$(image_of 1)")" = "$before" ]
}

@test "a wrong key: 2, and the key file is named" {
	qs cryptformat --no-open "${ID}1"
	run -2 qs cryptopen --test "${ID}1" "$KEY"
	[[ $output == *"$KEY"* ]]
}

@test "a key file that others may read is refused: 2" {
	qs cryptformat --no-open "${ID}1"
	chmod 0440 "$(key_of 1)"
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'chmod 0400'* ]]
}

@test "no key known: 2, and where it would be looked for" {
	stock_format "$(image_of 1)" "$KEY"
	run -2 qs cryptopen --test "${ID}1"
	[[ $output == *'keys/enc-scsi-30001.key'* ]]
}

@test "LUKS1 and LUKS2 of others are proven with their key file" {
	stock_format "$(image_of 1)" "$KEY" --type luks1
	stock_format "$(image_of 2)" "$KEY"
	run -0 qs cryptopen --test "${ID}1" "$KEY"
	run -0 qs cryptopen --test "${ID}2" "$KEY"
}

@test "a key file of a person gets Argon2id, and is proven" {
	run -0 qs cryptformat --no-open "${ID}1" "$KEY"
	cryptsetup luksDump "$(image_of 1)" | grep -q 'PBKDF: *argon2id'
	stock_opens "$(image_of 1)" "$KEY"
	run -0 qs cryptopen --test "${ID}1"
	grep -q " $KEY " "$ROOT/etc/crypttab"
}

@test "a disk that moved to another link is known by its label" {
	qs cryptformat --no-open "${ID}1"
	mv "$ROOT${ID}1" "$ROOT/dev/disk/by-id/scsi-3elsewhere"
	run -0 qs cryptopen --test /dev/disk/by-id/scsi-3elsewhere
}

@test "cryptopenall: an absent disk is said, and is no failure" {
	qs cryptformat --no-open "${ID}1" "${ID}2"
	rm "$ROOT${ID}2"
	run -0 qs cryptopenall --test
	[[ $output == *"${ID}2"*absent* ]]
}

@test "cryptopenall finds keys without a line in crypttab" {
	qs cryptformat --no-open --no-crypttab "${ID}1"
	run ! grep -q enc- "$ROOT/etc/crypttab"
	run -0 --separate-stderr qs --json cryptopenall --test
	[ "$(jq -r '.devices[0].name' <<<"$output")" = enc-scsi-30001 ]
}

@test "a line that says - for its key is ours like one that says none; systemd's are left to it" {
	qs cryptformat --no-open "${ID}1"
	echo 'tpm2_device = "swtpm:path=/nowhere";' >"$ROOT/etc/cryptconf/qs-util.conf"
	local key
	for key in none - /etc/cryptconf/keys/enc-scsi-30001.key; do
		echo "enc-scsi-30001 ${ID}1 $key luks" >"$ROOT/etc/crypttab"
		run -0 --separate-stderr qs --json cryptopenall --boot --test
		[ "$(jq -c '[.devices[] | [.name, .state]]' <<<"$output")" = '[["enc-scsi-30001","left"]]' ]
		run -0 qs cryptopenall --boot --test
		[ "$output" = "${ID}1: nothing done for enc-scsi-30001 (left to systemd)" ]
		sed -i 's/luks/luks,noauto/' "$ROOT/etc/crypttab"
		run -0 --separate-stderr qs --json cryptopenall --boot --test
		[ "$(jq -c '[.devices[] | [.name, .state]]' <<<"$output")" = '[["enc-scsi-30001",null]]' ]
	done
}

@test "lines of others in crypttab are left to others" {
	stock_format "$(image_of 1)" "$KEY"
	printf '%s\n' "data ${ID}1 $KEY luks" "swap ${ID}2 /dev/urandom swap" >"$ROOT/etc/crypttab"
	run -0 --separate-stderr qs --json cryptopenall --test
	[ "$(jq '.devices | length' <<<"$output")" = 0 ]
}

@test "a key derivation that would last hours is refused at once: 6" {
	stock_format "$(image_of 1)" "$KEY"
	"$QS_BUILD/tests/unit/mkheader" "$(image_of 1)" pbkdf2-cost
	run -6 qs cryptopen --test "${ID}1" "$KEY"
	[[ $output == *iterations* ]]
}

@test "a null cipher is refused where stock opens it: 6" {
	qs cryptformat --no-open "${ID}1"
	"$QS_BUILD/tests/unit/mkheader" "$(image_of 1)" null-cipher
	stock_opens "$(image_of 1)" "$(key_of 1)"
	run -6 qs cryptopen --test "${ID}1"
	[[ $output == *null* ]]
}

@test "a header that is not the one that was backed up is refused though the key opens it: 6" {
	qs cryptformat --no-open "${ID}1"
	uuid=$(cryptsetup luksUUID "$(image_of 1)")
	stock_format "$(image_of 1)" "$(key_of 1)" --uuid "$uuid" --label enc-scsi-30001 \
		--subsystem qs-util --sector-size 4096
	stock_opens "$(image_of 1)" "$(key_of 1)"
	run -6 qs cryptopen --test "${ID}1"
	[[ $output == *backed\ up* ]]
}

@test "a damaged first copy: the second opens, and no byte is repaired behind our back" {
	qs cryptformat --no-open "${ID}1"
	dd if=/dev/zero of="$(image_of 1)" bs=4096 count=1 conv=notrunc status=none
	before=$(sum "$(image_of 1)")
	run -0 qs cryptopen --test "${ID}1"
	run -0 qs cryptstatus "${ID}1"
	[[ $output == *damaged* ]]
	[ "$(sum "$(image_of 1)")" = "$before" ]
}

@test "a hostile header among 24 good ones: they are proven, it ends at its deadline" {
	local links=()
	make_tree 25
	for n in $(seq 25); do links+=("$ID$n"); done
	qs cryptformat --no-open "${links[@]}"
	"$QS_BUILD/tests/unit/mkheader" "$(image_of 7)" pbkdf2-cost
	# The limit on costs is lifted, so that only the deadline is left.
	configure 'max_kdf_iterations = 4000000000L;' 'open_deadline = 4;'
	run -7 --separate-stderr qs --json cryptopenall --test
	[ "$(jq '[.devices[] | select(.ok)] | length' <<<"$output")" = 24 ]
	[ "$(jq -r '.devices[] | select(.ok | not) | .by_id + " " + .error.code' <<<"$output")" = "${ID}7 deadline" ]
}

@test "many devices are worked on by processes, never by threads" {
	qs cryptformat --no-open "${ID}1" "${ID}2"
	# The leak checker of a sanitizer build cannot run under strace.
	export ASAN_OPTIONS=detect_leaks=0
	run -0 strace -f -qq -e trace=clone,clone3 -o "$BATS_TEST_TMPDIR/trace" \
		"$QS_UTIL" --root="$ROOT" cryptopenall --test
	[ -s "$BATS_TEST_TMPDIR/trace" ]
	run ! grep CLONE_THREAD "$BATS_TEST_TMPDIR/trace"
}

# stock_passphrase IMAGE PASSPHRASE: formatted by stock cryptsetup for somebody who types.
stock_passphrase()
{
	printf %s "$2" | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$1" -
}

@test "a passphrase opens: from a file, standard input, a descriptor" {
	stock_passphrase "$(image_of 1)" 'correct horse'
	(umask 077 && echo 'correct horse' >"$BATS_TEST_TMPDIR/pass")
	run -0 qs cryptopen --test --passphrase-file "$BATS_TEST_TMPDIR/pass" "${ID}1"
	run -0 --separate-stderr qs_input 'correct horse' --json cryptopen --test --passphrase-file - "${ID}1"
	[ "$(jq -c '.devices[0] | [.keyslot, .key_file]' <<<"$output")" = '[0,null]' ]
	run -0 qs_input 'correct horse' cryptopen --test --passphrase-fd 0 "${ID}1"
}

@test "a wrong passphrase: 2; none and no terminal: 64 and the options" {
	stock_passphrase "$(image_of 1)" 'correct horse'
	run -2 qs_input 'wrong horse' cryptopen --test --passphrase-file - "${ID}1"
	run -64 qs cryptopen --test --passphrase "${ID}1"
	[[ $output == *--passphrase-file* ]]
	run -2 qs cryptopen --test "${ID}1"
	run -64 qs_input x cryptopen --test --passphrase-file - "${ID}1" "$KEY"
	run -64 qs_input x cryptopen --passphrase-file - "${ID}1" updatecrypttab
}

@test "on a terminal the passphrase is asked for when there is no key file, and not shown" {
	stock_passphrase "$(image_of 1)" 'correct horse'
	run -0 typed 'correct horse' -- cryptopen --test "${ID}1"
	[[ $output == *"Passphrase of ${ID}1"*'key proven'* ]]
	[[ $output != *horse* ]]
	run -2 typed 'wrong horse' -- cryptopen --test "${ID}1"
	qs cryptformat --no-open "${ID}2"
	run -0 typed -- cryptopen --test "${ID}2"
	[[ $output != *Passphrase* ]]
}

@test "a recovery key opens in any spelling" {
	stock_passphrase "$(image_of 1)" cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cbdefghi-jklnrtuv
	run -0 qs_input 'CBDEFGHI JKLNRTUV CBDEFGHI JKLNRTUV CBDEFGHI JKLNRTUV CBDEFGHIJKLNRTUV' \
		cryptopen --test --passphrase-file - "${ID}1"
}

@test "updatecrypttab is not done when the device did not open" {
	qs cryptformat --no-open --no-crypttab "${ID}1"
	# 1 where the kernel has no device-mapper to begin with.
	run qs cryptopen "${ID}1" "$KEY" updatecrypttab
	[ "$status" -eq 1 ] || [ "$status" -eq 2 ]
	[ ! -e "$ROOT/etc/crypttab" ]
}

@test "no device-mapper in the kernel: said as such, with what is left to do" {
	[ ! -e /sys/class/misc/device-mapper ] || return 0 # the guest has its own test of this
	run -1 qs cryptformat "${ID}1"
	[[ $output == *'no device-mapper'*'cryptopen'* ]]
	stock_opens "$(image_of 1)" "$(key_of 1)"
	grep -q '^enc-scsi-30001 ' "$ROOT/etc/crypttab"
}
