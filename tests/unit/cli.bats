#!/usr/bin/env bats
# The command line as such: table, usage, JSON, questions. What commands do to
# devices is tested elsewhere.

# shellcheck disable=SC2154 # stderr and stderr_lines come from run
bats_require_minimum_version 1.5.0

setup()
{
	tests=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
	top=$(dirname "$tests")
	root=$BATS_TEST_TMPDIR/root
	mkdir -p "$root/etc"
	cd "$BATS_TEST_TMPDIR" || return 1
}

# A command that waits for input that never comes is killed: status 124.
qs()
{
	timeout 60 "$QS_UTIL" "$@" </dev/null
}

in_root()
{
	qs --root="$root" "$@"
}

commands()
{
	qs help --format=json | jq -r '.commands[].name'
}

# Starting the validator once for a test and not for each answer saves a minute.
teardown()
{
	[[ ! -e answers ]] || "$tests/validate-json" --each <answers
}

# json EXIT ARGUMENT...: the command prints one object in one line, left in the
# file out, nothing on stderr, and exits as the object says.
json()
{
	local want=$1 status=0
	shift
	in_root --json "$@" >out 2>err || status=$?
	[[ $status -eq $want ]] || { echo "status $status, not $want: $*"; cat out err; return 1; }
	[[ ! -s err ]] || { echo "on stderr: $(<err)"; return 1; }
	[[ $(wc -l <out) -eq 1 ]] || { cat out; return 1; }
	cat out >>answers
	[[ $(jq '.error.exit // 0' <out) -eq $want ]]
}

# As another user than root; what root owns stays readable.
unprivileged()
{
	if [[ $EUID -eq 0 ]]; then
		unshare --user --map-user=1000 "$@"
	else
		"$@"
	fi
}

data_image()
{
	truncate -s 32M "$1"
	echo "somebody's data" | dd of="$1" conv=notrunc status=none
}

# ---- the table and what is made from it ----

@test "every command is in the help, the manual and the completion, with all its options" {
	qs help >overview
	local name option
	for name in $(commands); do
		grep -q "^  $name " overview
		grep -q "^\\\\fB$name\\\\fR" "$top/man/qs-util.8"
		grep -q "local commands=\".*\b$name\b" "$top/etc/qs-util.bash-completion"
		qs help "$name" >one
		grep -q "^usage: qs-util $name" one
		for option in $(qs help --format=json "$name" | jq -r '.commands[0].options[].name'); do
			grep -q -- "  --$option" one
			grep -q -- "--$option\b" "$top/etc/qs-util.bash-completion"
			grep -qF -- "\\-\\-${option//-/\\-}" "$top/man/qs-util-$name.8"
		done
	done
}

@test "global options are in the help, the manual and the completion" {
	qs help >overview
	local option
	for option in $(qs help --format=json | jq -r '.options[].name'); do
		grep -q -- "--$option\b" overview
		grep -q -- "--$option\b" "$top/etc/qs-util.bash-completion"
		grep -qF -- "\\-\\-$option" "$top/man/qs-util.8"
	done
}

@test "the committed manual pages, completion and configuration are those of this program" {
	"$top/man/generate" "$QS_UTIL" generated
	local directory
	for directory in man etc; do
		diff -ru -x generate -x '*.in' "$top/$directory" "generated/$directory" || { echo "run 'make docs'"; return 1; }
	done
}

@test "all exit statuses of the error codes are explained" {
	local status
	qs help >overview
	# The schema has been written by hand: it must not know more or less than the program.
	for status in $(jq -r '.definitions.error.properties.exit.enum[]' "$tests/schema.json"); do
		grep -qE "^  $status +[a-z]" overview
		grep -qF "\\fB$status\\fR" "$top/man/qs-util.8"
	done
	diff <(jq -r '.definitions.error.properties.code.enum[]' "$tests/schema.json" | sort) \
		<(qs help --format=json | jq -r '.exit_statuses[].codes[]' | sort)
	diff <(jq -r '.definitions.error.properties.exit.enum[]' "$tests/schema.json" | sort) \
		<(qs help --format=json | jq -r '.exit_statuses[].status | select(. > 0)' | sort)
	diff <(jq -r '.properties.command.enum[]' "$tests/schema.json") <(commands)
}

@test "help, --help behind a command, and help COMMAND say the same" {
	diff <(qs help) <(qs --help)
	diff <(qs help cryptopen) <(qs cryptopen --help)
	diff <(qs help cryptopen) <(qs -h cryptopen)
}

@test "no line of the help is wider than a terminal" {
	local name
	for name in '' $(commands); do
		# shellcheck disable=SC2086
		qs help $name >text
		[[ $(wc -L <text) -le 80 ]]
	done
}

# ---- completion ----

# complete WORD...: what the last word can become.
complete_words()
{
	bash -c '
		source "$1"
		shift
		COMP_WORDS=("$@")
		COMP_CWORD=$(($# - 1))
		_qs_util
		printf "%s\n" "${COMPREPLY[@]}"
	' - "$top/etc/qs-util.bash-completion" "$@"
}

@test "completion knows commands, options, values and files" {
	[[ $(complete_words qs-util cryptd) == cryptdestroy ]]
	[[ $(complete_words qs-util --json cryptst) == cryptstatus ]]
	[[ $(complete_words qs-util cryptformat --no-o) == --no-open ]]
	[[ $(complete_words qs-util cryptopen --no-o) == '' ]]
	[[ $(complete_words qs-util cryptformat --pbkdf = pb) == pbkdf2 ]]
	[[ $(complete_words qs-util cryptformat --pbkdf argon2i | sort) == $'argon2i\nargon2id' ]]
	[[ $(complete_words qs-util help cryptf) == cryptformat ]]
	[[ $(complete_words qs-util cryptopen /dev/x upd) == updatecrypttab ]]
	touch 'some.key'
	[[ $(complete_words qs-util cryptopen /dev/x some) == some.key ]]
	[[ $(complete_words qs-util cryptopenall --ro) == --root= ]]
	[[ $(complete_words qs-util --root = roo) == root ]]
}

# ---- parsing ----

@test "no command, an unknown command and an unknown option exit 64 and help" {
	run -64 --separate-stderr qs
	[[ $stderr == *"no command given"* && -z $output ]]
	run -64 --separate-stderr qs cryptfromat
	[[ ${stderr_lines[0]} == "qs-util: unknown command 'cryptfromat'; did you mean 'cryptformat'?" ]]
	run -64 --separate-stderr qs xyzzy
	[[ ${stderr_lines[0]} == "qs-util: unknown command 'xyzzy'; 'qs-util help' lists them" ]]
	run -64 --separate-stderr qs cryptformat --cypher=x /dev/x
	[[ ${stderr_lines[0]} == "qs-util cryptformat: unknown option '--cypher'; did you mean '--cipher'?" ]]
	[[ ${stderr_lines[1]} == "Try 'qs-util help cryptformat'." ]]
	run -64 --separate-stderr qs --force cryptformat /dev/x
	[[ ${stderr_lines[0]} == *"'--force'; options of a command such as 'cryptformat' stand behind"* ]]
	run -64 --separate-stderr qs help xyzzy
	[[ $stderr == *"there is no such command"* ]]
	run -64 --separate-stderr qs -x
	[[ $stderr == *"unknown option '-x'"* ]]
}

@test "an abbreviated option is unknown: it may become ambiguous later" {
	run -64 --separate-stderr qs cryptformat --forc /dev/x
	[[ ${stderr_lines[0]} == *"unknown option '--forc'; did you mean '--force'?" ]]
	run -64 --separate-stderr qs --js devicemap
	[[ $stderr == *"unknown option '--js'"* ]]
}

@test "values of options are checked" {
	run -64 --separate-stderr qs cryptformat --key-size=127 /dev/x
	[[ $stderr == *"--key-size=127: must be a number from 128 to 512"* ]]
	run -64 --separate-stderr qs cryptformat --key-size 99999999999999999999 /dev/x
	[[ $stderr == *"must be a number from 128 to 512"* ]]
	run -64 --separate-stderr qs cryptformat --key-size=-256 /dev/x
	run -64 --separate-stderr qs cryptformat --key-size=256x /dev/x
	run -64 --separate-stderr qs cryptformat --pbkdf=scrypt /dev/x
	[[ $stderr == *"must be one of pbkdf2, argon2i, argon2id"* ]]
	run -64 --separate-stderr qs cryptformat --key-file= /dev/x
	[[ $stderr == *"--key-file: its value FILE is empty"* ]]
	run -64 --separate-stderr qs cryptformat /dev/x --key-file
	[[ $stderr == *"--key-file needs a value: --key-file=FILE"* ]]
	run -64 --separate-stderr qs cryptformat --key-file --force /dev/x
	[[ $stderr == *"write --key-file=--force if"* ]]
	run -64 --separate-stderr qs --json=1 devicemap
	[[ $stderr == *"--json takes no value"* ]]
	run -64 --separate-stderr qs --progress=loud devicemap
	[[ $stderr == *"must be one of auto, none, json"* ]]
}

@test "the number of arguments is checked, and that none is empty" {
	run -64 --separate-stderr in_root cryptformat
	[[ $stderr == *"too few arguments; usage: qs-util cryptformat DEVICE... [KEYFILE]"* ]]
	run -64 --separate-stderr in_root cryptclose a b
	[[ $stderr == *"too many arguments; usage: qs-util cryptclose DEVICE"* ]]
	run -64 --separate-stderr in_root devicemap /dev/sda
	[[ $stderr == *"takes no arguments, but got '/dev/sda'"* ]]
	run -64 --separate-stderr in_root cryptdestroy /dev/x ''
	[[ $stderr == *"argument 2 is empty"* ]]
}

@test "global options stand before or behind the command, -- ends options" {
	diff <(in_root --json cryptopenall) <(in_root cryptopenall --json)
	run -4 --separate-stderr in_root cryptclose -- --json
	[[ $stderr == "qs-util cryptclose: --json: "* ]]
	run -64 --separate-stderr env POSIXLY_CORRECT=1 timeout 60 "$QS_UTIL" --root="$root" \
		cryptformat nothing --forc </dev/null
	[[ $stderr == *"unknown option '--forc'"* ]]
}

@test "cryptopen: only updatecrypttab may stand behind the key file, and only one key file" {
	run -64 --separate-stderr in_root cryptopen dev key word
	[[ $stderr == *"'word': only the word updatecrypttab"* ]]
	run -64 --separate-stderr in_root cryptopen --key-file=a dev b
	[[ $stderr == *"two key files: 'b' and --key-file=a"* ]]
	run -64 --separate-stderr in_root cryptopen --test dev updatecrypttab
	run -4 --separate-stderr in_root cryptopen /dev/absent /path/k.key updatecrypttab
	run -4 --separate-stderr in_root cryptopen /dev/absent updatecrypttab
}

@test "cryptformat: a last argument that is no device is the key file, unless --key-file" {
	truncate -s 32M a.img b.img
	# A key file that is refused shows who was taken for what, before any slow key derivation.
	json 2 cryptformat --no-open a.img absent.key
	[[ $(jq -r '.error | .code + .message' <out) == key-file*absent.key* ]]
	: >empty.key
	json 2 cryptformat --no-open a.img b.img empty.key
	[[ $(jq -r '.error | .code + .message' <out) == key-file*empty.key* ]]
	json 2 cryptformat --no-open --key-file=absent.key a.img b.img
	[[ $(jq -r '.error | .code + .message' <out) == key-file*absent.key* ]]
	# A disk that has vanished, and an image, are no key files.
	json 4 cryptformat --no-open /dev/absent0 /dev/absent1
	[[ $(jq -c '[.devices[].device]' <out) == '["/dev/absent0","/dev/absent1"]' ]]
	json 0 cryptformat --no-open a.img b.img
	[[ $(jq -c '[.devices[].device]' <out) == '["a.img","b.img"]' ]]
}

# ---- the system it works on ----

@test "commands that need root say so to others, but not below --root" {
	local name
	for name in $(qs help --format=json | jq -r '.commands[] | select(.needs_root).name'); do
		run -2 --separate-stderr unprivileged "$QS_UTIL" "$name" \
			"$([[ $name == *all || $name == crypttabrepair ]] && echo -q || echo x)" </dev/null
		[[ $stderr == "qs-util $name: must be run as root; use sudo" ]]
	done
	unprivileged "$QS_UTIL" --root="$root" cryptopenall </dev/null
	run -2 --separate-stderr unprivileged "$QS_UTIL" --root=/ cryptopenall </dev/null
}

@test "--root must be a directory" {
	run -64 --separate-stderr qs --root=absent cryptopenall
	[[ $stderr == *"cannot use --root=absent: No such file or directory"* ]]
	touch file
	run -64 --separate-stderr qs --root=file cryptopenall
	[[ $stderr == *"--root=file is not a directory"* ]]
	qs --root=root cryptopenall
	ln -s root link
	qs --root=link/. cryptopenall
}

@test "--config must exist, and a wrong configuration exits 78 before anything is done" {
	run -78 --separate-stderr in_root --config=absent.conf cryptopenall
	[[ $stderr == *absent.conf* ]]
	echo 'key_sise = 512;' >wrong.conf
	run -78 --separate-stderr in_root --config=wrong.conf cryptopenall
	[[ $stderr == *wrong.conf*1*key_sise* ]]
	json 78 --config=wrong.conf cryptformat some.img
	mkdir -p "$root/etc/cryptconf"
	cp wrong.conf "$root/etc/cryptconf/qs-util.conf"
	run -78 --separate-stderr in_root cryptopenall
	qs help >/dev/null
}

# ---- output ----

@test "--json is one valid object whatever is wrong with the command line" {
	local name
	json 64
	json 64 xyzzy
	json 64 --xyzzy
	json 64 --key-file=x cryptformat
	for name in $(commands); do
		json 64 "$name" --xyzzy
		[[ $(jq -r .command <out) == "$name" ]]
		json 64 "$name" ''
		json 64 "$name" --progress
		json 64 "$name" --key-file --json
	done
	for name in cryptformat cryptopen cryptclose cryptdestroy; do
		json 64 "$name"
		json 64 "$name" a b c d e --wrong
	done
	run -64 --separate-stderr qs cryptformat --wrong --json
	"$tests/validate-json" <<<"$output"
}

@test "--json of every command on a device that is not there validates" {
	json 4 cryptformat /dev/absent
	json 4 cryptopen /dev/absent
	json 4 cryptclose /dev/absent
	json 4 --yes cryptdestroy /dev/absent
	json 4 cryptstatus /dev/absent
	json 0 cryptopenall
	json 0 cryptcloseall
	json 0 help
	json 0 help cryptopen
	json 0 help --format=man
	json 0 --version
	[[ $(jq -r .result.version <out) == "$(qs --version | sed 's/^qs-util //')" ]]
}

@test "devicemap lists each disk in the documented form, --json validates" {
	in_root devicemap >text
	run -1 grep -vP '^/dev/[^\t ]+\t(-|/[^\t ]+), [^\t]*, [^\t]*, [^\t]*$' text
	in_root --json devicemap --all >out || true
	"$tests/validate-json" <out
	[[ $(jq '.devices | length' <out) -ge $(wc -l <text) ]]
}

@test "--json of the life of an image validates at each step" {
	truncate -s 32M disk.img
	json 0 cryptformat --no-open disk.img
	json 0 cryptstatus disk.img
	[[ $(jq -r '.devices[0].state' <out) == closed ]]
	json 0 cryptstatus
	json 5 cryptformat --no-open disk.img
	json 0 cryptopen --test disk.img
	json 0 cryptopenall --test
	json 0 cryptclose disk.img
	json 7 cryptstatus disk.img absent.img
	json 0 --yes cryptdestroy disk.img
}

@test "names with control characters and wrong UTF-8 do not reach the terminal, JSON stays valid" {
	local bad=$'b\e[31m\x9b\xff\xe2\x80\xaed.img'
	run -4 --separate-stderr in_root cryptclose "$bad"
	[[ $stderr == *'b\x1b[31m\x9b\xff\xe2\x80\xaed.img'* ]]
	run -1 grep -P '[^\x20-\x7e]' <<<"$stderr"
	json 4 cryptclose "$bad"
	json 64 "$bad"
}

@test "output that cannot be written is a failure" {
	local what
	for what in help '--json help' --version devicemap; do
		# shellcheck disable=SC2086
		run -1 bash -c '"$@" >/dev/full' - "$QS_UTIL" --root="$root" $what
		[[ $output == *"cannot write to standard output: No space left on device"* ]]
		# shellcheck disable=SC2086
		run -1 bash -c '"$@" >&-' - "$QS_UTIL" --root="$root" $what
		[[ $output == *"cannot write to standard output"* ]]
	done
}

@test "with the standard descriptors closed no file is opened in their place" {
	truncate -s 32M disk.img
	# The last word on each line is the descriptor that was given out.
	ASAN_OPTIONS=detect_leaks=0 strace -f -qq -o trace -e trace=openat \
		bash -c 'exec "$@" <&- >&- 2>&-' - \
		"$QS_UTIL" --root="$root" cryptformat --no-open disk.img || true
	grep -q 'disk.img.* = [0-9]' trace
	run -1 grep -E '(disk\.img|/etc/crypt|/run/qs-util).* = [012]$' trace
	in_root cryptopen --test disk.img
}

@test "--quiet prints no success, but errors and what was asked for" {
	truncate -s 32M disk.img
	run -0 --separate-stderr in_root --quiet cryptformat --no-open disk.img
	[[ -z $output && -z $stderr ]]
	run -0 in_root --quiet cryptstatus disk.img
	[[ $output == *"state"* ]]
	run -4 --separate-stderr in_root -q cryptclose /dev/absent
	[[ -z $output && $stderr == *"/dev/absent"* ]]
}

@test "--progress=json prints JSON lines on stderr, messages too" {
	truncate -s 32M a.img b.img
	in_root --progress=json cryptformat --no-open --key-file=absent.key a.img b.img 2>err || true
	jq -e .event <err
	rm -f err
	in_root --progress=json --json cryptformat --no-open a.img absent.img >out 2>err || true
	"$tests/validate-json" <out
	in_root --progress=json cryptformat --no-open b.img 2>err
	jq -es 'map(select(.event == "progress")) | length > 0 and all(.total == 1 and .done <= 1)' err
	jq -es 'any(.step == "format")' err
	in_root --progress=none cryptformat --no-open b.img 2>err || true
	run -1 grep -q progress err
}

# ---- questions ----

@test "without a terminal nothing is asked: exit 6 and nothing changes" {
	data_image disk.img
	sha256sum disk.img >before
	run -6 --separate-stderr in_root cryptformat --force --no-open disk.img
	[[ $stderr == *"not asked without a terminal: give --yes to confirm, nothing was changed" ]]
	json 6 cryptformat --force --no-open disk.img
	[[ $(jq -r .error.code <out) == not-confirmed ]]
	run -6 bash -c 'yes yes | "$@"' - timeout 60 "$QS_UTIL" --root="$root" cryptformat --force \
		--no-open disk.img
	sha256sum -c before
	truncate -s 0 disk.img
	truncate -s 32M disk.img
	in_root cryptformat --no-open disk.img
	sha256sum disk.img >before
	run -6 --separate-stderr in_root cryptdestroy disk.img
	[[ $stderr == *"not asked without a terminal"* ]]
	json 6 cryptdestroy disk.img
	sha256sum -c before
	in_root cryptopen --test disk.img
}

@test "on a terminal only the word yes goes on" {
	local answer
	data_image disk.img
	sha256sum disk.img >before
	for answer in no y YES 'yes ' ' yes' '' 'yes yes'; do
		run -6 timeout 60 "$tests/on-terminal" "$answer" "$QS_UTIL" --root="$root" \
			cryptformat --force --no-open disk.img
		[[ $output == *"disk.img"*"holds data"* ]]
		[[ $output == *"not confirmed with 'yes', nothing was changed"* ]]
	done
	sha256sum -c before
	run -0 timeout 60 "$tests/on-terminal" yes "$QS_UTIL" --root="$root" \
		cryptformat --force --no-open disk.img
	run -0 timeout 60 "$tests/on-terminal" no "$QS_UTIL" --root="$root" cryptopen --test disk.img
	[[ $output != *"Type "* ]]
}

@test "cryptdestroy shows the device and asks; an interrupt there changes nothing" {
	truncate -s 32M disk.img
	in_root cryptformat --no-open disk.img
	sha256sum disk.img >before
	# 130: ended by SIGINT, as any program that is interrupted before it did something.
	run -130 timeout --foreground 60 "$tests/on-terminal" ^C "$QS_UTIL" --root="$root" \
		cryptdestroy disk.img
	[[ $output == *"disk.img"*"enc-disk.img"*"Type 'yes' to go on: "* ]]
	sha256sum -c before
	run -6 timeout 60 "$tests/on-terminal" no "$QS_UTIL" --root="$root" cryptdestroy disk.img
	sha256sum -c before
	in_root cryptopen --test disk.img
	run -0 timeout 60 "$tests/on-terminal" yes "$QS_UTIL" --root="$root" cryptdestroy disk.img
	run ! cryptsetup isLuks disk.img
}

@test "--force on an empty device asks nothing, --yes answers, --json never asks" {
	truncate -s 32M empty.img
	in_root cryptformat --force --no-open empty.img
	data_image disk.img
	in_root --yes cryptformat --force --no-open disk.img
	data_image other.img
	run -6 timeout 60 "$tests/on-terminal" yes "$QS_UTIL" --root="$root" --json \
		cryptformat --force --no-open other.img
	"$tests/validate-json" <<<"$output"
}

# ---- process ----

@test "the process cannot be dumped and its files are private" {
	truncate -s 32M disk.img
	# The leak checker needs the tracing that strace has taken.
	ASAN_OPTIONS=detect_leaks=0 strace -f -o trace -e trace=prctl,prlimit64,setrlimit,umask \
		"$QS_UTIL" --root="$root" cryptformat --no-open disk.img
	grep -q 'PR_SET_DUMPABLE, *\(0\|SUID_DUMP_DISABLE\)' trace
	grep -q 'RLIMIT_CORE, {rlim_cur=0, rlim_max=0}' trace
	grep -q 'umask(077)' trace
	[[ -z $(find "$root/etc/cryptconf" -perm /077) ]]
}

@test "--version opens no device, no configuration and no key" {
	ASAN_OPTIONS=detect_leaks=0 run -0 strace -o trace -e trace=openat,open "$QS_UTIL" --root="$root" --version
	run -1 grep -E '"(/dev/|/etc/crypt|/sys/block)|cryptconf' trace
}

@test "config prints the settings in force, as a file that says the same" {
	mkdir -p root/etc/cryptconf
	echo 'keys_dir = "/media/stick"; lock_wait = 5; workqueue_flags = false; name_order = ["wwn-"];' \
		>root/etc/cryptconf/qs-util.conf
	run -0 "$QS_UTIL" --root=root config keys_dir
	[ "$output" = /media/stick ]
	run -0 "$QS_UTIL" --root=root config name_order
	[ "$output" = wwn- ]
	"$QS_UTIL" --root=root config >all
	[ "$(grep -c ' = ' all)" -eq "$("$QS_UTIL" help --format=config | grep -c '^#[a-z0-9_]* = ')" ]
	"$QS_UTIL" --config=all config | diff all -
	run -64 "$QS_UTIL" config nonsense
	[[ $output == *"no setting is called 'nonsense'"* ]]
	echo 'lock_wait = "soon";' >bad
	run -78 "$QS_UTIL" --config=bad config
}
