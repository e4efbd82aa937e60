#!/usr/bin/env bats
# What cryptformat must not touch: each refusal has its sentence and exit
# status, and the whole device is the same afterwards.
#
# guest: --disk virtio:a:64M --disk virtio:b:64M
# guest: --disk virtio:small:8M --disk virtio:ro:64M
# guest: --copy @dir/../../initramfs:/guest/initramfs
# guest: --disk virtio:eio:64M --blkdebug eio:@dir/refusals-eio.blkdebug

load lib

setup_file()
{
	# udev would put stopped arrays together again while a test goes on.
	rm /lib/udev/rules.d/64-md-raid-assembly.rules
	udevadm control --reload
}

setup()
{
	A=$(dev_of a) B=$(dev_of b)
}

teardown()
{
	umount -q /mnt || true
	swapoff -a || true
	dmsetup remove_all -f 2>/dev/null || true
	mdadm --stop --quiet --scan || true
	rm -rf /etc/cryptconf/keys /etc/cryptconf/headers /etc/cryptconf/pending /etc/crypttab
	echo >/etc/fstab
	blank "$A" "$B"
}

# Hashing 64 MiB takes seconds under emulation, comparing does not.
remember()
{
	sync
	dd if="$1" of=/run/before bs=1M iflag=direct status=none
}

is_unchanged()
{
	sync
	dd if="$1" bs=1M iflag=direct status=none | cmp - /run/before
}

# refused STATUS PATTERN DEVICE [OPTION...]: as said, and not one byte changed.
refused()
{
	local status=$1 pattern=$2 device=$3
	shift 3
	remember "$device"
	run "-$status" qs-util cryptformat "$device" "$@"
	if ! grep -qE -- "$pattern" <<<"$output"; then
		echo "no '$pattern' in: $output" >&2
		return 1
	fi
	is_unchanged "$device"
	[ -z "$(ls /etc/cryptconf/keys 2>/dev/null)" ]
	[ -z "$(ls /etc/cryptconf/pending 2>/dev/null)" ]
}

@test "a mounted file system: 5, and --force does not help" {
	make_fs ext4 "$A"
	# Read-only: a file system that is written to changes the device by itself.
	mount -o ro "$A" /mnt
	refused 5 'mounted on /mnt' "$A"
	refused 5 'mounted on /mnt' "$A" --force --yes
}

@test "a file system mounted from a partition: the whole disk is in use" {
	sfdisk --quiet "$A" <<<$'label: gpt\nsize=20M\nsize=30M'
	wait_for test -b "${A}2"
	mkfs.ext4 -q "${A}2"
	mount -o ro "${A}2" /mnt
	refused 5 'mounted on /mnt' "$A"
	refused 5 'mounted on /mnt' "$A" --force --yes
}

@test "a partition may be formatted while its sibling is mounted" {
	sfdisk --quiet "$A" <<<$'label: gpt\nsize=20M\nsize=30M'
	wait_for test -b "${A}2"
	mkfs.ext4 -q "${A}2"
	mount "${A}2" /mnt
	echo kept >/mnt/file
	run -0 qs-util cryptformat "${A}1"
	[ -e /etc/cryptconf/keys/enc-virtio-a-part1.key ]
	[ "$(</mnt/file)" = kept ]
	run -0 qs-util cryptdestroy --yes "${A}1"
	umount /mnt
	e2fsck -fn "${A}2"
}

@test "active swap: 5" {
	make_fs swap "$A"
	swapon "$A"
	refused 5 'swap' "$A"
}

@test "file systems and LUKS of others: 6, and --force does it" {
	for type in ext4 xfs btrfs swap; do
		blank "$A"
		make_fs "$type" "$A"
		refused 6 "holds $type" "$A"
	done
	blank "$A"
	cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 "$A" - <<<secret
	refused 6 'crypto_LUKS' "$A"
	blank "$A"
	cryptsetup luksFormat -q "${FAST_PBKDF[@]}" "$A" - <<<secret
	refused 6 'crypto_LUKS' "$A"
	run -0 qs-util cryptformat --force --yes "$A"
	run -0 cryptsetup open --test-passphrase --key-file /etc/cryptconf/keys/enc-virtio-a.key "$A"
	run ! cryptsetup open --test-passphrase "$A" - <<<secret
	run -0 qs-util cryptdestroy --yes "$A"
}

@test "--force without --yes and without a terminal asks nobody: 6" {
	make_fs ext4 "$A"
	refused 6 'yes' "$A" --force
}

@test "a partition table without partitions in use: 6" {
	sfdisk --quiet "$A" <<<$'label: gpt\nsize=20M'
	settle
	refused 6 'gpt|partition' "$A"
	blank "$A"
	sfdisk --quiet "$A" <<<$'label: dos\nsize=20M'
	settle
	refused 6 'dos|partition' "$A"
}

@test "a forced format over a partition table leaves no signature and no partition" {
	sfdisk --quiet "$A" <<<$'label: gpt\nsize=20M'
	wait_for test -b "${A}1"
	run -0 qs-util cryptformat --force --yes "$A"
	settle
	[ ! -e "${A}1" ]
	[ "$(wipefs -niO TYPE "$A" | sort -u | tr '\n' ' ')" = 'crypto_LUKS ' ]
	run -0 qs-util cryptdestroy --yes "$A"
}

@test "LVM: the member is in use or holds a signature, the volume is in use when mounted" {
	make_lv vg0 lv0 "$A"
	refused 5 'dm-|vg0' "$A"
	vgchange -qqan vg0
	settle
	refused 6 'LVM2_member' "$A"
}

@test "md: the member of an array is refused and its parent named" {
	make_raid1 test "$A" "$B"
	refused 4 'md' "$A"
	mdadm --stop --quiet /dev/md/test
	settle
	refused 6 'linux_raid_member' "$A"
}

# On them lies what initramfs images are made for and start from; the rules of md are gone here,
# as are disks that a boot waits for.
@test "initramfs: md is started without its second disk, and LUKS is found below and above LVM" {
	make_raid1 test "$A" "$B"
	mdadm --stop --quiet /dev/md/test
	mdadm --incremental --quiet "$A"
	mkdir -p /etc/cryptconf
	echo 'early_wait = 1;' >/etc/cryptconf/qs-util.conf
	# shellcheck source=initramfs/unlock.sh
	. /guest/initramfs/unlock.sh
	# shellcheck source=initramfs/collect.sh
	. /guest/initramfs/collect.sh
	echo 'enc-x /dev/null none luks' >/etc/crypttab
	qs_degraded
	[ -n "$(qs_arrays)" ] # nothing is missing
	echo 'enc-x UUID=none none luks' >/etc/crypttab
	qs_degraded
	rm /etc/cryptconf/qs-util.conf
	[ -z "$(qs_arrays)" ]
	stack=(--config 'devices { use_devicesfile=0 }' --yes --quiet)
	pvcreate "${stack[@]}" /dev/md/test
	vgcreate "${stack[@]}" below /dev/md/test
	lvcreate "${stack[@]}" --zero n --wipesignatures n --size 40M --name lv below
	cryptsetup luksFormat -q "${FAST_PBKDF[@]}" /dev/below/lv <<<key
	cryptsetup open /dev/below/lv middle <<<key
	pvcreate "${stack[@]}" /dev/mapper/middle
	vgcreate "${stack[@]}" above /dev/mapper/middle
	lvcreate "${stack[@]}" --zero n --wipesignatures n --size 4M --name root above
	[ "$(qs_walk /dev/above/root)" = middle ]
	vgchange -an --quiet above
	cryptsetup close middle
	vgchange -an --quiet below
}

@test "ZFS by its signature: 6" {
	# Uberblocks of a vdev label, at their places in the first label; blkid wants four.
	for n in 0 1 2 3 4 5 6; do
		printf '\x0c\xb1\xba\x00\x00\x00\x00\x00' |
			dd of="$A" bs=1 seek=$((128 * 1024 + n * 1024)) conv=notrunc status=none
	done
	refused 6 'zfs_member' "$A"
}

@test "a path of a multipath map: 4, and the map is named" {
	make_mpath mpatha "$A"
	refused 4 'mpatha' "$A"
	dmsetup remove mpatha
}

@test "any other device that stands on it: 5" {
	dmsetup create other --table "0 1000 linear $A 0"
	settle
	refused 5 'dm-|other' "$A"
	dmsetup remove other
}

@test "the disk of the running system: never, also with --force" {
	local root
	root=$(findmnt -nvo SOURCE /)
	run -6 qs-util cryptformat "$root"
	[[ $output == *never* ]]
	run -6 qs-util cryptformat --force --yes "$root"
	[[ $output == *never* ]]
}

@test "named by fstab or crypttab: 5" {
	echo "/dev/disk/by-id/virtio-a /data ext4 defaults 0 0" >/etc/fstab
	refused 5 'line 1 of /etc/fstab' "$A"
	echo >/etc/fstab
	echo "other /dev/disk/by-id/virtio-a none luks" >/etc/crypttab
	refused 5 'line 1 of /etc/crypttab' "$A"
	[ "$(</etc/crypttab)" = "other /dev/disk/by-id/virtio-a none luks" ]
}

@test "a first MiB that is not blank: 6" {
	printf x | dd of="$A" bs=1 seek=700000 conv=notrunc status=none
	refused 6 'not blank' "$A"
}

@test "a disk known to our keys: 6" {
	install -d -m 0700 /etc/cryptconf/keys
	head -c 1M /dev/urandom >/etc/cryptconf/keys/enc-virtio-a.key
	chmod 0400 /etc/cryptconf/keys/enc-virtio-a.key
	remember "$A"
	run -6 qs-util cryptformat "$A"
	[[ $output == *'cryptdestroy'* ]]
	is_unchanged "$A"
}

@test "read-only, too small, absent, no block device: 4" {
	blockdev --setro "$(dev_of ro)"
	refused 4 'read-only' "$(dev_of ro)"
	blockdev --setrw "$(dev_of ro)"
	refused 4 'at least' "$(dev_of small)"
	run -4 qs-util cryptformat /dev/disk/by-id/virtio-gone
	run -4 qs-util cryptformat /dev/null
	run -4 qs-util cryptformat /etc
}

@test "an I/O error while probing is never taken for an empty disk" {
	run -1 qs-util cryptformat "$(dev_of eio)"
	[[ $output == *'Input/output error'* ]]
	run ! cryptsetup isLuks "$(dev_of eio)"
}

@test "a disk that vanishes before or during the run fails by itself, the others are done" {
	local links gone status=0
	mapfile -t links < <(load_scsi_debug dev_size_mb=32 num_tgts=2 2>/dev/null)
	gone=/sys/block/$(basename "$(readlink -f "${links[0]}")")/device/delete
	echo 1 >"$gone"
	wait_while test -e "${links[0]}"
	run -7 qs-util cryptformat "${links[0]}" "$A"
	[[ $output == *"${links[0]}"* ]]
	run -0 qs-util cryptdestroy --yes "$A"

	gone=/sys/block/$(basename "$(readlink -f "${links[1]}")")/device/delete
	qs-util cryptformat "$A" "${links[1]}" >"$BATS_TEST_TMPDIR/out" 2>&1 &
	wait_for test -e "/etc/cryptconf/keys/enc-${links[1]##*/}.key"
	echo 1 >"$gone"
	wait "$!" || status=$?
	# Whether the disk was done just before it went is a matter of luck.
	[ "$status" -eq 7 ] || [ "$status" -eq 0 ]
	run -0 cryptsetup open --test-passphrase --key-file /etc/cryptconf/keys/enc-virtio-a.key "$A"
	qs-util cryptcloseall || true
	run -0 qs-util cryptdestroy --yes "$A"
	wait_for modprobe -r scsi_debug
}

@test "the same disk twice at once: one succeeds, the other is told, one key" {
	local first=0 second=0
	qs-util cryptformat "$A" >"$BATS_TEST_TMPDIR/1" 2>&1 &
	local pid=$!
	qs-util cryptformat "$A" >"$BATS_TEST_TMPDIR/2" 2>&1 || second=$?
	wait "$pid" || first=$?
	[ "$first$second" = 05 ] || [ "$first$second" = 50 ]
	run -0 cryptsetup open --test-passphrase --key-file /etc/cryptconf/keys/enc-virtio-a.key "$A"
	run -0 qs-util cryptdestroy --yes "$A"
}

@test "key files: missing, empty, unreadable, a directory, group-readable: 2" {
	local key=$BATS_TEST_TMPDIR/key
	refused 2 'does not exist' "$A" "$key"
	: >"$key"
	chmod 0400 "$key"
	refused 2 'empty' "$A" "$key"
	refused 2 'directory' "$A" "$BATS_TEST_TMPDIR"
	head -c 64 /dev/urandom >"$key"
	chmod 0440 "$key"
	refused 2 'group' "$A" "$key"
	mkfifo "$BATS_TEST_TMPDIR/fifo"
	refused 2 'regular file' "$A" "$BATS_TEST_TMPDIR/fifo"
	ln -s "$key" "$BATS_TEST_TMPDIR/symlink"
	refused 2 'symbolic link' "$A" "$BATS_TEST_TMPDIR/symlink"
}

@test "a keys directory whose file system is not mounted: 2" {
	mkdir -p /media/keys
	echo "LABEL=keys /media/keys ext4 noauto 0 0" >/etc/fstab
	echo 'keys_dir = "/media/keys";' >"$BATS_TEST_TMPDIR/conf"
	remember "$A"
	run -2 qs-util --config="$BATS_TEST_TMPDIR/conf" cryptformat "$A"
	[[ $output == *'not mounted'* ]]
	is_unchanged "$A"
	[ -z "$(ls /media/keys)" ]
}

@test "not root: 2" {
	remember "$A"
	run -2 setpriv --reuid=65534 --regid=65534 --clear-groups qs-util cryptformat "$A"
	[[ $output == *root* ]]
	is_unchanged "$A"
}

@test "no device-mapper: key, header and table are done, and what is left is said" {
	# A kernel without it: neither loaded nor loadable.
	settle
	modprobe -r dm_crypt dm_mod 2>/dev/null || true
	mv /lib/modules /lib/modules.away
	local before=0
	[ ! -d /sys/module/dm_mod ] || before=1
	run -1 qs-util cryptformat "$A"
	mv /lib/modules.away /lib/modules
	[ "$before" = 0 ]
	[[ $output == *'no device-mapper'*'cryptopen'* ]]
	run -0 cryptsetup open --test-passphrase --key-file /etc/cryptconf/keys/enc-virtio-a.key "$A"
	grep -q '^enc-virtio-a ' /etc/crypttab
	run -0 qs-util cryptopen "$A"
	run -0 qs-util cryptdestroy --yes "$A"
}
