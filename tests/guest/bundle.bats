#!/usr/bin/env bats
# The boot drive is lost with all keys and tables: the disks open from the key
# bundle at once, everything comes back, and the next boot is as if nothing had been.
#
# guest: --disk virtio:d1:64M --disk scsi:d2:64M --disk nvme:d3:64M --disk virtio:d4:64M
# guest-boots: 2

load lib

readonly links=(
	/dev/disk/by-id/virtio-d1
	/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_d2
	/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_d3
	/dev/disk/by-id/virtio-d4
)

open_count()
{
	dmsetup ls --target crypt | grep -c '^enc-'
}

key_sums()
{
	(cd /etc/cryptconf && find keys headers keystore -type f | sort | xargs sha256sum)
}

@test "boot 1: four disks, data on one, whose key is in the keystore, and a bundle elsewhere" {
	qs-util cryptformat "${links[@]:0:3}"
	qs-util --yes keystore enable
	qs-util cryptformat "${links[3]}"
	[ ! -e /etc/cryptconf/keys/enc-virtio-d4.key ]
	mkfs.ext4 -q /dev/mapper/enc-virtio-d4
	mount /dev/mapper/enc-virtio-d4 /mnt
	echo 'the data' >/mnt/data
	umount /mnt
	mkdir /root/elsewhere
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /root/elsewhere/backup.pem \
		-out /root/elsewhere/backup.crt -subj /CN=backup -days 2
	qs-util keybackup --to /root/elsewhere/backup.crt /root/elsewhere/keys.cms
	key_sums >/root/elsewhere/sums
	cp /etc/crypttab /root/elsewhere/crypttab
	qs-util cryptcloseall
}

@test "boot 1: keys, backups and crypttab are gone: all four open from the bundle" {
	rm -r /etc/cryptconf /etc/crypttab
	run -0 qs-util cryptopenall
	[ "$(open_count)" -eq 0 ]
	run -0 qs-util cryptopenall --test --bundle /root/elsewhere/keys.cms --key-file /root/elsewhere/backup.pem
	[ "$(open_count)" -eq 0 ]
	run -0 --separate-stderr qs-util --json cryptopenall --bundle /root/elsewhere/keys.cms \
		--key-file /root/elsewhere/backup.pem
	jq -e '[.devices[] | select(.ok)] | length == 4' <<<"$output"
	[ "$(open_count)" -eq 4 ]
	mount -o ro /dev/mapper/enc-virtio-d4 /mnt
	[ "$(cat /mnt/data)" = 'the data' ]
	umount /mnt
	[ ! -e /etc/cryptconf ]
	[ ! -e /etc/crypttab ]
}

@test "boot 1: open already is a success; a link that is gone is found by UUID" {
	run -0 qs-util cryptopenall --bundle /root/elsewhere/keys.cms --key-file /root/elsewhere/backup.pem
	[ "$(grep -c 'already open' <<<"$output")" -eq 4 ]
	qs-util cryptclose enc-virtio-d1
	rm "${links[0]}"
	run -0 qs-util cryptopenall --bundle /root/elsewhere/keys.cms --key-file /root/elsewhere/backup.pem
	[[ $output == */dev/disk/by-uuid/*'opened as enc-virtio-d1'* ]]
	[ "$(open_count)" -eq 4 ]
}

@test "boot 1: everything comes back while the disks are open" {
	echo "# somebody's" >/etc/crypttab
	qs-util keyrestore --key-file /root/elsewhere/backup.pem /root/elsewhere/keys.cms
	[ "$(key_sums)" = "$(cat /root/elsewhere/sums)" ]
	diff /etc/crypttab <(echo "# somebody's" && grep '^enc-' /root/elsewhere/crypttab)
	sync
}

@test "boot 2: cryptopenall opens all four as ever" {
	run -0 qs-util cryptopenall
	[ "$(open_count)" -eq 4 ]
	mount -o ro /dev/mapper/enc-virtio-d4 /mnt
	[ "$(cat /mnt/data)" = 'the data' ]
	umount /mnt
}
