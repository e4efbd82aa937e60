#!/usr/bin/env bats
# key_command: a program that prints the keys of devices. What is refused before
# it runs, what it is given, and which devices its keys open.

# Scripts stand in single quotes; bats sets $stderr.
# shellcheck disable=SC2016,SC2154

load tree

setup()
{
	make_tree 2
	CONF=$ROOT/etc/cryptconf
	PROGRAM=$CONF/bin/give-key
	NAME=enc-scsi-30001
	mkdir -p "$CONF/bin"
	chmod 0755 "$ROOT/etc" "$CONF" "$CONF/bin"
	configure
	# A key for each name, as a server would have them.
	mkdir "$CONF/server"
	for n in 1 2; do new_key "$CONF/server/enc-scsi-3000$n"; done
	# The environment is empty, so the paths stand in it.
	program "cat '$CONF/server/'\"\$1\""
}

# configure SETTING...: with the program, and these beside it.
configure()
{
	printf '%s\n' 'key_command = "/etc/cryptconf/bin/give-key";' "$@" >"$CONF/qs-util.conf"
}

# program LINE...: a shell script of these lines.
program()
{
	printf '%s\n' '#!/bin/sh' "$@" >"$PROGRAM"
	chmod 0755 "$PROGRAM"
}

# Disk N formatted by others with the key that the program prints for it.
server_disk()
{
	stock_format "$(image_of "$1")" "$CONF/server/enc-scsi-3000$1"
}

# gone FILE: the process whose number stands there has ended, or does so within seconds.
gone()
{
	local pid tries
	pid=$(<"$1")
	for ((tries = 0; tries < 100; tries++)); do
		if [ ! -d "/proc/$pid" ] || grep -q '^State:.*Z' "/proc/$pid/status"; then return; fi
		sleep 0.1
	done
	return 1
}

# refused STATUS WORD...: the device is not opened, and each WORD stands in the sentence.
refused()
{
	local status=$1 word
	run "-$status" qs cryptopen --test "${ID}1"
	for word in "${@:2}"; do
		[[ $output == *"$word"* ]] || { echo "no '$word' in: $output"; return 1; }
	done
}

@test "cryptopen and cryptopenall ask it; the device's own key file comes first" {
	server_disk 1
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	[ "$(jq -r '.devices[0] | .key_command, .key_file' <<<"$output")" = "/etc/cryptconf/bin/give-key
null" ]
	echo "$NAME  ${ID}1  none  luks,noauto" >"$ROOT/etc/crypttab"
	run -0 --separate-stderr qs --json cryptopenall --test
	[ "$(jq -r '.devices[] | .name, .key_command' <<<"$output")" = "$NAME
/etc/cryptconf/bin/give-key" ]
	mkdir -m 0700 "$CONF/keys"
	cp "$CONF/server/$NAME" "$(key_of 1)"
	program 'exit 9'
	run -0 --separate-stderr qs --json cryptopen --test "${ID}1"
	[ "$(jq -r '.devices[0].key_file' <<<"$output")" = "/etc/cryptconf/keys/$NAME.key" ]
}

@test "a key file that does not fit: then it is asked" {
	server_disk 1
	mkdir -m 0700 "$CONF/keys"
	new_key "$(key_of 1)"
	run -0 qs cryptopen --test "${ID}1"
}

@test "a key file that is named on the command line is the only one" {
	server_disk 1
	new_key "$BATS_TEST_TMPDIR/other"
	run -2 qs cryptopen --test "${ID}1" "$BATS_TEST_TMPDIR/other"
	[[ $output == *"$BATS_TEST_TMPDIR/other"* ]]
}

@test "cryptformat: the key comes from it, no key file is made, the line says none and noauto" {
	run -0 qs cryptformat --no-open "${ID}1"
	stock_opens "$(image_of 1)" "$CONF/server/$NAME"
	[ ! -e "$CONF/keys" ]
	[ -z "$(ls "$CONF/pending")" ]
	[ "$(<"$ROOT/etc/crypttab")" = "$NAME  ${ID}1  none  luks,noauto" ]
	cryptsetup luksDump "$(image_of 1)" | grep -qE 'PBKDF:\s+argon2id'
	cryptsetup luksDump --dump-json-metadata "$(image_of 1)" | jq -e '.tokens == {}'
	run -0 --separate-stderr qs --json cryptstatus "${ID}1"
	[ "$(jq -r '.devices[0] | .keyslots[0].opened_by, .crypttab.agrees' <<<"$output")" = "key command
true" ]
	run -0 qs cryptopenall --test
	[[ $output == *"$NAME"* ]]
	run -5 qs cryptformat --no-open "${ID}1"
	[[ $output == *'formatted already'* ]]
	run -0 qs --yes cryptdestroy "${ID}1"
	[ ! -s "$ROOT/etc/crypttab" ]
}

@test "cryptformat: a key that is another one each time is refused, and nothing was done" {
	program 'head -c 32 /dev/urandom'
	run -2 qs cryptformat --no-open "${ID}1"
	[[ $output == *'two different keys'* ]]
	cmp -n 64M "$(image_of 1)" /dev/zero
	[ -z "$(ls "$CONF/pending")" ]
	[ ! -e "$ROOT/etc/crypttab" ]
}

@test "cryptformat: a program that fails leaves nothing, and the same command again succeeds" {
	program 'echo no answer from the server >&2; exit 75'
	run -75 qs cryptformat --no-open "${ID}1"
	[[ $output == *'status 75: no answer from the server'* ]]
	cmp -n 64M "$(image_of 1)" /dev/zero
	[ -z "$(ls "$CONF/pending")" ]
	program "cat '$CONF/server/$NAME'"
	run -0 qs cryptformat --no-open --pbkdf pbkdf2 "${ID}1"
	cryptsetup luksDump "$(image_of 1)" | grep -qE 'PBKDF:\s+pbkdf2'
}

@test "cryptformat: an unfinished format is gone on with by the same source of keys only" {
	printf '{"op": "format", "uuid": "11111111-2222-4333-8444-555555555555", "device": "%s", "key_file": "none"}\n' \
		"${ID}1" >"$BATS_TEST_TMPDIR/journal"
	mkdir -m 0700 "$CONF/pending"
	cp "$BATS_TEST_TMPDIR/journal" "$CONF/pending/$NAME.json"
	printf 'key_command = "";\n' >"$CONF/qs-util.conf"
	run -6 qs cryptformat --no-open "${ID}1"
	[[ $output == *'used the key command'* ]]
	configure
	run -0 qs cryptformat --no-open --pbkdf pbkdf2 "${ID}1"
	stock_opens "$(image_of 1)" "$CONF/server/$NAME"
	[ "$(cryptsetup luksUUID "$(image_of 1)")" = 11111111-2222-4333-8444-555555555555 ]
}

@test "updatecrypttab writes none for a device that it opens, and only then" {
	server_disk 1
	echo "$NAME  ${ID}1  /etc/cryptconf/keys/gone.key  luks,discard" >"$ROOT/etc/crypttab"
	run qs cryptopen "${ID}1" updatecrypttab
	if [ "$status" -eq 0 ]; then
		[ "$(<"$ROOT/etc/crypttab")" = "$NAME  ${ID}1  none  luks,discard" ]
		qs cryptclose "${ID}1"
	else # the kernel has no device-mapper: nothing opens, and the line stays
		[ "$status" -eq 1 ]
		grep -q gone.key "$ROOT/etc/crypttab"
	fi
}

@test "it is run as PROGRAM NAME UUID DEVICE, with nothing in its environment and no input" {
	server_disk 1
	# 7 is the script's own descriptor, 10 its shell's.
	program "exec 7>'$BATS_TEST_TMPDIR/seen'" \
		'tr "\0" "\n" <"/proc/$$/environ" | sort >&7' \
		'printf "%s\n" "$#" "$@" "$(pwd)" "$(cat | wc -c)" >&7' \
		'readlink "/proc/$$/fd/0" >&7' \
		'for n in 3 4 5 6 8 9 $(seq 11 64); do [ ! -e "/proc/$$/fd/$n" ] || echo "open: $n" >&7; done' \
		"cat '$CONF/server/$NAME'"
	# A descriptor and a variable of the caller must not reach it.
	export SECRET_OF_CALLER=1
	run -0 qs cryptopen --test "${ID}1" 9</dev/null
	uuid=$(cryptsetup luksUUID "$(image_of 1)")
	diff "$BATS_TEST_TMPDIR/seen" - <<-END
		LANG=C
		PATH=/usr/sbin:/usr/bin:/sbin:/bin
		3
		$NAME
		$uuid
		$(image_of 1)
		/
		0
		/dev/null
	END
}

@test "every byte counts, the newline at the end too" {
	printf 'passphrase\n' >"$CONF/server/with"
	stock_format "$(image_of 1)" "$CONF/server/with"
	program 'echo passphrase'
	run -0 qs cryptopen --test "${ID}1"
	program 'printf passphrase'
	refused 2 'key printed by /etc/cryptconf/bin/give-key'
}

@test "what it says is passed on: in the error, or as a message; no control characters, not too much" {
	server_disk 1
	program 'printf "a\033[2Jb\nc\n" >&2; exit 3'
	refused 2 'ended with status 3: a\x1b[2Jb c'
	program "echo the server is slow today >&2; cat '$CONF/server/$NAME'"
	run -0 --separate-stderr qs cryptopen --test "${ID}1"
	[[ $stderr == *'the server is slow today'* ]]
	program 'head -c 100000 /dev/zero | tr "\0" x >&2; exit 3'
	refused 2 'status 3: xxx'
	[ "${#output}" -lt 600 ]
}

@test "no key, a signal, no such interpreter: a sentence each" {
	server_disk 1
	program 'exit 0'
	refused 2 'printed no key'
	program 'kill -9 $$'
	refused 2 'signal 9'
	program 'exit 75'
	refused 75 'status 75'
	printf '#!/no/such/shell\n' >"$PROGRAM"
	refused 2 'cannot be run'
}

@test "too much output is refused, and does not go on for ever" {
	server_disk 1
	program 'exec cat /dev/zero'
	refused 2 'more than 8388608 bytes'
	program 'head -c 8388609 /dev/zero'
	refused 2 'more than 8388608 bytes'
	program 'head -c 8388608 /dev/zero'
	refused 2 'key printed by'
}

@test "the deadline: it is killed with all that it has started" {
	server_disk 1
	configure 'key_deadline = 1;'
	program "sleep 987 & echo \$! >'$BATS_TEST_TMPDIR/child'; trap '' TERM; sleep 987"
	refused 1 'after 1 second' key_deadline
	gone "$BATS_TEST_TMPDIR/child"
}

@test "a child that it leaves behind with its output open is not waited for, but killed" {
	server_disk 1
	program "sleep 986 & echo \$! >'$BATS_TEST_TMPDIR/child'; cat '$CONF/server/$NAME'"
	run -0 qs cryptopen --test "${ID}1"
	gone "$BATS_TEST_TMPDIR/child"
}

@test "what others could have changed is not run: 78" {
	server_disk 1
	chmod 0775 "$PROGRAM"
	refused 78 "$PROGRAM" 'can be written by group or others'
	chmod 0757 "$PROGRAM"
	refused 78 'can be written by group or others'
	chmod 0755 "$PROGRAM"
	for directory in "$CONF/bin" "$CONF" "$ROOT/etc"; do
		chmod 0777 "$directory"
		refused 78 "$directory can be written by group or others"
		run -78 qs cryptformat --no-open "${ID}2"
		chmod 0755 "$directory"
	done
	chmod 0644 "$PROGRAM"
	refused 78 'is not executable'
	if [ "$EUID" -eq 0 ]; then
		chmod 0755 "$PROGRAM"
		chown 12345 "$PROGRAM"
		refused 78 'belongs to another user'
		chown 0 "$PROGRAM"
		chown 12345 "$CONF/bin"
		refused 78 "$CONF/bin belongs to another user"
	fi
	[ ! -e "$ROOT/etc/crypttab" ]
}

@test "a link, a directory, a FIFO, nothing: 78" {
	server_disk 1
	mv "$PROGRAM" "$CONF/bin/real"
	ln -s real "$PROGRAM"
	refused 78 'is a symbolic link'
	rm "$PROGRAM"
	mkdir "$PROGRAM"
	refused 78 'is not a regular file'
	rmdir "$PROGRAM"
	mkfifo -m 0700 "$PROGRAM"
	refused 78 'is not a regular file'
	rm "$PROGRAM"
	refused 78 'No such file'
	mv "$CONF/bin" "$CONF/other"
	ln -s other "$CONF/bin"
	mv "$CONF/other/real" "$CONF/other/give-key"
	refused 78 "$CONF/bin is a symbolic link"
}

@test "the configuration takes only an absolute path" {
	local value
	for value in give-key ./give-key 'a b' '/a b' /bin/../x '/bin//x' "/bin/x'" '/$x'; do
		printf 'key_command = "%s";\n' "$value" >"$CONF/qs-util.conf"
		run -78 qs cryptopen --test "${ID}1"
	done
}

@test "no shell reads it: a path with its signs is a path" {
	server_disk 1
	mv "$PROGRAM" "$CONF/bin/a;b&c"
	printf 'key_command = "/etc/cryptconf/bin/a;b&c";\n' >"$CONF/qs-util.conf"
	run -0 qs cryptopen --test "${ID}1"
}

@test "its key is nowhere: not in arguments, not in output, not in a file" {
	server_disk 1
	head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$CONF/server/$NAME"
	stock_format "$(image_of 1)" "$CONF/server/$NAME"
	key=$(<"$CONF/server/$NAME")
	# The leak checker of a sanitizer build cannot run under strace.
	export ASAN_OPTIONS=detect_leaks=0
	run -0 strace -f -qq -s 100 -v -e trace=execve,write,pwrite64,sendto -o "$BATS_TEST_TMPDIR/trace" \
		"$QS_UTIL" --root="$ROOT" --verbose --json cryptopen --test "${ID}1"
	[[ $output != *"$key"* ]]
	# The program's own write into the pipe is the only one that has it.
	[ "$(grep -c "$key" "$BATS_TEST_TMPDIR/trace")" = 1 ]
	grep "$key" "$BATS_TEST_TMPDIR/trace" | grep -q 'write(1, '
	mv "$CONF/server" "$BATS_TEST_TMPDIR/away"
	run ! grep -raq "$key" "$ROOT"
}
