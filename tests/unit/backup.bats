#!/usr/bin/env bats
# cryptbackup: what is stored, what is kept, and what never replaces a backup.

load tree

setup()
{
	make_tree 2
	KEY=$BATS_TEST_TMPDIR/key
	new_key "$KEY"
}

# As another tool does it: a token more, a sequence number more. token_by_stock N [TYPE].
token_by_stock()
{
	echo "{\"type\":\"${2-test}\",\"keyslots\":[]}" |
		cryptsetup token import --json-file - "$(image_of "$1")"
}

versions_of()
{
	ls "$ROOT/etc/cryptconf/headers/enc-scsi-3000$1.d"
}

# answer JQ-EXPRESSION: of the last answer.
answer()
{
	jq -r "$1" <<<"$output"
}

@test "after a format the backup is the same; nothing is written" {
	qs cryptformat --no-open "${ID}1"
	before=$(find "$ROOT" -type f -not -path '*/run/*' -printf '%p %T@\n' | sort)
	run -0 qs cryptbackup "${ID}1"
	[[ $output == *'same as before'* ]]
	[ "$(find "$ROOT" -type f -not -path '*/run/*' -printf '%p %T@\n' | sort)" = "$before" ]
}

@test "a change by another tool is stored; the last backup becomes a version" {
	qs cryptformat --no-open "${ID}1"
	old=$(sum "$(backup_of 1)")
	number=$(qs --json cryptbackup "${ID}1" | jq '.devices[0].sequence')
	token_by_stock 1
	run -0 --separate-stderr qs --json cryptbackup "${ID}1"
	[ "$(answer '.devices[0] | "\(.stored) \(.sequence) \(.versions)"')" = "true $((number + 1)) 1" ]
	cryptsetup luksHeaderBackup "$(image_of 1)" --header-backup-file "$BATS_TEST_TMPDIR/stock"
	cmp "$BATS_TEST_TMPDIR/stock" "$(backup_of 1)"
	[ "$(sum "$ROOT/etc/cryptconf/headers/enc-scsi-30001.d/$number.header")" = "$old" ]
	[ "$(stat -c %a "$(backup_of 1)" "$ROOT/etc/cryptconf/headers/enc-scsi-30001.d")" = $'600\n700' ]
	run -0 qs cryptbackup "${ID}1"
	[[ $output == *'same as before'* ]]
}

@test "header_versions older ones stay, the oldest goes" {
	qs cryptformat --no-open "${ID}1"
	mkdir -p "$ROOT/etc/cryptconf"
	echo 'header_versions = 2;' >"$ROOT/etc/cryptconf/qs-util.conf"
	first=$(qs --json cryptbackup "${ID}1" | jq '.devices[0].sequence')
	for _ in 1 2 3 4; do
		token_by_stock 1
		qs cryptbackup "${ID}1"
	done
	[ "$(versions_of 1)" = "$((first + 2)).header"$'\n'"$((first + 3)).header" ]
}

@test "an older header put back by another tool, then changed: no version overwrites another" {
	qs cryptformat --no-open "${ID}1"
	cp "$(backup_of 1)" "$BATS_TEST_TMPDIR/old"
	token_by_stock 1
	qs cryptbackup "${ID}1"
	one=$(sum "$(backup_of 1)")
	cryptsetup luksHeaderRestore -q "$(image_of 1)" --header-backup-file "$BATS_TEST_TMPDIR/old"
	token_by_stock 1 other
	qs cryptbackup "${ID}1"
	token_by_stock 1
	qs cryptbackup "${ID}1"
	sums=$(sha256sum "$ROOT/etc/cryptconf/headers/enc-scsi-30001.d/"*)
	[[ $sums == *${one%% *}* && $sums == *$(sum "$BATS_TEST_TMPDIR/old" | cut -d' ' -f1)* ]]
	[ "$(versions_of 1 | wc -l)" -eq 3 ]
}

@test "without DEVICE: every device of ours, by key, subsystem or crypttab; others not" {
	qs cryptformat --no-open "${ID}1"
	stock_format "$(image_of 2)" "$KEY"
	run -0 --separate-stderr qs --json cryptbackup
	[ "$(answer '[.devices[].by_id] | join(" ")')" = "${ID}1" ]
	run -0 qs cryptbackup "${ID}2"
	[[ $output == *stored* ]]
}

@test "LUKS1, more than one version" {
	stock_format "$(image_of 1)" "$KEY" --type luks1
	run -0 --separate-stderr qs --json cryptbackup "${ID}1"
	[ "$(answer '.devices[0] | "\(.stored) \(.sequence) \(.versions)"')" = 'true null 0' ]
	cryptsetup luksHeaderBackup "$(image_of 1)" --header-backup-file "$BATS_TEST_TMPDIR/stock"
	cmp "$BATS_TEST_TMPDIR/stock" "$(backup_of 1)"
	for n in 1 2; do
		new_key "$KEY.$n"
		cryptsetup luksAddKey -q --pbkdf-force-iterations 1000 --key-file "$KEY" \
			"$(image_of 1)" "$KEY.$n"
		run -0 qs cryptbackup "${ID}1"
	done
	[ "$(versions_of 1)" = $'1.header\n2.header' ]
	stock_opens "$(backup_of 1)" "$KEY.2"
}

@test "by image path, by UUID and by name" {
	image=$ROOT/img/plain.img
	truncate -s 64M "$image"
	qs cryptformat --no-open "$image"
	run -0 qs cryptbackup "$image"
	run -0 qs cryptbackup enc-plain.img
	qs cryptformat --no-open "${ID}1"
	uuid=$(cryptsetup luksUUID "$(image_of 1)")
	ln -s "$(image_of 1)" "$ROOT/dev/disk/by-uuid/$uuid"
	run -0 qs cryptbackup "$uuid"
	run -0 qs cryptbackup enc-scsi-30001
}

@test "a damaged header never replaces a good backup: 4, and the way out" {
	qs cryptformat --no-open "${ID}1"
	before=$(sum "$(backup_of 1)")
	dd if=/dev/zero of="$(image_of 1)" bs=4096 count=1 conv=notrunc status=none
	run -4 qs cryptbackup "${ID}1"
	[[ $output == *'second copy intact'* ]]
	dd if=/dev/zero of="$(image_of 1)" bs=1M count=1 conv=notrunc status=none
	run -4 qs cryptbackup "${ID}1"
	run -4 qs cryptbackup
	[ "$(sum "$(backup_of 1)")" = "$before" ]
}

@test "copies that differ, as after an interrupted update: 4" {
	qs cryptformat --no-open "${ID}1"
	token_by_stock 1
	dd if="$(backup_of 1)" of="$(image_of 1)" bs=128K skip=1 seek=1 count=1 conv=notrunc status=none
	run -4 qs cryptbackup "${ID}1"
	[[ $output == *'two copies'*'differ'*cryptrestore* ]]
}

@test "a header without encryption is never stored: 6" {
	qs cryptformat --no-open "${ID}1"
	before=$(sum "$(backup_of 1)")
	"$QS_BUILD/tests/unit/mkheader" "$(image_of 1)" null-cipher
	run -6 qs cryptbackup --force "${ID}1"
	[[ $output == *null* ]]
	[ "$(sum "$(backup_of 1)")" = "$before" ]
}

@test "another volume's header replaces the backup with --force only, which keeps the old one" {
	qs cryptformat --no-open "${ID}1"
	before=$(sum "$(backup_of 1)")
	stock_format "$(image_of 1)" "$KEY"
	run -6 qs cryptbackup "${ID}1"
	[[ $output == *UUID*--force* ]]
	[ "$(sum "$(backup_of 1)")" = "$before" ]
	run -0 qs cryptbackup --force "${ID}1"
	[[ $output == *"if the initramfs opens it, make that again, or the next boot refuses it"* ]]
	[ "$(sum "$ROOT/etc/cryptconf/headers/enc-scsi-30001.d/"*)" = "$before" ]
	stock_opens "$(backup_of 1)" "$KEY"
}

@test "a link in NAME.d that is a second name of the backup is not overwritten by pruning" {
	qs cryptformat --no-open "${ID}1"
	mkdir -m 700 "$ROOT/etc/cryptconf/headers/enc-scsi-30001.d"
	ln "$(backup_of 1)" "$ROOT/etc/cryptconf/headers/enc-scsi-30001.d/1.header"
	ln "$(backup_of 1)" "$ROOT/etc/cryptconf/headers/enc-scsi-30001.d/.2.header.qs-tmp"
	echo 'header_versions = 0;' >"$ROOT/etc/cryptconf/qs-util.conf"
	run -0 qs cryptbackup "${ID}1"
	stock_opens "$(backup_of 1)" "$(key_of 1)"
}

@test "unfinished work on the device is finished first: 6" {
	qs cryptformat --no-open "${ID}1"
	token_by_stock 1
	mkdir -p "$ROOT/etc/cryptconf/pending"
	echo "{\"op\":\"destroy\",\"uuid\":\"\",\"device\":\"${ID}1\"}" \
		>"$ROOT/etc/cryptconf/pending/enc-scsi-30001.json"
	run -6 qs cryptbackup "${ID}1"
	[[ $output == *cryptdestroy* ]]
}

@test "many at once; one that fails delays no other: 7" {
	make_tree 6
	for n in 1 2 3 4 5 6; do links+=("$ID$n"); done
	qs cryptformat --no-open "${links[@]}"
	for n in 1 2 3 4 5 6; do token_by_stock "$n"; done
	dd if=/dev/zero of="$(image_of 3)" bs=1M count=1 conv=notrunc status=none
	run -7 --separate-stderr qs --json cryptbackup
	[ "$(answer '[.devices[] | select(.stored)] | length')" -eq 5 ]
	[ "$(answer '.devices[] | select(.ok | not) | "\(.by_id) \(.error.code)"')" = "${ID}3 header-damaged" ]
}

@test "a device that is not LUKS: 4; an absent one: 4" {
	run -4 qs cryptbackup "${ID}1"
	run -4 qs cryptbackup "${ID}9"
}

@test "--list shows versions, agreement and absent disks, and writes nothing" {
	qs cryptformat --no-open "${ID}1" "${ID}2"
	token_by_stock 1
	qs cryptbackup "${ID}1"
	token_by_stock 1
	rm "$ROOT${ID}2"
	before=$(find "$ROOT" -type f -not -path '*/run/*' -printf '%p %T@\n' | sort)
	run -0 --separate-stderr qs --json cryptbackup --list
	echo "$output" | "$BATS_TEST_DIRNAME/../validate-json"
	[ "$(answer '[.devices[].name] | join(" ")')" = 'enc-scsi-30001 enc-scsi-30002' ]
	[ "$(answer '[.devices[0].backups[] | "\(.kind) \(.agrees)"] | join(", ")')" = 'current false, older false' ]
	[ "$(answer '[.devices[1].backups[] | "\(.kind) \(.agrees)"] | join(", ")')" = 'current null' ]
	[ "$(answer '.devices[1].note')" = 'the disk is absent' ]
	run -0 qs cryptbackup --list "${ID}1"
	[[ ${lines[0]} == NAME*SEQUENCE*TIME*STATE*PATH ]]
	[ "${#lines[@]}" -eq 3 ]
	run -0 qs cryptbackup --list enc-scsi-30002
	[ "$(find "$ROOT" -type f -not -path '*/run/*' -printf '%p %T@\n' | sort)" = "$before" ]
}
