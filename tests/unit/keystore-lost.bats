#!/usr/bin/env bats
# A keystore that lost its keystore.json, or all of it: nothing takes it for no keystore, and
# each sentence names the way out.

load tree

setup()
{
	make_tree 4
	KEYSTORE=$ROOT/etc/cryptconf/keystore
	AWAY=$BATS_TEST_TMPDIR/away
	qs --yes keystore enable
	qs cryptformat --no-open "${ID}1" "${ID}2"
	grep -qx "enc-scsi-30001  ${ID}1  none  luks,noauto" "$ROOT/etc/crypttab"
}

readonly REMAINS='holds 1.kek but no keystore.json: put that back from a key bundle'
readonly GONE='its key is in the keystore, which is not on this machine: put it back from a key bundle (qs-util keyrestore)'

# says STATUS TEXT ARGUMENT...: it ends so, and TEXT is what it says.
says()
{
	run -"$1" qs "${@:3}"
	[[ $output == *"$2"* ]]
}

@test "without keystore.json, what remains of the keystore is not taken for no keystore" {
	mv "$KEYSTORE/keystore.json" "$AWAY"
	says 78 "$REMAINS" keystore status
	says 78 "$REMAINS" keystore check
	says 78 "$REMAINS" keystore rotate
	says 78 "$REMAINS" keystore rotate --if-due
	says 78 "$REMAINS" keystore rewrap --all
	says 78 "$REMAINS" keystore verify
	says 78 "$REMAINS" --yes keystore enable
	says 78 "$REMAINS" --yes keystore disable
	says 0 "$REMAINS" cryptstatus "${ID}1"
	says 78 "$REMAINS" cryptenroll "${ID}1" --keystore
	says 78 "$REMAINS" cryptopen --test "${ID}1"
	[[ $output != *'move'* ]]
	says 78 "$REMAINS" cryptopenall --test
	says 78 "$REMAINS" cryptformat --no-open "${ID}3"
	run ! cryptsetup isLuks "$(image_of 3)"
	# What needs no keystore goes on.
	run -0 qs cryptformat --no-open --key-file-only "${ID}3"
	run -0 qs cryptopen --test "${ID}3"
	# With a key that is given it is not even asked for: what is wrong is that key.
	says 2 'the key file /absent does not exist' cryptformat --no-open --key-file /absent "${ID}4"
	[ "$(ls "$KEYSTORE")" = 1.kek ]
	mv "$AWAY" "$KEYSTORE/keystore.json"
	run -0 qs cryptopenall --test
	[[ $output == *"enc-scsi-30002"* ]]
}

@test "each kind of a generation's file is what remains of a keystore, a file of somebody is not" {
	local name
	rm "$KEYSTORE"/*
	for name in 9.sealed 9.kmip 9.vault 9.lease; do
		: >"$KEYSTORE/$name"
		says 78 "holds $name but no keystore.json" keystore status
		rm "$KEYSTORE/$name"
	done
	: >"$KEYSTORE/README"
	mkdir "$KEYSTORE/old.kek"
	says 0 'is disabled' keystore status
	# Monitoring tells that from what ends soon.
	says 78 'enable it first' keystore check
	# A new one is not put beside them all the same.
	says 78 'but no keystore.json' --yes keystore enable
}

@test "devices of a keystore that is gone do not open, and that is said" {
	local before
	mv "$KEYSTORE" "$AWAY"
	before=$(sum "$(image_of 1)")
	says 2 "$GONE" cryptopen --test "${ID}1"
	run -0 --separate-stderr qs --json cryptstatus "${ID}1"
	[ "$(jq -r '.devices[0].warnings[]' <<<"$output")" = "$GONE" ]
	says 2 "$GONE" cryptopenall --test
	[[ $output == *scsi-30001* && $output == *scsi-30002* ]]
	run -2 --separate-stderr qs --json cryptopenall --test
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -r '.devices[].error.code' <<<"$output")" = "$(printf 'no-key\nno-key')" ]
	# With a key file that does not fit, both are told; and one that does opens it.
	mkdir -p "$ROOT/etc/cryptconf/keys"
	new_key "$(key_of 1)"
	says 2 "; and $GONE" cryptopen --test "${ID}1"
	rm "$(key_of 1)"
	[ "$(sum "$(image_of 1)")" = "$before" ]
	# One that is away is no failure; its header backup tells of one whose header is destroyed.
	rm "$ROOT${ID}2"
	dd if=/dev/zero of="$(image_of 1)" bs=1M count=16 conv=notrunc status=none
	run -2 qs cryptopenall --test
	[[ $output == *scsi-30001* && $output != *scsi-30002* ]]
	rm "$ROOT${ID}1"
	says 0 'no encrypted device of ours is present' cryptopenall --test
}

@test "without a keystore, devices of somebody else stay ignored" {
	rm -r "$KEYSTORE" "$ROOT/etc/cryptconf/headers" "$ROOT/etc/crypttab"
	new_key "$BATS_TEST_TMPDIR/key"
	stock_format "$(image_of 3)" "$BATS_TEST_TMPDIR/key"
	printf '%s\n' "enc-theirs ${ID}3 none luks" "enc-blank ${ID}4 none luks" \
		"theirs ${ID}1 none luks" "enc-swap ${ID}2 /dev/urandom swap" >"$ROOT/etc/crypttab"
	says 0 'no encrypted device of ours is present' cryptopenall --test
	# What cannot be looked at is not nothing.
	run -1 failing readlink,readlinkat "$ROOT${ID}4" cryptopenall --test
	[[ $output == *"${ID}4: "*'Input/output error'* ]]
}

@test "enable is refused while anything has a key in a keystore that is gone, and disks that tell nothing" {
	mv "$KEYSTORE" "$AWAY"
	local without='in a keystore that is not on this machine'
	says 6 "4 devices and header backups have a key $without" --yes keystore enable
	[[ $output == *'put that keystore back from a key bundle (qs-util keyrestore)'* ]]
	# Nobody is asked to confirm what is refused.
	says 6 "$without" keystore enable
	[ ! -e "$KEYSTORE" ]
	# A device without its header backup, a header backup without its device.
	rm -r "$ROOT/etc/cryptconf/headers/"enc-scsi-30001.*
	dd if=/dev/zero of="$(image_of 2)" bs=1M count=16 conv=notrunc status=none
	says 6 "2 devices and header backups have a key $without" --yes keystore enable
	rm -r "$ROOT/etc/cryptconf/headers"
	says 6 "1 device and header backup has a key $without, ${ID}1 first" --yes keystore enable
	# What cannot be looked at is not nothing.
	run -6 failing readlink,readlinkat "$ROOT${ID}1" --yes keystore enable
	[[ $output == *"it cannot be told whether ${ID}1 has a key in another keystore"*'restore its header'* ]]
	rm "$ROOT${ID}1"
	says 0 'The keystore is enabled' --yes keystore enable
}

@test "a key in a keystore that is gone can be taken away, and then enable goes on" {
	qs cryptformat --no-open --key-file-only "${ID}3"
	qs cryptenroll "${ID}3" --keystore
	rm "$ROOT${ID}1" "$ROOT${ID}2"
	rm -r "$ROOT/etc/cryptconf/headers/"enc-scsi-3000[12].*
	mv "$KEYSTORE" "$AWAY"
	says 6 "2 devices and header backups have" --yes keystore enable
	run -0 qs --yes cryptenroll "${ID}3" --wipe keystore
	run -0 qs --yes keystore enable
	run -0 qs cryptenroll "${ID}3" --keystore
}

@test "status tells that the file of a generation is missing, as check does" {
	local provider file
	mv "$KEYSTORE/1.kek" "$AWAY"
	run -0 --separate-stderr qs --json keystore status
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	local problem
	problem=$(jq -r '.result.generations[0].key.problem' <<<"$output")
	[[ $problem == *'1.kek does not exist (generation 1 of the keystore; a key bundle has it, too: keyrestore)' ]]
	says 0 "; $problem" keystore status
	says 2 "$problem" keystore check
	# Any other length than a key's is as good as none.
	: >"$KEYSTORE/1.kek"
	says 0 '1.kek is empty' keystore status
	mv "$AWAY" "$KEYSTORE/1.kek"
	run -0 --separate-stderr qs --json keystore status
	[ "$(jq '.result.generations[0] | has("key")' <<<"$output")" = false ]
	for provider in kmip:1.kmip kmip-wrap:1.kmip vault:1.vault; do
		file=$KEYSTORE/keystore.json
		jq -c --arg p "${provider%:*}" '.provider = $p | del(.sum)' "$file" >"$AWAY"
		cp "$AWAY" "$file"
		says 0 "${provider#*:} does not exist, so it is not known which key of the server is generation 1" keystore status
	done
}

@test "an empty record is not usable, and the way out is said" {
	local empty='is not usable: it is empty; take it from a key bundle (keyrestore)' provider file
	cp "$KEYSTORE/keystore.json" "$AWAY"
	: >"$KEYSTORE/keystore.json"
	says 78 "keystore.json $empty" keystore status
	says 78 "keystore.json $empty" cryptopen --test "${ID}1"
	for provider in kmip:1.kmip kmip-wrap:1.kmip vault:1.vault tpm2:1.sealed; do
		file=$KEYSTORE/${provider#*:}
		jq -c --arg p "${provider%:*}" '.provider = $p | del(.sum)' "$AWAY" >"$KEYSTORE/keystore.json"
		(umask 077 && : >"$file")
		says 0 "${provider#*:} $empty" keystore status
		says 78 "${provider#*:} $empty" keystore check
		rm "$file"
	done
}
