#!/usr/bin/env bats
# Goal G11: a fleet that the TPM opens, token by token or by a keystore. It asserts no time: "run" reads
# the samples and makes its table.
#
# guest: --disk scsi:b01:32M --disk scsi:b02:32M --disk scsi:b03:32M --disk scsi:b04:32M
# guest: --disk scsi:b05:32M --disk scsi:b06:32M --disk scsi:b07:32M --disk scsi:b08:32M
# guest: --disk scsi:b09:32M --disk scsi:b10:32M --disk scsi:b11:32M --disk scsi:b12:32M
# guest: --disk scsi:b13:32M --disk scsi:b14:32M --disk scsi:b15:32M --disk scsi:b16:32M
# guest: --disk scsi:b17:32M --disk scsi:b18:32M --disk scsi:b19:32M --disk scsi:b20:32M
# guest: --disk scsi:b21:32M --disk scsi:b22:32M --disk scsi:b23:32M --disk scsi:b24:32M
# guest: --smp 2 --memory 1536 --timeout 3600 --tpm @state/tpm
# guest-boots: 1

load lib
load ../bench/sample

readonly rounds=5

attach_loop()
{
	local device
	for device; do
		/lib/systemd/systemd-cryptsetup attach "enc-${device##*/}" "$device" none \
			tpm2-device=auto,headless=1 || return
	done
}

@test "boot 1: 24 disks that only the TPM opens" {
	local link
	for serial in $GUEST_DISKS; do
		dev_of "$serial" >/dev/null
	done
	settle
	qs-util cryptformat --no-open /dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_b??
	for link in /dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_b??; do
		qs-util cryptenroll "$link" --tpm2
	done
	mv /etc/cryptconf/keys /root/
}

@test "boot 1: G11: open all" {
	local i
	for ((i = 0; i < rounds; i++)); do
		sample G11 ours qs-util cryptopenall
		settle
		qs-util cryptcloseall
		settle
		sample G11 peer attach_loop /dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_b??
		settle
		qs-util cryptcloseall
		settle
	done
}

@test "boot 1: G11: open all by the keystore, whose key the TPM has" {
	local i
	cp -r /root/keys /etc/cryptconf/
	qs-util --yes keystore enable --provider tpm2
	qs-util cryptenroll /dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_b?? --keystore
	qs-util --yes cryptenroll /dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_b?? --wipe tpm2
	rm -r /etc/cryptconf/keys
	# The peer has no such thing: it is the one of above.
	sed -n 's/^G11 peer/G11k peer/p' "$GUEST_RESULTS/samples" >"$BATS_TEST_TMPDIR/peer"
	cat "$BATS_TEST_TMPDIR/peer" >>"$GUEST_RESULTS/samples"
	for ((i = 0; i < rounds; i++)); do
		sample G11k ours qs-util cryptopenall
		[ "$(find /dev/mapper -name 'enc-*' | wc -l)" = 24 ]
		settle
		qs-util cryptcloseall
		settle
	done
}
