#!/usr/bin/env bats
# keys_dir in another place: what is said while its mount is missing or hangs.
# (Real mounts: tests/fault/test-mounts.py and tests/guest/places.bats.)

# shellcheck disable=SC2154 # bats sets $stderr

load tree

setup()
{
	make_tree 3
	mkdir -p "$ROOT/etc/cryptconf" "$ROOT/etc/systemd/system" "$ROOT/etc/usb"
	keys_in /etc/usb/keys
}

keys_in()
{
	printf 'keys_dir = "%s";\nkey_deadline = 1;\n' "$1" >"$ROOT/etc/cryptconf/qs-util.conf"
}

# no_key_is_made WORD...: cryptformat is refused, each WORD stands in the sentence.
no_key_is_made()
{
	local word
	run -2 qs cryptformat --no-open "${ID}1"
	for word; do
		[[ $output == *"$word"* ]] || { echo "no '$word' in: $output"; return 1; }
	done
	cmp -n 64M "$(image_of 1)" /dev/zero
	[ ! -e "$ROOT/etc/crypttab" ]
	[ -z "$(find "$ROOT/etc/usb" -name '*.key')" ]
}

@test "a mount point of fstab, with and without a slash at its end, above keys_dir and equal to it" {
	mkdir -m 0700 "$ROOT/etc/usb/keys"
	for target in /etc/usb /etc/usb/ /etc/usb// /etc/usb/keys; do
		echo "LABEL=KEYS $target ext4 nofail 0 2" >"$ROOT/etc/fstab"
		no_key_is_made "which /etc/fstab mounts, is not mounted"
	done
	# Not on its path:
	for target in /etc/us /etc/usb/key /etc/usb/keys/deeper / none; do
		echo "LABEL=KEYS $target ext4 nofail 0 2" >>"$ROOT/etc/fstab.new"
	done
	mv "$ROOT/etc/fstab.new" "$ROOT/etc/fstab"
	run -0 qs cryptformat --no-open "${ID}1"
}

@test "a mount point of a systemd unit: by its name, above keys_dir and equal to it" {
	mkdir -m 0700 "$ROOT/etc/usb/keys"
	for unit in etc-usb.mount etc-usb-keys.mount; do
		echo '[Mount]' >"$ROOT/etc/systemd/system/$unit"
		no_key_is_made "the unit $unit mounts"
		rm "$ROOT/etc/systemd/system/$unit"
	done
	mkdir -p "$ROOT/run/systemd/system"
	echo '[Mount]' >"$ROOT/run/systemd/system/etc-usb.mount"
	no_key_is_made 'etc-usb.mount'
	# A masked one mounts nothing.
	ln -s /dev/null "$ROOT/etc/systemd/system/etc-usb.mount"
	run -0 qs cryptformat --no-open "${ID}1"
}

@test "names of units are escaped as systemd escapes them" {
	command -v systemd-escape >/dev/null
	for path in '/etc/a-b/k_1' '/etc/.hidden' '/etc/x+y@z' '/etc/a.b:c' '/etc/-'; do
		unit=$(systemd-escape --path --suffix=mount "$path")
		echo '[Mount]' >"$ROOT/etc/systemd/system/$unit"
		mkdir -p "$ROOT$path"
		chmod 0700 "$ROOT$path"
		keys_in "$path"
		if [[ $path == *:* ]]; then
			run -78 qs cryptformat --no-open "${ID}1" # not in crypttab
		else
			no_key_is_made "the unit $unit mounts"
		fi
		rm "$ROOT/etc/systemd/system/$unit"
	done
}

@test "keys_dir behind a symbolic link to a mount point" {
	mkdir -m 0700 "$ROOT/etc/usb/keys"
	ln -s usb "$ROOT/etc/link"
	keys_in /etc/link/keys
	echo 'LABEL=KEYS /etc/usb ext4 nofail 0 2' >"$ROOT/etc/fstab"
	no_key_is_made '/etc/usb, which /etc/fstab mounts, is not mounted'
}

@test "nobody has written the mount down: an empty directory, though crypttab names keys in it" {
	mkdir -m 0700 "$ROOT/etc/usb/keys"
	run -0 qs cryptformat --no-open "${ID}1"
	mv "$ROOT/etc/usb/keys/enc-scsi-30001.key" "$BATS_TEST_TMPDIR/away"
	run -2 qs cryptformat --no-open "${ID}2"
	[[ $output == *'has no key in it, though line 1 of /etc/crypttab'*'mounted?'* ]]
	cmp -n 64M "$(image_of 2)" /dev/zero
	mv "$BATS_TEST_TMPDIR/away" "$ROOT/etc/usb/keys/enc-scsi-30001.key"
	run -0 qs cryptformat --no-open "${ID}2"
	run -0 qs cryptopenall --test
}

@test "opening while the mount is missing: which key, and which mount" {
	mkdir -m 0700 "$ROOT/etc/usb/keys"
	qs cryptformat --no-open "${ID}1"
	mv "$ROOT/etc/usb/keys" "$BATS_TEST_TMPDIR/keys"
	echo 'LABEL=KEYS /etc/usb ext4 nofail 0 2' >"$ROOT/etc/fstab"
	for words in "cryptopen --test ${ID}1" "cryptopenall --test"; do
		# shellcheck disable=SC2086
		run -2 qs $words
		[[ $output == *'/etc/usb/keys/enc-scsi-30001.key does not exist: /etc/usb, which /etc/fstab mounts'* ]]
	done
	run -0 --separate-stderr qs --json cryptstatus "${ID}1"
	[ "$(jq -r '.devices[0].crypttab.problem' <<<"$output")" = 'names a key file that does not exist' ]
	[[ $(jq -r '.devices[0].warnings[]' <<<"$output") == *'/etc/usb, which /etc/fstab mounts, is not mounted'* ]]
	# One that is right is not talked about.
	mv "$BATS_TEST_TMPDIR/keys" "$ROOT/etc/usb/keys"
	sed -i 's/luks$/luks,nofail/' "$ROOT/etc/crypttab"
	run -0 --separate-stderr qs --json cryptstatus "${ID}1"
	[ "$(jq -r '.devices[0].warnings' <<<"$output")" = null ]
}

# own_key N: a key of the administrator's in /etc/usb.
own_key()
{
	head -c 64 /dev/urandom >"$ROOT/etc/usb/own$1.key"
	chmod 0400 "$ROOT/etc/usb/own$1.key"
}

# options_of N: the fourth field of disk N's line.
options_of()
{
	awk -v name="enc-scsi-3000$1" '$1 == name { print $4 }' "$ROOT/etc/crypttab"
}

@test "a key on a file system that may be away: its new line holds no boot" {
	own_key 1
	own_key 2
	ln -s usb "$ROOT/etc/link"
	echo 'LABEL=KEYS /etc/usb ext4 nofail 0 2' >"$ROOT/etc/fstab"
	run -0 qs cryptformat --no-open --pbkdf pbkdf2 "${ID}1" /etc/usb/own1.key
	[ "$(options_of 1)" = luks,nofail ]
	# Behind a link, and by a unit.
	rm "$ROOT/etc/fstab"
	echo '[Mount]' >"$ROOT/etc/systemd/system/etc-usb.mount"
	run -0 qs cryptformat --no-open --pbkdf pbkdf2 "${ID}2" /etc/link/own2.key
	[ "$(options_of 2)" = luks,nofail ]
	# Without either there is nothing to wait for.
	rm "$ROOT/etc/systemd/system/etc-usb.mount" "$ROOT/etc/crypttab"
	run -0 qs cryptformat --no-open --pbkdf pbkdf2 "${ID}3" /etc/usb/own1.key
	[ "$(options_of 3)" = luks ]
}

@test "what the configuration and a line say already stays; cryptstatus warns of a line that waits" {
	local options
	own_key 1
	echo 'LABEL=KEYS /etc/usb ext4 nofail 0 2' >"$ROOT/etc/fstab"
	for options in luks,noauto luks,nofail luks,x-systemd.device-timeout=5s,nofail; do
		printf 'crypttab_options = "%s";\n' "$options" >"$ROOT/etc/cryptconf/qs-util.conf"
		run -0 qs cryptformat --no-open --pbkdf pbkdf2 "${ID}1" /etc/usb/own1.key
		[ "$(options_of 1)" = "$options" ]
		run -0 --separate-stderr qs --json cryptstatus "${ID}1"
		[ "$(jq '.devices[0].warnings' <<<"$output")" = null ]
		run -0 qs --yes cryptdestroy "${ID}1"
		own_key 1
	done
	run -0 qs cryptformat --no-open --pbkdf pbkdf2 "${ID}1" /etc/usb/own1.key
	sed -i 's/luks,.*/luks,discard/' "$ROOT/etc/crypttab"
	run -0 --separate-stderr qs --json cryptstatus "${ID}1"
	[[ $(jq -r '.devices[0].warnings[]' <<<"$output") == 'line 1 of /etc/crypttab makes every boot wait for /etc/usb/own1.key'*nofail* ]]
	[ "$(jq '.devices[0].crypttab.agrees' <<<"$output")" = true ]
}

# hanging STATUS ARGUMENT...: whoever opens keys_dir, or a key in it, waits for three seconds (as
# does strace, whatever became of him).
hanging()
{
	local status=$1
	shift
	export ASAN_OPTIONS=detect_leaks=0
	run "-$status" --separate-stderr timeout 60 strace -f -qq -o /dev/null \
		-P "$ROOT/etc/usb/keys" -P "$ROOT/etc/usb/keys/enc-scsi-30001.key" \
		-e inject=openat,access,faccessat2:delay_enter=3s \
		"$QS_UTIL" --root="$ROOT" "$@" </dev/null
}

@test "a directory that hangs: a sentence in time from every command that needs it" {
	mkdir -m 0700 "$ROOT/etc/usb/keys"
	qs cryptformat --no-open "${ID}1"
	before=$(sum "$(image_of 1)")
	for words in "cryptformat --no-open ${ID}2" "cryptopenall --test" "--yes cryptdestroy ${ID}1"; do
		# shellcheck disable=SC2086
		hanging 1 $words
		[[ $stderr == *'/etc/usb/keys has not answered for 1 second (key_deadline)'* ]]
	done
	hanging 0 --json cryptstatus "${ID}1"
	[ "$(jq -r '.devices[0].crypttab.problem' <<<"$output")" = 'names a key file that cannot be looked for' ]
	[[ $(jq -r '.devices[0].warnings[]' <<<"$output") == *'has not answered'* ]]
	[ "$(sum "$(image_of 1)")" = "$before" ]
	cmp -n 64M "$(image_of 2)" /dev/zero
	# What has its key elsewhere does not wait for it.
	stock_format "$(image_of 2)" "$ROOT/etc/usb/keys/enc-scsi-30001.key"
	install -m 0400 "$ROOT/etc/usb/keys/enc-scsi-30001.key" "$ROOT/etc/own.key"
	echo "enc-other  ${ID}2  /etc/own.key  luks" >>"$ROOT/etc/crypttab"
	hanging 7 --json cryptopenall --test
	[ "$(jq -r '.devices[] | select(.ok) | .name' <<<"$output")" = enc-other ]
	[ "$(jq -r '.devices[] | select(.ok | not) | .name + " " + .error.code' <<<"$output")" = 'enc-scsi-30001 deadline' ]
}

@test "systemd's generator mounts the place of the key before it opens the device" {
	mkdir -m 0700 "$ROOT/etc/usb/keys"
	qs cryptformat --no-open "${ID}1"
	cd "$BATS_TEST_TMPDIR"
	mkdir run units
	SYSTEMD_CRYPTTAB=$ROOT/etc/crypttab RUNTIME_DIRECTORY=$PWD/run \
		/lib/systemd/system-generators/systemd-cryptsetup-generator units units units
	grep -qx 'RequiresMountsFor=/etc/usb/keys/enc-scsi-30001.key' units/systemd-cryptsetup@enc*.service
}
