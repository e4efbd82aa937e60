#!/usr/bin/env bats
# Key bundles: what is in them, who opens them, what comes back, and what is
# refused. The judges are openssl and tar.

load tree

setup_file()
{
	cd "$BATS_FILE_TMPDIR" || return
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout backup.pem \
		-out backup.crt -subj /CN=backup -days 2 2>openssl.log
	openssl req -x509 -newkey rsa:3072 -nodes -keyout rsa.pem -out rsa.crt -subj /CN=rsa -days 2 2>openssl.log
	(umask 077 && echo 'open sesame' >pass)
}

setup()
{
	make_tree 2
	KEYS=$ROOT/etc/cryptconf/keys
	BUNDLE=$BATS_TEST_TMPDIR/keys.cms
	cd "$BATS_FILE_TMPDIR" || return
}

# Formatted by us: both disks.
formatted()
{
	qs cryptformat --no-open "${ID}1" "${ID}2"
	rmdir "$ROOT/etc/cryptconf/pending"
}

# Two keys and a line without any disk behind them: quick where no disk matters.
small_keys()
{
	mkdir -p "$KEYS"
	chmod 0700 "$KEYS"
	new_key "$(key_of 1)"
	new_key "$(key_of 2)"
	echo "enc-scsi-30001  ${ID}1  /etc/cryptconf/keys/enc-scsi-30001.key  luks" >"$ROOT/etc/crypttab"
}

backup()
{
	qs keybackup --to backup.crt "$@" "$BUNDLE"
}

restore()
{
	qs keyrestore --key-file backup.pem "$@" "$BUNDLE"
}

# All of /etc is gone.
lose()
{
	rm -rf "$BATS_TEST_TMPDIR/lost"
	mv "$ROOT/etc" "$BATS_TEST_TMPDIR/lost"
	mkdir "$ROOT/etc"
}

# Sums of all files below $ROOT/etc.
etc_sums()
{
	(cd "$ROOT/etc" && find . -type f -print0 | sort -z | xargs -0r sha256sum)
}

# action_of PATH [OPTION...]: what keyrestore would do with it.
action_of()
{
	local path=$1
	shift
	restore --json --dry-run "$@" | jq -r --arg p "$path" '.result.items[] | select(.path == $p).action'
}

@test "openssl and tar open it, by the lines of the README" {
	formatted
	mkdir "$BATS_TEST_TMPDIR/by-key" "$BATS_TEST_TMPDIR/by-passphrase"
	qs keybackup --to rsa.crt --to backup.crt --passphrase-file pass "$BUNDLE"
	mapfile -t lines < <(grep '^openssl cms -decrypt ' "$BATS_TEST_DIRNAME/../../README.md")
	[ ${#lines[@]} -eq 2 ]
	for where in by-key by-passphrase; do
		cd "$BATS_TEST_TMPDIR/$where"
		cp "$BUNDLE" "$BATS_FILE_TMPDIR/backup.pem" .
		PASSPHRASE='open sesame' bash -o pipefail -c "${lines[0]}"
		lines=("${lines[@]:1}")
		diff -r "$ROOT/etc/cryptconf" cryptconf
		cmp "$ROOT/etc/crypttab" crypttab
		jq -e '.format == "qs-util key bundle"' manifest.json
		[ "$(stat -c %a cryptconf/keys)" = 700 ]
		[ "$(stat -c %a cryptconf/keys/enc-scsi-30001.key)" = 400 ]
	done
	openssl cms -decrypt -inform DER -in "$BUNDLE" -inkey "$BATS_FILE_TMPDIR/rsa.pem" | tar t
	[ "$(stat -c %a "$BUNDLE")" = 600 ]
}

@test "everything lost: opened from the bundle, restored, and the same as before" {
	formatted
	echo '# mine' | tee "$ROOT/etc/fstab" >>"$ROOT/etc/crypttab"
	backup
	before=$(etc_sums)
	lose
	run -0 qs cryptopenall --test --bundle "$BUNDLE" --key-file backup.pem
	[ "$(grep -c 'key proven' <<<"$output")" -eq 2 ]
	[ -z "$(ls -A "$ROOT/etc")" ]
	restore
	# Lines of others are theirs, and fstab is for reading only.
	[ "$(etc_sums)" = "$(grep -v -e ./fstab -e ./crypttab <<<"$before"; cd "$ROOT/etc" && sha256sum ./crypttab)" ]
	[ ! -e "$ROOT/etc/fstab" ]
	diff "$ROOT/etc/crypttab" <(grep '^enc-' "$BATS_TEST_TMPDIR/lost/crypttab")
	run -0 qs cryptopenall --test
	stock_opens "$(image_of 1)" "$(key_of 1)"
	[ "$(stat -c %a "$(key_of 1)" "$KEYS" | xargs)" = "400 700" ]
	[ "$(stat -c %Y "$(backup_of 1)")" = "$(stat -c %Y "$BATS_TEST_TMPDIR/lost/cryptconf/headers/enc-scsi-30001.header")" ]
}

@test "a second restore finds everything as it is, and the JSON is valid" {
	small_keys
	run -0 --separate-stderr qs --json keybackup --to backup.crt "$BUNDLE"
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -r '.result | "\(.keys) \(.headers) \(.devices | length) \(.missing | length)"' <<<"$output")" = "2 0 2 0" ]
	before=$(etc_sums)
	run -0 --separate-stderr restore --json
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -r '[.result.items[].action] | unique | join(" ")' <<<"$output")" = same ]
	[ "$(etc_sums)" = "$before" ]
}

@test "a directory or a FIFO is no place for a bundle, and --force does not make it one" {
	small_keys
	mkfifo "$BATS_TEST_TMPDIR/fifo"
	for place in "$BATS_TEST_TMPDIR" "$BATS_TEST_TMPDIR/fifo"; do
		for option in --no-headers --force; do
			run -1 qs keybackup --to backup.crt "$option" "$place"
			[[ $output == *"$place is not a regular file; name a file"* ]]
		done
	done
	[ -p "$BATS_TEST_TMPDIR/fifo" ]
}

@test "a key that differs stops everything: 6, and nothing is written" {
	small_keys
	backup
	new_key "$(key_of 2)"
	rm "$(key_of 1)" "$ROOT/etc/crypttab"
	before=$(etc_sums)
	[ "$(action_of /etc/cryptconf/keys/enc-scsi-30002.key)" = conflict ]
	run -6 restore
	[[ $output == *enc-scsi-30002.key:\ differs* && $output == *--force* ]]
	[ "$(etc_sums)" = "$before" ]
	run -6 restore --force
	[[ $output == *'give --yes'* ]]
	[ "$(etc_sums)" = "$before" ]
}

@test "--only takes the others, by any name of the device's files" {
	small_keys
	backup
	cp "$(key_of 1)" "$BATS_TEST_TMPDIR/first"
	new_key "$(key_of 2)"
	second=$(sum "$(key_of 2)")
	rm "$(key_of 1)" "$ROOT/etc/crypttab"
	restore --only enc-scsi-30001
	cmp "$(key_of 1)" "$BATS_TEST_TMPDIR/first"
	[ "$(sum "$(key_of 2)")" = "$second" ]
	grep -q '^enc-scsi-30001 ' "$ROOT/etc/crypttab"
	run -1 restore --only enc-scsi-3000
	[[ $output == *'nothing of enc-scsi-3000 in it'* ]]
}

@test "--force replaces a key and keeps the old one, each only once" {
	small_keys
	cp "$(key_of 2)" "$BATS_TEST_TMPDIR/sealed"
	backup
	new_key "$(key_of 2)"
	cp "$(key_of 2)" "$BATS_TEST_TMPDIR/newer"
	restore --force --yes
	cmp "$(key_of 2)" "$BATS_TEST_TMPDIR/sealed"
	cmp "$(key_of 2).1" "$BATS_TEST_TMPDIR/newer"
	[ "$(stat -c %a "$(key_of 2)" "$(key_of 2).1" | xargs)" = "400 400" ]
	install -m 0400 "$BATS_TEST_TMPDIR/newer" "$(key_of 2)"
	restore --force --yes
	[ ! -e "$(key_of 2).2" ]
	new_key "$(key_of 2)"
	restore --force --yes
	[ -e "$(key_of 2).2" ]
	# The versions are keys too: the next bundle has them.
	backup --force
	openssl cms -decrypt -inform DER -in "$BUNDLE" -inkey backup.pem | tar t | grep -q enc-scsi-30002.key.2
}

@test "header backups that differ stay, with --force too" {
	formatted
	backup
	echo newer >"$(backup_of 1)"
	rm "$(backup_of 2)"
	restore --force --yes
	[ "$(cat "$(backup_of 1)")" = newer ]
	[ "$(stat -c %s "$(backup_of 2)")" -gt 1000000 ]
}

@test "the configuration: created, kept, replaced when nothing is set in it or by --force" {
	local conf=$ROOT/etc/cryptconf/qs-util.conf
	small_keys
	echo 'workers = 3;' >"$conf"
	backup
	"$QS_UTIL" help --format=config >"$conf"
	[ "$(action_of /etc/cryptconf/qs-util.conf)" = replace ]
	restore --yes
	[ "$(cat "$conf")" = 'workers = 3;' ]
	echo 'workers = 5;' >"$conf"
	[ "$(action_of /etc/cryptconf/qs-util.conf)" = keep ]
	restore
	[ "$(cat "$conf")" = 'workers = 5;' ]
	restore --force --yes
	[ "$(cat "$conf")" = 'workers = 3;' ]
	rm "$conf"
	restore
	[ "$(cat "$conf")" = 'workers = 3;' ]
}

@test "a configuration that comes back says where the keys go" {
	mkdir -p "$ROOT/etc/cryptconf" "$ROOT/var/keys"
	chmod 0700 "$ROOT/var/keys"
	echo 'keys_dir = "/var/keys";' >"$ROOT/etc/cryptconf/qs-util.conf"
	new_key "$ROOT/var/keys/enc-scsi-30001.key"
	echo "enc-scsi-30001  ${ID}1  /var/keys/enc-scsi-30001.key  luks" >"$ROOT/etc/crypttab"
	backup
	lose
	cp "$ROOT/var/keys/enc-scsi-30001.key" "$BATS_TEST_TMPDIR/key"
	rm -rf "$ROOT/var/keys"
	run -2 restore
	[[ $output == */var/keys*'does not exist'* ]]
	[ ! -e "$ROOT/etc/crypttab" ]
	mkdir -m 0700 "$ROOT/var/keys"
	restore
	cmp "$ROOT/var/keys/enc-scsi-30001.key" "$BATS_TEST_TMPDIR/key"
	grep -q '/var/keys/enc-scsi-30001.key' "$ROOT/etc/crypttab"
}

@test "a key outside of the keys directory comes along, and its line follows it" {
	small_keys
	new_key "$BATS_TEST_TMPDIR/mine.key"
	echo "enc-mine  ${ID}2  $BATS_TEST_TMPDIR/mine.key  luks,discard" >>"$ROOT/etc/crypttab"
	backup
	cp "$BATS_TEST_TMPDIR/mine.key" "$BATS_TEST_TMPDIR/copy"
	rm "$BATS_TEST_TMPDIR/mine.key"
	lose
	restore
	cmp "$KEYS/enc-mine.key" "$BATS_TEST_TMPDIR/copy"
	grep -Eq "^enc-mine +${ID}2 +/etc/cryptconf/keys/enc-mine.key +luks,discard$" "$ROOT/etc/crypttab"
}

@test "lines: one that differs stays, a device has no second one, others are not touched" {
	small_keys
	backup
	printf '%s\n' "# mine" "other	${ID}1 none luks" >"$ROOT/etc/crypttab"
	before=$(cat "$ROOT/etc/crypttab")
	restore
	[ "$(cat "$ROOT/etc/crypttab")" = "$before" ]
	echo "enc-scsi-30001 ${ID}2 none luks,nofail" >"$ROOT/etc/crypttab"
	restore
	grep -q "^enc-scsi-30001 ${ID}2 " "$ROOT/etc/crypttab"
	restore --force --yes
	grep -q "^enc-scsi-30001 ${ID}1 /etc/cryptconf/keys/enc-scsi-30001.key luks$" "$ROOT/etc/crypttab"
}

@test "a key that is missing or open to others is not passed over in silence" {
	small_keys
	rm "$(key_of 1)"
	run -0 --separate-stderr qs --json keybackup --to backup.crt "$BUNDLE"
	[ "$(jq -r '.result.missing[]' <<<"$output")" = enc-scsi-30001 ]
	# shellcheck disable=SC2154 # run sets it
	[[ $stderr == *enc-scsi-30001.key* ]]
	rm "$BUNDLE"
	chmod 0440 "$(key_of 2)"
	run -2 backup
	[[ $output == *'chmod 0400'* ]]
	[ ! -e "$BUNDLE" ]
	rm "$(key_of 2)"
	run -2 backup
	[[ $output == *'no key'* ]]
}

@test "keys that are not mounted: 2, and not an empty bundle" {
	small_keys
	echo 'LABEL=stick /etc/cryptconf/keys ext4 noauto 0 0' >"$ROOT/etc/fstab"
	run -2 backup
	[[ $output == *'mount it first'* ]]
	[ ! -e "$BUNDLE" ]
}

@test "an existing file is not overwritten: 5; --force does" {
	small_keys
	echo precious >"$BUNDLE"
	run -5 backup
	[ "$(cat "$BUNDLE")" = precious ]
	ln -s "$BUNDLE" "$BATS_TEST_TMPDIR/link"
	run -5 qs keybackup --to backup.crt "$BATS_TEST_TMPDIR/link"
	backup --force
	restore --dry-run
	run -1 qs keybackup --to backup.crt --force "$BATS_TEST_TMPDIR"
	[[ $output == *'not a regular file'* ]]
}

@test "standard output: a pipe, but not beside --json and not a terminal" {
	small_keys
	qs keybackup --to backup.crt - | cat >"$BUNDLE"
	restore --dry-run
	run -64 --separate-stderr qs --json keybackup --to backup.crt -
	[ "$(jq -r .error.code <<<"$output")" = usage ]
	run -64 typed -- keybackup --to backup.crt -
	[[ $output == *'not written to a terminal'* ]]
	# shellcheck disable=SC2016 # for the inner shell
	run -1 bash -c '"$0" --root="$1" keybackup --to backup.crt - >/dev/full' "$QS_UTIL" "$ROOT"
	[[ $output == *'No space'* ]]
}

@test "a passphrase is typed twice, is asked for once, and is never shown" {
	small_keys
	run -0 typed 'open sesame' 'open sesame' -- keybackup "$BUNDLE"
	[[ $output != *sesame* ]]
	run -0 typed 'open sesame' -- keyrestore --dry-run "$BUNDLE"
	[[ $output != *sesame* ]]
	run -0 qs_input 'open sesame' keyrestore --dry-run --passphrase-file - "$BUNDLE"
	run -0 qs keyrestore --dry-run --passphrase-fd 5 "$BUNDLE" 5<pass
	rm "$BUNDLE"
	run -6 typed one two one two one two -- keybackup "$BUNDLE"
	[[ $output == *'never typed alike'* ]]
	[ ! -e "$BUNDLE" ]
	run -64 qs keybackup "$BUNDLE"
	[[ $output == *--passphrase-file* ]]
}

@test "a wrong passphrase or key: 2; the wrong kind: 2, and nobody is asked" {
	small_keys
	(umask 077 && echo other >"$BATS_TEST_TMPDIR/other")
	backup
	run -2 qs keyrestore --key-file rsa.pem "$BUNDLE"
	[[ $output == *'does not open it'* ]]
	run -2 typed -- keyrestore "$BUNDLE"
	[[ $output == *'certificates only'* ]]
	run -2 qs cryptopenall --bundle "$BUNDLE" --key-file rsa.pem --test
	qs keybackup --force --passphrase-file pass "$BUNDLE"
	run -2 qs keyrestore --passphrase-file "$BATS_TEST_TMPDIR/other" "$BUNDLE"
	[[ $output == *'passphrase does not open it'* ]]
	run -2 restore
	[[ $output == *'passphrase only'* ]]
	run -64 qs cryptopenall --key-file backup.pem
	run -2 qs keyrestore --key-file /nonexistent "$BUNDLE"
	install -m 0644 backup.pem "$BATS_TEST_TMPDIR/open.pem"
	backup --force
	run -2 qs keyrestore --key-file "$BATS_TEST_TMPDIR/open.pem" "$BUNDLE"
	[[ $output == *'chmod 0400'* ]]
}

@test "changed, cut off, or something else: 1, and nothing is written" {
	local size at
	small_keys
	backup
	rm "$(key_of 1)" "$ROOT/etc/crypttab"
	before=$(etc_sums)
	cp "$BUNDLE" "$BATS_TEST_TMPDIR/good"
	size=$(stat -c %s "$BUNDLE")
	# Each byte is changed in tests/unit/test-seal.c; here the whole command at some.
	for ((at = size - 20; at > 600; at -= 401)); do
		cp "$BATS_TEST_TMPDIR/good" "$BUNDLE"
		printf '\xff' | dd of="$BUNDLE" bs=1 seek="$at" conv=notrunc status=none
		cmp -s "$BUNDLE" "$BATS_TEST_TMPDIR/good" && continue
		run -1 restore
		[[ $output == "qs-util keyrestore: $BUNDLE: it "* ]]
		run -1 qs cryptopenall --test --bundle "$BUNDLE" --key-file backup.pem
	done
	for at in 0 1 100 $((size / 2)) $((size - 1)); do
		head -c "$at" "$BATS_TEST_TMPDIR/good" >"$BUNDLE"
		run -1 restore
	done
	(cat "$BATS_TEST_TMPDIR/good"; echo) >"$BUNDLE"
	run -1 restore
	head -c 100000 /dev/urandom >"$BUNDLE"
	run -1 restore
	[[ $output == *'no key bundle'* ]]
	[ "$(etc_sums)" = "$before" ]
}

# forge: a bundle that stock tools made of a tar archive on standard input.
forge()
{
	openssl cms -encrypt -binary -aes-256-gcm -outform DER -recip backup.crt -out "$BUNDLE"
}

@test "hostile archives inside a valid envelope: 1, and nothing is written" {
	local kind
	small_keys
	before=$(etc_sums)
	for kind in parent absolute link hard-link twice pending no-manifest newer device deep; do
		python3 -B "$BATS_TEST_DIRNAME/hostile-tar.py" "$kind" | forge
		run -1 restore
		[[ $output == "qs-util keyrestore: $BUNDLE: "* ]] || { echo "$kind: $output"; return 1; }
		[ "$(etc_sums)" = "$before" ]
	done
	[ "$(ls "$ROOT")" = "$(printf '%s\n' dev etc img run)" ]
	python3 -B "$BATS_TEST_DIRNAME/hostile-tar.py" good | forge
	restore
	[ "$(cat "$KEYS/new.key")" = 'a key' ]
}

@test "keystore devices: opened by the keystore in the bundle, from memory" {
	qs --yes keystore enable
	qs cryptformat --no-open "${ID}1" "${ID}2"
	run -0 --separate-stderr qs --json keybackup --to backup.crt "$BUNDLE"
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '.result | [.keys, .keystore, .by_keystore]' <<<"$output")" = \
		'[0,true,["enc-scsi-30001","enc-scsi-30002"]]' ]
	run -0 backup --force
	[[ $output == *'(keys: 0, header backups: 2, devices: 2, by the keystore in it: 2)' ]]
	lose
	run -0 --separate-stderr qs --json cryptopenall --test --bundle "$BUNDLE" --key-file backup.pem
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '[.devices[] | [.name, .ok, .keystore_generation]]' <<<"$output")" = \
		'[["enc-scsi-30001",true,1],["enc-scsi-30002",true,1]]' ]
	[ -z "$(ls -A "$ROOT/etc")" ]
	restore
	run -0 qs cryptopenall --test
	[ "$(grep -c 'key proven' <<<"$output")" -eq 2 ]
}

@test "a bundle opens devices by its keystore and by its keys, whatever keystore is here" {
	# Its line still names a key file, which is gone.
	enrolled_with local 1
	new_key "$(key_of 2)"
	stock_format "$(image_of 2)" "$(key_of 2)" --type luks2
	echo "enc-scsi-30002  ${ID}2  /etc/cryptconf/keys/enc-scsi-30002.key  luks" >>"$ROOT/etc/crypttab"
	run -0 backup
	[[ $output != *warning* && $output == *'(keys: 1, header backups: 1, devices: 2, by the keystore in it: 1)' ]]
	lose
	# A keystore of another store, whose files have the same names.
	qs --yes keystore enable
	run -0 qs cryptopenall --test --bundle "$BUNDLE" --key-file backup.pem
	[ "$(grep -c 'key proven' <<<"$output")" -eq 2 ]
}

@test "a keystore that is damaged or lost is not left out in silence" {
	qs --yes keystore enable
	qs cryptformat --no-open "${ID}1" "${ID}2"
	mkdir -m 0700 "$KEYS"
	new_key "$KEYS/other.key"
	echo '{' >"$ROOT/etc/cryptconf/keystore/keystore.json"
	run -78 backup
	[[ $output == *keystore.json* ]]
	rm "$ROOT/etc/cryptconf/keystore/keystore.json"
	run -78 backup
	[[ $output == *'put that back from a key bundle'* ]]
	[ ! -e "$BUNDLE" ]
	rm -r "$ROOT/etc/cryptconf/keystore"
	run -0 --separate-stderr backup --json
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -c '.result | [.keystore, .missing]' <<<"$output")" = '[false,["enc-scsi-30001","enc-scsi-30002"]]' ]
	# shellcheck disable=SC2154 # run sets it
	[[ $stderr == *'enc-scsi-30001 is in the keystore, which is not on this machine'* ]]
}

@test "a device that nothing in the bundle opens is a failure, with the way out" {
	qs --yes keystore enable
	qs cryptformat --no-open "${ID}1"
	mkdir -m 0700 "$KEYS"
	new_key "$KEYS/other.key"
	new_key "$(key_of 2)"
	stock_format "$(image_of 2)" "$(key_of 2)" --type luks2
	echo "enc-scsi-30002  ${ID}2  /etc/cryptconf/keys/enc-scsi-30002.key  luks" >>"$ROOT/etc/crypttab"
	kek=$ROOT/etc/cryptconf/keystore/1.kek
	mv "$kek" "$BATS_TEST_TMPDIR/1.kek"
	backup
	install -m 0400 "$BATS_TEST_TMPDIR/1.kek" "$kek"
	# What is on this machine is not mixed into the keystore of the bundle.
	run -7 qs cryptopenall --test --bundle "$BUNDLE" --key-file backup.pem
	[[ $output == *"${ID}2: key proven"* ]]
	[[ $output == *"${ID}1: the key bundle has no /etc/cryptconf/keystore/1.kek"* ]]
	rm -r "$ROOT/etc/cryptconf/keystore" "$(key_of 2)"
	echo 'key_command = "/bin/false";' >"$ROOT/etc/cryptconf/qs-util.conf"
	backup --force
	lose
	run -2 qs cryptopenall --test --bundle "$BUNDLE" --key-file backup.pem
	[[ $output == *"the bundle has no key for ${ID}1"*'qs-util keyrestore'*'qs-util cryptopenall'* ]]
}

@test "a disk that moved to another link is opened from the bundle by its UUID" {
	formatted
	backup
	lose
	ln -s "$(image_of 1)" "$ROOT/dev/disk/by-uuid/$(cryptsetup luksUUID "$(image_of 1)")"
	rm "$ROOT${ID}1" "$ROOT${ID}2"
	run -0 --separate-stderr qs --json cryptopenall --test --bundle "$BUNDLE" --key-file backup.pem
	"$BATS_TEST_DIRNAME/../validate-json" <<<"$output"
	[ "$(jq -r '.devices[] | select(.name == "enc-scsi-30001") | "\(.ok) \(.keyslot)"' <<<"$output")" = "true 0" ]
	[ "$(jq -r '.devices[] | select(.name == "enc-scsi-30002").state' <<<"$output")" = absent ]
}

@test "a wrong key in the bundle: 2 for that disk, the other is proven" {
	formatted
	new_key "$BATS_TEST_TMPDIR/other"
	install -m 0400 "$BATS_TEST_TMPDIR/other" "$(key_of 2)"
	backup
	run -7 qs cryptopenall --test --bundle "$BUNDLE" --key-file backup.pem
	[[ $output == *"${ID}1: key proven"* ]]
}

@test "no key and no passphrase in any argument, environment or temporary file" {
	formatted
	export TMPDIR=$BATS_TEST_TMPDIR/tmp
	mkdir "$TMPDIR"
	ASAN_OPTIONS=detect_leaks=0 run -0 strace -f -qq -y -e trace=openat,execve,rename,renameat2 \
		-o "$BATS_TEST_TMPDIR/trace" "$QS_UTIL" --root="$ROOT" keybackup --passphrase-file pass "$BUNDLE"
	# Written is one file, by its temporary beside it.
	[ "$(grep -E 'O_(WRONLY|RDWR|CREAT)' "$BATS_TEST_TMPDIR/trace" | grep -vc '/keys.cms\|\.keys\.cms\.qs-tmp')" -eq 0 ]
	[ "$(grep -c execve "$BATS_TEST_TMPDIR/trace")" -le 1 ]
	lose
	ASAN_OPTIONS=detect_leaks=0 run -0 strace -f -qq -y -e trace=openat,execve -o "$BATS_TEST_TMPDIR/trace" \
		"$QS_UTIL" --root="$ROOT" cryptopenall --test --bundle "$BUNDLE" --passphrase-file pass
	grep -q '/img/d1' "$BATS_TEST_TMPDIR/trace"
	[ "$(grep -E 'O_(WRONLY|RDWR|CREAT)' "$BATS_TEST_TMPDIR/trace" | grep -vc '/dev/mapper/control\|"/dev/null"')" -eq 0 ]
	[ -z "$(ls -A "$TMPDIR")" ]
}

@test "keybackup for nobody: 64, both ways are named, and no file is made" {
	small_keys
	run -64 qs keybackup "$BUNDLE"
	[[ $output == *'--passphrase-file'*'--to'* ]]
	[ ! -e "$BUNDLE" ]
	run -0 qs keybackup --to backup.crt "$BUNDLE"
	[[ $output == *'(keys: 2, '* ]]
}
