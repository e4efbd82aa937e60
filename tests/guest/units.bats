#!/usr/bin/env bats
# Our units, generator and udev rule under systemd: who opens what at boot, a disk
# that is plugged in, and the weekly check.
#
# guest: --systemd --disk virtio:d1:64M --disk virtio:d2:64M --disk scsi:d3:64M
# guest: --disk virtio:usb:64M
# guest-boots: 2

load lib

readonly ID=/dev/disk/by-id
readonly SCSI=scsi-0QEMU_QEMU_HARDDISK_d3

boot_is_over()
{
	[[ $(systemctl is-system-running) != @(initializing|starting) ]]
}

@test "boot 1: three disks, keys on a file system of their own" {
	wait_for boot_is_over
	mkfs.ext4 -q -L keys "$(dev_of usb)"
	wait_for_udev "$(dev_of usb)" test -e /dev/disk/by-label/keys
	mkdir -p /media/stick
	echo 'LABEL=keys /media/stick ext4 defaults,nofail 0 0' >>/etc/fstab
	systemctl daemon-reload
	mount /media/stick
	chmod 700 /media/stick
	mkdir -p /etc/cryptconf
	echo 'keys_dir = "/media/stick";' >/etc/cryptconf/qs-util.conf
	qs-util cryptformat $ID/virtio-d1
	qs-util cryptformat $ID/virtio-d2
	sed -i '/virtio-d2/s/luks/luks,noauto/' /etc/crypttab
	qs-util cryptformat --no-crypttab $ID/$SCSI
	systemctl enable qs-util-openall.service qs-util-check.timer
	[ "$(find /media/stick -name '*.key' | wc -l)" -eq 3 ]
}

@test "boot 2: systemd opens its line, qs-util-openall the rest, none fails" {
	wait_for boot_is_over
	run systemctl --failed --no-legend
	[ -z "$output" ]
	local name
	for name in enc-virtio-d1 enc-virtio-d2 "enc-$SCSI"; do
		wait_for test -b "/dev/mapper/$name"
	done
	wait_for systemctl is-active systemd-cryptsetup@enc\\x2dvirtio\\x2dd1.service
	run ! systemctl is-active systemd-cryptsetup@enc\\x2dvirtio\\x2dd2.service
	journalctl -b -u qs-util-openall.service
	systemctl is-active qs-util-openall.service
	journalctl -b -u qs-util-openall.service | grep -q 'enc-virtio-d2'
}

@test "boot 2: the services wait for the file system of the keys" {
	systemctl show -P RequiresMountsFor qs-util-openall.service | grep -qw /media/stick
	systemctl show -P RequiresMountsFor qs-util-check.service | grep -qw /media/stick
}

@test "boot 2: a disk that comes back is opened, one that is only closed is not" {
	local disk host
	disk=$(basename "$(dev_of d3)")
	host=$(readlink -f "/sys/block/$disk/device" | grep -o 'host[0-9]*' | head -n 1)
	qs-util cryptclose $ID/$SCSI
	udevadm trigger --settle --action=change "/dev/$disk"
	[ ! -e "/dev/mapper/enc-$SCSI" ]
	echo 1 >"/sys/block/$disk/device/delete"
	wait_while test -e $ID/$SCSI
	echo '- - -' >"/sys/class/scsi_host/$host/scan"
	wait_for test -b "/dev/mapper/enc-$SCSI"
	journalctl -b -u 'qs-util-open@*' | grep -q "enc-$SCSI"
}

@test "boot 2: the weekly check says which key does not open its disk" {
	systemctl start qs-util-check.service
	cp /media/stick/enc-virtio-d1.key /root/good
	install -m 0400 /media/stick/enc-virtio-d2.key /media/stick/enc-virtio-d1.key
	run ! systemctl start qs-util-check.service
	journalctl -b -u qs-util-check.service | grep -q 'virtio-d1.*no key\|virtio-d1.*opens none\|opens none.*virtio-d1'
	install -m 0400 /root/good /media/stick/enc-virtio-d1.key
	systemctl start qs-util-check.service
	systemctl is-active qs-util-check.timer
}

@test "boot 2: the generator survives a broken configuration" {
	cp /etc/cryptconf/qs-util.conf /root/conf
	echo 'nonsense' >/etc/cryptconf/qs-util.conf
	systemctl daemon-reload
	run systemctl show -P RequiresMountsFor qs-util-openall.service
	[[ $output != *stick* ]]
	cp /root/conf /etc/cryptconf/qs-util.conf
	systemctl daemon-reload
	systemctl show -P RequiresMountsFor qs-util-openall.service | grep -qw /media/stick
}
