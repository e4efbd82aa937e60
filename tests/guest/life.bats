#!/usr/bin/env bats
# The life of disks on three buses, with stock tools as judges: format, open by
# systemd's and cryptsetup's own ways, reboot, open all, destroy.
#
# guest: --disk virtio:d1:64M --disk scsi:d2:64M --disk nvme:d3:64M
# guest: --disk scsi:d4:64M:wwn=0x5000c50015ea71aa:vendor=TOSHIBA:product=MK1001TRKB
# guest-boots: 2

load lib

readonly links=(
	/dev/disk/by-id/virtio-d1
	/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_d2
	/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_d3
	/dev/disk/by-id/scsi-35000c50015ea71aa
)

name_of()
{
	echo "enc-${1##*/}"
}

# For each link as $link with its $name, run the rest of the line.
each()
{
	local link name
	for link in "${links[@]}"; do
		# shellcheck disable=SC2034 # for the function that is called
		name=$(name_of "$link")
		"$@" || { echo "failed for $link: $*" >&2; return 1; }
	done
}

# A loop device: no by-id link leads to it. One for all tests.
nameless()
{
	local file=/root/nameless.img
	[ -e "$file" ] || truncate -s 64M "$file"
	losetup -nO NAME -j "$file" | grep . || losetup -f --show "$file"
}

header_is_as_documented()
{
	local dump
	dump=$(cryptsetup luksDump "$link") || return
	grep -qE '^Version:\s+2$' <<<"$dump" &&
		grep -qE '^Metadata area:\s+131072 ' <<<"$dump" &&
		grep -qE '^Keyslots area:\s+4194304 ' <<<"$dump" &&
		grep -qE "^Label:\s+$name\$" <<<"$dump" &&
		grep -qE '^Subsystem:\s+qs-util$' <<<"$dump" &&
		grep -qE 'offset: 16777216 ' <<<"$dump" &&
		grep -qE 'cipher: aes-xts-plain64' <<<"$dump" &&
		grep -qE 'sector: 4096 ' <<<"$dump" &&
		grep -qE 'Key:\s+512 bits' <<<"$dump" &&
		grep -qE 'PBKDF:\s+pbkdf2' <<<"$dump" &&
		grep -qE 'Iterations: 1000$' <<<"$dump"
}

files_are_as_documented()
{
	[ "$(stat -c '%s %a %u' "/etc/cryptconf/keys/$name.key")" = '1048576 400 0' ] &&
		cryptsetup luksDump "/etc/cryptconf/headers/$name.header" >/dev/null &&
		cmp -n 4456448 "/etc/cryptconf/headers/$name.header" "$link" &&
		[ "$(stat -c %s "/etc/cryptconf/headers/$name.header")" = 4456448 ] &&
		grep -qxF "$name  $link  /etc/cryptconf/keys/$name.key  luks" /etc/crypttab
}

mapping_is_there()
{
	wait_for test -b "/dev/disk/by-id/dm-name-$name" &&
		dmsetup table "$name" | grep -q 'crypt aes-xts-plain64 .* sector_size:4096'
}

write_data()
{
	mkfs.ext4 -q "/dev/mapper/$name" && mount "/dev/mapper/$name" /mnt &&
		cp /root/data /mnt/ && umount /mnt
}

data_is_there()
{
	mount -o ro "/dev/mapper/$name" /mnt && cmp /root/data /mnt/data && umount /mnt
}

opens_with_stock_cryptsetup()
{
	cryptsetup open --key-file "/etc/cryptconf/keys/$name.key" "$link" stock &&
		mount -o ro /dev/mapper/stock /mnt && cmp /root/data /mnt/data && umount /mnt &&
		cryptsetup close stock
}

is_closed()
{
	[ ! -e "/dev/mapper/$name" ]
}

# What systemd's generator makes of the line, run by hand as the unit would.
opens_with_systemd()
{
	local start
	start=$(sed -n 's/^ExecStart=//p' "$BATS_FILE_TMPDIR/units/systemd-cryptsetup@$(systemd-escape "$name").service")
	eval "${start//%%/%}" && data_is_there && /lib/systemd/systemd-cryptsetup detach "$name"
}

@test "boot 1: devicemap prints the documented line" {
	run -0 qs-util devicemap
	grep -qxP "$(dev_of d4)\t/dev/disk/by-id/scsi-35000c50015ea71aa, TOSHIBA, MK1001TRKB, .+" <<<"$output"
	grep -qxP "$(dev_of d1)\t/dev/disk/by-id/virtio-d1, , , d1" <<<"$output"
	[ "${#lines[@]}" -eq 5 ]
}

@test "boot 1: devicemap --json has the fields" {
	run -0 --separate-stderr qs-util devicemap --json
	jq -e '[.devices[] | select(.transport == "nvme" and .size == 67108864)] | length == 1' <<<"$output"
	jq -e '.devices[] | select(.by_id == "/dev/disk/by-id/virtio-d1") | .transport == "virtio"' <<<"$output"
	jq -e '[.devices[] | select(.uses[]?.kind == "system")] | length == 1' <<<"$output"
}

@test "boot 1: cryptformat of four disks at once" {
	run -0 qs-util cryptformat "${links[@]}"
	each header_is_as_documented
	each files_are_as_documented
	each mapping_is_there
	[ -z "$(ls /etc/cryptconf/pending)" ]
}

@test "boot 1: fast disks get the workqueue flags, and the mapping has them" {
	# QEMU's scsi-hd says that it rotates unless told otherwise.
	local link=${links[2]}
	[ "$(cat /sys/block/nvme0n1/queue/rotational)" = 0 ]
	cryptsetup luksDump "$link" | grep -q 'Flags:.*no-read-workqueue no-write-workqueue'
	dmsetup table "$(name_of "$link")" | grep -q 'no_read_workqueue no_write_workqueue'
}

@test "boot 1: a disk without a by-id link is named by its UUID" {
	local device uuid
	device=$(nameless)
	run -0 qs-util cryptformat "$device"
	uuid=$(cryptsetup luksUUID "$device")
	[ "$(readlink -f "/dev/disk/by-uuid/$uuid")" = "$device" ]
	[ -b "/dev/mapper/enc-uuid-$uuid" ]
	grep -qxF "enc-uuid-$uuid  /dev/disk/by-uuid/$uuid  /etc/cryptconf/keys/enc-uuid-$uuid.key  luks" /etc/crypttab
	run -0 qs-util cryptclose "enc-uuid-$uuid"
	run -0 qs-util cryptopen "$uuid"
	run -0 qs-util cryptdestroy --yes "$device"
	run ! grep -q "$uuid" /etc/crypttab
}

@test "boot 1: files written are read back after closing and opening" {
	head -c 1M /dev/urandom >/root/data
	each write_data
	run -0 qs-util cryptcloseall
	each is_closed
	run -0 qs-util cryptopenall
	each data_is_there
	run -0 qs-util cryptopenall
	[[ $output == *'already open'* ]]
}

@test "boot 1: opened by node, link, mapper name and UUID; the same again is success" {
	local link=${links[0]} name
	name=$(name_of "$link")
	for word in "$(dev_of d1)" "$link" "$name" "/dev/mapper/$name" "$(cryptsetup luksUUID "$link")"; do
		run -0 qs-util cryptclose "$word"
		[ ! -e "/dev/mapper/$name" ]
		run -0 qs-util cryptopen "$word"
		[ -b "/dev/mapper/$name" ]
		run -0 qs-util cryptopen "$word"
	done
}

@test "boot 1: the documented spelling with key file and updatecrypttab" {
	local link=${links[0]} name
	name=$(name_of "$link")
	cp "/etc/cryptconf/keys/$name.key" /root/k.key
	chmod 0400 /root/k.key
	qs-util cryptclose "$name"
	sed -i "/^$name /d" /etc/crypttab
	run -0 qs-util cryptopen "$(dev_of d1)" /root/k.key updatecrypttab
	grep -qxF "$name  $link  /root/k.key  luks" /etc/crypttab
	qs-util cryptclose "$name"
	run -0 qs-util cryptopen "$(dev_of d1)" "/etc/cryptconf/keys/$name.key" updatecrypttab
	each files_are_as_documented
}

@test "boot 1: read-only and discards reach the kernel" {
	local link=${links[0]} name
	name=$(name_of "$link")
	qs-util cryptclose "$name"
	run -0 qs-util cryptopen --read-only "$link"
	[ "$(blockdev --getro "/dev/mapper/$name")" = 1 ]
	qs-util cryptclose "$name"
	run -0 qs-util cryptopen --allow-discards "$link"
	dmsetup table "$name" | grep -q allow_discards
}

@test "boot 1: closing a mounted device names the mount and keeps it" {
	local name
	name=$(name_of "${links[1]}")
	mount "/dev/mapper/$name" /mnt
	run -5 qs-util cryptclose "${links[1]}"
	[[ $output == *'/mnt'* ]]
	[ -b "/dev/mapper/$name" ]
	umount /mnt
}

@test "boot 1: cryptsetup opens what we formatted" {
	run -0 qs-util cryptcloseall
	each opens_with_stock_cryptsetup
}

@test "boot 1: systemd's generator makes units from our lines that open" {
	mkdir "$BATS_FILE_TMPDIR/units"
	SYSTEMD_CRYPTTAB=/etc/crypttab RUNTIME_DIRECTORY="$BATS_FILE_TMPDIR/units" \
		/lib/systemd/system-generators/systemd-cryptsetup-generator "$BATS_FILE_TMPDIR/units" \
		"$BATS_FILE_TMPDIR/units" "$BATS_FILE_TMPDIR/units"
	each opens_with_systemd
}

@test "boot 1: cryptstatus tells the state of each, and writes nothing" {
	local before
	before=$(sha256_of "$(dev_of d1)")
	run -0 --separate-stderr qs-util --json cryptstatus
	jq -e '[.devices[] | select(.state == "closed" and .crypttab.agrees and .backup.agrees)] | length == 4' <<<"$output"
	run -0 qs-util cryptstatus "${links[0]}"
	[ "$(sha256_of "$(dev_of d1)")" = "$before" ]
}

@test "boot 1: a LUKS1 device of somebody else opens and closes" {
	local device
	device=$(nameless)
	blank "$device"
	head -c 64 /dev/urandom >/root/luks1.key
	chmod 0400 /root/luks1.key
	cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 "$device" /root/luks1.key
	settle
	run -0 qs-util cryptopen "$device" /root/luks1.key
	[ -b "/dev/mapper/enc-uuid-$(cryptsetup luksUUID "$device")" ]
	run -0 qs-util cryptclose "$device"
	blank "$device"
}

@test "boot 2: cryptopenall brings everything back with its data" {
	# Nothing is mapped after a reboot of this guest, which has no systemd.
	each is_closed
	run -0 --separate-stderr qs-util --json cryptopenall
	jq -e '.ok and (.devices | length == 4)' <<<"$output"
	each data_is_there
}

@test "boot 2: opening makes udev examine no disk anew" {
	local before
	qs-util cryptcloseall
	settle
	before=$(</sys/kernel/uevent_seqnum)
	qs-util cryptopenall
	settle
	# Three of each mapping: its bdi, its node, its table.
	[ "$(</sys/kernel/uevent_seqnum)" -eq $((before + 3 * ${#links[@]})) ]
}

@test "boot 2: without the right to make device nodes it opens, too" {
	qs-util cryptclose "${links[1]}"
	run -0 setpriv --bounding-set=-mknod qs-util cryptopen "${links[1]}"
}

@test "boot 2: cryptdestroy leaves nothing that opens, and a second run says so" {
	local link=${links[3]} name
	name=$(name_of "$link")
	cp "/etc/cryptconf/keys/$name.key" /root/saved.key
	run -6 qs-util cryptdestroy "$link"
	run -0 qs-util cryptdestroy --yes "$link"
	run ! cryptsetup isLuks "$link"
	run ! cryptsetup open --test-passphrase --key-file /root/saved.key "$link"
	[ -z "$(wipefs -n "$link")" ]
	[ ! -e "/etc/cryptconf/keys/$name.key" ]
	[ ! -e "/etc/cryptconf/headers/$name.header" ]
	[ ! -e "/dev/mapper/$name" ]
	run ! grep -q "$name" /etc/crypttab
	[ "$(grep -c '^enc-' /etc/crypttab)" = 3 ]
	run -4 qs-util cryptdestroy --yes "$link"
	run -0 qs-util cryptformat "$link"
}

@test "boot 2: a destroy of a mounted device changes nothing" {
	local link=${links[0]} name
	name=$(name_of "$link")
	mount "/dev/mapper/$name" /mnt
	run -5 qs-util cryptdestroy --yes "$link"
	[[ $output == *'/mnt'* ]]
	umount /mnt
	run -0 cryptsetup open --test-passphrase --key-file "/etc/cryptconf/keys/$name.key" "$link"
}

@test "boot 2: a mapping whose disk was pulled is named, and can be closed" {
	local link=${links[1]} name disk
	name=$(name_of "$link")
	disk=$(basename "$(dev_of d2)")
	echo 1 >"/sys/block/$disk/device/delete"
	wait_while test -e "$link"
	run -0 qs-util cryptstatus
	[[ $output == *absent* ]]
	run -0 qs-util cryptopenall
	[[ $output == *absent* ]]
	run -0 qs-util cryptclose "$name"
	[ ! -e "/dev/mapper/$name" ]
}
