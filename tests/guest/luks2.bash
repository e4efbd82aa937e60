# LUKS2 headers that no stock tool writes: "load luks2" in a guest test.
# shellcheck shell=bash

# number_at FILE OFFSET: eight bytes, big-endian.
number_at()
{
	echo $((16#$(od -An -tx1 -v -j "$2" -N 8 "$1" | tr -d ' \n')))
}

# luks2_edit DEVICE FILTER: changes the metadata in both copies by a jq filter, and puts the
# checksums right.
luks2_edit()
{
	local dir size at
	dir=$(mktemp -d)
	size=$(number_at "$1" 8)
	dd if="$1" bs=4096 skip=1 count=$((size / 4096 - 1)) status=none | tr -d '\0' | jq -cj "$2" >"$dir/area"
	truncate -s $((size - 4096)) "$dir/area"
	for at in 0 $((size / 4096)); do
		dd if="$1" of="$dir/block" bs=4096 skip=$at count=1 status=none
		dd if=/dev/zero of="$dir/block" bs=64 seek=7 count=1 conv=notrunc status=none
		cat "$dir/block" "$dir/area" | openssl dgst -sha256 -binary |
			dd of="$dir/block" bs=64 seek=7 conv=notrunc status=none
		cat "$dir/block" "$dir/area" | dd of="$1" bs=4096 seek=$at conv=notrunc,fsync status=none
	done
	rm -r "$dir"
}

# luks2_null_keyslot DEVICE SLOT KEYFILE: makes a PBKDF2 keyslot that KEYFILE opens into one
# that anything opens: its key material is stored in clear, under a null cipher.
luks2_null_keyslot()
{
	local device=$1 slot offset size key
	slot=$(cryptsetup luksDump --dump-json-metadata "$device" | jq ".keyslots[\"$2\"]")
	offset=$(jq -r .area.offset <<<"$slot")
	size=$(jq -r .area.size <<<"$slot")
	key=$(openssl kdf -keylen "$(jq .area.key_size <<<"$slot")" \
		-kdfopt "digest:$(jq -r .kdf.hash <<<"$slot")" -kdfopt "iter:$(jq .kdf.iterations <<<"$slot")" \
		-kdfopt "hexpass:$(od -An -tx1 -v "$3" | tr -d ' \n')" \
		-kdfopt "hexsalt:$(jq -r .kdf.salt <<<"$slot" | base64 -d | od -An -tx1 -v | tr -d ' \n')" \
		PBKDF2 | tr -d ':\n')
	dmsetup create area --table "0 $((size / 512)) crypt aes-xts-plain64 $key 0 $device $((offset / 512))"
	dd if=/dev/mapper/area of=/run/area bs=4096 status=none
	settle
	dmsetup remove area
	dd if=/run/area of="$device" bs=4096 seek=$((offset / 4096)) conv=notrunc,fsync status=none
	luks2_edit "$device" ".keyslots[\"$2\"].area.encryption = \"cipher_null-ecb\""
}
