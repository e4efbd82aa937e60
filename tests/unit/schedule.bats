#!/usr/bin/env bats
# What the keystore does by itself: when a rotation is due, what --if-due does, and what a
# purge leaves of generations that nothing names. Its units: units.bats, and in a guest.

load tree
load journal

setup()
{
	make_tree 2
	KEYSTORE=$ROOT/etc/cryptconf/keystore
	RETIRED=$ROOT/etc/cryptconf/retired
	qs cryptformat --no-open "$ID"1 "$ID"2
	qs --yes keystore enable
	qs cryptenroll "$ID"1 "$ID"2 --keystore
}

valid()
{
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
}

# aged TIME: the present generation was made, and the schedule set, then.
aged()
{
	jq --arg t "$(date -u -d "$1" +%FT%TZ)" \
		'.current as $c | (.generations[] | select(.number <= $c)).created = $t | if .schedule then .schedule.since = $t else . end | del(.sum)' \
		"$KEYSTORE/keystore.json" >"$BATS_TEST_TMPDIR/aged"
	cat "$BATS_TEST_TMPDIR/aged" >"$KEYSTORE/keystore.json"
}

status_of()
{
	qs --json keystore status | jq -c ".result | $1"
}

generations()
{
	status_of '[.generations[].number]'
}

if_due()
{
	run --separate-stderr qs --json keystore rotate --if-due
	valid
}

# sent FIELD: the values that the journal got of it, in their order.
sent()
{
	sed -n "s/^$1=//p" "$BATS_TEST_TMPDIR/journal.log" | paste -sd' '
}

broken()
{
	cp --sparse=always "$(image_of 2)" "$BATS_TEST_TMPDIR/whole"
	dd if=/dev/urandom of="$(image_of 2)" bs=4096 seek=1 count=70 conv=notrunc status=none
}

mended()
{
	cp --sparse=always "$BATS_TEST_TMPDIR/whole" "$(image_of 2)"
}

@test "a schedule is kept, told and changed; what is none is refused and changes nothing" {
	local time
	[ "$(status_of '[.schedule, .next_rotation, .overdue, .rotated]')" = '["Never",null,null,null]' ]
	before=$(sum "$KEYSTORE/keystore.json")
	for time in 6 6w 23h 11Y 121M 0D -6W '' sometimes; do
		run -64 qs keystore schedule "$time"
	done
	run -64 qs keystore schedule
	run -64 qs keystore rotate --if-due --force
	run -64 qs keystore status --if-due
	[ "$(sum "$KEYSTORE/keystore.json")" = "$before" ]
	run -0 --separate-stderr qs --json keystore schedule 2M
	valid
	aged 2026-01-31T05:00:00Z
	run -0 --separate-stderr qs --json keystore status
	valid
	[ "$(jq -c '.result | [.schedule, .next_rotation, .overdue]' <<<"$output")" = '["2M","2026-03-31T05:00:00Z",true]' ]
	run -0 qs keystore status
	[[ $output == *'rotated every 2M, next on 2026-03-31T05:00:00Z: overdue'* ]]
	# The same again is due when it was; another one not before it was set.
	qs keystore schedule 2M
	[ "$(status_of .overdue)" = true ]
	qs keystore schedule 1M
	[ "$(status_of .overdue)" = false ]
	qs keystore schedule never
	[ "$(status_of '[.schedule, .overdue]')" = '["Never",null]' ]
	qs --yes cryptenroll "$ID"1 "$ID"2 --wipe keystore
	qs --yes keystore disable
	run -1 qs keystore schedule 6W
}

@test "--if-due without anything to do is silent, and asks no lock, provider or device" {
	qs keystore schedule 1D
	run -0 --separate-stderr strace -f -qq -e trace=openat,flock,clone,clone3,fork,vfork -o "$BATS_TEST_TMPDIR/trace" \
		env ASAN_OPTIONS=detect_leaks=0 "$QS_UTIL" --root="$ROOT" keystore rotate --if-due
	[ -z "$output$stderr" ]
	grep -q 'keystore\.json' "$BATS_TEST_TMPDIR/trace"
	run grep -E '\.kek|\.lock|/img/|clone|fork|modules\/' "$BATS_TEST_TMPDIR/trace"
	[ -z "$output" ]
	if_due
	[ "$status$(jq -c .result.generation <<<"$output")" = 01 ]
	run -0 qs keystore purge
	[ -z "$output" ]
	qs --yes cryptenroll "$ID"1 "$ID"2 --wipe keystore
	qs --yes keystore disable
	run -0 qs keystore rotate --if-due
	[ -z "$output" ]
}

@test "--if-due rotates when it is due, once, and says when it was done" {
	qs keystore schedule 1D
	aged '25 hours ago'
	if_due
	[ "$status$(jq -c '[.devices[].generation]' <<<"$output")" = '0[2,2]' ]
	[ "$(status_of '[.overdue, (.rotated | fromdate > now - 600)]')" = '[false,true]' ]
	if_due
	[ "$(jq -c '[.devices, .result.generation]' <<<"$output")" = '[null,2]' ]
	qs keystore schedule Never
	aged '2 years ago'
	if_due
	[ "$(jq -c .result.generation <<<"$output")" = 2 ]
	qs keystore verify
}

@test "--if-due goes on with a rotation that was cut off, and leaves one that runs alone" {
	qs keystore schedule 1D
	aged '25 hours ago'
	exec {lock}>"$ROOT/run/qs-util/keystore.lock"
	flock "$lock"
	run -0 qs keystore rotate --if-due
	[ -z "$output" ]
	run -0 qs --verbose keystore rotate --if-due
	[[ "$output" == *'nothing is done now: another qs-util works on the keystore'* ]]
	run -0 --separate-stderr qs --json keystore rotate --if-due
	valid
	[ "$(jq -c '[.result.generation, .result.rotation]' <<<"$output")" = '[1,null]' ]
	run -5 qs keystore rotate --force
	exec {lock}>&-
	[ "$(generations)" = '[1]' ]
	broken
	run -7 qs keystore rotate --if-due
	mended
	qs keystore schedule Never
	if_due
	[ "$status$(jq -c '[.result.generation, .result.rotation]' <<<"$output")" = '0[2,null]' ]
	qs keystore verify
}

@test "a device that another command works on is a failure of --if-due, and done at the next turn" {
	local lock
	qs keystore schedule 1D
	aged '25 hours ago'
	lock=$ROOT/run/qs-util/image-$(stat -c '%d-%i' "$(image_of 2)").lock
	exec {fd}>"$lock"
	flock "$fd"
	run -7 qs keystore rotate --if-due
	[[ $output == *"another qs-util works on $(image_of 2)"* ]]
	exec {fd}>&-
	if_due
	[ "$status$(jq -c '[.result.generation, .result.rotation]' <<<"$output")" = '0[2,null]' ]
}

@test "--if-due brings a device along that was away and has returned" {
	rm "$ROOT$ID"2
	qs keystore rotate --force
	if_due
	[ "$(jq -c .devices <<<"$output")" = null ]
	ln -s "$(image_of 2)" "$ROOT$ID"2
	if_due
	[ "$status$(jq -c '[.devices[].generation]' <<<"$output")" = '0[2]' ]
	[ "$(status_of '.generations[0].devices')" = 0 ]
	if_due
	[ "$(jq -c .devices <<<"$output")" = null ]
}

@test "the journal gets start, success, failure, each with its message id; status has the last error" {
	run -0 journal keystore rotate --force
	[ "$(sent QS_EVENT)" = 'KeyRotationStarted KeyRotationSucceeded' ]
	[ "$(sent MESSAGE_ID)" = 'fd430628f5184f2489b4bd8c814d387c 6ec732c9164d40ffaf9dfd76671cfe29' ]
	[ "$(sent QS_GENERATION)" = '2 2' ]
	[ ! -e "$ROOT/var" ]
	# What is refused, and what another one does, is no failure.
	run -6 journal keystore rotate
	[ -z "$(sent QS_EVENT)" ]
	broken
	run -7 journal keystore rotate --force
	[ "$(sent QS_EVENT)" = 'KeyRotationStarted KeyRotationFailed' ]
	[ "$(sent PRIORITY)" = '6 3' ]
	grep -q "^QS_REASON=1 device could not be brought to generation 3.*$(image_of 2)" "$BATS_TEST_TMPDIR/journal.log"
	run -0 --separate-stderr qs --json keystore status
	valid
	[[ $(jq -r .result.last_error.message <<<"$output") == '1 device could not be brought'* ]]
	run -0 qs keystore status
	[[ $output == *'the last rotation failed on 2'* ]]
	exec {lock}>"$ROOT/run/qs-util/keystore.lock"
	flock "$lock"
	run -0 journal keystore rotate --if-due
	exec {lock}>&-
	[ -z "$(sent QS_EVENT)" ]
	mended
	run -0 journal keystore rotate --if-due
	[ "$(sent QS_EVENT)" = KeyRotationSucceeded ]
	[ "$(status_of .last_error)" = null ]
	[ -z "$(ls -A "$ROOT/var/lib/qs-util")" ]
	run -0 journal keystore rotate --if-due
	[ -z "$(sent QS_EVENT)" ]
}

@test "overdue is told once a day, until it is done" {
	local record=$ROOT/var/lib/qs-util/rotation.json
	qs keystore schedule 1D
	broken
	aged '47 hours ago'
	run -7 journal keystore rotate --if-due
	[ "$(sent QS_EVENT)" = 'KeyRotationStarted KeyRotationFailed' ]
	aged '49 hours ago'
	run -7 journal keystore rotate --if-due
	[ "$(sent QS_EVENT)" = KeyRotationOverdue ]
	grep -q '^QS_REASON=it has been due for 25 hours; the last error: 1 device' "$BATS_TEST_TMPDIR/journal.log"
	run -7 journal keystore rotate --if-due
	[ -z "$(sent QS_EVENT)" ]
	jq '.overdue -= 86400' "$record" >"$BATS_TEST_TMPDIR/record"
	cat "$BATS_TEST_TMPDIR/record" >"$record"
	run -7 journal keystore rotate --if-due
	[[ $(sent QS_EVENT) == *KeyRotationOverdue ]]
	# Not by hand, where a person is told already.
	rm "$record"
	run -7 journal keystore rotate
	[[ $(sent QS_EVENT) != *KeyRotationOverdue ]]
	# One that is damaged, or another keystore's, is none.
	echo nonsense >"$record"
	[ "$(status_of .last_error)" = null ]
	mended
	run -0 journal keystore rotate --if-due
	[ "$(sent QS_EVENT)" = 'KeyRotationStarted KeyRotationSucceeded' ]
}

@test "the same failure is told once a day, another one at once" {
	local record=$ROOT/var/lib/qs-util/rotation.json
	told()
	{
		jq "$1" "$record" >"$BATS_TEST_TMPDIR/record"
		cat "$BATS_TEST_TMPDIR/record" >"$record"
		run ! journal keystore rotate --if-due
		[ "$(sent QS_EVENT)" = "$2" ]
	}
	broken
	run -7 journal keystore rotate --force
	[ "$(sent QS_EVENT)" = 'KeyRotationStarted KeyRotationFailed' ]
	told '.failed -= 3000 | .told -= 3000' ''
	# The last error is as old as the last try, in status.
	jq -e '.failed - .told >= 3000' "$record"
	[ "$(status_of '.last_error.time | fromdate > now - 600')" = true ]
	told '.told -= 86400' 'KeyRotationStarted KeyRotationFailed'
	told '.' ''
	# By a clock that was wrong.
	told '.told += 864000' 'KeyRotationStarted KeyRotationFailed'
	# As an older qs-util left it.
	told 'del(.told)' 'KeyRotationStarted KeyRotationFailed'
	mended
	mv "$KEYSTORE/1.kek" "$BATS_TEST_TMPDIR"
	told '.' KeyRotationFailed
	grep -q '^QS_REASON=.*1\.kek does not exist' "$BATS_TEST_TMPDIR/journal.log"
	told '.' ''
	broken
	mv "$BATS_TEST_TMPDIR/1.kek" "$KEYSTORE"
	told '.' KeyRotationFailed
	# What cannot be remembered is told each time.
	rm "$record"
	mkdir "$record"
	for _ in 1 2; do
		run -7 journal keystore rotate --if-due
		[ "$(sent QS_EVENT)" = 'KeyRotationStarted KeyRotationFailed' ]
	done
	rmdir "$record"
	mended
	run -0 journal keystore rotate --if-due
	[ "$(sent QS_EVENT)" = 'KeyRotationStarted KeyRotationSucceeded' ]
}

@test "a run that cannot begin says so in the journal, once a day, too" {
	cp -p "$KEYSTORE/keystore.json" "$BATS_TEST_TMPDIR/whole"
	echo nonsense >"$KEYSTORE/keystore.json"
	run -78 journal keystore rotate --if-due
	[ "$(sent QS_EVENT)" = KeyRotationFailed ]
	[ -z "$(sent QS_GENERATION)" ]
	run -78 journal keystore rotate --if-due
	[ -z "$(sent QS_EVENT)" ]
	cp -p "$BATS_TEST_TMPDIR/whole" "$KEYSTORE/keystore.json"
	[ "$(status_of .last_error)" = null ]
	# Killed while it wrote the first record: only a temporary is left.
	mv "$ROOT"/var/lib/qs-util/{rotation.json,.rotation.json.qs-tmp}
	run -0 journal keystore rotate --force
	[ "$(sent QS_EVENT)" = 'KeyRotationStarted KeyRotationSucceeded' ]
	[ -z "$(ls -A "$ROOT/var/lib/qs-util")" ]
}

@test "a purge retires the generations that only destroyed devices had named" {
	qs --yes cryptdestroy "$ID"2
	qs keystore rotate --force
	qs keystore rotate --force
	[ "$(generations)" = '[1,2,3]' ]
	run -0 qs keystore purge
	[ -z "$output" ]
	[ "$(generations)" = '[1,2,3]' ]
	local kept
	kept=$(echo "$RETIRED"/*)
	mv "$kept" "${kept%.*.header}.20260101T000000Z.header"
	# Not while somebody else works on the keystore; the next purge does it.
	exec {lock}>"$ROOT/run/qs-util/keystore.lock"
	flock "$lock"
	run -0 qs keystore purge
	exec {lock}>&-
	[ -z "$(ls -A "$RETIRED")" ]
	[ "$(generations)" = '[1,2,3]' ]
	run -0 --separate-stderr qs --json keystore purge
	valid
	[ "$(jq -c .result.retired <<<"$output")" = '[1]' ]
	[ "$(generations)" = '[2,3]' ]
	[ ! -e "$KEYSTORE/1.kek" ]
	qs keystore verify
}

@test "a purge does not retire what a device names, though no backup does" {
	rm "$(backup_of 2)"
	mv "$ROOT$ID"2 "$BATS_TEST_TMPDIR/link"
	qs keystore rotate --force
	qs --json keystore status >/dev/null
	jq '.generations += [{"number": 3, "created": .generations[0].created}] | .current = 3 | del(.sum)' \
		"$KEYSTORE/keystore.json" >"$BATS_TEST_TMPDIR/json"
	mv "$BATS_TEST_TMPDIR/link" "$ROOT$ID"2
	cp "$KEYSTORE/2.kek" "$KEYSTORE/3.kek"
	cat "$BATS_TEST_TMPDIR/json" >"$KEYSTORE/keystore.json"
	run -0 qs keystore purge
	[ "$(generations)" = '[1,2,3]' ]
	[ -e "$KEYSTORE/1.kek" ]
}
