# A scratch system for Bats: a root directory with image files as disks, which
# get by-id links of their own. "load tree", then make_tree in setup().
# shellcheck shell=bash

bats_require_minimum_version 1.5.0

# Set by run-checks; for a file that is run by hand they are the usual ones.
QS_BUILD=${QS_BUILD:-$(dirname "$BATS_TEST_DIRNAME")/../build}
QS_UTIL=${QS_UTIL:-$QS_BUILD/qs-util}

readonly ID=/dev/disk/by-id/scsi-3000 # disk N is "$ID"N

# make_tree COUNT: COUNT empty disks of 64 MiB.
make_tree()
{
	local n
	ROOT=$BATS_TEST_TMPDIR/root
	mkdir -p "$ROOT"/{etc,run,img,dev/disk/by-id,dev/disk/by-uuid}
	for ((n = 1; n <= $1; n++)); do
		truncate -s 64M "$ROOT/img/d$n"
		ln -sfn "$ROOT/img/d$n" "$ROOT$ID$n"
	done
}

# shellcheck disable=SC2120 # without arguments it prints the usage
qs()
{
	timeout 120 "$QS_UTIL" --root="$ROOT" "$@" </dev/null
}

# typed TEXT... -- ARGUMENT...: somebody types a TEXT at each prompt for a secret. What the
# terminal shows is the output.
typed()
{
	local texts=()
	while [ "$1" != -- ]; do
		texts+=("$1")
		shift
	done
	python3 -B "$BATS_TEST_DIRNAME/typist.py" "${texts[@]}" -- "$QS_UTIL" --root="$ROOT" "${@:2}"
}

# qs_input TEXT ARGUMENT...: with that line on standard input.
qs_input()
{
	local text=$1
	shift
	printf '%s\n' "$text" | timeout 120 "$QS_UTIL" --root="$ROOT" "$@"
}

# failing CALLS PATH ARGUMENT...: the command, whose CALLS on PATH fail with EIO.
failing()
{
	ASAN_OPTIONS=detect_leaks=0 strace -f -qq -o /dev/null -P "$2" -e "trace=$1" \
		-e "inject=$1:error=EIO" "$QS_UTIL" --root="$ROOT" "${@:3}"
}

# recipe TITLE: the lines of a recipe in the manual of keystore.
recipe()
{
	sed -n "/^\.SS $1/,/^\.EE/"'{/^\.EX/,/^\.EE/{/^\.E/d;s/\\-/-/g;s/\\(aq/'\''/g;s/\\e/\\/g;p}}' \
		"$BATS_TEST_DIRNAME/../../man/qs-util-keystore.8"
}

# key_of N, backup_of N, image_of N: the files of disk N.
key_of()
{
	echo "$ROOT/etc/cryptconf/keys/enc-scsi-3000$1.key"
}

backup_of()
{
	echo "$ROOT/etc/cryptconf/headers/enc-scsi-3000$1.header"
}

image_of()
{
	echo "$ROOT/img/d$1"
}

# The judge: does stock cryptsetup open image $1 with key file $2?
stock_opens()
{
	cryptsetup open --test-passphrase --key-file "$2" "$1"
}

# stock_format IMAGE KEYFILE [OPTION...]
stock_format()
{
	local image=$1 key=$2
	shift 2
	cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$@" "$image" "$key"
}

# new_key FILE: 64 random bytes, private.
new_key()
{
	rm -f "$1"
	head -c 64 /dev/urandom >"$1"
	chmod 0400 "$1"
}

sum()
{
	sha256sum <"$1"
}

# enrolled_with PROVIDER COUNT: that many devices, enabled and enrolled, without another key.
enrolled_with()
{
	local n devices=()
	for ((n = 1; n <= $2; n++)); do devices+=("$ID$n"); done
	qs cryptformat --no-open "${devices[@]}"
	qs --yes keystore enable --provider "$1"
	qs cryptenroll "${devices[@]}" --keystore
	rm -rf "$BATS_TEST_TMPDIR/keys"
	mv "$ROOT/etc/cryptconf/keys" "$BATS_TEST_TMPDIR/keys"
	mkdir -m 0700 "$ROOT/etc/cryptconf/keys"
}
