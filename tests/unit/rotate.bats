#!/usr/bin/env bats
# Rotation: every key in a new wrapping, nothing lost of a device that is away, and no
# generation gone that anything needs. Crashes: tests/fault/rotating.py; all their orders:
# test-rotation.c.

# shellcheck disable=SC2154 # Bats sets stderr
load tree

setup()
{
	make_tree 3
	KEYSTORE=$ROOT/etc/cryptconf/keystore
	qs cryptformat --no-open "$ID"1 "$ID"2 "$ID"3
	qs --yes keystore enable
	qs cryptenroll "$ID"1 "$ID"2 "$ID"3 --keystore
}

# generation N: which the header of device N names.
generation()
{
	cryptsetup luksDump --dump-json-metadata "$(image_of "$1")" |
		jq '.tokens[] | select(.type == "qs-keystore") | .generation'
}

keyslots()
{
	cryptsetup luksDump --dump-json-metadata "$(image_of "$1")" | jq -S .keyslots
}

away()
{
	rm "$ROOT$ID$1"
}

returned()
{
	ln -s "$ROOT/img/d$1" "$ROOT$ID$1"
}

rotated()
{
	qs keystore rotate --force
}

kek_names()
{
	(cd "$KEYSTORE" && echo *.kek)
}

@test "rotate is refused where there is no keystore, too soon, and while another one runs" {
	before=$(sha256sum "$KEYSTORE"/* "$(image_of 1)")
	run -6 qs keystore rotate
	[[ "$output" == *'24 hours; --force makes the next one now'* ]]
	exec {lock}>"$ROOT/run/qs-util/keystore.lock"
	flock "$lock"
	run -5 qs keystore rotate --force
	[[ "$output" == *'another qs-util works on the keystore'* ]]
	exec {lock}>&-
	run -64 qs keystore status --force
	[ "$before" = "$(sha256sum "$KEYSTORE"/* "$(image_of 1)")" ]
	qs --yes cryptenroll "$ID"1 "$ID"2 "$ID"3 --wipe keystore
	qs --yes keystore disable
	run -1 qs keystore rotate
	[ ! -e "$KEYSTORE" ]
}

@test "rotate wraps every key anew, in header and backup, and changes no keyslot" {
	before=$(keyslots 1)
	run -0 --separate-stderr qs --json keystore rotate --force
	[ "$(jq -c '[.devices[].generation]' <<<"$output")" = '[2,2,2]' ]
	[ "$(jq -c '.result | [.generation, .retired, .rotation]' <<<"$output")" = '[2,[],null]' ]
	for n in 1 2 3; do
		[ "$(generation $n)" = 2 ]
		cmp -n "$(stat -c %s "$(backup_of $n)")" "$(backup_of $n)" "$(image_of $n)"
		[ "$(find "$ROOT/etc/cryptconf/headers/enc-scsi-3000$n.d" -type f | wc -l)" = 1 ]
		qs cryptopen --test "$ID$n"
	done
	[ "$(keyslots 1)" = "$before" ]
	qs keystore verify
	# Its files are the proof: no device opens by the first generation any more.
	rm "$KEYSTORE/1.kek"
	rm "$ROOT"/etc/cryptconf/keys/*
	run -0 --separate-stderr qs --json cryptopen --test "$ID"1
	[ "$(jq '.devices[0].keystore_generation' <<<"$output")" = 2 ]
}

@test "progress counts the devices that are brought along, once each, up to all" {
	run -0 --separate-stderr qs --progress=json keystore rotate --force
	[ "$(jq -cs '[.[] | select(.step == "done") | [.done, .total]]' <<<"$stderr")" = '[[1,3],[2,3],[3,3]]' ]
	[ "$(jq -cs '[.[] | [.total, .done <= 3]] | unique' <<<"$stderr")" = '[[3,true]]' ]
	[ "$(jq -cs 'map(.done) | . == sort' <<<"$stderr")" = true ]
	rm "$(backup_of 3)"
	cp "$(image_of 2)" "$BATS_TEST_TMPDIR/whole"
	dd if=/dev/urandom of="$(image_of 2)" bs=4096 seek=1 count=70 conv=notrunc status=none
	run -7 --separate-stderr qs --progress=json keystore rotate --force
	[ "$(jq -cs '[.[] | select(.step == "done") | [.done, .total]]' <<<"$stderr")" = '[[1,2],[2,2]]' ]
	cp --sparse=always "$BATS_TEST_TMPDIR/whole" "$(image_of 2)"
	run -0 --separate-stderr qs --progress=json keystore rewrap "$ID"1
	[ "$(jq -cs '[.[] | select(.step == "done") | [.done, .total]][0]' <<<"$stderr")" = '[1,1]' ]
}

@test "the generation before the present one is kept, an older one goes when nothing needs it" {
	rotated
	[ "$(kek_names)" = '1.kek 2.kek' ]
	run -0 --separate-stderr qs --json keystore rotate --force
	[ "$(jq -c .result.retired <<<"$output")" = '[1]' ]
	[ "$(kek_names)" = '2.kek 3.kek' ]
	[ "$(qs --json keystore status | jq -c '[.result.generations[].number]')" = '[2,3]' ]
}

@test "a device that is away keeps its generation, and the next rotation takes it along" {
	away 2
	rotated
	rotated
	rotated
	[ "$(kek_names)" = '1.kek 3.kek 4.kek' ]
	returned 2
	run -0 --separate-stderr qs --json cryptopen --test "$ID"2
	[ "$(jq '.devices[0].keystore_generation' <<<"$output")" = 1 ]
	rotated
	[ "$(generation 2)" = 5 ]
	[ "$(kek_names)" = '4.kek 5.kek' ]
	qs keystore verify
}

@test "a device that fails leaves the rotation unfinished, both generations open, and it goes on" {
	cp --sparse=always "$(image_of 2)" "$BATS_TEST_TMPDIR/whole"
	# Beyond repair: what lies there now may be anything.
	dd if=/dev/urandom of="$(image_of 2)" bs=4096 seek=1 count=70 conv=notrunc status=none
	run -7 --separate-stderr qs --json keystore rotate --force
	[ "$(jq -c '.result.rotation' <<<"$output")" = '{"state":"rewrapping-keys","generation":2,"provider":"local"}' ]
	[ "$(jq -r '.devices[] | select(.ok | not) | .error.code' <<<"$output")" = header-damaged ]
	[ "$(generation 1)$(generation 3)" = 22 ]
	run -0 --separate-stderr qs --json keystore status
	[ "$(jq -c '.result.rotation | [.state, .done, .total]' <<<"$output")" = '["rewrapping-keys",2,2]' ]
	[ "$(jq -r .result.rotation_state <<<"$output")" = rewrapping-keys ]
	# Also within the minimum interval, and what is enrolled meanwhile gets the new generation.
	qs cryptenroll "$ID"1 --keystore
	[ "$(generation 1)" = 2 ]
	run -7 qs keystore rotate
	cp --sparse=always "$BATS_TEST_TMPDIR/whole" "$(image_of 2)"
	run -0 --separate-stderr qs --json keystore rotate
	[ "$(jq -c '.result | [.generation, .rotation]' <<<"$output")" = '[2,null]' ]
	[ "$(generation 2)" = 2 ]
	qs keystore verify
}

@test "a backup that cannot be read keeps all generations; one that is missing is made" {
	rotated
	rm "$(backup_of 1)"
	truncate -s 100000 "$(backup_of 2)"
	away 2
	run -0 qs keystore rotate --force
	[[ "$output" == *'no generation is retired'* ]]
	[ "$(kek_names)" = '1.kek 2.kek 3.kek' ]
	cmp -n "$(stat -c %s "$(backup_of 1)")" "$(backup_of 1)" "$(image_of 1)"
}

@test "a backup whose change was cut off still opens and restores, and the next run finishes it" {
	cp "$(backup_of 1)" "$BATS_TEST_TMPDIR/old"
	rotated
	# Its second copy as it is to be, its first as it was.
	dd if="$BATS_TEST_TMPDIR/old" of="$(backup_of 1)" bs=128k count=1 conv=notrunc status=none
	rotated
	cmp -n "$(stat -c %s "$(backup_of 1)")" "$(backup_of 1)" "$(image_of 1)"
	cp "$(backup_of 1)" "$BATS_TEST_TMPDIR/old"
	rotated
	dd if="$BATS_TEST_TMPDIR/old" of="$(backup_of 1)" bs=128k count=1 conv=notrunc status=none
	wipefs -qa "$(image_of 1)"
	dd if=/dev/zero of="$(image_of 1)" bs=1M count=1 conv=notrunc status=none
	qs --yes cryptrestore "$ID"1
	qs cryptopen --test "$ID"1
	# While one is like that, its device may be away and be at either generation.
	dd if="$BATS_TEST_TMPDIR/old" of="$(backup_of 1)" bs=128k count=1 conv=notrunc status=none
	away 1
	before=$(kek_names)
	run -0 qs keystore rotate --force
	[[ "$output" == *'half-way'* ]]
	[ "$(kek_names)" = "$before 5.kek" ]
}

@test "a backup alone that is behind its device is brought along, without a new generation" {
	cp "$(backup_of 1)" "$BATS_TEST_TMPDIR/old"
	rotated
	dd if="$BATS_TEST_TMPDIR/old" of="$(backup_of 1)" bs=128k count=1 conv=notrunc status=none
	header=$(cryptsetup luksDump --dump-json-metadata "$(image_of 1)")
	# Which moves the key file of device 2, but brings along whatever is behind.
	qs keystore rewrap "$ID"2
	cmp -n "$(stat -c %s "$(backup_of 1)")" "$(backup_of 1)" "$(image_of 1)"
	[ "$header" = "$(cryptsetup luksDump --dump-json-metadata "$(image_of 1)")" ]
	[ "$(kek_names)" = '1.kek 2.kek' ]
}

@test "a header that was put back to an older state is not taken for the newest" {
	dd if="$(image_of 1)" of="$BATS_TEST_TMPDIR/old" bs=256k count=1 status=none
	rotated
	dd if="$BATS_TEST_TMPDIR/old" of="$(image_of 1)" bs=256k count=1 conv=notrunc status=none
	backup=$(sha256sum <"$(backup_of 1)")
	run -7 qs keystore rotate --force
	[[ "$output" == *'older than its backup'* ]]
	[ "$backup" = "$(sha256sum <"$(backup_of 1)")" ]
	qs --yes cryptrestore "$ID"1
	qs keystore rotate
	qs keystore verify
}

@test "a keystore.json that is older than the devices loses no generation" {
	cp -p "$KEYSTORE/keystore.json" "$BATS_TEST_TMPDIR/old"
	rotated
	kek=$(sha256sum "$KEYSTORE/2.kek")
	cp -p "$BATS_TEST_TMPDIR/old" "$KEYSTORE/keystore.json"
	run -7 qs keystore verify
	[[ "$output" == *'does not have yet'* ]]
	rotated
	[ "$kek" = "$(sha256sum "$KEYSTORE/2.kek")" ]
	qs keystore verify
}

@test "a key that lies there already and is none is not made a generation" {
	head -c 16 /dev/zero >"$KEYSTORE/2.kek"
	chmod 0400 "$KEYSTORE/2.kek"
	before=$(sha256sum "$(image_of 1)" "$(backup_of 1)" "$KEYSTORE/2.kek")
	run qs keystore rotate --force
	[ "$status" -ne 0 ]
	[[ "$output" == *'it was there before: move it away'* ]]
	[ "$before" = "$(sha256sum "$(image_of 1)" "$(backup_of 1)" "$KEYSTORE/2.kek")" ]
	[ "$(jq -c '[.rotation.state, (.generations | length)]' "$KEYSTORE/keystore.json")" = '["distributing-kek",1]' ]
	qs keystore verify
	rm "$KEYSTORE/2.kek"
	qs keystore rotate
	[ "$(generation 1)" = 2 ]
}

@test "a device that cannot be looked at is not away: nothing ends that it may need" {
	local n
	for n in 1 2 3; do
		run -7 failing readlink,readlinkat "$ROOT${ID}1" keystore rotate --force
		[[ $output == *"${ID}1: "*'Input/output error'* ]]
		[ "$(generation 1)" = 1 ]
	done
	# Without the header backup, too, which names what the header does.
	rm -r "$ROOT/etc/cryptconf/headers/enc-scsi-30001"*
	for n in 1 2 3; do
		run -7 failing readlink,readlinkat "$ROOT${ID}1" keystore rotate --force
		[ -e "$KEYSTORE/1.kek" ]
	done
	run -6 failing readlink,readlinkat "$ROOT${ID}1" --yes keystore disable
	[ -e "$KEYSTORE/keystore.json" ]
	run -0 qs cryptopen --test "${ID}1"
}

@test "what failed for all devices is reported done of none" {
	run -1 --separate-stderr failing syncfs "$ROOT/etc/cryptconf/headers" --json keystore rotate --force
	[ "$(jq -c '[.devices[].ok]' <<<"$output")" = '[false,false,false]' ]
	run -0 qs keystore rotate
	[ "$(generation 1)" = 2 ]
}
