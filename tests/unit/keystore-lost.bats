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
	says 78 "$REMAINS" cryptenroll "${ID}1" --keystore
	says 78 "$REMAINS" cryptopen --test "${ID}1"
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
	# A new one is not put beside them all the same.
	says 78 'but no keystore.json' --yes keystore enable
}
