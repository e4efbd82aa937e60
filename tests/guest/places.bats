#!/usr/bin/env bats
# Keys in other places, on a real kernel: a stick with ext4 and with FAT, one that
# hangs, one that is pulled, an NFS server, a program.
#
# guest: --disk virtio:d1:64M --disk virtio:d2:64M --disk scsi:stick:64M

load lib

readonly ID=/dev/disk/by-id/virtio- STICK=/media/stick

setup()
{
	mkdir -p "$STICK" /etc/cryptconf
	printf 'keys_dir = "%s/keys";\nkey_deadline = 3;\nopen_deadline = 8;\n' "$STICK" \
		>/etc/cryptconf/qs-util.conf
	echo "LABEL=KEYS $STICK auto nofail 0 2" >/etc/fstab
}

teardown()
{
	local stopped
	for stopped in suspendable hung; do
		dmsetup resume "$stopped" 2>/dev/null || true
	done
	qs-util --quiet cryptcloseall || true
	umount -l "$STICK" 2>/dev/null || true
	dmsetup remove --retry suspendable 2>/dev/null || true
	dmsetup remove --retry hung 2>/dev/null || true
	rm -rf /etc/fstab /etc/crypttab /etc/cryptconf
	blank "${ID}d1" "${ID}d2"
}

stick_with_ext4()
{
	mkfs.ext4 -q -F -L KEYS "$(dev_of stick)"
	wait_for_udev "$(dev_of stick)" test -e /dev/disk/by-label/KEYS
	mount "$STICK"
	mkdir -m 0700 "$STICK/keys"
}

@test "a stick: refused while it is away, formats and opens while it is there" {
	stick_with_ext4
	umount "$STICK"
	run -2 qs-util cryptformat "${ID}d1"
	[[ $output == *"$STICK, which /etc/fstab mounts, is not mounted"* ]]
	[ -z "$(ls -A "$STICK")" ]
	run ! cryptsetup isLuks "${ID}d1"
	mount "$STICK"
	run -0 qs-util cryptformat "${ID}d1"
	[ -b /dev/mapper/enc-virtio-d1 ]
	cryptsetup open --test-passphrase --key-file "$STICK/keys/enc-virtio-d1.key" "${ID}d1"
	# Open devices stay so without it.
	umount "$STICK"
	dd if=/dev/mapper/enc-virtio-d1 of=/dev/null bs=1M count=1 iflag=direct status=none
	run -0 qs-util cryptclose "${ID}d1"
	run -2 qs-util cryptopenall
	[[ $output == *"$STICK, which /etc/fstab mounts, is not mounted"* ]]
	mount "$STICK"
	run -0 qs-util cryptopenall
	[ -b /dev/mapper/enc-virtio-d1 ]
}

# FAT16 of 64 MiB in clusters of 2 KiB, by hand: no mkfs.vfat in the guest.
stick_with_fat()
{
	local device
	device=$(dev_of stick)
	dd if=/dev/zero of="$device" bs=1M count=1 status=none
	# Sector size 512, 4 in a cluster, 1 reserved, 2 tables of 129, 512 entries in
	# the root directory, 131072 sectors.
	printf '\xeb\x3c\x90QSGUEST \0\2\4\1\0\2\0\2\0\0\xf8\x81\0\x20\0\x40\0\0\0\0\0\0\0\2\0\x80\0\x29\1\2\3\4KEYS       FAT16   ' |
		dd of="$device" conv=notrunc,fsync status=none
	printf '\x55\xaa\xf8\xff\xff\xff' | dd of="$device" bs=1 seek=510 conv=notrunc,fsync status=none
	printf '\xf8\xff\xff\xff' | dd of="$device" bs=512 seek=130 conv=notrunc,fsync status=none
}

@test "FAT: refused where others could read the keys, with the options that help" {
	stick_with_fat
	mount -t vfat -o umask=0022 "$(dev_of stick)" "$STICK"
	mkdir "$STICK/keys"
	run -2 qs-util cryptformat "${ID}d1"
	[[ $output == *'can be read or written by group or others'*'uid=0,umask=0077'* ]]
	# The directory private, but not what is in it: chmod says it is done, and is not.
	umount "$STICK"
	mount -t vfat -o dmask=0077,fmask=0022 "$(dev_of stick)" "$STICK"
	run -1 qs-util cryptformat "${ID}d1"
	[[ $output == *'umask=0077'* ]]
	[ -z "$(ls -A "$STICK/keys")" ]
	run ! cryptsetup isLuks "${ID}d1"
	umount "$STICK"
	mount -t vfat -o uid=0,umask=0077 "$(dev_of stick)" "$STICK"
	run -0 qs-util cryptformat "${ID}d1"
	[ -b /dev/mapper/enc-virtio-d1 ]
	cryptsetup open --test-passphrase --key-file "$STICK/keys/enc-virtio-d1.key" "${ID}d1"
}

# The stick behind a mapping that can be stopped.
suspendable_stick()
{
	local size
	size=$(blockdev --getsz "$(dev_of stick)")
	dmsetup create suspendable --table "0 $size linear $(dev_of stick) 0"
	mkfs.ext4 -q -F /dev/mapper/suspendable
	mount /dev/mapper/suspendable "$STICK"
	mkdir -m 0700 "$STICK/keys"
}

@test "a stick that hangs: every command ends, and says why" {
	blank "$(dev_of stick)"
	suspendable_stick
	qs-util cryptformat --no-open "${ID}d1"
	sync
	echo 3 >/proc/sys/vm/drop_caches
	dmsetup suspend --nolockfs --noflush suspendable
	# The directory itself may still be in memory: then it is the key file that does not answer.
	local command
	for command in cryptopenall "cryptformat ${ID}d2"; do
		# shellcheck disable=SC2086 # words
		run -1 timeout 60 qs-util $command
		[[ $output == *'/media/stick/keys has not answered for 3 seconds'* ||
			$output == *'not finished after 8 seconds'* ]]
	done
	run ! cryptsetup isLuks "${ID}d2"
	run -1 timeout 60 qs-util cryptopen "${ID}d1"
	[[ $output == *'not finished after 8 seconds'* ]]
	run -0 --separate-stderr timeout 60 qs-util --json cryptstatus "${ID}d1"
	[[ $(jq -r '.devices[0].warnings[]' <<<"$output") == *'has not answered'* ]]
	dmsetup resume suspendable
	run -0 qs-util cryptopenall
	[ -b /dev/mapper/enc-virtio-d1 ]
}

@test "a disk that hangs: cryptstatus and devicemap show the others" {
	rm /etc/cryptconf/qs-util.conf /etc/fstab
	echo 'open_deadline = 4;' >/etc/cryptconf/qs-util.conf
	qs-util cryptformat --no-open "${ID}d1"
	dmsetup create hung --table "0 $(blockdev --getsz "$(dev_of stick)") linear $(dev_of stick) 0"
	echo 3 >/proc/sys/vm/drop_caches
	dmsetup suspend --nolockfs --noflush hung
	run -7 --separate-stderr timeout 60 qs-util --json cryptstatus
	[ "$(jq -r '.devices[] | select(.ok) | .name' <<<"$output")" = enc-virtio-d1 ]
	[ "$(jq -r '.devices[] | select(.ok | not) | .error.code' <<<"$output")" = deadline ]
	run -7 --separate-stderr timeout 60 qs-util --json devicemap --all
	[ "$(jq -r '.devices[] | select(.ok | not) | .error.code' <<<"$output")" = deadline ]
	[ "$(jq '.devices[] | select(.by_id == "/dev/disk/by-id/virtio-d1") | .luks.version' <<<"$output")" = 2 ]
}

@test "a program prints the keys" {
	rm /etc/fstab
	mkdir -m 0755 /usr/local/lib/keys
	# shellcheck disable=SC2016 # the program's own
	printf '#!/bin/sh\nexec sha256sum <<-END\n\t$1\n\tEND\n' >/usr/local/lib/keys/give
	chmod 0755 /usr/local/lib/keys/give
	echo 'key_command = "/usr/local/lib/keys/give";' >/etc/cryptconf/qs-util.conf
	run -0 qs-util cryptformat --pbkdf pbkdf2 "${ID}d1"
	[ -b /dev/mapper/enc-virtio-d1 ]
	[ "$(</etc/crypttab)" = "enc-virtio-d1  ${ID}d1  none  luks,noauto" ]
	/usr/local/lib/keys/give enc-virtio-d1 |
		cryptsetup open --test-passphrase --key-file - "${ID}d1"
	run -0 qs-util cryptclose "${ID}d1"
	run -0 qs-util cryptopenall
	[ -b /dev/mapper/enc-virtio-d1 ]
	run -0 qs-util cryptclose "${ID}d1"
	run -0 qs-util cryptopen "${ID}d1" updatecrypttab
	[ "$(</etc/crypttab)" = "enc-virtio-d1  ${ID}d1  none  luks,noauto" ]
}

# /srv for 127.0.0.1, by what exportfs and rpc.mountd would write: the guest has neither.
# export_srv FLAGS: beside NFSEXP_INSECURE_PORT and _FSID of linux/nfsd/export.h.
export_srv()
{
	local end=2000000000
	echo "nfsd 127.0.0.1 $end guest" >/proc/net/rpc/auth.unix.ip/channel
	printf 'guest 1 \\x00000000 %s /srv\n' $end >/proc/net/rpc/nfsd.fh/channel
	echo "guest /srv $end $((0x2002 | $1)) 65534 65534 0" >/proc/net/rpc/nfsd.export/channel
}

mount_srv()
{
	timeout 60 mount -i -t nfs4 -o addr=127.0.0.1,clientaddr=127.0.0.1,vers=4.2 127.0.0.1:/ "$STICK"
}

# The kernel's own server, NFSv4 only, which needs no other service.
nfs_server()
{
	[ ! -e /proc/fs/nfsd/threads ] || return 0
	modprobe -a nfsd nfs nfsv4
	mount -t nfsd nfsd /proc/fs/nfsd
	# SIOCSIFFLAGS, IFF_UP: no "ip" in the guest.
	perl -MSocket -e 'my $up = pack("a16sx22", "lo", 1);
		socket(S, AF_INET, SOCK_DGRAM, 0) && ioctl(S, 0x8914, $up) || die $!'
	mkdir -p /srv/keys
	chmod 0700 /srv/keys
	# Where it remembers its clients; without, it refuses to end the time in which they may
	# come back after a restart, and lets nobody open a file.
	mkdir -p /var/lib/nfs/v4recovery
	echo '-3 +4 +4.1 +4.2' >/proc/fs/nfsd/versions
	echo 'tcp 2049' >/proc/fs/nfsd/portlist
	echo 2 >/proc/fs/nfsd/threads
	echo Y >/proc/fs/nfsd/v4_end_grace
}

@test "NFS: an export that squashes root takes no keys" {
	nfs_server
	export_srv 0x4 # _ROOTSQUASH
	mount_srv
	run -2 qs-util cryptformat "${ID}d1"
	[[ $output == *no_root_squash* ]]
}

@test "NFS: a server that keeps the keys, and then is gone" {
	nfs_server
	export_srv 0
	mount_srv
	sed -i 's/^open_deadline.*/open_deadline = 60;/' /etc/cryptconf/qs-util.conf
	run -0 qs-util cryptformat "${ID}d1"
	cryptsetup open --test-passphrase --key-file /srv/keys/enc-virtio-d1.key "${ID}d1"
	run -0 qs-util cryptclose "${ID}d1"
	umount "$STICK"
	run -2 qs-util cryptopen "${ID}d1"
	[[ $output == *"/media/stick, which /etc/fstab mounts, is not mounted"* ]]
	mount_srv
	run -0 qs-util cryptopen "${ID}d1"
	run -0 qs-util cryptclose "${ID}d1"
	sed -i 's/^open_deadline.*/open_deadline = 8;/' /etc/cryptconf/qs-util.conf
	echo 0 >/proc/fs/nfsd/threads
	run timeout 60 qs-util cryptopen "${ID}d1"
	[ "$status" -eq 1 ]
	[[ $output == *"after "[38]" seconds"* || $output == *"within "[38]" seconds"* ]]
	[ ! -e /dev/mapper/enc-virtio-d1 ]
}
