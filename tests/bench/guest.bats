#!/usr/bin/env bats
# What needs a kernel with device-mapper and udev: goals G6 and G12, and opens
# that map. It asserts no time: "run" reads the samples and makes its table.
#
# guest: --disk scsi:b01:64M --disk scsi:b02:64M --disk scsi:b03:64M --disk scsi:b04:64M
# guest: --disk scsi:b05:64M --disk scsi:b06:64M --disk scsi:b07:64M --disk scsi:b08:64M
# guest: --disk scsi:b09:64M --disk scsi:b10:64M --disk scsi:b11:64M --disk scsi:b12:64M
# guest: --disk scsi:b13:64M --disk scsi:b14:64M --disk scsi:b15:64M --disk scsi:b16:64M
# guest: --disk scsi:b17:64M --disk scsi:b18:64M --disk scsi:b19:64M --disk scsi:b20:64M
# guest: --disk scsi:b21:64M --disk scsi:b22:64M --disk scsi:b23:64M --disk scsi:b24:64M
# guest: --smp 2 --memory 1536 --timeout 3600

load lib
load ../bench/sample

readonly rounds=9
readonly few=8 # devices that are opened and closed again
readonly keys=/etc/cryptconf/keys

# The names of our mappings, the first N if N is given.
mappings()
{
	local -a all=(/dev/mapper/enc-*)
	printf '%s\n' "${all[@]##*/}" | head -n "${1-1000}"
}

device_of_name()
{
	readlink -f "/dev/disk/by-id/${1#enc-}"
}

status_loop()
{
	local name
	for name; do
		cryptsetup status "$name" || return
	done
}

open_loop()
{
	local name
	for name; do
		cryptsetup open "$(device_of_name "$name")" "$name" -d "$keys/$name.key" || return
	done
}

close_all()
{
	local name
	for name; do
		cryptsetup close "$name" || return
	done
	settle
}

@test "24 disks formatted and open" {
	local serial devices=()
	for serial in $GUEST_DISKS; do
		devices+=("$(dev_of "$serial")")
	done
	qs-util cryptformat "${devices[@]}"
	settle
	[ "$(mappings | wc -l)" -eq 24 ]
}

@test "G6: all open already" {
	local names i
	mapfile -t names < <(mappings)
	for ((i = 0; i < rounds; i++)); do
		sample G6 ours qs-util cryptopenall
		sample G6 peer status_loop "${names[@]}"
	done
}

@test "G1: open some" {
	local names i
	mapfile -t names < <(mappings "$few")
	close_all "${names[@]}"
	for ((i = 0; i < rounds; i++)); do
		sample G1 ours qs-util cryptopenall
		close_all "${names[@]}"
		sample G1 peer open_loop "${names[@]}"
		close_all "${names[@]}"
	done
	qs-util cryptopenall
}

@test "G4: open one" {
	local name device i
	name=$(mappings 1)
	device=$(device_of_name "$name")
	close_all "$name"
	for ((i = 0; i < rounds; i++)); do
		sample G4 ours qs-util cryptopen "$device" "$keys/$name.key"
		close_all "$name"
		sample G4 peer cryptsetup open "$device" "$name" -d "$keys/$name.key"
		close_all "$name"
	done
}

@test "G12: list a hundred disks" {
	local i
	load_scsi_debug dev_size_mb=8 num_tgts=76 >/dev/null
	[ "$(qs-util devicemap | wc -l)" -ge 100 ]
	for ((i = 0; i < rounds; i++)); do
		sample G12 ours qs-util devicemap --json
		sample G12 peer lsblk -J -O
	done
}
