#!/usr/bin/env bats
# The harness itself: systemd as PID 1, and a disk in crypttab through its
# generator.
#
# guest: --no-bin --systemd --disk virtio:d1:64M

load lib

@test "systemd is PID 1 and content" {
	[ "$(</proc/1/comm)" = systemd ]
	wait_for boot_is_over
	run systemctl --failed --no-legend
	[ -z "$output" ]
}

@test "systemd opens a disk of crypttab" {
	local disk
	disk=$(dev_of d1)
	head -c 64 /dev/urandom >/root/key
	chmod 400 /root/key
	cryptsetup luksFormat -q "${FAST_PBKDF[@]}" "$disk" /root/key
	echo "stock /dev/disk/by-id/virtio-d1 /root/key luks" >/etc/crypttab
	systemctl daemon-reload
	systemctl start systemd-cryptsetup@stock.service
	[ -b /dev/mapper/stock ]
	systemctl stop systemd-cryptsetup@stock.service
	[ ! -e /dev/mapper/stock ]
}
