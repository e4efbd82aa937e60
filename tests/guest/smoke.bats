#!/usr/bin/env bats
# The harness itself, with stock tools only: if this fails, no other guest test
# means anything.
#
# guest: --no-bin
# guest: --disk virtio:d1:32M --disk scsi:d2:32M --disk nvme:d3:32M
# guest: --disk virtio:big1:300M --disk virtio:big2:300M
# guest: --disk virtio:native:64M:logical_block_size=4096:physical_block_size=4096
# guest: --disk scsi:sas:32M:wwn=0x5000c50015ea71aa:vendor=TOSHIBA:product=MK1001TRKB
# guest: --disk virtio:eio:64M --blkdebug eio:@dir/smoke-eio.blkdebug

load lib

@test "every bus makes its links in by-id" {
	[ -b /dev/disk/by-id/virtio-d1 ]
	[ -b /dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_d2 ]
	[ -b /dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_d3 ]
	[[ $(dev_of d1) == /dev/vd? ]]
	[[ $(dev_of d2) == /dev/sd? ]]
	[[ $(dev_of d3) == /dev/nvme?n1 ]]
}

@test "a SCSI disk with a world wide name is called by it" {
	[ -b /dev/disk/by-id/scsi-35000c50015ea71aa ]
	[ -b /dev/disk/by-id/wwn-0x5000c50015ea71aa ]
	[[ $(lsblk -dno MODEL "$(dev_of sas)") == MK1001TRKB ]]
}

@test "udev's database knows the disks" {
	run -0 udevadm info --query=property --property=ID_SERIAL_SHORT --value "$(dev_of d3)"
	[ "$output" = d3 ]
	[ "$(link_of d3)" = /dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_d3 ]
}

@test "a disk with native 4096 byte sectors" {
	[ "$(blockdev --getss "$(dev_of native)")" -eq 4096 ]
}

@test "LUKS2 on each bus: format, open, same data after reopening, close" {
	local serial device sum
	for serial in d1 d2 d3; do
		device=$(dev_of "$serial")
		cryptsetup luksFormat -q --type luks2 "${FAST_PBKDF[@]}" "$device" - <<<secret
		cryptsetup open -d - "$device" "enc-$serial" <<<secret
		[ -b "/dev/mapper/enc-$serial" ]
		dd if=/dev/urandom of="/dev/mapper/enc-$serial" bs=1M count=4 oflag=direct status=none
		sum=$(sha256_of "/dev/mapper/enc-$serial")
		cryptsetup close "enc-$serial"
		[ ! -e "/dev/mapper/enc-$serial" ]
		cryptsetup open -d - "$device" "enc-$serial" <<<secret
		[ "$(sha256_of "/dev/mapper/enc-$serial")" = "$sum" ]
		cryptsetup close "enc-$serial"
	done
	blank "$(dev_of d1)" "$(dev_of d2)" "$(dev_of d3)"
	run ! cryptsetup isLuks "$(dev_of d1)"
}

@test "udev links a formatted disk by its UUID" {
	local uuid=b0a5d5b4-6c1b-4a0f-9d53-51e1fb1a2c34
	cryptsetup luksFormat -q --uuid "$uuid" "${FAST_PBKDF[@]}" "$(dev_of d1)" - <<<secret
	wait_for test -b "/dev/disk/by-uuid/$uuid"
	[ "$(readlink -f "/dev/disk/by-uuid/$uuid")" = "$(dev_of d1)" ]
	blank "$(dev_of d1)"
	wait_while test -e "/dev/disk/by-uuid/$uuid"
}

@test "scsi_debug disks come with scsi-3 links" {
	run -0 load_scsi_debug dev_size_mb=32 num_tgts=2
	[ "${#lines[@]}" -ge 2 ]
	[[ ${lines[0]} == /dev/disk/by-id/scsi-3* ]]
	unload_scsi_debug
	wait_while test -e "${lines[1]}"
}

@test "partitions have links of their own" {
	local disk
	disk=$(dev_of d1)
	sfdisk --quiet "$disk" <<<$'label: gpt\nsize=16M\nsize=16M'
	wait_for test -b /dev/disk/by-id/virtio-d1-part2
	sfdisk --quiet --delete "$disk"
	blank "$disk"
}

@test "an md mirror can be made, and holds its members" {
	local one two
	one=$(dev_of d1) two=$(dev_of d2)
	make_raid1 test "$one" "$two"
	[ -b /dev/md/test ]
	[ -n "$(ls "/sys/block/${one#/dev/}/holders")" ]
	[ "$(blkid -po value -s TYPE "$two")" = linux_raid_member ]
	mdadm --stop --quiet /dev/md/test
	blank "$one" "$two"
}

@test "an LVM volume can be made, and holds its disk" {
	local disk
	disk=$(dev_of d1)
	make_lv group volume "$disk"
	[ -b /dev/group/volume ]
	[ -n "$(ls "/sys/block/${disk#/dev/}/holders")" ]
	vgremove -qqfy group
	blank "$disk"
}

@test "a map that looks like multipath's" {
	local disk
	disk=$(dev_of d1)
	make_mpath mpatha "$disk"
	[[ $(<"/sys/block/${disk#/dev/}/holders/$(basename "$(readlink -f /dev/mapper/mpatha)")/dm/uuid") == mpath-mpatha ]]
	dmsetup remove mpatha
}

@test "ext4, XFS, btrfs and swap can be made and are used" {
	local type disk
	disk=$(dev_of big1)
	mkdir -p /mnt/data
	for type in ext4 xfs btrfs; do
		blank "$disk"
		make_fs "$type" "$disk"
		wait_for test -b /dev/disk/by-label/data
		mount "$disk" /mnt/data
		echo "$type" >/mnt/data/file
		umount /mnt/data
	done
	blank "$disk"
	make_fs swap "$disk"
	swapon "$disk"
	grep -q "^$disk " /proc/swaps
	swapoff "$disk"
	blank "$disk"
}

@test "btrfs over two disks" {
	local one two
	one=$(dev_of big1) two=$(dev_of big2)
	mkfs.btrfs -q -f "$one" "$two"
	wait_for_udev "$one" udev_has "$one" ID_FS_TYPE=btrfs
	wait_for_udev "$two" udev_has "$two" ID_FS_TYPE=btrfs
	mkdir -p /mnt/data
	mount "$two" /mnt/data
	umount /mnt/data
	blank "$one" "$two"
}

@test "dm targets error and flakey" {
	local disk sectors
	disk=$(dev_of d1)
	sectors=$(blockdev --getsz "$disk")
	dmsetup create bad <<<$"0 2048 linear $disk 0
2048 8 error
2056 $((sectors - 2056)) linear $disk 2056"
	dd if=/dev/mapper/bad of=/dev/null bs=4096 count=1 iflag=direct status=none
	run ! dd if=/dev/mapper/bad of=/dev/null bs=4096 skip=256 count=1 iflag=direct
	dmsetup remove bad
	dmsetup create flaky --table "0 $sectors flakey $disk 0 0 1 1 error_writes"
	run ! dd if=/dev/zero of=/dev/mapper/flaky bs=4096 count=1 oflag=direct
	dmsetup remove flaky
}

@test "blkdebug: EIO at the sector of the rule and nowhere else" {
	local disk
	disk=$(dev_of eio)
	dd if=/dev/zero of="$disk" bs=4096 count=1 seek=255 oflag=direct status=none
	run ! dd if=/dev/zero of="$disk" bs=4096 count=1 seek=256 oflag=direct
	[[ $output == *"Input/output error"* ]]
	dd if="$disk" of=/dev/null bs=4096 count=1 skip=256 iflag=direct status=none
}

@test "Debian's cryptdisks functions read crypttab" {
	local disk
	disk=$(dev_of d1)
	head -c 64 /dev/urandom >/root/key
	cryptsetup luksFormat -q "${FAST_PBKDF[@]}" "$disk" /root/key
	echo "stock /dev/disk/by-id/virtio-d1 /root/key luks" >/etc/crypttab
	cryptdisks_start stock
	[ -b /dev/mapper/stock ]
	cryptdisks_stop stock
	: >/etc/crypttab
	blank "$disk"
}

@test "files can be kept on the host" {
	dmesg >/tmp/dmesg.txt
	keep /tmp/dmesg.txt
}
