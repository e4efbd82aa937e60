#!/usr/bin/env bats
# crypttabrepair: what was lost or confused, and the table that comes out.

load tree

setup()
{
	tests=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
	make_tree 4
	TAB=$ROOT/etc/crypttab
	KEYS=$ROOT/etc/cryptconf/keys
	OUT=$BATS_TEST_TMPDIR/out
	KEY=$BATS_TEST_TMPDIR/key
	new_key "$KEY"
}

# Starting the validator once for a test and not for each answer saves time.
teardown()
{
	[[ ! -e $BATS_TEST_TMPDIR/answers ]] || "$tests/validate-json" --each <"$BATS_TEST_TMPDIR/answers"
}

# repair STATUS [OPTION...]: the JSON is left in $OUT.
repair()
{
	local want=$1 status=0
	shift
	qs --json crypttabrepair "$@" >"$OUT" || status=$?
	cat "$OUT" >>"$BATS_TEST_TMPDIR/answers"
	[[ $status -eq $want ]] || { echo "status $status, not $want" && cat "$OUT" && return 1; }
}

# result FILTER: of the last answer.
result()
{
	jq -r "$1" "$OUT"
}

# formatted N...: disks that cryptformat made.
formatted()
{
	local n links=()
	for n; do links+=("$ID$n"); done
	qs cryptformat --no-open "${links[@]}" >/dev/null
}

# line N [KEY [OPTIONS]]: as cryptformat writes it.
line()
{
	echo "enc-scsi-3000$1  ${ID}$1  ${2:-/etc/cryptconf/keys/enc-scsi-3000$1.key}  ${3:-luks}"
}

lines()
{
	local n
	for n; do line "$n"; done
}

# adopted N KEYNAME [OPTION...]: formatted by stock cryptsetup, its key in the keys directory.
adopted()
{
	local n=$1 key=$KEYS/$2
	shift 2
	(umask 077 && mkdir -p "$KEYS")
	[[ -e $key ]] || new_key "$key"
	stock_format "$(image_of "$n")" "$key" "$@"
}

# Every file of the tree with mode, owner, time and content; locks in /run are not the tree's.
snapshot()
{
	find "$ROOT" -path "$ROOT/run" -prune -o -type f -printf '%p %m %u %T@ ' -exec sha256sum {} \;
}

@test "all is right: nothing is written, one key derivation for each device" {
	formatted 1 2 3
	before=$(snapshot)
	repair 0
	[ "$(snapshot)" = "$before" ]
	[ "$(result '.result | [.changed, .diff, .tries] | @csv')" = 'false,"",3' ]
	[ "$(result '[.devices[] | .matched_by + .crypttab.action] | unique[]')" = nameunchanged ]
}

@test "the table is lost: it comes back as it was, for root and readable" {
	formatted 1 2 3
	rm "$TAB"
	repair 0
	diff <(lines 1 2 3) "$TAB"
	[ "$(stat -c %a "$TAB")" = 644 ]
	[ "$(result .result.tries)" = 3 ]
}

@test "24 devices and 24 keys, table and all names lost: the right table, 24 key derivations" {
	local n wanted=
	make_tree 24
	# shellcheck disable=SC2046 # numbers
	formatted $(seq 24)
	rm "$TAB"
	rm -r "$ROOT/etc/cryptconf/headers"
	for n in $(seq 24); do
		# In another order than that of the disks.
		mv "$(key_of "$n")" "$KEYS/$((n * 7 % 25))"
		wanted+=$(line "$n" "/etc/cryptconf/keys/$((n * 7 % 25))")$'\n'
	done
	repair 0
	[ "$(sort "$TAB")" = "$(sort <<<"${wanted%$'\n'}")" ]
	[ "$(result '.result.tries')" = 24 ]
	[ "$(result '[.devices[].matched_by] | unique[]')" = fingerprint ]
	for n in $(seq 24); do stock_opens "$(image_of "$n")" "$KEYS/$((n * 7 % 25))"; done
	repair 0
	[ "$(result .result.changed)" = false ]
}

@test "--dry-run: nothing is written, and patch makes of its diff what is written without it" {
	formatted 1 2
	{ cat "$TAB"; printf '# the end\nother /dev/sdz1 none luks'; } >"$BATS_TEST_TMPDIR/tab"
	mv "$BATS_TEST_TMPDIR/tab" "$TAB"
	mv "$(key_of 2)" "$KEYS/moved"
	cp "$TAB" "$BATS_TEST_TMPDIR/patched"
	before=$(snapshot)
	rm -r "$ROOT/run"
	qs crypttabrepair --dry-run >"$BATS_TEST_TMPDIR/diff"
	[ "$(snapshot)" = "$before" ]
	[ ! -e "$ROOT/run" ]
	repair 0 --dry-run
	[ "$(result '.result.diff')" = "$(cat "$BATS_TEST_TMPDIR/diff")" ]
	repair 0
	patch -s "$BATS_TEST_TMPDIR/patched" <"$BATS_TEST_TMPDIR/diff"
	cmp "$BATS_TEST_TMPDIR/patched" "$TAB"
}

@test "lines of others stay byte for byte, and their devices get no second line" {
	formatted 1
	adopted 2 stray.key
	printf '# mine\n\tdata  %s2\t/root/other.key  luks,noauto  # why\n\n\0comment? #\n' "$ID" |
		sed 's/^\x00/#\x00/' >"$TAB"
	cp -a "$TAB" "$BATS_TEST_TMPDIR/old"
	chmod 0640 "$TAB"
	repair 0
	cmp <(cat "$BATS_TEST_TMPDIR/old"; line 1) "$TAB"
	cmp "$BATS_TEST_TMPDIR/old" "$TAB.qs-bak"
	[ "$(stat -c %a "$TAB")" = 640 ]
	[ "$(result '.devices[] | select(.name == "data") | .crypttab.action, .tries')" = $'left\nnull' ]
	[ "$(result '.result.unused_keys[]')" = /etc/cryptconf/keys/stray.key ]
}

@test "options and spacing that the administrator gave stay" {
	formatted 1
	printf 'enc-scsi-30001\t%s1   /gone.key\tluks,nofail,discard\n' "$ID" >"$TAB"
	repair 0
	cmp "$TAB" <(printf 'enc-scsi-30001\t%s1   %s\tluks,nofail,discard\n' "$ID" \
		/etc/cryptconf/keys/enc-scsi-30001.key)
}

@test "keys moved to other directories are found there" {
	formatted 1 2 3
	mkdir -m 700 "$BATS_TEST_TMPDIR"/{a,b}
	mv "$(key_of 1)" "$BATS_TEST_TMPDIR/a/"
	mv "$(key_of 2)" "$BATS_TEST_TMPDIR/b/renamed"
	repair 7
	[ "$(result '[.devices[] | select(.ok | not) | .error.code] | unique[]')" = no-key ]
	diff <(lines 1 2 3) "$TAB"
	cd "$BATS_TEST_TMPDIR"
	repair 0 --keys "$BATS_TEST_TMPDIR/a/" --keys=b
	diff <(line 1 "$PWD/a/enc-scsi-30001.key"; line 2 "$PWD/b/renamed"; line 3) "$TAB"
	[ "$(result .result.tries)" = 3 ]
}

@test "two identical key files: the one of the device's name is taken, and that is said" {
	formatted 1
	cp "$(key_of 1)" "$KEYS/a-copy"
	chmod 0400 "$KEYS/a-copy"
	sed -i 's,/enc-scsi-30001.key,/a-copy,' "$TAB"
	repair 0
	diff <(line 1) "$TAB"
	[[ $(result '.devices[0].warnings[]') == */a-copy\ is\ the\ same\ key* ]]
	[ "$(result '.result.duplicate_keys[0] | @csv')" = '"/etc/cryptconf/keys/a-copy","/etc/cryptconf/keys/enc-scsi-30001.key"' ]
	[ "$(result '.result.unused_keys | length')" = 0 ]
}

@test "disks swapped: names, keys and options follow the data" {
	formatted 1 2
	sed -i '1s/luks$/luks,one/; 2s/luks$/luks,two/' "$TAB"
	ln -sfn "$(image_of 2)" "$ROOT${ID}1"
	ln -sfn "$(image_of 1)" "$ROOT${ID}2"
	repair 0
	diff "$TAB" - <<-END
		enc-scsi-30001  ${ID}2  /etc/cryptconf/keys/enc-scsi-30001.key  luks,one
		enc-scsi-30002  ${ID}1  /etc/cryptconf/keys/enc-scsi-30002.key  luks,two
	END
	# Not refused, as it would be with the other one's name and header backup.
	run -0 qs cryptopenall --test
	qs --json cryptstatus "${ID}1" "${ID}2" >"$OUT"
	[ "$(result '.devices[] | "\(.name) \(.crypttab.agrees) \(.backup.agrees)"')" = \
		$'enc-scsi-30002 true true\nenc-scsi-30001 true true' ]
	# What is destroyed is this disk's, and not what its link once was.
	qs --yes cryptdestroy "${ID}1"
	stock_opens "$(image_of 1)" "$(key_of 1)"
	[ ! -e "$(key_of 2)" ]
	[ ! -e "$(backup_of 2)" ]
	[ "$(cat "$TAB")" = "enc-scsi-30001  ${ID}2  /etc/cryptconf/keys/enc-scsi-30001.key  luks,one" ]
}

@test "a disk that got another link keeps its name and options" {
	formatted 1
	sed -i 's/luks$/luks,nofail/' "$TAB"
	mv "$ROOT${ID}1" "$ROOT/dev/disk/by-id/scsi-3new"
	repair 0
	[ "$(cat "$TAB")" = "enc-scsi-30001  /dev/disk/by-id/scsi-3new  /etc/cryptconf/keys/enc-scsi-30001.key  luks,nofail" ]
	rm "$TAB"
	repair 0
	[ "$(cat "$TAB")" = "enc-scsi-30001  /dev/disk/by-id/scsi-3new  /etc/cryptconf/keys/enc-scsi-30001.key  luks" ]
	run -0 qs cryptopenall --test
}

@test "two devices with one UUID: each by its own link, never by UUID, with a warning" {
	local uuid
	formatted 1
	uuid=$(cryptsetup luksUUID "$(image_of 1)")
	cp --sparse=always "$(image_of 1)" "$(image_of 2)"
	sed -i "s,${ID}1,UUID=$uuid," "$TAB"
	ln -s "$(image_of 2)" "$ROOT/dev/disk/by-uuid/$uuid"
	repair 0
	diff <(line 1; line 2 /etc/cryptconf/keys/enc-scsi-30001.key) "$TAB"
	[ "$(result '[.devices[].warnings[] | select(test("same UUID"))] | length')" = 2 ]
	# Without a link of its own one of them cannot be told apart.
	rm "$ROOT${ID}2"
	cp "$TAB" "$BATS_TEST_TMPDIR/before"
	repair 0 --dry-run
	cmp "$BATS_TEST_TMPDIR/before" "$TAB"
}

@test "LUKS1, LUKS2 and costly keyslots of others: by trial, each key for its device" {
	adopted 1 zz
	adopted 2 mm --type luks1
	adopted 3 aa --pbkdf argon2id --pbkdf-memory 2048 --pbkdf-parallel 1 --pbkdf-force-iterations 4
	repair 0
	diff <(line 1 /etc/cryptconf/keys/zz; line 2 /etc/cryptconf/keys/mm; line 3 /etc/cryptconf/keys/aa) "$TAB"
	[ "$(result '[.devices[].matched_by] | unique[]')" = trial ]
	[ "$(result .result.tries)" -le 6 ]
}

@test "keys that open something are tried last: in the order of the devices, one try for each" {
	local n
	for n in 1 2 3 4; do adopted "$n" "k$n"; done
	echo 'workers = 1;' >"$ROOT/etc/cryptconf/qs-util.conf"
	repair 0
	[ "$(result .result.tries)" = 4 ]
	[ "$(cut -d/ -f9 "$TAB" | tr -d '\n')" = 'k1  luksk2  luksk3  luksk4  luks' ]
}

@test "a key that a program of the administrator's prints: the line without a key file comes back" {
	local program=$ROOT/etc/cryptconf/give-key
	mkdir "$ROOT/etc/cryptconf"
	chmod 0755 "$ROOT/etc" "$ROOT/etc/cryptconf"
	printf '%s\n' '#!/bin/sh' "cat $KEY" >"$program"
	chmod 0755 "$program"
	echo 'key_command = "/etc/cryptconf/give-key";' >"$ROOT/etc/cryptconf/qs-util.conf"
	qs cryptformat --no-open --pbkdf pbkdf2 "${ID}1" >/dev/null
	before=$(cat "$TAB")
	repair 0
	[ "$(result .result.changed)" = false ]
	rm "$TAB"
	repair 0
	[ "$(cat "$TAB")" = "$before" ]
	[[ $before == *' none '* ]]
	[ "$(result '.devices[0].matched_by')" = command ]
}

@test "one key for several devices" {
	adopted 1 shared
	adopted 2 shared
	adopted 3 shared
	repair 0
	[ "$(grep -c '/keys/shared' "$TAB")" = 3 ]
	[ "$(result .result.tries)" = 3 ]
}

@test "a key that opens a second keyslot only" {
	formatted 1
	new_key "$KEYS/other"
	cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
		--key-file "$(key_of 1)" "$(image_of 1)" "$KEYS/other"
	rm "$(key_of 1)"
	repair 0
	diff <(line 1 /etc/cryptconf/keys/other) "$TAB"
	[ "$(result '.devices[0] | "\(.keyslot) \(.matched_by)"')" = '1 trial' ]
}

@test "a fingerprint that lies hides no key" {
	formatted 1 2
	for n in 1 2; do
		cryptsetup luksDump --dump-json-metadata "$(image_of "$n")" | jq -c '.tokens["0"]' >"$BATS_TEST_TMPDIR/$n"
		cryptsetup token remove --token-id 0 "$(image_of "$n")"
		mv "$(key_of "$n")" "$KEYS/$n"
	done
	# Nobody's for one, cut short for the other.
	jq -c '.fingerprint |= (.[32:] + .[:32])' "$BATS_TEST_TMPDIR/1" | cryptsetup token import "$(image_of 1)"
	jq -c '.fingerprint |= .[:32]' "$BATS_TEST_TMPDIR/2" | cryptsetup token import "$(image_of 2)"
	rm "$TAB"
	repair 0
	diff <(line 1 /etc/cryptconf/keys/1; line 2 /etc/cryptconf/keys/2) "$TAB"
}

@test "a stranger's device and a key of nothing are listed, and are no failure" {
	formatted 1
	stock_format "$(image_of 2)" "$KEY"
	new_key "$KEYS/spare"
	repair 0
	diff <(lines 1) "$TAB"
	[[ $(result '.devices[] | select(.crypttab | not) | .note') == no\ key* ]]
	[ "$(result '.result.unused_keys[]')" = /etc/cryptconf/keys/spare ]
}

@test "no key for a device of ours: 2, and its line stays" {
	formatted 1
	rm "$(key_of 1)"
	repair 2 --prune
	diff <(lines 1) "$TAB"
	[[ $(result .error.message) == *--keys* ]]
}

@test "a key that others can read is named and not used: 2" {
	formatted 1
	chmod 0644 "$(key_of 1)"
	repair 2
	[[ $(result '.result.unusable_keys[0].problem') == *chmod\ 0400* ]]
	ln -s "$(key_of 1)" "$KEYS/link"
	mkfifo "$KEYS/pipe"
	: >"$KEYS/empty"
	repair 2
	[ "$(result '.result.unusable_keys | length')" = 4 ]
}

@test "stale lines are told and stay; --prune removes them" {
	formatted 1 2 3
	rm "$ROOT${ID}2"
	truncate -s 0 "$(image_of 3)"
	truncate -s 64M "$(image_of 3)"
	rm "$(backup_of 3)"
	before=$(cat "$TAB")
	repair 0
	[ "$(cat "$TAB")" = "$before" ]
	[ "$(result '.result.stale_lines[] | "\(.line) \(.name) \(.removed)"')" = $'2 enc-scsi-30002 false\n3 enc-scsi-30003 false' ]
	repair 0 --prune
	diff <(lines 1) "$TAB"
	[ "$(cat "$TAB.qs-bak")" = "$before" ]
}

@test "a line whose header is gone but backed up is not pruned" {
	formatted 1 2
	truncate -s 0 "$(image_of 2)"
	truncate -s 64M "$(image_of 2)"
	repair 0 --prune
	diff <(lines 1 2) "$TAB"
	[[ $(result '.result.stale_lines[0].problem') == *backup\ is\ still\ there* ]]
}

@test "a damaged header: 4, named, and its line stays" {
	formatted 1 2
	dd if=/dev/urandom of="$(image_of 2)" bs=64 seek=100 count=4000 conv=notrunc status=none
	repair 7 --prune
	diff <(lines 1 2) "$TAB"
	[ "$(result '.devices[] | select(.ok | not) | .error.code')" = header-damaged ]
}

@test "a header that is refused: its line stays, the others are repaired" {
	formatted 1 2
	"$QS_BUILD/tests/unit/mkheader" "$(image_of 2)" null-cipher
	sed -i 's/30001.key/gone.key/' "$TAB"
	repair 7
	diff <(lines 1 2) "$TAB"
	[ "$(result '.devices[] | select(.ok | not) | .error.code')" = header-refused ]
}

@test "never two lines for one device, never two lines of one name" {
	formatted 1 2
	{
		line 2
		line 1
		echo "enc-again ${ID}1 /etc/cryptconf/keys/enc-scsi-30001.key luks"
		line 1
		echo "enc-scsi-30002 ${ID}9 /etc/cryptconf/keys/enc-scsi-30002.key luks"
	} >"$TAB"
	repair 0
	diff <(line 2; line 1) "$TAB"
	[ "$(result '[.result.stale_lines[] | select(.removed) | .line] | @csv')" = 3,4,5 ]
}

@test "a line that was cut anywhere is mended" {
	local whole cut
	formatted 1
	whole=$(line 1)
	for cut in 14 15 20 40 60 79 "$((${#whole} - 1))"; do
		printf '%s' "# other" $'\n' "${whole:0:cut}" >"$TAB"
		repair 0
		diff <(echo "# other"; echo "$whole" | sed "$([ "$cut" -lt "$((${#whole} - 1))" ] || echo 's/luks$/luk/')") "$TAB"
	done
	# Cut inside the name it could be anybody's.
	printf 'enc-scsi' >"$TAB"
	repair 0 --prune
	diff <(lines 1) "$TAB"
}

@test "a kernel name or a by-path link is replaced, a stable link stays" {
	local uuid
	formatted 1 2
	uuid=$(cryptsetup luksUUID "$(image_of 2)")
	ln -s "$(image_of 2)" "$ROOT/dev/disk/by-uuid/$uuid"
	mkdir "$ROOT/dev/disk/by-path"
	ln -s "$(image_of 1)" "$ROOT/dev/disk/by-path/pci-1"
	sed -i "s,${ID}1,/dev/disk/by-path/pci-1,; s,${ID}2,/dev/disk/by-uuid/$uuid," "$TAB"
	cp "$TAB" "$BATS_TEST_TMPDIR/old"
	repair 0
	diff <(line 1; sed -n 2p "$BATS_TEST_TMPDIR/old") "$TAB"
}

@test "image files are known from the table and from its last version" {
	qs cryptformat --no-open "$ROOT/img/d1" >/dev/null
	rm "$ROOT${ID}1"
	qs cryptformat --no-open "$ROOT/img/d2" >/dev/null
	rm "$ROOT${ID}2"
	printf 'enc-d1 %s /gone luks\n' "$(image_of 1)" >"$TAB.qs-bak"
	printf 'enc-d2 %s /gone luks\n' "$(image_of 2)" >"$TAB"
	repair 0
	[ "$(result '[.devices[].ok] | @csv')" = true,true ]
	[ "$(cut -d' ' -f1 "$TAB" | sort | tr '\n' ' ')" = 'enc-d2 enc-scsi-30001 ' ]
}

@test "a table that cannot be understood: 1, the line named, the file untouched" {
	formatted 1
	printf '# a\nenc-scsi-30001 \0\n' >"$TAB"
	before=$(sum "$TAB")
	repair 1
	[[ $(result .error.message) == *line\ 2*NUL*move\ this\ one\ away* ]]
	[ "$(sum "$TAB")" = "$before" ]
	mv "$TAB" "$TAB.broken"
	repair 0
	diff <(lines 1) "$TAB"
}

@test "a keys directory that is not mounted: 2; with --keys it is only told" {
	formatted 1
	echo "LABEL=stick /mnt/qs-stick vfat defaults 0 0" >"$ROOT/etc/fstab"
	echo 'keys_dir = "/mnt/qs-stick/keys";' >"$ROOT/etc/cryptconf/qs-util.conf"
	repair 2
	[[ $(result .error.message) == *mount\ it\ first* ]]
	repair 0 --keys "$KEYS"
	[[ $(result '.result.unusable_keys[0].problem') == *mount\ it\ first* ]]
	diff <(lines 1) "$TAB"
}

@test "a key whose path crypttab cannot hold: told for its device, the others are done" {
	formatted 1 2
	mkdir -m 700 "$BATS_TEST_TMPDIR/with blank"
	mv "$(key_of 1)" "$BATS_TEST_TMPDIR/with blank/k"
	rm "$TAB"
	repair 7 --keys "$BATS_TEST_TMPDIR/with blank"
	diff <(lines 2) "$TAB"
	[[ $(result '.devices[0].error.message') == *key\ file* ]]
}

@test "no devices and no keys: an empty answer, and nothing is made" {
	rm "$ROOT"/dev/disk/by-id/*
	before=$(snapshot)
	repair 0
	[ "$(result '.devices | length')" = 0 ]
	[ "$(snapshot)" = "$before" ]
	[ ! -e "$ROOT/etc/cryptconf" ]
}

@test "as text: a line for each device on stdout, the rest on stderr" {
	formatted 1
	stock_format "$(image_of 2)" "$KEY"
	new_key "$KEYS/spare"
	rm "$TAB"
	run -0 --separate-stderr qs crypttabrepair
	[[ ${lines[0]} == "$(image_of 1): enc-scsi-30001, line 1 added, key /etc/cryptconf/keys/enc-scsi-30001.key" ]]
	[[ ${lines[1]} == "$(image_of 2): no line; no key"* ]]
	# shellcheck disable=SC2154 # stderr comes from run
	[[ $stderr == *"unused key: /etc/cryptconf/keys/spare"* ]]
	run -0 --separate-stderr qs crypttabrepair --dry-run
	[ -z "$output" ]
	[[ $stderr == *"nothing to change"* ]]
}

@test "systemd's generator and Debian's parser read the new table alike" {
	formatted 1 2 3
	printf '# other\nenc-scsi-30002 %s2\nenc-scsi-3' "$ID" >"$TAB"
	mv "$(key_of 1)" "$KEYS/renamed"
	repair 0 --prune
	mkdir "$BATS_TEST_TMPDIR/units"
	SYSTEMD_CRYPTTAB=$TAB RUNTIME_DIRECTORY=$BATS_TEST_TMPDIR/units \
		/lib/systemd/system-generators/systemd-cryptsetup-generator \
		"$BATS_TEST_TMPDIR"/units{,,}
	systemd=$(sed -n "s/^ExecStart=.* attach '\(.*\)' '\(.*\)' '\(.*\)' '\(.*\)'$/\1 \2 \3 \4/p" \
		"$BATS_TEST_TMPDIR"/units/*.service | sort)
	# shellcheck disable=SC2016 # expanded there
	debian=$(TABFILE=$TAB bash -c '. /lib/cryptsetup/functions
		show() { echo "$CRYPTTAB_NAME $_CRYPTTAB_SOURCE $_CRYPTTAB_KEY $_CRYPTTAB_OPTIONS"; }
		crypttab_foreach_entry show' | sort)
	ours=$(tr -s ' ' <"$TAB" | grep -v '^#' | sort)
	[ "$debian" = "$ours" ]
	[ "${systemd//%%/%}" = "$ours" ]
}
