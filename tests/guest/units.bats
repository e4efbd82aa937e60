#!/usr/bin/env bats
# Our units, generator and udev rule under systemd: who opens what at boot, a disk
# that is plugged in, and the weekly check.
#
# guest: --systemd --disk virtio:d1:64M --disk virtio:d2:64M --disk scsi:d3:64M
# guest: --disk virtio:usb:64M
# guest-boots: 2
# guest-boot 1: --tpm @state/other-tpm
# guest-boot 2: --tpm @state/tpm

load lib

readonly ID=/dev/disk/by-id
readonly SCSI=scsi-0QEMU_QEMU_HARDDISK_d3

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
	qs-util cryptenroll $ID/$SCSI --tpm2 # by a TPM that is gone at the next start
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

# entries ID: what the journal of this start has with this message id, explained.
entries()
{
	journalctl --sync
	journalctl -b -x "MESSAGE_ID=$1"
}

# Something else is measured into PCR 7: TPM2_PCR_Extend by a digest for the SHA-256 bank.
extend_pcr_7()
{
	local tpm
	exec {tpm}<>/dev/tpmrm0
	printf '\x80\x02\0\0\0\x41\0\0\x01\x82\0\0\0\x07\0\0\0\x09\x40\0\0\x09\0\0\0\0\0\0\0\0\x01\0\x0b%032d' 7 >/run/command
	cat /run/command >&"$tpm"
	head -c 19 <&"$tpm" >/run/answer
	exec {tpm}>&-
	[ "$(od -An -tx1 -j 6 -N 4 /run/answer | tr -d ' ')" = 00000000 ]
}

reopen()
{
	qs-util cryptclose "$1" >&2
	qs-util --json cryptopen "$@"
}

@test "boot 2: the journal explains what was opened by what" {
	journalctl --update-catalog
	reopen $ID/virtio-d2
	run entries b56f21aba2474211b76ca6f71a4743f4
	[[ $output == *'enc-virtio-d2 was opened by a key file'* ]]
	[[ $output == *'The encrypted device enc-virtio-d2 was opened'* ]]
	journalctl --sync
	journalctl -b QS_NAME=enc-virtio-d2 -o cat | grep -q 'was opened'
}

@test "boot 2: a TPM2 keyslot heals when its PCR moved, if it may, and it is this TPM's" {
	qs-util cryptenroll $ID/virtio-d2 --tpm2
	extend_pcr_7
	run -0 --separate-stderr reopen $ID/virtio-d2
	[ "$(jq -c '.devices[0] | [.keyslot, .tpm2_healed]' <<<"$output")" = '[0,null]' ]
	entries c303c4466e39450788307c398d8670c6 | grep -q 'enc-virtio-d2 was not opened by the TPM: PCR 7'
	run -2 qs-util cryptenroll --test --tpm2 $ID/virtio-d2
	echo 'tpm2_self_heal = true;' >>/etc/cryptconf/qs-util.conf
	run -0 --separate-stderr reopen $ID/virtio-d2
	[ "$(jq -c '.devices[0] | [.keyslot, .tpm2_healed]' <<<"$output")" = '[0,2]' ]
	entries 2ded6d3ce00e41f8aa31ceb5906629ff | grep -q 'enc-virtio-d2 was sealed to the TPM anew: PCR 7'
	run -0 qs-util cryptenroll --test --tpm2 $ID/virtio-d2
	[ "$(qs-util --json cryptenroll --list $ID/virtio-d2 | jq -c '[.devices[0].keyslots[].kind]')" = '["key-file","tpm2"]' ]
	cmp <(head -c 256K "$(dev_of d2)") <(head -c 256K /etc/cryptconf/headers/enc-virtio-d2.header)
	# By a person's key, and the slot of another TPM stays as it is.
	qs-util cryptenroll $ID/virtio-d2 --recovery-key /root/recovery
	extend_pcr_7
	run -0 --separate-stderr reopen $ID/virtio-d2 --passphrase-file /root/recovery
	[ "$(jq '.devices[0].tpm2_healed' <<<"$output")" = 3 ]
	run -0 --separate-stderr reopen $ID/$SCSI
	[ "$(jq -c '.devices[0] | [.keyslot, .tpm2_healed]' <<<"$output")" = '[0,null]' ]
	sed -i '$d' /etc/cryptconf/qs-util.conf
}

@test "boot 2: the check says which way is lost, though others work" {
	run ! systemctl start qs-util-check.service # the keyslot of another TPM
	entries a8b056d7cf974dc59fc81ba652ee9414 | grep -q "enc-$SCSI is no longer opened by tpm2"
	qs-util --yes cryptenroll $ID/$SCSI --wipe tpm2
	systemctl start qs-util-check.service
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

# generation DISK: which the header of the disk names.
generation()
{
	cryptsetup luksDump --dump-json-metadata "$(dev_of "$1")" |
		jq '.tokens[] | select(.type == "qs-keystore") | .generation'
}

is_at()
{
	[ "$(generation "$1")" = "$2" ]
}

current_is()
{
	[ "$(jq .current /etc/cryptconf/keystore/keystore.json)" = "$1" ]
}

backup_follows()
{
	cmp -n 262144 "$(dev_of d3)" "/etc/cryptconf/headers/enc-$SCSI.header"
}

pulled()
{
	local disk
	disk=$(basename "$(dev_of d3)")
	readlink -f "/sys/block/$disk/device" | grep -o 'host[0-9]*' | head -n 1 >/run/scsi-host
	qs-util cryptclose $ID/$SCSI
	echo 1 >"/sys/block/$disk/device/delete"
	wait_while test -e $ID/$SCSI
}

plugged_in()
{
	echo '- - -' >"/sys/class/scsi_host/$(</run/scsi-host)/scan"
	wait_for test -e $ID/$SCSI
}

@test "boot 2: the timers are on, and rotate the keystore when that is due" {
	systemctl is-active qs-util-rekey.timer
	systemctl is-active qs-util-keycheck.timer
	systemctl stop qs-util-check.timer qs-util-keycheck.timer
	systemctl start qs-util-rekey.service qs-util-keycheck.service # without a keystore they are skipped
	qs-util --yes keystore enable
	systemctl start qs-util-keycheck.service
	qs-util --json keystore status | jq -e .result.last_check.succeeded
	qs-util cryptenroll $ID/virtio-d1 $ID/virtio-d2 $ID/$SCSI --keystore
	qs-util keystore schedule 1D
	systemctl start qs-util-rekey.service
	run entries fd430628f5184f2489b4bd8c814d387c
	[[ $output != *rotation* ]]
	pulled
	mkdir -p /run/systemd/system/qs-util-rekey.timer.d
	printf '[Timer]\nRandomizedDelaySec=0\n' >/run/systemd/system/qs-util-rekey.timer.d/now.conf
	systemctl daemon-reload
	systemctl restart qs-util-rekey.timer
	date -s '+25 hours'
	wait_for current_is 2
	systemctl stop qs-util-rekey.timer
	wait_while systemctl is-active qs-util-rekey.service
	run ! systemctl is-failed qs-util-rekey.service
	is_at d1 2
	is_at d2 2
	run entries fd430628f5184f2489b4bd8c814d387c
	[[ $output == *"the keystore's rotation to generation 2 began"*'A rotation of the keystore began'* ]]
	run entries 6ec732c9164d40ffaf9dfd76671cfe29
	[[ $output == *'generation 2 is finished'* ]]
	[ "$(journalctl -b -o cat --output-fields=QS_GENERATION QS_EVENT=KeyRotationSucceeded)" = 2 ]
	qs-util --json keystore status | jq -e '.result | .overdue == false and .generations[0].backups > 0'
}

@test "boot 2: a disk that was away comes to the present generation as it is opened, or by the timer" {
	[ ! -e $ID/$SCSI ]
	plugged_in
	wait_for is_at d3 2
	wait_for test -b "/dev/mapper/enc-$SCSI"
	wait_for backup_follows
	pulled
	qs-util keystore rotate --force
	# Nobody opens it now.
	rm /run/qs-util/hotplug
	plugged_in
	is_at d3 2
	systemctl start qs-util-rekey.service
	is_at d3 3
	[ ! -e "/dev/mapper/enc-$SCSI" ]
	qs-util cryptopen $ID/$SCSI
	qs-util keystore verify
}

@test "boot 2: what fails is an event, and what is over its retention time goes with its generation" {
	qs-util keystore rotate --force
	qs-util --yes cryptdestroy $ID/virtio-d2
	chattr +i /etc/cryptconf/keystore
	date -s '+25 hours'
	run ! systemctl start qs-util-rekey.service
	chattr -i /etc/cryptconf/keystore
	systemctl --failed --plain --no-legend | grep -q '^qs-util-rekey.service '
	exec {lock}>/run/qs-util/keystore.lock
	flock "$lock"
	systemctl start qs-util-rekey.service # leaves the work to whoever has the lock
	exec {lock}>&-
	current_is 4
	[ -z "$(systemctl --failed --plain --no-legend)" ]
	run entries 6436837c39874e0fa259cd9f3a14c81d
	[[ $output == *"the keystore's rotation to generation 5 failed"* ]]
	qs-util --json keystore status | jq -e '.result.last_error.message | length > 0'
	systemctl start qs-util-rekey.service
	current_is 5
	date -s '+8 days'
	[ "$(find /etc/cryptconf/retired -type f | wc -l)" = 1 ]
	systemctl start qs-util-rekey.service
	current_is 6
	[ "$(find /etc/cryptconf/retired -type f | wc -l)" = 0 ]
	[ "$(cd /etc/cryptconf/keystore && echo *.kek)" = '5.kek 6.kek' ]
	qs-util keystore verify
}
