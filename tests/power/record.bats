#!/usr/bin/env bats
# Runs each command of /guest/jobs on disks whose every write and flush the host
# writes down. Started by powerbench.py, which knows what the jobs are.

load lib

readonly ETC=/dev/disk/by-id/virtio-etc MARKS=/dev/disk/by-id/virtio-marks

# tell TEXT: to the host's log, between what was written before and after.
tell()
{
	printf '%s\n' "$1" | dd of="$MARKS" bs=512 conv=sync oflag=direct status=none
}

# The host has changed all disks under the kernel and udev.
look_again()
{
	local disk disks=()
	for disk in "$ETC" /dev/disk/by-id/scsi-3*; do
		blockdev --flushbufs "$disk"
		disks+=("$(readlink -f "$disk")")
	done
	udevadm trigger --action=change --settle "${disks[@]}"
}

# record JOB WORD...: the command, with /etc and /var on the logged file system and
# nothing that makes up for a missing sync.
record()
{
	local job=$1 status=0
	shift
	tell "load $job"
	look_again
	mount -o noauto_da_alloc "$ETC" /mnt
	sync
	tell begin
	# shellcheck disable=SC2016 # for the shell inside
	unshare --mount bash -c 'mount --bind /mnt/etc /etc && mount --bind /mnt/var /var && exec "$@"' - \
		timeout 300 qs-util "$@" >/run/out 2>&1 || status=$?
	tell "end $status"
	sync
	tell synced
	sed "s/^/# $job: /" /run/out
	dmsetup remove_all --force
	umount /mnt
}

@test "every job is recorded" {
	local job words
	while read -r job words; do
		# shellcheck disable=SC2086 # no word of them has a blank
		record "$job" $words
	done </guest/jobs
	tell "end of all"
}
