#!/usr/bin/env bats
# keystore rewrap: devices with key files go into the keystore, and no key goes before the new
# one is proven. Crashes: tests/fault/rotating.py.

load tree

setup()
{
	make_tree 2
	CONF=$ROOT/etc/cryptconf
	qs cryptformat --no-open "$ID"1 "$ID"2
	cp "$(key_of 1)" "$BATS_TEST_TMPDIR/old-key"
}

kinds()
{
	qs --json cryptenroll --list "$ID$1" | jq -c '[.devices[0].keyslots[].kind]'
}

@test "rewrap is refused without a keystore, without a device, and for one without a key file" {
	run -1 qs keystore rewrap --all
	qs --yes keystore enable
	run -64 qs keystore rewrap
	run -64 qs keystore rewrap --all "$ID"1
	run -64 qs keystore verify "$ID"1
	before=$(sha256sum "$(image_of 1)" "$ROOT/etc/crypttab")
	mv "$(key_of 1)" "$BATS_TEST_TMPDIR/away.key"
	run -0 qs keystore rewrap "$ID"1
	[[ "$output" == *'nothing done for enc-scsi-30001 (has no key file to move)'* ]]
	head -c 1M /dev/urandom >"$(key_of 1)"
	chmod 400 "$(key_of 1)"
	run -2 qs keystore rewrap "$ID"1
	[ -e "$(key_of 1)" ]
	[ "$before" = "$(sha256sum "$(image_of 1)" "$ROOT/etc/crypttab")" ]
	[ -z "$(ls "$CONF/pending")" ]
}

@test "rewrap --all: the keystore opens, the key file opens nothing, neither here nor in a backup" {
	qs --yes keystore enable
	run -0 --separate-stderr qs --json keystore rewrap --all
	[ "$(jq -c '[.devices[] | [.kind, .key_erased != null, .wiped]]' <<<"$output")" = '[["keystore",true,[0]],["keystore",true,[0]]]' ]
	for n in 1 2; do
		[ ! -e "$(key_of $n)" ]
		[ "$(kinds $n)" = '["keystore"]' ]
		cmp -n "$(stat -c %s "$(backup_of $n)")" "$(backup_of $n)" "$(image_of $n)"
		qs cryptopen --test "$ID$n"
	done
	grep -qE "^enc-scsi-30001 +${ID}1 +none +luks,noauto$" "$ROOT/etc/crypttab"
	for header in "$(image_of 1)" "$CONF"/headers/enc-scsi-30001.header "$CONF"/headers/enc-scsi-30001.d/*; do
		[ -e "$header" ] || continue
		run -2 cryptsetup open --test-passphrase --key-file "$BATS_TEST_TMPDIR/old-key" "$header"
	done
	[ -z "$(ls "$CONF/pending")" ]
	run -0 --separate-stderr qs --json cryptopenall --test
	[ "$(jq -c '[.devices[].keystore_generation]' <<<"$output")" = '[1,1]' ]
	[ "$(qs --json cryptstatus | jq -c '[.devices[].crypttab.agrees]')" = '[true,true]' ]
	# And again: nothing is left to do.
	before=$(sha256sum "$(image_of 1)" "$ROOT/etc/crypttab")
	qs keystore rewrap --all
	[ "$before" = "$(sha256sum "$(image_of 1)" "$ROOT/etc/crypttab")" ]
	qs keystore verify
}

@test "rewrap brings what was away to the present generation, and a key that others use stays" {
	qs --yes keystore enable
	qs cryptenroll "$ID"1 --keystore
	rm "$ROOT$ID"1
	qs keystore rotate --force
	ln -s "$ROOT/img/d1" "$ROOT$ID"1
	echo "other  /dev/disk/by-id/other  /etc/cryptconf/keys/enc-scsi-30001.key  luks" >>"$ROOT/etc/crypttab"
	run -0 --separate-stderr qs --json keystore rewrap "$ID"1
	[ "$(jq -r '.devices[] | select(.key_kept) | .key_kept' <<<"$output")" = /etc/cryptconf/keys/enc-scsi-30001.key ]
	[ -e "$(key_of 1)" ]
	[ "$(kinds 1)" = '["keystore"]' ]
	run -0 --separate-stderr qs --json cryptopen --test "$ID"1
	[ "$(jq '.devices[0].keystore_generation' <<<"$output")" = 2 ]
}
