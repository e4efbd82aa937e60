#!/usr/bin/env bats
# Inside the system that came up from its encrypted disk.

load lib

readonly ROOT_DISK=/dev/disk/by-id/virtio-crypt

@test "it runs, and nothing failed" {
	wait_for boot_is_over
	run systemctl --failed --no-legend
	[ -z "$output" ]
	[ "$(systemctl is-system-running)" = running ]
	[ "$(findmnt -no SOURCE /)" = /dev/mapper/enc-virtio-crypt ]
}

@test "a second unseal fails: the TPM's way was closed before the system came up" {
	run -2 qs-util cryptopen --test $ROOT_DISK
	[[ $output == *'PCR 7'* ]]
	run ! cryptsetup open --test-passphrase --token-only $ROOT_DISK
	jq -e '.before.sha256."7"' /run/qs-util/tpm2-closed.json
}

@test "planted and null-cipher volumes with our token were refused, and the journal says why" {
	[ ! -e /dev/mapper/enc-virtio-planted ]
	[ ! -e /dev/mapper/enc-virtio-null ]
	[ ! -e /dev/mapper/enc-virtio-segment ]
	grep -qx 'refused optional enc-virtio-planted .*' /run/qs-util/early
	grep -qx 'refused optional enc-virtio-null .*' /run/qs-util/early
	grep -qx 'refused optional enc-virtio-segment .*' /run/qs-util/early
	journalctl -b -k | grep 'qs-util:.*virtio-planted.*volume key'
	journalctl -b -k | grep 'qs-util:.*virtio-null.*null'
	journalctl -b -k | grep 'qs-util:.*virtio-segment.*null'
}

@test "a data disk that only the TPM opens came with the root; one that wants a PIN is left alone" {
	[ -b /dev/mapper/enc-virtio-data ]
	grep -qx 'open optional enc-virtio-data .*' /run/qs-util/early
	[ ! -e /dev/mapper/enc-virtio-pin ]
	grep -qx 'ask optional enc-virtio-pin .*' /run/qs-util/early
}

@test "what / lies on is found by walking down from it, and by fstab" {
	# shellcheck source=/dev/null
	. /usr/lib/qs-util/initramfs/collect.sh
	[ "$(qs_walk "$(findmnt -no SOURCE /)")" = enc-virtio-crypt ]
	[ "$(qs_boot_names)" = enc-virtio-crypt ]
}
