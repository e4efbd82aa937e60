#!/usr/bin/env bats
# A keystore whose key the machine's TPM keeps: disks that have no other key open after a
# restart, and not in another machine, nor in another state of this one.
#
# guest: --disk scsi:a:32M --disk scsi:b:32M --disk scsi:c:32M --disk scsi:d:32M
# guest-boots: 3
# guest-boot 1: --tpm @state/tpm
# guest-boot 2: --tpm @state/tpm
# guest-boot 3: --tpm @state/other-tpm

# shellcheck disable=SC2030,SC2031 # $output is read by functions of the same test
load lib
load tpm2

readonly LINKS=/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_ SEALED=/etc/cryptconf/keystore/1.sealed

# How many of the disks are open.
count_open()
{
	find /dev/mapper -name 'enc-scsi-*' | wc -l
}

settled_disks()
{
	local serial
	for serial in $GUEST_DISKS; do
		dev_of "$serial" >/dev/null
	done
	settle
}

@test "boot 1: enabled on the TPM, four disks enrolled, their key files gone" {
	settled_disks
	qs-util cryptformat "$LINKS"[abcd]
	qs-util --yes keystore enable --provider tpm2
	qs-util cryptenroll "$LINKS"[abcd] --keystore
	rm -r /etc/cryptconf/keys
	qs-util cryptcloseall
	qs-util --json cryptopenall | jq -e '[.devices[].keystore_generation] == [1, 1, 1, 1]'
	echo data >/dev/mapper/enc-scsi-0QEMU_QEMU_HARDDISK_a
}

@test "boot 2: all open by the TPM, and nobody else's shell opens them after a measurement" {
	settled_disks
	[ "$(count_open)" = 0 ]
	run -0 qs-util cryptopenall
	[ "$(count_open)" = 4 ]
	[ "$(head -c 4 /dev/mapper/enc-scsi-0QEMU_QEMU_HARDDISK_a)" = data ]
	run -0 qs-util keystore verify
	qs-util cryptcloseall
	extend_pcr_7
	run -2 qs-util cryptopenall
	[[ $output == *'generation 1 of the keystore: PCR 7 changed since it was sealed'* ]]
	[ "$(count_open)" = 0 ]
}

@test "boot 3: the disks with all of /etc in another machine: refused, whatever its TPM is" {
	local disk host
	settled_disks
	run -2 qs-util cryptopenall
	[[ $output == *'generation 1 of the keystore: '*'another'* ]]
	# A keystore of its own would have no place for this one any more.
	mv /etc/cryptconf/keystore /root/
	run -6 qs-util --yes keystore enable --provider tpm2
	[[ $output == *'4 devices and header backups'* || $output == *'8 devices and header backups'* ]]
	run -2 qs-util cryptopenall
	[[ $output == *'which is not on this machine'* ]]
	mv /root/keystore /etc/cryptconf/
	# It has a storage root key of its own by now.
	for disk in /sys/block/sd*/device/delete; do
		echo 1 >"$disk"
	done
	mv /etc/cryptconf/keystore /etc/cryptconf/headers /etc/crypttab /root/
	qs-util --yes keystore enable --provider tpm2
	rm -r /etc/cryptconf/keystore
	mv /root/keystore /root/headers /etc/cryptconf/
	mv /root/crypttab /etc/
	for host in /sys/class/scsi_host/host*/scan; do
		echo '- - -' >"$host"
	done
	settled_disks
	run -2 qs-util cryptopen "${LINKS}a"
	[[ $output == *'generation 1 of the keystore: it was sealed by another TPM'* ]]
	[ "$(count_open)" = 0 ]
	run -7 qs-util keystore verify
	[ "$(stat -c %a "$SEALED")" = 600 ]
}
