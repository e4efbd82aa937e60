#!/usr/bin/env bats
# Exit status 0 is a promise that a power cut cannot break: the moment a command
# says that it is done, the power goes, and with it all that was only in memory.
#
# guest: --disk virtio:d1:64M --disk virtio:d2:64M
# guest-boots: 3
# guest-boot 1: --kill-on formatted-now
# guest-boot 2: --kill-on destroyed-now

load lib

readonly ID=/dev/disk/by-id/virtio-

@test "boot 1: two disks are formatted, and the power is cut" {
	echo "# the administrator's own line" >/etc/crypttab
	sync /etc/crypttab
	qs-util cryptformat --no-open "${ID}d1" "${ID}d2"
	mark_and_wait formatted-now
}

@test "boot 2: keys, headers, backups and table are there, and all opens" {
	local disk
	for disk in d1 d2; do
		[ "$(stat -c '%s %a' "/etc/cryptconf/keys/enc-virtio-$disk.key")" = '1048576 400' ]
		run -0 cryptsetup open --test-passphrase --key-file "/etc/cryptconf/keys/enc-virtio-$disk.key" "$ID$disk"
		cmp -n 4456448 "/etc/cryptconf/headers/enc-virtio-$disk.header" "$ID$disk"
	done
	[ "$(grep -c '^enc-' /etc/crypttab)" -eq 2 ]
	[ "$(head -n 1 /etc/crypttab)" = "# the administrator's own line" ]
	[ -z "$(ls /etc/cryptconf/pending)" ]
	run -0 qs-util cryptopenall
	[ -b /dev/mapper/enc-virtio-d1 ]
	[ -b /dev/mapper/enc-virtio-d2 ]
}

@test "boot 2: one is destroyed, and the power is cut again" {
	cp /etc/cryptconf/keys/enc-virtio-d2.key /root/saved.key
	sync /root/saved.key
	qs-util cryptdestroy --yes "${ID}d2"
	mark_and_wait destroyed-now
}

@test "boot 3: the destroyed disk is destroyed, the other one opens" {
	run ! cryptsetup isLuks "${ID}d2"
	[ ! -e /etc/cryptconf/keys/enc-virtio-d2.key ]
	[ ! -e /etc/cryptconf/headers/enc-virtio-d2.header ]
	run ! grep -q enc-virtio-d2 /etc/crypttab
	[ -s /root/saved.key ]
	run -4 qs-util cryptopen "${ID}d2" /root/saved.key
	run -0 qs-util cryptopen "${ID}d1"
}
