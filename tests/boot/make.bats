#!/usr/bin/env bats
# Run by build-system in the fast guest: a system goes onto an encrypted disk that its
# TPM opens. What the host needs of it is among the results.

load lib

@test "the disk is formatted, filled and enrolled" {
	qs-util cryptformat /dev/disk/by-id/virtio-crypt
	e2image -ra "$(dev_of plain)" /dev/mapper/enc-virtio-crypt
	e2fsck -fy /dev/mapper/enc-virtio-crypt
	qs-util cryptenroll --recovery-key /dev/disk/by-id/virtio-crypt "$GUEST_RESULTS/recovery"
	qs-util cryptenroll --tpm2 /dev/disk/by-id/virtio-crypt
	cp /etc/cryptconf/keys/enc-virtio-crypt.key "$GUEST_RESULTS/key"
	cp /etc/cryptconf/headers/enc-virtio-crypt.header "$GUEST_RESULTS/"
	cryptsetup luksDump --batch-mode --dump-volume-key --volume-key-file "$GUEST_RESULTS/volume-key" \
		--key-file "$GUEST_RESULTS/key" "$(dev_of crypt)"
	cryptsetup luksDump --dump-json-metadata "$(dev_of crypt)" |
		jq '.tokens[] | select(.type == "systemd-tpm2")' >"$GUEST_RESULTS/token"
	[ -s "$GUEST_RESULTS/token" ]
}

@test "so are two small ones, of which one wants a PIN as well" {
	qs-util cryptformat --no-open /dev/disk/by-id/virtio-data /dev/disk/by-id/virtio-pin
	qs-util cryptenroll --tpm2 /dev/disk/by-id/virtio-data
	(umask 077 && echo 1234 >/run/pin)
	qs-util cryptenroll --tpm2 --pin-file /run/pin /dev/disk/by-id/virtio-pin
	cp /etc/cryptconf/headers/enc-virtio-{data,pin}.header "$GUEST_RESULTS/"
	sync
}
