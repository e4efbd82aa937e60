#!/usr/bin/env bats
# The retention time: a destroyed device of the keystore comes back within it, and after it, or
# when somebody says so, nothing brings it back.

load tree

setup()
{
	make_tree 2
	RETIRED=$ROOT/etc/cryptconf/retired
	IMAGE=$(image_of 1)
	qs cryptformat --no-open "${ID}1" "${ID}2"
	qs --yes keystore enable
	qs cryptenroll "${ID}1" --keystore
	cp "$IMAGE" "$BATS_TEST_TMPDIR/before"
	UUID=$(cryptsetup luksUUID "$IMAGE")
}

# find_kept: KEPT is what is kept of disk 1.
find_kept()
{
	KEPT=$(echo "$RETIRED/enc-scsi-30001.$UUID".*.header)
	[ -e "$KEPT" ]
}

destroyed()
{
	qs --yes cryptdestroy "${ID}1"
	find_kept
}

# aged TIME: it was destroyed then, and its file was written just now.
aged()
{
	local old=$KEPT
	KEPT=$RETIRED/enc-scsi-30001.$UUID.$(date -u -d "$1" +%Y%m%dT%H%M%SZ).header
	mv "$old" "$KEPT"
	touch "$KEPT"
}

valid()
{
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
}

# data_is_there: what lies behind the header is as it was.
data_is_there()
{
	cmp -i 16777216 "$IMAGE" "$BATS_TEST_TMPDIR/before"
}

@test "destroyed, brought back, open again; nothing is kept of a device without the keystore" {
	run -0 --separate-stderr qs --json --yes cryptdestroy "${ID}1" "${ID}2"
	valid
	find_kept
	[[ ${KEPT#"$RETIRED/"} =~ ^enc-scsi-30001\.$UUID\.20[0-9]{6}T[0-9]{6}Z\.header$ ]]
	[ "$(jq -r '.devices[0].kept.path' <<<"$output")" = "${KEPT#"$ROOT"}" ]
	[ "$(jq -r '.devices[1] | has("kept")' <<<"$output")" = false ]
	[ "$(ls "$RETIRED")" = "${KEPT##*/}" ]
	[ "$(stat -c '%a' "$RETIRED" "$KEPT" | paste -sd' ')" = '700 600' ]
	run ! cryptsetup isLuks "$IMAGE"
	[ ! -e "$(key_of 1)" ]
	[ ! -e "$(backup_of 1)" ]
	run -0 --separate-stderr qs --json keystore status
	valid
	[ "$(jq -c '.result | [.retention, .kept[0].name, .generations[0].devices, .generations[0].backups]' <<<"$output")" = '[604800,"enc-scsi-30001",0,1]' ]
	run -0 qs keystore verify
	run -0 --separate-stderr qs --json keystore purge
	valid
	[ "$(jq -c .devices <<<"$output")" = '[]' ]
	run -0 --separate-stderr qs --json --yes cryptrestore "${ID}1"
	valid
	[ "$(jq -r '.devices[0].restored' <<<"$output")" = true ]
	[ ! -e "$KEPT" ]
	[ -e "$(backup_of 1)" ]
	run -0 qs cryptopen --test "${ID}1"
	data_is_there
	run -4 qs --yes cryptrestore "${ID}2"
}

@test "purge erases what is over its time, reports it, and then nothing brings the device back" {
	destroyed
	cp "$KEPT" "$BATS_TEST_TMPDIR/kept"
	run -0 qs keystore retention 10d
	[[ $output == *'10d'* ]]
	aged '-9 days'
	run -0 qs keystore purge
	[ -e "$KEPT" ]
	# Another name for it keeps its bytes in reach.
	aged '-11 days'
	ln "$KEPT" "$BATS_TEST_TMPDIR/bytes"
	run -0 --separate-stderr qs --json keystore purge
	valid
	[ "$(jq -c '[.devices[] | [.device, .name, .ok]]' <<<"$output")" = "[[\"${KEPT#"$ROOT"}\",\"enc-scsi-30001\",true]]" ]
	[ -z "$(ls -A "$RETIRED")" ]
	cmp -n "$(stat -c %s "$BATS_TEST_TMPDIR/kept")" "$BATS_TEST_TMPDIR/bytes" /dev/zero
	run -4 qs --yes cryptrestore "${ID}1"
	run -0 qs --yes keystore disable
}

@test "the date survives a copy; a name without one has the date of its file" {
	destroyed
	aged '-6 days'
	local before
	before=$(qs --json keystore status | jq -c '.result.kept[0] | [.destroyed, .until]')
	cp -r "$RETIRED" "$BATS_TEST_TMPDIR/copied"
	rm -r "$RETIRED"
	cp -r "$BATS_TEST_TMPDIR/copied" "$RETIRED"
	[ "$(qs --json keystore status | jq -c '.result.kept[0] | [.destroyed, .until]')" = "$before" ]
	# As an older qs-util made it, and a run that was killed leaves it.
	local old=$RETIRED/enc-scsi-30001.$UUID.header
	mv "$KEPT" "$old"
	touch -d '2026-01-02T03:04:05Z' "$old"
	[ "$(qs --json keystore status | jq -r '.result.kept[0] | .destroyed, .name' | paste -sd' ')" = '2026-01-02T03:04:05Z enc-scsi-30001' ]
	run -0 qs keystore purge
	[ -z "$(ls -A "$RETIRED")" ]
}

@test "of one volume the last destruction counts, and nothing else is left when it is back" {
	destroyed
	local undated=$RETIRED/enc-scsi-30001.$UUID.header
	aged '-1 days'
	# What a run leaves that is killed before it has given the copy its date.
	cp "$KEPT" "$undated"
	cp "$KEPT" "$RETIRED/.${undated##*/}.qs-tmp"
	# Neither is of this volume.
	: >"$RETIRED/enc-scsi-30001.$UUID.20261322T140500Z.header"
	: >"$RETIRED/enc-scsi-30001.$UUID.x.header"
	run -0 qs --yes cryptrestore "${ID}1"
	[ "$(find "$RETIRED" -type f | wc -l)" = 2 ]
	rm "$RETIRED"/*
	qs cryptopen --test "${ID}1"
	destroyed
	aged '-1 days'
	local old=$KEPT
	cp "$KEPT" "$BATS_TEST_TMPDIR/kept"
	qs --yes cryptrestore "${ID}1"
	cp "$BATS_TEST_TMPDIR/kept" "$old"
	qs --yes cryptdestroy "${ID}1"
	[ "$(find "$RETIRED" -type f | wc -l)" = 1 ]
	[ ! -e "$old" ]
}

@test "--all asks and does not wait; disable is refused before it" {
	destroyed
	run -6 qs --yes keystore disable
	[[ $output == *'purge --all'* ]]
	run -6 qs keystore purge --all
	[ -e "$KEPT" ]
	run -0 qs --yes keystore purge --all
	[[ $output == *'enc-scsi-30001'* ]]
	[ ! -e "$KEPT" ]
	run -0 qs --yes keystore purge --all
	run -0 qs --yes keystore disable
}

@test "with --purge nothing is kept" {
	run -0 --separate-stderr qs --json --yes cryptdestroy --purge "${ID}1"
	valid
	[ "$(jq -r '.devices[0] | has("kept")' <<<"$output")" = false ]
	[ ! -e "$RETIRED" ]
}

@test "what an interrupted purge has overwritten, in part or all, goes at the next one" {
	destroyed
	dd if=/dev/zero of="$KEPT" bs=4096 count=1 conv=notrunc status=none
	run -4 qs --yes cryptrestore "${ID}1"
	run -0 qs keystore purge
	[ ! -e "$KEPT" ]
	: >"$KEPT"
	echo other >"$RETIRED/notes"
	run -0 qs keystore purge
	[ "$(ls -A "$RETIRED")" = notes ]
}

@test "a backup that cannot be kept stops the destruction, and nothing is lost" {
	printf x | dd of="$(backup_of 1)" bs=1 seek=5000 conv=notrunc status=none
	run -4 qs --yes cryptdestroy "${ID}1"
	[[ $output == *'--purge'* ]]
	data_is_there
	stock_opens "$IMAGE" "$(key_of 1)"
	run -0 qs --yes cryptdestroy --purge "${ID}1"
}

@test "a time is a number and a unit, 1 to 365 days, with a warning outside of 7 to 30" {
	local json=$ROOT/etc/cryptconf/keystore/keystore.json time
	for time in 10 1h 0D 366D 53W 2Y -1D D 10x '' 99999999999999999999D; do
		before=$(sum "$json")
		run -64 qs keystore retention "$time"
		[ "$(sum "$json")" = "$before" ]
	done
	run -64 qs keystore retention
	run -64 qs keystore status 10D
	run -0 qs keystore retention 6D
	[[ $output == *'little time'* ]]
	run -0 qs keystore retention 31D
	[[ $output == *'more than 30 days'* ]]
	run -0 --separate-stderr qs --json keystore retention 2W
	valid
	[ -z "$stderr" ]
	[ "$(jq .retention "$json")" = 1209600 ]
	run -0 qs keystore retention 1Y
	jq '.retention = 31536001 | del(.sum)' "$json" >"$BATS_TEST_TMPDIR/json"
	cat "$BATS_TEST_TMPDIR/json" >"$json"
	run -78 qs keystore status
	[[ $output == *retention* ]]
}
