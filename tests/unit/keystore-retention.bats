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
	KEPT=$RETIRED/enc-scsi-30001.$(cryptsetup luksUUID "$IMAGE").header
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
	qs --yes cryptdestroy "${ID}1"
	cp "$KEPT" "$BATS_TEST_TMPDIR/kept"
	run -0 qs keystore retention 10d
	[[ $output == *'10d'* ]]
	touch -d '-9 days' "$KEPT"
	run -0 qs keystore purge
	[ -e "$KEPT" ]
	# Another name for it keeps its bytes in reach.
	ln "$KEPT" "$BATS_TEST_TMPDIR/bytes"
	touch -d '-11 days' "$KEPT"
	run -0 --separate-stderr qs --json keystore purge
	valid
	[ "$(jq -c '[.devices[] | [.device, .name, .ok]]' <<<"$output")" = "[[\"${KEPT#"$ROOT"}\",\"enc-scsi-30001\",true]]" ]
	[ -z "$(ls -A "$RETIRED")" ]
	cmp -n "$(stat -c %s "$BATS_TEST_TMPDIR/kept")" "$BATS_TEST_TMPDIR/bytes" /dev/zero
	run -4 qs --yes cryptrestore "${ID}1"
	run -0 qs --yes keystore disable
}

@test "--all asks and does not wait; disable is refused before it" {
	qs --yes cryptdestroy "${ID}1"
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
	qs --yes cryptdestroy "${ID}1"
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
	jq '.retention = 31536001' "$json" >"$BATS_TEST_TMPDIR/json"
	cat "$BATS_TEST_TMPDIR/json" >"$json"
	run -78 qs keystore status
	[[ $output == *retention* ]]
}
