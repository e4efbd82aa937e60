#!/usr/bin/env bats
# cryptrestore: damaged headers that come back, headers that are refused, and
# what is kept. Stock tools do the damage and are the judges.

load tree

setup()
{
	make_tree 2
	HEADERS=$ROOT/etc/cryptconf/headers
	KEY=$BATS_TEST_TMPDIR/key
	new_key "$KEY"
}

# A formatted disk 1 of 320 MiB (mkfs.xfs wants that) with a pattern where its data begin.
formatted_disk()
{
	truncate -s 320M "$(image_of 1)"
	qs cryptformat --no-open "${ID}1"
	seq -f 'this is data %09.0f' 50000 | head -c 1M >"$BATS_TEST_TMPDIR/pattern"
	dd if="$BATS_TEST_TMPDIR/pattern" of="$(image_of 1)" bs=1M seek=16 conv=notrunc status=none
}

data_is_there()
{
	cmp -i 16777216:0 -n 1048576 "$(image_of 1)" "$BATS_TEST_TMPDIR/pattern"
}

# The eleven accidents of a header with metadata areas of 128 KiB. What a file system is
# made on may be discarded to its end; that is another accident than one of the header.
accident()
{
	local image
	image=$(image_of 1)
	case $1 in
	zeros-*) dd if=/dev/zero of="$image" bs="${1#zeros-}" count=1 conv=notrunc status=none ;;
	gpt) echo 'label: gpt' | sfdisk -q "$image" ;;
	mbr) echo 'label: dos' | sfdisk -q "$image" ;;
	sgdisk) sgdisk -o "$image" ;;
	xfs) mkfs.xfs -K -f -q "$image" ;;
	ext4) mkfs.ext4 -E nodiscard -F -q "$image" ;;
	swap) mkswap -q -f "$image" ;;
	wipefs) wipefs -qa "$image" ;;
	*) return 1 ;;
	esac
}

readonly ACCIDENTS=(zeros-512 zeros-4k zeros-64k zeros-1M gpt mbr sgdisk xfs ext4 swap wipefs)

# The command that cryptstatus names between quotes, without "qs-util".
advice()
{
	qs cryptstatus "${ID}1" 2>&1 | grep -o "'qs-util [^']*'" | head -n 1 | sed "s/^'qs-util //; s/'$//"
}

is_whole()
{
	stock_opens "$(image_of 1)" "$(key_of 1)" && data_is_there &&
		cmp -n 4456448 "$(image_of 1)" "$(backup_of 1)" &&
		[ ! -e "$ROOT/etc/cryptconf/pending/enc-scsi-30001.json" ] &&
		qs cryptopen --test "${ID}1" &&
		[ -z "$(qs --json cryptstatus "${ID}1" | jq '.devices[0].warnings // empty')" ]
}

# As another tool does it: a token more, a sequence number more.
token_by_stock()
{
	echo "{\"type\":\"${2-test}\",\"keyslots\":[]}" |
		cryptsetup token import --json-file - "$(image_of "$1")"
}

# fixed_size IMAGE BYTES: its data segment ends BYTES behind its beginning, as some tools make it.
fixed_size()
{
	python3 -B - "$@" <<-'END'
		import hashlib, json, sys
		with open(sys.argv[1], "r+b") as file:
		    size = int.from_bytes(file.read(16)[8:], "big")
		    for at in (0, size):
		        file.seek(at)
		        header = bytearray(file.read(size))
		        text = json.loads(header[4096:].rstrip(b"\0"))
		        text["segments"]["0"]["size"] = sys.argv[2]
		        header[4096:] = json.dumps(text).encode().ljust(size - 4096, b"\0")
		        header[448:512] = bytes(64)
		        header[448:480] = hashlib.sha256(header).digest()
		        file.seek(at)
		        file.write(header)
	END
}

unchanged()
{
	[ "$(sum "$(image_of 1)")" = "$before" ]
}

answer()
{
	jq -r "$1" <<<"$output"
}

seqid()
{
	cryptsetup luksDump "$1" | awk '/^Epoch:/ { print $2 }'
}

@test "eleven accidents: cryptstatus names the damage and the command that mends it" {
	local accident command
	formatted_disk
	cp --sparse=always "$(image_of 1)" "$BATS_TEST_TMPDIR/good"
	for accident in "${ACCIDENTS[@]}"; do
		echo "# $accident"
		cp --sparse=always "$BATS_TEST_TMPDIR/good" "$(image_of 1)"
		accident "$accident"
		data_is_there
		[[ $(qs cryptstatus "${ID}1" 2>&1) == *damaged* ]]
		command=$(advice)
		[[ $command == 'cryptrestore '* ]]
		# shellcheck disable=SC2086
		qs --yes $command
		is_whole
	done
}

@test "nine of them without any backup" {
	local accident
	formatted_disk
	cp --sparse=always "$(image_of 1)" "$BATS_TEST_TMPDIR/good"
	for accident in "${ACCIDENTS[@]}"; do
		echo "# $accident"
		cp --sparse=always "$BATS_TEST_TMPDIR/good" "$(image_of 1)"
		rm -rf "$HEADERS"
		accident "$accident"
		case $accident in
		zeros-1M | ext4)
			before=$(sum "$(image_of 1)")
			run -4 qs --yes cryptrestore "${ID}1"
			[[ $output == *'no header backup'* ]]
			unchanged
			;;
		*)
			qs --yes cryptrestore "${ID}1"
			is_whole
			;;
		esac
	done
}

@test "a copy that is newer than the backup mends the other one; the backup is refreshed" {
	formatted_disk
	token_by_stock 1
	number=$(seqid "$(image_of 1)")
	accident gpt
	run -0 --separate-stderr qs --json --yes cryptrestore "${ID}1"
	echo "$output" | "$BATS_TEST_DIRNAME/../validate-json"
	[ "$(answer '.devices[0].source.kind')" = copy ]
	[ "$(seqid "$(image_of 1)")" = "$number" ]
	is_whole
	cryptsetup luksDump "$(image_of 1)" | grep -q test
	ls "$HEADERS/enc-scsi-30001.d/"damaged-*.raw
}

@test "copies that differ, as after an interrupted update, become the newer one" {
	formatted_disk
	token_by_stock 1
	dd if="$(backup_of 1)" of="$(image_of 1)" bs=128K skip=1 seek=1 count=1 conv=notrunc status=none
	[[ $(advice) == "cryptrestore ${ID}1" ]]
	run -0 qs --yes cryptrestore "${ID}1"
	is_whole
	cryptsetup luksDump "$(image_of 1)" | grep -q test
}

@test "both JSON areas zeroed: back from the backup" {
	formatted_disk
	dd if=/dev/zero of="$(image_of 1)" bs=4k seek=1 count=31 conv=notrunc status=none
	dd if=/dev/zero of="$(image_of 1)" bs=4k seek=33 count=31 conv=notrunc status=none
	run -0 qs --yes cryptrestore "${ID}1"
	is_whole
}

@test "one flipped bit of key material: cryptstatus and cryptbackup tell, cryptrestore repairs" {
	formatted_disk
	good=$(sum "$(backup_of 1)")
	printf '\001' | dd of="$(image_of 1)" bs=1 seek=300000 conv=notrunc status=none
	run ! stock_opens "$(image_of 1)" "$(key_of 1)"
	[ "$(advice)" = "cryptrestore ${ID}1" ]
	[ "$(qs --json cryptstatus "${ID}1" | jq -c '.devices[0].backup.damaged_keyslots')" = '[0]' ]
	run -4 qs cryptbackup "${ID}1"
	[[ $output == *'keyslot 0'*damaged* ]]
	[ "$(sum "$(backup_of 1)")" = "$good" ]
	run -0 qs --yes cryptrestore "${ID}1"
	[[ $output == *'keyslot 0'* ]]
	is_whole
}

@test "key material overwritten, header changed since by another tool: only that is repaired" {
	formatted_disk
	token_by_stock 1
	dd if=/dev/urandom of="$(image_of 1)" bs=4k seek=64 count=63 conv=notrunc status=none
	run -0 qs --yes cryptrestore "${ID}1"
	is_whole
	cryptsetup luksDump "$(image_of 1)" | grep -q test
}

@test "all at once: header, second copy and keyslots" {
	formatted_disk
	dd if=/dev/urandom of="$(image_of 1)" bs=1M count=4 conv=notrunc status=none
	run -0 qs --yes cryptrestore "${ID}1"
	is_whole
}

@test "another UUID is refused: 6; --force restores it and keeps what was there" {
	formatted_disk
	stock_format "$(image_of 2)" "$KEY"
	cryptsetup luksHeaderBackup "$(image_of 2)" --header-backup-file "$BATS_TEST_TMPDIR/other"
	before=$(sum "$(image_of 1)")
	kept=$(sum "$(backup_of 1)")
	run -6 qs --yes cryptrestore "${ID}1" "$BATS_TEST_TMPDIR/other"
	[[ $output == *UUID*--force* ]]
	unchanged
	# Damaged: the backup still says whose disk it is.
	accident zeros-1M
	before=$(sum "$(image_of 1)")
	run -6 qs --yes cryptrestore "${ID}1" "$BATS_TEST_TMPDIR/other"
	[[ $output == *UUID*--force* ]]
	unchanged
	run -0 qs --yes cryptrestore --force "${ID}1" "$BATS_TEST_TMPDIR/other"
	stock_opens "$(image_of 1)" "$KEY"
	[ "$(sum "$HEADERS/enc-scsi-30001.d/"[0-9]*.header)" = "$kept" ]
}

@test "an older sequence is refused: 6; --force goes back to it under a new number" {
	formatted_disk
	cp "$(backup_of 1)" "$BATS_TEST_TMPDIR/old"
	old=$(seqid "$BATS_TEST_TMPDIR/old")
	token_by_stock 1
	qs cryptbackup "${ID}1"
	token_by_stock 1
	newest=$(seqid "$(image_of 1)")
	before=$(sum "$(image_of 1)")
	run -6 qs --yes cryptrestore "${ID}1" "$BATS_TEST_TMPDIR/old"
	[[ $output == *sequence*--force* ]]
	run -6 qs --yes cryptrestore --sequence "$old" "${ID}1"
	unchanged
	run -0 --separate-stderr qs --json --yes cryptrestore --force --sequence "$old" "${ID}1"
	[ "$(answer '.devices[0].changes.tokens | "\(.from) \(.to)"')" = '["0 qs-fingerprint","1 test","2 test"] ["0 qs-fingerprint"]' ]
	[ "$(seqid "$(image_of 1)")" = "$((newest + 1))" ]
	is_whole
	# What was there is a version, and one can go back to it.
	run -6 qs --yes cryptrestore --sequence "$newest" "${ID}1"
	run -0 qs --yes cryptrestore --force --sequence "$newest" "${ID}1"
	is_whole
	cryptsetup luksDump "$(image_of 1)" | grep -q test
}

@test "an older backup for a header that is gone is refused as long as a newer one is there" {
	formatted_disk
	cp "$(backup_of 1)" "$BATS_TEST_TMPDIR/old"
	token_by_stock 1
	qs cryptbackup "${ID}1"
	accident zeros-1M
	run -6 qs --yes cryptrestore "${ID}1" "$BATS_TEST_TMPDIR/old"
	run -0 qs --yes cryptrestore "${ID}1"
	is_whole
}

@test "a truncated or damaged backup is refused whatever is forced: 4" {
	formatted_disk
	before=$(sum "$(image_of 1)")
	for size in 0 512 131072 300000 4456447; do
		head -c "$size" "$(backup_of 1)" >"$BATS_TEST_TMPDIR/cut"
		run -4 qs --yes cryptrestore --force "${ID}1" "$BATS_TEST_TMPDIR/cut"
		[[ $output == *'cannot be used'* ]]
	done
	cp "$(backup_of 1)" "$BATS_TEST_TMPDIR/flipped"
	printf x | dd of="$BATS_TEST_TMPDIR/flipped" bs=1 seek=5000 conv=notrunc status=none
	run -4 qs --yes cryptrestore --force "${ID}1" "$BATS_TEST_TMPDIR/flipped"
	mkfifo "$BATS_TEST_TMPDIR/fifo"
	run -4 qs --yes cryptrestore --force "${ID}1" "$BATS_TEST_TMPDIR/fifo"
	run -1 qs --yes cryptrestore --force "${ID}1" "$BATS_TEST_TMPDIR/absent"
	unchanged
	# The newest one is cut off: an older version takes its place.
	token_by_stock 1
	qs cryptbackup "${ID}1"
	truncate -s 300000 "$(backup_of 1)"
	accident zeros-1M
	run -0 qs --yes cryptrestore "${ID}1"
	[[ $output == *enc-scsi-30001.d/* ]]
	is_whole
}

@test "the backup of a bigger device, or of data that reach beyond the end: 4" {
	formatted_disk
	truncate -s 18M "$(image_of 1)"
	run -0 qs --yes cryptrestore "${ID}1"
	truncate -s 16M "$(image_of 1)"
	before=$(sum "$(image_of 1)")
	run -4 qs --yes cryptrestore --force "${ID}1"
	[[ $output == *'bigger device'* ]]
	unchanged
	stock_format "$(image_of 2)" "$KEY"
	fixed_size "$(image_of 2)" 67108864
	cryptsetup luksHeaderBackup "$(image_of 2)" --header-backup-file "$BATS_TEST_TMPDIR/big"
	run -4 qs --yes cryptrestore --force "${ID}2" "$BATS_TEST_TMPDIR/big"
	[[ $output == *'bigger device'* ]]
}

@test "a device that was cloned to a bigger one gets its header back" {
	formatted_disk
	truncate -s 400M "$(image_of 1)"
	accident zeros-1M
	run -0 qs --yes cryptrestore "${ID}1"
	is_whole
}

@test "a hostile backup is refused whatever is forced: 6" {
	formatted_disk
	cp "$(backup_of 1)" "$BATS_TEST_TMPDIR/null"
	"$QS_BUILD/tests/unit/mkheader" "$BATS_TEST_TMPDIR/null" null-cipher
	before=$(sum "$(image_of 1)")
	run -6 qs --yes cryptrestore --force "${ID}1" "$BATS_TEST_TMPDIR/null"
	[[ $output == *null* ]]
	unchanged
}

@test "a header edited to a null cipher: refused as another volume, --force brings the backup back" {
	formatted_disk
	"$QS_BUILD/tests/unit/mkheader" "$(image_of 1)" null-cipher
	before=$(sum "$(image_of 1)")
	run -6 qs --yes cryptrestore "${ID}1"
	[[ $output == *cipher*--force* ]]
	unchanged
	run -0 qs --yes cryptrestore --force "${ID}1"
	is_whole
}

@test "a header that wants hours of key derivation goes for its backup" {
	formatted_disk
	"$QS_BUILD/tests/unit/mkheader" "$(image_of 1)" pbkdf2-cost
	run -0 qs --yes cryptrestore "${ID}1"
	is_whole
}

@test "nothing says that the device had this header: 6 on data, restored on a blank one" {
	formatted_disk
	mkfs.ext4 -q "$(image_of 2)"
	before=$(sum "$(image_of 2)")
	run -6 qs --yes cryptrestore "${ID}2" "$(backup_of 1)"
	[[ $output == *ext4*--force* ]]
	[ "$(sum "$(image_of 2)")" = "$before" ]
	wipefs -qa "$(image_of 2)"
	dd if=/dev/zero of="$(image_of 2)" bs=1M count=1 conv=notrunc status=none
	run -0 qs --yes cryptrestore "${ID}2" "$(backup_of 1)"
	stock_opens "$(image_of 2)" "$(key_of 1)"
}

@test "a key that would not open it is a refusal: 6" {
	formatted_disk
	new_key "$(key_of 1)"
	accident zeros-1M
	before=$(sum "$(image_of 1)")
	run -6 qs --yes cryptrestore "${ID}1"
	[[ $output == *'no key at hand'* ]]
	unchanged
	run -0 qs --yes cryptrestore --force "${ID}1"
	rm "$(key_of 1)"
	accident zeros-1M
	run -0 qs --yes cryptrestore "${ID}1"
	[[ $output == *'no key tried'* ]]
}

@test "an intact header needs nothing, and nothing is asked" {
	formatted_disk
	before=$(sum "$(image_of 1)")
	run -0 qs cryptrestore "${ID}1"
	[[ $output == *'nothing to restore'* ]]
	token_by_stock 1
	before=$(sum "$(image_of 1)")
	run -0 qs cryptrestore "${ID}1"
	[[ $output == *intact* ]]
	unchanged
}

@test "without yes nothing happens: 6; --dry-run says what would" {
	formatted_disk
	accident gpt
	before=$(find "$ROOT" -type f -not -path '*/run/*' -exec sha256sum {} + | sort)
	run -6 qs cryptrestore "${ID}1"
	[[ $output == *'give --yes'* ]]
	run -0 --separate-stderr qs --json cryptrestore --dry-run "${ID}1"
	echo "$output" | "$BATS_TEST_DIRNAME/../validate-json"
	[ "$(answer '.devices[0] | "\(.restored) \(.same) \(.source.kind)"')" = 'false false backup' ]
	[[ $(answer '.devices[0].damage') == *GPT* ]]
	[ "$(find "$ROOT" -type f -not -path '*/run/*' -exec sha256sum {} + | sort)" = "$before" ]
	run -6 timeout 60 "$BATS_TEST_DIRNAME/../on-terminal" no "$QS_UTIL" --root="$ROOT" cryptrestore "${ID}1"
	run -0 timeout 60 "$BATS_TEST_DIRNAME/../on-terminal" yes "$QS_UTIL" --root="$ROOT" cryptrestore "${ID}1"
	is_whole
}

@test "a backup of the same UUID under an old name serves a disk that moved" {
	formatted_disk
	mv "$ROOT${ID}1" "$ROOT/dev/disk/by-id/scsi-3elsewhere"
	accident gpt
	printf x | dd of="$(image_of 1)" bs=1 seek=300000 conv=notrunc status=none
	run -0 qs --yes cryptrestore /dev/disk/by-id/scsi-3elsewhere
	stock_opens "$(image_of 1)" "$(key_of 1)"
	data_is_there
}

@test "LUKS1: back from its backup, what was changed since is told" {
	stock_format "$(image_of 1)" "$KEY" --type luks1
	qs cryptbackup "${ID}1"
	dd if=/dev/zero of="$(image_of 1)" bs=4k count=1 conv=notrunc status=none
	[[ $(qs cryptstatus "${ID}1" 2>&1) == *cryptrestore* ]]
	run -0 qs --yes cryptrestore "${ID}1"
	stock_opens "$(image_of 1)" "$KEY"
	printf x | dd of="$(image_of 1)" bs=1 seek=5000 conv=notrunc status=none
	[[ $(qs cryptstatus "${ID}1" 2>&1) == *'key material of keyslot 0'* ]]
	run -0 qs --yes cryptrestore "${ID}1"
	stock_opens "$(image_of 1)" "$KEY"
	new_key "$KEY.2"
	cryptsetup luksAddKey -q --pbkdf-force-iterations 1000 --key-file "$KEY" "$(image_of 1)" "$KEY.2"
	[[ $(qs cryptstatus "${ID}1") == *'another program has changed'* ]]
}

@test "stock LUKS2 of others, without a backup: the copy that is intact" {
	stock_format "$(image_of 1)" "$KEY"
	dd if=/dev/zero of="$(image_of 1)" bs=4k count=1 conv=notrunc status=none
	run -0 qs --yes cryptrestore "${ID}1"
	stock_opens "$(image_of 1)" "$KEY"
	cryptsetup luksHeaderBackup "$(image_of 1)" --header-backup-file "$BATS_TEST_TMPDIR/stock"
	cmp "$BATS_TEST_TMPDIR/stock" "$(backup_of 1)"
}

@test "unfinished work of another kind: 6; --force puts the header back instead" {
	formatted_disk
	mkdir -p "$ROOT/etc/cryptconf/pending"
	echo "{\"op\":\"destroy\",\"uuid\":\"\",\"device\":\"${ID}1\"}" \
		>"$ROOT/etc/cryptconf/pending/enc-scsi-30001.json"
	accident zeros-1M
	run -6 qs --yes cryptrestore "${ID}1"
	[[ $output == *cryptdestroy*--force* ]]
	run -0 qs --yes cryptrestore --force "${ID}1"
	is_whole
}

@test "cryptdestroy erases versions and kept bytes too" {
	formatted_disk
	accident gpt
	qs --yes cryptrestore "${ID}1"
	ls "$HEADERS/enc-scsi-30001.d/"damaged-*.raw
	qs --yes cryptdestroy "${ID}1"
	[ -z "$(ls "$HEADERS")" ]
}

@test "FILE and --sequence together, a file that is no device, no arguments" {
	formatted_disk
	run -64 qs cryptrestore --sequence 3 "${ID}1" "$(backup_of 1)"
	run -64 qs cryptrestore
	run -1 qs --yes cryptrestore --sequence 99 "${ID}1"
	[[ $output == *'--list'* ]]
	run -4 qs --yes cryptrestore "${ID}2"
	run -4 qs --yes cryptrestore "${ID}9"
}
