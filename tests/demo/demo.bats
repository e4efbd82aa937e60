#!/usr/bin/env bats
# What `make demo` shows: the life of four disks, in two boots of a real Debian
# kernel. Each step says what it is for, shows the command, runs it, and must succeed.
#
# guest: --disk virtio:disk1:64M --disk scsi:disk2:64M:wwn=0x5000c50015ea71aa:vendor=TOSHIBA:product=MK1001TRKB
# guest: --disk nvme:disk3:64M --disk scsi:disk4:64M
# guest-boots: 2

load ../guest/lib

readonly disks=(
	/dev/disk/by-id/virtio-disk1
	/dev/disk/by-id/scsi-35000c50015ea71aa
	/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_disk3
	/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_disk4
)

# To the console at once, past what bats holds back.
say()
{
	printf '%s\n' "$*" >"$GUEST_OUTPUT"
}

# step WHY COMMAND: the command is a line for the shell, as an administrator would type it.
step()
{
	local status=0
	say ""
	say "  # $1"
	say "  \$ $2"
	bash -c "$2" >"$BATS_TEST_TMPDIR/shown" 2>&1 </dev/null || status=$?
	sed 's/^/    /' "$BATS_TEST_TMPDIR/shown" >"$GUEST_OUTPUT"
	[ "$status" -eq "${3-0}" ] || { say "    (status $status)"; return 1; }
}

@test "boot 1: from empty disks to data" {
	say "=== A new appliance with four empty disks: virtio, SAS, NVMe, SCSI"
	step "Which disks are there? Node, persistent link, vendor, model, serial." "qs-util devicemap"
	step "Encrypt all four: key, LUKS2 header, header backup, crypttab line, open mapping for each." \
		"qs-util cryptformat ${disks[*]}"
	step "Lines that systemd and Debian's scripts read alike, by names that survive a reboot." \
		"cat /etc/crypttab"
	step "The keys: 1 MiB of random bytes each, for root only." "ls -l /etc/cryptconf/keys"
	step "A stock tool looks at what we made." \
		"cryptsetup luksDump ${disks[0]} | grep -E 'Version|Label|Subsystem|cipher:|sector:|PBKDF:'"
	step "Use the encrypted disks like any other." \
		"for d in /dev/mapper/enc-*; do mkfs.ext4 -q \$d && mount \$d /mnt && echo precious >/mnt/file && umount /mnt; done; lsblk -o NAME,TYPE,FSTYPE"
	step "The same format again, by mistake: refused, nothing is changed." "qs-util cryptformat ${disks[0]}" 5
	step "A mounted device cannot be closed, and the reason is named." \
		"mount /dev/mapper/enc-virtio-disk1 /mnt; qs-util cryptclose ${disks[0]}; s=\$?; umount /mnt; exit \$s" 5
	step "Everything at a glance." "qs-util cryptstatus"
	step "No lock-in: close, and open with cryptsetup alone." \
		"qs-util cryptclose ${disks[0]} && cryptsetup open --key-file /etc/cryptconf/keys/enc-virtio-disk1.key ${disks[0]} stock && mount -o ro /dev/mapper/stock /mnt && cat /mnt/file && umount /mnt && cryptsetup close stock"
	say ""
	say "=== The machine reboots now."
}

@test "boot 2: everything comes back" {
	say "=== After the reboot nothing is open yet"
	step "No mapping." "ls /dev/mapper"
	step "One command opens all, in parallel." "qs-util cryptopenall"
	step "And the data is still there." \
		"for d in /dev/mapper/enc-*; do mount -o ro \$d /mnt && echo \"\$d: \$(cat /mnt/file)\" && umount /mnt; done"
	step "The end of a disk's life: header, key, backups and table line are erased, and checked." \
		"qs-util cryptdestroy --yes ${disks[3]}"
	step "What is left." "qs-util cryptstatus"
	say ""
	say "=== Done: four disks encrypted, opened, rebooted, read back; one destroyed."
}
