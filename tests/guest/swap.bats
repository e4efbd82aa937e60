#!/usr/bin/env bats
# Encrypted swap over a reboot: on partitions of two buses, on LVM and on md, from
# the next start on, with systemd's and Debian's reading of the tables as judges.
#
# guest: --memory 768
# guest: --disk virtio:s1:48M --disk scsi:s2:48M --disk virtio:pv:48M
# guest: --disk virtio:m1:48M --disk virtio:m2:48M
# guest-boots: 2
# guest-boot 2: --systemd

load lib
load swap

readonly S1=/dev/disk/by-id/virtio-s1-part2 S2=/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_s2-part1
readonly LV=/dev/disk/by-id/dm-name-vg0-swap

names()
{
	printf '%s\n' enc-virtio-s1-part2 enc-scsi-0QEMU_QEMU_HARDDISK_s2-part1 enc-dm-name-vg0-swap \
		"$(md_name)"
}

md_link()
{
	local link
	for link in /dev/disk/by-id/md-name-*; do
		[[ $(readlink -f "$link") == /dev/md* ]] && echo "$link" && return
	done
}

md_name()
{
	sed -n 's/^\(enc-md-[^ ]*\) .*/\1/p' /etc/crypttab
}

# What systemd makes of the line of $1, and what Debian reads: the same.
judges_agree()
{
	local unit read
	unit=$(systemctl cat "systemd-cryptsetup@$(systemd-escape "$1").service")
	echo "$unit"
	grep -q "attach '$1' '/dev/disk/by-id/[^']*' '/dev/urandom' 'swap,cipher=aes-xts-plain64,size=512,plain,sector-size=4096" <<<"$unit" &&
		grep -q "makefs swap '/dev/mapper/$1'" <<<"$unit" || return
	# shellcheck disable=SC2016 # for the inner shell
	read=$(sh -euc '. /lib/cryptsetup/functions
		TABFILE=/etc/crypttab
		crypttab_find_entry "$1"
		crypttab_parse_options --quiet
		echo "$CRYPTTAB_TYPE $CRYPTTAB_KEY $CRYPTTAB_OPTION_cipher $CRYPTTAB_OPTION_size $CRYPTTAB_OPTION_sector_size $CRYPTTAB_OPTION_swap"' - "$1")
	echo "Debian: $read"
	[ "$read" = 'plain /dev/urandom aes-xts-plain64 512 4096 yes' ]
}

@test "boot 1: four swaps hold plaintext" {
	sfdisk --quiet "$(dev_of s1)" <<<$'label: gpt\nsize=4M\nsize=40M, type=swap'
	sfdisk --quiet "$(dev_of s2)" <<<$'label: dos\nsize=40M, type=82'
	make_lv vg0 swap "$(dev_of pv)"
	make_raid1 swap "$(dev_of m1)" "$(dev_of m2)"
	wait_for test -b "$S1"
	wait_for test -b "$S2"
	for device in "$S1" "$S2" /dev/vg0/swap /dev/md/swap; do
		fill "$device"
		mkswap -q "$device"
		wait_for_udev "$(readlink -f "$device")" udev_has "$device" ID_FS_TYPE=swap
	done
	{
		echo "# the swaps, as somebody left them"
		echo "UUID=$(blkid -o value -s UUID "$S1") none swap sw,pri=7,nofail 0 0"
		printf '%s\tswap\tswap\tdefaults\t0\t0\n' "$(readlink -f "$S2")"
		echo "/dev/mapper/vg0-swap none swap sw 0 0 # on LVM"
		echo "UUID=$(blkid -o value -s UUID /dev/md/swap) none swap discard"
	} >>/etc/fstab
	mkdir -p /etc/initramfs-tools/conf.d
	echo "RESUME=UUID=$(blkid -o value -s UUID "$S1")" >/etc/initramfs-tools/conf.d/resume
	swapon -a
	[ "$(active | wc -l)" -eq 4 ]
	swap_out 24
	# The fourth discards what is on it when it is switched on.
	for device in "$S1" "$S2" /dev/vg0/swap; do pattern_on "$device"; done
}

@test "boot 1: a swap file is refused with the way out, the others are done" {
	fallocate -l 16M /swapfile
	chmod 600 /swapfile
	mkswap -q /swapfile
	swapon /swapfile
	run -4 qs-util cryptswap /swapfile
	[[ $output == *'swap file'*'partition'* ]]
	is_active /swapfile || grep -q ^/swapfile /proc/swaps
	swapoff /swapfile
	rm /swapfile
}

@test "boot 1: resume= on the kernel's command line is refused, and nothing changes" {
	local before
	before=$(cat /etc/fstab; active)
	sed "s|\$| resume=UUID=$(blkid -o value -s UUID "$S1")|" /proc/cmdline | tr -d '\n' >/run/cmdline
	mount --bind /run/cmdline /proc/cmdline
	run -6 qs-util cryptswap "$S1"
	umount /proc/cmdline
	[[ $output == *'resume='*'/proc/cmdline'* ]]
	[ "$(cat /etc/fstab; active)" = "$before" ]
}

@test "boot 1: cryptswap takes the plaintext away and writes both tables" {
	run -0 --separate-stderr qs-util --json cryptswap
	jq -e '[.devices[] | select(.state == "next-start" and .wiped > 40000000)] | length == 4' <<<"$output"
	jq -e '[.devices[] | select(.update_initramfs)] | length == 1' <<<"$output"
	[ -z "$(active)" ]
	for device in "$S1" "$S2" "$LV" /dev/md/swap; do run ! pattern_on "$device"; done
	[ "$(grep -c '^enc-.*/dev/disk/by-id/.* /dev/urandom ' /etc/crypttab)" -eq 4 ]
	grep -qx '# the swaps, as somebody left them' /etc/fstab
	grep -qx '/dev/mapper/enc-virtio-s1-part2 none swap sw,pri=7,nofail 0 0' /etc/fstab
	grep -qxP '/dev/mapper/enc-scsi-0QEMU_QEMU_HARDDISK_s2-part1\tswap\tswap\tdefaults\t0\t0' /etc/fstab
	grep -qx '/dev/mapper/enc-dm-name-vg0-swap none swap sw 0 0 # on LVM' /etc/fstab
	grep -qx '/dev/mapper/enc-md-.* none swap discard' /etc/fstab
	grep -q '^enc-virtio-s1-part2 .*,nofail$' /etc/crypttab
	grep -q '^enc-md-.*,discard$' /etc/crypttab
	[ "$(</etc/initramfs-tools/conf.d/resume)" = RESUME=none ]
	findmnt --verify 2>&1 | grep -q '0 parse errors'
	swap_in
}

@test "boot 2: swapon lists the mappings, each with a key and options of its own" {
	local name
	for name in $(names); do wait_for is_active "/dev/mapper/$name"; done
	swapon --show
	[ "$(active | wc -l)" -eq 4 ]
	[ "$(swapon --show=PRIO --noheadings --raw | grep -cx 7)" -eq 1 ]
	for name in $(names); do
		dmsetup table "$name" | grep -q 'crypt aes-xts-plain64 .* sector_size:4096'
		judges_agree "$name"
	done
}

@test "boot 2: what was in plaintext swap is on no disk, what is swapped out now neither" {
	local disk
	swap_out 24
	sync
	for disk in s1 s2 pv m1 m2; do run ! pattern_on "$(dev_of "$disk")"; done
}

@test "boot 2: a second cryptswap has nothing to do, with or without --now" {
	run -0 qs-util cryptswap
	[ "$(grep -c 'already encrypted' <<<"$output")" -eq 4 ]
	run -0 qs-util cryptswap --now
	[ "$(grep -c 'already encrypted' <<<"$output")" -eq 4 ]
	[ "$(active | wc -l)" -eq 4 ]
}

@test "boot 2: other commands leave the swaps alone" {
	run -0 qs-util cryptcloseall
	run -0 qs-util cryptopenall
	run ! grep -q enc- <<<"$output"
	[ "$(active | wc -l)" -eq 4 ]
	run -5 qs-util cryptclose enc-virtio-s1-part2
	[[ $output == *swap* ]]
	run -5 qs-util cryptformat "$S1"
}

@test "boot 2: Debian's own scripts open and close what we wrote" {
	swapoff /dev/mapper/enc-virtio-s1-part2
	systemctl stop "systemd-cryptsetup@$(systemd-escape enc-virtio-s1-part2)"
	[ ! -e /dev/mapper/enc-virtio-s1-part2 ]
	# The functions, because the command hands over to systemd where that runs.
	sh -c '. /lib/cryptsetup/cryptdisks-functions && INITSTATE=manual do_start' >/dev/null
	wait_for test -b /dev/mapper/enc-virtio-s1-part2
	dmsetup table enc-virtio-s1-part2 | grep -q 'crypt aes-xts-plain64 .* sector_size:4096'
	swapon /dev/mapper/enc-virtio-s1-part2
}
