#!/usr/bin/env bats
# A boot waits for no disk and no key for good: with a stick that is away, one that
# nobody has told systemd of, and a key that is gone, and then with all disks but one
# away, systemd opens what has its key, and reaches multi-user.
#
# Apart, because a required disk that is away fails cryptsetup.target, and then nothing
# waits any more for a passphrase that nobody types.
#
# guest-boots: 3
# guest-boot 1: --disk virtio:d1:64M --disk virtio:d2:64M --disk virtio:d3:64M --disk virtio:d4:64M
# guest-boot 1: --disk virtio:d5:64M --disk virtio:d6:64M
# guest-boot 1: --disk virtio:stick:64M --disk virtio:away:64M --disk virtio:loose:64M
# guest-boot 2: --systemd --disk virtio:d1:64M --disk virtio:d2:64M --disk virtio:d3:64M --disk virtio:d4:64M
# guest-boot 2: --disk virtio:d5:64M --disk virtio:d6:64M --disk virtio:stick:64M
# guest-boot 3: --systemd --disk virtio:d1:64M
# What is away need not cost the usual 90 s, but a guest is slow to find what is there.
# guest-boot 2: --append systemd.default_device_timeout_sec=40
# guest-boot 3: --append systemd.default_device_timeout_sec=30

load lib

readonly ID=/dev/disk/by-id/virtio-

# stick NAME: a file system on that disk, mounted, whose directory is keys_dir from now on.
stick()
{
	mkfs.ext4 -q -F -L "$1" "$(dev_of "$1")"
	wait_for_udev "$(dev_of "$1")" test -e "/dev/disk/by-label/$1"
	mkdir -p "/media/$1"
	mount "LABEL=$1" "/media/$1"
	mkdir -m 0700 "/media/$1/keys"
	echo "keys_dir = \"/media/$1/keys\";" >/etc/cryptconf/qs-util.conf
}

@test "boot 1: keys on the system's disk and on three sticks, two of which fstab knows" {
	local name
	mkdir -p /etc/cryptconf
	qs-util cryptformat --no-open "${ID}d1" "${ID}d6"
	stick stick
	qs-util cryptformat --no-open "${ID}d2" "${ID}d3"
	stick away
	qs-util cryptformat --no-open "${ID}d4"
	stick loose
	qs-util cryptformat --no-open "${ID}d5"
	for name in stick away; do
		echo "LABEL=$name /media/$name ext4 nofail 0 2" >>/etc/fstab
	done
	rm /media/stick/keys/enc-virtio-d3.key
	cat /etc/crypttab
	for name in d1 d6; do
		grep -q "^enc-virtio-$name .* luks$" /etc/crypttab
	done
	for name in d2 d3 d4 d5; do
		grep -q "^enc-virtio-$name .* luks,nofail$" /etc/crypttab
	done
	umount /media/{stick,away,loose}
	sync
}

@test "boot 2: three keys away: the other disks are open, and the boot went on" {
	systemctl is-active multi-user.target
	run ! systemctl is-active emergency.target
	wait_for test -b /dev/mapper/enc-virtio-d1
	wait_for test -b /dev/mapper/enc-virtio-d2
	mountpoint /media/stick
	run -0 ls /dev/mapper
	[[ $output != *d[3-5]* ]]
}

@test "boot 3: all away but a disk: it is open, and the boot went on" {
	systemctl is-active multi-user.target
	run ! systemctl is-active emergency.target
	wait_for test -b /dev/mapper/enc-virtio-d1
}
