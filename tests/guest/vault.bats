#!/usr/bin/env bats
# The header vault on real disks: a header broken under data that are in use, by
# the tools that do it, and mended; what the kernel thinks of it; stock tools as
# judges.
#
# guest: --disk scsi:d1:64M --disk virtio:d2:64M

load lib

setup_file()
{
	export DISK LINK NAME MAPPER
	DISK=$(dev_of d1)
	LINK=/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_d1
	NAME=enc-scsi-0QEMU_QEMU_HARDDISK_d1
	MAPPER=/dev/mapper/$NAME
	head -c 1M /dev/urandom >/root/data
	qs-util cryptformat "$DISK" "$(dev_of d2)"
	mkfs.ext4 -q "$MAPPER"
	mount "$MAPPER" /mnt
	cp /root/data /mnt/data
	umount /mnt
}

data_is_there()
{
	e2fsck -fn "$MAPPER" && mount -o ro "$MAPPER" /mnt && cmp /root/data /mnt/data && umount /mnt
}

opens_and_holds_data()
{
	cryptsetup open --test-passphrase --key-file "/etc/cryptconf/keys/$NAME.key" "$DISK" &&
		qs-util cryptopen "$DISK" && wait_for test -b "$MAPPER" && data_is_there
}

# The data of the header as cryptsetup sees it, and nobody else's signature in its place.
is_luks_again()
{
	cryptsetup isLuks "$DISK" && cmp -n 4456448 "/etc/cryptconf/headers/$NAME.header" "$DISK" &&
		wait_for_udev "$DISK" udev_has "$DISK" ID_FS_TYPE=crypto_LUKS
}

@test "cryptbackup of all disks, by node, link, mapping and UUID" {
	run -0 qs-util cryptbackup
	[ "${#lines[@]}" -eq 2 ]
	for word in "$DISK" "$LINK" "$NAME" "$MAPPER" "$(cryptsetup luksUUID "$DISK")"; do
		run -0 qs-util cryptbackup "$word"
		[[ $output == *'same as before'* ]]
	done
}

@test "the header is overwritten while its data are mounted: restored below them" {
	qs-util cryptopen "$DISK"
	mount "$MAPPER" /mnt
	dd if=/dev/zero of="$DISK" bs=1M count=1 conv=fsync status=none
	[[ $(qs-util cryptstatus "$DISK" 2>&1) == *'no LUKS header'*cryptrestore* ]]
	run -0 qs-util --yes cryptrestore "$DISK"
	cp /root/data /mnt/more
	umount /mnt
	qs-util cryptclose "$DISK"
	is_luks_again
	opens_and_holds_data
	qs-util cryptclose "$DISK"
}

@test "a partition table that the kernel has read: gone again with the restore" {
	sgdisk -o -n 1:0:+8M "$DISK"
	blockdev --rereadpt "$DISK"
	wait_for test -b "${DISK}1"
	run ! cryptsetup isLuks "$DISK"
	[[ $(qs-util cryptstatus "$DISK" 2>&1) == *GPT*cryptrestore* ]]
	run -0 qs-util --yes cryptrestore "$DISK"
	wait_while test -b "${DISK}1"
	is_luks_again
	opens_and_holds_data
	qs-util cryptclose "$DISK"
}

@test "a mounted partition on it: 5, and nothing changes" {
	printf 'label: dos\n,8M\n' | sfdisk -q "$DISK"
	wait_for test -b "${DISK}1"
	mkfs.ext4 -q -E nodiscard "${DISK}1"
	mount "${DISK}1" /mnt
	before=$(dd if="$DISK" bs=1M count=5 iflag=direct status=none | sha256sum)
	run -5 qs-util --yes cryptrestore --force "$DISK"
	[ "$(dd if="$DISK" bs=1M count=5 iflag=direct status=none | sha256sum)" = "$before" ]
	umount /mnt
	run -0 qs-util --yes cryptrestore "$DISK"
	is_luks_again
	opens_and_holds_data
	qs-util cryptclose "$DISK"
}

@test "open from another header: 5, whatever is forced" {
	qs-util cryptopen "$DISK"
	before=$(dd if="$DISK" bs=1M count=5 iflag=direct status=none | sha256sum)
	run -5 qs-util --yes cryptrestore --force "$DISK" /etc/cryptconf/headers/enc-virtio-d2.header
	[[ $output == *'open as'* ]]
	[ "$(dd if="$DISK" bs=1M count=5 iflag=direct status=none | sha256sum)" = "$before" ]
	qs-util cryptclose "$DISK"
}

@test "a read-only disk: a clean refusal" {
	dd if=/dev/zero of="$DISK" bs=4k count=1 conv=fsync status=none
	blockdev --setro "$DISK"
	run -4 qs-util --yes cryptrestore "$DISK"
	[[ $output == *read-only* ]]
	blockdev --setrw "$DISK"
	run -0 qs-util --yes cryptrestore "$DISK"
	opens_and_holds_data
	qs-util cryptclose "$DISK"
}
