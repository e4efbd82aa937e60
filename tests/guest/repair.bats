#!/usr/bin/env bats
# crypttabrepair on a real kernel: real links, a clone, a loop device and its
# image, a disk that cannot be read; and tables that systemd opens from.
#
# guest: --disk scsi:a:32M --disk scsi:b:32M --disk virtio:c:32M --disk nvme:d:32M
# guest: --disk scsi:e:32M --disk scsi:f:32M
# guest-boots: 2

load lib

readonly keys=/etc/cryptconf/keys

# line SERIAL [KEY]: what crypttab should have for the disk.
line()
{
	local link name
	case $1 in
	c) link=virtio-c ;;
	d) link=nvme-QEMU_NVMe_Ctrl_d ;;
	*) link=scsi-0QEMU_QEMU_HARDDISK_$1 ;;
	esac
	name=enc-$link
	echo "$name  /dev/disk/by-id/$link  ${2:-$keys/$name.key}  luks"
}

repaired()
{
	run -0 --separate-stderr qs-util --json crypttabrepair "$@"
}

# Attach and detach as the unit does that systemd's generator makes of each line.
systemd_opens_all()
{
	local unit start stop units=$BATS_TEST_TMPDIR/units
	mkdir "$units"
	SYSTEMD_CRYPTTAB=/etc/crypttab RUNTIME_DIRECTORY="$units" \
		/lib/systemd/system-generators/systemd-cryptsetup-generator "$units" "$units" "$units"
	for unit in "$units"/systemd-cryptsetup@*.service; do
		start=$(sed -n 's/^ExecStart=//p' "$unit")
		stop=$(sed -n 's/^ExecStop=//p' "$unit")
		eval "${start//%%/%}" && eval "${stop//%%/%}" || return
	done
}

@test "boot 1: table and key names are lost while the disks are open: all comes back" {
	local devices=() serial
	for serial in a b c d; do devices+=("$(dev_of "$serial")"); done
	qs-util cryptformat "${devices[@]}"
	settle
	rm -r /etc/crypttab /etc/cryptconf/headers
	for serial in a b c d; do
		mv "$(line "$serial" | awk '{ print $3 }')" "$keys/key-of-$serial"
	done
	repaired
	diff <(for serial in a b c d; do line "$serial" "$keys/key-of-$serial"; done | sort) <(sort /etc/crypttab)
	[ "$(jq .result.tries <<<"$output")" = 4 ]
	jq -e '[.devices[].matched_by] | unique == ["fingerprint"]' <<<"$output"
	repaired
	jq -e '.result.changed | not' <<<"$output"
}

@test "boot 1: systemd opens by every line; the fingerprint disturbs neither it nor cryptsetup" {
	qs-util cryptcloseall
	systemd_opens_all
	cryptsetup luksDump "$(dev_of a)" | grep -q 'qs-fingerprint'
	# A passphrase: both ask the tokens before.
	(umask 077 && printf secret >/root/passphrase)
	cryptsetup luksAddKey -q "${FAST_PBKDF[@]}" --key-file "$keys/key-of-a" "$(dev_of a)" /root/passphrase
	cryptsetup open "$(dev_of a)" plain <<<secret
	cryptsetup close plain
	/lib/systemd/systemd-cryptsetup attach plain "$(dev_of a)" /root/passphrase luks
	/lib/systemd/systemd-cryptsetup detach plain
	cryptsetup luksRemoveKey -q "$(dev_of a)" /root/passphrase
}

@test "boot 1: a clone: both by their own links, by UUID neither, and both open" {
	local a e
	a=$(dev_of a) e=$(dev_of e)
	dd if="$a" of="$e" bs=1M conv=fsync status=none
	wait_for_udev "$e" udev_has "$e" "ID_FS_UUID=$(cryptsetup luksUUID "$a")"
	repaired
	diff <(for n in a e; do line $n "$keys/key-of-a"; done) <(grep "key-of-a" /etc/crypttab)
	[ "$(jq '[.devices[] | select(.warnings)] | length' <<<"$output")" = 2 ]
	run ! grep -q by-uuid /etc/crypttab
	qs-util cryptopenall
	[ -b /dev/mapper/enc-scsi-0QEMU_QEMU_HARDDISK_a ]
	[ -b /dev/mapper/enc-scsi-0QEMU_QEMU_HARDDISK_e ]
	qs-util cryptcloseall
	blank "$e"
	repaired --prune
	run ! grep -q HARDDISK_e /etc/crypttab
}

@test "boot 1: an image and its loop device are one device; one without a by-id link goes by UUID" {
	local loop uuid
	truncate -s 32M /root/disk.img /root/nameless.img
	qs-util cryptformat --no-open /root/disk.img
	losetup -f /root/disk.img
	loop=$(losetup -f --show /root/nameless.img)
	qs-util cryptformat --no-open "$loop"
	uuid=$(cryptsetup luksUUID "$loop")
	wait_for test -e "/dev/disk/by-uuid/$uuid"
	before=$(cat /etc/crypttab)
	sed -i 's,/enc-disk.img.key,/gone,; /by-uuid/d' /etc/crypttab
	repaired
	diff <(sort <<<"$before") <(sort /etc/crypttab)
	jq -e '[.devices[].warnings // empty] | length == 0' <<<"$output"
	losetup -D
	rm /root/*.img "$keys"/enc-disk.img.key "$keys/enc-uuid-$uuid.key"
	repaired --prune
	[ "$(wc -l </etc/crypttab)" -eq 4 ]
}

@test "boot 1: a disk that cannot be read costs its own line only: 7" {
	echo "0 65536 error" | dmsetup create bad
	sed -i 's,key-of-b,gone,' /etc/crypttab
	run -7 --separate-stderr qs-util --json crypttabrepair --prune
	[ "$(jq -r '.devices[] | select(.ok | not) | .error.code' <<<"$output")" = io-error ]
	diff <(for n in a b c d; do line "$n" "$keys/key-of-$n"; done | sort) <(sort /etc/crypttab)
	dmsetup remove bad
}

@test "boot 1: --dry-run opens no disk for writing and leaves every byte" {
	local device before
	device=$(dev_of b)
	before=$(sha256_of "$device")
	rm /etc/crypttab
	run -0 strace -f -qq -e trace=openat -o "$BATS_TEST_TMPDIR/trace" qs-util crypttabrepair --dry-run
	[ "$(grep -c '^+enc-' <<<"$output")" -eq 4 ]
	grep -q "\"$device\", O_RDONLY" "$BATS_TEST_TMPDIR/trace"
	run ! grep -E '"/dev/(sd|vd|nvme).*O_(RDWR|WRONLY)' "$BATS_TEST_TMPDIR/trace"
	[ "$(sha256_of "$device")" = "$before" ]
	[ ! -e /etc/crypttab ]
	repaired
}

@test "boot 2: the table opens everything after a reboot" {
	run -0 --separate-stderr qs-util --json cryptopenall
	jq -e '.ok and (.devices | length == 4)' <<<"$output"
	qs-util cryptcloseall
}
