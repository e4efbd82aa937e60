#!/usr/bin/env bats
# The harness itself: what persists over boots, over a power cut, and what
# came before the cut.
#
# guest: --no-bin --disk virtio:d1:64M --write-log d1:@state/d1.log --tpm @state/tpm
# guest-boots: 2
# guest-boot 1: --kill-on cut-the-power-now

load lib

@test "boot 1: writes to /etc and a disk, then the power is cut" {
	[ "$GUEST_BOOT" -eq 1 ]
	[ -c /dev/tpmrm0 ]
	mkdir -p /etc/cryptconf/keys
	echo kept >/etc/cryptconf/keys/test
	echo "# kept" >/etc/crypttab
	sync /etc/cryptconf/keys/test /etc/crypttab
	head -c 1M /dev/urandom >/root/data
	dd if=/root/data of="$(dev_of d1)" bs=1M oflag=direct conv=fsync status=none
	sync
	# Never synced, so it must be gone.
	echo lost >/etc/cryptconf/lost
	mark_and_wait cut-the-power-now
}

@test "boot 2: synced files are there, others are not" {
	[ "$GUEST_BOOT" -eq 2 ]
	[ "$(</etc/cryptconf/keys/test)" = kept ]
	[ "$(</etc/crypttab)" = "# kept" ]
	[ ! -s /etc/cryptconf/lost ]
}

@test "boot 2: the disk has what was written" {
	cmp -n 1048576 /root/data "$(dev_of d1)"
}

@test "boot 2: the TPM noticed the cut" {
	[ -c /dev/tpmrm0 ]
}
