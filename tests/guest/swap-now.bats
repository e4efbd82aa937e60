#!/usr/bin/env bats
# cryptswap --now: the switch in one boot, its undo when a step fails, and a kill at
# every step. (Kills and faults of the tables are in tests/fault.)
#
# guest: --memory 640 --disk virtio:a:12M --disk virtio:b:64M

load lib
load swap

readonly LINK=/dev/disk/by-id/virtio-a NAME=enc-virtio-a
readonly UUID=0d6f8a52-58a1-4f04-93f2-0a6a3e0f9c11
readonly LINE="UUID=$UUID none swap sw,pri=9 0 0"

setup()
{
	plain
}

teardown()
{
	umount -q /sbin/mkswap /sbin/swapon /proc/meminfo || true
	swapoff -a || true
	dmsetup remove_all -f 2>/dev/null || true
	rm -rf /etc/cryptconf/pending
}

# An active swap as an installer leaves it, with a life behind it.
plain()
{
	swapoff -a
	dmsetup remove_all -f 2>/dev/null || true
	rm -rf /etc/cryptconf/pending /etc/crypttab
	fill "$LINK"
	mkswap -q -U "$UUID" "$LINK"
	echo "$LINE" >/etc/fstab
	wait_for_udev "$(readlink -f "$LINK")" test -e "/dev/disk/by-uuid/$UUID"
	swapon -a
}

# Everything as plain() left it.
is_plain()
{
	is_active "$LINK" && [ "$(active | wc -l)" -eq 1 ] &&
		[ "$(swapon --show=PRIO --noheadings --raw)" -eq 9 ] &&
		[ "$(</etc/fstab)" = "$LINE" ] && [ ! -e /etc/crypttab ] &&
		[ "$(blkid -p -o value -s UUID "$LINK")" = "$UUID" ] &&
		[ ! -e "/dev/mapper/$NAME" ] && [ -z "$(ls /etc/cryptconf/pending)" ]
}

is_encrypted()
{
	is_active "/dev/mapper/$NAME" && [ "$(active | wc -l)" -eq 1 ] &&
		[ "$(swapon --show=PRIO --noheadings --raw)" -eq 9 ] &&
		grep -qx "/dev/mapper/$NAME none swap sw,pri=9 0 0" /etc/fstab &&
		grep -q "^$NAME  $LINK  /dev/urandom  swap,cipher=aes-xts-plain64,size=512," /etc/crypttab &&
		[ "$(wc -l </etc/fstab) $(wc -l </etc/crypttab)" = '1 1' ] &&
		dmsetup table "$NAME" | grep -q 'crypt aes-xts-plain64 .* sector_size:4096' &&
		[ -z "$(ls /etc/cryptconf/pending)$(find /etc -name '*qs-tmp*')" ] && ! pattern_on "$LINK"
}

@test "what is swapped out survives the switch, and its plaintext does not" {
	local before
	swap_out 6
	before=$(sha256sum </dev/shm/hog)
	pattern_on "$LINK"
	run -0 --separate-stderr qs-util --json cryptswap --now "$LINK"
	jq -e '.devices[0] | .state == "active" and .wiped == 12582912' <<<"$output"
	is_encrypted
	[ "$(sha256sum </dev/shm/hog)" = "$before" ]
	swap_in
	run -0 qs-util cryptswap --now
	[[ $output == *'already encrypted'* ]]
}

@test "without --now the swap is off, and a later --now switches it on" {
	run -0 qs-util cryptswap
	[ -z "$(active)" ]
	run ! pattern_on "$LINK"
	[ -z "$(wipefs -n "$LINK")" ]
	run -0 qs-util cryptswap --now
	is_encrypted
}

@test "a step that fails is undone: mkswap, swapon, swapoff, memory, an interrupt" {
	mount --bind /bin/false /sbin/mkswap
	run -1 qs-util cryptswap --now "$LINK"
	umount /sbin/mkswap
	[[ $output == *mkswap* ]]
	is_plain

	# The real one, but not for mappings.
	cp /sbin/swapon /run/swapon
	# shellcheck disable=SC2016 # for the script
	printf '%s\n' '#!/bin/sh' 'case "$*" in */mapper/*) echo "swapon: no" >&2; exit 1;; esac' \
		'exec /run/swapon "$@"' >/run/bad-swapon
	chmod 755 /run/bad-swapon
	mount --bind /run/bad-swapon /sbin/swapon
	run -1 qs-util cryptswap --now "$LINK"
	umount /sbin/swapon
	[[ $output == *'swapon: no'* ]]
	is_plain

	run -1 strace -f -qq -o /dev/null -e trace=swapoff -e inject=swapoff:error=ENOMEM \
		qs-util cryptswap --now "$LINK"
	[[ $output == *'Cannot allocate memory'* ]]
	is_plain

	swap_out 6
	echo 'MemAvailable: 1024 kB' >/run/meminfo
	mount --bind /run/meminfo /proc/meminfo
	run -3 qs-util cryptswap --now "$LINK"
	umount /proc/meminfo
	[[ $output == *'room for 1 MiB'* ]]
	is_plain
	swap_in

	run -1 strace -qq -o /dev/null -e trace=pwrite64 -e inject=pwrite64:signal=SIGINT:when=2 \
		qs-util cryptswap --now "$LINK"
	[[ $output == *interrupted* ]]
	is_plain
}

@test "an error at each ioctl of the switch: the old state, or done" {
	local n status
	for ((n = 1; n < 60; n++)); do
		status=0
		strace -qq -o /run/ioctls -e trace=ioctl -e "inject=ioctl:error=EIO:when=$n" \
			qs-util cryptswap --now "$LINK" >/run/out 2>&1 || status=$?
		grep -q INJECTED /run/ioctls || break
		if [ "$status" -eq 0 ]; then
			is_encrypted || { echo "ioctl $n: $(</run/out)"; return 1; }
			plain
		else
			is_plain || { echo "ioctl $n, status $status: $(</run/out)"; return 1; }
		fi
	done
	echo "# $((n - 1)) points" >&3
	((n > 3 && n < 60))
}

tool_runs()
{
	pgrep -x 'swapo(n|ff)' || pgrep -x mkswap
}

# The states that a crash may leave.
tables_are_allowed()
{
	local crypttab=old fstab=new
	[ ! -e /etc/crypttab ] || crypttab=new
	[ "$(</etc/fstab)" != "$LINE" ] || fstab=old
	[ "$crypttab $fstab" != 'old new' ]
}

@test "killed at every ioctl of the switch: the same command again finishes" {
	local n status
	for ((n = 1; n < 60; n++)); do
		plain
		status=0
		strace -qq -o /dev/null -e trace=ioctl -e "inject=ioctl:signal=SIGKILL:when=$n" \
			qs-util cryptswap --now "$LINK" >/dev/null 2>&1 || status=$?
		[ "$status" -ne 0 ] || break
		# A tool that it had started ends by itself.
		wait_while tool_runs
		tables_are_allowed || { echo "after ioctl $n"; return 1; }
		run -0 qs-util cryptswap --now "$LINK"
		is_encrypted || { echo "after ioctl $n: $output"; return 1; }
	done
	echo "# $((n - 1)) points" >&3
	((n > 3 && n < 60))
}

@test "left alone: zram, swap that is encrypted already; refused: what has no lasting name" {
	local loop
	modprobe zram
	wait_for test -b /dev/zram0
	echo 32M >/sys/block/zram0/disksize
	mkswap -q /dev/zram0
	swapon /dev/zram0
	run -4 qs-util cryptswap /dev/zram0
	[[ $output == *memory* ]]
	qs-util cryptformat /dev/disk/by-id/virtio-b
	mkswap -q /dev/mapper/enc-virtio-b
	swapon /dev/mapper/enc-virtio-b
	truncate -s 16M /root/loop.img
	loop=$(losetup -f --show /root/loop.img)
	mkswap -q "$loop"
	run -4 qs-util cryptswap "$loop"
	[[ $output == *PARTUUID* ]]
	losetup -d "$loop"
	run -0 qs-util cryptswap --now
	[[ $output == *'already encrypted, by /dev/mapper/enc-virtio-b'* ]]
	[[ $output != *zram* ]]
	is_active /dev/zram0
	is_active /dev/mapper/enc-virtio-b
	swapoff -a
	echo 1 >/sys/block/zram0/reset
	qs-util cryptdestroy --yes /dev/disk/by-id/virtio-b
}

@test "mounted, or a whole disk with a swap on it: 5 or 6, and nothing changes" {
	local disk
	disk=$(dev_of b)
	mkfs.ext4 -q "$disk"
	mount "$disk" /mnt
	run -5 qs-util cryptswap --force --yes "$disk"
	umount /mnt
	run -6 qs-util cryptswap "$disk"
	[[ $output == *ext4* ]]
	e2fsck -fn "$disk"
	blank "$disk"
	sfdisk --quiet "$disk" <<<$'label: gpt\nsize=20M, type=swap'
	wait_for test -b "${disk}1"
	mkswap -q "${disk}1"
	swapon "${disk}1"
	run -5 qs-util cryptswap "$disk"
	swapoff "${disk}1"
	is_plain
	blank "$disk"
}
